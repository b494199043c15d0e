"""The spec_z distribution expected of galaxies of which photo_z and r alone are known.

Distributions in the cells (r slice, z bin) are of shape (S, K), histograms of photo_z on the extended grid
(S, n_outputs). No function here takes the target's spec_z.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array
from scipy.stats import chi2, chi2_contingency

from photoz_lit.correction.calibration.sample import Sample, normalised
from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid, cell_counts

Expected = Literal["auto", "training", "photo", "deconvolved"]

ERRORS_COUNT = 100  # galaxies that the errors at one redshift are measured on
NEIGHBOUR_SLICES = 0.7  # standard deviation, in slices, of the weights of neighbouring slices there
PHOTO_SHARE = 0.02  # of the target's photo_z in the start: a deconvolution never fills what starts empty
ITERATIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # to choose from
CHANCE = 0.05  # that a target with the sample's n(z) is told from it, where deconvolving does no harm
SHARES, SHARE_COUNT = 3, 5  # parts of a slice that are compared, and galaxies that each needs (Cochran 1954)


@dataclass(frozen=True)
class Shift:
    """How far a target's n(photo_z) is from that of the sample, within slices of r."""

    chi_square: float
    degrees: int  # of freedom; 0: too few galaxies
    p_value: float  # chance of as much with one n(z)

    @property
    def expected(self) -> Expected:
        """The distribution to expect of the target: the sample's, unless its n(photo_z) differs."""
        return "deconvolved" if self.p_value < CHANCE else "training"

    def __str__(self) -> str:
        if not self.degrees:
            return "too few galaxies to compare n(photo_z) and to deconvolve it"
        differs = "differs from" if self.p_value < CHANCE else "cannot be told from"
        numbers = f"chi-square {self.chi_square:.1f}, {self.degrees} degrees of freedom, p {self.p_value:.1e}"
        return f"n(photo_z) by slice of r {differs} that of the galaxies measured on ({numbers})"


def n_of_z_shift(
    sample: Sample, photo_z: ArrayLike, dered_petro_r: ArrayLike, slices: MagnitudeSlices
) -> Shift:
    """Test whether a target's photo_z (n,) are distributed as those of the sample in each slice of r.

    It is a chi-square test of homogeneity on the sample's thirds of photo_z, summed over slices: of few
    parts, tilts stand out best from counting noise, which is that of both sides, of a weighted sample as of
    its effective number of galaxies. Where either has fewer than 15, a slice tells nothing; a sample of fewer
    than 100 can be compared, but not deconvolved, and none is.
    """
    z, total, degrees = np.asarray(photo_z, dtype=np.float64), 0.0, 0
    here, there = slices.index(dered_petro_r), slices.index(sample.dered_petro_r)
    for s in np.intersect1d(here, there) if len(sample) >= ERRORS_COUNT else ():
        known, w, ours = sample.photo_z[there == s], sample.weights[there == s], z[here == s]
        effective = w.sum() ** 2 / (w @ w)
        if min(effective, len(ours)) < SHARES * SHARE_COUNT:
            continue
        shares = np.arange(1, SHARES) / SHARES
        edges = np.quantile(known, shares, weights=w, method="inverted_cdf")
        theirs = np.bincount(np.searchsorted(edges, known), w, SHARES) * effective / w.sum()
        both = np.stack([theirs, np.bincount(np.searchsorted(edges, ours), minlength=SHARES)])
        found = chi2_contingency(both[:, both.any(axis=0)], correction=False)
        total, degrees = total + float(found.statistic), degrees + int(found.dof)
    return Shift(total, degrees, float(chi2.sf(total, degrees)) if degrees else 1.0)


