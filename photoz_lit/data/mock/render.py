"""How the galaxies of the simulated survey look: cutouts as the telescope sees them, drawn in Fourier space.

The transform of an exponential disc is (1 + k^2 h^2)^(-3/2), that of a de Vaucouleurs bulge a tabulated
curve; an inclination is a linear map of the wave vector, a position is a phase, seeing and pixel are factors.
Bulge and disc are evaluated once and shared by the five bands. All that is random comes from (seed,
object_id): a cutout does not depend on which other galaxies are drawn, in which order or by which process.
"""

from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy import ndimage
from scipy.fft import fht, irfft2, rfft2
from scipy.optimize import brentq
from scipy.special import gamma

from photoz_lit.data.mock import instrument
from photoz_lit.data.mock.structure import map_young_stars
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.grids import Floats

Image = NDArray[np.float32]

# Sides of the padded grid, pixels. The smallest that holds so many half-light radii of bulge and disc serves:
# light that leaves on one side returns on the other, and must be faint by then.
GRIDS = (80, 96, 128, 160, 192, 256, 384, 512)
RADII_ON_GRID = {"devaucouleurs": 19.0, "exponential": 7.0, "gaussian": 5.0, "point": 0.0}

# Differential number counts: log10 of objects per square degree and magnitude at r = 20, and the slope.
# Galaxies close to Yasuda et al. (2001, AJ 122, 1104), stars as at high galactic latitude.
GALAXY_COUNTS, STAR_COUNTS = (3.15, 0.40), (2.62, 0.13)
NEIGHBOUR_R = (14.0, 22.5)  # mag; fainter ones drown in the noise
MARGIN = 8  # pixels around the stamp from which light still shines in
LEAST_YOUNG = 0.02  # share of a disc's light; less is drawn smooth
SHIFTS = 32  # fractions of a pixel by which bands are shifted
R = BANDS.index("r")
BY_BAND = ("bulge", "disc", "young", "member", "seeing", "psf_ellipticity", "sky")


class Source(NamedTuple):
    """One component of a scene: a profile of `PROFILES`, or a point."""

    flux: Image  # (5,), nanomaggies, as observed
    x: float  # pixels from the centre of the first pixel
    y: float
    radius: float = 0.0  # half-light radius along the major axis, pixels
    axis_ratio: float = 1.0
    angle: float = 0.0  # of the major axis, rad, from x towards y
    profile: str = "point"


class Psf(NamedTuple):
    """Seeing and its shape, by band."""

    seeing: Floats  # (5,), full width at half maximum, pixels
    ellipticity: Floats | float = 0.0  # (5,), 1 - axis ratio
    angle: float = 0.0  # of the major axis, rad, from x towards y


class Grid(NamedTuple):
    """Of a real transform of (side, side) pixels."""

    kx: Image  # (side // 2 + 1,), radians per pixel
    ky: Image  # (side, 1)
    pixel_x: Image  # transform of a pixel along each axis
    pixel_y: Image


def render_cutouts(galaxies: Table, seed: int, *, pixels: int = 64, without: Collection[str] = ()) -> Image:
    """Draw cutouts with all that sky and telescope add, background subtracted.

    `galaxies` are rows of `draw_galaxies` in any selection and order: a cutout is a function of its row and
    the seed. Returns (n, 5, pixels, pixels), nanomaggies, bands u g r i z, galactic extinction applied.
    """
    cutouts = np.empty((len(galaxies), len(BANDS), pixels, pixels), np.float32)
    bands = {name: by_band(galaxies, f"true_{name}") for name in BY_BAND}
    dimming = 10 ** (-0.4 * instrument.EXTINCTION * np.asarray(galaxies["ebv"])[:, None])
    columns = {name: np.asarray(galaxies[name]).tolist() for name in galaxies.colnames}
    for i in range(len(galaxies)):
        row = {name: values[i] for name, values in columns.items()}
        row |= {name: values[i] for name, values in bands.items()} | {"dimming": dimming[i]}
        entropy = np.random.SeedSequence(seed, spawn_key=(1, int(row["object_id"])))
        rng = np.random.Generator(np.random.SFC64(entropy))
        sources = [*galaxy_sources(row, pixels), *draw_members(row, rng, pixels)]
        if "neighbours" not in without:
            sources += draw_neighbours(rng, pixels)
        psf = Psf(row["seeing"] / instrument.PIXEL, row["psf_ellipticity"], row["true_psf_angle"])
        scene = draw_scene(sources, psf, pixels, young_stars(row, rng, pixels))
        level = row["sky"] * instrument.PIXEL**2
        noise = draw_noise(scene, level, rng)
        if "sky" not in without:
            noise += draw_sky_residual(level, pixels, rng)
        cutouts[i] = scene + (noise if "resampling" in without else resample(noise, rng))
    return cutouts


