"""Step 4: calibration against the bulk bias, mean dz in bins of photo_z (Lin et al. 2022, section 4).

The mean of (photo_z - spec_z) at a given photo_z and r, measured on galaxies with spec_z, is subtracted from
the target's photo_z. That mean depends on the distribution of spec_z, so the galaxies are first weighted (or
resampled) to the distribution expected of the target. Of the target only photo_z and r are used: no function
here takes its spec_z.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter1d, map_coordinates

from photoz_lit.correction.calibration.deconvolution import (
    Expected,
    Shift,
    choose_iterations,
    expected_counts,
    n_of_z_shift,
)
from photoz_lit.correction.calibration.sample import Sample, normalised, redrawn_weights, target_weights
from photoz_lit.grids import Bools, Floats, MagnitudeSlices, RedshiftGrid, bin_of, nearest_true

BIN_WIDTH = 0.01  # of the photo_z bins of the correction (the paper's)
NODES_PER_BIN = 4  # of a smooth correction
# Smoothing widths to choose from: along photo_z in bins, across magnitude in slices.
WIDTHS, SLICE_WIDTHS = (0.5, 1.0, 2.0, 4.0, 8.0), (0.0, 0.5, 1.0)
FOLDS = 5  # of the cross-validation of the smoothing
SLOPE_RIDGE = 0.02  # keeps a local line through few galaxies from being steep; nothing where they are many


@dataclass(frozen=True, eq=False)
class Calibration:
    """What is subtracted from photo_z, by photo_z and r."""

    start: float  # lower edge of the first bin of photo_z
    width: float  # of the bins
    table: Floats  # mean (photo_z - spec_z) of each slice and bin, (S, B)
    slices: MagnitudeSlices
    smooth: bool  # on straight lines between the centres of the bins; else constant in each half-open bin

    def correct(self, photo_z: ArrayLike, dered_petro_r: ArrayLike) -> Floats:
        """Return calibrated photo_z, each minus the mean residual of its photo_z and r (mag).

        Beyond the bins and slices the nearest counts, so that every galaxy is corrected. ValueError if the
        lengths differ or a value is not finite.
        """
        z, r = np.asarray(photo_z, dtype=np.float64), np.asarray(dered_petro_r, dtype=np.float64)
        if z.shape != r.shape or z.ndim != 1 or not (np.isfinite(z).all() and np.isfinite(r).all()):
            raise ValueError("photo_z and dered_petro_r must be of one length, and finite")
        s = self.slices.index(r)
        if not self.smooth:
            return z - self.table[s, bin_of(z, self.start, self.width, 0, self.table.shape[1] - 1)]
        x = (z - self.start) / self.width - 0.5
        return np.asarray(z - map_coordinates(self.table, [s, x], order=1, mode="nearest"))


@dataclass(frozen=True)
class Facts:
    """How a calibration came about."""

    shift: Shift  # of the target's n(photo_z) from the sample's
    expected: Expected  # what was expected of the target, chosen by the shift for "auto"
    n_galaxies: int  # that it rests on
    n_effective: float  # galaxies of equal weights that would tell as much
    iterations: int  # of the deconvolution; 0 without one
    width: float  # of the smoothing along photo_z, in bins; 0 without any
    slice_width: float  # across slices


def calibrate(
    sample: Sample,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    expected: Expected = "auto",
    paper: bool = False,
    relative: bool = True,
    bin_width: float = BIN_WIDTH,
    seed: int = 0,
) -> tuple[Calibration, Facts]:
    """Measure the correction of a target's photo_z on a sample of galaxies with spec_z.

    photo_z and r (n,) of the target serve the expected distribution only, see `expected_counts`; "auto" is
    "training", or "deconvolved" where n(photo_z) differs from the sample's (`n_of_z_shift`). With `paper`
    galaxies are drawn anew and the mean of each (photo_z bin, slice) is plain, as in the paper, instead of
    weighting them and smoothing by as much as cross-validation asks for. What is to vanish is the mean of
    (photo_z - spec_z) / (1 + spec_z), or of the difference alone where residuals are not `relative`.
    """
    iterations, shift = 0, n_of_z_shift(sample, photo_z, dered_petro_r, slices)
    expected = shift.expected if expected == "auto" else expected
    if expected == "deconvolved":
        iterations = choose_iterations(sample, np.size(photo_z), grid, slices, seed)
    counts = expected_counts(expected, sample, photo_z, dered_petro_r, grid, slices, iterations)
    # Only the distribution within a slice matters: how well a slice is known does not depend on the target.
    there = sample.counts(grid, slices)
    within = np.where(counts.sum(axis=1, keepdims=True) > 0, normalised(counts), normalised(there))
    counts = within * there.sum(axis=1, keepdims=True)
    if paper:
        weights = redrawn_weights(sample, counts, grid, slices, np.random.default_rng(seed))
    else:
        weights = target_weights(sample, counts, grid, slices)
    weights = weights / (1 + sample.spec_z) if relative else weights
    final = sample.take(np.arange(len(sample)), weights)
    effective = float(final.weights.sum() ** 2 / (final.weights**2).sum())
    facts = shift, expected, len(final), effective, iterations
    if paper:
        return fit_binned(final, slices, bin_width), Facts(*facts, 0.0, 0.0)
    widths = choose_smoothing(final, slices, seed, bin_width)
    return fit_smooth(final, slices, *widths, bin_width), Facts(*facts, *widths)


def fit_binned(sample: Sample, slices: MagnitudeSlices, width: float = BIN_WIDTH) -> Calibration:
    """Weighted mean of (photo_z - spec_z) in each half-open photo_z bin, at multiples of a width, and slice.

    Empty bins have the value of the nearest populated bin of the slice (the lower one at equal distance);
    slices without galaxies have that of the nearest slice.
    """
    first, total_of = _sums(sample, slices, width)
    count, total = (total_of(w) for w in (sample.weights, sample.weights * (sample.photo_z - sample.spec_z)))
    mean = np.divide(total, count, out=np.zeros_like(count), where=count > 0)
    return Calibration(first * width, width, _filled(mean, count > 0), slices, smooth=False)


def _sums(sample: Sample, slices: MagnitudeSlices, width: float) -> tuple[int, Callable[[Floats], Floats]]:
    """Return the first bin of photo_z, at multiples of a width, and what sums values by slice and bin."""
    k = bin_of(sample.photo_z, 0.0, width)
    first = int(k.min())
    shape = slices.n_slices, int(k.max()) - first + 1
    cells = slices.index(sample.dered_petro_r) * shape[1] + k - first
    size = shape[0] * shape[1]
    return first, lambda values: np.bincount(cells, values, size).astype(np.float64).reshape(shape)


def fit_smooth(
    sample: Sample, slices: MagnitudeSlices, width: float, slice_width: float, bin_width: float = BIN_WIDTH
) -> Calibration:
    """Local straight-line fits of (photo_z - spec_z) against photo_z, neighbouring slices with less weight.

    The widths are standard deviations of the Gaussian weights along photo_z, in bins of `bin_width`, and
    across r, in slices (0: each slice by itself). Nodes with less than one galaxy in the window have the
    value of the nearest node of the slice with more; slices without any, that of the nearest slice.
    """
    step, sigma = bin_width / NODES_PER_BIN, width * NODES_PER_BIN
    first, total_of = _sums(sample, slices, step)
    x, y = sample.photo_z, sample.photo_z - sample.spec_z
    w = sample.weights / sample.weights.mean()
    distance = np.subtract.outer(np.arange(slices.n_slices), np.arange(slices.n_slices))
    near = np.exp(-0.5 * (distance / slice_width) ** 2) if slice_width > 0 else np.eye(slices.n_slices)

    def windowed(values: Floats) -> Floats:
        """Sum of the values within each node's window, whose weight is 1 in its middle, shape (S, nodes)."""
        window = gaussian_filter1d(near @ total_of(w * values), sigma, axis=1, mode="constant", truncate=6.0)
        return np.asarray(window * np.sqrt(2 * np.pi) * sigma)

    s0, sx, sxx, sy, sxy = (windowed(v) for v in (np.ones_like(x), x, x * x, y, x * y))
    node = (first + np.arange(s0.shape[1]) + 0.5) * step
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
    """Choose the widths of `fit_smooth` by cross-validation on the sample; the largest for too few galaxies.

    They have the least mean square of corrected photo_z minus spec_z.
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


def _filled(table: Floats, known: Bools) -> Floats:
    """Fill a row's unknown entries from the nearest known one, rows without any from the nearest row."""
    out = table.copy()
    some = np.asarray(known.any(axis=1))
    for s in np.flatnonzero(some):
        out[s] = table[s, nearest_true(known[s])]
    return out[nearest_true(some)]
