"""How the galaxies of the simulated survey look: cutouts as the telescope sees them.

All that is random comes from (seed, object_id): a cutout does not depend on which other galaxies are drawn,
in which order or by which process.
"""

from collections.abc import Collection
from functools import cache
from typing import Any

import numpy as np
from astropy.table import Table
from scipy import ndimage

from photoz_lit.data.mock import instrument
from photoz_lit.data.mock.scene import ALL, MARGIN, Image, Psf, Source, draw_scenes
from photoz_lit.data.mock.structure import map_young_stars
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.grids import Floats

# Differential number counts: log10 of objects per square degree and magnitude at r = 20, and the slope.
# Galaxies close to Yasuda et al. (2001, AJ 122, 1104), stars as at high galactic latitude.
GALAXY_COUNTS, STAR_COUNTS = (3.15, 0.40), (2.62, 0.13)
NEIGHBOUR_R = (14.0, 22.5)  # mag; fainter ones drown in the noise
LEAST_YOUNG = 0.02  # share of a disc's light; less is drawn smooth
SHIFTS = 32  # fractions of a pixel by which bands are shifted
R = BANDS.index("r")
BY_BAND = ("bulge", "disc", "young", "member", "seeing", "psf_ellipticity", "sky")


def render_cutouts(
    galaxies: Table, seed: int, *, pixels: int = 64, without: Collection[str] = (), bands: slice = ALL
) -> Image:
    """Draw cutouts with all that sky and telescope add, background subtracted.

    `galaxies` are rows of `draw_galaxies` in any selection and order: a cutout is a function of its row and
    the seed. Returns (n, 5, pixels, pixels), nanomaggies, bands u g r i z, galactic extinction applied; or
    some of the `bands` alone.
    """
    cutouts = np.empty((len(galaxies), len(BANDS[bands]), pixels, pixels), np.float32)
    scenes, generators = [], []
    rows = _rows(galaxies)
    for row in rows:
        entropy = np.random.SeedSequence(seed, spawn_key=(1, row["object_id"]))
        rng = np.random.Generator(np.random.SFC64(entropy))
        sources = [*galaxy_sources(row, pixels), *draw_members(row, rng, pixels)]
        if "neighbours" not in without:
            sources += draw_neighbours(rng, pixels)
        psf = Psf(row["seeing"] / instrument.PIXEL, row["psf_ellipticity"], row["true_psf_angle"])
        scenes.append((sources, psf, young_stars(row, rng, pixels)))
        generators.append(rng)
    drawn = draw_scenes(scenes, pixels, bands)
    for row, rng, scene, cutout in zip(rows, generators, drawn, cutouts, strict=True):
        level = row["sky"] * instrument.PIXEL**2
        noise = draw_noise(scene, level, rng, bands)
        if "sky" not in without:
            noise += draw_sky_residual(level, pixels, rng, bands)
        np.add(scene, noise if "resampling" in without else resample(noise, rng, bands), out=cutout)
    return cutouts


def _rows(galaxies: Table) -> list[dict[str, Any]]:
    """Return what is drawn of each galaxy; what it has in each band is (5,)."""
    columns: dict[str, Any] = {name: np.asarray(galaxies[name]).tolist() for name in galaxies.colnames}
    columns |= {name: by_band(galaxies, f"true_{name}") for name in BY_BAND}
    columns["dimming"] = 10 ** (-0.4 * instrument.EXTINCTION * np.asarray(galaxies["ebv"])[:, None])
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


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


def draw_noise(scene: Image, sky: Floats, rng: np.random.Generator, bands: slice = ALL) -> Image:
    """Draw the noise of photons and camera; counts are large: a normal law. Sky in nanomaggies a pixel."""
    photon = (instrument.NANOMAGGIES_PER_COUNT / instrument.GAIN).astype(np.float32)[bands, None, None]
    size = np.maximum(scene, 0)
    size *= photon
    size += sky_variance(sky)[bands, None, None]
    np.sqrt(size, out=size)
    # Of all bands: what is drawn in one does not depend on which are wanted.
    size *= rng.standard_normal((len(BANDS), *scene.shape[1:]), np.float32)[bands]
    return np.asarray(size)


def sky_variance(sky: Floats) -> Image:
    """Return the variance of a pixel without a galaxy, nanomaggies^2, of sky in nanomaggies a pixel."""
    count, gain = instrument.NANOMAGGIES_PER_COUNT, instrument.GAIN
    return np.asarray(sky * count / gain + instrument.DARK_VARIANCE * count**2, np.float32)


def draw_sky_residual(sky: Floats, pixels: int, rng: np.random.Generator, bands: slice = ALL) -> Image:
    """Draw what the subtraction of the sky leaves, (5, pixels, pixels): a level and a plane in each band.

    Halos and galaxies too faint to be seen lift all bands together, some stamps by much.
    """
    size = np.sqrt(sky_variance(sky))[:, None, None]
    common = (instrument.SKY_LIFT * np.exp(rng.standard_normal())).astype(np.float32)[:, None, None]
    own = np.float32(instrument.SKY_RESIDUAL) * size
    level, along_x, along_y = own * rng.standard_normal((3, len(BANDS), 1, 1), np.float32)
    place, level = _places(pixels), size * common + level
    return np.asarray((level[bands] + along_x[bands] * place) + along_y[bands] * place[:, None])


@cache
def _places(pixels: int) -> Image:
    return np.linspace(-1, 1, pixels, dtype=np.float32)


def resample(noise: Image, rng: np.random.Generator, bands: slice = ALL) -> Image:
    """Interpolate noise (5, pixels, pixels) as cutting does: each band is shifted by cubic splines."""
    along_y, along_x = rng.integers(0, SHIFTS, (2, len(BANDS)))[:, bands].tolist()
    matrices, transposed = _shift_matrices(noise.shape[-1])
    moved = np.empty_like(noise)
    for band, out, rows, columns in zip(noise, moved, along_y, along_x, strict=True):
        np.matmul(matrices[rows] @ band, transposed[columns], out=out)
    return moved


@cache
def _shift_matrices(pixels: int) -> tuple[Image, Image]:
    """Return matrices (SHIFTS, pixels, pixels) that shift by fractions of a pixel, by cubic splines.

    The second ones are the transposed, of columns.
    """
    unit = np.eye(pixels)
    fractions = np.arange(SHIFTS) / SHIFTS
    moved = np.array([ndimage.shift(unit, (f, 0), order=3, mode="grid-wrap") for f in fractions], np.float32)
    return moved, np.ascontiguousarray(moved.transpose(0, 2, 1))
