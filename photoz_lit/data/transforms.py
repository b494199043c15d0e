"""What happens to a batch on its way into the network, on the device."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, Protocol

import torch
from torch import Tensor

N_SYMMETRIES = 8
CHUNK = 8  # images at a time: what a processor's cache takes


def stretch(x: Tensor, scale: float = 1.0) -> Tensor:
    """Compress fluxes (nanomaggies): sign(x) (sqrt(abs(x) / scale + 1) - 1), Lin et al. 2022, section 3."""
    # In place: on a CPU the allocation of each intermediate array costs more than its arithmetic.
    return x.abs().div_(scale).add_(1).sqrt_().sub_(1).copysign_(x)


@cache
def places(pixels: int, device: torch.device) -> Tensor:
    """Return where each pixel of a turned square image comes from, (8, pixels^2), by symmetry."""
    with torch.inference_mode(False):  # to be used outside of it too
        square = torch.arange(pixels**2, device=device).view(pixels, pixels)
        transposed = [square, square.T]
        flips = [[axis for axis, bit in ((0, 2), (1, 4)) if s & bit] for s in range(N_SYMMETRIES)]
        return torch.stack([transposed[s & 1].flip(flips[s]).flatten() for s in range(N_SYMMETRIES)])


def apply_symmetry(images: Tensor, symmetry: Tensor) -> Tensor:
    """Turn and mirror images (n, bands, pixels, pixels), each by one of the symmetries of the square, (n,).

    Of three bits, 1 transposes, 2 flips rows, 4 flips columns; 0 leaves the image as it is. Pixels are
    gathered by index: a device need not tell the processor how many images have which symmetry.
    """
    where = places(images.shape[-1], images.device)[symmetry][:, None]
    return images.flatten(2).gather(2, where.expand(-1, images.shape[1], -1)).view_as(images)


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
        """Return the network's input in the given views, channels last."""
        if inputs.device.type != "cpu" or torch.compiler.is_compiling():
            return self._made(inputs, view).contiguous(memory_format=torch.channels_last)
        shape = inputs.shape
        out = torch.empty(shape, dtype=torch.float32, memory_format=torch.channels_last)
        for part in (slice(i, i + CHUNK) for i in range(0, shape[0], CHUNK)):
            out[part] = self._made(inputs[part], None if view is None else view[part])
        return out

    def _made(self, inputs: Tensor, view: Tensor | None) -> Tensor:
        stretched = stretch(inputs.float(), self.scale)
        return stretched if view is None else apply_symmetry(stretched, view)


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
