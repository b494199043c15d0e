"""What the links of a chain are fitted on and what all of them can do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction.prior import Priors
from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid

if TYPE_CHECKING:
    from torch import Tensor

Maybe = ArrayLike | None
OnTensors = Callable[["Tensor", "Tensor"], "Tensor"]  # p(z) (n, n_outputs) and r (n,) in double precision
Arrays = Mapping[str, NDArray[Any]]  # as a link is kept


@dataclass(frozen=True, eq=False)
class Galaxies:
    """Galaxies that a link is fitted on."""

    pdf: NDArray[np.floating[Any]]  # (n, n_outputs), after the links before
    spec_z: Floats
    dered_petro_r: Floats  # mag
    embeddings: NDArray[np.float32]  # (n, d), in view 0


@dataclass(frozen=True, eq=False)
class Facts:
    """What links know beside galaxies."""

    grid: RedshiftGrid  # of p(z), extension included
    slices: MagnitudeSlices
    priors: Priors | None = None  # of p(z), after the links before
    borrowed: Arrays = field(default_factory=dict)  # heads of the model whose representation it is
    rng: np.random.Generator = field(default_factory=np.random.default_rng)  # divides galaxies into folds


@dataclass(frozen=True)
class Nature:
    """What has to be known of a link before it is fitted."""

    held_out: bool = False  # fitted on training galaxies that no head saw, and not on the validation split
    needs_prior: bool = False  # the implicit prior of p(z)
    keeps_prior: bool = False  # whether that is known after it


class Link(Protocol):
    """One link, fitted; those of this folder inherit from it."""

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Return p(z), (n, n_outputs), where r (n,), mag, and embeddings (n, d) may be unknown."""

    def arrays(self) -> dict[str, ArrayLike]:
        """Return all of it as named arrays."""
        return vars(self).copy()

    def priors(self, before: Priors) -> Priors:
        """Return the priors of p(z) after it, or those before it where they are unknown."""
        return before

    def on_tensors(self) -> OnTensors | None:
        """Return the same for an exported program; None where there is no such form."""
        return None


def slice_of(r: "Tensor", slices: MagnitudeSlices) -> "Tensor":
    """Slice of each r (n,), mag, as of `grids.on_edges`; where that is unknown, the one after the last."""
    import torch

    single, last = r.float().double() == r, slices.n_slices - 1
    inexact = torch.where(single, torch.finfo(torch.float32).eps * r.abs(), 0.0)
    moved = r + inexact.clamp(1e-9 * slices.width, 0.01 * slices.width)
    index = ((moved - slices.r_min) / slices.width).floor().clamp(0, last)
    return torch.where(r.isfinite(), index, last + 1.0).long()
