"""Estimates pushed back from the mean of the sample, by as much as noise has pulled each of them there.

The median of an honest p(z) of width s is pulled towards the mean z0 of a sample of variance S^2: for
Gaussians by the factor 1 - s^2 / S^2 (attenuation; Ting 2024, arXiv:2412.05806, for networks). Widths differ,
so blurred galaxies are pulled more than sharp ones. The pull is the slope of the mean residual against
spec_z; undoing it costs scatter, and how much of it is undone is a choice between the two.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit import metrics
from photoz_lit.dispersion import variances
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

Floats = NDArray[np.float64]

LARGEST_SHARE = 0.5
"""Largest share of S^2 that s^2 may take: a galaxy of which hardly anything is known is moved by its distance
from the mean at most."""

STRENGTHS = np.linspace(0.0, 2.0, 81)
"""Choices of the strength."""


@dataclass(frozen=True)
class Unshrink:
    """photo_z = m + q / (1 - q) (m - z0) with q = min(strength s^2 / S^2, 0.5).

    Parameters
    ----------
    strength : float
        0 leaves p(z); 1 undoes the pull on Gaussians.
    centre : float
        Mean z0 of the spec_z of training galaxies.
    variance : float
        Their variance S^2.
    """

    strength: float
    centre: float
    variance: float

    def photo_z(self, median: ArrayLike, width: ArrayLike) -> Floats:
        """Return the estimates, (n,), from medians m and half 68 % widths s of p(z), (n,)."""
        m, s = np.asarray(median, dtype=np.float64), np.asarray(width, dtype=np.float64)
        q = np.minimum(self.strength * s**2 / self.variance, LARGEST_SHARE)
        return np.asarray(m + q / (1 - q) * (m - self.centre))

    def __call__(self, pdf: ArrayLike, grid: RedshiftGrid) -> Floats:
        """Move each p(z), (n, n_outputs), as a whole, so that its median is the new estimate.

        What would leave the grid gathers in its last bins: give it an extension.
        """
        m, s = median_and_width(pdf, grid)
        return moved(pdf, (self.photo_z(m, s) - m) / grid.width)


def median_and_width(pdf: ArrayLike, grid: RedshiftGrid) -> tuple[Floats, Floats]:
    """Median and half of the 68 % interval of each p(z), two arrays (n,)."""
    low, high = metrics.interval(pdf, grid).T
    return metrics.median(pdf, grid), (high - low) / 2


def moved(pdf: ArrayLike, bins: ArrayLike) -> Floats:
    """Move each p(z) along its grid.

    Parameters
    ----------
    pdf : array_like, shape (n, n_outputs)
        Probability of each bin.
    bins : array_like, shape (n,)
        How far to the right, in bins; fractions spread a bin over two.

    Returns
    -------
    ndarray, shape (n, n_outputs)
        Rows sum to 1.
    """
    cdf = metrics.cumulative(pdf)
    last = cdf.shape[1] - 1
    place = np.clip(np.arange(last + 1) - np.asarray(bins, dtype=np.float64)[:, None], 0, last)
    left = np.minimum(place.astype(np.int64), last - 1)
    low, high = (np.take_along_axis(cdf, left + step, axis=1) for step in (0, 1))
    out = low + (place - left) * (high - low)
    out[:, 0], out[:, -1] = 0.0, 1.0
    return np.diff(out, axis=1)


def fit_unshrink(
    pdf: ArrayLike,
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    spec_z_train: ArrayLike,
    rise: float,
    relative: bool = True,
) -> Unshrink:
    """Choose the strength on galaxies that p(z) was not fitted to.

    It grows until the mean residual no longer falls with spec_z, or until the scatter has risen by `rise`.

    Parameters
    ----------
    pdf : array_like, shape (n, n_outputs)
        p(z) of held-out galaxies.
    spec_z, dered_petro_r : array_like, shape (n,)
        Their redshifts, and magnitudes, mag.
    grid, slices : RedshiftGrid, MagnitudeSlices
        Bins of p(z), extension included, and slices of r.
    spec_z_train : array_like
        Redshifts of the training galaxies.
    rise : float
        Largest rise of sigma_mad, e.g. 0.07.
    relative : bool
        Whether residuals are divided by 1 + spec_z (`metrics.residual`).

    Returns
    -------
    Unshrink
        With the chosen strength.

    Raises
    ------
    ValueError
        If the training redshifts are all the same.
    """
    z, r = np.asarray(spec_z, dtype=np.float64), np.asarray(dered_petro_r, dtype=np.float64)
    train = np.asarray(spec_z_train, dtype=np.float64)
    centre, variance = float(train.mean()), float(train.var())
    if not variance > 0:
        raise ValueError("training redshifts are all the same: there is no mean to be pulled to")
    m, s = median_and_width(pdf, grid)
    limit = (1 + rise) * metrics.sigma_mad(metrics.residual(z, m, relative))
    chosen = 0.0
    for strength in STRENGTHS:
        estimate = Unshrink(float(strength), centre, variance).photo_z(m, s)
        if metrics.sigma_mad(metrics.residual(z, estimate, relative)) > limit:
            break
        chosen = float(strength)
        if _slope(z, estimate, r, grid, slices, relative) >= 0:
            break
    return Unshrink(chosen, centre, variance)


def _slope(
    z: Floats, estimate: Floats, r: Floats, grid: RedshiftGrid, slices: MagnitudeSlices, relative: bool
) -> float:
    """Slope of the mean residual against spec_z, as the metrics have it."""
    variance, _ = variances(z, estimate, r, grid, slices)
    binned = metrics.residuals_by_spec_z(z, estimate, variance, grid, relative=relative)
    return metrics.fit_line(binned).slope
