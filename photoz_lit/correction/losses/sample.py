"""Galaxies as a loss of Step 2 sees them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from photoz_lit.correction.prior import joint_histogram
from photoz_lit.grids import Bools, Floats, Ints, RedshiftGrid

if TYPE_CHECKING:
    import torch

Tensor: TypeAlias = "torch.Tensor"
Logits: TypeAlias = "tuple[torch.Tensor, torch.Tensor | None]"
Batch: TypeAlias = "Mapping[str, torch.Tensor]"


@dataclass(frozen=True, eq=False)
class Sample:
    """Training or validation galaxies of Step 2."""

    embeddings: NDArray[np.float32]  # (n, d), in view 0
    spec_z: Floats
    r_slice: Ints
    grid: RedshiftGrid  # the survey's bins
    membership: Bools  # (S, R), which output covers which slice
    weight: NDArray[np.float32] | None = None  # of mean 1 (`photoz_lit.correction.weights`)
    device: str = "cpu"  # where a loss computes what it needs of all galaxies together

    @cached_property
    def z_bin(self) -> Ints:
        """Bin of each label, (n,)."""
        return self.grid.index(self.spec_z)

    def prior(self, weight: NDArray[np.float32] | None = None) -> Floats:
        """Return the implicit prior of one-hot labels, (S, K), of galaxies who may have weights (n,)."""
        return joint_histogram(self.r_slice, self.z_bin, (len(self.membership), self.grid.n_bins), weight)
