"""Step 4: calibration against the bulk bias, mean dz in bins of photo_z (Lin et al. 2022, section 4).

The mean of (photo_z - spec_z) at a given photo_z and r, measured on galaxies with spec_z, is subtracted from
the target's photo_z. That mean depends on the distribution of spec_z, so the galaxies are first weighted (or
resampled) to the distribution expected of the target. Of the target only photo_z and r are used: no function
here takes its spec_z.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import coo_array

from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, bin_of, cell_counts, cell_index, nearest_true

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Expected = Literal["training", "photo", "deconvolved"]
Smoothing = Literal["auto", "none"]

BIN_WIDTH = 0.01
"""Width of the photo_z bins of the correction (the paper's)."""

NODES_PER_BIN = 4
"""Nodes of a smooth correction within the width of a bin."""

HELD_OUT_LEAST, HELD_OUT_FRACTION = 5, 0.2
"""A cell is left to the galaxies that the classifier was not fitted on, if it has so many of them."""

ERRORS_COUNT = 100
"""Galaxies that the errors at one redshift are measured on: the window grows until it holds them."""

NEIGHBOUR_SLICES = 0.7
"""Standard deviation, in slices, of the weights of neighbouring slices in the error distribution."""

PHOTO_SHARE = 0.02
"""Share of the target's photo_z in the start of the deconvolution, which can never fill what starts empty."""

ITERATIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
"""Numbers of Richardson-Lucy iterations to choose from."""

WIDTHS, SLICE_WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0), (0.0, 0.5, 1.0)
"""Smoothing widths to choose from: along photo_z in bins, across magnitude in slices."""

FOLDS = 5
"""Folds of the cross-validation of the smoothing."""

SLOPE_RIDGE = 0.02
"""Keeps a local straight line through few galaxies from being steep; nothing where they fill the window."""


@dataclass(frozen=True, eq=False)
class Sample:
    """Galaxies with spec_z and estimates: what the calibration is measured on.

    Parameters
    ----------
    spec_z, photo_z, dered_petro_r, weights : ndarray, shape (n,)
        Redshifts, estimates, r in mag and the weights that restore the training distribution (see
        `held_out_weights`). Galaxies of weight 0 are left out at once.

    Raises
    ------
    ValueError
        If lengths differ, a value is not finite, a weight is negative or no galaxy has a weight.
    """

    spec_z: Floats
    photo_z: Floats
    dered_petro_r: Floats
    weights: Floats

    def __post_init__(self) -> None:
        names = ("spec_z", "photo_z", "dered_petro_r", "weights")
        arrays = [np.asarray(getattr(self, name), dtype=np.float64) for name in names]
        if len({a.shape for a in arrays}) > 1 or arrays[0].ndim != 1:
            raise ValueError(f"{', '.join(names)} must be of one length, got {[a.shape for a in arrays]}")
        keep = arrays[-1] != 0
        if not keep.any() or (arrays[-1] < 0).any() or not all(np.isfinite(a[keep]).all() for a in arrays):
            raise ValueError("a calibration needs galaxies with positive weights and finite values")
        for name, values in zip(names, arrays, strict=True):
            object.__setattr__(self, name, values[keep])

    def __len__(self) -> int:
        return len(self.spec_z)

    def take(self, rows: Ints, weights: Floats | None = None) -> "Sample":
        """Return some of the galaxies, with their own weights or others."""
        w = self.weights[rows] if weights is None else weights
        return Sample(self.spec_z[rows], self.photo_z[rows], self.dered_petro_r[rows], w)

    def counts(self, grid: RedshiftGrid, slices: MagnitudeSlices) -> Floats:
        """Weighted number of galaxies of each (r slice, spec_z bin), shape (S, K)."""
        cells = cell_index(self.spec_z, self.dered_petro_r, grid, slices)
        total = np.bincount(cells, weights=self.weights, minlength=slices.n_slices * grid.n_bins)
        return total.reshape(slices.n_slices, grid.n_bins).astype(np.float64)


