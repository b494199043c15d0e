"""Encoders: from a galaxy's image, magnitudes or vector and E(B-V) to an embedding; one file each."""

import importlib
from typing import TYPE_CHECKING, Any

from photoz_lit.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from photoz_lit.models.encoders.layers import Encoder

ENCODERS = {
    "fast": "photoz_lit.models.encoders.fast.Fast",
    "mlp": "photoz_lit.models.encoders.mlp.MLP",
    "net_p": "photoz_lit.models.encoders.net_p.NetP",
    "net_s1": "photoz_lit.models.encoders.net_s.NetS1",
    "net_s2": "photoz_lit.models.encoders.net_s.NetS2",
    "net_s3": "photoz_lit.models.encoders.net_s.NetS3",
    "net_t": "photoz_lit.models.encoders.net_t.NetT",
    "precomputed": "photoz_lit.models.encoders.precomputed.Precomputed",
}
"""Name in the settings -> class, imported when it is asked for."""


def encoder_class(name: str) -> "type[Encoder]":
    """Return the class of an encoder.

    Raises
    ------
    ConfigError
        There is none of this name.
    """
    if name not in ENCODERS:
        raise ConfigError(f"encoder={name}: there is none of this name. There are: {', '.join(ENCODERS)}")
    module, _, kind = ENCODERS[name].rpartition(".")
    found: type[Encoder] = getattr(importlib.import_module(module), kind)
    return found


def build_encoder(
    name: str,
    n_columns: int,
    pixels: int,
    settings: Any = None,
    generator: "torch.Generator | None" = None,
) -> "Encoder":
    """Build an encoder with initial weights.

    Parameters
    ----------
    name : str
        One of `ENCODERS`.
    n_columns, pixels : int
        Bands of the image, features of a catalogue or size of a vector; side of the image.
    settings : optional
        The encoder's own `Settings`; their defaults without.
    generator : torch.Generator, optional
        Source of the initial weights; PyTorch's global one without.
    """
    kind = encoder_class(name)
    return kind(n_columns, pixels, kind.Settings() if settings is None else settings, generator)


def readers(kind: str) -> list[str]:
    """Return the encoders that read a kind of inputs: `images`, `features` or `vectors`."""
    return [name for name in ENCODERS if kind in encoder_class(name).reads]
