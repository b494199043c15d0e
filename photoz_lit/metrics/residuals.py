"""Mean residuals in 40 wide bins over the survey's range, straight lines through them, what causes them.

Throughout, spec_z and photo_z are of shape (n,), a variance is in z^2, and the grid gives the range.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.grids import Floats, Ints, MagnitudeSlices, RedshiftGrid, bin_of, cell_counts
from photoz_lit.metrics import draws
from photoz_lit.metrics.point import residual, total_variation, unit

WIDE_BINS = 40


@dataclass(frozen=True, eq=False)
class BinnedResiduals:
    """Mean dz in the populated wide bins: centres, means, standard errors and numbers of galaxies, (m,)."""

    centre: Floats
    mean: Floats
    error: Floats
    count: Ints


@dataclass(frozen=True)
class LineFit:
    """A straight line through mean residuals, and standard errors."""

    slope: float
    intercept: float
    slope_error: float
    intercept_error: float


def wide(grid: RedshiftGrid) -> RedshiftGrid:
    """Return the wide bins over the survey's range."""
    return RedshiftGrid(grid.z_min, grid.z_max, WIDE_BINS)


def residuals_by_spec_z(
    spec_z: ArrayLike, photo_z: ArrayLike, variance: ArrayLike, grid: RedshiftGrid, relative: bool = True
) -> BinnedResiduals:
    """Mean dz in all populated bins of spec_z, weighted with the inverse variance (n,): the individual bias.

    Redshifts beyond the range are in the first or last bin. The error is that of the weighted mean,
    1 / sqrt(sum of weights).
    """
    z, bins = np.asarray(spec_z, dtype=np.float64), wide(grid)
    weight = unit(z, relative) ** 2 / np.asarray(variance, dtype=np.float64)
    k, dz = bins.index(z), residual(z, photo_z, relative)
    return _filled(bins.centres, *means_by_spec_z(k[None], dz[None], weight[None]))


def means_by_spec_z(k: Ints, dz: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Weighted mean, its error and the count in each wide bin, (b, WIDE_BINS), of samples (b, n)."""
    total = draws.counts(k, WIDE_BINS, weight)
    mean = draws.over(draws.counts(k, WIDE_BINS, weight * dz), total)
    return mean, draws.over(np.ones(1), total) ** 0.5, draws.counts(k, WIDE_BINS)


def _filled(centre: Floats, mean: Floats, error: Floats, count: Floats) -> BinnedResiduals:
    """Return the bins of one sample that have a mean."""
    has = np.isfinite(mean[0])
    return BinnedResiduals(centre[has], mean[0][has], error[0][has], count[0][has].astype(np.int64))


def residuals_by_photo_z(
    spec_z: ArrayLike, photo_z: ArrayLike, grid: RedshiftGrid, min_count: int = 2, relative: bool = True
) -> BinnedResiduals:
    """Plain mean dz in bins of photo_z, which go on beyond the survey's range: the bulk bias.

    Bins hold `min_count` galaxies or more, at least two, because the error is std / sqrt(count - 1); where
    all residuals of a bin are equal, it is that of the fine bin's width, w / sqrt(12 count).
    """
    k, centres = bins_of_photo_z(photo_z, grid)
    dz = residual(spec_z, photo_z, relative)
    return _filled(centres, *means_by_photo_z(k[None], dz[None], len(centres), min_count, grid.width))


def bins_of_photo_z(photo_z: ArrayLike, grid: RedshiftGrid) -> tuple[Ints, Floats]:
    """Wide bin of each photo_z, counted among those that are populated, (n,), and the centres of these."""
    width = wide(grid).width
    bins, k = np.unique(bin_of(photo_z, grid.z_min, width), return_inverse=True)
    return k, grid.z_min + (bins.astype(np.float64) + 0.5) * width


def means_by_photo_z(
    k: Ints, dz: Floats, n_bins: int, min_count: int, width: float
) -> tuple[Floats, Floats, Floats]:
    """Plain mean, its error and the count in each bin, (b, n_bins), of samples (b, n); NaN in bins of few."""
    count = draws.counts(k, n_bins)
    mean = draws.over(draws.counts(k, n_bins, dz), count)
    square = draws.counts(k, n_bins, (dz - mean[np.arange(len(k))[:, None], k]) ** 2)
    std, enough = np.sqrt(draws.over(square, count)), count >= max(min_count, 2)
    # Residuals that are equal but for rounding are as good as equal.
    narrow = draws.over(np.full(1, width**2), 12 * count) ** 0.5
    error = np.where(std > 1e-12, draws.over(std, np.sqrt(np.maximum(count - 1, 0))), narrow)
    return np.where(enough, mean, np.nan), error, count


def bulk_bias(spec_z: ArrayLike, photo_z: ArrayLike, grid: RedshiftGrid, relative: bool) -> dict[str, float]:
    """Mean over galaxies of abs(mean dz) of their photo_z bin, and the largest; of bins of more than 100."""
    binned = residuals_by_photo_z(spec_z, photo_z, grid, 101, relative)
    if not len(binned.mean):
        return {"bulk_mean": np.nan, "bulk_max": np.nan}
    size = np.abs(binned.mean)
    return {"bulk_mean": float(np.average(size, weights=binned.count)), "bulk_max": float(size.max())}


def fit_line(binned: BinnedResiduals, z_from: float = -np.inf) -> LineFit:
    """Fit a straight line by weighted least squares to the bins with a centre above `z_from`.

    Errors give relative weights only, the scatter around the line sets the scale. NaN with fewer than two
    bins; errors NaN with fewer than three.
    """
    use = binned.centre > z_from
    x, y, weight = binned.centre[use], binned.mean[use], 1 / binned.error[use]
    if len(x) < 2:
        return LineFit(np.nan, np.nan, np.nan, np.nan)
    if len(x) == 2:
        line, errors = np.polyfit(x, y, 1, w=weight), np.full(2, np.nan)
    else:
        line, covariance = np.polyfit(x, y, 1, w=weight, cov=True)
        errors = np.sqrt(np.diag(covariance))
    return LineFit(*line.tolist(), *errors.tolist())


def plain_slope(x: ArrayLike, y: ArrayLike) -> float:
    """Slope of the ordinary least-squares line of y against x, both (n,); NaN where all x are the same.

    With a that of photo_z - spec_z against spec_z, b against photo_z and r their correlation, exactly
    (1 + a)(1 - b) = r^2: what flattens one tilts the other.
    """
    return draws.of_one(draws.plain_slope, x, y)


def simulated_residuals(
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    variance_table: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    factor: float = 1.0,
    relative: bool = True,
) -> tuple[Floats, Floats, Floats]:
    """Residual that regression towards crowded redshifts causes (Lin et al. 2022, section 5).

    Returned are mean dz in the wide bins, (WIDE_BINS,), that of each slice, (S, WIDE_BINS), both NaN without
    galaxies, and the weights count / variance with which slices are averaged.

    A galaxy of a wide bin at z has its estimate at the centre of mass of a Gaussian around z, of `factor`
    times the slice's variance (S, K) (`dispersion.variances`), times the slice's number density.
    """
    bins, edges = wide(grid), grid.extended(0, 0).edges
    centre, count = bins.centres, cell_counts(spec_z, dered_petro_r, bins, slices)
    integral = np.cumsum(np.pad(np.asarray(variance_table, dtype=np.float64), ((0, 0), (1, 0))), axis=1)
    mean = [np.diff(np.interp(bins.edges, edges, row)) * grid.width / bins.width for row in integral]
    variance = np.maximum(mean, grid.width**2 / 12)
    offset = centre[None, :] - centre[:, None]
    kernel = np.exp(-0.5 * offset**2 / (factor * variance)[:, :, None]) * count[:, None, :]
    filled, weight = count > 0, count / variance
    by_slice = np.divide(
        (kernel * offset).sum(axis=2),
        kernel.sum(axis=2) * unit(centre, relative),
        out=np.full(count.shape, np.nan),
        where=filled,
    )
    total, pulled = weight.sum(axis=0), np.where(filled, weight * by_slice, 0.0).sum(axis=0)
    curve = np.divide(pulled, total, out=np.full(WIDE_BINS, np.nan), where=total > 0)
    return curve, by_slice, weight


def total_variation_floor(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    variance: ArrayLike,
    grid: RedshiftGrid,
    rng: np.random.Generator,
    n_draws: int = 100,
    relative: bool = True,
) -> Floats:
    """TV of each draw, (n_draws,), without mode collapse: photo_z with the measured residual and scatter.

    They are normal with their variance (n,) around spec_z + (1 + spec_z) times the weighted mean residual of
    their wide bin, the factor left out where residuals are not relative. NaN without galaxies.
    """
    z, sigma = np.asarray(spec_z, dtype=np.float64), np.sqrt(np.asarray(variance, dtype=np.float64))
    binned = residuals_by_spec_z(z, photo_z, variance, grid, relative)
    own = np.unique(wide(grid).index(z), return_inverse=True)[1]
    expected = z + unit(z, relative) * binned.mean[own]
    draws = [total_variation(z, expected + sigma * rng.standard_normal(len(z)), grid) for _ in range(n_draws)]
    return np.array(draws)
