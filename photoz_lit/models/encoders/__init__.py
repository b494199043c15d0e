"""Encoders: from a galaxy's image, magnitudes or vector and E(B-V) to an embedding; one file each.

A line of `ENCODERS` says where the class is; what is imported at every start has its settings beside it.
"""

import importlib
from typing import TYPE_CHECKING

from photoz_lit.errors import ConfigError
from photoz_lit.models.encoders.settings import (
    Entry,
    ImageSettings,
    MLPSettings,
    PhotometrySettings,
    VectorSettings,
)
from photoz_lit.setting import settings_of

if TYPE_CHECKING:
    import torch

    from photoz_lit.models.encoders.layers import Encoder
    from photoz_lit.models.encoders.settings import EncoderSettings

HERE = "photoz_lit.models.encoders"
ENCODERS: dict[str, Entry | str] = {
    "fast": Entry(f"{HERE}.fast.Fast", PhotometrySettings),
    "mlp": Entry(f"{HERE}.mlp.MLP", MLPSettings),
    "net_p": Entry(f"{HERE}.net_p.NetP", ImageSettings),
    "net_s1": Entry(f"{HERE}.net_s.NetS1", ImageSettings),
    "net_s2": Entry(f"{HERE}.net_s.NetS2", ImageSettings),
    "net_s3": Entry(f"{HERE}.net_s.NetS3", ImageSettings),
    "net_t": Entry(f"{HERE}.net_t.NetT", ImageSettings),
    "precomputed": Entry(f"{HERE}.precomputed.Precomputed", VectorSettings),
    "steady": Entry(f"{HERE}.fast.Steady", PhotometrySettings),
}


def encoder_class(name: str) -> "type[Encoder]":
    """Return the class of an encoder.

    Raises
    ------
    ConfigError
        There is none of this name.
    """
    if name not in ENCODERS:
        raise ConfigError(f"encoder={name}: there is none of this name. There are: {', '.join(ENCODERS)}")
    entry = ENCODERS[name]
    module, _, kind = (entry if isinstance(entry, str) else entry.where).rpartition(".")
    found: type[Encoder] = getattr(importlib.import_module(module), kind)
    return found


def build_encoder(
    name: str,
    n_columns: int,
    pixels: int,
    settings: "EncoderSettings | None" = None,
    generator: "torch.Generator | None" = None,
) -> "Encoder":
    """Build an encoder with initial weights.

    Parameters
    ----------
    name : str
        One of `ENCODERS`.
    n_columns, pixels : int
        Bands of the image, features of a catalogue or size of a vector; side of the image.
    settings : EncoderSettings, optional
        The encoder's own; their defaults without.
    generator : torch.Generator, optional
        Source of the initial weights; PyTorch's global one without.
    """
    kind = encoder_class(name)
    return kind(n_columns, pixels, kind.Settings() if settings is None else settings, generator)


def reads(name: str) -> tuple[str, ...]:
    """Return the kinds of inputs that an encoder reads: `images`, `features`, `vectors`."""
    found: tuple[str, ...] = settings_of(f"{HERE}:ENCODERS", name).reads  # type: ignore[attr-defined]
    return found


def readers(kind: str) -> list[str]:
    """Return the encoders that read a kind of inputs."""
    return [name for name in ENCODERS if kind in reads(name)]
