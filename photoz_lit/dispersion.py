"""How far estimates scatter: sigma_1, sigma_2 and variances (Lin et al. 2022, sections 4.2 and 4.3).

Labels are widened and shifted by them, and mean residuals weighted. Widths are in bins of the grid, whose
extension is ignored. Arguments everywhere: spec_z and photo_z of shape (n,), dered_petro_r in mag, and
`membership` (S, R), which output covers which slice.
"""

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid, cell_counts, nearest_true

SMALLEST_DISPERSION = 0.05  # of the search for sigma_1, in bins: the kernel is a delta function long before
NARROW = 2e-4  # of log(sigma_1): a range in which the objective is a parabola
PROBABILITY_CLIP = 1e-5  # the convolved histogram is clipped to [1e-5, 1 - 1e-5] before the logarithm


def convolve(hist: Floats, sigma: float) -> Floats:
    """Convolve a histogram (K,) with a Gaussian of sigma bins, normalised on the grid for each source bin."""
    n = len(hist)
    kernel = np.exp(-0.5 * (np.arange(1 - n, n) / sigma) ** 2)
    norm = np.convolve(np.ones(n), kernel)[n - 1 : 2 * n - 1]
    return np.convolve(hist / norm, kernel)[n - 1 : 2 * n - 1]


def cross_entropy(spec_z_hist: Floats, photo_z_hist: Floats, sigma: float) -> float:
    """Cross-entropy of a spec_z histogram (K,) against the photo_z histogram convolved with a Gaussian."""
    fit = np.clip(convolve(photo_z_hist, sigma), PROBABILITY_CLIP, 1 - PROBABILITY_CLIP)
    return float(-np.sum(spec_z_hist * np.log(fit)))


def fit_dispersion(spec_z_hist: ArrayLike, photo_z_hist: ArrayLike) -> Floats:
    """Fit each output's dispersion sigma_1: the Gaussian that turns its photo_z into its spec_z histogram.

    The cross-entropy is minimised per output, first on a logarithmic grid, then between the neighbours of the
    best point. Histograms (R, K) are of any normalisation; not all outputs may be empty. sigma_1 (R,) is
    within [0.05, max(1, K / 4)]; an output without galaxies takes that of the nearest that has some.
    """
    spec, photo = np.asarray(spec_z_hist, dtype=np.float64), np.asarray(photo_z_hist, dtype=np.float64)
    if spec.ndim != 2 or spec.shape != photo.shape:
        raise ValueError(f"histograms must be of one shape (R, K), got {spec.shape} and {photo.shape}")
    filled = (spec.sum(1) > 0) & (photo.sum(1) > 0)
    if not filled.any():
        raise ValueError("no galaxies: a dispersion needs at least one in some output")
    pairs = zip(spec, photo, filled, strict=True)
    sigma = np.array([_fit_one(s / s.sum(), p / p.sum()) if ok else 0.0 for s, p, ok in pairs])
    return sigma[nearest_true(filled)]


def _fit_one(spec_z_hist: Floats, photo_z_hist: Floats) -> float:
    """Minimise the cross-entropy over sigma for one output."""
    upper = max(1.0, len(spec_z_hist) / 4)
    search = np.linspace(np.log(SMALLEST_DISPERSION), np.log(upper), 30)

    def objective(log_sigma: float) -> float:
        return cross_entropy(spec_z_hist, photo_z_hist, float(np.exp(log_sigma)))

    values = [objective(x) for x in search]
    best = int(np.argmin(values))
    low, high = search[max(best - 1, 0)], search[min(best + 1, len(search) - 1)]
    while high - low > NARROW:  # by thirds: to import scipy.optimize takes as long as a hundred such searches
        third = (high - low) / 3
        if objective(low + third) < objective(high - third):
            high -= third
        else:
            low += third
    # The lowest point of the parabola through the ends and the middle: what is nearer differs by rounding.
    middle, half = (low + high) / 2, (high - low) / 2
    left, lowest, right = objective(low), objective(middle), objective(high)
    if (bend := left - 2 * lowest + right) > 0:
        middle += float(np.clip(half / 2 * (left - right) / bend, -half, half))
    # The objective is flat for a delta-like kernel and may be lowest at an end of the range, which the search
    # never quite reaches.
    return float(np.exp(middle if objective(middle) < values[best] else search[best]))


