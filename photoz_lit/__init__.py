"""Photometric redshifts from galaxy images, without the biases that deep classifiers add."""

__version__ = "0.1.0"
