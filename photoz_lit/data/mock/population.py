"""Who the galaxies of the simulated survey are: redshift, luminosity, spectrum, size, shape, sky and seeing.

A flux-limited sample like the SDSS Main Galaxy Sample (Strauss et al. 2002, AJ 124, 1810) with a red and a
blue population. Each galaxy owns one row of uniform random numbers, and every property is an inverse
cumulative distribution of one of them: galaxy i of a survey is the same whatever the survey's size.

`RED`, `BLUE` and `TEMPLATE_CORRECTIONS` are calibrated so that colours, magnitudes and redshifts resemble
5,000 real galaxies of that sample; elsewhere the source of a number stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from astropy.table import Table
from numpy.typing import NDArray
from scipy.special import expit, gammainc, ndtri

from photoz_lit.data.mock.instrument import (
    CALIBRATION,
    DARK_VARIANCE,
    DEVAUCOULEURS,
    EXPONENTIAL,
    EXTINCTION,
    GAIN,
    NANOMAGGIES_PER_COUNT,
    PIXEL,
    SEEING,
    SKY,
    WAVELENGTH,
    ZERO_POINT,
)
from photoz_lit.data.mock.templates import BANDS, TYPES, load_templates
from photoz_lit.data.splits import NUMBERED

Array = NDArray[np.float64]

COSMOLOGY = FlatLambdaCDM(H0=70.0, Om0=0.3)
Z_MIN, Z_MAX = 0.003, 0.4
R_BRIGHT, R_FAINT = 12.5, 17.77  # mag, dereddened Petrosian; the faint limit is that of Strauss et al.
# A Petrosian magnitude misses 18 % of a de Vaucouleurs profile, 1 % of an exponential one (same source).
PETROSIAN_BULGE, PETROSIAN_DISC = 0.82, 0.99
# Petrosian over true half-light radius of a de Vaucouleurs profile (Graham et al. 2005, AJ 130, 1535).
PETROSIAN_BULGE_RADIUS = 0.71
DISC_THICKNESS = 0.2  # axis ratio of an edge-on disc
G, R = BANDS.index("g"), BANDS.index("r")
# Stellar mass over light in r from rest-frame g - r: log10 (M/L) = a + b (g - r) in solar units (Bell et al.
# 2003, ApJS 149, 289, table 7; for their "diet" Salpeter initial mass function), and the Sun's absolute r in
# AB mag (Willmer 2018, ApJS 236, 47).
MASS_TO_LIGHT = (-0.306, 1.097)
SUN_R = 4.65


@dataclass(frozen=True)
class Population:
    """One population of galaxies.

    Types run from 0 (El) over 1 (Sbc) and 2 (Scd) to 3 (Im); M below stands for M_r - m_star.
    """

    density: float  # phi*, relative
    m_star: float  # M*_r, mag, H0 = 70
    alpha: float  # faint-end slope
    evolution: float  # brightening, mag per unit redshift
    mean_type: float  # type whose k-correction stands for the population
    bulge_type: tuple[float, float]  # mean, scatter
    disc_type: tuple[float, float, float]  # mean, slope with M, scatter
    bulge_fraction: tuple[float, float, float]  # logit of the r-band share: mean, slope with M, scatter
    dust: float  # mag in r of a disc per dex of axis ratio, times a log-normal factor
    tilt: tuple[float, float]  # colour-magnitude relation: slope of the spectrum with M; scatter of the slope
    curvature: float  # scatter of the spectrum's curvature
    bulge_size: tuple[float, float]  # bulge over disc half-light radius: median, scatter in ln


RED = Population(
    density=0.41,
    m_star=-21.20,
    alpha=-0.77,
    evolution=0.7,
    mean_type=0.1,
    bulge_type=(0.0, 0.1),
    disc_type=(0.12, 0.05, 0.22),
    bulge_fraction=(1.6, -0.3, 0.7),
    dust=0.1,
    tilt=(0.055, 0.066),
    curvature=0.038,
    bulge_size=(0.8, 0.3),
)
BLUE = Population(
    density=0.59,
    m_star=-20.90,
    alpha=-1.0,
    evolution=0.7,
    mean_type=1.4,
    bulge_type=(0.70, 0.18),
    disc_type=(2.25, 0.31, 0.71),
    bulge_fraction=(-1.27, -0.6, 1.14),
    dust=1.5,
    tilt=(0.10, 0.09),
    curvature=0.054,
    bulge_size=(0.5, 0.3),
)

# Smooth corrections of the El and of the later spectra, mag: coefficients of x, x^2, x^3, where x is
# ln(rest-frame wavelength / 6166 angstrom). They make El redder in u - r, by 0.26 mag at z = 0.1 and more
# beyond, because the template is too blue in the near ultraviolet for red galaxies of SDSS; elsewhere they
# stay below 0.07 mag to z = 0.2, and for the later types below 0.18 mag.
TEMPLATE_CORRECTIONS = np.array([[0.06, -0.59, -1.98], [-0.15, 0.09, -0.12]])

# One uniform random number each, per galaxy; new names go to the end, so that old surveys stay as they were.
DRAWS = (
    *("population", "redshift", "luminosity", "bulge_type", "disc_type", "bulge_fraction", "inclination"),
    *("dust", "tilt", "curvature", "size", "bulge_size", "bulge_axis", "angle", "twist", "ebv", "petrosian"),
    *("seeing", "sky", "x", "y"),
    *(f"{name}_{band}" for name in ("seeing", "sky", "calibration", "noise") for band in BANDS),
)


def draw_galaxies(n: int, seed: int, *, catalogue: Table | None = None) -> Table:
    """Draw the galaxies of a simulated survey.

    Parameters
    ----------
    n : int
        Number of galaxies. Row i depends on ``seed`` and i only.
    seed : int
        Seed of the survey, not negative.
    catalogue : Table, optional
        Real galaxies: columns ``spec_z`` and dereddened ``mag_u`` to ``mag_z``, and where present
        ``mag_err_u`` to ``mag_err_z``, ``ebv`` and ``dered_petro_r``. The survey then takes these from its
        rows in random order (column ``catalogue_row``); only shapes are simulated. Each comes once before
        one comes again: the same galaxy in another shape, seen from another side under another sky.

    Returns
    -------
    Table, n rows
        ``object_id``; ``spec_z``; ``dered_petro_r``, ``ebv`` in mag; ``mag_*``, ``mag_err_*``: dereddened
        magnitudes as a survey measures them; ``log_mass``, the logarithm to base 10 of the stellar mass in
        solar masses. For the renderer ``true_bulge_*``, ``true_disc_*``: dereddened
        fluxes in nanomaggies; for both components ``true_*_radius`` (half-light, along the major axis,
        arcsec), ``true_*_axis_ratio``, ``true_*_angle`` (rad, from x towards y); ``true_x``, ``true_y``
        (pixels from the middle of the stamp), ``true_seeing_*`` (FWHM, arcsec), ``true_sky_*`` (nanomaggies
        per square arcsec). For the record ``true_red`` (bool), ``true_absolute_r`` (mag), ``true_g_r`` (rest
        frame, mag) and ``true_bulge_fraction`` (in r).

    Raises
    ------
    ValueError
        If n or the seed is negative, or the catalogue has no rows or lacks columns or valid values.
    """
    if n < 0 or seed < 0:
        raise ValueError(f"n and seed must not be negative, got n={n}, seed={seed}.")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))
    # Moved off zero, where the inverse normal distribution is infinite.
    draws = dict(zip(DRAWS, rng.random((n, len(DRAWS))).T + 2.0**-54, strict=True))
    table = Table({"object_id": np.arange(n, dtype=np.int64)}, meta={"seed": seed, NUMBERED: True})
    if catalogue is None:
        _draw_luminosities(table, draws)
    else:
        _take_catalogue(table, catalogue, seed)
    _draw_structure(table, draws)
    _draw_conditions(table, draws)
    _draw_spectra(table, draws)
    if catalogue is None:
        _measure(table, draws)
    else:
        _rescale_to_magnitudes(table)
    table["log_mass"] = log_stellar_mass(*(np.asarray(table[f"true_{n}"]) for n in ("absolute_r", "g_r")))
    return table


# --- Redshift and luminosity ------------------------------------------------------------


@cache
def _luminosity_function(population: Population) -> tuple[Array, Array]:
    """Return absolute magnitudes and the number of galaxies brighter than each (Schechter 1976)."""
    magnitude = np.arange(-26.0, -9.0, 0.005)
    luminosity = 10 ** (-0.4 * (magnitude - population.m_star))
    density = population.density * luminosity ** (population.alpha + 1) * np.exp(-luminosity)
    return magnitude, np.cumsum(density)


@cache
def _magnitude_offset(population: Population) -> tuple[Array, Array]:
    """Return redshifts and apparent minus absolute r: distance modulus, k-correction and evolution."""
    z = np.linspace(Z_MIN, Z_MAX, 1000)
    grid, _, k_r = load_templates()
    lower = min(int(population.mean_type), len(TYPES) - 2)
    share = population.mean_type - lower
    k = np.interp(z, grid, (1 - share) * k_r[:, lower] + share * k_r[:, lower + 1])
    return z, COSMOLOGY.distmod(z).value + k - population.evolution * z


@cache
def _redshift_distribution(population: Population) -> Array:
    """Return the number of galaxies within the magnitude limits out to each redshift of the grid."""
    z, offset = _magnitude_offset(population)
    magnitude, brighter = _luminosity_function(population)
    selected = np.interp(R_FAINT - offset, magnitude, brighter) - np.interp(
        R_BRIGHT - offset, magnitude, brighter
    )
    return np.asarray(np.cumsum(selected * COSMOLOGY.differential_comoving_volume(z).value))


def _draw_luminosities(table: Table, draws: dict[str, Array]) -> None:
    """Draw population, redshift and absolute magnitude under the survey's magnitude limits."""
    counts = {population: _redshift_distribution(population) for population in (RED, BLUE)}
    red = draws["population"] < counts[RED][-1] / (counts[RED][-1] + counts[BLUE][-1])
    spec_z, absolute, apparent = np.empty((3, len(table)))
    for population, members in ((RED, red), (BLUE, ~red)):
        z, offset = _magnitude_offset(population)
        magnitude, brighter = _luminosity_function(population)
        spec_z[members] = np.interp(
            draws["redshift"][members] * counts[population][-1], counts[population], z
        )
        shift = np.interp(spec_z[members], z, offset)
        bright, faint = (np.interp(limit - shift, magnitude, brighter) for limit in (R_BRIGHT, R_FAINT))
        number = bright + draws["luminosity"][members] * (faint - bright)
        absolute[members] = np.interp(number, brighter, magnitude)
        apparent[members] = absolute[members] + shift
    table["spec_z"], table["dered_petro_r"] = spec_z, apparent
    table["true_red"], table["true_absolute_r"] = red, absolute


