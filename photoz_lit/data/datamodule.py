"""Batches of galaxies for Lightning; their randomness is a function of (seed, epoch, index)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

Picks = tuple[NDArray[np.int64], NDArray[np.int64]]


class Galaxies(Dataset[dict[str, Any]]):
    """Galaxies of one split, read in whole batches.

    Parameters
    ----------
    inputs : array (N, ...)
        Cutouts or magnitudes of the store, usually a memory map; or, with `views_first`, embeddings
        (views, N, d).
    columns : dict of arrays (n,)
        What else a batch holds, e.g. ebv, z_bin, r_slice.
    rows : array (n,)
        Row of each galaxy in `inputs`.
    views_first : bool
        Whether `inputs` holds each view of a galaxy already.
    """

    def __init__(
        self,
        inputs: NDArray[Any],
        columns: dict[str, NDArray[Any]],
        rows: NDArray[np.int64],
        views_first: bool = False,
    ) -> None:
        self.inputs, self.columns, self.rows, self.views_first = inputs, columns, rows, views_first

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, picks: Picks) -> dict[str, Tensor]:
        """Return a batch: `picks` are the galaxies and the view of each."""
        members, views = picks
        rows = self.rows[members]
        inputs = self.inputs[views, rows] if self.views_first else self.inputs[rows]
        batch = {name: torch.from_numpy(column[members]) for name, column in self.columns.items()}
        batch["inputs"] = torch.from_numpy(np.ascontiguousarray(inputs))
        batch["view"] = torch.from_numpy(views)
        return batch


class Stream(Sampler[Picks]):
    """An endless stream of shuffled passes over n galaxies, cut to batches; the same however it is read.

    Each pass has its own order and its own view of each galaxy, both drawn from (seed, pass). An epoch is
    `steps_per_epoch` batches of the stream, so that a run resumed at an epoch sees what it would have seen.

    Parameters
    ----------
    n : int
        Number of galaxies.
    batch_size : int
        Galaxies in a batch over all devices.
    steps_per_epoch : int
        Batches in an epoch.
    seed : int
        Seed of order and views.
    n_views : int
        Views to draw from.
    rank, world_size : int
        This device and the number of devices: each takes its share of every batch.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        n_views: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.n, self.batch_size, self.steps_per_epoch = n, batch_size, steps_per_epoch
        self.seed, self.n_views, self.rank, self.world_size = seed, n_views, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration gives; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps_per_epoch

    def __iter__(self) -> Iterator[Picks]:
        start = self.epoch * self.steps_per_epoch
        passes: dict[int, Picks] = {}
        for step in range(start, start + self.steps_per_epoch):
            positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            positions = positions[self.rank :: self.world_size]
            which, place = np.divmod(positions, self.n)
            for p in np.unique(which):
                if int(p) not in passes:
                    passes[int(p)] = self._one_pass(int(p))
            for p in [p for p in passes if p < which[0]]:
                del passes[p]
            parts = [tuple(a[place[which == p]] for a in passes[int(p)]) for p in np.unique(which)]
            yield np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])

    def _one_pass(self, number: int) -> Picks:
        rng = np.random.default_rng([self.seed, number])
        order = rng.permutation(self.n)
        views = rng.integers(0, self.n_views, size=self.n)
        return order, views[order]


class InOrder(Sampler[Picks]):
    """Every galaxy once, in order, in its first view.

    Parameters
    ----------
    n, batch_size : int
        Number of galaxies, and of galaxies in a batch.
    """

    def __init__(self, n: int, batch_size: int) -> None:
        self.n, self.batch_size = n, batch_size

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Picks]:
        for start in range(0, self.n, self.batch_size):
            members = np.arange(start, min(start + self.batch_size, self.n))
            yield members, np.zeros_like(members)


class GalaxyData(pl.LightningDataModule):
    """Training and validation batches.

    Parameters
    ----------
    train, val : Galaxies
        The two splits.
    batch_size, steps_per_epoch, seed, n_views
        See `Stream`.
    num_workers : int
        Processes that read batches; 0 reads in the main process.
    val_batch_size : int
        Galaxies in a validation batch.
    """

    def __init__(
        self,
        train: Galaxies,
        val: Galaxies,
        *,
        batch_size: int,
        steps_per_epoch: int,
        seed: int,
        n_views: int,
        num_workers: int = 0,
        val_batch_size: int = 512,
    ) -> None:
        super().__init__()
        self.train, self.val = train, val
        self.batch_size, self.steps_per_epoch = batch_size, steps_per_epoch
        self.seed, self.n_views = seed, n_views
        self.num_workers, self.val_batch_size = num_workers, val_batch_size

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the stream of shuffled batches of this device."""
        rank, world_size = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        stream = Stream(
            len(self.train),
            self.batch_size,
            self.steps_per_epoch,
            self.seed,
            self.n_views,
            rank,
            world_size,
        )
        return loader(self.train, stream, self.num_workers)

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the validation galaxies in order."""
        return loader(self.val, InOrder(len(self.val), self.val_batch_size), self.num_workers)


def loader(
    galaxies: Galaxies, sampler: Sampler[Picks], num_workers: int = 0
) -> DataLoader[dict[str, Tensor]]:
    """Return a DataLoader that asks for whole batches."""
    return DataLoader(
        galaxies,
        sampler=sampler,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
    )
