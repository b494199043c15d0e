"""Catalogues, cutouts and how they reach the network."""
