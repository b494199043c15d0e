"""What light the galaxies of the simulated survey send, and what a survey measures of it."""

import numpy as np
from astropy.table import Table
from scipy.special import ndtri

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
# Calibrated as `red_blue` is: smooth corrections of the El and of the later spectra, mag: coefficients of x,
# x^2, x^3 of x = ln(rest-frame wavelength / 6166 angstrom). They make El redder in u - r, by 0.26 mag at
# z = 0.1 and more beyond, because the template is too blue in the near ultraviolet for red galaxies of SDSS;
# elsewhere they stay below 0.07 mag to z = 0.2, and for the later types below 0.18 mag.
TEMPLATE_CORRECTIONS = np.array([[0.06, -0.59, -1.98], [-0.15, 0.09, -0.12]])


def _template_colours(kind: Floats, spec_z: Floats) -> Floats:
    """Return corrected colours (band - r, mag; shape (n, 5)) of types 0 to 3 at each redshift."""
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


def _log_wavelength(spec_z: Floats) -> Floats:
    """Return ln(rest-frame wavelength / 6166 angstrom) of the bands, shape (n, 5)."""
    return np.asarray(np.log(instrument.WAVELENGTH / instrument.WAVELENGTH[R]) - np.log1p(spec_z)[:, None])


def log_stellar_mass(absolute_r: Floats, g_r: Floats) -> Floats:
    """Return log10 of solar masses; M_r without the brightening of its population towards the past."""
    constant, slope = MASS_TO_LIGHT
    return constant + slope * g_r + 0.4 * (SUN_R - absolute_r)


def _component_colours(table: Table, draws: dict[str, Floats], spec_z: Floats) -> tuple[Floats, Floats]:
    """Draw colours (band - r, mag; shape (n, 5)) of bulge and disc as they are seen at any redshift."""
    luminosity = relative_luminosity(table)
    x = _log_wavelength(spec_z)
    slope, scatter = choose(table, "tilt")
    tilt = slope * luminosity + scatter * ndtri(draws["tilt"])
    curvature = choose(table, "curvature") * ndtri(draws["curvature"])
    perturbation = tilt[:, None] * x + curvature[:, None] * x**2
    mean, scatter = choose(table, "bulge_type")
    bulge = _template_colours(mean + scatter * ndtri(draws["bulge_type"]), spec_z) + perturbation
    mean, slope, scatter = choose(table, "disc_type")
    disc_type = mean + slope * luminosity + scatter * ndtri(draws["disc_type"])
    disc = _template_colours(disc_type, spec_z) + perturbation
    # Internal dust: grows with the path through the disc (Tully et al. 1998), law of Charlot & Fall (2000).
    strength = choose(table, "dust") * np.exp(0.3 * ndtri(draws["dust"]))
    depth = strength * -np.log10(table["true_disc_axis_ratio"])
    return bulge, disc + np.asarray(depth)[:, None] * np.exp(-0.7 * x)


def draw_spectra(table: Table, draws: dict[str, Floats]) -> None:
    """Draw the spectra of bulge and disc, and the fluxes that the survey's calibration makes of them."""
    bulge, disc = _component_colours(table, draws, np.asarray(table["spec_z"]))
    share = np.asarray(table["true_bulge_fraction"])
    missed = -2.5 * np.log10(PETROSIAN_BULGE * share + PETROSIAN_DISC * (1 - share))
    total = 10 ** (-0.4 * (np.asarray(table["dered_petro_r"]) - missed - instrument.ZERO_POINT))
    for j, band in enumerate(BANDS):
        gain = total * 10 ** (-0.4 * instrument.CALIBRATION[j] * ndtri(draws[f"calibration_{band}"]))
        table[f"true_bulge_{band}"] = gain * share * 10 ** (-0.4 * (bulge[:, j] - bulge[:, R]))
        table[f"true_disc_{band}"] = gain * (1 - share) * 10 ** (-0.4 * (disc[:, j] - disc[:, R]))
    at_rest = [c[:, G] - c[:, R] for c in _component_colours(table, draws, np.zeros(len(table)))]
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


def measure(table: Table, draws: dict[str, Floats]) -> None:
    """Measure magnitudes: true fluxes plus photon noise, and the errors a survey would quote."""
    for j, band in enumerate(BANDS):
        flux, error = _flux_error(table, j)
        # A magnitude needs a positive flux: no galaxy is fainter than one sigma.
        measured = np.maximum(flux + error * ndtri(draws[f"noise_{band}"]), error)
        table[f"mag_{band}"] = instrument.ZERO_POINT - 2.5 * np.log10(measured)
        table[f"mag_err_{band}"] = 2.5 / np.log(10) * error / measured


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