def _take_catalogue(table: Table, catalogue: Table, seed: int) -> None:
    """Take redshifts and magnitudes from real galaxies; colour and luminosity say what they look like."""
    needed = ["spec_z", *(f"mag_{band}" for band in BANDS)]
    if missing := [name for name in needed if name not in catalogue.colnames]:
        raise ValueError(f"The catalogue of real galaxies lacks the columns {', '.join(missing)}.")
    if len(catalogue) == 0:
        raise ValueError("The catalogue of real galaxies has no rows.")
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2,)))
    rounds = 1 + len(table) // len(catalogue)
    rows = np.concatenate([rng.permutation(len(catalogue)) for _ in range(rounds)])[: len(table)]
    optional = ("ebv", "dered_petro_r", *(f"mag_err_{band}" for band in BANDS))
    for name in (*needed, *(name for name in optional if name in catalogue.colnames)):
        values: Array = np.ma.filled(np.ma.asarray(catalogue[name], float)[rows], np.nan)
        if not np.isfinite(values).all():
            raise ValueError(
                f"Column {name} of the catalogue of real galaxies has missing or infinite values."
            )
        table[name] = values
    if len(table) and not (table["spec_z"].min() > 0 and table["spec_z"].max() <= load_templates()[0][-1]):
        raise ValueError(f"spec_z of the catalogue must lie in (0, {load_templates()[0][-1]}].")
    if "dered_petro_r" not in table.colnames:
        table["dered_petro_r"] = table["mag_r"]
    table["catalogue_row"] = rows
    # Strateva et al. (2001, AJ 122, 1861) divide the two populations at u - r = 2.22.
    table["true_red"] = table["mag_u"] - table["mag_r"] > 2.22
    red, blue = (np.interp(table["spec_z"], *_magnitude_offset(population)) for population in (RED, BLUE))
    table["true_absolute_r"] = table["mag_r"] - np.where(table["true_red"], red, blue)


