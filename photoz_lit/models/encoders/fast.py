"""Adaptive photometry and a small network on it, for training in a minute on one CPU core."""

import math
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photoz_lit.data.transforms import Inputs
from photoz_lit.models.encoders.layers import (
    Encoder,
    Standardisation,
    append_ebv,
    initialise,
    silu_layers,
)
from photoz_lit.models.encoders.settings import PhotometrySettings

N_APERTURES = 8
OF_SHAPE = [4, 6]  # those in which shapes are measured
STEADY = 5  # an aperture twice as wide as the galaxy: what neither seeing nor the sky moves by much
LEAST_NOISE = 1e-4  # nanomaggies per pixel: that of an image without any
CHUNK = 128  # galaxies: what a processor's cache takes
FARTHEST = 4.0  # standard deviations: what a column may reach


class Ellipse(NamedTuple):
    """Centres (pixels from the middle) and second moments (pixels^2) of elliptical Gaussians, (n,) each."""

    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    def distance(self, powers: Tensor) -> Tensor:
        """Return squared distances in units of the ellipse, (n, n_pixels), from `powers_of_place`."""
        determinant = self.xx * self.yy - self.xy**2
        a, b, c = self.yy / determinant, -self.xy / determinant, self.xx / determinant
        x, y = self.x, self.y
        constant = a * x * x + 2 * b * x * y + c * y * y
        by_power = [constant, -2 * (a * x + b * y), -2 * (b * x + c * y), a, 2 * b, c]
        return torch.stack(by_power, dim=1) @ powers

    def size(self) -> Tensor:
        """Return the geometric mean of the standard deviations along the axes, pixels."""
        return (self.xx * self.yy - self.xy**2) ** 0.25


def powers_of_place(pixels: int) -> Tensor:
    """Return 1, x, y, x^2, x y, y^2 of the pixels of a square map, (6, pixels^2), 0 in the middle."""
    offset = torch.arange(pixels, dtype=torch.float32) - (pixels - 1) / 2
    y, x = (a.flatten() for a in torch.meshgrid(offset, offset, indexing="ij"))
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])


def greatest_of_3x3(maps: Tensor) -> Tensor:
    """Return the greatest value around each pixel of maps (n, 1, H, W): a faster `max_pool2d`."""
    for axis in (2, 3):
        n = maps.shape[axis] - 1
        pair = torch.maximum(maps.narrow(axis, 1, n), maps.narrow(axis, 0, n))
        first, last = maps.narrow(axis, 0, 1), maps.narrow(axis, n, 1)
        maps = torch.maximum(torch.cat([first, pair], dim=axis), torch.cat([pair, last], dim=axis))
    return maps


