"""What the links of a chain are fitted on and what all of them can do."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Galaxies:
    """Galaxies that a link is fitted on.

    Parameters
    ----------
    pdf : ndarray, shape (n, n_outputs)
        Their p(z), after the links before.
    spec_z, dered_petro_r : ndarray, shape (n,)
        Redshifts, and magnitudes, mag.
    embeddings : ndarray, shape (n, d)
        Embeddings in view 0.
    """

    pdf: NDArray[np.floating[Any]]
    spec_z: Floats
    dered_petro_r: Floats
    embeddings: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Facts:
    """What links know beside galaxies.

    Parameters
    ----------
    grid, slices : RedshiftGrid, MagnitudeSlices
        Bins of p(z), extension included, and slices of r.
    implicit_prior : ndarray, shape (n_outputs,)
        That of p(z), after the links before.
    n_fitted : int
        Galaxies that the labels of the implicit prior belong to.
    spec_z_train : ndarray
        Redshifts of the whole training split.
    relative : bool
        Whether residuals are divided by 1 + spec_z.
    rng : numpy.random.Generator
        Divides galaxies into folds.
    """

    grid: RedshiftGrid
    slices: MagnitudeSlices
    implicit_prior: Floats = field(default_factory=lambda: np.empty(0))
    n_fitted: int = 0
    spec_z_train: Floats = field(default_factory=lambda: np.empty(0))
    relative: bool = True
    rng: np.random.Generator = field(default_factory=np.random.default_rng)


class Link(Protocol):
    """One link, fitted; those of this folder inherit from it."""

    def __call__(self, pdf: Floats, dered_petro_r: ArrayLike | None, embeddings: ArrayLike | None) -> Floats:
        """Return p(z), (n, n_outputs), where r (n,), mag, and embeddings (n, d) may be unknown."""

    def arrays(self) -> dict[str, ArrayLike]:
        """Return all of it as named arrays."""

    def implicit_prior(self, before: Floats) -> Floats:
        """Return the implicit prior of p(z) after it, (n_outputs,), or that before it where it is unknown."""
        return before