def galaxy_sources(row: dict[str, Any], pixels: int) -> list[Source]:
    """Return bulge, disc, bar and dust lane of a galaxy, dimmed by galactic extinction."""
    x, y = ((pixels - 1) / 2 + row[name] for name in ("true_x", "true_y"))
    shapes = {
        name: (
            row[f"true_{name}_radius"] / instrument.PIXEL,
            row[f"true_{name}_axis_ratio"],
            row[f"true_{name}_angle"],
        )
        for name in ("bulge", "disc")
    }
    disc, young, bulge = (row[name] * row["dimming"] for name in ("disc", "young", "bulge"))
    young = young * (row["true_young_share"] >= LEAST_YOUNG)
    smooth, radius, (_, ratio, angle) = disc - young, shapes["disc"][0], shapes["disc"]
    sources = [Source(bulge, x, y, *shapes["bulge"], "devaucouleurs")]
    if row["true_bar"] > 0:
        tilted = np.arctan2(ratio * np.sin(row["true_bar_angle"]), np.cos(row["true_bar_angle"])) + angle
        sources.append(
            Source(row["true_bar"] * smooth, x, y, 0.45 * radius, max(0.3, ratio / 2), tilted, "gaussian")
        )
        smooth = (1 - row["true_bar"]) * smooth
    if (
        row["true_lane"] > 0
    ):  # in front of the near half of the disc, darker in the blue (Charlot & Fall 2000)
        dark = row["true_lane"] * (instrument.WAVELENGTH / instrument.WAVELENGTH[R]) ** -0.7 * smooth
        aside = 0.1 * radius * np.sqrt(1 - ratio**2)
        place = x - aside * np.sin(angle), y + aside * np.cos(angle)
        sources.append(Source(-dark, *place, 0.8 * radius, max(0.4 * ratio, 0.06), angle, "exponential"))
        smooth = smooth + dark
    return [*sources, Source(smooth, x, y, *shapes["disc"], "exponential")]


def young_stars(row: dict[str, Any], rng: np.random.Generator, pixels: int) -> tuple[Image, Image] | None:
    """Return flux (5,) and map of the young stars within the stamp and a margin, if there are any."""
    if row["true_young_share"] < LEAST_YOUNG:
        return None
    centre = tuple(MARGIN + (pixels - 1) / 2 + row[name] for name in ("true_x", "true_y"))
    where = map_young_stars(row, centre, pixels + 2 * MARGIN, row["true_kpc_per_pixel"], rng)
    return (row["young"] * row["dimming"]).astype(np.float32), where


def by_band(galaxies: Table, name: str) -> Floats:
    """Return a column's values in the bands, (n, 5)."""
    return np.stack([np.asarray(galaxies[f"{name}_{band}"], float) for band in BANDS], axis=1)


def draw_members(row: dict[str, Any], rng: np.random.Generator, pixels: int) -> list[Source]:
    """Draw early galaxies at the same redshift: satellites and members of its group."""
    sources = []
    for _ in range(rng.poisson(row["true_members"])):
        fainter = 1.2 + 4 * np.sqrt(rng.random())  # mag
        # Their surface density falls as 1 / distance, as the correlation function has it.
        distance, direction = 6 + (pixels / 2 + MARGIN) * rng.random(), rng.uniform(0, 2 * np.pi)
        flux = 10 ** (-0.4 * (row["true_petro_r"] + fainter + row["member"] - instrument.ZERO_POINT))
        radius = max(0.5, 2.0 * 10 ** (-0.12 * fainter) / row["true_kpc_per_pixel"])
        place = (pixels - 1) / 2 + distance * np.array([np.cos(direction), np.sin(direction)])
        shape = radius, rng.uniform(0.4, 1.0), rng.uniform(0, np.pi)
        sources.append(Source(flux * row["dimming"], place[0], place[1], *shape, "exponential"))
    return sources


def draw_neighbours(rng: np.random.Generator, pixels: int) -> list[Source]:
    """Draw the galaxies and stars that happen to lie in and around a stamp."""
    side = pixels + 2 * MARGIN
    area = (side * instrument.PIXEL / 3600) ** 2
    sources = []
    for (offset, slope), is_star in ((GALAXY_COUNTS, False), (STAR_COUNTS, True)):
        # Objects per square degree that are brighter than each limit.
        bright, faint = (10 ** (offset + slope * (r - 20)) / (slope * np.log(10)) for r in NEIGHBOUR_R)
        for _ in range(rng.poisson(area * (faint - bright))):
            x, y = rng.uniform(-MARGIN, pixels - 1 + MARGIN, 2)
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
                shape = radius, rng.uniform(0.25, 1.0), rng.uniform(0, np.pi)
                sources.append(Source(flux, x, y, *shape, "exponential"))
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


