"""What happens to a batch on its way into the network, on the device."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

N_SYMMETRIES = 8


def stretch(x: Tensor, scale: float = 1.0) -> Tensor:
    """Compress fluxes (nanomaggies): sign(x) (sqrt(abs(x) / scale + 1) - 1), Lin et al. 2022, section 3."""
    # In place: on a CPU the allocation of each intermediate array costs more than its arithmetic.
    return x.abs().div_(scale).add_(1).sqrt_().sub_(1).copysign_(x)


def apply_symmetry(images: Tensor, symmetry: Tensor) -> Tensor:
    """Turn and mirror images (n, bands, pixels, pixels), each by one of the symmetries of the square, (n,).

    Of three bits, 1 transposes, 2 flips rows, 4 flips columns; 0 leaves the image as it is.
    """
    out = torch.empty_like(images)
    for s in range(N_SYMMETRIES):
        members = (symmetry == s).nonzero()[:, 0]
        turned = images[members]
        if s & 1:
            turned = turned.transpose(-1, -2)
        axes = [axis for axis, bit in ((-2, 2), (-1, 4)) if s & bit]
        out[members] = turned.flip(axes) if axes else turned
    return out


class Inputs(Protocol):
    """What turns a batch of a store into the network's input, in one of `n_views` views.

    What is made `once` costs much and does not change: a training keeps it.
    """

    once: ClassVar[bool]

    @property
    def n_views(self) -> int:
        """How many views there are."""

    def __call__(self, inputs: Tensor, view: Tensor | None, unit: Tensor | None = None) -> Tensor:
        """Return the network's input in the given views (n,), None: view 0; `unit` (n, F): normal draws."""


@dataclass(frozen=True)
class ImageInputs:
    """Cutouts: symmetry, then stretch. A view is one of the 8 symmetries."""

    once: ClassVar[bool] = False
    scale: float = 1.0  # flux at which the stretch's square root begins, nanomaggies; 1 in the paper
    n_views: int = N_SYMMETRIES

    def __call__(self, inputs: Tensor, view: Tensor | None, unit: Tensor | None = None) -> Tensor:
        """Return the network's input in the given views."""
        return stretch((inputs if view is None else apply_symmetry(inputs, view)).float(), self.scale)


@dataclass(frozen=True)
class CatalogueInputs:
    """Magnitudes and errors (n, 2, F): to magnitudes, colours and errors (n, 3 F - 1)."""

    once: ClassVar[bool] = False
    noise: float = 0.0  # views other than 0 perturb the magnitudes by so many times their errors
    with_errors: bool = True  # whether the errors are features

    @property
    def n_views(self) -> int:
        """One view without noise; else as many as an image has."""
        return N_SYMMETRIES if self.noise > 0 else 1

    def __call__(self, inputs: Tensor, view: Tensor | None, unit: Tensor | None = None) -> Tensor:
        """Return the network's features; `unit` (n, F) are standard normal draws for the noise."""
        magnitudes, errors = inputs[:, 0].float(), inputs[:, 1].float()
        if self.noise > 0 and unit is not None and view is not None:
            magnitudes = magnitudes + self.noise * errors * unit * (view > 0)[:, None]
        features = [magnitudes, magnitudes[:, :-1] - magnitudes[:, 1:]]
        return torch.cat([*features, errors] if self.with_errors else features, dim=1)


@dataclass(frozen=True)
class VectorInputs:
    """Vectors (n, d), as they are."""

    once: ClassVar[bool] = False
    n_views: int = 1

    def __call__(self, inputs: Tensor, view: Tensor | None, unit: Tensor | None = None) -> Tensor:
        """Return the vectors in float32."""
        return inputs.float()