def expected_counts(
    expected: Expected,
    sample: Sample,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    n_iterations: int = 0,
) -> Floats:
    """Numbers of the target's galaxies expected in each cell, shape (S, K), from its photo_z and r (n,).

    "training": the sample's distribution within each slice; "photo": the histogram of the target's photo_z;
    "deconvolved": that with the errors measured on the sample deconvolved. Each slice sums to its number of
    target galaxies, or to 0 where the sample has none in it. In the extension of the grid of spec_z estimates
    may lie. `choose_iterations` says how many iterations are best.
    """
    if expected == "photo":
        return cell_counts(photo_z, dered_petro_r, grid, slices).astype(np.float64)
    n = np.bincount(slices.index(dered_petro_r), minlength=slices.n_slices).astype(np.float64)
    training = sample.counts(grid, slices)
    if expected == "training":
        # A slice without galaxies to learn from expects none: its correction is its neighbour's.
        return n[:, None] * normalised(training)
    if expected != "deconvolved":
        raise ValueError(f"expected must be training, photo or deconvolved, got {expected!r}")
    photo = photo_z_counts(photo_z, dered_petro_r, grid, slices)
    errors = error_distribution(sample, grid, slices)
    return n[:, None] * deconvolve(photo, errors, start_of(training, photo, grid), [n_iterations])[0]


def photo_z_counts(
    photo_z: ArrayLike, dered_petro_r: ArrayLike, grid: RedshiftGrid, slices: MagnitudeSlices
) -> Floats:
    """Histogram of photo_z on the extended grid in each slice, shape (S, n_outputs)."""
    whole = RedshiftGrid(float(grid.edges[0]), float(grid.edges[-1]), grid.n_outputs)
    return cell_counts(photo_z, dered_petro_r, whole, slices).astype(np.float64)


def error_distribution(sample: Sample, grid: RedshiftGrid, slices: MagnitudeSlices) -> Floats:
    """Distribution of photo_z at given spec_z and slice, p(photo_z | spec_z, r), shape (S, K, n_outputs).

    The histogram of (photo_z - spec_z), in bins, of the galaxies around the spec_z bin, within a Gaussian
    window that doubles until it holds 100 of them, neighbouring slices with less weight. It keeps biases,
    tails and their change with spec_z, which a Gaussian of one width a slice does not. Each row sums to 1.
    """
    n_bins, n_outputs = grid.n_bins, grid.n_outputs
    k, j = grid.index(sample.spec_z), grid.output_index(sample.photo_z)
    r_slice = slices.index(sample.dered_petro_r)
    # Offsets of photo_z from spec_z, in bins, from the lowest that can be to the highest.
    offset, n_offsets = j - k + n_bins - 1, n_bins + n_outputs - 1
    distance = np.subtract.outer(np.arange(slices.n_slices), np.arange(slices.n_slices))
    near = np.exp(-0.5 * (distance / NEIGHBOUR_SLICES) ** 2)
    out = np.empty((slices.n_slices, n_bins, n_outputs))
    for s in range(slices.n_slices):
        weights = sample.weights * near[s, r_slice]
        # Galaxies are few beside pairs of bins: a sparse array sums them within windows of any width at once.
        hist = coo_array((weights, (k, offset)), shape=(n_bins, n_offsets)).tocsr()
        counts = np.bincount(k, weights=weights, minlength=n_bins).astype(np.float64)
        rows = _windows(counts) @ hist
        smooth = gaussian_filter1d(rows, 1.0, axis=1, mode="constant")
        for row, offsets, below in zip(out[s], smooth, range(n_bins - 1, -1, -1), strict=True):
            row[:] = np.add.reduceat(offsets, np.r_[0, below + 1 : below + n_outputs])
    out /= out.sum(axis=2, keepdims=True)
    return out


def _windows(counts: Floats) -> Floats:
    """Weights of all bins around each, in the narrowest window that holds enough galaxies, shape (K, K)."""
    n = len(counts)
    out, open_rows, width = np.ones((n, n)), np.arange(n), 1.0
    while len(open_rows) and width < n:
        distance = np.arange(n)
        # A window's weight is 1 in its middle, so that the sum counts galaxies.
        weight = np.where(distance <= 4 * width, np.exp(-0.5 * (distance / width) ** 2), 0.0)
        window = weight[np.abs(open_rows[:, None] - distance)]
        enough = window @ counts >= ERRORS_COUNT
        out[open_rows[enough]] = window[enough]
        open_rows, width = open_rows[~enough], 2 * width
    return out


