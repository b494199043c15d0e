"""Batches of galaxies for Lightning; their randomness is a function of (seed, epoch, index)."""

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from photoz_lit.grids import Ints

VAL_BATCH = 512  # galaxies
READ = 4096  # galaxies that are brought to a device at a time

BLOCK = {"cpu": 8e6, "cuda": 256e6}  # bytes of inputs that a device gets at once
MOST_STEPS = 100  # of a block
ON_GPU = 0.6  # of its free memory that training galaxies may take

Picks = tuple[Ints, Ints]  # galaxies of a batch, and the view of each


@dataclass(eq=False)
class Galaxies(Dataset[dict[str, Any]]):
    """Galaxies of one split, read in whole batches; `on` a GPU everything is a tensor there."""

    inputs: NDArray[Any] | Tensor  # (N, ...) of the store, usually a memory map; or embeddings (views, N, d)
    columns: dict[str, Any]  # (n,): what else a batch holds, e.g. ebv, z_bin, r_slice
    rows: Any  # (n,): of each galaxy in `inputs`
    views_first: bool = False  # whether `inputs` holds each view of a galaxy already

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def row_bytes(self) -> int:
        """Bytes of the inputs of a galaxy in one view."""
        shape = self.inputs.shape[2 if self.views_first else 1 :]
        return math.prod(shape) * self.inputs.dtype.itemsize

    def __getitem__(self, picks: Picks) -> dict[str, Tensor]:
        """Return a batch, or a block of batches: picks (n,) or (steps, n)."""
        members, views = (torch.from_numpy(part) for part in picks)
        if isinstance(self.inputs, Tensor):
            members, views = (part.to(self.inputs.device) for part in (members, views))
            rows = self.rows[members]
            batch = {name: column[members] for name, column in self.columns.items()}
            batch["inputs"] = self.inputs[views, rows] if self.views_first else self.inputs[rows]
        else:
            rows = self.rows[picks[0]]
            inputs = self.inputs[picks[1], rows] if self.views_first else self.inputs[rows]
            batch = {name: torch.from_numpy(column[picks[0]]) for name, column in self.columns.items()}
            batch["inputs"] = torch.from_numpy(np.ascontiguousarray(inputs))
        batch["view"] = views
        return batch

    def on(self, device: torch.device) -> "Galaxies":
        """Return these galaxies in the memory of a device."""
        inputs, order = np.asarray(self.inputs), np.argsort(self.rows)
        lead = inputs.shape[:1] if self.views_first else ()
        shape = (*lead, len(self), *inputs.shape[len(lead) + 1 :])
        held = torch.empty(shape, dtype=torch.from_numpy(inputs[:0]).dtype, device=device)
        for part in np.split(order, range(READ, len(order), READ)):  # in the order of the file
            rows = self.rows[part]
            found = inputs[:, rows] if lead else inputs[rows]
            held[(slice(None),) * len(lead) + (torch.from_numpy(part).to(device),)] = torch.from_numpy(
                np.ascontiguousarray(found)
            ).to(device)
        columns = {name: torch.from_numpy(column).to(device) for name, column in self.columns.items()}
        return Galaxies(held, columns, torch.arange(len(self), device=device), self.views_first)


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


class GalaxyData(pl.LightningDataModule):
    """Blocks of batches of training galaxies, as a stream gives them, and validation galaxies in order.

    Where a GPU has room they are all in its memory. Else `num_workers` processes read them, None: as many
    as serve.
    """

    def __init__(
        self, train: Galaxies, val: Galaxies, *, stream: Stream, num_workers: int | None = None
    ) -> None:
        super().__init__()
        self.train, self.val, self.stream, self.num_workers = train, val, stream, num_workers

    def setup(self, stage: str) -> None:
        """Bring the galaxies to the GPU, where they fit."""
        device = self._device()
        if device.type == "cuda" and isinstance(self.train.inputs, np.ndarray):
            free, _ = torch.cuda.mem_get_info(device)
            views = len(self.train.inputs) if self.train.views_first else 1
            if sum(len(part) * part.row_bytes for part in (self.train, self.val)) * views < ON_GPU * free:
                self.train, self.val = self.train.on(device), self.val.on(device)

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return this device's share of the stream."""
        stream, t = self.stream, self.trainer
        if t:
            stream = replace(stream, rank=t.global_rank, world_size=t.world_size)
        return loader(self.train, replace(stream, block=self._block(stream)), self._workers())

    def val_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """Return the validation galaxies in order."""
        return loader(self.val, in_order(len(self.val), VAL_BATCH), self._workers())

    def _device(self) -> torch.device:
        return self.trainer.strategy.root_device if self.trainer else torch.device("cpu")

    def _block(self, stream: Stream) -> int:
        """Return how many steps a device gets at once: several devices meet after each step."""
        if stream.world_size > 1:
            return 1
        room = int(BLOCK[self._device().type] // (stream.batch_size * self.train.row_bytes))
        most = max(1, min(MOST_STEPS, room, stream.steps_per_epoch))
        return next(n for n in range(most, 0, -1) if stream.steps_per_epoch % n == 0)

    def _workers(self) -> int:
        if isinstance(self.train.inputs, Tensor):
            return 0
        if self.num_workers is not None:
            return self.num_workers
        # On a CPU the network takes all cores.
        return min(8, (os.cpu_count() or 2) // 2) if self._device().type == "cuda" else 0


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
