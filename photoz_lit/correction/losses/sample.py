"""Galaxies as a loss of Step 2 sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from photoz_lit.grids import RedshiftGrid

if TYPE_CHECKING:
    from torch import Tensor

    Logits = tuple[Tensor, Tensor | None]
    Batch = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Sample:
    """Training or validation galaxies of Step 2.

    Parameters
    ----------
    embeddings : ndarray, shape (n, d)
        Embeddings in view 0.
    spec_z : ndarray, shape (n,)
        Redshifts, the labels.
    r_slice : ndarray of int, shape (n,)
        Magnitude slices.
    grid : RedshiftGrid
        The survey's bins.
    membership : ndarray of bool, shape (S, R)
        Which output covers which slice.
    weight : ndarray, shape (n,), or None
        Weights of mean 1 (`photoz_lit.correction.weights`).
    device : str
        Where a loss computes what it needs of all galaxies together.
    """

    embeddings: NDArray[np.float32]
    spec_z: NDArray[np.float64]
    r_slice: NDArray[np.int64]
    grid: RedshiftGrid
    membership: NDArray[np.bool_]
    weight: NDArray[np.float32] | None = None
    device: str = "cpu"

    @cached_property
    def z_bin(self) -> NDArray[np.int64]:
        """Bin of each label, (n,)."""
        return self.grid.index(self.spec_z)