def output_histogram(
    z: ArrayLike, dered_petro_r: ArrayLike, grid: RedshiftGrid, slices: MagnitudeSlices, membership: ArrayLike
) -> Floats:
    """Histogram of redshifts or estimates over the slices of each output, of sum 1 or empty, (R, K)."""
    member, counts = np.asarray(membership, dtype=np.bool_), cell_counts(z, dered_petro_r, grid, slices)
    if len(member) != len(counts):
        raise ValueError(f"membership has {len(member)} rows for {len(counts)} slices")
    hist = member.T @ counts
    return np.asarray(hist / np.maximum(hist.sum(axis=1, keepdims=True), 1))


def smoothed_scatter(spec_z: ArrayLike, photo_z: ArrayLike, sigma_1: float, grid: RedshiftGrid) -> Floats:
    """Smoothed mean square residual by z bin for one set of galaxies, in bins^2, shape (K,).

    (median + mean) / 2 of ((photo_z - spec_z) / w)^2 in each bin; an empty bin within the populated range
    takes the previous populated value; then a Gaussian of width sigma_1 smooths it, each source bin's weights
    normalised within the populated range, outside which it is zero. Squared residuals contain the bias as
    well as the variance.
    """
    z, estimate = np.asarray(spec_z, dtype=np.float64), np.asarray(photo_z, dtype=np.float64)
    out = np.zeros(grid.n_bins)
    if z.size == 0:
        return out
    square, k = ((estimate - z) / grid.width) ** 2, grid.index(z)
    order = np.argsort(k, kind="stable")
    populated, starts = np.unique(k[order], return_index=True)
    of_bins = np.split(square[order], starts[1:])
    typical = np.array([0.5 * (np.median(own) + own.mean()) for own in of_bins])
    inside = np.arange(populated[0], populated[-1] + 1)
    out[inside] = convolve(typical[np.searchsorted(populated, inside, side="right") - 1], sigma_1)
    return out


def scatter(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    slice_index: ArrayLike,
    sigma_1: ArrayLike,
    grid: RedshiftGrid,
    membership: ArrayLike,
) -> Floats:
    """Scatter sigma_2 of each output and z bin: smoothed scatter and sigma_1 (R,) in quadrature, (R, K)."""
    z, estimate, sigma = (np.asarray(a, dtype=np.float64) for a in (spec_z, photo_z, sigma_1))
    of_output = np.asarray(membership, dtype=np.bool_)[np.asarray(slice_index)].T
    square = [smoothed_scatter(z[m], estimate[m], s, grid) for m, s in zip(of_output, sigma, strict=True)]
    return np.sqrt(np.array(square) + sigma[:, None] ** 2)


def variances(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    sigma_1: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Variance of photo_z of each galaxy (n,), and by slice and z bin (S, K) (Lin et al. 2022, section 4.2).

    Per output, the smoothed scatter of its slices; per slice, the mean over the outputs that cover it. In
    z^2. That of galaxies is not less than w^2 / 12, what a bin's width alone causes, because a zero variance
    would get a boundless weight; that of cells is zero outside the populated range.

    `sigma_1` (R,) is the width of the smoothing of each output, by default the dispersion fitted to these
    galaxies' own histograms: without any smoothing a bin of one galaxy would take its own squared residual.
    """
    member, s = slices.membership, slices.index(dered_petro_r)
    z, estimate = (np.asarray(a, dtype=np.float64) for a in (spec_z, photo_z))
    if sigma_1 is None:
        spec, photo = (output_histogram(a, dered_petro_r, grid, slices, member) for a in (z, estimate))
        sigma_1 = fit_dispersion(spec, photo)
    pairs = zip(member[s].T, np.asarray(sigma_1), strict=True)
    square = np.array([smoothed_scatter(z[m], estimate[m], sigma, grid) for m, sigma in pairs])
    table: Floats = member / member.sum(axis=1, keepdims=True) @ square * grid.width**2
    return np.maximum(table[s, grid.index(z)], grid.width**2 / 12), table