# --- Structure --------------------------------------------------------------------------


def _relative_luminosity(table: Table) -> Array:
    """Return M_r - M*_r of each galaxy's own population, mag."""
    return np.asarray(table["true_absolute_r"] - np.where(table["true_red"], RED.m_star, BLUE.m_star))


def _choose(table: Table, name: str) -> Array:
    """Return a setting of each galaxy's own population, shape (n,) or (number of values, n)."""
    red, blue = (np.asarray(getattr(population, name))[..., None] for population in (RED, BLUE))
    return np.asarray(np.where(table["true_red"], red, blue))


def half_light_radius(absolute_r: Array, red: NDArray[np.bool_], draw: Array) -> Array:
    """Draw Petrosian half-light radii from the relations of Shen et al. (2003, MNRAS 343, 978, table 1).

    Parameters
    ----------
    absolute_r : ndarray, shape (n,)
        M_r, mag.
    red : ndarray of bool, shape (n,)
        Whether the relation for early types holds.
    draw : ndarray, shape (n,)
        Standard normal numbers.

    Returns
    -------
    ndarray, shape (n,)
        Petrosian half-light radius, kpc.
    """
    knee = absolute_r + 20.52
    early = -0.4 * 0.60 * absolute_r - 4.63
    late = -0.4 * 0.21 * absolute_r + (0.53 - 0.21) * np.log10(1 + 10 ** (-0.4 * knee)) - 1.31
    scatter = 0.25 + (0.48 - 0.25) / (1 + 10 ** (-0.8 * knee))
    # The straight line of early types would shrink dwarfs without end: no smaller than 1 kpc.
    return np.asarray(10 ** np.where(red, np.maximum(early, 0.0), late) * np.exp(scatter * draw))


