"""Numbers of point estimates: bias, scatter, outliers, and distances between two distributions."""

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.grids import Floats, RedshiftGrid
from photoz_lit.metrics import draws


def residual(spec_z: ArrayLike, photo_z: ArrayLike, relative: bool = True) -> Floats:
    """Residuals dz = (photo_z - spec_z) / (1 + spec_z), or without the division, shape (n,)."""
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    if z.shape != estimate.shape or z.ndim != 1:
        raise ValueError(f"spec_z and photo_z must be of one length, not {z.shape} and {estimate.shape}")
    return (estimate - z) / unit(z, relative)


def unit(z: Floats, relative: bool) -> Floats:
    """What residuals are divided by: 1 + z, or 1."""
    return 1 + z if relative else np.ones_like(z)


def bias(dz: ArrayLike) -> float:
    """Mean of residuals, or of any other values."""
    return draws.of_one(draws.mean, dz)


def sigma_mad(dz: ArrayLike) -> float:
    """1.4826 median|dz - median(dz)|."""
    return draws.of_one(draws.sigma_mad, dz)


def outlier_fraction(dz: ArrayLike, cut: float) -> float:
    """Fraction of abs(dz) > cut: 0.05 for SDSS, 0.15 for CFHTLS."""
    return float(np.mean(np.abs(dz) > cut)) if np.size(dz) else np.nan


def total_variation(spec_z: ArrayLike, photo_z: ArrayLike, grid: RedshiftGrid) -> float:
    """TV = 1/2 sum |p(photo_z) - p(spec_z)| over the survey's K bins, those outside in the end bins."""
    if np.size(spec_z) == 0:
        return np.nan
    n_photo, n_spec = (np.bincount(grid.index(z), minlength=grid.n_bins) for z in (photo_z, spec_z))
    return float(0.5 * np.abs(n_photo - n_spec).sum() / np.size(spec_z))


def wasserstein(spec_z: ArrayLike, photo_z: ArrayLike) -> float:
    """Wasserstein-1 distance between the distributions of photo_z and spec_z, in redshift.

    Of two samples of one size it is simpler, and far faster in a bootstrap, than scipy.stats makes it.
    """
    return draws.of_one(draws.wasserstein, spec_z, photo_z)


def standard_error(samples: ArrayLike) -> Floats:
    """Standard deviation over the first axis, of the finite values; NaN where there are fewer than two."""
    values = np.ma.masked_invalid(np.asarray(samples, dtype=np.float64))
    deviation = np.ma.filled(values.std(axis=0), np.nan)
    return np.where(values.count(axis=0) > 1, deviation, np.nan)
