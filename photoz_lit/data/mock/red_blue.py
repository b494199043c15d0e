"""The red and the blue population of the simulated survey.

Their numbers, and the corrections of spectra in `photometry`, are calibrated: magnitudes, colours in bins of
redshift, and redshifts at given colours resemble those of 2,500 real galaxies of the SDSS Main Galaxy Sample.
Numbers of structure are of the literature, or chosen; which, stands beside them.
"""

import numpy as np
from astropy.table import Table

from photoz_lit.grids import Floats

RED, BLUE = 0, 1  # places in each of the pairs
# Types run from 0 (El) over 1 (Sbc) and 2 (Scd) to 3 (Im); M stands for M_r - m_star.
PAIRS = {
    "density": (0.41, 0.439),  # phi*, relative
    "m_star": (-21.58, -21.16),  # M*_r, mag, H0 = 70
    "alpha": (-0.6, -1.175),  # faint-end slope
    "evolution": (-1.809, -1.298),  # brightening, mag per unit redshift; less what a real sample misses
    "mean_type": (0.1, 1.4),  # type whose k-correction stands for the population
    "bulge_type": ((0.471, 0.096), (0.923, 0.028)),  # mean, scatter
    "disc_type": ((-0.003, 0.059, 0.27), (2.462, 0.085, 0.483)),  # mean, slope with M, scatter
    # Logit of the bulge's share in the r band: mean, slope with M, scatter.
    "bulge_fraction": ((1.6, -0.3, 0.7), (-1.27, -0.6, 1.14)),
    "dust": (0.1, 2.104),  # mag in r of a disc per dex of axis ratio, times a log-normal factor
    "tilt": ((0.052, 0.104), (0.193, 0.06)),  # colour-magnitude: slope of the spectrum with M, scatter of it
    "curvature": (0.001, 0.047),  # scatter of the spectrum's curvature
    "bulge_size": ((0.8, 0.3), (0.5, 0.3)),  # bulge over disc half-light radius: median, scatter in ln
    "gradient": ((0.10, 0.15), (0.10, 0.30)),  # tilt of the bulge's spectrum above the disc's: mean, scatter
    # Correlations of what colours show with what images show. Star formation is what makes discs blue, and
    # bulges small, lines strong and arms bright; at given luminosity small galaxies are red (Franx et al.
    # 2008, ApJ 688, 770).
    "activity_bulge": (-0.5, -0.75),
    "activity_lines": (0.5, 0.7),
    "size_tilt": (-0.75, -0.7),
    "lines": (
        (0.05, 0.8),
        (0.9, 0.5),
    ),  # equivalent widths over those of `photometry.LINES`: median, scatter in ln
    "young": (0.01, 0.16),  # share of the disc's light in r from young stars, in arms and clumps: median
    "barred": (0.15, 0.35),  # share of galaxies with a bar (Masters et al. 2011, MNRAS 411, 2026)
    "members": (0.5, 0.25),  # galaxies at the same redshift within 25 arcsec, mean number
}
NUMBERS = {name: np.array(pair) for name, pair in PAIRS.items()}


def relative_luminosity(table: Table) -> Floats:
    """Return M_r - M*_r of each galaxy's own population, mag."""
    return np.asarray(table["true_absolute_r"] - choose(table, "m_star"))


def choose(table: Table, name: str) -> Floats:
    """Return a number of each galaxy's own population, shape (n,) or (number of values, n)."""
    red, blue = NUMBERS[name][..., None]
    return np.asarray(np.where(table["true_red"], red, blue))
