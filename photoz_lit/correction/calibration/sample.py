"""Galaxies that a calibration is measured on, and how they get the distribution expected of others.

Cells are those of (r slice, z bin), their numbers of shape (S, K); galaxies' values are of shape (n,),
dered_petro_r in mag.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.grids import Floats, Ints, MagnitudeSlices, RedshiftGrid, cell_index, nearest_true

# A cell is left to the galaxies that the classifier was not fitted on, if it has so many of them.
HELD_OUT_LEAST, HELD_OUT_FRACTION = 5, 0.2


@dataclass(frozen=True, eq=False)
class Sample:
    """Galaxies with spec_z and estimates: what a calibration is measured on; those of weight 0 are left out.

    ValueError if lengths differ, a value is not finite, a weight is negative or no galaxy has a weight.
    """

    spec_z: Floats
    photo_z: Floats
    dered_petro_r: Floats
    weights: Floats  # restore the training distribution, see `held_out_weights`

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


def normalised(hist: Floats) -> Floats:
    """Each row divided by its sum, an empty row left at zero, shape (..., K)."""
    total = hist.sum(axis=-1, keepdims=True)
    shares: Floats = np.divide(hist, total, out=np.zeros_like(hist), where=total > 0)
    return shares


def held_out_weights(
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    fitted: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
) -> Floats:
    """Weights that prefer galaxies that the classifier was not fitted on, at an unchanged distribution.

    On galaxies that it was fitted on, a classifier does better than on others. A balanced subset leaves most
    galaxies of the crowded cells out; these then stand for the whole cell: where 5 held-out galaxies make a
    fifth of it, fitted ones count 0 and the others (all / held out). The sparse cells, which it takes
    entirely, keep all of theirs, with weight 1.
    """
    cells = cell_index(spec_z, dered_petro_r, grid, slices)
    held_out, n = ~np.asarray(fitted, dtype=np.bool_), slices.n_slices * grid.n_bins
    every, apart = np.bincount(cells, minlength=n), np.bincount(cells[held_out], minlength=n)
    enough = (apart >= HELD_OUT_LEAST) & (apart >= HELD_OUT_FRACTION * every)
    weights: Floats = np.where(enough, every / np.maximum(apart, 1), 1.0)[cells]
    weights[~held_out & enough[cells]] = 0.0
    return weights


def to_populated(counts: ArrayLike, available: ArrayLike) -> Floats:
    """Move what is expected in cells without galaxies to the nearest populated z bin of the slice, (S, K).

    The lower bin takes it at equal distance. A slice without any galaxy loses its own.
    """
    wanted, there = np.asarray(counts, dtype=np.float64), np.asarray(available) > 0
    out = np.zeros_like(wanted)
    for s in np.flatnonzero(there.any(axis=1)):
        np.add.at(out[s], nearest_true(there[s]), wanted[s])
    return out


def wanted_numbers(counts: ArrayLike, size: int, available: ArrayLike) -> Ints:
    """Whole numbers of galaxies to draw for a resampled set of about `size`, shape (S, K).

    Each cell is rounded half up, which changes the size by a few per cent, then moved by `to_populated`.
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
    """Draw rows of so many galaxies of each cell: none twice where it has enough, else each at least once."""
    wanted = np.asarray(numbers, dtype=np.int64).ravel()
    cells = cell_index(spec_z, dered_petro_r, grid, slices)
    order = rng.permutation(len(cells))
    order = order[np.argsort(cells[order], kind="stable")]
    ends = np.cumsum(np.bincount(cells, minlength=len(wanted)))
    members_of, drawn = np.split(order, ends[:-1]), [np.zeros(0, dtype=np.int64)]
    for cell in np.flatnonzero(wanted):
        members = members_of[cell]
        if len(members) == 0:
            raise ValueError(f"{wanted[cell]} galaxies are wanted of an empty cell: see to_populated")
        again = rng.choice(members, size=max(wanted[cell] - len(members), 0))
        drawn += [members[: wanted[cell]], again]
    return np.concatenate(drawn)


def redrawn_weights(
    sample: Sample, counts: ArrayLike, grid: RedshiftGrid, slices: MagnitudeSlices, rng: np.random.Generator
) -> Floats:
    """How often each galaxy of the sample is drawn for an expected distribution: the paper's way."""
    there = sample.counts(grid, slices)
    # Moved before they are rounded: of a small sample all might be rounded away.
    numbers = wanted_numbers(to_populated(counts, there), len(sample), there)
    rows = resample(sample.spec_z, sample.dered_petro_r, numbers, grid, slices, rng)
    return np.bincount(rows, minlength=len(sample)).astype(np.float64)


def target_weights(sample: Sample, counts: ArrayLike, grid: RedshiftGrid, slices: MagnitudeSlices) -> Floats:
    """Weights that give the sample an expected distribution: `redrawn_weights` without their noise."""
    there = sample.counts(grid, slices)
    ratio = np.divide(to_populated(counts, there), there, out=np.zeros_like(there), where=there > 0)
    weights: Floats = sample.weights * ratio[slices.index(sample.dered_petro_r), grid.index(sample.spec_z)]
    return weights
