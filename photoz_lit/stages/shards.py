"""Parts of a prediction, each by a process of its own, on any machines that share a file system.

Each part has a run folder `shards/I-of-N` in that of the whole, and an interrupted one goes on. Whoever ends
last makes the whole of them; the same bytes as one process writes.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from photoz_lit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from photoz_lit.data.store import Store
    from photoz_lit.results import Results

RANKS = (("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_NTASKS"))  # of torchrun, of srun


def shard_of(wanted: str) -> tuple[int, int]:
    """Return I and N of `predict.shard`; ConfigError where it is none."""
    if wanted == "none":
        return 0, 1
    if wanted == "rank":
        for rank, size in RANKS:
            if rank in os.environ and size in os.environ:
                wanted = f"{os.environ[rank]}/{os.environ[size]}"
                break
    i, _, n = wanted.partition("/")
    if not (i.isdecimal() and n.isdecimal() and int(i) < int(n)):
        raise ConfigError(
            f"predict.shard={wanted} is no part: type I/N with I from 0 to N - 1, e.g. predict.shard=0/8; or "
            "rank, where torchrun or srun starts the processes"
        )
    return int(i), int(n)


def part_of(store: "Store", i: int, n: int) -> "Store":
    """Return the i-th of n parts of a store, of whole chunks: batches are those of one process."""
    from photoz_lit.inference import CHUNK

    inputs, chunks = store.inputs, -(-len(store.catalogue) // CHUNK)
    if n > chunks:
        raise ConfigError(
            f"predict.shard={i}/{n}: a part has {CHUNK} galaxies at least: type N up to {chunks}"
        )
    assert isinstance(inputs, np.memmap)
    start, stop = (min(k * chunks // n * CHUNK, len(inputs)) for k in (i, i + 1))
    offset, shape = inputs.offset + start * inputs[:1].nbytes, (stop - start, *inputs.shape[1:])
    mapped: Any = np.memmap(str(inputs.filename), inputs.dtype, "r", offset, shape)
    return replace(store, catalogue=store.catalogue[start:stop], inputs=mapped)


def folders(folder: Path, n: int) -> list[Path]:
    """Return where the n parts of a run folder lie."""
    return [folder / "shards" / f"{i}-of-{n}" for i in range(n)]


def missing(folder: Path, n: int) -> list[str]:
    """Return which of n parts are not done."""
    return [f"{i}/{n}" for i, f in enumerate(folders(folder, n)) if not (f / "done.json").is_file()]


def finished(folder: Path) -> list[Path]:
    """Return the parts that a run folder is made of, in order, or none; DataError where some are not done."""
    numbers = sorted({int(f.name.rpartition("-")[2]) for f in folder.glob("shards/*-of-*")})
    unfinished = {n: missing(folder, n) for n in numbers}
    for n in numbers:
        if not unfinished[n]:
            return folders(folder, n)
    if numbers:
        said = " or ".join(",".join(names) for names in unfinished.values())
        raise DataError(
            f"{folder / 'shards'}: parts are not done: predict.shard={said}. Do these, or delete the "
            "folder to begin again"
        )
    return []


def gather(results: "Results", shards: Sequence[Path], tick: Callable[[int], None]) -> None:
    """Append the rows of finished parts, a chunk at a time."""
    from photoz_lit.inference import CHUNK
    from photoz_lit.results import read_rows

    start = 0
    for rows, pdf in chain.from_iterable(read_rows(folder, CHUNK) for folder in shards):
        if start >= results.rows:  # else they are there: chunks are the same as before an interruption
            results.append(pdf, rows["flag"].astype("U8"), rows["distance"])
            tick(len(pdf))
        start += len(pdf)
    if start != results.n:
        raise DataError(
            f"{shards[0].parent}: {start} galaxies of {results.n}: delete this folder and run again"
        )


def forget(folder: Path) -> None:
    """Remove the parts of a whole that is done."""
    shutil.rmtree(folder / "shards", ignore_errors=True)
