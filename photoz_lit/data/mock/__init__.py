"""The embedded simulated survey: who the galaxies are (`population`) and how they look (`render`)."""
