"""How the galaxies of the simulated survey look: cutouts as the telescope sees them, drawn in Fourier space.

The transform of an exponential disc is (1 + k^2 h^2)^(-3/2), that of a de Vaucouleurs bulge a tabulated
curve; an inclination is a linear map of the wave vector, a position is a phase, seeing and pixel are factors.
Bulge and disc are evaluated once and shared by the five bands. All that is random comes from (seed,
object_id): a cutout does not depend on which other galaxies are drawn, in which order or by which process.
"""

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.fft import fht, irfft2
from scipy.optimize import brentq
from scipy.special import gamma

from photoz_lit.data.mock import instrument
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.grids import Floats

Image = NDArray[np.float32]

# Sides of the padded grid, pixels. The smallest that holds so many half-light radii of bulge and disc serves:
# light that leaves on one side returns on the other, and must be faint by then.
GRIDS = (96, 128, 192, 256, 384, 512)
BULGE_RADII_ON_GRID, DISC_RADII_ON_GRID = 16.0, 8.0

# Differential number counts: log10 of objects per square degree and magnitude at r = 20, and the slope.
# Galaxies close to Yasuda et al. (2001, AJ 122, 1104), stars as at high galactic latitude.
GALAXY_COUNTS, STAR_COUNTS = (3.30, 0.40), (2.95, 0.10)
NEIGHBOUR_R = (14.0, 22.5)  # mag; fainter ones drown in the noise
NEIGHBOUR_MARGIN = 8.0  # pixels around the stamp from which neighbours still shine in


@dataclass(frozen=True)
class Source:
    """One component of a scene: an exponential or de Vaucouleurs profile; a point if the radius is zero."""

    flux: Image  # (5,), nanomaggies, as observed
    x: float  # pixels from the centre of the first pixel
    y: float
    radius: float = 0.0  # half-light radius along the major axis, pixels
    axis_ratio: float = 1.0
    angle: float = 0.0  # of the major axis, rad, from x towards y
    bulge: bool = False


class Grid(NamedTuple):
    """Of a real transform of (side, side) pixels."""

    kx: Image  # (side // 2 + 1,), radians per pixel
    ky: Image  # (side, 1)
    pixel_x: Image  # transform of a pixel along each axis
    pixel_y: Image


def render_cutouts(galaxies: Table, seed: int, *, pixels: int = 64) -> Image:
    """Draw cutouts with all that sky and telescope add, background subtracted.

    `galaxies` are rows of `draw_galaxies` in any selection and order: a cutout is a function of its row and
    the seed. Returns (n, 5, pixels, pixels), nanomaggies, bands u g r i z, galactic extinction applied.
    """
    cutouts = np.empty((len(galaxies), len(BANDS), pixels, pixels), np.float32)
    seeing = _by_band(galaxies, "true_seeing") / instrument.PIXEL
    sky = _by_band(galaxies, "true_sky") * instrument.PIXEL**2
    for i, (bulge, disc) in enumerate(galaxy_sources(galaxies, pixels)):
        entropy = np.random.SeedSequence(seed, spawn_key=(1, int(galaxies["object_id"][i])))
        rng = np.random.Generator(np.random.SFC64(entropy))
        scene = draw_scene([bulge, disc, *draw_neighbours(rng, pixels)], seeing[i], pixels)
        cutouts[i] = add_noise(scene, sky[i], rng)
    return cutouts


def galaxy_sources(galaxies: Table, pixels: int) -> list[tuple[Source, Source]]:
    """Return bulge and disc of each galaxy, dimmed by galactic extinction."""
    dimming = 10 ** (-0.4 * instrument.EXTINCTION * np.asarray(galaxies["ebv"])[:, None])
    x, y = ((pixels - 1) / 2 + np.asarray(galaxies[name], float) for name in ("true_x", "true_y"))
    components = []
    for name in ("bulge", "disc"):
        flux = (_by_band(galaxies, f"true_{name}") * dimming).astype(np.float32)
        radius = np.asarray(galaxies[f"true_{name}_radius"]) / instrument.PIXEL
        ratio, angle = (np.asarray(galaxies[f"true_{name}_{shape}"]) for shape in ("axis_ratio", "angle"))
        rows = zip(flux, x, y, radius, ratio, angle, [name == "bulge"] * len(flux), strict=True)
        components.append([Source(*row) for row in rows])
    return list(zip(*components, strict=True))