def disc_over_total_radius(bulge_fraction: Array, bulge_over_disc: Array) -> Array:
    """Return the half-light radius of the disc over that of bulge and disc together, seen face on.

    Parameters
    ----------
    bulge_fraction : ndarray, shape (n,)
        Share of the bulge (de Vaucouleurs) in the light; the rest is an exponential disc.
    bulge_over_disc : ndarray, shape (n,)
        Half-light radius of the bulge over that of the disc.

    Returns
    -------
    ndarray, shape (n,)
    """
    low, high = np.full_like(bulge_fraction, np.log(0.01)), np.full_like(bulge_fraction, np.log(10.0))
    for _ in range(30):
        middle = (low + high) / 2
        radius = np.exp(middle)  # in disc half-light radii
        bulge = gammainc(8, DEVAUCOULEURS * (radius / bulge_over_disc) ** 0.25)
        disc = gammainc(2, EXPONENTIAL * radius)
        inside = bulge_fraction * bulge + (1 - bulge_fraction) * disc > 0.5
        low, high = np.where(inside, low, middle), np.where(inside, middle, high)
    return np.asarray(np.exp(-(low + high) / 2))


def _draw_structure(table: Table, draws: dict[str, Array]) -> None:
    """Draw bulge fraction, sizes, inclination and orientation."""
    normal = {name: ndtri(draws[name]) for name in ("bulge_fraction", "size", "bulge_size", "twist")}
    mean, slope, scatter = _choose(table, "bulge_fraction")
    fraction = expit(mean + slope * _relative_luminosity(table) + scatter * normal["bulge_fraction"])
    median, scatter = _choose(table, "bulge_size")
    bulge_over_disc = median * np.exp(scatter * normal["bulge_size"])
    kpc = half_light_radius(
        np.asarray(table["true_absolute_r"]), np.asarray(table["true_red"]), normal["size"]
    )
    z = np.linspace(Z_MIN / 2, load_templates()[0][-1], 1000)
    arcsec = kpc * np.interp(table["spec_z"], z, COSMOLOGY.arcsec_per_kpc_proper(z).value)
    # The relations are of Petrosian radii, which miss the wings of a bulge.
    arcsec /= 1 - (1 - PETROSIAN_BULGE_RADIUS) * fraction
    disc_radius = arcsec * disc_over_total_radius(fraction, bulge_over_disc)
    cosine = draws["inclination"]
    angle = 2 * np.pi * draws["angle"]
    table["true_bulge_fraction"] = fraction
    table["true_bulge_radius"], table["true_disc_radius"] = disc_radius * bulge_over_disc, disc_radius
    # A spheroid is rounder than the disc and appears the flatter, the more the galaxy is inclined.
    table["true_bulge_axis_ratio"] = 1 - (0.1 + 0.4 * draws["bulge_axis"]) * (1 - cosine**2)
    table["true_disc_axis_ratio"] = np.sqrt(DISC_THICKNESS**2 + (1 - DISC_THICKNESS**2) * cosine**2)
    table["true_bulge_angle"], table["true_disc_angle"] = angle + np.radians(8) * normal["twist"], angle


