"""Every number that judges a photometric redshift, as pure functions (Lin et al. 2022, sections 3.4 and 5).

Throughout, `dz = (photo_z - spec_z) / (1 + spec_z)`; with `relative=False`, for other quantities,
`dz = photo_z - spec_z`, and spec_z stands for the true value, photo_z for the estimate. Where the field has
two definitions the argument or the function names the one meant. Undefined numbers (no galaxies, one bin for
a straight line) are NaN, never an error or a warning.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction.labels import fit_labels, smoothed_scatter
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, bin_of, on_edges

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""

IQR_TO_SIGMA = 1.349
"""Interquartile range of a normal distribution over its standard deviation."""

WIDE_BINS = 40
"""Number of wide redshift bins of the mean residuals."""

MIN_COUNT = 10
"""Fewest galaxies of a photo_z bin in `evaluate`.

The standard error that a few galaxies give to their mean may by chance be near zero, and such a bin would
decide the slope, above all in the bootstrap, where draws repeat galaxies.
"""

CHUNK = 4096
"""Galaxies whose p(z) is integrated at a time: bounds the memory, not the result."""


# Residuals and point statistics


def residuals(spec_z: ArrayLike, photo_z: ArrayLike, relative: bool = True) -> Floats:
    """Residuals dz = (photo_z - spec_z) / (1 + spec_z), or without the division, shape (n,).

    Raises
    ------
    ValueError
        If the lengths differ.
    """
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    if z.shape != estimate.shape or z.ndim != 1:
        raise ValueError(
            f"spec_z and photo_z must be of one length, got shapes {z.shape} and {estimate.shape}"
        )
    dz: Floats = (estimate - z) / _scale(z, relative)
    return dz


def _scale(z: Floats, relative: bool) -> Floats:
    """What residuals are divided by: 1 + z, or 1; shape as z."""
    return 1 + z if relative else np.ones_like(z)


def bias(dz: ArrayLike, statistic: Literal["mean", "median"] = "mean") -> float:
    """Mean dz (this line of work) or median dz (RAIL)."""
    values = np.asarray(dz, dtype=np.float64)
    if values.size == 0:
        return np.nan
    return float(values.mean() if statistic == "mean" else np.median(values))


def sigma_mad(dz: ArrayLike) -> float:
    """1.4826 median|dz - median(dz)|."""
    values = np.asarray(dz, dtype=np.float64)
    if values.size == 0:
        return np.nan
    return float(MAD_TO_SIGMA * np.median(np.abs(values - np.median(values))))


def sigma_iqr(dz: ArrayLike) -> float:
    """Interquartile range of dz / 1.349, as in RAIL."""
    values = np.asarray(dz, dtype=np.float64)
    if values.size == 0:
        return np.nan
    low, high = np.percentile(values, [25.0, 75.0])
    return float((high - low) / IQR_TO_SIGMA)


def outlier_fraction(dz: ArrayLike, cut: float) -> float:
    """Fraction of abs(dz) > cut; 0.05 for SDSS, 0.15 for CFHTLS, or `rail_outlier_cut(dz)`."""
    values = np.asarray(dz, dtype=np.float64)
    return float(np.mean(np.abs(values) > cut)) if values.size else np.nan


def rail_outlier_cut(dz: ArrayLike) -> float:
    """RAIL's outlier cut on abs(dz): max(0.06, 3 sigma_iqr)."""
    return max(0.06, 3 * sigma_iqr(dz)) if np.size(dz) else np.nan


# p(z): cumulative distribution, point estimates, CRPS, CDE loss, PIT and coverage


def cumulative(pdf: ArrayLike) -> Floats:
    """Cumulative distribution at the bin edges.

    Parameters
    ----------
    pdf : array_like, shape (n, n_outputs)
        Probability of each bin; rows are normalised again here, float32 sums being inexact.

    Returns
    -------
    ndarray, shape (n, n_outputs + 1)
        From 0 to 1.

    Raises
    ------
    ValueError
        If a value is negative or not finite, or a row is empty.
    """
    p = np.asarray(pdf, dtype=np.float64)
    if p.ndim != 2:
        raise ValueError(f"pdf must be of shape (n, n_outputs), got {p.shape}")
    cdf = np.zeros((len(p), p.shape[1] + 1))
    np.cumsum(p, axis=1, out=cdf[:, 1:])
    total = cdf[:, -1:]
    if not (np.all(p >= 0) and np.all(np.isfinite(total)) and np.all(total > 0)):
        raise ValueError("each p(z) must be finite, not negative and of positive sum")
    normalised: Floats = cdf / total
    return normalised


def mode(pdf: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Centre of the most probable bin, shape (n,)."""
    centre: Floats = grid.centres[np.asarray(pdf).argmax(axis=1)]
    return centre


def mean(pdf: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Mean of p(z), shape (n,)."""
    p, out = np.asarray(pdf), np.empty(np.shape(pdf)[0])
    for start in range(0, len(p), CHUNK):
        part = p[start : start + CHUNK].astype(np.float64)
        out[start : start + CHUNK] = part @ grid.centres / part.sum(axis=1)
    return out


def quantile(pdf: ArrayLike, level: float, grid: RedshiftGrid) -> Floats:
    """Redshift below which p(z) holds the probability `level`, linear within a bin, shape (n,)."""
    p, parts = np.asarray(pdf), []
    for start in range(0, len(p), CHUNK):
        cdf = cumulative(p[start : start + CHUNK])
        k = np.minimum((cdf[:, 1:] < level).sum(axis=1), grid.n_outputs - 1)
        row = np.arange(len(cdf))
        below, inside = cdf[row, k], cdf[row, k + 1] - cdf[row, k]
        part = np.divide(level - below, inside, out=np.zeros(len(cdf)), where=inside > 0)
        parts.append(grid.edges[k] + np.clip(part, 0, 1) * grid.width)
    return np.concatenate(parts) if parts else np.empty(0)


def median(pdf: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Median of p(z), shape (n,)."""
    return quantile(pdf, 0.5, grid)


def interval(pdf: ArrayLike, grid: RedshiftGrid, level: float = 0.68) -> Floats:
    """Equal-tailed interval that holds the probability `level`, shape (n, 2)."""
    tail = 0.5 * (1 - level)
    return np.stack([quantile(pdf, tail, grid), quantile(pdf, 1 - tail, grid)], axis=1)


def trainz(spec_z_train: ArrayLike, grid: RedshiftGrid, n: int) -> Floats:
    """p(z) that ignores the data: the training n(z) for everyone (Schmidt et al. 2020, MNRAS 499, 1587).

    Returns
    -------
    ndarray, shape (n, n_outputs)
        A read-only view of one row; zero in the extension of the grid.

    Raises
    ------
    ValueError
        If there is no training galaxy.
    """
    z = np.asarray(spec_z_train, dtype=np.float64)
    if z.size == 0:
        raise ValueError("trainz needs at least one training redshift")
    n_of_z = np.bincount(grid.index(z) + grid.extend_left, minlength=grid.n_outputs) / len(z)
    return np.broadcast_to(n_of_z, (n, grid.n_outputs))


def crps(
    pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid, inside_bin: Literal["linear", "step"] = "linear"
) -> Floats:
    """Continuous ranked probability score of each galaxy: integral of (F(z) - 1[z >= spec_z])^2 dz.

    Parameters
    ----------
    pdf : array_like, shape (n, n_outputs)
        Probability of each bin.
    spec_z : array_like, shape (n,)
        Redshifts; each unit outside the grid costs 1.
    grid : RedshiftGrid
        Bins of the pdf, extension included.
    inside_bin : {"linear", "step"}
        "linear" integrates exactly the distribution that is uniform within each bin; "step" takes F at the
        bin's upper edge and spec_z at its bin, as the original code does.

    Returns
    -------
    ndarray, shape (n,)
        In redshift (D'Isanto & Polsterer 2018, arXiv 1706.02467).
    """
    p, z = _paired(pdf, spec_z, grid)
    score = _crps_linear if inside_bin == "linear" else _crps_step
    parts = [score(p[i : i + CHUNK], z[i : i + CHUNK], grid) for i in range(0, len(p), CHUNK)]
    return np.concatenate(parts) if parts else np.empty(0)


def _crps_linear(p: Floats, z: Floats, grid: RedshiftGrid) -> Floats:
    """Integrate squared linear pieces in closed form: from a to b, (a^2 + a b + b^2) / 3."""
    cdf, (k, t), row = cumulative(p), _place(z, grid), np.arange(len(p))
    low, high = cdf[:, :-1], cdf[:, 1:]
    below = (low**2 + low * high + high**2) / 3
    low, high = 1 - low, 1 - high
    above = (low**2 + low * high + high**2) / 3
    bins = np.arange(p.shape[1])
    whole = np.where(bins < k[:, None], below, np.where(bins > k[:, None], above, 0.0)).sum(axis=1)
    start, end = cdf[row, k], cdf[row, k + 1]
    at = start + t * (end - start)
    split = t * (start**2 + start * at + at**2) / 3
    split += (1 - t) * ((1 - at) ** 2 + (1 - at) * (1 - end) + (1 - end) ** 2) / 3
    outside = np.maximum(grid.edges[0] - z, 0) + np.maximum(z - grid.edges[-1], 0)
    score: Floats = (whole + split) * grid.width + outside
    return score


def _crps_step(p: Floats, z: Floats, grid: RedshiftGrid) -> Floats:
    """Sum over bins of (F at the upper edge - 1[bin >= spec_z's bin])^2 times the width."""
    k, _ = _place(z, grid)
    reached = np.arange(p.shape[1]) >= k[:, None]
    score: Floats = ((cumulative(p)[:, 1:] - reached) ** 2).sum(axis=1) * grid.width
    return score


def pit(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Probability integral transform F(spec_z) of each galaxy, F linear within a bin.

    Parameters
    ----------
    pdf : array_like, shape (n, n_outputs)
        Probability of each bin.
    spec_z : array_like, shape (n,)
        Redshifts; those outside the grid give 0 or 1.
    grid : RedshiftGrid
        Bins of the pdf, extension included.

    Returns
    -------
    ndarray, shape (n,)
        Between 0 and 1; uniform for calibrated p(z). A one-hot p(z) gives 0, 1 or, in its bin, the place
        within it.
    """
    p, z = _paired(pdf, spec_z, grid)
    out = np.empty(len(p))
    for start in range(0, len(p), CHUNK):
        part = slice(start, start + CHUNK)
        cdf, (k, t) = cumulative(p[part]), _place(z[part], grid)
        row = np.arange(len(cdf))
        out[part] = cdf[row, k] + t * (cdf[row, k + 1] - cdf[row, k])
    return out


def pit_ks(pit_values: ArrayLike) -> float:
    """Kolmogorov-Smirnov distance of the PIT values from the uniform distribution."""
    u = np.sort(np.asarray(pit_values, dtype=np.float64))
    if u.size == 0:
        return np.nan
    steps = np.arange(len(u) + 1) / len(u)
    return float(max(np.max(steps[1:] - u), np.max(u - steps[:-1])))


def pit_cvm(pit_values: ArrayLike) -> float:
    """Cramer-von Mises distance of the PIT values from the uniform distribution.

    The integral of (F_n(u) - u)^2 over u from 0 to 1, F_n being the fraction of the n values up to u: the
    statistic of `scipy.stats.cramervonmises` divided by n, so that samples of any size compare. It is 1/3
    where all values are 0, and 1 / (6 n) on average for uniform values.
    """
    u = np.sort(np.asarray(pit_values, dtype=np.float64))
    if u.size == 0:
        return np.nan
    middle = (np.arange(len(u)) + 0.5) / len(u)
    return float(np.mean((middle - u) ** 2) + 1 / (12 * len(u) ** 2))


def cde_loss(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Loss of a conditional density of each galaxy: integral of p(z)^2 dz - 2 p(spec_z).

    Its mean is, but for a constant of the sample, the expected integral of (p - true density)^2 (Izbicki &
    Lee 2017, arXiv 1704.08095): the lower the better, negative for useful p(z).

    Parameters
    ----------
    pdf : array_like, shape (n, n_outputs)
        Probability of each bin; the density is constant within a bin.
    spec_z : array_like, shape (n,)
        Redshifts; the density is 0 outside the grid.
    grid : RedshiftGrid
        Bins of the pdf, extension included.

    Returns
    -------
    ndarray, shape (n,)
        Per unit redshift.
    """
    p, z = _paired(pdf, spec_z, grid)
    inside = (z >= grid.edges[0]) & (z <= grid.edges[-1])
    out = np.empty(len(p))
    for start in range(0, len(p), CHUNK):
        part = slice(start, start + CHUNK)
        density = np.diff(cumulative(p[part]), axis=1) / grid.width
        at_spec_z = density[np.arange(len(density)), _place(z[part], grid)[0]] * inside[part]
        out[part] = np.einsum("ij,ij->i", density, density) * grid.width - 2 * at_spec_z
    return out


def covered(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid, level: float = 0.68) -> NDArray[np.bool_]:
    """Whether spec_z lies in `interval`, both ends included, shape (n,).

    The mean is the coverage, `level` for calibrated p(z): lower where p(z) are too narrow, higher where they
    are too wide.
    """
    p, z = _paired(pdf, spec_z, grid)
    low, high = interval(p, grid, level).T
    inside: NDArray[np.bool_] = (low <= z) & (z <= high)
    return inside


@dataclass(frozen=True, eq=False)
class PdfScores:
    """What the p(z) of each galaxy is worth, to be averaged over any set of them; each of shape (n,).

    Parameters
    ----------
    crps, cde_loss, pit : ndarray
        As the functions of these names.
    covered_68, covered_95 : ndarray
        1 where spec_z lies in the central 68 % or 95 % interval, else 0.
    """

    crps: Floats
    cde_loss: Floats
    pit: Floats
    covered_68: Floats
    covered_95: Floats

    def summary(self, members: Ints) -> dict[str, float]:
        """Return the numbers of some galaxies, given by their rows, which may repeat; NaN for none."""
        transform = self.pit[members]
        return {
            "crps": bias(self.crps[members]),
            "pit_ks": pit_ks(transform),
            "pit_cvm": pit_cvm(transform),
            "cde_loss": bias(self.cde_loss[members]),
            "coverage_68": bias(self.covered_68[members]),
            "coverage_95": bias(self.covered_95[members]),
        }


def pdf_scores(pdf: ArrayLike | None, spec_z: ArrayLike, grid: RedshiftGrid) -> PdfScores:
    """Score each p(z) once; without p(z), all scores are NaN.

    Parameters
    ----------
    pdf : array_like, shape (n, n_outputs), or None
        Probability of each bin.
    spec_z : array_like, shape (n,)
        Redshifts.
    grid : RedshiftGrid
        Bins of the pdf, extension included.

    Returns
    -------
    PdfScores
        One row a galaxy.
    """
    if pdf is None:
        unknown = np.full(np.shape(spec_z), np.nan)
        return PdfScores(unknown, unknown, unknown, unknown, unknown)
    return PdfScores(
        crps=crps(pdf, spec_z, grid),
        cde_loss=cde_loss(pdf, spec_z, grid),
        pit=pit(pdf, spec_z, grid),
        covered_68=covered(pdf, spec_z, grid, 0.68).astype(np.float64),
        covered_95=covered(pdf, spec_z, grid, 0.95).astype(np.float64),
    )


def _paired(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid) -> tuple[Floats, Floats]:
    """Check that p(z), redshifts and grid fit together."""
    p, z = np.asarray(pdf), np.asarray(spec_z, dtype=np.float64)
    if p.ndim != 2 or z.shape != (len(p),) or p.shape[1] != grid.n_outputs:
        raise ValueError(
            f"pdf {p.shape}, spec_z {z.shape} and a grid of {grid.n_outputs} bins do not fit together"
        )
    return p, z


def _place(z: Floats, grid: RedshiftGrid) -> tuple[Ints, Floats]:
    """Bin of the extended grid and place within it from 0 to 1; redshifts outside go to the ends."""
    k = grid.output_index(z)
    return k, np.clip((z - grid.edges[0]) / grid.width - k, 0, 1)


# Mean residuals by redshift


@dataclass(frozen=True, eq=False)
class BinnedResiduals:
    """Mean dz in the populated wide redshift bins.

    Parameters
    ----------
    centre, mean, error : ndarray, shape (m,)
        Bin centres, mean dz and its standard error.
    count : ndarray of int, shape (m,)
        Number of galaxies.
    """

    centre: Floats
    mean: Floats
    error: Floats
    count: Ints


@dataclass(frozen=True)
class LineFit:
    """A straight line through mean residuals: slope, intercept and their standard errors."""

    slope: float
    intercept: float
    slope_error: float
    intercept_error: float


def variances(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    sigma_dispersion: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
) -> tuple[Floats, Floats]:
    """Variance of photo_z by magnitude slice and z bin, and of each galaxy (Lin et al. 2022, section 4.2).

    Per output, the smoothed (median + mean) / 2 of the squared residuals of its slices; per slice, the mean
    over the outputs that cover it. Squared residuals contain the bias too.

    Parameters
    ----------
    spec_z, photo_z, dered_petro_r : array_like, shape (n,)
        Redshifts, estimates and magnitudes (mag).
    sigma_dispersion : array_like, shape (R,) or scalar
        Width of the smoothing of each output, bins: the sigma_1 of the labels.
    grid, slices : RedshiftGrid, MagnitudeSlices
        Bins (an extension is ignored) and slices.

    Returns
    -------
    per_galaxy : ndarray, shape (n,)
        In z^2; not less than w^2 / 12, what a bin's width alone causes, because a zero variance would get a
        boundless weight.
    table : ndarray, shape (S, K)
        In z^2, not floored; zero outside the populated range.
    """
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    s = slices.index(dered_petro_r)
    sigma = np.broadcast_to(np.asarray(sigma_dispersion, dtype=np.float64), (slices.n_outputs,))
    of_output = slices.membership[s]
    by_output = np.array(
        [smoothed_scatter(z[m], estimate[m], w, grid) for m, w in zip(of_output.T, sigma, strict=True)]
    )
    weight = slices.membership / slices.membership.sum(axis=1, keepdims=True)
    table: Floats = weight @ by_output * grid.width**2
    return np.maximum(table[s, grid.index(z)], grid.width**2 / 12), table


def residuals_by_spec_z(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    variance: ArrayLike,
    grid: RedshiftGrid,
    n_bins: int = WIDE_BINS,
    relative: bool = True,
) -> BinnedResiduals:
    """Mean dz in bins of spec_z, weighted with the inverse variance: the individual bias.

    Parameters
    ----------
    spec_z, photo_z, variance : array_like, shape (n,)
        Redshifts, estimates and the variance of each photo_z in z^2, positive.
    grid : RedshiftGrid
        Gives the range; redshifts beyond it count in the first or last bin.
    n_bins : int
        Number of bins over the survey's range.
    relative : bool
        As in `residuals`.

    Returns
    -------
    BinnedResiduals
        All populated bins; the error is that of the weighted mean, 1 / sqrt(sum of weights).
    """
    z = np.asarray(spec_z, dtype=np.float64)
    dz = residuals(z, photo_z, relative)
    k = np.clip(_wide_index(z, grid, n_bins), 0, n_bins - 1)
    weight = _scale(z, relative) ** 2 / np.asarray(variance, dtype=np.float64)
    count, total = np.bincount(k, minlength=n_bins), np.bincount(k, weights=weight, minlength=n_bins)
    filled = np.flatnonzero(count)
    average = np.bincount(k, weights=weight * dz, minlength=n_bins)[filled] / total[filled]
    centre = _wide_centre(filled, grid, n_bins)
    return BinnedResiduals(centre, average, 1 / np.sqrt(total[filled]), count[filled].astype(np.int64))


def residuals_by_photo_z(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    grid: RedshiftGrid,
    n_bins: int = WIDE_BINS,
    min_count: int = 2,
    relative: bool = True,
) -> BinnedResiduals:
    """Plain mean dz in half-open bins of photo_z: the bulk bias.

    Parameters
    ----------
    spec_z, photo_z : array_like, shape (n,)
        Redshifts and estimates; the bins go on at the same width where estimates lie beyond the survey's
        range.
    grid : RedshiftGrid
        Gives the range.
    n_bins : int
        Number of bins over the survey's range.
    min_count : int
        Fewest galaxies of a bin.
    relative : bool
        As in `residuals`.

    Returns
    -------
    BinnedResiduals
        Bins of two galaxies or more, because the error is std / sqrt(count - 1); where all residuals of a bin
        are equal, it is that of the fine bin's width, w / sqrt(12 count).
    """
    estimate = np.asarray(photo_z, dtype=np.float64)
    dz = residuals(spec_z, estimate, relative)
    bins, k = np.unique(_wide_index(estimate, grid, n_bins), return_inverse=True)
    count = np.bincount(k, minlength=len(bins))
    average = np.bincount(k, weights=dz, minlength=len(bins)) / np.maximum(count, 1)
    square = np.bincount(k, weights=(dz - average[k]) ** 2, minlength=len(bins)) / np.maximum(count, 1)
    enough = count >= max(min_count, 2)
    count, average, std = count[enough], average[enough], np.sqrt(square[enough])
    # Residuals that are equal but for rounding are as good as equal.
    error = np.where(std > 1e-12, std / np.sqrt(count - 1), grid.width / np.sqrt(12 * count))
    centre = _wide_centre(bins[enough], grid, n_bins)
    return BinnedResiduals(centre, average, error, count.astype(np.int64))


def fit_line(binned: BinnedResiduals, z_from: float | None = None) -> LineFit:
    """Fit a straight line to mean residuals by weighted least squares.

    Parameters
    ----------
    binned : BinnedResiduals
        Mean residuals; errors give relative weights only, the scatter around the line sets the scale.
    z_from : float, optional
        Use bins with a centre above it.

    Returns
    -------
    LineFit
        NaN with fewer than two bins; errors NaN with fewer than three.
    """
    use = slice(None) if z_from is None else binned.centre > z_from
    x, y, weight = binned.centre[use], binned.mean[use], binned.error[use] ** -2.0
    if len(x) < 2:
        return LineFit(np.nan, np.nan, np.nan, np.nan)
    total = weight.sum()
    x_mean, y_mean = weight @ x / total, weight @ y / total
    spread = weight @ (x - x_mean) ** 2
    slope = weight @ ((x - x_mean) * (y - y_mean)) / spread
    intercept = y_mean - slope * x_mean
    if len(x) == 2:
        return LineFit(float(slope), float(intercept), np.nan, np.nan)
    scale = weight @ (y - intercept - slope * x) ** 2 / (len(x) - 2)
    slope_error, intercept_error = np.sqrt(scale / spread), np.sqrt(scale * (1 / total + x_mean**2 / spread))
    return LineFit(float(slope), float(intercept), float(slope_error), float(intercept_error))


def _wide_edge(index: Ints, grid: RedshiftGrid, n_bins: int) -> Floats:
    """Lower edge of wide bins, shape as `index`."""
    return grid.z_min + index * (grid.z_max - grid.z_min) / n_bins


def _wide_centre(index: Ints, grid: RedshiftGrid, n_bins: int) -> Floats:
    """Centre of wide bins, shape as `index`."""
    return 0.5 * (_wide_edge(index, grid, n_bins) + _wide_edge(index + 1, grid, n_bins))


def _wide_index(z: Floats, grid: RedshiftGrid, n_bins: int) -> Ints:
    """Half-open wide bin of each redshift, not clipped."""
    return bin_of(z, grid.z_min, (grid.z_max - grid.z_min) / n_bins)


# Simulated residuals: what variance and number density alone cause


@dataclass(frozen=True, eq=False)
class SimulatedResiduals:
    """Mean dz expected from the variance of the estimates and the number density alone.

    Parameters
    ----------
    centre : ndarray, shape (n_bins,)
        Centres of the wide bins.
    mean : ndarray, shape (n_bins,)
        Expected mean dz over all magnitudes; NaN where there is no galaxy.
    by_slice, weight : ndarray, shape (S, n_bins)
        Expected mean dz of each slice (NaN where it has no galaxy) and its inverse-variance weight.
    """

    centre: Floats
    mean: Floats
    by_slice: Floats
    weight: Floats


def simulated_residuals(
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    variance_table: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    factor: float = 1.0,
    n_bins: int = WIDE_BINS,
    relative: bool = True,
) -> SimulatedResiduals:
    """Residual that regression towards crowded redshifts causes (Lin et al. 2022, section 5).

    A galaxy of a wide bin at z has its estimate at the centre of mass of a Gaussian of the slice's variance
    around z, times the slice's number density. Slices are averaged with the weight count / variance.

    Parameters
    ----------
    spec_z, dered_petro_r : array_like, shape (n,)
        Redshifts and magnitudes (mag) that give the number density.
    variance_table : array_like, shape (S, K)
        Variance by slice and z bin, z^2; second result of `variances`.
    grid, slices : RedshiftGrid, MagnitudeSlices
        Bins and slices.
    factor : float
        Multiplies the variance.
    n_bins : int
        Number of wide bins over the survey's range.
    relative : bool
        As in `residuals`.

    Returns
    -------
    SimulatedResiduals
        The curve, overall and per slice.
    """
    z = np.asarray(spec_z, dtype=np.float64)
    centre = _wide_centre(np.arange(n_bins), grid, n_bins)
    cell = slices.index(dered_petro_r) * n_bins + np.clip(_wide_index(z, grid, n_bins), 0, n_bins - 1)
    count = np.bincount(cell, minlength=slices.n_slices * n_bins).reshape(slices.n_slices, n_bins)
    share = _overlap(grid, n_bins)
    variance = np.asarray(variance_table, dtype=np.float64) @ share.T
    variance = np.maximum(variance, grid.width**2 / 12)
    offset = centre[None, :] - centre[:, None]
    kernel = np.exp(-0.5 * offset**2 / (factor * variance)[:, :, None]) * count[:, None, :]
    filled = count > 0
    by_slice = np.divide(
        (kernel * offset).sum(axis=2),
        kernel.sum(axis=2) * _scale(centre, relative),
        out=np.full(count.shape, np.nan),
        where=filled,
    )
    weight = count / variance
    total = weight.sum(axis=0)
    pulled = np.where(filled, weight * by_slice, 0.0).sum(axis=0)
    overall = np.divide(pulled, total, out=np.full(n_bins, np.nan), where=total > 0)
    return SimulatedResiduals(centre, overall, by_slice, weight)


def _overlap(grid: RedshiftGrid, n_bins: int) -> Floats:
    """Share of each wide bin that lies in each fine bin, rows of sum 1, shape (n_bins, K)."""
    fine = _wide_edge(np.arange(grid.n_bins + 1), grid, grid.n_bins)
    wide = _wide_edge(np.arange(n_bins + 1), grid, n_bins)
    common = np.minimum(wide[1:, None], fine[None, 1:]) - np.maximum(wide[:-1, None], fine[None, :-1])
    share = np.clip(common, 0, None)
    normalised: Floats = share / share.sum(axis=1, keepdims=True)
    return normalised


# Distributions: total variation and Wasserstein distance


def total_variation(spec_z: ArrayLike, photo_z: ArrayLike, grid: RedshiftGrid) -> float:
    """TV = 1/2 sum |p(photo_z) - p(spec_z)| over the survey's K bins.

    Estimates outside the range count in the first or last bin, as every bin index of the method does, so that
    both distributions have sum 1.
    """
    z, estimate = grid.index(spec_z), grid.index(photo_z)
    if z.size == 0:
        return np.nan
    difference = np.bincount(estimate, minlength=grid.n_bins) - np.bincount(z, minlength=grid.n_bins)
    return float(0.5 * np.abs(difference).sum() / len(z))


def total_variation_floor(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    variance: ArrayLike,
    grid: RedshiftGrid,
    rng: np.random.Generator,
    n_draws: int = 100,
    n_bins: int = WIDE_BINS,
    relative: bool = True,
) -> Floats:
    """TV that remains without mode collapse: photo_z redrawn with the measured residual and scatter.

    Parameters
    ----------
    spec_z, photo_z, variance : array_like, shape (n,)
        Redshifts, estimates and their variance in z^2 (first result of `variances`). The redrawn estimate is
        normal with that variance around spec_z + (1 + spec_z) times the weighted mean residual of its wide
        bin, the factor left out where residuals are not relative.
    grid : RedshiftGrid
        Redshift bins.
    rng : numpy.random.Generator
        Source of the draws.
    n_draws : int
        Number of draws.
    n_bins : int
        Number of wide bins of the mean residual.
    relative : bool
        As in `residuals`.

    Returns
    -------
    ndarray, shape (n_draws,)
        TV of each draw; NaN without galaxies.
    """
    z, sigma = np.asarray(spec_z, dtype=np.float64), np.sqrt(np.asarray(variance, dtype=np.float64))
    if z.size == 0:
        return np.full(n_draws, np.nan)
    binned = residuals_by_spec_z(z, photo_z, variance, grid, n_bins, relative)
    k = np.clip(_wide_index(z, grid, n_bins), 0, n_bins - 1)
    expected = z + _scale(z, relative) * binned.mean[np.unique(k, return_inverse=True)[1]]
    draws = [total_variation(z, expected + sigma * rng.standard_normal(len(z)), grid) for _ in range(n_draws)]
    return np.array(draws)


def wasserstein(spec_z: ArrayLike, photo_z: ArrayLike, grid: RedshiftGrid | None = None) -> float:
    """Wasserstein-1 distance between the distributions of photo_z and spec_z.

    Parameters
    ----------
    spec_z, photo_z : array_like, shape (n,)
        Redshifts and estimates.
    grid : RedshiftGrid, optional
        Compare histograms on the survey's K bins, estimates outside clipped, as the original does. By default
        the exact distance of the samples.

    Returns
    -------
    float
        In redshift; NaN without galaxies.
    """
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    if z.size == 0:
        return np.nan
    if grid is None:
        return float(np.mean(np.abs(np.sort(z) - np.sort(estimate))))
    difference = np.bincount(grid.index(estimate), minlength=grid.n_bins)
    difference = difference - np.bincount(grid.index(z), minlength=grid.n_bins)
    return float(np.abs(np.cumsum(difference)).sum() / len(z) * grid.width)


# Bootstrap and tables


def bootstrap(
    statistic: Callable[[Ints], ArrayLike], n: int, n_bootstrap: int, rng: np.random.Generator
) -> Floats:
    """Evaluate a statistic on samples drawn with replacement.

    Parameters
    ----------
    statistic : callable
        Takes indices of shape (n,) and returns a number or an array.
    n : int
        Number of galaxies.
    n_bootstrap : int
        Number of samples.
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    ndarray, shape (n_bootstrap, ...)
        The statistic of each sample.
    """
    return np.array([statistic(rng.integers(0, n, n)) for _ in range(n_bootstrap)], dtype=np.float64)


def standard_error(samples: ArrayLike) -> Floats:
    """Standard deviation over the first axis, of the finite values; NaN where there are fewer than two."""
    values = np.asarray(samples, dtype=np.float64)
    finite = np.isfinite(values)
    count = finite.sum(axis=0)
    average = np.where(finite, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    square = np.where(finite, (values - average) ** 2, 0.0).sum(axis=0)
    deviation: Floats = np.where(count > 1, np.sqrt(square / np.maximum(count, 1)), np.nan)
    return deviation


def by_group(
    statistics: Callable[[Ints], dict[str, float]],
    group: ArrayLike,
    n_groups: int,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
) -> dict[str, NDArray[Any]]:
    """Evaluate statistics on each group of galaxies.

    Parameters
    ----------
    statistics : callable
        Takes rows of galaxies, which may repeat or be none, and returns numbers by name.
    group : array_like of int, shape (n,)
        Group of each galaxy, 0 .. n_groups - 1.
    n_groups : int
        Number of groups m.
    rng : numpy.random.Generator
        Source of the bootstrap samples, drawn within each group.
    n_bootstrap : int
        Number of bootstrap samples.

    Returns
    -------
    dict of str to ndarray, each of shape (m,)
        `count`, each statistic, and its bootstrap standard error under `<key>_err`; NaN without galaxies.
    """
    which = np.asarray(group)
    rows = []
    for i in range(n_groups):
        members = np.flatnonzero(which == i)
        values = statistics(members)

        def sampled(draw: Ints, members: Ints = members) -> list[float]:
            return list(statistics(members[draw]).values())

        draws = (
            bootstrap(sampled, len(members), n_bootstrap, rng) if len(members) else np.empty((0, len(values)))
        )
        errors = zip(values, standard_error(draws).tolist(), strict=True)
        rows.append({"count": len(members)} | values | {f"{key}_err": error for key, error in errors})
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


@dataclass(frozen=True, eq=False)
class MagnitudeTable:
    """Statistics by magnitude with bootstrap standard errors, each of shape (m,); NaN without galaxies.

    Parameters
    ----------
    r, r_err : ndarray
        Mean magnitude of the galaxies, mag.
    count : ndarray of int
        Number of galaxies.
    bias, bias_err, sigma_mad, sigma_mad_err, outlier_fraction, outlier_fraction_err : ndarray
        Statistics of dz.
    wasserstein, wasserstein_err : ndarray
        Distance between the distributions of photo_z and spec_z.
    """

    r: Floats
    r_err: Floats
    count: Ints
    bias: Floats
    bias_err: Floats
    sigma_mad: Floats
    sigma_mad_err: Floats
    outlier_fraction: Floats
    outlier_fraction_err: Floats
    wasserstein: Floats
    wasserstein_err: Floats


def by_magnitude(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    edges: ArrayLike,
    *,
    outlier_cut: float,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
    grid: RedshiftGrid | None = None,
    relative: bool = True,
) -> MagnitudeTable:
    """Statistics in bins of magnitude, half-open; magnitudes beyond the edges count in the first or last bin.

    Parameters
    ----------
    spec_z, photo_z, dered_petro_r : array_like, shape (n,)
        Redshifts, estimates and magnitudes (mag).
    edges : array_like, shape (m + 1,)
        Ascending bin edges, mag; `MagnitudeSlices.edges` for the slices of the method.
    outlier_cut : float
        Cut on abs(dz).
    rng : numpy.random.Generator
        Source of the bootstrap samples, drawn within each bin.
    n_bootstrap : int
        Number of bootstrap samples.
    grid : RedshiftGrid, optional
        As in `wasserstein`.
    relative : bool
        As in `residuals`.

    Returns
    -------
    MagnitudeTable
        One row a bin.
    """
    z, estimate, r = (np.asarray(a, dtype=np.float64) for a in (spec_z, photo_z, dered_petro_r))
    dz, borders = residuals(z, estimate, relative), np.asarray(edges, dtype=np.float64)
    row = _row_of(r, borders)

    def statistics(members: Ints) -> dict[str, float]:
        part = dz[members]
        return {
            "r": bias(r[members]),
            "bias": bias(part),
            "sigma_mad": sigma_mad(part),
            "outlier_fraction": outlier_fraction(part, outlier_cut),
            "wasserstein": wasserstein(z[members], estimate[members], grid),
        }

    return MagnitudeTable(**by_group(statistics, row, len(borders) - 1, rng=rng, n_bootstrap=n_bootstrap))


def _row_of(values: Floats, edges: Floats) -> Ints:
    """Half-open bin of each value, those beyond the edges in the first or last."""
    row = np.searchsorted(edges, on_edges(values, np.diff(edges).min()), side="right") - 1
    return np.clip(row, 0, len(edges) - 2)


def by_redshift(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    scores: PdfScores,
    edges: ArrayLike,
    *,
    outlier_cut: float,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
    relative: bool = True,
) -> dict[str, NDArray[Any]]:
    """Statistics in bins of spec_z, half-open; redshifts beyond the edges count in the first or last bin.

    A bin of spec_z selects by the truth, so that even perfect p(z) miss the nominal coverage where n(z) is
    steep or ends: judge runs against each other, not against the level. A slice of r selects by what p(z) may
    know, and there calibrated p(z) do have the nominal coverage.

    Parameters
    ----------
    spec_z, photo_z : array_like, shape (n,)
        Redshifts and estimates.
    scores : PdfScores
        Of the same galaxies.
    edges : array_like, shape (m + 1,)
        Ascending bin edges.
    outlier_cut : float
        Cut on abs(dz).
    rng : numpy.random.Generator
        Source of the bootstrap samples, drawn within each bin.
    n_bootstrap : int
        Number of bootstrap samples.
    relative : bool
        As in `residuals`.

    Returns
    -------
    dict of str to ndarray, each of shape (m,)
        count, spec_z (mean), bias, sigma_mad, outlier_fraction, those of `PdfScores.summary`, and
        `<key>_err` for all but count; NaN without galaxies.
    """
    z, borders = np.asarray(spec_z, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    dz = residuals(z, photo_z, relative)
    row = _row_of(z, borders)

    def statistics(members: Ints) -> dict[str, float]:
        part = dz[members]
        return {
            "spec_z": bias(z[members]),
            "bias": bias(part),
            "sigma_mad": sigma_mad(part),
            "outlier_fraction": outlier_fraction(part, outlier_cut),
        } | scores.summary(members)

    return by_group(statistics, row, len(borders) - 1, rng=rng, n_bootstrap=n_bootstrap)


# All headline numbers at once


def evaluate(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    pdf: ArrayLike | None,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    outlier_cut: float,
    rng: np.random.Generator,
    sigma_dispersion: ArrayLike | None = None,
    n_bootstrap: int = 100,
    z_high: float = 0.15,
    relative: bool = True,
) -> dict[str, float]:
    """Compute the headline numbers of one sample, each with its bootstrap standard error under `<key>_err`.

    Parameters
    ----------
    spec_z, photo_z, dered_petro_r : array_like, shape (n,)
        Redshifts, estimates (those outside the survey's range are allowed) and magnitudes (mag), all finite.
    pdf : array_like, shape (n, n_outputs), or None
        Probability of each bin of `grid`; without it, the numbers of p(z) are NaN.
    grid : RedshiftGrid
        Bins of the pdf, with its extension.
    slices : MagnitudeSlices
        Magnitude slices.
    outlier_cut : float
        Cut on abs(dz).
    rng : numpy.random.Generator
        Source of the bootstrap samples and of the TV floor.
    sigma_dispersion : array_like, shape (R,), optional
        Dispersions that smooth the variance, bins: sigma_1 of the labels. By default they are fitted to this
        sample's own histograms, as the labels' are to the balanced subset's; without any smoothing a bin of
        one galaxy would take its own squared residual for its variance.
    n_bootstrap : int
        Number of bootstrap samples, and of draws for the TV floor; at least 1.
    z_high : float
        `slope_spec_z_high` uses bins above it: 0.15 for SDSS.
    relative : bool
        As in `residuals`.

    Returns
    -------
    dict of str to float
        n, bias, sigma_mad, outlier_fraction, crps, pit_ks, pit_cvm, cde_loss, coverage_68, coverage_95,
        slope_spec_z, slope_spec_z_high, slope_photo_z, total_variation, total_variation_floor, wasserstein
        and `<key>_err` for all but n. What a small sample leaves undefined is NaN. Slopes use all populated
        bins of spec_z and the bins of photo_z with 10 galaxies or more. The variance that weights the slopes
        is held fixed in the bootstrap; the error of the floor is the scatter of its draws.

    Raises
    ------
    ValueError
        If there is no galaxy, lengths differ, a value is not finite, p(z) does not fit the grid or
        n_bootstrap < 1.
    """
    z, estimate, r = (np.asarray(a, dtype=np.float64) for a in (spec_z, photo_z, dered_petro_r))
    if z.size == 0 or not z.shape == estimate.shape == r.shape:
        raise ValueError(
            f"evaluate needs arrays of one length above 0, got {z.shape}, {estimate.shape}, {r.shape}"
        )
    if not all(np.isfinite(a).all() for a in (z, estimate, r)):
        raise ValueError(
            "evaluate needs finite spec_z, photo_z and dered_petro_r: drop the other galaxies first"
        )
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    if sigma_dispersion is None:
        sigma_dispersion = fit_labels(z, estimate, r, grid, slices, slices.membership).sigma_1
    variance, _ = variances(z, estimate, r, sigma_dispersion, grid, slices)
    scores = pdf_scores(pdf, z, grid)

    def statistics(draw: Ints) -> dict[str, float]:
        spec, photo = z[draw], estimate[draw]
        dz = residuals(spec, photo, relative)
        by_spec_z = residuals_by_spec_z(spec, photo, variance[draw], grid, relative=relative)
        by_photo_z = residuals_by_photo_z(spec, photo, grid, min_count=MIN_COUNT, relative=relative)
        return {
            "bias": bias(dz),
            "sigma_mad": sigma_mad(dz),
            "outlier_fraction": outlier_fraction(dz, outlier_cut),
            **scores.summary(draw),
            "slope_spec_z": fit_line(by_spec_z).slope,
            "slope_spec_z_high": fit_line(by_spec_z, z_high).slope,
            "slope_photo_z": fit_line(by_photo_z).slope,
            "total_variation": total_variation(spec, photo, grid),
            "wasserstein": wasserstein(spec, photo),
        }

    values = statistics(np.arange(len(z)))
    samples = bootstrap(lambda draw: list(statistics(draw).values()), len(z), n_bootstrap, rng)
    errors = dict(zip(values, standard_error(samples).tolist(), strict=True))
    floor = total_variation_floor(z, estimate, variance, grid, rng, n_bootstrap, relative=relative)
    values["total_variation_floor"] = float(floor.mean())
    errors["total_variation_floor"] = float(standard_error(floor))
    return {"n": float(len(z))} | values | {f"{key}_err": error for key, error in errors.items()}