def _by_band(galaxies: Table, name: str) -> Floats:
    return np.stack([np.asarray(galaxies[f"{name}_{band}"], float) for band in BANDS], axis=1)


def draw_neighbours(rng: np.random.Generator, pixels: int) -> list[Source]:
    """Draw the galaxies and stars that happen to lie in and around a stamp."""
    side = pixels + 2 * NEIGHBOUR_MARGIN
    area = (side * instrument.PIXEL / 3600) ** 2
    sources = []
    for (offset, slope), is_star in ((GALAXY_COUNTS, False), (STAR_COUNTS, True)):
        # Objects per square degree that are brighter than each limit.
        bright, faint = (10 ** (offset + slope * (r - 20)) / (slope * np.log(10)) for r in NEIGHBOUR_R)
        for _ in range(rng.poisson(area * (faint - bright))):
            x, y = rng.uniform(-NEIGHBOUR_MARGIN, pixels - 1 + NEIGHBOUR_MARGIN, 2)
            number = rng.uniform(bright, faint)
            r = 20 + (np.log10(number * slope * np.log(10)) - offset) / slope
            colours = _star_colours(rng) if is_star else _galaxy_colours(rng)
            flux = (10 ** (-0.4 * (r + colours - instrument.ZERO_POINT))).astype(np.float32)
            if is_star:
                sources.append(Source(flux, x, y))
            else:
                # Median half-light radius of faint galaxies, 0.7 arcsec at r = 21.
                arcsec = 0.7 * 10 ** (-0.1 * (r - 21)) * np.exp(0.35 * rng.standard_normal())
                radius = arcsec / instrument.PIXEL
                sources.append(Source(flux, x, y, radius, rng.uniform(0.25, 1.0), rng.uniform(0, np.pi)))
    return sources


def _star_colours(rng: np.random.Generator) -> Floats:
    """Draw a turn-off star or M dwarf near the locus of Covey et al. (2007, AJ 134, 2398), band - r, mag."""
    if rng.random() < 0.5:
        g_r = rng.normal(0.45, 0.15)
        u_g, r_i = 0.9 + 1.5 * (g_r - 0.4), 0.15 + 0.4 * (g_r - 0.45)
    else:
        g_r = rng.normal(1.40, 0.08)
        u_g, r_i = 2.5, rng.uniform(0.5, 1.8)
    return np.array([u_g + g_r, g_r, 0.0, -r_i, -1.55 * r_i])


def _galaxy_colours(rng: np.random.Generator) -> Floats:
    """Draw a faint field galaxy, band - r in mag; its colours are redder or bluer together."""
    redness = rng.standard_normal()
    u_g, g_r, r_i, i_z = np.array([1.1, 0.75, 0.38, 0.25]) + np.array([0.3, 0.3, 0.13, 0.08]) * redness
    return np.array([u_g + g_r, g_r, 0.0, -r_i, -r_i - i_z])