def _draw_conditions(table: Table, draws: dict[str, Array]) -> None:
    """Draw extinction, seeing, sky brightness and the sub-pixel position."""
    if "ebv" not in table.colnames:
        # Resembles the map of Schlegel, Finkbeiner & Davis (1998) over the survey's northern area.
        table["ebv"] = np.minimum(0.028 * np.exp(0.65 * ndtri(draws["ebv"])), 0.5)
    for name, median, common, own in (("seeing", SEEING, 0.10, 0.03), ("sky", SKY, 0.12, 0.05)):
        shared = common * ndtri(draws[name])
        for band, value in zip(BANDS, median, strict=True):
            table[f"true_{name}_{band}"] = value * np.exp(shared + own * ndtri(draws[f"{name}_{band}"]))
    table["true_x"], table["true_y"] = draws["x"] - 0.5, draws["y"] - 0.5


# --- Spectra and photometry -------------------------------------------------------------


def _template_colours(kind: Array, spec_z: Array) -> Array:
    """Return colours (band - r, mag; shape (n, 5)) of types 0 to 3 at each redshift, corrections included."""
    grid, colours, _ = load_templates()
    kind = np.clip(kind, 0, len(TYPES) - 1)
    lower = np.minimum(kind.astype(int), len(TYPES) - 2)
    step = np.minimum(np.searchsorted(grid, spec_z, side="right") - 1, len(grid) - 2)
    in_z = ((spec_z - grid[step]) / (grid[step + 1] - grid[step]))[:, None]
    in_type = (kind - lower)[:, None]
    by_type = [(1 - in_z) * colours[step, t] + in_z * colours[step + 1, t] for t in (lower, lower + 1)]
    x = _log_wavelength(spec_z)
    powers = np.stack([x, x**2, x**3], axis=-1)
    late = np.clip(kind, 0, 1)[:, None]
    correction = (1 - late) * (powers @ TEMPLATE_CORRECTIONS[0]) + late * (powers @ TEMPLATE_CORRECTIONS[1])
    return np.asarray((1 - in_type) * by_type[0] + in_type * by_type[1] + correction - correction[:, [R]])


def _log_wavelength(spec_z: Array) -> Array:
    """Return ln(rest-frame wavelength / 6166 angstrom) of the bands, shape (n, 5)."""
    return np.asarray(np.log(WAVELENGTH / WAVELENGTH[R]) - np.log1p(spec_z)[:, None])


def log_stellar_mass(absolute_r: Array, g_r: Array) -> Array:
    """Return log10 of the stellar mass in solar masses, from M_r and rest-frame g - r, both mag, shape (n,).

    M_r is that of today's luminosity, without the brightening of its population towards the past.
    """
    constant, slope = MASS_TO_LIGHT
    return constant + slope * g_r + 0.4 * (SUN_R - absolute_r)


def _component_colours(table: Table, draws: dict[str, Array], spec_z: Array) -> tuple[Array, Array]:
    """Draw colours (band - r, mag; shape (n, 5)) of bulge and disc as they are seen at any redshift."""
    luminosity = _relative_luminosity(table)
    x = _log_wavelength(spec_z)
    slope, scatter = _choose(table, "tilt")
    tilt = slope * luminosity + scatter * ndtri(draws["tilt"])
    curvature = _choose(table, "curvature") * ndtri(draws["curvature"])
    perturbation = tilt[:, None] * x + curvature[:, None] * x**2
    mean, scatter = _choose(table, "bulge_type")
    bulge = _template_colours(mean + scatter * ndtri(draws["bulge_type"]), spec_z) + perturbation
    mean, slope, scatter = _choose(table, "disc_type")
    disc = (
        _template_colours(mean + slope * luminosity + scatter * ndtri(draws["disc_type"]), spec_z)
        + perturbation
    )
    # Internal dust: grows with the path through the disc (Tully et al. 1998), law of Charlot & Fall (2000).
    depth = (
        _choose(table, "dust") * np.exp(0.3 * ndtri(draws["dust"])) * -np.log10(table["true_disc_axis_ratio"])
    )
    return bulge, disc + np.asarray(depth)[:, None] * np.exp(-0.7 * x)


