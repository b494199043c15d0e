"""What the links of a chain are fitted on and what all of them can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid

Maybe = ArrayLike | None
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
    implicit_prior: Floats = field(default_factory=lambda: np.empty(0))  # of p(z), after the links before
    n_fitted: int = 0  # galaxies that the labels of the implicit prior belong to
    spec_z_train: Floats = field(default_factory=lambda: np.empty(0))  # of the whole training split
    relative: bool = True  # whether residuals are divided by 1 + spec_z
    rng: np.random.Generator = field(default_factory=np.random.default_rng)  # divides galaxies into folds


class Link(Protocol):
    """One link, fitted; those of this folder inherit from it."""

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Return p(z), (n, n_outputs), where r (n,), mag, and embeddings (n, d) may be unknown."""

    def arrays(self) -> dict[str, ArrayLike]:
        """Return all of it as named arrays."""
        return vars(self).copy()

    def implicit_prior(self, before: Floats) -> Floats:
        """Return the implicit prior of p(z) after it, (n_outputs,), or that before it where it is unknown."""
        return before
