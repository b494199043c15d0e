"""Batches of galaxies for Lightning; their randomness is a function of (seed, epoch, index)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from photoz_lit.grids import Ints

VAL_BATCH = 512  # galaxies

Picks = tuple[Ints, Ints]  # galaxies of a batch, and the view of each


@dataclass(eq=False)
class Galaxies(Dataset[dict[str, Any]]):
    """Galaxies of one split, read in whole batches."""

    inputs: NDArray[Any]  # (N, ...) of the store, usually a memory map; or embeddings (views, N, d)
    columns: dict[str, NDArray[Any]]  # (n,): what else a batch holds, e.g. ebv, z_bin, r_slice
    rows: Ints  # (n,): of each galaxy in `inputs`
    views_first: bool = False  # whether `inputs` holds each view of a galaxy already

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, picks: Picks) -> dict[str, Tensor]:
        """Return a batch."""
        members, views = picks
        rows = self.rows[members]
        inputs = self.inputs[views, rows] if self.views_first else self.inputs[rows]
        batch = {name: torch.from_numpy(column[members]) for name, column in self.columns.items()}
        batch["inputs"] = torch.from_numpy(np.ascontiguousarray(inputs))
        batch["view"] = torch.from_numpy(views)
        return batch


@dataclass(eq=False)
class Stream(Sampler[Picks]):
    """An endless stream of shuffled passes over n galaxies, cut to batches; the same however it is read.

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

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Picks]:
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


class GalaxyData(pl.LightningDataModule):
    """Batches of training galaxies, as a stream gives them, and of validation galaxies in order."""

    def __init__(self, train: Galaxies, val: Galaxies, *, stream: Stream, num_workers: int = 0) -> None:
        super().__init__()
        self.train, self.val, self.stream, self.num_workers = train, val, stream, num_workers

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return this device's share of the stream."""
        stream, t = self.stream, self.trainer
        if t:
            stream = replace(stream, rank=t.global_rank, world_size=t.world_size)
        return loader(self.train, stream, self.num_workers)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the validation galaxies in order."""
        return loader(self.val, in_order(len(self.val), VAL_BATCH), self.num_workers)


def loader(galaxies: Galaxies, sampler: Iterable[Picks], num_workers: int) -> DataLoader[dict[str, Tensor]]:
    """Return a DataLoader that asks for whole batches."""
    return DataLoader(
        galaxies,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )
