"""Soft and shifted labels of Step 3 (Lin et al. 2022, section 4.3): one table for all galaxies.

A label depends on a galaxy's redshift bin and magnitude slice only. All widths and means here are in units of
bins and on the survey's own bin index: bin k's centre is at k, the extended grid runs from -left to K - 1 +
right.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, cell_counts

Floats = NDArray[np.float64]
Shift = Literal["mirror", "centre_of_mass", "none"]
Rounding = Literal["nearest", "floor"]

SMALLEST_DISPERSION = 0.05
"""Lower end of the search for sigma_1, in bins: the kernel is a delta function long before."""

ONE_HOT_BELOW = 0.1
"""Softening width in bins below which a label is one-hot."""

PROBABILITY_CLIP = 1e-5
"""The convolved histogram is clipped to [1e-5, 1 - 1e-5] before the logarithm."""


def convolve(hist: Floats, sigma: float) -> Floats:
    """Convolve a histogram with a Gaussian whose kernel is normalised on the grid for each source bin.

    Parameters
    ----------
    hist : ndarray, shape (K,)
        Histogram.
    sigma : float
        Width, bins.

    Returns
    -------
    ndarray, shape (K,)
        Convolved histogram with the same sum.
    """
    n = len(hist)
    kernel = np.exp(-0.5 * (np.arange(1 - n, n) / sigma) ** 2)
    norm = np.convolve(np.ones(n), kernel)[n - 1 : 2 * n - 1]
    return np.convolve(hist / norm, kernel)[n - 1 : 2 * n - 1]


def cross_entropy(spec_z_hist: Floats, photo_z_hist: Floats, sigma: float) -> float:
    """Cross-entropy of a spec_z histogram against the photo_z histogram convolved with a Gaussian.

    Parameters
    ----------
    spec_z_hist, photo_z_hist : ndarray, shape (K,)
        Normalised histograms.
    sigma : float
        Width, bins.

    Returns
    -------
    float
        - sum_k spec_z_hist_k log(fit_k), the fit clipped to [1e-5, 1 - 1e-5].
    """
    fit = np.clip(convolve(photo_z_hist, sigma), PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)
    return float(-np.sum(spec_z_hist * np.log(fit)))


def fit_dispersion(spec_z_hist: ArrayLike, photo_z_hist: ArrayLike) -> Floats:
    """Fit each output's dispersion sigma_1: the Gaussian that turns its photo_z into its spec_z histogram.

    The cross-entropy is minimised per output, first on a logarithmic grid, then between the neighbours of the
    best point.

    Parameters
    ----------
    spec_z_hist, photo_z_hist : array_like, shape (R, K)
        Histograms over the slices of each output, of any normalisation.

    Returns
    -------
    ndarray, shape (R,)
        sigma_1 in bins, within [0.05, max(1, K / 4)]. An output without galaxies takes that of the nearest
        output that has some.

    Raises
    ------
    ValueError
        If the shapes differ or all outputs are empty.
    """
    spec, photo = np.asarray(spec_z_hist, dtype=np.float64), np.asarray(photo_z_hist, dtype=np.float64)
    if spec.ndim != 2 or spec.shape != photo.shape:
        raise ValueError(f"histograms must be of one shape (R, K), got {spec.shape} and {photo.shape}")
    filled = (spec.sum(1) > 0) & (photo.sum(1) > 0)
    if not filled.any():
        raise ValueError("no galaxies: a dispersion needs at least one in some output")
    sigma = np.array(
        [
            _fit_one_dispersion(s / s.sum(), p / p.sum()) if ok else 0.0
            for s, p, ok in zip(spec, photo, filled, strict=True)
        ]
    )
    return np.take(sigma, _nearest_true(filled))


def _fit_one_dispersion(spec_z_hist: Floats, photo_z_hist: Floats) -> float:
    """Minimise the cross-entropy over sigma for one output."""
    upper = max(1.0, len(spec_z_hist) / 4)
    search = np.linspace(np.log(SMALLEST_DISPERSION), np.log(upper), 30)

    def objective(log_sigma: float) -> float:
        return cross_entropy(spec_z_hist, photo_z_hist, float(np.exp(log_sigma)))

    values = [objective(x) for x in search]
    best = int(np.argmin(values))
    bounds = (search[max(best - 1, 0)], search[min(best + 1, len(search) - 1)])
    result = minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-7})
    # The objective is flat for a delta-like kernel and may be lowest at an end of the range, which a bounded
    # search never quite reaches.
    return float(np.exp(result.x if result.fun < values[best] else search[best]))


def _nearest_true(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Index of the nearest true entry for each entry, the lower one at equal distance, shape (n,)."""
    at = np.flatnonzero(flags)
    nearest: NDArray[np.int64] = at[np.argmin(np.abs(np.arange(len(flags))[:, None] - at[None, :]), axis=1)]
    return nearest


def grouped_median_and_mean(
    values: Floats, groups: NDArray[np.int64], n_groups: int
) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Median, mean and number of the values of each group.

    Parameters
    ----------
    values : ndarray, shape (n,)
        Values.
    groups : ndarray of int, shape (n,)
        Group of each value, 0 .. n_groups - 1.
    n_groups : int
        Number of groups.

    Returns
    -------
    median, mean : ndarray, shape (n_groups,)
        NaN for an empty group.
    count : ndarray of int, shape (n_groups,)
        Number of values.
    """
    count = np.bincount(groups, minlength=n_groups)
    filled = count > 0
    median, mean = np.full(n_groups, np.nan), np.full(n_groups, np.nan)
    mean[filled] = np.bincount(groups, weights=values, minlength=n_groups)[filled] / count[filled]
    ordered = values[np.lexsort((values, groups))]
    start = (np.cumsum(count) - count)[filled]
    low, high = ordered[start + (count[filled] - 1) // 2], ordered[start + count[filled] // 2]
    median[filled] = 0.5 * (low + high)
    return median, mean, count


def smoothed_scatter(spec_z: ArrayLike, photo_z: ArrayLike, sigma_1: float, grid: RedshiftGrid) -> Floats:
    """Smoothed mean square residual by z bin for one set of galaxies.

    (median + mean) / 2 of ((photo_z - spec_z) / w)^2 in each bin; an empty bin within the populated range
    takes the previous populated value; then a Gaussian of width sigma_1 smooths it, each source bin's weights
    normalised within the populated range. Squared residuals contain the bias as well as the variance.

    Parameters
    ----------
    spec_z, photo_z : array_like, shape (n,)
        Redshifts and estimates.
    sigma_1 : float
        Width of the smoothing, bins.
    grid : RedshiftGrid
        Redshift bins; an extension is ignored.

    Returns
    -------
    ndarray, shape (K,)
        In bins^2, zero outside the populated range (everywhere if there is no galaxy).
    """
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    out = np.zeros(grid.n_bins)
    if z.size == 0:
        return out
    square = ((estimate - z) / grid.width) ** 2
    median, mean, count = grouped_median_and_mean(square, grid.index(z), grid.n_bins)
    populated = np.flatnonzero(count)
    inside = slice(populated[0], populated[-1] + 1)
    last_populated = np.maximum.accumulate(np.where(count > 0, np.arange(grid.n_bins), 0))[inside]
    out[inside] = convolve((0.5 * (median + mean))[last_populated], sigma_1)
    return out


def scatter(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    slice_index: ArrayLike,
    sigma_1: ArrayLike,
    grid: RedshiftGrid,
    membership: ArrayLike,
) -> Floats:
    """Scatter sigma_2 of each output and z bin: the smoothed scatter and the dispersion added in quadrature.

    Parameters
    ----------
    spec_z, photo_z : array_like, shape (n,)
        Redshifts and Step 2 estimates of the balanced subset.
    slice_index : array_like of int, shape (n,)
        Magnitude slice of each galaxy.
    sigma_1 : array_like, shape (R,)
        Dispersion of each output, bins.
    grid : RedshiftGrid
        Redshift bins; an extension is ignored.
    membership : array_like of bool, shape (S, R)
        Which output covers which slice.

    Returns
    -------
    ndarray, shape (R, K)
        sigma_2 in bins; equal to sigma_1 outside the populated range.
    """
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    dispersion = np.asarray(sigma_1, dtype=np.float64)
    of_output = np.asarray(membership, dtype=np.bool_)[np.asarray(slice_index)]
    square = [
        smoothed_scatter(z[m], estimate[m], s, grid) for m, s in zip(of_output.T, dispersion, strict=True)
    ]
    return np.sqrt(np.array(square) + dispersion[:, None] ** 2)


def centre_of_mass(counts: ArrayLike, sigma_2: ArrayLike) -> Floats:
    """Centre of mass of each bin's Gaussian of width sigma_2, weighted with the slice's galaxies.

    The Gaussian ends with the original redshift range, because no galaxy lies beyond it.

    Parameters
    ----------
    counts : array_like, shape (S, K)
        The balanced subset's histogram of spec_z in each slice.
    sigma_2 : array_like, shape (R, K)
        Scatter, bins.

    Returns
    -------
    ndarray, shape (S, K, R)
        Centre of mass, bins. A slice without galaxies pulls nothing: its centre is the bin itself. Where the
        Gaussian reaches no galaxy at all, it is the nearest populated bin, its limit.
    """
    n, width = np.asarray(counts, dtype=np.float64), np.asarray(sigma_2, dtype=np.float64)
    n_slices, n_bins = n.shape
    bins = np.arange(n_bins)
    offset = (bins[None, :] - bins[:, None]).astype(np.float64)
    nearest = np.stack([_nearest_true(row > 0) if row.any() else bins for row in n])
    centre = np.empty((n_slices, n_bins, len(width)))
    for i, sigma in enumerate(width):
        weight = np.exp(-0.5 * (offset / sigma[:, None]) ** 2)
        total = (weight @ n.T).T
        pull = np.divide(((weight * offset) @ n.T).T, total, out=np.zeros_like(total), where=total > 0)
        centre[:, :, i] = np.where(total > 0, bins + pull, nearest)
    return centre


def shifted_mean(
    counts: ArrayLike, sigma_2: ArrayLike, shift: Shift = "mirror", strength: float = 1.0
) -> Floats:
    """Mean of the label of a galaxy in each slice, bin and output, moved against the pull of the truncation.

    Parameters
    ----------
    counts : array_like, shape (S, K)
        The balanced subset's histogram of spec_z in each slice.
    sigma_2 : array_like, shape (R, K)
        Scatter, bins.
    shift : {"mirror", "centre_of_mass", "none"}
        With c the centre of mass: "mirror" moves bin k to 2 k - c (the paper), "centre_of_mass" to c (the
        talk), "none" leaves it.
    strength : float
        Multiplies the shift; 1 is the paper's.

    Returns
    -------
    ndarray, shape (S, K, R)
        Means, bins, on the original bin index.

    Raises
    ------
    ValueError
        If `shift` is none of the three.
    """
    n = np.asarray(counts, dtype=np.float64)
    bins = np.broadcast_to(
        np.arange(n.shape[1], dtype=np.float64)[None, :, None], (*n.shape, len(np.asarray(sigma_2)))
    )
    if shift == "none":
        return bins.copy()
    if shift not in ("mirror", "centre_of_mass"):
        raise ValueError(f"shift must be mirror, centre_of_mass or none, got {shift!r}")
    pull = centre_of_mass(n, sigma_2) - bins
    return bins + (-strength if shift == "mirror" else strength) * pull


def gaussian_labels(
    mean: ArrayLike, sigma: ArrayLike, grid: RedshiftGrid, rounding: Rounding = "nearest"
) -> Floats:
    """Labels on the extended grid: Gaussians of width sigma around the means, each of sum 1.

    Parameters
    ----------
    mean : array_like, shape (...)
        Means, bins, on the original bin index; beyond the extended grid they are clipped to its first or last
        bin, which keeps the label normalised and in range.
    sigma : array_like, broadcastable to `mean`
        Widths, bins. Below 0.1 the label is one-hot.
    grid : RedshiftGrid
        The extended grid.
    rounding : {"nearest", "floor"}
        How a one-hot label finds its bin. The original code truncates ("floor"), which puts labels half a bin
        too low on average.

    Returns
    -------
    ndarray, shape (..., n_outputs)
        Labels.
    """
    bins = np.arange(grid.n_outputs, dtype=np.float64) - grid.extend_left
    m, width = np.broadcast_arrays(np.asarray(mean, dtype=np.float64), np.asarray(sigma, dtype=np.float64))
    m = np.clip(m, bins[0], bins[-1])
    one_hot = width < ONE_HOT_BELOW
    scaled = (bins - m[..., None]) / np.where(one_hot, 1.0, width)[..., None]
    labels: Floats = np.exp(-0.5 * scaled**2)
    labels /= labels.sum(axis=-1, keepdims=True)
    if one_hot.any():
        # A half always rounds up, so that labels do not depend on whether a bin's number is even.
        at = np.floor(m + 0.5) if rounding == "nearest" else np.floor(m)
        labels[one_hot] = bins == np.minimum(at, bins[-1])[one_hot][:, None]
    return labels


@dataclass(frozen=True, eq=False)
class LabelFit:
    """What Step 3 measured on the balanced subset, kept for the figures.

    Parameters
    ----------
    counts : ndarray of int, shape (S, K)
        Histogram of spec_z in each slice.
    spec_z_hist, photo_z_hist : ndarray, shape (R, K)
        Normalised histograms of each output (zero for an output without galaxies).
    sigma_1 : ndarray, shape (R,)
        Dispersions, bins.
    sigma_2 : ndarray, shape (R, K)
        Scatters, bins.
    """

    counts: NDArray[np.int64]
    spec_z_hist: Floats
    photo_z_hist: Floats
    sigma_1: Floats
    sigma_2: Floats


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The label of every (slice, z bin, output), as means and widths of Gaussians.

    Dense rows are made on request: a full table of CFHTLS would take 1.9 GB.

    Parameters
    ----------
    grid : RedshiftGrid
        The extended grid.
    mean : ndarray, shape (S, K, R)
        Means on the original bin index, bins. Only entries of member outputs are used.
    sigma : ndarray, shape (R,)
        Softening widths, bins; below 0.1 the labels of the output are one-hot.
    membership : ndarray of bool, shape (S, R)
        Which output covers which slice; labels of the others are uniform over the extended grid.
    fit : LabelFit or None
        The measurements behind the table, None for plain one-hot labels.
    """

    grid: RedshiftGrid
    mean: Floats
    sigma: Floats
    membership: NDArray[np.bool_]
    fit: LabelFit | None = None

    def __post_init__(self) -> None:
        expected = (*self.membership.shape, self.grid.n_bins)
        n_slices, n_bins, n_outputs = self.mean.shape
        if (n_slices, n_outputs, n_bins) != expected or self.sigma.shape != (n_outputs,):
            raise ValueError(
                f"mean {self.mean.shape}, sigma {self.sigma.shape}, membership {self.membership.shape} "
                f"and {self.grid.n_bins} bins do not fit together"
            )

    def rows(
        self, slice_index: ArrayLike, bin_index: ArrayLike, rounding: Rounding = "nearest"
    ) -> NDArray[np.float32]:
        """Labels of galaxies given by their cells.

        Parameters
        ----------
        slice_index, bin_index : array_like of int, shape (n,)
            Slice and original z bin of each galaxy.
        rounding : {"nearest", "floor"}
            How a one-hot label finds its bin, see `gaussian_labels`.

        Returns
        -------
        ndarray of float32, shape (n, R, n_outputs)
            Targets, each of sum 1.
        """
        s, k = np.asarray(slice_index, dtype=np.int64), np.asarray(bin_index, dtype=np.int64)
        n_extended = self.grid.n_outputs
        targets = np.full((len(s), len(self.sigma), n_extended), 1.0 / n_extended, dtype=np.float32)
        # Gaussians are made for member outputs only: one or two of a galaxy's R.
        galaxy, output = np.nonzero(self.membership[s])
        mean = self.mean[s[galaxy], k[galaxy], output]
        targets[galaxy, output] = gaussian_labels(mean, self.sigma[output], self.grid, rounding)
        return targets

    def table(self) -> NDArray[np.float32]:
        """All labels, shape (S, K, R, n_outputs): for small grids (SDSS takes 17 MB)."""
        n_slices, n_bins, n_outputs = self.mean.shape
        s, k = np.indices((n_slices, n_bins)).reshape(2, -1)
        return self.rows(s, k).reshape(n_slices, n_bins, n_outputs, self.grid.n_outputs)


