"""The red and the blue population of the simulated survey.

Their numbers are calibrated so that colours, magnitudes and redshifts resemble 5,000 real galaxies of the
SDSS Main Galaxy Sample.
"""

import numpy as np
from astropy.table import Table

from photoz_lit.grids import Floats

RED, BLUE = 0, 1  # places in each of the pairs
# Types run from 0 (El) over 1 (Sbc) and 2 (Scd) to 3 (Im); M stands for M_r - m_star.
PAIRS = {
    "density": (0.41, 0.59),  # phi*, relative
    "m_star": (-21.20, -20.90),  # M*_r, mag, H0 = 70
    "alpha": (-0.77, -1.0),  # faint-end slope
    "evolution": (0.7, 0.7),  # brightening, mag per unit redshift
    "mean_type": (0.1, 1.4),  # type whose k-correction stands for the population
    "bulge_type": ((0.0, 0.1), (0.70, 0.18)),  # mean, scatter
    "disc_type": ((0.12, 0.05, 0.22), (2.25, 0.31, 0.71)),  # mean, slope with M, scatter
    # Logit of the bulge's share in the r band: mean, slope with M, scatter.
    "bulge_fraction": ((1.6, -0.3, 0.7), (-1.27, -0.6, 1.14)),
    "dust": (0.1, 1.5),  # mag in r of a disc per dex of axis ratio, times a log-normal factor
    "tilt": ((0.055, 0.066), (0.10, 0.09)),  # colour-magnitude: slope of the spectrum with M, scatter of it
    "curvature": (0.038, 0.054),  # scatter of the spectrum's curvature
    "bulge_size": ((0.8, 0.3), (0.5, 0.3)),  # bulge over disc half-light radius: median, scatter in ln
}
NUMBERS = {name: np.array(pair) for name, pair in PAIRS.items()}


def relative_luminosity(table: Table) -> Floats:
    """Return M_r - M*_r of each galaxy's own population, mag."""
    return np.asarray(table["true_absolute_r"] - choose(table, "m_star"))


def choose(table: Table, name: str) -> Floats:
    """Return a number of each galaxy's own population, shape (n,) or (number of values, n)."""
    red, blue = NUMBERS[name][..., None]
    return np.asarray(np.where(table["true_red"], red, blue))
