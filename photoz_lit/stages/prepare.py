"""`stage=prepare`: from a source of galaxies to a store on disk; every other stage calls it when needed."""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from photoz_lit.config import Config
from photoz_lit.data.catalogue import assign_splits, read_table, with_ids
from photoz_lit.data.sources import arrays, catalogue, mock
from photoz_lit.data.store import Store, is_complete, open_store, rows_written, write_store
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

RENDER_CHUNK = 100  # galaxies: a second of work, so that little is lost and the bar moves


def run(config: Config) -> None:
    """Prepare the data set of these settings and say where it lies."""
    store = prepare(config)
    split = splits(store, config)
    counts = ", ".join(f"{(split == name).sum()} {name}" for name in ("train", "val", "test"))
    log.info(
        "%s: %d galaxies (%s), %s of shape %s",
        store.folder,
        len(split),
        counts,
        store.kind,
        store.inputs.shape,
    )


def prepare(config: Config) -> Store:
    """Return the store of these settings, made now if it is not there yet."""
    folder = store_folder(config)
    if is_complete(folder):
        return open_store(folder)
    log.info("preparing %s", folder)
    plan = {"mock": _plan_mock, "catalogue": _plan_catalogue, "arrays": _plan_arrays}[config.data.source](
        config
    )
    start = rows_written(folder, plan.shape, plan.dtype)
    if start:
        log.info("going on at galaxy %d of %d", start, plan.shape[0])
    chunks = _with_progress(plan.chunks(start), start, plan.shape[0], config.trainer.progress)
    return write_store(
        folder,
        plan.catalogue,
        chunks,
        shape=plan.shape,
        dtype=plan.dtype,
        kind=plan.kind,
        settings=_facts(config),
    )


def store_folder(config: Config) -> Path:
    """Return where the store of these settings lies: its name tells what it is made from."""
    return Path(config.data_dir) / f"{config.data.source}-{_digest(_facts(config))}"


def splits(store: Store, config: Config) -> NDArray[np.str_]:
    """Split the store's galaxies by object as the settings say."""
    d = config.data
    return assign_splits(
        store.catalogue,
        test_fraction=d.test_fraction,
        val_fraction=d.val_fraction,
        seed=d.split_seed,
        n_train=d.n_train,
    )


@dataclass(frozen=True)
class Plan:
    """A table, the shape of its inputs, and how to make the inputs from a row on."""

    catalogue: Table
    shape: tuple[int, ...]
    dtype: str
    kind: str
    chunks: Callable[[int], Iterable[NDArray[np.floating[Any]]]]


def _facts(config: Config) -> dict[str, Any]:
    """What a store depends on: its folder is named by a digest of this."""
    d, s = config.data, config.survey
    files = [d.path, d.test_path, d.images, d.test_images, d.mock_catalogue]
    facts: dict[str, Any] = {
        "source": d.source,
        "files": [_stamp(Path(f)) for f in files if f is not None],
        "z_range": [s.z_min, s.z_max],
        "drop_invalid": d.drop_invalid,
    }
    match d.source:
        case "mock":
            facts |= {"n": d.n_galaxies, "seed": d.mock_seed, "pixels": s.pixels, "dtype": d.dtype}
            facts |= {"version": mock.VERSION}
        case "catalogue":
            facts |= {"columns": d.columns, "magnitudes": d.magnitudes, "errors": d.magnitude_errors}
        case _:
            facts |= {"columns": d.columns, "key": d.images_key, "bands": s.bands, "pixels": s.pixels}
            facts |= {"dtype": d.dtype}
    return facts