def start_of(training: Floats, photo: Floats, grid: RedshiftGrid) -> Floats:
    """Where a deconvolution starts: the training distribution, nowhere empty, shape (S, K)."""
    left, right = grid.extend_left, grid.extend_left + grid.n_bins
    inside = np.add.reduceat(photo, np.r_[0, left + 1 : right], axis=1)
    smooth = [gaussian_filter1d(normalised(h), 1.5, axis=1, mode="nearest") for h in (training, inside)]
    return normalised(smooth[0] + PHOTO_SHARE * smooth[1] + 1e-6)


def deconvolve(photo: Floats, errors: Floats, start: Floats, n_iterations: Sequence[int]) -> list[Floats]:
    """Richardson-Lucy deconvolution of photo_z histograms (Richardson 1972, Lucy 1974), slice by slice.

    Histograms (S, n_outputs) are of one target or, (T, S, n_outputs), of several at once, which takes hardly
    longer; `errors` are those of `error_distribution`. Few iterations stay near the start, (S, K) or
    (T, S, K), which is what regularises. Returned are distributions of spec_z, shaped as the start, after
    each number of iterations: not negative, each row of sum 1; a slice without galaxies keeps the start.
    """
    # Slices first, then targets: a product of matrices for each slice reads the errors once for all targets.
    seen, f = (normalised(a.reshape(-1, *a.shape[-2:]).swapaxes(0, 1)) for a in (photo, start))
    empty = seen.sum(axis=2, keepdims=True) == 0
    out = []
    for i in range(max(n_iterations) + 1):
        if i in n_iterations:
            out.append(f.swapaxes(0, 1).reshape(start.shape))
        model = f @ errors
        ratio = np.divide(seen, model, out=np.zeros_like(seen), where=model > 0)
        f = np.where(empty, f, normalised(f * (ratio @ errors.swapaxes(1, 2))))
    return out


def choose_iterations(
    sample: Sample, n_target: int, grid: RedshiftGrid, slices: MagnitudeSlices, seed: int = 0
) -> int:
    """Choose the number of iterations that best recovers known distributions, on the sample alone.

    Targets of the wanted size are drawn from one half of the sample, with its distribution tilted to lower
    and higher redshifts and narrowed; the other half tells errors and start. The distance is the mean
    absolute difference of the cumulative distributions in each slice. Of fewer than two galaxies, the first.
    """
    if len(sample) < 2:
        return ITERATIONS[0]
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(sample))
    known, drawn = sample.take(order[: len(order) // 2]), sample.take(order[len(order) // 2 :])
    errors, training = error_distribution(known, grid, slices), known.counts(grid, slices)
    middle = np.average(drawn.spec_z, weights=drawn.weights)
    x = (drawn.spec_z - middle) / max(float(drawn.spec_z.std()), grid.width)
    truths, photos = [], []
    for log_factor in (np.zeros_like(x), -1.5 * x, -0.7 * x, 0.7 * x, 1.5 * x, -2 * x**2):
        p = drawn.weights * np.exp(np.minimum(log_factor, 3.0))
        rows = rng.choice(len(drawn), size=n_target, p=p / p.sum())
        one = drawn.take(rows, np.ones(n_target))
        truths.append(one.counts(grid, slices))
        photos.append(photo_z_counts(one.photo_z, one.dered_petro_r, grid, slices))
    truth, starts = np.stack(truths), np.stack([start_of(training, photo, grid) for photo in photos])
    found = deconvolve(np.stack(photos), errors, starts, ITERATIONS)
    difference = [np.abs(np.cumsum(f - normalised(truth), axis=2)).mean(axis=2) for f in found]
    distance = [float((d * truth.sum(axis=2)).sum()) for d in difference]
    return ITERATIONS[int(np.argmin(distance))]
