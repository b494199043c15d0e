"""What the PIT map over all galaxies leaves around each place in the embedding.

That the PIT depends on the place is of Dey et al. 2021 (arXiv:2110.15209, and 2022, arXiv:2205.14568), who
regress its distribution with a monotone network; here it is that of the nearest validation galaxies. v is
the PIT after the map over all.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction import CHUNK
from photoz_lit.correction.losses.nearest import nearest, possible
from photoz_lit.grids import Floats, Ints

# Choices of the numbers of a galaxy's neighbours, of bins of v among them, and of prior galaxies, of which
# the last leaves the map before.
NUMBERS = (50, 100, 200, 400, 800)
BINS = (4, 8, 16, 32)
PRIOR_COUNTS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 1e6)


class LocalChoice(NamedTuple):
    """What is chosen, and the mean log density it gives."""

    k: int  # neighbours
    m: int  # bins of v
    prior_count: float
    gain: float


@dataclass(frozen=True, eq=False)
class LocalMap:
    """Embeddings (n, d) of validation galaxies, their v (n,), and how many of them count."""

    embeddings: NDArray[np.float32]
    v: Floats
    choice: LocalChoice

    def density(self, embeddings: ArrayLike) -> Floats:
        """Density of v among the neighbours of galaxies, (n, m), by their embeddings (n, d)."""
        near, c = nearest(embeddings, self.embeddings, self.choice.k), self.choice
        return shrunk_density(_neighbour_counts(self.v, near, c.k, c.m), c.prior_count)

    def arrays(self) -> dict[str, ArrayLike]:
        """Return everything as named arrays."""
        return {"embeddings": self.embeddings, "v": self.v, "choice": self.choice}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "LocalMap | None":
        """Build it again, where there is one."""
        if "choice" not in arrays:
            return None
        k, m, count, gain = arrays["choice"].tolist()
        return cls(arrays["embeddings"], arrays["v"], LocalChoice(int(k), int(m), count, gain))


def choose_local_map(v: ArrayLike, embeddings: ArrayLike) -> LocalMap | None:
    """Fit the map to v (n,) and embeddings (n, d) of validation galaxies; None for one alone.

    Neighbours are those of `nearest`: each dimension of the embedding has unit variance. Whitened principal
    directions, as in `photoz_lit.models.neighbours`, describe the PIT of held-out galaxies less well.
    """
    values, x = np.asarray(v, dtype=np.float64), np.asarray(embeddings, dtype=np.float32)
    if len(values) < 2:
        return None
    numbers = possible(NUMBERS, len(values))
    near = nearest(x, x, numbers[-1], leave_one_out=True)
    return LocalMap(x, values, choose_local(values, near, numbers))


def choose_local(v: Floats, neighbours: NDArray[np.integer[Any]], numbers: Sequence[int]) -> LocalChoice:
    """Choose what describes v (n,) of validation galaxies from their neighbours (n, k_max) best."""
    choices = []
    for k, m in itertools.product(numbers, BINS):
        counts = _neighbour_counts(v, neighbours, k, m)
        for prior_count in PRIOR_COUNTS:
            gain = float(np.log(density_at(shrunk_density(counts, prior_count), v)).mean())
            choices.append(LocalChoice(k, m, prior_count, gain))
    return max(choices, key=lambda choice: choice.gain)


def _neighbour_counts(v: Floats, neighbours: NDArray[np.integer[Any]], k: int, m: int) -> Ints:
    """Count the k nearest galaxies of each in m equal bins of v, shape (n, m)."""
    bins = np.minimum((v * m).astype(np.int64), m - 1)
    counts = np.empty((len(neighbours), m), dtype=np.int64)
    for start in range(0, len(neighbours), CHUNK):
        near = neighbours[start : start + CHUNK, :k]
        cell = np.arange(len(near))[:, None] * m + bins[near]
        counts[start : start + CHUNK] = np.bincount(cell.ravel(), minlength=len(near) * m).reshape(-1, m)
    return counts


def shrunk_density(counts: Ints, prior_count: float) -> Floats:
    """Density of v in equal bins of [0, 1], (n, m), of mean 1, from the galaxies in them and prior ones."""
    m = counts.shape[1]
    return np.asarray(m * (counts + prior_count / m) / (counts.sum(axis=1, keepdims=True) + prior_count))


def density_at(density: Floats, v: Floats) -> Floats:
    """Density (n, m) at v (n, ...): linear between the centres of bins, constant beyond the outer ones."""
    rows, j, t, padded = _place(density, v)
    return np.asarray((1 - t) * padded[rows, j] + t * padded[rows, j + 1])


def cdf_at(density: Floats, v: Floats) -> Floats:
    """Integral of `density_at` from 0 to v, shape (n, ...); 0 at 0 and 1 at 1."""
    (rows, j, t, padded), m = _place(density, v), density.shape[1]
    # Integrals up to the centres; the first is half a bin below zero.
    steps = 0.5 * (padded[:, :-1] + padded[:, 1:]) / m
    start = np.concatenate([-0.5 * padded[:, :1] / m, steps], axis=1).cumsum(axis=1)
    low, high = padded[rows, j], padded[rows, j + 1]
    return np.asarray(start[rows, j] + (t * low + 0.5 * t**2 * (high - low)) / m)


def _place(density: Floats, v: Floats) -> tuple[Ints, Ints, Floats, Floats]:
    """Row, left centre and place between two centres of each v, and the density with outer bins repeated."""
    rows = np.arange(len(density)).reshape(-1, *[1] * (v.ndim - 1))
    x = np.clip(v, 0, 1) * density.shape[1] + 0.5
    j = np.minimum(x.astype(np.int64), density.shape[1])
    return rows, j, x - j, np.pad(density, ((0, 0), (1, 1)), mode="edge")