def held_out_weights(
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    fitted: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
) -> Floats:
    """Weights that prefer galaxies that the classifier was not fitted on, at an unchanged distribution.

    On galaxies that it was fitted on, a classifier does better than on others. A balanced subset leaves most
    galaxies of the crowded cells out; these then stand for the whole cell. The sparse cells, which it takes
    entirely, keep all of theirs.

    Parameters
    ----------
    spec_z, dered_petro_r : array_like, shape (n,)
        Training and validation galaxies.
    fitted : array_like of bool, shape (n,)
        Whether the classifier was fitted on each.
    grid, slices : RedshiftGrid, MagnitudeSlices
        Define the cells.

    Returns
    -------
    ndarray, shape (n,)
        In each cell with 5 held-out galaxies that make a fifth of it, 0 for the fitted ones and (all / held
        out) for the others; 1 in the other cells.
    """
    cells = cell_index(spec_z, dered_petro_r, grid, slices)
    held_out, n = ~np.asarray(fitted, dtype=np.bool_), slices.n_slices * grid.n_bins
    every, apart = np.bincount(cells, minlength=n), np.bincount(cells[held_out], minlength=n)
    enough = (apart >= HELD_OUT_LEAST) & (apart >= HELD_OUT_FRACTION * every)
    weights: Floats = np.where(enough, every / np.maximum(apart, 1), 1.0)[cells]
    weights[~held_out & enough[cells]] = 0.0
    return weights


# The spec_z distribution expected of the target


def expected_counts(
    expected: Expected,
    sample: Sample,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    n_iterations: int | None = None,
) -> Floats:
    """Numbers of the target's galaxies expected in each (r slice, spec_z bin).

    Parameters
    ----------
    expected : {"training", "photo", "deconvolved"}
        The sample's distribution within each slice; the histogram of the target's photo_z; or that with the
        errors measured on the sample deconvolved.
    sample : Sample
        Galaxies with spec_z.
    photo_z, dered_petro_r : array_like, shape (n,)
        Of the target.
    grid : RedshiftGrid
        Bins of spec_z; its extension is where estimates may lie beyond them.
    slices : MagnitudeSlices
        Slices of r.
    n_iterations : int, optional
        Of the deconvolution; by default chosen on the sample alone (`choose_iterations`).

    Returns
    -------
    ndarray, shape (S, K)
        Each slice sums to its number of target galaxies, or to 0 where the sample has none in it.

    Raises
    ------
    ValueError
        If `expected` is none of the three.
    """
    if expected == "photo":
        return cell_counts(photo_z, dered_petro_r, grid, slices).astype(np.float64)
    n = np.bincount(slices.index(dered_petro_r), minlength=slices.n_slices).astype(np.float64)
    training = sample.counts(grid, slices)
    if expected == "training":
        # A slice without galaxies to learn from expects none: its correction is its neighbour's.
        return n[:, None] * _normalised(training)
    if expected != "deconvolved":
        raise ValueError(f"expected must be training, photo or deconvolved, got {expected!r}")
    if n_iterations is None:
        n_iterations = choose_iterations(sample, np.size(photo_z), grid, slices)
    photo = photo_z_counts(photo_z, dered_petro_r, grid, slices)
    errors = error_distribution(sample, grid, slices)
    return n[:, None] * deconvolve(photo, errors, start_of(training, photo, grid), [n_iterations])[0]


def photo_z_counts(
    photo_z: ArrayLike, dered_petro_r: ArrayLike, grid: RedshiftGrid, slices: MagnitudeSlices
) -> Floats:
    """Histogram of photo_z on the extended grid in each slice, shape (S, n_outputs)."""
    return cell_counts(photo_z, dered_petro_r, _whole(grid), slices).astype(np.float64)


def error_distribution(sample: Sample, grid: RedshiftGrid, slices: MagnitudeSlices) -> Floats:
    """Distribution of photo_z at given spec_z and slice, p(photo_z | spec_z, r).

    The histogram of (photo_z - spec_z), in bins, of the galaxies around the spec_z bin, within a Gaussian
    window that doubles until it holds 100 of them, neighbouring slices with less weight. It keeps biases,
    tails and their change with spec_z, which a Gaussian of one width a slice does not.

    Parameters
    ----------
    sample : Sample
        Galaxies with spec_z.
    grid : RedshiftGrid
        Bins of spec_z (K) and, extension included, of photo_z (n_outputs).
    slices : MagnitudeSlices
        Slices of r.

    Returns
    -------
    ndarray, shape (S, K, n_outputs)
        Each row sums to 1.
    """
    n_bins, n_outputs = grid.n_bins, grid.n_outputs
    k, j = grid.index(sample.spec_z), _whole(grid).index(sample.photo_z)
    r_slice = slices.index(sample.dered_petro_r)
    # Offsets of photo_z from spec_z, in bins, from the lowest that can be to the highest.
    offset, n_offsets = j - k + n_bins - 1, n_bins + n_outputs - 1
    distance = np.subtract.outer(np.arange(slices.n_slices), np.arange(slices.n_slices))
    near = np.exp(-0.5 * (distance / NEIGHBOUR_SLICES) ** 2)
    out = np.empty((slices.n_slices, n_bins, n_outputs))
    for s in range(slices.n_slices):
        weights = sample.weights * near[s, r_slice]
        # Galaxies are few beside pairs of bins: as a sparse array they are summed within windows of any width
        # at once.
        hist = coo_array((weights, (k, offset)), shape=(n_bins, n_offsets)).tocsr()
        counts = np.bincount(k, weights=weights, minlength=n_bins).astype(np.float64)
        rows = _windows(counts) @ hist
        smooth = gaussian_filter1d(rows, 1.0, axis=1, mode="constant")
        for row, offsets, below in zip(out[s], smooth, range(n_bins - 1, -1, -1), strict=True):
            row[:] = offsets[below : below + n_outputs]
            row[0] += offsets[:below].sum()
            row[-1] += offsets[below + n_outputs :].sum()
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
    inside = photo[:, left:right].copy()
    inside[:, 0] += photo[:, :left].sum(axis=1)
    inside[:, -1] += photo[:, right:].sum(axis=1)
    smooth = [gaussian_filter1d(_normalised(h), 1.5, axis=1, mode="nearest") for h in (training, inside)]
    return _normalised(smooth[0] + PHOTO_SHARE * smooth[1] + 1e-6)


def deconvolve(
    photo: Floats, errors: Floats, start: Floats, n_iterations: list[int] | tuple[int, ...]
) -> list[Floats]:
    """Richardson-Lucy deconvolution of photo_z histograms (Richardson 1972, Lucy 1974), slice by slice.

    Parameters
    ----------
    photo : ndarray, shape (S, n_outputs) or (T, S, n_outputs)
        Histograms of photo_z, of one target or of several at once, which takes hardly longer.
    errors : ndarray, shape (S, K, n_outputs)
        `error_distribution`.
    start : ndarray, shape (S, K) or (T, S, K)
        Distribution to start from; few iterations stay near it, which is what regularises.
    n_iterations : ascending ints
        After how many iterations results are wanted.

    Returns
    -------
    list of ndarray, shape (S, K) or (T, S, K)
        Distributions of spec_z, not negative, each row of sum 1; a slice without galaxies keeps the start.
    """
    # Slices first, then targets: a product of matrices for each slice reads the errors once for all targets.
    seen, f = (_normalised(a.reshape(-1, *a.shape[-2:]).swapaxes(0, 1)) for a in (photo, start))
    empty = seen.sum(axis=2, keepdims=True) == 0
    out = []
    for i in range(max(n_iterations) + 1):
        if i in n_iterations:
            out.append(f.swapaxes(0, 1).reshape(start.shape))
        model = f @ errors
        ratio = np.divide(seen, model, out=np.zeros_like(seen), where=model > 0)
        f = np.where(empty, f, _normalised(f * (ratio @ errors.swapaxes(1, 2))))
    return out


