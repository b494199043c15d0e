"""Gaussian p(z) of a known fault."""

import numpy as np
from scipy.stats import norm

from photoz_lit import metrics
from photoz_lit.grids import RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 200)
SIGMA = 0.02


def galaxies(
    factor: float | np.ndarray, n: int, seed: int, offset: float | np.ndarray = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """p(z) `factor` times too wide and moved by `offset` (in redshift), and spec_z."""
    rng = np.random.default_rng(seed)
    spec_z = rng.uniform(0.12, 0.28, n)
    centre = spec_z + rng.normal(0, SIGMA, n) + offset
    width = np.broadcast_to(np.asarray(factor) * SIGMA, n)[:, None]
    return np.diff(norm.cdf(GRID.edges, centre[:, None], width), axis=1) + 1e-12, spec_z


def coverage(pdf: np.ndarray, spec_z: np.ndarray, level: float = 0.68) -> float:
    """Fraction of spec_z inside the equal-tailed interval."""
    return float(np.mean(np.abs(metrics.pit(pdf, spec_z, GRID) - 0.5) < level / 2))


def at_spec_z(pdf: np.ndarray, spec_z: np.ndarray) -> np.ndarray:
    return np.take_along_axis(pdf, GRID.index(spec_z)[:, None], axis=1)[:, 0]
