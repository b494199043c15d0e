"""A small residual network with aperture photometry, for training in minutes on two CPU cores."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photoz_lit.models.encoders.layers import Encoder, Standardisation, append_ebv, initialise
from photoz_lit.models.encoders.settings import ImageSettings


def round_apertures(pixels: int, sigmas: Sequence[float]) -> Tensor:
    """Return Gaussian weights around the centre of a square map, (len(sigmas), pixels^2), 1 at the centre.

    The 8 symmetries of the square leave them unchanged. Widths are in pixels; infinity gives equal weights.
    """
    offset = torch.arange(pixels, dtype=torch.float64) - (pixels - 1) / 2
    radius_squared = (offset[:, None] ** 2 + offset[None, :] ** 2).flatten()
    widths = torch.tensor(sigmas, dtype=torch.float64)[:, None]
    return torch.exp(-0.5 * radius_squared / widths**2).float()


class AperturePhotometry(nn.Module):
    """Magnitudes, colours and concentrations in round apertures, from a stretched image, in float32.

    They are what catalogues offer, and the symmetries of the square leave them unchanged: a short training
    need not learn them. Fluxes enter as asinh(flux / 1 nanomaggy), a magnitude that stays finite for fluxes
    below zero (Lupton et al. 1999), beside its differences between neighbouring bands and neighbouring
    apertures.
    """

    apertures: Tensor

    def __init__(self, n_bands: int, pixels: int, sigmas: Sequence[float] = (1.5, 3.0, 6.0, 12.0)) -> None:
        super().__init__()
        self.register_buffer("apertures", round_apertures(pixels, sigmas), persistent=False)
        n = len(sigmas)
        self.n_columns = n * n_bands + n * (n_bands - 1) + (n - 1) * n_bands

    def forward(self, image: Tensor) -> Tensor:
        """Map stretched images (n, n_bands, pixels, pixels) to columns (n, n_columns)."""
        with torch.autocast(image.device.type, enabled=False):
            stretched = image.float().permute(0, 2, 3, 1).flatten(1, 2)
            # The inverse of the stretch sign(x) (sqrt(|x| + 1) - 1).
            flux = stretched.abs().add_(2).mul_(stretched)
            magnitude = torch.asinh(self.apertures @ flux)
            colour = magnitude[:, :, 1:] - magnitude[:, :, :-1]
            concentration = magnitude[:, 1:] - magnitude[:, :-1]
            return torch.cat([magnitude.flatten(1), colour.flatten(1), concentration.flatten(1)], dim=1)


class Residual(nn.Module):
    """Residual block without normalisation: x + conv(relu(conv(relu(x)))), the identity at first."""

    def __init__(self, n_channels: int, n_inner: int, inner_kernel: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(n_channels, n_inner, inner_kernel, padding=inner_kernel // 2)
        self.outer = nn.Conv2d(n_inner, n_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, n_channels, H, W) to the same shape."""
        change: Tensor = self.outer(F.relu(self.inner(F.relu(x))))
        return x + change


class Fast(Encoder):
    """Small residual network for training in minutes on two CPU cores.

    Patches of 4x4 pixels become 64 channels (no convolution runs at full resolution), one residual block
    works at a quarter and two at an eighth of the size, and means under Gaussians of three widths around
    the centre keep the radial information. Aperture photometry of the image and E(B-V) join them before two
    fully connected layers. There is no batch normalisation: nothing changes in evaluation or when frozen.

    Sides that 8 does not divide are padded with zeros, evenly.
    """

    n_features = 128
    pool_weights: Tensor

    def __init__(
        self, n_columns: int, pixels: int, settings: ImageSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_columns, pixels, settings, generator)
        padding = -pixels % 8
        self.padding = (padding // 2, padding - padding // 2) * 2
        self.stem = nn.Conv2d(n_columns, 64, 4, stride=4)
        self.quarter = Residual(64, 32, inner_kernel=1)
        self.down = nn.Conv2d(64, 96, 2, stride=2)
        self.eighth = nn.Sequential(Residual(96, 64, inner_kernel=3), Residual(96, 32, inner_kernel=1))
        weights = round_apertures((pixels + padding) // 8, (0.7, 2.0, math.inf))
        self.register_buffer("pool_weights", weights / weights.sum(1, keepdim=True), persistent=False)
        self.photometry = AperturePhotometry(n_columns, pixels)
        self.standardisation = Standardisation(self.photometry.n_columns + 1)
        n_joined = 3 * 96 + self.photometry.n_columns + 1
        self.fc = nn.Sequential(
            nn.Linear(n_joined, 256), nn.ReLU(), nn.Linear(256, self.n_features), nn.ReLU()
        )
        initialise(self, bias=0.0, generator=generator)
        for block in (self.quarter, *self.eighth):
            nn.init.zeros_(block.outer.weight)

    def standardise(self, inputs: Tensor, ebv: Tensor) -> None:
        """Take shift and scale of photometry and E(B-V) from stretched training images."""
        self.standardisation.fit(append_ebv(self.photometry(inputs), ebv))

    def forward(self, image: Tensor, ebv: Tensor) -> Tensor:
        """Map images (n, n_bands, pixels, pixels) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        x = F.pad(image, self.padding) if any(self.padding) else image
        x = self.eighth(self.down(F.relu(self.quarter(self.stem(x)))))
        cells = F.relu(x).permute(0, 2, 3, 1).flatten(1, 2)
        pooled = (self.pool_weights.to(cells.dtype) @ cells).flatten(1)
        columns = self.standardisation(append_ebv(self.photometry(image), ebv))
        embedding: Tensor = self.fc(torch.cat([pooled, columns.to(pooled.dtype)], dim=1))
        return embedding
