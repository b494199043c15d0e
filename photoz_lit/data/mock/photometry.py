"""What light the galaxies of the simulated survey send, and what a survey measures of it."""

from collections.abc import Collection

import numpy as np
from astropy.table import Table
from scipy.special import expit, ndtri

from photoz_lit.data.mock import instrument
from photoz_lit.data.mock.red_blue import choose, relative_luminosity
from photoz_lit.data.mock.templates import BANDS, TYPES, load_templates
from photoz_lit.grids import Floats

G, R = BANDS.index("g"), BANDS.index("r")
# Shares of de Vaucouleurs and exponential light in Petrosian magnitudes (Strauss et al. 2002, AJ 124, 1810).
PETROSIAN_BULGE, PETROSIAN_DISC = 0.82, 0.99
# Stellar mass over light in r from rest-frame g - r: log10 (M/L) = a + b (g - r) in solar units (Bell et al.
# 2003, ApJS 149, 289, table 7; for their "diet" Salpeter initial mass function), and the Sun's absolute r in
# AB mag (Willmer 2018, ApJS 236, 47).
MASS_TO_LIGHT = (-0.306, 1.097)
SUN_R = 4.65
# Emission lines of a star-forming galaxy: wavelength and equivalent width at rest, angstrom: [O II]; H beta
# and [O III]; H alpha, [N II] and [S II] (typical of Kennicutt 1992, ApJ 388, 310).
LINES = np.array([[3728.0, 20.0], [4960.0, 16.0], [6600.0, 40.0]])
BAND_EDGE = 60.0  # angstrom over which a band's edge falls
LATENT = (
    *("activity", "bulge_type", "bulge_fraction", "dust", "tilt", "curvature", "size", "gradient", "lines"),
)
# Calibrated as `red_blue` is: smooth corrections of the spectra of El, Sbc and later types, mag: coefficients
# of x, x^2, x^3, x^4 of x = ln(rest-frame wavelength / 6166 angstrom).
TEMPLATE_CORRECTIONS = np.array(
    [[-0.196, -0.224, -2.282, 0.716], [-0.1, -0.217, -1.051, -0.892], [-0.258, -0.175, 0.371, 1.518]]
)
# What such smooth curves leave, breaks and lines that pass through the bands: of El and of the later types,
# in u g i z against r, mag: coefficients of 1, y, y^2, y^3 of y = 10 z - 1, constant beyond z = 0.25.
BAND_CORRECTIONS = np.array(
    [
        [
            [0.094, -0.051, -0.047, 0.047],
            [0.019, -0.011, -0.017, 0.023],
            [0.016, 0.021, -0.053, -0.003],
            [-0.021, -0, 0.034, -0.041],
        ],
        [
            [-0.143, -0.171, -0.061, -0.126],
            [-0.06, -0.031, -0.003, -0.099],
            [0.011, -0.006, 0.034, -0.001],
            [0.071, 0.02, 0.009, 0.056],
        ],
    ]
)
LARGEST_Y = 1.5


def template_colours(kind: Floats, spec_z: Floats) -> Floats:
    """Return corrected colours (band - r, mag; shape (n, 5)) of types 0 to 3 at each redshift."""
    grid, colours, _ = load_templates()
    kind = np.clip(kind, 0, len(TYPES) - 1)
    lower = np.minimum(kind.astype(int), len(TYPES) - 2)
    step = np.minimum(np.searchsorted(grid, spec_z, side="right") - 1, len(grid) - 2)
    in_z = ((spec_z - grid[step]) / (grid[step + 1] - grid[step]))[:, None]
    in_type = (kind - lower)[:, None]
    by_type = [(1 - in_z) * colours[step, t] + in_z * colours[step + 1, t] for t in (lower, lower + 1)]
    x = _log_wavelength(spec_z)
    powers = np.stack([x, x**2, x**3, x**4], axis=-1)
    early, middle, late = (powers @ coefficients for coefficients in TEMPLATE_CORRECTIONS)
    to_middle, to_late = np.clip(kind, 0, 1)[:, None], np.clip(kind - 1, 0, 1)[:, None]
    correction = early + to_middle * (middle - early) + to_late * (late - middle)
    y = np.minimum(10 * spec_z - 1, LARGEST_Y)[:, None] ** np.arange(4)
    in_bands = [np.insert(y @ coefficients.T, R, 0, axis=1) for coefficients in BAND_CORRECTIONS]
    correction += in_bands[0] + to_middle * (in_bands[1] - in_bands[0])
    return np.asarray((1 - in_type) * by_type[0] + in_type * by_type[1] + correction - correction[:, [R]])


