"""A small network with adaptive photometry, for training in minutes on two CPU cores."""

import math
from itertools import product
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from photoz_lit.data.transforms import stretch
from photoz_lit.models.encoders.layers import Encoder, Standardisation, append_ebv, initialise
from photoz_lit.models.encoders.settings import ImageSettings

CORE = 48  # pixels: the side of the middle that convolutions see; the photometry sees all of the image
N_APERTURES = 8
MATCHED = 3  # the aperture that has the galaxy's own size
OF_SHAPE = [4, 6]  # those in which shapes are measured
LEAST_NOISE = 1e-4  # nanomaggies per pixel: that of an image without any
FARTHEST = 8.0  # standard deviations: what a column may reach


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
        self.core_side = min(pixels, CORE + pixels % 2)
        margin = (pixels - self.core_side) // 2
        self.core = slice(margin, pixels - margin)
        powers = powers_of_place(pixels)
        radius = (powers[3] + powers[5]).sqrt()
        self.register_buffer("powers", powers, persistent=False)
        # Of opposite pixels one; the other of pixel i is the i-th from the end.
        far = (radius >= 0.72 * radius.max()).nonzero()[:, 0]
        self.register_buffer("outskirts", far[: (len(far) + 1) // 2], persistent=False)
        self.n_columns = N_APERTURES * (3 * n_bands - 1) - n_bands + 2 + 4 * n_bands

    @torch.no_grad()
    def forward(self, stretched: Tensor) -> tuple[Tensor, Tensor]:
        """Map stretched images (n, n_bands, pixels, pixels) to columns (n, n_columns) and scaled images.

        These are without neighbours and show shape alone: each band in units of its mean surface brightness.
        """
        with torch.autocast(stretched.device.type, enabled=False):
            stretched = stretched.float().permute(0, 2, 3, 1).flatten(1, 2)
            # The inverse of the stretch sign(x) (sqrt(|x| + 1) - 1).
            flux = stretched.abs().add_(2).mul_(stretched)
            scatter = (flux[:, self.outskirts] - flux[:, -1 - self.outskirts]).abs().median(dim=1).values
            noise = (1.4826 / math.sqrt(2) * scatter).clamp_min(LEAST_NOISE)
            total = (flux @ (1 / noise)[:, :, None])[:, :, 0]
            neighbour = self.neighbours(total, math.sqrt(flux.shape[2]))
            flux = torch.where(neighbour[:, :, None], flux.flip(1), flux)
            ellipse = self.match(torch.where(neighbour, total.flip(1), total))
            columns, matched = self.measure(flux, ellipse)
            brightness = matched / (2 * math.pi * ellipse.size()[:, None] ** 2)
            image = flux.view(-1, self.pixels, self.pixels, flux.shape[2]).permute(0, 3, 1, 2)
            unit = torch.maximum(brightness, noise)[:, :, None, None]
            return columns, image[..., self.core, self.core] / unit

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

    def measure(self, flux: Tensor, ellipse: Ellipse) -> tuple[Tensor, Tensor]:
        """Return columns (n, n_columns) and the fluxes in the matched aperture (n, n_bands)."""
        distance, size, powers = ellipse.distance(self.powers), ellipse.size()[:, None], self.powers
        weights = flux.new_empty(len(flux), N_APERTURES + 4, flux.shape[1])
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
        return torch.cat([*parts, shape.clamp(-20, 20).flatten(1)], dim=1), apertures[:, MATCHED]


def round_gaussians(pixels: int, sigmas: tuple[float, ...]) -> Tensor:
    """Return weights of Gaussians around the centre of a square map, (len(sigmas), pixels^2), of sum 1."""
    powers = powers_of_place(pixels)
    weights = torch.exp(-0.5 * (powers[3] + powers[5]) / torch.tensor(sigmas)[:, None] ** 2)
    return weights / weights.sum(dim=1, keepdim=True)


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


def layer(n_in: int, n_out: int) -> nn.Sequential:
    """Return a fully connected layer with SiLU."""
    return nn.Sequential(nn.Linear(n_in, n_out), nn.SiLU())


class Fast(Encoder):
    """Small network for training in minutes on two CPU cores.

    Columns of adaptive photometry and E(B-V) pass three fully connected layers, as an `mlp` on a catalogue.
    Beside them convolutions see the galaxy's middle, without its neighbours and at unit surface brightness:
    patches of 4x4 pixels become 64 channels, one residual block works at a quarter and two at an eighth of
    the size, and means under Gaussians of three widths around the centre keep the radial information. One
    layer joins them to the columns' layers, which are the other half of the embedding.

    There is no batch normalisation: nothing changes in evaluation or when frozen. A middle whose side 8 does
    not divide is padded with zeros, evenly.
    """

    n_features = 256
    pool_weights: Tensor

    def __init__(
        self, n_columns: int, pixels: int, settings: ImageSettings, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(n_columns, pixels, settings, generator)
        self.photometry = AdaptivePhotometry(n_columns, pixels)
        padding = -self.photometry.core_side % 8
        self.padding = (padding // 2, padding - padding // 2) * 2
        self.stem = nn.Conv2d(n_columns, 64, 4, stride=4)
        self.quarter = Residual(64, 32, inner_kernel=1)
        self.down = nn.Conv2d(64, 96, 2, stride=2)
        self.eighth = nn.Sequential(Residual(96, 64, inner_kernel=3), Residual(96, 32, inner_kernel=1))
        weights = round_gaussians((self.photometry.core_side + padding) // 8, (0.7, 2.0, math.inf))
        self.register_buffer("pool_weights", weights, persistent=False)
        n = self.photometry.n_columns + 1
        self.standardisation = Standardisation(n)
        self.catalogue = nn.Sequential(layer(n, 128), layer(128, 128), layer(128, 128))
        self.joint = layer(3 * 96 + 128, 128)
        initialise(self, bias=0.0, generator=generator)
        for block in (self.quarter, *self.eighth):
            nn.init.zeros_(block.outer.weight)

    def standardise(self, inputs: Tensor, ebv: Tensor) -> None:
        """Take shift and scale of photometry and E(B-V) from stretched training images."""
        columns = [self.photometry(inputs[i : i + 256])[0] for i in range(0, len(inputs), 256)]
        self.standardisation.fit(append_ebv(torch.cat(columns), ebv))

    def forward(self, image: Tensor, ebv: Tensor) -> Tensor:
        """Map images (n, n_bands, pixels, pixels) and E(B-V) (n,) in mag to embeddings (n, n_features)."""
        columns, x = self.photometry(image)
        x = F.pad(stretch(x), self.padding) if any(self.padding) else stretch(x)
        x = self.eighth(self.down(F.relu(self.quarter(self.stem(x)))))
        cells = F.relu(x).permute(0, 2, 3, 1).flatten(1, 2)
        pooled = (self.pool_weights.to(cells.dtype) @ cells).flatten(1)
        columns = self.standardisation(append_ebv(columns, ebv)).clamp(-FARTHEST, FARTHEST)
        known = self.catalogue(columns.to(pooled.dtype))
        return torch.cat([known, self.joint(torch.cat([pooled, known], dim=1))], dim=1)