def _draw_spectra(table: Table, draws: dict[str, Array]) -> None:
    """Draw the spectra of bulge and disc, and the fluxes that the survey's calibration makes of them."""
    bulge, disc = _component_colours(table, draws, np.asarray(table["spec_z"]))
    share = np.asarray(table["true_bulge_fraction"])
    missed = -2.5 * np.log10(PETROSIAN_BULGE * share + PETROSIAN_DISC * (1 - share))
    total = 10 ** (-0.4 * (np.asarray(table["dered_petro_r"]) - missed - ZERO_POINT))
    for j, band in enumerate(BANDS):
        gain = total * 10 ** (-0.4 * CALIBRATION[j] * ndtri(draws[f"calibration_{band}"]))
        table[f"true_bulge_{band}"] = gain * share * 10 ** (-0.4 * (bulge[:, j] - bulge[:, R]))
        table[f"true_disc_{band}"] = gain * (1 - share) * 10 ** (-0.4 * (disc[:, j] - disc[:, R]))
    at_rest = [c[:, G] - c[:, R] for c in _component_colours(table, draws, np.zeros(len(table)))]
    in_g = share * 10 ** (-0.4 * at_rest[0]) + (1 - share) * 10 ** (-0.4 * at_rest[1])
    table["true_g_r"] = -2.5 * np.log10(in_g)


def _flux_error(table: Table, j: int) -> tuple[Array, Array]:
    """Return the dereddened flux in band j and the error of a model fit to it, nanomaggies."""
    band = BANDS[j]
    flux = np.asarray(table[f"true_bulge_{band}"] + table[f"true_disc_{band}"])
    dimming = 10 ** (-0.4 * EXTINCTION[j] * np.asarray(table["ebv"]))
    radius = (np.asarray(table["true_bulge_radius"]) + np.asarray(table["true_disc_radius"])) / 2 / PIXEL
    width = np.asarray(table[f"true_seeing_{band}"]) / 2.355 / PIXEL
    # Effective area of a fit, 4 pi sigma^2, for seeing and galaxy added in quadrature.
    area = 4 * np.pi * (width**2 + (0.6 * radius) ** 2)
    count = NANOMAGGIES_PER_COUNT[j]
    sky = np.asarray(table[f"true_sky_{band}"]) * PIXEL**2
    variance = area * (sky * count / GAIN[j] + DARK_VARIANCE[j] * count**2) + flux * dimming * count / GAIN[j]
    return flux, np.sqrt(variance + (0.003 * flux * dimming) ** 2) / dimming


def _measure(table: Table, draws: dict[str, Array]) -> None:
    """Measure magnitudes: true fluxes plus photon noise, and the errors a survey would quote."""
    for j, band in enumerate(BANDS):
        flux, error = _flux_error(table, j)
        # A magnitude needs a positive flux: no galaxy is fainter than one sigma.
        measured = np.maximum(flux + error * ndtri(draws[f"noise_{band}"]), error)
        table[f"mag_{band}"] = ZERO_POINT - 2.5 * np.log10(measured)
        table[f"mag_err_{band}"] = 2.5 / np.log(10) * error / measured


def _rescale_to_magnitudes(table: Table) -> None:
    """Give bulge and disc together the catalogue's flux in each band; each keeps its share."""
    in_g, in_r = (np.asarray(table[f"true_bulge_{b}"] + table[f"true_disc_{b}"]) for b in "gr")
    table["true_g_r"] += table["mag_g"] - table["mag_r"] + 2.5 * np.log10(in_g / in_r)
    for j, band in enumerate(BANDS):
        simulated = table[f"true_bulge_{band}"] + table[f"true_disc_{band}"]
        scale = 10 ** (-0.4 * (table[f"mag_{band}"] - ZERO_POINT)) / simulated
        table[f"true_bulge_{band}"] *= scale
        table[f"true_disc_{band}"] *= scale
        if f"mag_err_{band}" not in table.colnames:
            flux, error = _flux_error(table, j)
            table[f"mag_err_{band}"] = 2.5 / np.log(10) * error / flux