def choose_iterations(
    sample: Sample, n_target: int, grid: RedshiftGrid, slices: MagnitudeSlices, seed: int = 0
) -> int:
    """Choose the number of iterations that best recovers known distributions, on the sample alone.

    Targets of the wanted size are drawn from one half of the sample, with its distribution tilted to lower
    and higher redshifts and narrowed; the other half tells errors and start. The distance is the mean
    absolute difference of the cumulative distributions in each slice.

    Parameters
    ----------
    sample : Sample
        Galaxies with spec_z.
    n_target : int
        Size of the target: small ones bear fewer iterations.
    grid, slices : RedshiftGrid, MagnitudeSlices
        Bins (extension included) and slices.
    seed : int
        Of the draws.

    Returns
    -------
    int
        One of `ITERATIONS`; the first of them for fewer than two galaxies.
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
    difference = [np.abs(np.cumsum(f - _normalised(truth), axis=2)).mean(axis=2) for f in found]
    distance = [float((d * truth.sum(axis=2)).sum()) for d in difference]
    return ITERATIONS[int(np.argmin(distance))]


def _whole(grid: RedshiftGrid) -> RedshiftGrid:
    """Return the extended grid as one range, so that its bins count from its lower end."""
    return RedshiftGrid(float(grid.edges[0]), float(grid.edges[-1]), grid.n_outputs)


def _normalised(hist: Floats) -> Floats:
    """Each row divided by its sum, an empty row left at zero, shape (..., K)."""
    total = hist.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(hist, total, out=np.zeros_like(hist), where=total > 0)
    return shares


# From the sample to that distribution


def to_populated(counts: ArrayLike, available: ArrayLike) -> Floats:
    """Move what is expected in cells without galaxies to the nearest populated z bin of the slice.

    Parameters
    ----------
    counts : array_like, shape (S, K)
        Wanted numbers.
    available : array_like, shape (S, K)
        Numbers of galaxies there are.

    Returns
    -------
    ndarray, shape (S, K)
        The lower bin takes them at equal distance. A slice without any galaxy loses its own.
    """
    wanted, there = np.asarray(counts, dtype=np.float64), np.asarray(available) > 0
    out = np.zeros_like(wanted)
    for row, n, populated in zip(out, wanted, there, strict=True):
        if populated.any():
            np.add.at(row, nearest_true(populated), n)
    return out


def wanted_numbers(counts: ArrayLike, size: int, available: ArrayLike) -> Ints:
    """Whole numbers of galaxies to draw for a resampled set of about `size`.

    Parameters
    ----------
    counts : array_like, shape (S, K)
        Expected distribution, of any sum.
    size : int
        Wanted total; rounding each cell half up changes it by a few per cent.
    available : array_like, shape (S, K)
        Numbers of galaxies there are, see `to_populated`.

    Returns
    -------
    ndarray of int, shape (S, K)
        Rounded, then moved.
    """
    n = np.asarray(counts, dtype=np.float64)
    # Multiplied before it is divided, and with a grain of tolerance: whole counts give exact halves.
    return to_populated(np.floor(n * size / n.sum() + 0.5 + 1e-9), available).astype(np.int64)


def resample(
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    numbers: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    rng: np.random.Generator,
) -> Ints:
    """Draw so many galaxies of each (r slice, z bin).

    Parameters
    ----------
    spec_z, dered_petro_r : array_like, shape (n,)
        Galaxies to draw from.
    numbers : array_like of int, shape (S, K)
        Wanted of each cell (`wanted_numbers`).
    grid, slices : RedshiftGrid, MagnitudeSlices
        Define the cells.
    rng : Generator
        Random numbers.

    Returns
    -------
    ndarray of int, shape (sum of numbers,)
        Rows of the galaxies: all different where the cell has enough, else everyone once and then some again.

    Raises
    ------
    ValueError
        If galaxies are wanted of an empty cell.
    """
    wanted = np.asarray(numbers, dtype=np.int64).ravel()
    cells = cell_index(spec_z, dered_petro_r, grid, slices)
    order = rng.permutation(len(cells))
    order = order[np.argsort(cells[order], kind="stable")]
    ends = np.cumsum(np.bincount(cells, minlength=len(wanted)))
    drawn = []
    for cell in np.flatnonzero(wanted):
        members = order[ends[cell - 1] if cell else 0 : ends[cell]]
        if len(members) == 0:
            raise ValueError(f"{wanted[cell]} galaxies are wanted of an empty cell: see to_populated")
        again = rng.choice(members, size=max(wanted[cell] - len(members), 0))
        drawn += [members[: wanted[cell]], again]
    return np.concatenate(drawn) if drawn else np.zeros(0, dtype=np.int64)


def target_weights(sample: Sample, counts: ArrayLike, grid: RedshiftGrid, slices: MagnitudeSlices) -> Floats:
    """Weights that give the sample an expected distribution: `resample` without its noise.

    Parameters
    ----------
    sample : Sample
        Galaxies with spec_z.
    counts : array_like, shape (S, K)
        Expected numbers in the cells; those of empty cells move as in `to_populated`.
    grid, slices : RedshiftGrid, MagnitudeSlices
        Define the cells.

    Returns
    -------
    ndarray, shape (n,)
        Expected over existing number in each galaxy's cell, times its own weight.
    """
    there = sample.counts(grid, slices)
    ratio = np.divide(to_populated(counts, there), there, out=np.zeros_like(there), where=there > 0)
    weights: Floats = sample.weights * ratio[slices.index(sample.dered_petro_r), grid.index(sample.spec_z)]
    return weights


# The correction


@dataclass(frozen=True, eq=False)
class Calibration:
    """What is subtracted from photo_z, by photo_z and r.

    Parameters
    ----------
    start, width : float
        Lower edge of the first bin of photo_z and width of the bins.
    table : ndarray, shape (S, B)
        Mean (photo_z - spec_z) of each slice and bin.
    slices : MagnitudeSlices
        Slices of r.
    smooth : bool
        Whether the correction runs on straight lines between the centres of the bins; else it is constant in
        each half-open bin.
    """

    start: float
    width: float
    table: Floats
    slices: MagnitudeSlices
    smooth: bool

    def correct(self, photo_z: ArrayLike, dered_petro_r: ArrayLike) -> Floats:
        """Return calibrated photo_z.

        Parameters
        ----------
        photo_z, dered_petro_r : array_like, shape (n,)
            Estimates and r (mag) of any galaxies; beyond the bins and slices the nearest counts, so that
            every galaxy is corrected.

        Returns
        -------
        ndarray, shape (n,)
            photo_z minus the mean residual.

        Raises
        ------
        ValueError
            If the lengths differ or a value is not finite.
        """
        z, r = np.asarray(photo_z, dtype=np.float64), np.asarray(dered_petro_r, dtype=np.float64)
        if z.shape != r.shape or z.ndim != 1 or not (np.isfinite(z).all() and np.isfinite(r).all()):
            raise ValueError("photo_z and dered_petro_r must be of one length, and finite")
        s, last = self.slices.index(r), self.table.shape[1] - 1
        if not self.smooth:
            return z - self.table[s, bin_of(z, self.start, self.width, 0, last)]
        x = np.clip((z - self.start) / self.width - 0.5, 0, last)
        k = np.minimum(x.astype(np.int64), max(last - 1, 0))
        low, high = self.table[s, k], self.table[s, np.minimum(k + 1, last)]
        corrected: Floats = z - (low + (x - k) * (high - low))
        return corrected


@dataclass(frozen=True)
class Facts:
    """How a calibration came about.

    Parameters
    ----------
    n_galaxies : int
        Galaxies it rests on.
    n_effective : float
        Galaxies of equal weights that would tell as much.
    iterations : int
        Of the deconvolution; 0 without one.
    width, slice_width : float
        Smoothing along photo_z, in bins, and across slices; 0 without any.
    """

    n_galaxies: int
    n_effective: float
    iterations: int
    width: float
    slice_width: float


def calibrate(
    sample: Sample,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    expected: Expected = "training",
    smoothing: Smoothing = "auto",
    resampled: bool = False,
    relative: bool = True,
    bin_width: float = BIN_WIDTH,
    seed: int = 0,
) -> tuple[Calibration, Facts]:
    """Measure the correction of a target's photo_z.

    Parameters
    ----------
    sample : Sample
        Galaxies with spec_z.
    photo_z, dered_petro_r : array_like, shape (n,)
        Of the target; used for the expected distribution only.
    grid, slices : RedshiftGrid, MagnitudeSlices
        Bins (extension included) and slices.
    expected : {"training", "photo", "deconvolved"}
        Distribution of spec_z expected of the target.
    smoothing : {"auto", "none"}
        "none" takes the plain mean of each (photo_z bin, slice), as the paper; "auto" smooths by as much as
        cross-validation asks for.
    resampled : bool
        Draw galaxies anew, as the paper, instead of weighting them.
    relative : bool
        Whether the mean of (photo_z - spec_z) / (1 + spec_z) is to vanish, or that of the difference alone,
        as of quantities other than redshift.
    bin_width : float
        Of the bins of photo_z.
    seed : int
        Of all random draws.

    Returns
    -------
    Calibration, Facts
        To be applied with `Calibration.correct`, and how it came about.
    """
    iterations = 0
    if expected == "deconvolved":
        iterations = choose_iterations(sample, np.size(photo_z), grid, slices, seed)
    counts = expected_counts(expected, sample, photo_z, dered_petro_r, grid, slices, iterations)
    # Only the distribution within a slice matters: how well a slice is known does not depend on the target.
    there = sample.counts(grid, slices)
    within = np.where(counts.sum(axis=1, keepdims=True) > 0, _normalised(counts), _normalised(there))
    counts = within * there.sum(axis=1, keepdims=True)
    if resampled:
        # Moved before they are rounded: of a small sample all might be rounded away.
        numbers = wanted_numbers(to_populated(counts, there), len(sample), there)
        rng = np.random.default_rng(seed)
        rows = resample(sample.spec_z, sample.dered_petro_r, numbers, grid, slices, rng)
        weights = np.bincount(rows, minlength=len(sample)).astype(np.float64)
    else:
        weights = target_weights(sample, counts, grid, slices)
    # The mean of (photo_z - spec_z) / (1 + spec_z) is to vanish, that of (photo_z - spec_z) is not quite it.
    weights = weights / (1 + sample.spec_z) if relative else weights
    final = sample.take(np.arange(len(sample)), weights)
    effective = float(final.weights.sum() ** 2 / (final.weights**2).sum())
    if smoothing == "none":
        return fit_binned(final, slices, bin_width), Facts(len(final), effective, iterations, 0.0, 0.0)
    width, slice_width = choose_smoothing(final, slices, seed, bin_width)
    found = fit_smooth(final, slices, width, slice_width, bin_width)
    return found, Facts(len(final), effective, iterations, width, slice_width)


def fit_binned(sample: Sample, slices: MagnitudeSlices, width: float = BIN_WIDTH) -> Calibration:
    """Weighted mean of (photo_z - spec_z) in each half-open photo_z bin and slice.

    Parameters
    ----------
    sample : Sample
        Galaxies with spec_z.
    slices : MagnitudeSlices
        Slices of r.
    width : float
        Of the bins, whose edges are its multiples.

    Returns
    -------
    Calibration
        Empty bins have the value of the nearest populated bin of the slice (the lower one at equal distance);
        slices without galaxies have that of the nearest slice.
    """
    k = bin_of(sample.photo_z, 0.0, width)
    first = int(k.min())
    shape = slices.n_slices, int(k.max()) - first + 1
    cells = slices.index(sample.dered_petro_r) * shape[1] + k - first
    count, total = (
        np.bincount(cells, weights=w, minlength=shape[0] * shape[1]).reshape(shape)
        for w in (sample.weights, sample.weights * (sample.photo_z - sample.spec_z))
    )
    mean = np.divide(total, count, out=np.zeros(shape), where=count > 0)
    return Calibration(first * width, width, _filled(mean, count > 0), slices, smooth=False)


def fit_smooth(
    sample: Sample,
    slices: MagnitudeSlices,
    width: float,
    slice_width: float,
    bin_width: float = BIN_WIDTH,
) -> Calibration:
    """Local straight-line fits of (photo_z - spec_z) against photo_z, neighbouring slices with less weight.

    Parameters
    ----------
    sample : Sample
        Galaxies with spec_z.
    slices : MagnitudeSlices
        Slices of r.
    width, slice_width : float
        Standard deviations of the Gaussian weights along photo_z, in bins, and across r, in slices (0: each
        slice by itself).
    bin_width : float
        Of the bins.

    Returns
    -------
    Calibration
        Nodes with less than one galaxy in the window have the value of the nearest node of the slice with
        more; slices without any, that of the nearest slice.
    """
    step, sigma = bin_width / NODES_PER_BIN, width * NODES_PER_BIN
    k = bin_of(sample.photo_z, 0.0, step)
    first = int(k.min())
    n = int(k.max()) - first + 1
    node = (first + np.arange(n) + 0.5) * step
    cells = slices.index(sample.dered_petro_r) * n + k - first
    x, y = sample.photo_z, sample.photo_z - sample.spec_z
    w = sample.weights / sample.weights.mean()
    distance = np.subtract.outer(np.arange(slices.n_slices), np.arange(slices.n_slices))
    near = np.exp(-0.5 * (distance / slice_width) ** 2) if slice_width > 0 else np.eye(slices.n_slices)

    def windowed(values: Floats) -> Floats:
        """Sum of the values within each node's window, whose weight is 1 in its middle, shape (S, nodes)."""
        total = np.bincount(cells, weights=w * values, minlength=slices.n_slices * n).reshape(-1, n)
        window = gaussian_filter1d(near @ total, sigma, axis=1, mode="constant", truncate=6.0)
        return np.asarray(window * np.sqrt(2 * np.pi) * sigma)

    s0, sx, sxx, sy, sxy = (windowed(v) for v in (np.ones_like(x), x, x * x, y, x * y))
    # Moments about the node, where the line's value is wanted.
    s1, s2, t1 = sx - node * s0, sxx - 2 * node * sx + node**2 * s0, sxy - node * sy
    steady = s0 * s2 - s1**2 + SLOPE_RIDGE * (s0 * width * bin_width) ** 2
    enough = s0 >= 1
    slope = np.divide(s0 * t1 - s1 * sy, steady, out=np.zeros_like(s0), where=enough)
    value = np.divide(sy - slope * s1, s0, out=np.zeros_like(s0), where=enough)
    if not enough.any():  # a few galaxies with very unequal weights
        return fit_binned(sample, slices, bin_width)
    return Calibration(first * step, step, _filled(value, enough), slices, smooth=True)


