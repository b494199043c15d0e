"""Labels from the spec_z of the nearest training galaxies in the embedding: a part of CLAP.

Lin et al. 2024, A&A 691, A331, arXiv:2410.19390. The number of neighbours is each galaxy's own: the one
with which the PIT of the training galaxies around it is closest to uniform. CLAP multiplies these p(z) with
a quadratic fit of the PIT density of the same neighbours; the link `pit` does so with validation galaxies,
for any p(z).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction import CHUNK
from photoz_lit.correction.losses import cross_entropy
from photoz_lit.correction.losses.sample import Batch, Logits, Sample, Tensor
from photoz_lit.grids import Floats, Ints, RedshiftGrid

Indices = NDArray[np.int32]

# Choices of the number of neighbours; CLAP tries 5 to 2000.
NUMBERS = (5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320, 480)
DISTANCES = 2**25  # held at a time: 128 MB, whatever the number of galaxies


@dataclass
class Settings(cross_entropy.Settings):
    """No settings of its own."""

    name: str = "nearest"


class Loss(cross_entropy.Loss):
    """Cross-entropy with the label of each galaxy, from a number of its own of nearest training galaxies."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """Choices of the number of neighbours."""
        return possible(NUMBERS, len(self.train.embeddings))

    @cached_property
    def _near_train(self) -> tuple[Indices, NDArray[np.float32]]:
        """Neighbours of the training galaxies, never a galaxy itself, and their PIT under them."""
        t = self.train
        near = nearest(t.embeddings, t.embeddings, self.numbers[-1], leave_one_out=True, device=t.device)
        return near, neighbour_pit(t.spec_z, near, self.numbers)

    @cached_property
    def of_train(self) -> NDArray[np.float32]:
        """Labels of the training galaxies, (m, n_outputs)."""
        return self._labels(self._near_train[0])

    def _labels(self, near: Indices) -> NDArray[np.float32]:
        chosen = choose_numbers(self._near_train[1], near, self.numbers)
        return neighbour_pdf(self.train.spec_z, near, chosen, self.train.grid)

    def columns(self, sample: Sample) -> dict[str, NDArray[Any]]:
        """Return the labels (n, K)."""
        t = self.train
        if sample is t:
            return {"label": self.of_train}
        return {
            "label": self._labels(nearest(sample.embeddings, t.embeddings, self.numbers[-1], device=t.device))
        }

    def __call__(self, logits: Logits, batch: Batch) -> Tensor:
        """Map logits and batch to a scalar."""
        from photoz_lit.correction.losses.functions import galaxy_label_loss

        return galaxy_label_loss(*logits, batch["label"], batch["member"], batch.get("weight"))

    def implicit_prior(self) -> Floats:
        """Return the weighted mean label by slice, (S, K)."""
        t = self.train
        weight, prior = np.ones(len(t.spec_z)) if t.weight is None else t.weight, np.zeros_like(t.prior())
        np.add.at(prior, t.r_slice, weight[:, None] * self.of_train)
        return np.asarray(prior / prior.sum())


def possible(numbers: tuple[int, ...], n: int) -> tuple[int, ...]:
    """Choices of the number of neighbours that n galaxies have among each other."""
    return tuple(k for k in numbers if k < n) or (n - 1,)


def nearest(
    queries: ArrayLike, train: ArrayLike, k: int, leave_one_out: bool = False, device: str = "cpu"
) -> Indices:
    """Find the k nearest training galaxies (m, d) of galaxies (n, d), exactly: (n, k), the nearest first.

    Distances are Euclidean, each dimension scaled to unit variance over the training galaxies. All of them
    come from matrix products, which in a hundred dimensions are faster than a search tree, and on a GPU by
    far; of the squared distance |x - q|^2 half is computed, less q^2, which orders in the same way. With
    `leave_one_out` the queries are the training galaxies, and none is its own neighbour.
    """
    import torch

    x, q = np.asarray(train, dtype=np.float32), np.asarray(queries, dtype=np.float32)
    if x.ndim != 2 or q.ndim != 2 or x.shape[1] != q.shape[1] or (leave_one_out and len(q) != len(x)):
        raise ValueError(f"embeddings of shapes {q.shape} and {x.shape} do not fit together")
    if not 1 <= k <= len(x) - leave_one_out or len(x) < 2:
        raise ValueError(f"k={k} neighbours of {len(x)} training galaxies: take fewer")
    mean, scale = x.mean(axis=0, dtype=np.float64), x.std(axis=0, dtype=np.float64)
    scale = np.where(scale > 1e-6 * (1 + np.abs(mean)), scale, 1.0)
    points = torch.from_numpy(((x - mean) / scale).astype(np.float32)).to(device)
    step, out = min(len(q), max(1, DISTANCES // len(x))), np.empty((len(q), k), dtype=np.int32)
    half, distances = 0.5 * (points**2).sum(dim=1), points.new_empty(step, len(x))
    for start in range(0, len(q), step):
        part = torch.from_numpy(((q[start : start + step] - mean) / scale).astype(np.float32)).to(device)
        found = torch.addmm(half, part, points.T, alpha=-1, out=distances[: len(part)])
        if leave_one_out:
            found.diagonal(start).fill_(torch.inf)
        out[start : start + step] = found.topk(k, largest=False).indices.cpu().numpy()
    return out


def neighbour_pit(spec_z: ArrayLike, neighbours: ArrayLike, numbers: Sequence[int]) -> NDArray[np.float32]:
    """PIT of training galaxies (m,) under the spec_z of their neighbours (m, k_max), for each number of them.

    The fraction of the neighbours below spec_z, ties counted half, (m, len(numbers)). CLAP counts a galaxy
    among its own neighbours, which pulls its PIT to 1/2 at small k; `nearest` leaves it out.
    """
    z, near, at = np.asarray(spec_z), np.asarray(neighbours), np.asarray(numbers, dtype=np.int64) - 1
    out = np.empty((len(z), len(at)), dtype=np.float32)
    for start in range(0, len(z), CHUNK):
        part = slice(start, start + CHUNK)
        around, here = z[near[part]], z[part, None]
        below = (around < here) + 0.5 * (around == here)
        out[part] = below.cumsum(axis=1)[:, at] / (at + 1)
    return out


def choose_numbers(pit_train: ArrayLike, neighbours: ArrayLike, numbers: Sequence[int]) -> Ints:
    """Choose each galaxy's number of neighbours, (n,): the most uniform PIT among these neighbours.

    The 1-Wasserstein distance between the PIT (m, len(numbers)) of the k nearest training galaxies (n,
    k_max), each under its own k neighbours, and the uniform distribution is least (CLAP's adaptive KNN).
    """
    u, near = np.asarray(pit_train), np.asarray(neighbours)
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
    """Histogram of the spec_z of each galaxy's nearest training galaxies, (n, n_outputs), rows of sum 1.

    `numbers` (n,) of the neighbours (n, k_max) count, nearest first.
    """
    near = np.asarray(neighbours)
    k = np.broadcast_to(np.asarray(numbers, dtype=np.int64), len(near))
    bins = grid.index(spec_z_train) + grid.extend_left
    out = np.empty((len(near), grid.n_outputs), dtype=np.float32)
    for start in range(0, len(near), CHUNK):
        part, number = near[start : start + CHUNK], k[start : start + CHUNK, None]
        cell = np.arange(len(part))[:, None] * grid.n_outputs + bins[part]
        counted = cell[np.arange(part.shape[1]) < number]
        counts = np.bincount(counted, minlength=len(part) * grid.n_outputs).reshape(len(part), -1)
        out[start : start + CHUNK] = counts / number
    return out
