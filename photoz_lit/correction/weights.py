"""Loss weights of rare redshifts: every galaxy stays, and the sparse bins count more.

The alternatives to a balanced subset. All weights average to 1 over the galaxies they are made from, so
that the learning rate keeps its meaning.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction.prior import gaussian_smoothed
from photoz_lit.grids import Floats, RedshiftGrid

LDS_SIGMA = 2.0  # width in bins of the kernel of label-distribution smoothing, as its authors use
DENSE_ALPHA = 1.0  # strength of DenseWeight: 1 gives the fullest redshift no weight but the floor
DENSE_FLOOR = 1e-6  # least weight of DenseWeight before the normalisation
KDE_STEPS = 4096  # points at which its density is evaluated before it is interpolated at the galaxies


def galaxy_weights(kind: str, spec_z: ArrayLike, grid: RedshiftGrid) -> NDArray[np.float32] | None:
    """Weights (n,) of `correction.step2.weights`: "lds", "dense", or none at all."""
    if kind == "none":
        return None
    lds = kind == "lds"
    weight = lds_weights(spec_z, grid, LDS_SIGMA, 0.5) if lds else dense_weights(spec_z, DENSE_ALPHA)
    return weight.astype(np.float32)


def lds_weights(spec_z: ArrayLike, grid: RedshiftGrid, sigma: float, power: float = 1.0) -> Floats:
    """Inverse of the smoothed label density (label-distribution smoothing).

    The weight of a galaxy is 1 / (k * p)(z)^power, with p the histogram of spec_z over the bins and k a
    Gaussian (Yang et al. 2021, ICML, "Delving into deep imbalanced regression", arXiv:2102.09554). The
    histogram is reflected at the ends of the grid, lest these be taken for rare. The authors' code takes
    the root of the counts before it smooths them; here the root is that of the smoothed density. `sigma` is
    the width of the kernel, bins.
    """
    k = grid.index(spec_z)
    density = gaussian_smoothed(np.bincount(k, minlength=grid.n_bins).astype(np.float64), sigma)
    weight = density[k] ** -power
    return np.asarray(weight / weight.mean())


def dense_weights(spec_z: ArrayLike, alpha: float) -> Floats:
    """Weights that fall linearly with the density of spec_z (DenseWeight).

    max(1 - alpha p'(z), floor) over its mean, with p' the kernel density estimate scaled to [0, 1]
    (Steininger et al. 2021, Machine Learning 110, 2187). The kernel is as wide as in the authors' code,
    1.06 std n^(-1/5).
    """
    from scipy.stats import gaussian_kde  # takes a second to import

    z = np.asarray(spec_z, dtype=np.float64)
    if z.size < 2 or z.min() == z.max():
        raise ValueError(f"DenseWeight needs different redshifts, got {z.size} that are all the same")
    places = np.linspace(z.min(), z.max(), KDE_STEPS)
    # Galaxies as counts on the fine steps: the estimate then costs the same for any number of them.
    step = places[1] - places[0]
    counts = np.bincount(np.rint((z - z.min()) / step).astype(np.int64), minlength=KDE_STEPS)
    filled = counts > 0
    centres, weights = places[filled], counts[filled].astype(np.float64)
    width = 1.06 * z.std(ddof=1) * z.size ** (-0.2) / np.sqrt(np.cov(centres, aweights=weights))
    density = gaussian_kde(centres, bw_method=width, weights=weights)(places)
    scaled = (density - density.min()) / (density.max() - density.min())
    weight = np.maximum(1 - alpha * np.interp(z, places, scaled), DENSE_FLOOR)
    return np.asarray(weight / weight.mean())
