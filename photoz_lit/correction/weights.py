"""Loss weights of rare redshifts: every galaxy stays, and the sparse bins count more.

The alternatives to a balanced subset. All weights average to 1 over the galaxies they are made from, so that
the learning rate keeps its meaning.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.stats import gaussian_kde

from photoz_lit.grids import RedshiftGrid

Floats = NDArray[np.float64]

KDE_STEPS = 4096
"""Points on which the density of `dense_weights` is evaluated before it is interpolated at the galaxies."""


def lds_weights(spec_z: ArrayLike, grid: RedshiftGrid, sigma: float, power: float = 1.0) -> Floats:
    """Inverse of the smoothed label density (label-distribution smoothing).

    The weight of a galaxy is 1 / (k * p)(z)^power, with p the histogram of spec_z over the bins and k a
    Gaussian (Yang et al. 2021, ICML, "Delving into deep imbalanced regression", arXiv:2102.09554). The
    histogram is reflected at the ends of the grid, lest these be taken for rare. The authors' code takes the
    root of the counts before it smooths them; here the root is that of the smoothed density.

    Parameters
    ----------
    spec_z : array_like, shape (n,)
        Redshifts to train on.
    grid : RedshiftGrid
        Redshift bins; an extension is ignored.
    sigma : float
        Width of the kernel, bins.
    power : float
        1 for the inverse, 0.5 for its square root, 0 for equal weights.

    Returns
    -------
    ndarray, shape (n,)
        Weights of mean 1.

    Raises
    ------
    ValueError
        If there is no galaxy or `sigma` is not positive.
    """
    if np.size(spec_z) == 0 or not sigma > 0:
        raise ValueError(f"weights need galaxies and sigma > 0, got {np.size(spec_z)} and sigma={sigma}")
    k = grid.index(spec_z)
    density = gaussian_filter1d(np.bincount(k, minlength=grid.n_bins).astype(np.float64), sigma)
    weight = density[k] ** -power
    normalised: Floats = weight / weight.mean()
    return normalised


def dense_weights(
    spec_z: ArrayLike, alpha: float, floor: float = 1e-6, bandwidth: float | None = None
) -> Floats:
    """Weights that fall linearly with the density of spec_z (DenseWeight).

    max(1 - alpha p'(z), floor) over its mean, with p' the kernel density estimate scaled to [0, 1]
    (Steininger et al. 2021, Machine Learning 110, 2187).

    Parameters
    ----------
    spec_z : array_like, shape (n,)
        Redshifts to train on, at least two different ones.
    alpha : float
        Strength: 0 gives equal weights; from 1 on the commonest redshifts get the least weight.
    floor : float
        Least weight before the normalisation, above 0.
    bandwidth : float, optional
        Standard deviation of the kernel, in redshift; 1.06 std n^(-1/5) by default, as in the authors' code.

    Returns
    -------
    ndarray, shape (n,)
        Weights of mean 1.

    Raises
    ------
    ValueError
        If alpha is negative, the floor not positive or all redshifts are the same.
    """
    z = np.asarray(spec_z, dtype=np.float64)
    if alpha < 0 or not floor > 0 or z.size < 2 or z.min() == z.max():
        raise ValueError(
            f"DenseWeight needs alpha >= 0, floor > 0 and different redshifts, got alpha={alpha}, "
            f"floor={floor} and {z.size} redshifts"
        )
    std = z.std(ddof=1)
    width = 1.06 * std * z.size ** (-0.2) if bandwidth is None else bandwidth
    places = np.linspace(z.min(), z.max(), KDE_STEPS)
    # Galaxies as counts on the fine steps: the estimate then costs the same for any number of them.
    counts = np.bincount(
        np.rint((z - z.min()) / (places[1] - places[0])).astype(np.int64), minlength=KDE_STEPS
    )
    filled = counts > 0
    centred = (places[filled], counts[filled].astype(np.float64))
    spread = np.sqrt(np.cov(centred[0], aweights=centred[1]))
    density = gaussian_kde(centred[0], bw_method=width / spread, weights=centred[1])(places)
    scaled = (density - density.min()) / (density.max() - density.min())
    weight = np.maximum(1 - alpha * np.interp(z, places, scaled), floor)
    normalised: Floats = weight / weight.mean()
    return normalised
