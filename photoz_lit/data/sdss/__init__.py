"""Images and catalogue of the Sloan Digital Sky Survey: query, frames, cutouts."""