def draw_scene(
    sources: Sequence[Source], psf: Psf, pixels: int, extra: tuple[Image, Image] | None = None
) -> Image:
    """Draw sources through seeing and pixel: nanomaggies per pixel, (5, pixels, pixels), without noise.

    `extra` is a flux (5,) and a map of unit sum that reaches `MARGIN` pixels beyond the stamp.
    """
    extent = max(pixels + 2 * MARGIN, *(s.radius * RADII_ON_GRID[s.profile] for s in sources))
    side = next((side for side in GRIDS if side >= extent), GRIDS[-1])
    grid = _make_grid(side)
    shifts = np.array([(s.x, s.y) for s in sources], np.float32)
    along_x = np.exp(np.complex64(-1j) * shifts[:, :1] * grid.kx)
    along_y = np.exp(np.complex64(-1j) * shifts[:, 1:] * grid.ky[:, 0])
    planes = _workspace(side, len(sources))[: len(sources)]
    np.multiply(along_y[:, :, None], along_x[:, None, :], out=planes)
    for plane, source in zip(planes, sources, strict=True):
        if source.profile != "point":
            plane *= _transform_profile(source, grid)
    flux = np.array([s.flux for s in sources], np.float32)
    summed = flux.T @ planes.reshape(len(planes), -1).view(np.float32)
    total = summed.view(np.complex64).reshape(len(BANDS), side, -1)
    if extra is not None:
        padded = np.zeros((side, side), np.float32)
        reach = np.arange(-MARGIN, pixels + MARGIN)
        padded[np.ix_(reach, reach)] = extra[1]
        total += extra[0][:, None, None] * rfft2(padded)
    total *= _transform_psf(psf, grid)
    image: Image = irfft2(total, s=(side, side), overwrite_x=True)[:, :pixels, :pixels]
    return image