def draw_scene(sources: list[Source], seeing: Floats, pixels: int) -> Image:
    """Draw sources through seeing (FWHM, pixels, (5,)) and pixel: nanomaggies per pixel, without noise."""
    extents = (s.radius * (BULGE_RADII_ON_GRID if s.bulge else DISC_RADII_ON_GRID) for s in sources)
    extent = max(1.5 * pixels, *extents)
    side = next((side for side in GRIDS if side >= extent), GRIDS[-1])
    grid = _make_grid(side)
    total = np.zeros((len(BANDS), side, side // 2 + 1), np.complex64)
    for source in sources:
        along_x, along_y = np.complex64(-1j * source.x) * grid.kx, np.complex64(-1j * source.y) * grid.ky
        phase = np.exp(along_y) * np.exp(along_x)
        total += source.flux[:, None, None] * (_transform_profile(source, grid) * phase)
    total *= _transform_seeing(seeing, grid)
    image: Image = irfft2(total, s=(side, side), overwrite_x=True)[:, :pixels, :pixels]
    return image


@cache
def _make_grid(side: int) -> Grid:
    kx = 2 * np.pi * np.fft.rfftfreq(side).astype(np.float32)
    ky = 2 * np.pi * np.fft.fftfreq(side).astype(np.float32)[:, None]
    return Grid(kx, ky, *(np.sinc(k / (2 * np.pi)).astype(np.float32) for k in (kx, ky)))


def _transform_profile(source: Source, grid: Grid) -> Image:
    """Return the transform of the profile at unit flux, shape (side, side // 2 + 1), or (1, 1) of a point."""
    if source.radius == 0:
        return np.ones((1, 1), np.float32)
    radius = source.radius if source.bulge else source.radius / instrument.EXPONENTIAL
    cosine, sine, q2 = np.cos(source.angle), np.sin(source.angle), source.axis_ratio**2
    xx = np.float32(radius**2 * (cosine**2 + q2 * sine**2))
    xy = np.float32(radius**2 * 2 * cosine * sine * (1 - q2))
    yy = np.float32(radius**2 * (sine**2 + q2 * cosine**2))
    squared = (yy * grid.ky + xy * grid.kx) * grid.ky + xx * grid.kx**2
    if source.bulge:
        # Zero frequency lies below the table, where the transform is 1.
        transform = np.interp(np.log(squared + np.float32(1e-7)), *_devaucouleurs_table())
        return np.asarray(transform, np.float32)
    squared += np.float32(1)
    return np.asarray(1 / (squared * np.sqrt(squared)))


@cache
def _devaucouleurs_table() -> tuple[Floats, Floats]:
    """Return ln (k R_e)^2 and the transform of the r^(1/4) law at unit flux, by FFTLog (Hamilton 2000)."""
    step = 0.01
    ln_r = step * (np.arange(4096) - 2047.5)
    r = np.exp(ln_r)
    profile = np.exp(-instrument.DEVAUCOULEURS * r**0.25)
    total = 4 * gamma(8) * instrument.DEVAUCOULEURS**-8
    ln_k = ln_r
    transform = fht(profile * r, step, mu=0) / np.exp(ln_k) / total
    keep = (ln_k > -6) & (ln_k < 8)
    return np.asarray(2 * ln_k[keep]), np.asarray(transform[keep])


@cache
def _width_of_narrow_gaussian() -> float:
    """Return the standard deviation of the narrow Gaussian over the full width at half maximum of both."""
    weights = np.array([1 - instrument.WIDE_SHARE, instrument.WIDE_SHARE / instrument.WIDE_OVER_NARROW**2])
    widths = np.array([1.0, instrument.WIDE_OVER_NARROW])
    half = brentq(lambda r: weights @ np.exp(-(r**2) / (2 * widths**2)) - weights.sum() / 2, 0.5, 3.0)
    return float(1 / (2 * half))


def _transform_seeing(seeing: Floats, grid: Grid) -> Image:
    sigma = (_width_of_narrow_gaussian() * seeing).astype(np.float32)[:, None, None]

    def gaussian(width: float, share: float) -> Image:
        along_x, along_y = (np.exp(-0.5 * (width * sigma * k) ** 2) for k in (grid.kx, grid.ky))
        return np.asarray((share * grid.pixel_y * along_y) * (grid.pixel_x * along_x))

    wide = instrument.WIDE_SHARE
    return gaussian(1.0, 1 - wide) + gaussian(instrument.WIDE_OVER_NARROW, wide)


def add_noise(scene: Image, sky: Floats, rng: np.random.Generator) -> Image:
    """Add the noise of photons and camera to what is above the sky; counts are large: a normal law."""
    count, gain = instrument.NANOMAGGIES_PER_COUNT, instrument.GAIN
    photon = (count / gain).astype(np.float32)[:, None, None]
    floor = (sky * count / gain + instrument.DARK_VARIANCE * count**2).astype(np.float32)
    noise = rng.standard_normal(scene.shape, np.float32)
    noise *= np.sqrt(np.maximum(scene, 0) * photon + floor[:, None, None])
    return scene + noise