def one_hot_table(grid: RedshiftGrid, membership: ArrayLike) -> LabelTable:
    """Labels of Steps 1 and 2 and of the Baseline: one-hot in member outputs, uniform in the others.

    Parameters
    ----------
    grid : RedshiftGrid
        The grid of the outputs, extended or not.
    membership : array_like of bool, shape (S, R)
        Which output covers which slice.

    Returns
    -------
    LabelTable
        Table of one-hot labels.
    """
    member = np.asarray(membership, dtype=np.bool_)
    n_slices, n_outputs = member.shape
    mean = shifted_mean(np.zeros((n_slices, grid.n_bins)), np.ones((n_outputs, grid.n_bins)), "none")
    return LabelTable(grid, mean, np.zeros(n_outputs), member)


def build_label_table(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    extend: tuple[int, int] = (0, 0),
    soften: bool = True,
    width: float = 0.0,
    shift: Shift = "mirror",
    shift_strength: float = 1.0,
    membership: ArrayLike | None = None,
) -> LabelTable:
    """Build Step 3's label table from Step 2's estimates on the balanced subset.

    Parameters
    ----------
    spec_z, photo_z : array_like, shape (n,)
        Redshifts and Step 2 estimates (argmax of p(z)) of the balanced subset.
    dered_petro_r : array_like, shape (n,)
        Dereddened Petrosian r, mag.
    grid : RedshiftGrid
        The survey's bins; an extension of it is replaced by `extend`.
    slices : MagnitudeSlices
        Magnitude slices.
    extend : (int, int)
        Bins added to the left and to the right of the grid.
    soften : bool
        False gives one-hot labels at the rounded shifted means (`correction=hard`).
    width : float
        Width of soft labels, bins, in place of the fitted dispersion; 0 takes that.
    shift : {"mirror", "centre_of_mass", "none"}
        How the mean moves, see `shifted_mean`.
    shift_strength : float
        Multiplies the shift.
    membership : array_like of bool, shape (S, R), optional
        Replaces the interlaced membership: a column of ones gives a single output the same corrections.

    Returns
    -------
    LabelTable
        Labels for all cells, with the measurements behind them.

    Raises
    ------
    ValueError
        If the arrays are empty, of different lengths or not finite.
    """
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    if z.size == 0:
        raise ValueError("the balanced subset is empty: labels need galaxies")
    if z.shape != estimate.shape or not np.isfinite(estimate).all():
        raise ValueError(f"photo_z must be finite and as long as spec_z, got {estimate.shape} for {z.shape}")
    member = np.asarray(slices.membership if membership is None else membership, dtype=np.bool_)
    fit = fit_labels(z, estimate, dered_petro_r, grid, slices, member)
    mean = shifted_mean(fit.counts, fit.sigma_2, shift, shift_strength)
    sigma = np.full_like(fit.sigma_1, width) if width > 0 else fit.sigma_1
    if not soften:
        sigma = np.zeros_like(sigma)
    return LabelTable(grid.extended(*extend), mean, sigma, member, fit)


