"""The grids of the method: redshift bins and interlaced magnitude slices (Lin et al. 2022, section 3)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class RedshiftGrid:
    """Equal redshift bins on [z_min, z_max], with room for labels beyond both ends.

    Parameters
    ----------
    z_min, z_max : float
        Limits of the survey's redshift range.
    n_bins : int
        Number of bins K between the limits.
    extend_left, extend_right : int
        Number of bins added below z_min and above z_max.
    """

    z_min: float
    z_max: float
    n_bins: int
    extend_left: int = 0
    extend_right: int = 0

    @property
    def width(self) -> float:
        """Bin width w."""
        return (self.z_max - self.z_min) / self.n_bins

    @property
    def n_outputs(self) -> int:
        """Number of bins with the extension: left + K + right."""
        return self.extend_left + self.n_bins + self.extend_right

    @property
    def centres(self) -> NDArray[np.float64]:
        """Bin centres of the whole grid, extension included, shape (n_outputs,)."""
        steps = np.arange(self.n_outputs, dtype=np.float64) - self.extend_left + 0.5
        return steps * np.float64(self.width) + self.z_min

    @property
    def edges(self) -> NDArray[np.float64]:
        """Bin edges of the whole grid, extension included, shape (n_outputs + 1,)."""
        steps = np.arange(self.n_outputs + 1, dtype=np.float64) - self.extend_left
        return steps * np.float64(self.width) + self.z_min

    def index(self, z: ArrayLike) -> NDArray[np.int64]:
        """Bin of each redshift in the survey's own K bins, clipped to them: 0 .. K-1."""
        k = np.floor((np.asarray(z, dtype=np.float64) - self.z_min) / self.width)
        return np.clip(k, 0, self.n_bins - 1).astype(np.int64)

    def extended(self, left: int, right: int) -> "RedshiftGrid":
        """Return the same bins with an extension of `left` and `right` bins."""
        return RedshiftGrid(self.z_min, self.z_max, self.n_bins, left, right)


@dataclass(frozen=True)
class MagnitudeSlices:
    """Slices of r that share outputs ("interlacing"): output i covers slices 2i-1, 2i, 2i+1.

    Parameters
    ----------
    r_min : float
        Bright edge of the first slice, mag.
    width : float
        Width of a slice, mag.
    n_slices : int
        Number of slices S, odd: S = 2 R - 1.
    """

    r_min: float
    width: float
    n_slices: int

    def __post_init__(self) -> None:
        if self.n_slices < 1 or self.n_slices % 2 == 0:
            raise ValueError(
                f"n_slices must be odd and positive (2 R - 1 for R outputs), got {self.n_slices}"
            )

    @property
    def n_outputs(self) -> int:
        """Number of redshift outputs R."""
        return (self.n_slices + 1) // 2

    @property
    def edges(self) -> NDArray[np.float64]:
        """Slice edges in mag, shape (n_slices + 1,)."""
        return self.r_min + np.float64(self.width) * np.arange(self.n_slices + 1, dtype=np.float64)

    @property
    def membership(self) -> NDArray[np.bool_]:
        """Which output covers which slice, shape (n_slices, R)."""
        slices, outputs = np.arange(self.n_slices)[:, None], np.arange(self.n_outputs)[None, :]
        inside: NDArray[np.bool_] = np.abs(slices - 2 * outputs) <= 1
        return inside

    def index(self, dered_petro_r: ArrayLike) -> NDArray[np.int64]:
        """Slice of each magnitude (half-open, bright edge included), clipped: 0 .. n_slices-1."""
        s = np.floor((np.asarray(dered_petro_r, dtype=np.float64) - self.r_min) / self.width)
        return np.clip(s, 0, self.n_slices - 1).astype(np.int64)
