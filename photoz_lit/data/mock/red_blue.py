"""The red and the blue population of the simulated survey.

Their numbers are calibrated so that colours, magnitudes and redshifts resemble 5,000 real galaxies of the
SDSS Main Galaxy Sample.
"""

from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

Array = NDArray[np.float64]


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


def relative_luminosity(table: Table) -> Array:
    """Return M_r - M*_r of each galaxy's own population, mag."""
    return np.asarray(table["true_absolute_r"] - np.where(table["true_red"], RED.m_star, BLUE.m_star))


def choose(table: Table, name: str) -> Array:
    """Return a setting of each galaxy's own population, shape (n,) or (number of values, n)."""
    red, blue = (np.asarray(getattr(population, name))[..., None] for population in (RED, BLUE))
    return np.asarray(np.where(table["true_red"], red, blue))