def fit_labels(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    membership: ArrayLike,
) -> LabelFit:
    """Measure histograms, dispersions and scatters of each output.

    Parameters
    ----------
    spec_z, photo_z, dered_petro_r : array_like, shape (n,)
        Redshifts, estimates and magnitudes (mag).
    grid, slices : RedshiftGrid, MagnitudeSlices
        Bins and slices.
    membership : array_like of bool, shape (S, R)
        Which output covers which slice.

    Returns
    -------
    LabelFit
        The measurements.
    """
    member = np.asarray(membership, dtype=np.bool_)
    counts = cell_counts(spec_z, dered_petro_r, grid, slices)
    if len(member) != len(counts):
        raise ValueError(f"membership has {len(member)} rows for {len(counts)} slices")
    spec_hist = _normalised(member.T @ counts)
    photo_hist = _normalised(member.T @ cell_counts(photo_z, dered_petro_r, grid, slices))
    sigma_1 = fit_dispersion(spec_hist, photo_hist)
    sigma_2 = scatter(spec_z, photo_z, slices.index(dered_petro_r), sigma_1, grid, member)
    return LabelFit(counts, spec_hist, photo_hist, sigma_1, sigma_2)


def _normalised(hist: NDArray[np.int64]) -> Floats:
    """Each row divided by its sum, an empty row left at zero, shape (R, K)."""
    normalised: Floats = hist / np.maximum(hist.sum(axis=1, keepdims=True), 1)
    return normalised