class AdaptivePhotometry(nn.Module):
    """Magnitudes, colours and shapes in apertures of the galaxy's own size and shape, in float32.

    They are what catalogues offer, and the symmetries of the square leave them unchanged: a short training
    need not learn them. No gradient passes. Images are (n, pixels^2, n_bands) here.

    1. Noise: the scatter between opposite pixels far out.
    2. Neighbours: where the sum of the bands is much brighter than it is opposite, the opposite side is taken
       instead (galaxies are symmetric, those behind them are not: the idea of the SDSS deblender).
    3. The elliptical Gaussian that matches the sum of the bands (adaptive moments, Bernstein & Jarvis 2002).
    4. Fluxes under Gaussians of its shape, a third to four times its size, each sqrt(2) times the last. They
       enter as asinh(flux), a magnitude that stays finite for fluxes below zero (Lupton et al. 1999), beside
       its differences between neighbouring bands and neighbouring apertures.
    5. Of each band the size and the elongation along the common axis, in two apertures.
    """

    powers: Tensor
    outskirts: Tensor

    def __init__(self, n_bands: int, pixels: int) -> None:
        super().__init__()
        self.pixels, self.largest = pixels, max(2.0, pixels / 5)
        powers = powers_of_place(pixels)
        radius = (powers[3] + powers[5]).sqrt()
        self.register_buffer("powers", powers, persistent=False)
        # Of opposite pixels one; the other of pixel i is the i-th from the end.
        far = (radius >= 0.72 * radius.max()).nonzero()[:, 0]
        self.register_buffer("outskirts", far[: (len(far) + 1) // 2].clone(), persistent=False)
        # After magnitudes, colours and concentrations stand size and elongation, then those of the bands.
        own = N_APERTURES * (3 * n_bands - 1) - n_bands
        self.n_columns = own + 2 + 4 * n_bands
        colours = N_APERTURES * n_bands + STEADY * (n_bands - 1)
        of_aperture = range(colours, colours + n_bands - 1)
        self.steady = [STEADY * n_bands + n_bands // 2, *of_aperture, own, own + 1]

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, n_bands, pixels, pixels), nanomaggies, to columns (n, n_columns)."""
        with torch.autocast(images.device.type, enabled=False):
            flux = images.float().permute(0, 2, 3, 1).flatten(1, 2)
            scatter = (flux[:, self.outskirts] - flux[:, -1 - self.outskirts]).abs().median(dim=1).values
            noise = (1.4826 / math.sqrt(2) * scatter).clamp_min(LEAST_NOISE)
            total = (flux @ (1 / noise)[:, :, None])[:, :, 0]
            neighbour = self.neighbours(total, math.sqrt(flux.shape[2]))
            flux = torch.where(neighbour[:, :, None], flux.flip(1), flux)
            ellipse = self.match(torch.where(neighbour, total.flip(1), total))
            return self.measure(flux, ellipse)

    def neighbours(self, total: Tensor, noise: float) -> Tensor:
        """Return where the sum of the bands (n, pixels^2) has another galaxy, dilated by a pixel."""
        smooth = F.avg_pool2d(total.view(-1, 1, self.pixels, self.pixels), 3, stride=1, padding=1)
        opposite = greatest_of_3x3(smooth).flip(2, 3)
        # The brightest pixel around the opposite one: a centre off the middle is no neighbour.
        brighter = (smooth > 1.3 * opposite.clamp_min(0) + noise).float()
        return (greatest_of_3x3(brighter) > brighter.flip(2, 3)).flatten(1)

    def match(self, total: Tensor, n_iterations: int = 5) -> Ellipse:
        """Return the elliptical Gaussians that match the sum of the bands (n, pixels^2)."""
        total = total / total.abs().amax(dim=1, keepdim=True).clamp_min(LEAST_NOISE)
        zero = torch.zeros_like(total[:, 0])
        ellipse = Ellipse(zero, zero, zero + 9, zero, zero + 9)
        for _ in range(n_iterations):
            weighted = torch.exp(-0.5 * ellipse.distance(self.powers)).mul_(total) @ self.powers.T
            positive = weighted[:, 0] > LEAST_NOISE
            x, y, xx, xy, yy = (weighted[:, 1:] / weighted[:, :1].clamp_min(LEAST_NOISE)).T
            xx, xy, yy = xx - x * x, xy - x * y, yy - y * y
            # A Gaussian under a weight of its own shape has half its second moments.
            length = torch.hypot(xx - yy, 2 * xy).clamp_min(1e-6)
            major, minor = ((xx + yy + s * length).clamp(1.0, self.largest**2) for s in (1, -1))
            mean, half = (major + minor) / 2, (major - minor) / 2
            along, across = half * (xx - yy) / length, half * 2 * xy / length
            new = (x.clamp(-2, 2), y.clamp(-2, 2), mean + along, across, mean - along)
            ellipse = Ellipse(*(torch.where(positive, a, b) for a, b in zip(new, ellipse, strict=True)))
        return ellipse

    def measure(self, flux: Tensor, ellipse: Ellipse) -> Tensor:
        """Return columns (n, n_columns)."""
        distance, size, powers = ellipse.distance(self.powers), ellipse.size()[:, None], self.powers
        weights = flux.new_empty(flux.shape[0], N_APERTURES + 4, flux.shape[1])
        # From the widest to the narrowest: the square of one is sqrt(2) times narrower.
        torch.exp(distance / -32, out=weights[:, N_APERTURES - 1])
        for i in reversed(range(N_APERTURES - 1)):
            torch.mul(weights[:, i + 1], weights[:, i + 1], out=weights[:, i])
        length = torch.hypot(ellipse.xx - ellipse.yy, 2 * ellipse.xy).clamp_min(1e-6)[:, None]
        cosine, sine = (ellipse.xx - ellipse.yy)[:, None] / length, 2 * ellipse.xy[:, None] / length
        elongation = (cosine * (powers[3] - powers[5]) + 2 * sine * powers[4]) / size**2
        for i, (aperture, moment) in enumerate(product(OF_SHAPE, (distance, elongation))):
            torch.mul(weights[:, aperture], moment, out=weights[:, N_APERTURES + i])
        sums = weights @ flux
        apertures, of_shape = sums[:, :N_APERTURES], sums[:, N_APERTURES:]
        shape = of_shape / apertures[:, OF_SHAPE].clamp_min(1).repeat_interleave(2, dim=1)
        magnitude = torch.asinh(apertures / 2)
        colour = magnitude[:, :, 1:] - magnitude[:, :, :-1]
        concentration = magnitude[:, 1:] - magnitude[:, :-1]
        own = torch.cat([size.log(), length / (ellipse.xx + ellipse.yy)[:, None]], dim=1)
        parts = [magnitude.flatten(1), colour.flatten(1), concentration.flatten(1), own]
        return torch.cat([*parts, shape.clamp(-20, 20).flatten(1)], dim=1)


@cache
def photometry_of(n_bands: int, pixels: int, device: torch.device) -> AdaptivePhotometry:
    """Return the photometry of images of this shape, made once."""
    with torch.inference_mode(False):  # to be used outside of it too
        return AdaptivePhotometry(n_bands, pixels).to(device)


@dataclass(frozen=True)
class MeasuredInputs:
    """Cutouts: the columns that photometry measures on them. Views would not differ.

    `steady` are the middle band's magnitude and the colours in one aperture, size and elongation.
    """

    once: ClassVar[bool] = True
    n_views: int = 1
    steady: bool = False

    def __call__(self, inputs: Tensor, view: Tensor | None, unit: Tensor | None = None) -> Tensor:
        """Return columns (n, n_columns) of cutouts (n, n_bands, pixels, pixels), nanomaggies."""
        photometry = photometry_of(inputs.shape[1], inputs.shape[2], inputs.device)
        whole = torch.compiler.is_compiling()  # a program does not know how many galaxies there will be
        parts = [inputs] if whole else torch.split(inputs, CHUNK)
        columns = torch.cat([photometry(part) for part in parts])
        return columns[:, photometry.steady] if self.steady else columns


class Fast(Encoder):
    """Small network for training in seconds on a CPU: photometry as a catalogue has it, then an `mlp`.

    Columns of adaptive photometry and E(B-V) pass three fully connected layers. Convolutions beside them
    found nothing more on the simulated survey. Nothing changes in evaluation or when frozen.
    """

    Settings = PhotometrySettings
    n_features = 128

    def __init__(
        self,
        n_columns: int,
        pixels: int,
        settings: PhotometrySettings,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(n_columns, pixels, settings, generator)
        self.standardisation = Standardisation(n_columns + 1)
        self.layers = silu_layers(n_columns + 1, 128, 128, self.n_features)
        initialise(self, bias=0.0, generator=generator)

    @staticmethod
    def inputs(settings: PhotometrySettings, kind: str, with_errors: bool) -> Inputs:
        """Return the photometry."""
        return MeasuredInputs()

    def standardise(self, inputs: Tensor, ebv: Tensor) -> None:
        """Take shift and scale of columns (n, n_columns) and E(B-V) (n,), mag."""
        self.standardisation.fit(append_ebv(inputs, ebv))

    def forward(self, columns: Tensor, ebv: Tensor) -> Tensor:
        """Map columns (n, n_columns) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        columns = self.standardisation(append_ebv(columns, ebv))
        embedding: Tensor = self.layers(columns.clamp(-FARTHEST, FARTHEST))
        return embedding


class Steady(Fast):
    """`fast` of a few columns, for simulated training and real galaxies: in these both agree.

    One aperture's colours and magnitude, size and elongation. How light falls with radius, and how colours
    do, varies more in real galaxies than in simulated ones.
    """

    @staticmethod
    def inputs(settings: PhotometrySettings, kind: str, with_errors: bool) -> Inputs:
        """Return the photometry."""
        return MeasuredInputs(steady=True)
