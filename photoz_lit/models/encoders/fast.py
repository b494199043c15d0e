"""Adaptive photometry and a small network on it, for training in a minute on one CPU core."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import ClassVar, NamedTuple, cast

import numpy as np
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
CHUNK, CHUNK_ON_GPU = 64, 4096  # galaxies at a time: what a processor's cache takes
LEAST_EXPONENT = -80.0  # of weights: an exp that underflows takes ten times as long
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

    def length(self) -> Tensor:
        """Return the difference of the second moments along the axes, pixels^2."""
        return torch.hypot(self.xx - self.yy, 2 * self.xy).clamp_min(1e-6)

    def columns(self) -> Tensor:
        """Return logarithmic size and elongation, (n, 2)."""
        return torch.stack([self.size().log(), self.length() / (self.xx + self.yy)], dim=1)


def powers_of_place(pixels: int) -> Tensor:
    """Return 1, x, y, x^2, x y, y^2 of the pixels of a square map, (6, pixels^2), 0 in the middle."""
    offset = torch.arange(pixels, dtype=torch.float32) - (pixels - 1) / 2
    y, x = (a.flatten() for a in torch.meshgrid(offset, offset, indexing="ij"))
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])


def of_3x3(maps: Tensor, combine: Callable[[Tensor, Tensor], Tensor], outside: float) -> Tensor:
    """Combine each pixel of maps (n, H, W) with those around it; much faster than torch's pools."""
    maps = F.pad(maps, (1, 1, 1, 1), value=outside)
    for axis in (1, 2):
        parts = [maps.narrow(axis, i, maps.shape[axis] - 2) for i in range(3)]
        maps = combine(combine(parts[0], parts[1]), parts[2])
    return maps


def median(values: Tensor) -> Tensor:
    """Return the lower median along the last axis."""
    if values.device.type == "cpu" and not torch.compiler.is_compiling():  # five times as fast
        middle = (values.shape[-1] - 1) // 2
        return torch.from_numpy(np.partition(values.numpy(), middle, axis=-1)[..., middle])
    return values.median(dim=-1).values


def weights_of(exponent: Tensor) -> Tensor:
    """Return exp(exponent), in its place."""
    return exponent.clamp_min_(LEAST_EXPONENT).exp_()