def choose_smoothing(
    sample: Sample, slices: MagnitudeSlices, seed: int = 0, bin_width: float = BIN_WIDTH
) -> tuple[float, float]:
    """Choose the smoothing of `fit_smooth` by cross-validation on the sample.

    Parameters
    ----------
    sample : Sample
        Galaxies with spec_z.
    slices : MagnitudeSlices
        Slices of r.
    seed : int
        Of the folds.
    bin_width : float
        Of the bins.

    Returns
    -------
    width, slice_width : float
        Those of `WIDTHS` and `SLICE_WIDTHS` with the least mean square of corrected photo_z minus spec_z in
        five folds; the largest for fewer galaxies than folds.
    """
    if len(sample) < FOLDS:
        return WIDTHS[-1], SLICE_WIDTHS[-1]
    fold = np.random.default_rng(seed).permutation(len(sample)) % FOLDS
    choices = [(width, slice_width) for width in WIDTHS for slice_width in SLICE_WIDTHS]
    loss = np.zeros(len(choices))
    for f in range(FOLDS):
        fitted, left = sample.take(np.flatnonzero(fold != f)), sample.take(np.flatnonzero(fold == f))
        for i, choice in enumerate(choices):
            found = fit_smooth(fitted, slices, *choice, bin_width)
            corrected = found.correct(left.photo_z, left.dered_petro_r)
            loss[i] += left.weights @ (corrected - left.spec_z) ** 2
    return choices[int(loss.argmin())]


def _filled(table: Floats, known: NDArray[np.bool_]) -> Floats:
    """Fill a row's unknown entries from the nearest known one, rows without any from the nearest row."""
    out = table.copy()
    some = np.asarray(known.any(axis=1))
    for s in np.flatnonzero(some):
        out[s] = table[s, nearest_true(known[s])]
    return out[nearest_true(some)]
