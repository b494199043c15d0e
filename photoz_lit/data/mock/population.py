"""Who the galaxies of the simulated survey are: redshift, luminosity, spectrum, size, shape, sky and seeing.

A flux-limited sample like the SDSS Main Galaxy Sample (Strauss et al. 2002, AJ 124, 1810) with a red and a
blue population. Each galaxy owns one row of uniform random numbers, and every property is an inverse
cumulative distribution of one of them: galaxy i of a survey is the same whatever the survey's size.

Calibrated numbers stand in `red_blue` and `photometry`; elsewhere the source of a number stands beside it.
"""

from collections.abc import Collection
from functools import cache

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from astropy.table import Table
from scipy.special import expit, gammainc, ndtri

from photoz_lit.data.mock.ideal import add_ideal_columns
from photoz_lit.data.mock.instrument import (
    DEVAUCOULEURS,
    EXPONENTIAL,
    PIXEL,
    PSF_ELLIPTICITY,
    SEEING,
    SKY,
)
from photoz_lit.data.mock.photometry import (
    LATENT,
    draw_spectra,
    latent_numbers,
    log_stellar_mass,
    rescale_to_magnitudes,
)
from photoz_lit.data.mock.red_blue import BLUE, NUMBERS, RED, choose, relative_luminosity
from photoz_lit.data.mock.structure import STRUCTURE_DRAWS, draw_structure
from photoz_lit.data.mock.templates import BANDS, load_templates
from photoz_lit.data.splits import NUMBERED
from photoz_lit.grids import Bools, Floats

COSMOLOGY = FlatLambdaCDM(H0=70.0, Om0=0.3)
Z_MIN, Z_MAX = 0.003, 0.4
R_BRIGHT, R_FAINT = 12.5, 17.77  # mag, dereddened Petrosian; the faint limit is that of Strauss et al.
R_DRAWN = 18.0  # candidates: a survey keeps those that it measures as brighter than its limit
# Petrosian over true half-light radius of a de Vaucouleurs profile (Graham et al. 2005, AJ 130, 1535).
PETROSIAN_BULGE_RADIUS = 0.71
RED_SIZE = 0.9  # of red galaxies over the relation; calibrated on the errors of real magnitudes
DISC_THICKNESS = 0.2  # axis ratio of an edge-on disc

# One uniform random number each, per galaxy.
DRAWS = (
    *("population", "redshift", "luminosity", "inclination", "bulge_size", "bulge_axis", "angle", "twist"),
    *(*LATENT, *STRUCTURE_DRAWS, "ebv", "seeing", "ellipticity", "psf_angle", "sky", "x", "y"),
    *(f"{name}_{band}" for name in ("seeing", "ellipticity", "sky", "calibration") for band in BANDS),
)


