"""Settings of encoders and what they read; light, since they are read at every start."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from photoz_lit.setting import setting


@dataclass
class EncoderSettings:
    """Of every encoder: its name, and the kinds of inputs that it reads."""

    reads: ClassVar[tuple[str, ...]] = ("images", "features", "vectors")

    name: str = ""


@dataclass
class ImageSettings(EncoderSettings):
    """Of encoders of images."""

    reads: ClassVar[tuple[str, ...]] = ("images",)

    # nMgy: flux at which the square-root stretch of `photoz_lit.data.transforms` begins
    stretch_scale: float = setting(1.0, above=0)


@dataclass
class PhotometrySettings(EncoderSettings):
    """Of `fast` and `steady`: there are none."""

    reads: ClassVar[tuple[str, ...]] = ("images",)


@dataclass
class MLPSettings(EncoderSettings):
    """Of `mlp`: widths of its layers, the last one the size of the embedding."""

    reads: ClassVar[tuple[str, ...]] = ("features", "vectors")

    hidden: list[int] = setting([256, 256], least=1)
    also: list[str] = setting([])  # columns that are read beside the magnitudes, of a store of images
    noise: float = setting(0.0, least=0)  # training magnitudes are perturbed by so many times their errors


@dataclass
class VectorSettings(EncoderSettings):
    """Of `precomputed`: there are none."""

    reads: ClassVar[tuple[str, ...]] = ("vectors",)


class Entry(NamedTuple):
    """Where an encoder's class is, and its settings, so that they can be had without it."""

    where: str
    Settings: type[EncoderSettings]
