"""Batches of galaxies; their randomness is a function of (seed, epoch, index)."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from photoz_lit.grids import Ints

VAL_BATCH = 512  # galaxies
READ = 4096  # galaxies that are brought to a device at a time

Picks = tuple[Ints, Ints]  # galaxies of a batch, and the view of each


@dataclass(eq=False)
class Galaxies(Dataset[dict[str, Any]]):
    """Galaxies of one split, read in whole batches; those of embeddings by `photoz_lit.plain_training`."""

    inputs: NDArray[Any] | Tensor  # (N, ...) of the store, usually a memory map; `on` a GPU a tensor there
    columns: dict[str, Any]  # (n,): what else a batch holds, e.g. ebv, z_bin, r_slice
    rows: Any  # (n,): of each galaxy in `inputs`

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of a galaxy's inputs."""
        return math.prod(self.inputs.shape[1:]) * self.inputs.dtype.itemsize

    def __getitem__(self, picks: Picks) -> dict[str, Tensor]:
        """Return a batch, or a block of batches: picks (n,) or (steps, n)."""
        members, views = picks
        if isinstance(self.inputs, Tensor):
            device = self.inputs.device
            index = torch.from_numpy(members).to(device)
            batch = {name: column[index] for name, column in self.columns.items()}
            inputs, view = self.inputs[self.rows[index]], torch.from_numpy(views).to(device)
            return {**batch, "inputs": inputs, "view": view}
        batch = {name: torch.from_numpy(column[members]) for name, column in self.columns.items()}
        batch["inputs"] = torch.from_numpy(np.ascontiguousarray(self.inputs[self.rows[members]]))
        batch["view"] = torch.from_numpy(views)
        return batch

    def on(self, device: torch.device) -> "Galaxies":
        """Return these galaxies in the memory of a device."""
        inputs = np.asarray(self.inputs)
        dtype = torch.from_numpy(inputs[:0]).dtype
        held = torch.empty((len(self), *inputs.shape[1:]), dtype=dtype, device=device)
        copy_rows(inputs, self.rows, held)
        columns = {name: torch.from_numpy(column).to(device) for name, column in self.columns.items()}
        return Galaxies(held, columns, torch.arange(len(self), device=device))


def copy_rows(array: NDArray[Any], rows: Ints, out: Tensor) -> None:
    """Copy rows of an array to a tensor on any device, (n, ...), some at a time, as they lie in the file."""
    order = np.argsort(rows)
    for part in np.split(order, range(READ, len(order), READ)):
        found = torch.from_numpy(np.ascontiguousarray(array[rows[part]]))
        out[torch.from_numpy(part).to(out.device)] = found.to(out.device)


@dataclass(eq=False)
class Stream(Sampler[Picks]):
    """An endless stream of shuffled passes over n galaxies, cut to batches; the same however it is read.

    Batches come one by one, (batch_size,), or in blocks of so many steps, (block, batch_size).

    Each pass has its own order and its own view of each galaxy, both drawn from (seed, pass). An epoch is
    `steps_per_epoch` batches of the stream, so that a run resumed at an epoch sees what it would have seen.
    """

    n: int
    batch_size: int  # over all devices: this one, `rank`, takes its share of every batch
    steps_per_epoch: int
    seed: int
    n_views: int
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    block: int | None = None  # divides `steps_per_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps_per_epoch // (self.block or 1)

    def __iter__(self) -> Iterator[Picks]:
        if self.block is None:
            yield from self._batches()
            return
        batches = self._batches()
        while block := list(islice(batches, self.block)):
            members, views = zip(*block, strict=True)
            yield np.stack(members), np.stack(views)

    def _batches(self) -> Iterator[Picks]:
        start = self.epoch * self.steps_per_epoch
        one_pass = lru_cache(maxsize=2)(self._one_pass)  # a batch may begin in the last one
        for step in range(start, start + self.steps_per_epoch):
            positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            which, place = np.divmod(positions[self.rank :: self.world_size], self.n)
            parts = [[a[place[which == p]] for a in one_pass(p)] for p in np.unique(which).tolist()]
            members, views = zip(*parts, strict=True)
            yield np.concatenate(members), np.concatenate(views)

    def _one_pass(self, number: int) -> Picks:
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(self.n)
        views = rng.integers(0, self.n_views, size=self.n)
        return order, views[order]


def in_order(n: int, batch_size: int) -> list[Picks]:
    """Return the batches of n galaxies in order, each in its first view."""
    parts = np.split(np.arange(n), range(batch_size, n, batch_size))
    return [(members, np.zeros_like(members)) for members in parts]


def loader(galaxies: Galaxies, sampler: Iterable[Picks], num_workers: int) -> DataLoader[dict[str, Tensor]]:
    """Return a DataLoader that asks for whole batches."""
    return DataLoader(
        galaxies,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available() and not isinstance(galaxies.inputs, Tensor),
        persistent_workers=num_workers > 0,
    )