def _log_wavelength(spec_z: Floats) -> Floats:
    """Return ln(rest-frame wavelength / 6166 angstrom) of the bands, shape (n, 5)."""
    return np.asarray(np.log(instrument.WAVELENGTH / instrument.WAVELENGTH[R]) - np.log1p(spec_z)[:, None])


def log_stellar_mass(absolute_r: Floats, g_r: Floats) -> Floats:
    """Return log10 of solar masses; M_r without the brightening of its population towards the past."""
    constant, slope = MASS_TO_LIGHT
    return constant + slope * g_r + 0.4 * (SUN_R - absolute_r)


def _component_colours(
    table: Table, draws: dict[str, Floats], spec_z: Floats, without: Collection[str]
) -> tuple[Floats, Floats]:
    """Draw colours (band - r, mag; shape (n, 5)) of bulge and disc as they are seen at any redshift."""
    luminosity, normal = relative_luminosity(table), latent_numbers(table, draws)
    x = _log_wavelength(spec_z)
    slope, scatter = choose(table, "tilt")
    tilt = slope * luminosity + scatter * normal["tilt"]
    curvature = choose(table, "curvature") * normal["curvature"]
    perturbation = tilt[:, None] * x + curvature[:, None] * x**2
    mean, scatter = choose(table, "bulge_type")
    steeper, spread = choose(table, "gradient")
    gradient = steeper + spread * normal["gradient"]
    bulge = template_colours(mean + scatter * normal["bulge_type"], spec_z) + perturbation
    bulge -= gradient[:, None] * x * (1 - np.asarray(table["true_bulge_fraction"]))[:, None]
    mean, slope, scatter = choose(table, "disc_type")
    disc = template_colours(mean + slope * luminosity + scatter * normal["activity"], spec_z) + perturbation
    disc += gradient[:, None] * x * np.asarray(table["true_bulge_fraction"])[:, None]
    # Internal dust: grows with the path through the disc (Tully et al. 1998), law of Charlot & Fall (2000).
    strength = choose(table, "dust") * np.exp(0.3 * normal["dust"])
    depth = strength * -np.log10(table["true_disc_axis_ratio"])
    disc += np.asarray(depth)[:, None] * np.exp(-0.7 * x)
    mean, scatter = choose(table, "lines") * ("lines" not in without)
    return bulge, disc + line_brightening(mean * (np.exp(scatter * normal["lines"]) - 1), spec_z)


def latent_numbers(table: Table, draws: dict[str, Floats]) -> dict[str, Floats]:
    """Return the normal numbers behind a galaxy's properties, with their correlations."""
    normal = {name: ndtri(values) for name, values in draws.items() if name in LATENT}
    for name, other, correlation in (
        ("bulge_fraction", "activity", "activity_bulge"),
        ("lines", "activity", "activity_lines"),
        ("tilt", "size", "size_tilt"),
    ):
        share = choose(table, correlation)
        normal[name] = share * normal[other] + np.sqrt(1 - share**2) * normal[name]
    return normal


def line_brightening(strength: Floats, spec_z: Floats) -> Floats:
    """Return what emission lines of so many times the usual widths (n,) add to each band, mag, (n, 5)."""
    seen = LINES[:, 0, None] * (1 + spec_z)  # angstrom
    low, high = (instrument.WAVELENGTH + sign * instrument.BAND_WIDTH / 2 for sign in (-1, 1))
    inside = expit((seen[..., None] - low) / BAND_EDGE) * expit((high - seen[..., None]) / BAND_EDGE)
    share = np.einsum("l,lnb->nb", LINES[:, 1], inside) * (1 + spec_z)[:, None] / instrument.BAND_WIDTH
    return np.asarray(-2.5 * np.log10(np.maximum(1 + strength[:, None] * share, 0.5)))


