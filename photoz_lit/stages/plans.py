"""One plan a source: which galaxies a store will hold, and how to make their inputs from any row on."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit.config import Config
from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.sources import arrays, catalogue, embeddings, mock, published, stamps
from photoz_lit.data.splits import NUMBERED, with_ids
from photoz_lit.errors import DataError

NANOMAGGIES = 22.5  # AB zero point
RENDER_CHUNK = 100  # galaxies: a second of work, so that little is lost and the bar moves


@dataclass(frozen=True)
class Plan:
    """A table, the shape of its inputs, and how to make the inputs from a row on.

    Parameters
    ----------
    catalogue, shape, dtype, kind
        As in `photoz_lit.data.store.Store`.
    chunks : callable
        From a row on, yields inputs in order.
    keep_faulty : bool
        Flag galaxies whose inputs cannot be used, instead of stopping at them.
    """

    catalogue: Table
    shape: tuple[int, ...]
    dtype: str
    kind: str
    chunks: Callable[[int], Iterable[NDArray[np.floating[Any]]]]
    keep_faulty: bool = False


def plan_of(config: Config) -> Plan:
    """Read and check the tables of a source; its images wait until they are asked for."""
    match config.data.source:
        case "mock":
            return _mock(config)
        case "catalogue":
            return _catalogue(config)
        case "arrays":
            return _arrays(config)
        case "published":
            return _published(config)
        case "stamps":
            return _stamps(config)
        case "embeddings":
            return _embeddings(config)
        case source:
            raise AssertionError(f"no plan for {source}")


def table_rules(config: Config) -> TableRules:
    """Return what the settings say of foreign tables."""
    d, s = config.data, config.survey
    truth = config.target.column
    return TableRules(
        columns={truth if ours == "target" else ours: yours for ours, yours in d.columns.items() if yours},
        z_range=(s.z_min, s.z_max),
        magnitudes=d.magnitudes if d.source == "catalogue" else (),
        magnitude_errors=d.magnitude_errors if d.source == "catalogue" else (),
        drop_invalid=d.drop_invalid,
        labelled=d.labelled,
        ebv_maps=None if d.ebv_maps is None else Path(d.ebv_maps),
        target=truth,
    )


def _images(config: Config, table: Table, chunks: Callable[[int], Iterable[NDArray[Any]]]) -> Plan:
    """Return the plan of a source of cutouts, in nanomaggies unless `data.zero_point` says otherwise."""
    d, s = config.data, config.survey
    shape = (len(table), len(s.bands), s.pixels, s.pixels)
    scale = 1.0 if d.zero_point is None else 10 ** (-0.4 * (d.zero_point - NANOMAGGIES))

    def scaled(start: int) -> Iterator[NDArray[Any]]:
        for chunk in chunks(start):
            yield chunk if scale == 1 else np.asarray(chunk, dtype=np.float32) * np.float32(scale)

    return Plan(table, shape, d.dtype, "images", scaled, keep_faulty=d.drop_invalid or not d.labelled)


def _mock(config: Config) -> Plan:
    d, s = config.data, config.survey
    real = None
    if d.mock_catalogue is not None:
        z_range = (s.z_min, s.z_max) if config.target.is_redshift else mock.Z_RANGE
        rules = replace(
            table_rules(config),
            z_range=z_range,
            magnitudes=d.magnitudes,
            magnitude_errors=d.magnitude_errors,
        )
        real = mock.read_real_galaxies(Path(d.mock_catalogue), rules)
    try:
        galaxies = mock.draw_galaxies(d.n_galaxies, d.mock_seed, catalogue=real)
    except ValueError as error:
        raise DataError(f"{d.mock_catalogue or 'data=mock'}: {error}") from error
    outside = (galaxies["spec_z"] < s.z_min) | (galaxies["spec_z"] > s.z_max)
    if config.target.is_redshift and outside.any():
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

    table = galaxies[[c for c in galaxies.colnames if not c.startswith("true_")]]
    if real is not None:  # a galaxy that was drawn twice is one object: no split shares it with another
        for name in [c for c in ("object_id", "ra", "dec", "split") if c in real.colnames]:
            table[name] = real[name][galaxies["catalogue_row"]]
        table.meta[NUMBERED] = real.meta.get(NUMBERED, False)
    return Plan(table, (n, len(s.bands), s.pixels, s.pixels), d.dtype, "images", chunks)


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


def _catalogue(config: Config) -> Plan:
    d = config.data
    assert d.path is not None
    test_path = Path(d.test_path) if d.test_path and d.labelled else None
    table, inputs = catalogue.load(Path(d.path), test_path, table_rules(config))
    return Plan(table, inputs.shape, "float32", "features", lambda start: [inputs[start:]], not d.labelled)


def _arrays(config: Config) -> Plan:
    d, s = config.data, config.survey
    assert d.path is not None
    assert d.images is not None
    pairs = [(d.path, d.images)]
    if d.test_path is not None and d.test_images is not None and d.labelled:
        pairs.append((d.test_path, d.test_images))
    rules = table_rules(config)
    loaded = [
        arrays.load(Path(path), Path(images), d.images_key, rules, len(s.bands), s.pixels)
        for path, images in pairs
    ]
    tables = [table for table, _, _ in loaded]
    table = tables[0] if len(tables) == 1 else catalogue.with_test_table(*tables)

    def chunks(start: int) -> Iterator[NDArray[np.floating[Any]]]:
        before = 0
        for _, cutouts, rows in loaded:
            skip = min(max(start - before, 0), len(rows))
            yield from cutouts.chunks(rows[skip:])
            before += len(rows)

    return _images(config, with_ids(table), chunks)


def _published(config: Config) -> Plan:
    d, s = config.data, config.survey
    assert d.path is not None
    assert d.layout is not None
    reader = published.open_layout(d.layout, Path(d.path), len(s.bands), s.pixels)
    if d.zero_point is not None:
        reader = replace(reader, zero_point=NANOMAGGIES)  # the user's, instead of the layout's
    rules = table_rules(config)
    rules = replace(rules, columns={**reader.columns, **rules.columns})
    table, rows = standard_table(reader.table, d.path, rules)
    return _images(config, with_ids(table), lambda start: reader.chunks(rows[start:]))


def _stamps(config: Config) -> Plan:
    d, s = config.data, config.survey
    assert d.images is not None
    table, files = stamps.load(
        Path(d.images), d.pattern, Path(d.path) if d.path else None, table_rules(config), s.bands, s.pixels
    )
    strict = d.labelled and not d.drop_invalid
    return _images(config, table, lambda start: stamps.chunks(files[start:], s.bands, s.pixels, strict))


def _embeddings(config: Config) -> Plan:
    d = config.data
    assert d.path is not None
    files = [(d.path, d.images)]
    if d.test_path is not None and d.labelled:
        files.append((d.test_path, d.test_images))
    loaded = [
        embeddings.load(
            Path(path), Path(array) if array else None, d.images_key, d.vectors, table_rules(config)
        )
        for path, array in files
    ]
    tables, vectors = [t for t, _ in loaded], np.concatenate([v for _, v in loaded])
    table = tables[0] if len(tables) == 1 else catalogue.with_test_table(*tables)
    return Plan(
        with_ids(table),
        vectors.shape,
        "float32",
        "vectors",
        lambda start: [vectors[start:]],
        keep_faulty=d.drop_invalid or not d.labelled,
    )