def _workspace(side: int, n: int) -> NDArray[np.complex64]:
    """Return memory for n transforms, the same each time: new memory costs more than what is done with it."""
    if side not in _memory or len(_memory[side]) < n:
        _memory[side] = np.empty((2 * n, side, side // 2 + 1), np.complex64)
    return _memory[side]


_memory: dict[int, NDArray[np.complex64]] = {}


@cache
def _make_grid(side: int) -> Grid:
    kx = 2 * np.pi * np.fft.rfftfreq(side).astype(np.float32)
    ky = 2 * np.pi * np.fft.fftfreq(side).astype(np.float32)[:, None]
    return Grid(kx, ky, *(np.sinc(k / (2 * np.pi)).astype(np.float32) for k in (kx, ky)))


def _transform_profile(source: Source, grid: Grid) -> Image:
    """Return the transform of the profile at unit flux, shape (side, side // 2 + 1)."""
    radius = source.radius * SCALES[source.profile]
    cosine, sine, q2 = np.cos(source.angle), np.sin(source.angle), source.axis_ratio**2
    xx = np.float32(radius**2 * (cosine**2 + q2 * sine**2))
    xy = np.float32(radius**2 * 2 * cosine * sine * (1 - q2))
    yy = np.float32(radius**2 * (sine**2 + q2 * cosine**2))
    squared = (yy * grid.ky + xy * grid.kx) * grid.ky + xx * grid.kx**2
    return PROFILES[source.profile](squared)


def _transform_devaucouleurs(squared: Image) -> Image:
    # Zero frequency lies below the table, where the transform is 1.
    transform = np.interp(np.log(squared + np.float32(1e-7)), *devaucouleurs_table())
    return np.asarray(transform, np.float32)


def _transform_exponential(squared: Image) -> Image:
    squared = squared + np.float32(1)
    return np.asarray(1 / (squared * np.sqrt(squared)))


def _transform_gaussian(squared: Image) -> Image:
    return np.asarray(np.exp(np.float32(-0.5) * squared))


# By profile: its transform as a function of (k scale)^2, and the scale over the half-light radius.
PROFILES = {
    "devaucouleurs": _transform_devaucouleurs,
    "exponential": _transform_exponential,
    "gaussian": _transform_gaussian,
}
SCALES = {
    "devaucouleurs": 1.0,
    "exponential": 1 / instrument.EXPONENTIAL,
    "gaussian": 1 / np.sqrt(2 * np.log(2)),
}


@cache
def devaucouleurs_table() -> tuple[Floats, Floats]:
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
def width_of_narrow_gaussian() -> float:
    """Return the standard deviation of the PSF's narrow Gaussian over the width at half maximum of both."""
    weights = np.array([1 - instrument.WIDE_SHARE, instrument.WIDE_SHARE / instrument.WIDE_OVER_NARROW**2])
    widths = np.array([1.0, instrument.WIDE_OVER_NARROW])
    half = brentq(lambda r: weights @ np.exp(-(r**2) / (2 * widths**2)) - weights.sum() / 2, 0.5, 3.0)
    return float(1 / (2 * half))


def _transform_psf(psf: Psf, grid: Grid) -> Image:
    """Return the transform of the point spread function and the pixel, (5, side, side // 2 + 1)."""
    sigma2 = (width_of_narrow_gaussian() * np.asarray(psf.seeing)) ** 2
    # Ellipses of the same area: second moments along the axes, and between them.
    stretch = np.asarray(1 / (1 - psf.ellipticity))
    mean, half = sigma2 * (stretch + 1 / stretch) / 2, sigma2 * (stretch - 1 / stretch) / 2
    cosine, sine = half * np.cos(2 * psf.angle), half * np.sin(2 * psf.angle)
    xx, yy, xy = (
        (-0.5 * m).astype(np.float32)[:, None, None] for m in (mean + cosine, mean - cosine, 2 * sine)
    )
    exponent = (yy * grid.ky + xy * grid.kx) * grid.ky + xx * grid.kx**2
    narrow = np.exp(exponent, out=exponent)
    wide = np.square(np.square(narrow))  # its power WIDE_OVER_NARROW^2, 5.5
    wide *= narrow
    wide *= np.sqrt(narrow)
    wide *= np.float32(instrument.WIDE_SHARE)
    narrow *= np.float32(1 - instrument.WIDE_SHARE)
    narrow += wide
    narrow *= grid.pixel_y * grid.pixel_x
    return np.asarray(narrow)


def draw_noise(scene: Image, sky: Floats, rng: np.random.Generator) -> Image:
    """Draw the noise of photons and camera; counts are large: a normal law. Sky in nanomaggies a pixel."""
    photon = (instrument.NANOMAGGIES_PER_COUNT / instrument.GAIN).astype(np.float32)[:, None, None]
    noise = rng.standard_normal(scene.shape, np.float32)
    noise *= np.sqrt(np.maximum(scene, 0) * photon + sky_variance(sky)[:, None, None])
    return noise


def sky_variance(sky: Floats) -> Image:
    """Return the variance of a pixel without a galaxy, nanomaggies^2, of sky in nanomaggies a pixel."""
    count, gain = instrument.NANOMAGGIES_PER_COUNT, instrument.GAIN
    return np.asarray(sky * count / gain + instrument.DARK_VARIANCE * count**2, np.float32)


def draw_sky_residual(sky: Floats, pixels: int, rng: np.random.Generator) -> Image:
    """Draw what the subtraction of the sky leaves, (5, pixels, pixels): a level and a plane in each band.

    Halos and galaxies too faint to be seen lift all bands together, some stamps by much.
    """
    size = np.sqrt(sky_variance(sky))[:, None, None]
    common = (instrument.SKY_LIFT * np.exp(rng.standard_normal())).astype(np.float32)[:, None, None]
    own = np.float32(instrument.SKY_RESIDUAL) * size
    level, along_x, along_y = own * rng.standard_normal((3, len(BANDS), 1, 1), np.float32)
    place = np.linspace(-1, 1, pixels, dtype=np.float32)
    return np.asarray((size * common + level + along_x * place) + along_y * place[:, None])


def resample(noise: Image, rng: np.random.Generator) -> Image:
    """Interpolate noise (5, pixels, pixels) as cutting does: each band is shifted by cubic splines."""
    shift = rng.integers(0, SHIFTS, (2, len(BANDS)))
    rows, columns = _shift_matrices(noise.shape[-1])[shift]
    return np.asarray(rows @ noise @ columns.transpose(0, 2, 1))


@cache
def _shift_matrices(pixels: int) -> Image:
    """Return matrices (SHIFTS, pixels, pixels) that shift by fractions of a pixel, by cubic splines."""
    unit = np.eye(pixels)
    fractions = np.arange(SHIFTS) / SHIFTS
    moved = [ndimage.shift(unit, (f, 0), order=3, mode="grid-wrap") for f in fractions]
    return np.array(moved, np.float32)