def _stamp(path: Path) -> list[Any]:
    """Path, size and time of a file: a changed file is prepared again."""
    path = path.expanduser().absolute()
    if not path.exists():
        return [str(path)]
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns]


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _plan_mock(config: Config) -> Plan:
    d, s = config.data, config.survey
    real = read_table(Path(d.mock_catalogue)) if d.mock_catalogue else None
    try:
        galaxies = mock.draw_galaxies(d.n_galaxies, d.mock_seed, catalogue=real)
    except ValueError as error:
        raise DataError(f"{d.mock_catalogue or 'data=mock'}: {error}") from error
    outside = (galaxies["spec_z"] < s.z_min) | (galaxies["spec_z"] > s.z_max)
    if outside.any():
        raise DataError(
            f"data=mock: spec_z is outside the survey's {s.z_min:g}-{s.z_max:g} in {outside.sum()} of "
            f"{len(galaxies)} galaxies: widen survey.z_min and survey.z_max, or mend data.mock_catalogue"
        )
    workers = config.trainer.render_workers or os.cpu_count() or 1
    n = len(galaxies)

    def chunks(start: int) -> Iterator[NDArray[np.float32]]:
        parts = [galaxies[i : i + RENDER_CHUNK] for i in range(start, n, RENDER_CHUNK)]
        if workers == 1 or len(parts) == 1:
            yield from (mock.render_cutouts(part, d.mock_seed, pixels=s.pixels) for part in parts)
            return
        # Workers start afresh: a fork of a process that has run torch's threads can hang.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_parent) as pool:
            seeds, pixels = [d.mock_seed] * len(parts), [s.pixels] * len(parts)
            yield from pool.map(_render, parts, seeds, pixels)

    keep = [c for c in galaxies.colnames if not c.startswith("true_")]
    return Plan(galaxies[keep], (n, len(s.bands), s.pixels, s.pixels), d.dtype, "images", chunks)


def _end_with_parent() -> None:
    """End this worker when the main process is gone, killed even: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _render(part: Table, seed: int, pixels: int) -> NDArray[np.float32]:
    return mock.render_cutouts(part, seed, pixels=pixels)


def _plan_catalogue(config: Config) -> Plan:
    d, s = config.data, config.survey
    assert d.path is not None
    table, inputs = catalogue.load(
        Path(d.path),
        Path(d.test_path) if d.test_path else None,
        columns=d.columns,
        magnitudes=d.magnitudes,
        magnitude_errors=d.magnitude_errors,
        z_range=(s.z_min, s.z_max),
        drop_invalid=d.drop_invalid,
    )
    return Plan(table, inputs.shape, "float32", "features", lambda start: [inputs[start:]])


def _plan_arrays(config: Config) -> Plan:
    d, s = config.data, config.survey
    assert d.path is not None
    assert d.images is not None
    pairs = [(d.path, d.images)]
    if d.test_path is not None and d.test_images is not None:
        pairs.append((d.test_path, d.test_images))
    loaded = [
        arrays.load(
            Path(path),
            Path(images),
            d.images_key,
            columns=d.columns,
            z_range=(s.z_min, s.z_max),
            drop_invalid=d.drop_invalid,
            n_bands=len(s.bands),
            pixels=s.pixels,
        )
        for path, images in pairs
    ]
    tables = [table for table, _, _ in loaded]
    table = with_ids(tables[0] if len(tables) == 1 else catalogue.with_test_table(*tables))

    def chunks(start: int) -> Iterator[NDArray[np.floating[Any]]]:
        before = 0
        for _, cutouts, rows in loaded:
            skip = min(max(start - before, 0), len(rows))
            yield from cutouts.chunks(rows[skip:])
            before += len(rows)

    return Plan(table, (len(table), len(s.bands), s.pixels, s.pixels), d.dtype, "images", chunks)


def _with_progress(
    chunks: Iterable[NDArray[np.floating[Any]]], start: int, total: int, wanted: bool
) -> Iterator[NDArray[np.floating[Any]]]:
    """Pass chunks on under a progress bar with the time left, where there is a terminal."""
    show = wanted and sys.stdout.isatty() and shutil.get_terminal_size().columns > 20
    columns = (TextColumn("galaxies"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show, transient=True) as progress:
        task = progress.add_task("galaxies", total=total, completed=start)
        for chunk in chunks:
            yield chunk
            progress.advance(task, len(chunk))