class AdaptivePhotometry(nn.Module):
    """Magnitudes, colours and shapes in apertures of the galaxy's own size and shape, in float32.

    They are what catalogues offer, and the symmetries of the square leave them unchanged: a short training
    need not learn them. No gradient passes. Images are (n, n_bands, pixels^2) here.

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

    def __init__(self, n_bands: int, pixels: int, steady: bool = False) -> None:
        super().__init__()
        self.pixels, self.largest, self.steady = pixels, max(2.0, pixels / 5), steady
        powers = powers_of_place(pixels)
        radius = (powers[3] + powers[5]).sqrt()
        self.register_buffer("powers", powers, persistent=False)
        # Of opposite pixels one; the other of pixel i is the i-th from the end.
        far = (radius >= 0.72 * radius.max()).nonzero()[:, 0]
        self.register_buffer("outskirts", far[: (len(far) + 1) // 2].clone(), persistent=False)
        of_apertures = N_APERTURES * (3 * n_bands - 1) - n_bands  # magnitudes, colours, concentrations
        self.n_columns = n_bands + 2 if steady else of_apertures + 2 + 4 * n_bands

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Map images (n, n_bands, pixels, pixels), nanomaggies, to columns (n, n_columns)."""
        with torch.autocast(images.device.type, enabled=False):
            flux = images.float().flatten(2)
            opposite = flux.flip(2)
            scatter = median((flux - opposite)[:, :, self.outskirts].abs())
            noise = (1.4826 / math.sqrt(2) * scatter).clamp_min(LEAST_NOISE)
            total = ((1 / noise)[:, None] @ flux)[:, 0]
            neighbour = self.neighbours(total, math.sqrt(flux.shape[1]))
            ellipse = self.match(torch.where(neighbour > 0, total.flip(1), total))
            # Much faster than `torch.where`, which is slow where one mask is for several bands.
            flux = torch.addcmul(flux * (1 - neighbour)[:, None], opposite, neighbour[:, None])
            return self.steady_of(flux, ellipse) if self.steady else self.measure(flux, ellipse)

    def neighbours(self, total: Tensor, noise: float) -> Tensor:
        """Return where the sum of the bands (n, pixels^2) has another galaxy, dilated by a pixel, as 1."""
        smooth = of_3x3(total.view(-1, self.pixels, self.pixels), torch.add, 0.0) / 9
        opposite = of_3x3(smooth, torch.maximum, -math.inf).flip(1, 2)
        # The brightest pixel around the opposite one: a centre off the middle is no neighbour.
        brighter = (smooth > opposite.clamp_min_(0).mul_(1.3).add_(noise)).float()
        return (of_3x3(brighter, torch.maximum, 0.0) > brighter.flip(1, 2)).float().flatten(1)

    def match(self, total: Tensor, n_iterations: int = 5) -> Ellipse:
        """Return the elliptical Gaussians that match the sum of the bands (n, pixels^2)."""
        total = total / total.abs().amax(dim=1, keepdim=True).clamp_min(LEAST_NOISE)
        zero = total.new_zeros(1)  # the first is the same for all galaxies
        ellipse = Ellipse(zero, zero, zero + 9, zero, zero + 9)
        for _ in range(n_iterations):
            weighted = (weights_of(ellipse.distance(-0.5 * self.powers)) * total) @ self.powers.T
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
        distance = ellipse.distance(self.powers)
        weights = flux.new_empty(flux.shape[0], N_APERTURES + 4, flux.shape[2])
        # From the widest to the narrowest: the square of one is sqrt(2) times narrower.
        weights[:, N_APERTURES - 1] = weights_of(distance / -32)
        for i in reversed(range(N_APERTURES - 1)):
            torch.mul(weights[:, i + 1], weights[:, i + 1], out=weights[:, i])
        scale = ellipse.length() * ellipse.size() ** 2
        cosine, sine = (ellipse.xx - ellipse.yy) / scale, 2 * ellipse.xy / scale
        elongation = torch.stack([cosine, 2 * sine, -cosine], dim=1) @ self.powers[3:]
        for i, (aperture, moment) in enumerate(product(OF_SHAPE, (distance, elongation))):
            torch.mul(weights[:, aperture], moment, out=weights[:, N_APERTURES + i])
        sums = weights @ flux.transpose(1, 2)
        apertures, of_shape = sums[:, :N_APERTURES], sums[:, N_APERTURES:]
        shape = of_shape / apertures[:, OF_SHAPE].clamp_min(1).repeat_interleave(2, dim=1)
        magnitude = torch.asinh(apertures / 2)
        concentration = magnitude[:, 1:] - magnitude[:, :-1]
        parts = [magnitude, magnitude.diff(dim=2), concentration]
        columns = [*(part.flatten(1) for part in parts), ellipse.columns(), shape.clamp(-20, 20).flatten(1)]
        return torch.cat(columns, dim=1)

    def steady_of(self, flux: Tensor, ellipse: Ellipse) -> Tensor:
        """Return of one aperture the middle band's magnitude and the colours, then size and elongation."""
        weights = weights_of(ellipse.distance(self.powers / -(2.0 ** (STEADY - 2))))
        magnitude = torch.asinh((flux @ weights[:, :, None])[:, :, 0] / 2)
        middle = flux.shape[1] // 2
        return torch.cat([magnitude[:, middle, None], magnitude.diff(dim=1), ellipse.columns()], dim=1)


@cache
def photometry_of(n_bands: int, pixels: int, steady: bool, device: torch.device) -> AdaptivePhotometry:
    """Return the photometry of images of this shape, made once."""
    with torch.inference_mode(False):  # to be used outside of it too
        return AdaptivePhotometry(n_bands, pixels, steady).to(device)


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
        photometry = photometry_of(inputs.shape[1], inputs.shape[2], self.steady, inputs.device)
        if torch.compiler.is_compiling():  # a program does not know how many galaxies there will be
            return cast(Tensor, photometry(inputs))
        n = CHUNK if inputs.device.type == "cpu" else CHUNK_ON_GPU
        return torch.cat([photometry(part) for part in torch.split(inputs, n)])


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
