"""What simulated galaxies show beyond bulge and disc: arms and clumps of young stars, bars, dust, companions.

Each is a share of the disc's light: what a galaxy sends in a band is the same with and without it. Columns of
the table are drawn here, and the map of young stars that the renderer takes.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from scipy.special import gammainc, ndtri

from photoz_lit.data.mock import instrument
from photoz_lit.data.mock.photometry import latent_numbers, template_colours
from photoz_lit.data.mock.red_blue import choose
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.grids import Floats

STRUCTURE_DRAWS = (
    *("young", "arms", "pitch", "arm_phase", "arm_contrast", "clumps", "barred", "bar", "bar_angle", "lane"),
    *("lopsided", "lopsided_angle", "member_colour"),
)
YOUNG_TILT = 2.0  # slope of young stars' spectra above that of their disc, mag per unit of ln(wavelength)
MOST_YOUNG = 0.8  # of a disc's light in any band
CLUMP = 0.8  # kpc: size of a star-forming complex (Elmegreen & Elmegreen 1983, MNRAS 203, 31)
HOLE = 0.6  # young stars follow R^2 / (R^2 + HOLE^2) exp(-R), R in scale lengths


def draw_structure(table: Table, draws: dict[str, Floats], without: Collection[str]) -> None:
    """Draw structure of discs (columns `true_*`), and the companions at a galaxy's own redshift."""

    def present(effect: str) -> float:
        return float(effect not in without)

    normal = latent_numbers(table, draws)
    x = np.log(instrument.WAVELENGTH / instrument.WAVELENGTH[BANDS.index("r")])
    young = choose(table, "young") * np.exp(0.5 * normal["activity"] + 0.3 * ndtri(draws["young"]))
    bluer = 10 ** (-0.4 * YOUNG_TILT * x)
    young = np.minimum(young, MOST_YOUNG / bluer.max()) * present("arms")
    table["true_young_share"] = young
    for j, band in enumerate(BANDS):
        table[f"true_young_{band}"] = young * bluer[j] * table[f"true_disc_{band}"]
    table["true_arms"] = 2 + (draws["arms"] > 0.6) + (draws["arms"] > 0.85)  # two, three or four
    # Later types have more open arms (Kennicutt 1981, AJ 86, 1847).
    table["true_pitch"] = np.radians(np.clip(16 + 4 * normal["activity"] + 4 * ndtri(draws["pitch"]), 6, 40))
    table["true_arm_phase"] = 2 * np.pi * draws["arm_phase"]
    table["true_arm_contrast"] = np.exp(0.7 + 0.5 * ndtri(draws["arm_contrast"]))
    table["true_clumps"] = np.clip(0.9 + 0.25 * normal["activity"] + 0.2 * ndtri(draws["clumps"]), 0.2, 1.6)
    barred = draws["barred"] < choose(table, "barred")
    table["true_bar"] = np.where(barred, 0.05 + 0.15 * draws["bar"], 0.0) * present("bars")
    table["true_bar_angle"] = np.pi * draws["bar_angle"]
    inclined = 1 - np.asarray(table["true_disc_axis_ratio"])
    dusty = np.minimum(choose(table, "dust") / 1.5, 1)
    table["true_lane"] = 0.25 * draws["lane"] * inclined**2 * dusty * present("dust_lanes")
    lopsided = np.abs(
        0.15 * ndtri(draws["lopsided"])
    )  # of the disc's light (Zaritsky & Rix 1997, ApJ 477, 118)
    table["true_lopsided"] = np.minimum(lopsided, 0.6) * present("asymmetry")
    table["true_lopsided_angle"] = 2 * np.pi * draws["lopsided_angle"]
    table["true_members"] = choose(table, "members") * present("companions")
    early = template_colours(0.1 + 0.1 * ndtri(draws["member_colour"]), np.asarray(table["spec_z"]))
    for j, band in enumerate(BANDS):
        table[f"true_member_{band}"] = early[:, j]


def map_young_stars(
    row: dict[str, Any], centre: tuple[float, float], side: int, kpc: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Draw where a disc's young stars are, (side, side), of unit sum where they all lie within.

    `centre` is the disc's (x, y) in pixels, `kpc` that of a pixel.
    """
    scale = row["true_disc_radius"] / instrument.PIXEL / instrument.EXPONENTIAL
    ratio, angle = row["true_disc_axis_ratio"], row["true_disc_angle"]
    dx = np.arange(side, dtype=np.float32) - np.float32(centre[0])
    dy = np.arange(side, dtype=np.float32)[:, None] - np.float32(centre[1])
    cosine, sine = np.float32(np.cos(angle) / scale), np.float32(np.sin(angle) / scale)
    u = cosine * dx + sine * dy
    v = (cosine * dy - sine * dx) * np.float32(1 / ratio)
    radius2 = u * u
    radius2 += v * v
    radius = np.sqrt(radius2)
    inverse = 1 / np.maximum(radius, np.float32(1e-12))
    u *= inverse  # cosine and sine of the azimuth; of the arms' times it, by their powers
    v *= inverse
    along, across = u, v
    for _ in range(row["true_arms"] - 1):
        along, across = along * u - across * v, along * v + across * u
    turned = np.log(radius + np.float32(0.2))
    turned *= np.float32(row["true_arms"] / np.tan(row["true_pitch"]))
    turned += np.float32(row["true_arms"] * row["true_arm_phase"])
    along *= np.cos(turned)
    across *= np.sin(turned)
    along += across  # the wave of the arms
    cell = max(1, round(CLUMP / kpc))
    coarse = row["true_clumps"] * rng.standard_normal((-(-side // cell),) * 2, np.float32)
    along -= 1
    along *= np.float32(row["true_arm_contrast"])
    along += np.repeat(np.repeat(coarse, cell, 0), cell, 1)[:side, :side]
    along -= radius
    bright = np.exp(np.maximum(along, -30, out=along), out=along)  # numbers below 1e-38 are slow
    phase, lopsided = row["true_lopsided_angle"], row["true_lopsided"]
    u *= np.float32(lopsided * np.cos(phase))
    v *= np.float32(lopsided * np.sin(phase))
    u += v
    u += 1
    bright *= u
    bright *= radius2 / (radius2 + np.float32(HOLE**2))
    # Of a disc that is wider than the map, the share within: about that of its light along the major axis.
    return np.asarray(bright * np.float32(gammainc(2, side / 2 / scale) / bright.sum()))
