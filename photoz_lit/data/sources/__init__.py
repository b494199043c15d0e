"""One file a source of galaxies."""