def draw_galaxies(
    n: int,
    seed: int,
    *,
    catalogue: Table | None = None,
    without: Collection[str] = (),
    r_faint: float = R_DRAWN,
) -> Table:
    """Draw n candidates of a simulated survey, before it measures them: row i depends on the seed and i only.

    Columns are object_id, spec_z; ebv, mag; log_mass, log10 of solar masses; true_petro_r, mag, down to
    `r_faint`; ideal_mag_*, mag, and ideal_share_*, of the bulge, as photons alone would scatter them. For the
    renderer true_bulge_*, true_disc_*, true_young_* (of the disc's): dereddened nanomaggies; true_*_radius
    (half-light, along the major axis, arcsec), true_*_axis_ratio, true_*_angle (rad, from x towards y);
    true_x, true_y (pixels from the middle of the stamp), true_seeing_* (FWHM, arcsec), true_psf_*, true_sky_*
    (nanomaggies per square arcsec); what else `draw_structure` adds. For the record true_red, true_absolute_r
    (mag), true_g_r (rest frame, mag), true_bulge_fraction (in r), true_g_r_gradient (bulge less disc, mag).

    `without` names effects that are left out.

    A `catalogue` is of real galaxies: spec_z and dereddened mag_u to mag_z, and where present mag_err_u to
    mag_err_z, ebv and dered_petro_r. The survey then takes these from its rows in random order (column
    `catalogue_row`); only shapes are simulated. Each comes once before one comes again.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    # Moved off zero, where the inverse normal distribution is infinite.
    draws = dict(zip(DRAWS, rng.random((n, len(DRAWS))).T + 2.0**-54, strict=True))
    table = Table({"object_id": np.arange(n, dtype=np.int64)}, meta={"seed": seed, NUMBERED: True})
    if catalogue is None:
        _draw_luminosities(table, draws, r_faint)
    else:
        _take_catalogue(table, catalogue, seed)
    _draw_structure(table, draws)
    _draw_conditions(table, draws, without)
    draw_spectra(table, draws, without)
    if catalogue is not None:
        rescale_to_magnitudes(table)
    draw_structure(table, draws, without)
    add_ideal_columns(table, seed)
    table["log_mass"] = log_stellar_mass(*(np.asarray(table[f"true_{n}"]) for n in ("absolute_r", "g_r")))
    return table


@cache
def _luminosity_function(population: int) -> tuple[Floats, Floats]:
    """Return absolute magnitudes and the number of galaxies brighter than each (Schechter 1976)."""
    magnitude = np.arange(-26.0, -9.0, 0.005)
    density, m_star, alpha = (NUMBERS[name][population] for name in ("density", "m_star", "alpha"))
    luminosity = 10 ** (-0.4 * (magnitude - m_star))
    return magnitude, np.cumsum(density * luminosity ** (alpha + 1) * np.exp(-luminosity))


@cache
def _magnitude_offset(population: int) -> tuple[Floats, Floats]:
    """Return redshifts and apparent minus absolute r: distance modulus, k-correction and evolution."""
    z = np.linspace(Z_MIN, Z_MAX, 1000)
    grid, _, k_r = load_templates()
    mean_type, evolution = (NUMBERS[name][population] for name in ("mean_type", "evolution"))
    lower = int(mean_type)
    share = mean_type - lower
    k = np.interp(z, grid, (1 - share) * k_r[:, lower] + share * k_r[:, lower + 1])
    return z, COSMOLOGY.distmod(z).value + k - evolution * z


@cache
def _redshift_distribution(population: int, r_faint: float) -> Floats:
    """Return the number of galaxies within the magnitude limits out to each redshift of the grid."""
    z, offset = _magnitude_offset(population)
    magnitude, brighter = _luminosity_function(population)
    bright, faint = (np.interp(limit - offset, magnitude, brighter) for limit in (R_BRIGHT, r_faint))
    return np.asarray(np.cumsum((faint - bright) * COSMOLOGY.differential_comoving_volume(z).value))


def _draw_luminosities(table: Table, draws: dict[str, Floats], r_faint: float) -> None:
    counts = {population: _redshift_distribution(population, r_faint) for population in (RED, BLUE)}
    red = draws["population"] < counts[RED][-1] / (counts[RED][-1] + counts[BLUE][-1])
    spec_z, absolute, apparent = np.empty((3, len(table)))
    for population, members in ((RED, red), (BLUE, ~red)):
        z, offset = _magnitude_offset(population)
        magnitude, brighter = _luminosity_function(population)
        out_to_z = counts[population]
        spec_z[members] = np.interp(draws["redshift"][members] * out_to_z[-1], out_to_z, z)
        shift = np.interp(spec_z[members], z, offset)
        bright, faint = (np.interp(limit - shift, magnitude, brighter) for limit in (R_BRIGHT, r_faint))
        number = bright + draws["luminosity"][members] * (faint - bright)
        absolute[members] = np.interp(number, brighter, magnitude)
        apparent[members] = absolute[members] + shift
    table["spec_z"], table["true_petro_r"] = spec_z, apparent
    table["true_red"], table["true_absolute_r"] = red, absolute


def _take_catalogue(table: Table, catalogue: Table, seed: int) -> None:
    """Take redshifts and magnitudes from real galaxies; colour and luminosity say what they look like."""
    needed = ["spec_z", *(f"mag_{band}" for band in BANDS)]
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    rounds = 1 + len(table) // len(catalogue)
    rows = np.concatenate([rng.permutation(len(catalogue)) for _ in range(rounds)])[: len(table)]
    optional = ("ebv", "dered_petro_r", *(f"mag_err_{band}" for band in BANDS))
    for name in (*needed, *(name for name in optional if name in catalogue.colnames)):
        values: Floats = np.ma.filled(np.ma.asarray(catalogue[name], float)[rows], np.nan)
        if not np.isfinite(values).all():
            raise ValueError(f"column {name} of the real galaxies has missing or infinite values")
        table[name] = values
    most = load_templates()[0][-1]
    if len(table) and not (table["spec_z"].min() > 0 and table["spec_z"].max() <= most):
        raise ValueError(f"spec_z of the catalogue must lie in (0, {most}].")
    if "dered_petro_r" not in table.colnames:
        table["dered_petro_r"] = table["mag_r"]
    table["true_petro_r"] = table["dered_petro_r"]
    table["catalogue_row"] = rows
    # Strateva et al. (2001, AJ 122, 1861) divide the two populations at u - r = 2.22.
    table["true_red"] = table["mag_u"] - table["mag_r"] > 2.22
    red, blue = (np.interp(table["spec_z"], *_magnitude_offset(population)) for population in (RED, BLUE))
    table["true_absolute_r"] = table["mag_r"] - np.where(table["true_red"], red, blue)


def half_light_radius(absolute_r: Floats, red: Bools, draw: Floats) -> Floats:
    """Draw Petrosian half-light radii, kpc (Shen et al. 2003, MNRAS 343, 978, table 1), by normal numbers."""
    knee = absolute_r + 20.52
    early = -0.4 * 0.60 * absolute_r - 4.63
    late = -0.4 * 0.21 * absolute_r + (0.53 - 0.21) * np.log10(1 + 10 ** (-0.4 * knee)) - 1.31
    scatter = 0.25 + (0.48 - 0.25) / (1 + 10 ** (-0.8 * knee))
    # The straight line of early types would shrink dwarfs without end: no smaller than 1 kpc.
    return np.asarray(10 ** np.where(red, np.maximum(early, 0.0), late) * np.exp(scatter * draw))


def disc_over_total_radius(bulge_fraction: Floats, bulge_over_disc: Floats) -> Floats:
    """Return the half-light radius of an exponential disc over that of the galaxy, seen face on, (n,)."""
    low, high = np.full_like(bulge_fraction, np.log(0.01)), np.full_like(bulge_fraction, np.log(10.0))
    for _ in range(30):
        middle = (low + high) / 2
        radius = np.exp(middle)  # in disc half-light radii
        bulge = gammainc(8, DEVAUCOULEURS * (radius / bulge_over_disc) ** 0.25)
        disc = gammainc(2, EXPONENTIAL * radius)
        inside = bulge_fraction * bulge + (1 - bulge_fraction) * disc > 0.5
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    return np.asarray(np.exp(-(low + high) / 2))


def _draw_structure(table: Table, draws: dict[str, Floats]) -> None:
    mean, slope, scatter = choose(table, "bulge_fraction")
    normal = latent_numbers(table, draws)
    fraction = expit(mean + slope * relative_luminosity(table) + scatter * normal["bulge_fraction"])
    median, scatter = choose(table, "bulge_size")
    bulge_over_disc = median * np.exp(scatter * ndtri(draws["bulge_size"]))
    absolute_r, red = (np.asarray(table[name]) for name in ("true_absolute_r", "true_red"))
    kpc = half_light_radius(absolute_r, red, normal["size"])
    z = np.linspace(Z_MIN / 2, load_templates()[0][-1], 1000)
    arcsec_per_kpc = np.interp(table["spec_z"], z, COSMOLOGY.arcsec_per_kpc_proper(z).value)
    table["true_kpc_per_pixel"], arcsec = PIXEL / arcsec_per_kpc, kpc * arcsec_per_kpc
    # The relations are of Petrosian radii, which miss the wings of a bulge.
    arcsec /= 1 - (1 - PETROSIAN_BULGE_RADIUS) * fraction
    cosine, angle = draws["inclination"], 2 * np.pi * draws["angle"]
    ratio = np.sqrt(DISC_THICKNESS**2 + (1 - DISC_THICKNESS**2) * cosine**2)
    # They are of circular apertures, which are smaller than the major axis of a disc. Red galaxies are
    # smaller still: so the errors of their magnitudes are those of real ones.
    arcsec *= np.where(red, RED_SIZE, 1 / np.sqrt(ratio))
    disc_radius = arcsec * disc_over_total_radius(fraction, bulge_over_disc)
    table["true_bulge_fraction"] = fraction
    table["true_bulge_radius"], table["true_disc_radius"] = disc_radius * bulge_over_disc, disc_radius
    # A spheroid is rounder than the disc and appears the flatter, the more the galaxy is inclined.
    table["true_bulge_axis_ratio"] = 1 - (0.15 + 0.45 * draws["bulge_axis"]) * (1 - cosine**2)
    table["true_disc_axis_ratio"] = ratio
    table["true_bulge_angle"], table["true_disc_angle"] = angle + np.radians(8) * ndtri(draws["twist"]), angle


def _draw_conditions(table: Table, draws: dict[str, Floats], without: Collection[str]) -> None:
    if "ebv" not in table.colnames:
        # Resembles the map of Schlegel, Finkbeiner & Davis (1998) over the survey's northern area.
        table["ebv"] = np.minimum(0.028 * np.exp(0.65 * ndtri(draws["ebv"])), 0.5)
    for name, median, common, own in (("seeing", SEEING, 0.14, 0.08), ("sky", SKY, 0.17, 0.06)):
        shared = common * ndtri(draws[name])
        for band, value in zip(BANDS, median, strict=True):
            table[f"true_{name}_{band}"] = value * np.exp(shared + own * ndtri(draws[f"{name}_{band}"]))
    for band in BANDS:
        shape = PSF_ELLIPTICITY * np.exp(
            0.4 * ndtri(draws["ellipticity"]) + 0.3 * ndtri(draws[f"ellipticity_{band}"])
        )
        table[f"true_psf_ellipticity_{band}"] = np.minimum(shape, 0.3) * ("psf_shape" not in without)
    table["true_psf_angle"] = np.pi / 2 + 0.4 * ndtri(draws["psf_angle"])
    table["true_x"], table["true_y"] = draws["x"] - 0.5, draws["y"] - 0.5
