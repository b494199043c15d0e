"""p(z) from the spec_z of the nearest training galaxies in the embedding.

The nearest-neighbour part of CLAP (Lin et al. 2024, A&A 691, A331, arXiv:2410.19390). The number of
neighbours is each galaxy's own: the one with which the PIT of the training galaxies around it is closest to
uniform. The p(z) so made of training galaxies are soft labels to refit a head with
(`losses.galaxy_label_loss`); those of other galaxies are p(z) in their own right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from photoz_lit.grids import RedshiftGrid
from photoz_lit.metrics import CHUNK

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Indices = NDArray[np.int32]

NUMBERS = (5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480)
"""Choices of the number of neighbours; CLAP tries 5 to 2000."""

DISTANCES = 2**25
"""Distances held at a time: 128 MB, whatever the number of galaxies."""


@torch.inference_mode()
def nearest(
    queries: ArrayLike,
    train: ArrayLike,
    k: int,
    leave_one_out: bool = False,
    device: torch.device | str = "cpu",
) -> Indices:
    """Find the k nearest training galaxies of each galaxy, exactly.

    Distances are Euclidean, each dimension scaled to unit variance over the training galaxies. All distances
    come from matrix products, which in a hundred dimensions are faster than a search tree, and on a GPU by
    far.

    Parameters
    ----------
    queries : array_like, shape (n, d)
        Embeddings.
    train : array_like, shape (m, d)
        Embeddings of the training galaxies, at least two.
    k : int
        Number of neighbours, at most m (m - 1 if one is left out).
    leave_one_out : bool
        The queries are the training galaxies in their order, and none is its own neighbour.
    device : torch.device or str
        Where the distances are computed.

    Returns
    -------
    ndarray of int32, shape (n, k)
        Indices of training galaxies, nearest first.

    Raises
    ------
    ValueError
        If shapes do not fit or there are not k neighbours.
    """
    x, q = np.asarray(train, dtype=np.float32), np.asarray(queries, dtype=np.float32)
    if x.ndim != 2 or q.ndim != 2 or x.shape[1] != q.shape[1] or (leave_one_out and len(q) != len(x)):
        raise ValueError(f"embeddings of shapes {q.shape} and {x.shape} do not fit together")
    if not 1 <= k <= len(x) - leave_one_out or len(x) < 2:
        raise ValueError(f"k={k} neighbours of {len(x)} training galaxies: take fewer")
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, 1.0)
    x = ((x - mean) / scale).astype(np.float32)
    points = torch.from_numpy(x).to(device)
    step, out = max(1, DISTANCES // len(x)), np.empty((len(q), k), dtype=np.int32)
    for start in range(0, len(q), step):
        part = torch.from_numpy(((q[start : start + step] - mean) / scale).astype(np.float32)).to(device)
        distances = torch.cdist(part, points, compute_mode="use_mm_for_euclid_dist")
        if leave_one_out:
            rows = torch.arange(len(part), device=device)
            distances[rows, rows + start] = torch.inf
        out[start : start + step] = distances.topk(k, largest=False).indices.cpu().numpy()
    return out


def neighbour_pit(
    spec_z: ArrayLike, spec_z_train: ArrayLike, neighbours: ArrayLike, numbers: Sequence[int] = NUMBERS
) -> NDArray[np.float32]:
    """PIT of galaxies under the spec_z of their nearest neighbours, for each number of neighbours.

    The fraction of the neighbours below spec_z, ties counted half. CLAP counts a training galaxy among its
    own neighbours, which pulls its PIT to 1/2 at small k; `nearest` can leave it out.

    Parameters
    ----------
    spec_z : array_like, shape (n,)
        Redshifts.
    spec_z_train : array_like, shape (m,)
        Redshifts of the training galaxies.
    neighbours : array_like of int, shape (n, k_max)
        Their neighbours, nearest first.
    numbers : sequence of int
        Numbers of neighbours, at most k_max.

    Returns
    -------
    ndarray of float32, shape (n, len(numbers))
        PIT.
    """
    z, z_train = np.asarray(spec_z, dtype=np.float64), np.asarray(spec_z_train, dtype=np.float64)
    near, at = np.asarray(neighbours), np.asarray(numbers, dtype=np.int64) - 1
    _check_numbers(near, numbers)
    out = np.empty((len(z), len(at)), dtype=np.float32)
    for start in range(0, len(z), CHUNK):
        part = slice(start, start + CHUNK)
        around, here = z_train[near[part]], z[part, None]
        below = (around < here) + 0.5 * (around == here)
        out[part] = below.cumsum(axis=1)[:, at] / (at + 1)
    return out


def choose_numbers(pit_train: ArrayLike, neighbours: ArrayLike, numbers: Sequence[int] = NUMBERS) -> Ints:
    """Choose each galaxy's number of neighbours: the most uniform PIT among these neighbours.

    The 1-Wasserstein distance between the PIT of the k nearest training galaxies, each under its own k
    neighbours, and the uniform distribution is least (CLAP's adaptive KNN).

    Parameters
    ----------
    pit_train : array_like, shape (m, len(numbers))
        PIT of the training galaxies, `neighbour_pit` of themselves.
    neighbours : array_like of int, shape (n, k_max)
        Neighbours of the galaxies among the training galaxies, nearest first.
    numbers : sequence of int
        Numbers of neighbours, as in `pit_train`.

    Returns
    -------
    ndarray of int, shape (n,)
        Number of neighbours of each galaxy.
    """
    u, near = np.asarray(pit_train), np.asarray(neighbours)
    _check_numbers(near, numbers)
    chosen = np.empty(len(near), dtype=np.int64)
    for start in range(0, len(near), CHUNK):
        part = near[start : start + CHUNK]
        distance = [distance_to_uniform(u[part[:, :k], i]) for i, k in enumerate(numbers)]
        chosen[start : start + CHUNK] = np.asarray(numbers)[np.argmin(distance, axis=0)]
    return chosen


def distance_to_uniform(u: ArrayLike) -> Floats:
    """1-Wasserstein distance of each row of values in [0, 1] from the uniform distribution, shape (n,)."""
    ordered = np.sort(np.asarray(u, dtype=np.float64), axis=1)
    step = 1 / ordered.shape[1]
    # The i-th of k values stands for the quantiles from i / k to (i + 1) / k: |value - quantile| integrated.
    gap = np.abs(ordered - (np.arange(ordered.shape[1]) + 0.5) * step)
    return np.asarray(np.where(gap > step / 2, gap, step / 4 + gap**2 / step).mean(axis=1))


def neighbour_pdf(
    spec_z_train: ArrayLike, neighbours: ArrayLike, numbers: ArrayLike, grid: RedshiftGrid
) -> NDArray[np.float32]:
    """Histogram of the spec_z of each galaxy's nearest training galaxies.

    CLAP multiplies it with a quadratic fit of the PIT density of the same neighbours; `recalibration` does so
    with the PIT of validation galaxies, for this p(z) as for any other.

    Parameters
    ----------
    spec_z_train : array_like, shape (m,)
        Redshifts of the training galaxies.
    neighbours : array_like of int, shape (n, k_max)
        Neighbours, nearest first.
    numbers : array_like of int, shape (n,) or scalar
        Number of neighbours of each galaxy, at least 1.
    grid : RedshiftGrid
        Redshift bins; no neighbour lies in an extension.

    Returns
    -------
    ndarray of float32, shape (n, n_outputs)
        p(z); rows sum to 1.
    """
    near = np.asarray(neighbours)
    k = np.broadcast_to(np.asarray(numbers, dtype=np.int64), len(near))
    _check_numbers(near, k)
    bins = grid.index(spec_z_train) + grid.extend_left
    out = np.empty((len(near), grid.n_outputs), dtype=np.float32)
    for start in range(0, len(near), CHUNK):
        part, number = near[start : start + CHUNK], k[start : start + CHUNK, None]
        cell = np.arange(len(part))[:, None] * grid.n_outputs + bins[part]
        counted = cell[np.arange(part.shape[1]) < number]
        counts = np.bincount(counted, minlength=len(part) * grid.n_outputs).reshape(len(part), -1)
        out[start : start + CHUNK] = counts / number
    return out


@dataclass(frozen=True, eq=False)
class NearestLabels:
    """Labels of galaxies from their nearest training galaxies, each by a number of its own.

    Parameters
    ----------
    train : ndarray, shape (m, d)
        Embeddings of the training galaxies, at least two.
    spec_z : ndarray, shape (m,)
        Their redshifts.
    grid : RedshiftGrid
        Redshift bins of the labels.
    device : torch.device or str
        Where distances are computed.
    """

    train: NDArray[np.float32]
    spec_z: Floats
    grid: RedshiftGrid
    device: torch.device | str = "cpu"

    @property
    def numbers(self) -> tuple[int, ...]:
        """Choices of the number of neighbours: those that so many training galaxies have."""
        most = len(self.train) - 1
        return tuple(k for k in NUMBERS if k <= most) or (most,)

    @cached_property
    def _of_train(self) -> tuple[Indices, NDArray[np.float32]]:
        """Neighbours of the training galaxies, never a galaxy itself, and their PIT under them."""
        near = nearest(self.train, self.train, self.numbers[-1], leave_one_out=True, device=self.device)
        return near, neighbour_pit(self.spec_z, self.spec_z, near, self.numbers)

    def of_train(self) -> NDArray[np.float32]:
        """Return the labels of the training galaxies, (m, n_outputs)."""
        return self._labels(self._of_train[0])

    def __call__(self, queries: ArrayLike) -> NDArray[np.float32]:
        """Return the labels of other galaxies, (n, n_outputs), by their embeddings (n, d)."""
        return self._labels(nearest(queries, self.train, self.numbers[-1], device=self.device))

    def _labels(self, near: Indices) -> NDArray[np.float32]:
        chosen = choose_numbers(self._of_train[1], near, self.numbers)
        return neighbour_pdf(self.spec_z, near, chosen, self.grid)


def _check_numbers(neighbours: NDArray[np.integer[Any]], numbers: Sequence[int] | Ints) -> None:
    """Raise ValueError unless all numbers are within the neighbours given."""
    if neighbours.ndim != 2 or (
        len(numbers) and not 1 <= min(numbers) <= max(numbers) <= neighbours.shape[1]
    ):
        raise ValueError(
            f"numbers of neighbours must be from 1 to those given, {neighbours.shape[-1]}: "
            "search more neighbours or leave the larger numbers out"
        )
