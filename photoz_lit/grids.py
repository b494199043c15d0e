"""The grids of the method (Lin et al. 2022, section 3): redshift bins, interlaced slices of r, their cells.

All bins are half-open, the lower edge included, and a value on an edge falls into the bin that its decimal
says, whatever the rounding of its last digit.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Texts = NDArray[np.str_]


def on_edges(values: ArrayLike, width: float) -> Floats:
    """Values moved up by their rounding, so that those on an edge of bins of a width are not below it.

    0.29 / 0.01 is below 29: what lies 1e-9 of a bin below an edge lies on it. Numbers of single precision are
    less exact, also after they were turned into double.
    """
    x = np.asarray(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        single = x.astype(np.float32) == x
    inexact = np.where(single, np.finfo(np.float32).eps * np.abs(x), 0.0)
    moved: Floats = x + np.clip(inexact, 1e-9 * width, 0.01 * width)
    return moved


def bin_of(values: ArrayLike, start: float, width: float, first: int = -(2**31), last: int = 2**31) -> Ints:
    """Half-open bin of each value, counted from `start` and clipped to `first` .. `last`."""
    k = np.floor((on_edges(values, width) - start) / width)
    return np.clip(k, first, last).astype(np.int64)


@dataclass(frozen=True)
class RedshiftGrid:
    """K = `n_bins` equal redshift bins on [z_min, z_max], with so many more below and above for labels."""

    z_min: float
    z_max: float
    n_bins: int
    extend_left: int = 0
    extend_right: int = 0

    @property
    def width(self) -> float:
        """Width w of a bin."""
        return (self.z_max - self.z_min) / self.n_bins

    @property
    def n_outputs(self) -> int:
        """Number of bins with the extension: left + K + right."""
        return self.extend_left + self.n_bins + self.extend_right

    @property
    def centres(self) -> Floats:
        """Bin centres of the whole grid, extension included, shape (n_outputs,)."""
        return (np.arange(self.n_outputs) - self.extend_left + 0.5) * np.float64(self.width) + self.z_min

    @property
    def edges(self) -> Floats:
        """Bin edges of the whole grid, extension included, shape (n_outputs + 1,)."""
        return (np.arange(self.n_outputs + 1) - self.extend_left) * np.float64(self.width) + self.z_min

    def index(self, z: ArrayLike) -> Ints:
        """Bin of each redshift in the survey's own K bins, clipped to them: 0 .. K-1."""
        return bin_of(z, self.z_min, self.width, 0, self.n_bins - 1)

    def output_index(self, z: ArrayLike) -> Ints:
        """Bin of each redshift on the whole grid, extension included, clipped to it: 0 .. n_outputs-1."""
        left = self.extend_left
        return left + bin_of(z, self.z_min, self.width, -left, self.n_outputs - 1 - left)

    def extended(self, left: int, right: int) -> "RedshiftGrid":
        """Return the same bins with an extension of `left` and `right` bins."""
        return replace(self, extend_left=left, extend_right=right)


@dataclass(frozen=True)
class MagnitudeSlices:
    """S = `n_slices` slices of r from `r_min` on, mag, that share R outputs ("interlacing"): S = 2 R - 1.

    Output i covers slices 2i-1, 2i, 2i+1.
    """

    r_min: float
    width: float
    n_slices: int

    def __post_init__(self) -> None:
        if self.n_slices < 1 or self.n_slices % 2 == 0:
            raise ValueError(f"n_slices must be odd and positive (2 R - 1), not {self.n_slices}")

    @property
    def n_outputs(self) -> int:
        """Number of redshift outputs R."""
        return (self.n_slices + 1) // 2

    @property
    def edges(self) -> Floats:
        """Slice edges in mag, shape (n_slices + 1,)."""
        return self.r_min + np.float64(self.width) * np.arange(self.n_slices + 1, dtype=np.float64)

    @property
    def membership(self) -> Bools:
        """Which output covers which slice, shape (n_slices, R)."""
        slices, outputs = np.arange(self.n_slices)[:, None], np.arange(self.n_outputs)[None, :]
        inside: Bools = np.abs(slices - 2 * outputs) <= 1
        return inside

    def index(self, dered_petro_r: ArrayLike) -> Ints:
        """Slice of each magnitude (half-open, bright edge included), clipped: 0 .. n_slices-1."""
        return bin_of(dered_petro_r, self.r_min, self.width, 0, self.n_slices - 1)


def cell_index(z: ArrayLike, dered_petro_r: ArrayLike, grid: RedshiftGrid, slices: MagnitudeSlices) -> Ints:
    """Number the (r slice, z bin) cell of each galaxy, `slice * K + bin`, shape (n,).

    ValueError if the lengths differ or a value is not finite.
    """
    spec_z, r = np.asarray(z, dtype=np.float64), np.asarray(dered_petro_r, dtype=np.float64)
    if spec_z.ndim != 1 or spec_z.shape != r.shape:
        raise ValueError(f"spec_z and dered_petro_r must be of one length, not {spec_z.shape} and {r.shape}")
    if n_bad := int(np.count_nonzero(~(np.isfinite(spec_z) & np.isfinite(r)))):
        raise ValueError(f"{n_bad} of {len(r)} galaxies have no finite redshift or magnitude: drop them")
    return slices.index(r) * grid.n_bins + grid.index(spec_z)


def cell_counts(z: ArrayLike, dered_petro_r: ArrayLike, grid: RedshiftGrid, slices: MagnitudeSlices) -> Ints:
    """Count the galaxies of each (r slice, z bin) cell, shape (S, K); errors as of `cell_index`."""
    cells = cell_index(z, dered_petro_r, grid, slices)
    return np.bincount(cells, minlength=slices.n_slices * grid.n_bins).reshape(slices.n_slices, -1)


def n_of_z(spec_z: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Fraction of galaxies in each bin of the whole grid, (n_outputs,), clipped to the survey's own."""
    z = np.asarray(spec_z, dtype=np.float64)
    return np.bincount(grid.index(z) + grid.extend_left, minlength=grid.n_outputs) / len(z)


def nearest_true(flags: Bools) -> Ints:
    """Index of the nearest true entry for each entry, the lower one at equal distance, shape (n,)."""
    at, here = np.flatnonzero(flags), np.arange(len(flags))
    after = np.minimum(np.searchsorted(at, here), len(at) - 1)
    before = np.maximum(after - 1, 0)
    nearer: Bools = np.abs(here - at[before]) <= np.abs(at[after] - here)
    return np.where(nearer, at[before], at[after])