def draw_spectra(table: Table, draws: dict[str, Floats], without: Collection[str] = ()) -> None:
    """Draw the spectra of bulge and disc, and the fluxes that the survey's calibration makes of them."""
    bulge, disc = _component_colours(table, draws, np.asarray(table["spec_z"]), without)
    share = np.asarray(table["true_bulge_fraction"])
    missed = -2.5 * np.log10(PETROSIAN_BULGE * share + PETROSIAN_DISC * (1 - share))
    total = 10 ** (-0.4 * (np.asarray(table["true_petro_r"]) - missed - instrument.ZERO_POINT))
    for j, band in enumerate(BANDS):
        gain = total * 10 ** (-0.4 * instrument.CALIBRATION[j] * ndtri(draws[f"calibration_{band}"]))
        table[f"true_bulge_{band}"] = gain * share * 10 ** (-0.4 * (bulge[:, j] - bulge[:, R]))
        table[f"true_disc_{band}"] = gain * (1 - share) * 10 ** (-0.4 * (disc[:, j] - disc[:, R]))
    table["true_g_r_gradient"] = (bulge - disc)[:, G]  # bulge less disc, both as seen
    at_rest = [c[:, G] - c[:, R] for c in _component_colours(table, draws, np.zeros(len(table)), without)]
    in_g = share * 10 ** (-0.4 * at_rest[0]) + (1 - share) * 10 ** (-0.4 * at_rest[1])
    table["true_g_r"] = -2.5 * np.log10(in_g)


def _flux_error(table: Table, j: int) -> tuple[Floats, Floats]:
    """Return the dereddened flux in band j and the error of a model fit to it, nanomaggies."""
    band = BANDS[j]
    flux = np.asarray(table[f"true_bulge_{band}"] + table[f"true_disc_{band}"])
    dimming = 10 ** (-0.4 * instrument.EXTINCTION[j] * np.asarray(table["ebv"]))
    bulge, disc = (np.asarray(table[f"true_{name}_radius"]) for name in ("bulge", "disc"))
    radius = (bulge + disc) / 2 / instrument.PIXEL
    width = np.asarray(table[f"true_seeing_{band}"]) / 2.355 / instrument.PIXEL
    # Effective area of a fit, 4 pi sigma^2, for seeing and galaxy added in quadrature.
    area = 4 * np.pi * (width**2 + (0.6 * radius) ** 2)
    count, gain = instrument.NANOMAGGIES_PER_COUNT[j], instrument.GAIN[j]
    sky = np.asarray(table[f"true_sky_{band}"]) * instrument.PIXEL**2
    variance = area * (sky * count / gain + instrument.DARK_VARIANCE[j] * count**2)
    variance += flux * dimming * count / gain
    return flux, np.sqrt(variance + (0.003 * flux * dimming) ** 2) / dimming


def rescale_to_magnitudes(table: Table) -> None:
    """Give bulge and disc together the catalogue's flux in each band; each keeps its share."""
    in_g, in_r = (np.asarray(table[f"true_bulge_{b}"] + table[f"true_disc_{b}"]) for b in "gr")
    table["true_g_r"] += table["mag_g"] - table["mag_r"] + 2.5 * np.log10(in_g / in_r)
    for j, band in enumerate(BANDS):
        simulated = table[f"true_bulge_{band}"] + table[f"true_disc_{band}"]
        scale = 10 ** (-0.4 * (table[f"mag_{band}"] - instrument.ZERO_POINT)) / simulated
        table[f"true_bulge_{band}"] *= scale
        table[f"true_disc_{band}"] *= scale
        if f"mag_err_{band}" not in table.colnames:
            flux, error = _flux_error(table, j)
            table[f"mag_err_{band}"] = 2.5 / np.log(10) * error / flux
