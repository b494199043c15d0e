"""`data=sdss`: cutouts of SDSS galaxies, from frames on disk or field by field from the archive.

The store is written row by row as fields come, and a manifest says of each galaxy whether it was cut and, if
not, why. An interrupted run goes on with the galaxies that have no line in it; a finished one that is
prepared again tries those that lack a frame.
"""

import csv
import logging
import os
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.columns import numbers
from photoz_lit.data.formats import read_table
from photoz_lit.data.sdss import query as skyserver
from photoz_lit.data.sdss.archive import UNREACHABLE, Archive, size_estimate
from photoz_lit.data.sdss.cut import FieldCutouts, cut_fields, uncut
from photoz_lit.data.sdss.frames import Field, FrameName, find_frames
from photoz_lit.data.splits import with_ids
from photoz_lit.data.store import (
    FLAGS,
    Store,
    finish_store,
    has_inputs,
    is_complete,
    open_rows,
    partial_folder,
)
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

FIELD_ROWS = 1489  # of a frame; neighbouring fields of a run share 128 of them
PLACE = ("run", "rerun", "camcol", "field")
PIXEL_POSITION = ("rowc", "colc")
CUTTING = 60.0  # galaxies a second and core, about: for the estimate
MANIFEST = ("row", "object_id", "status", "missing_fraction", "field", "reason")


@dataclass(frozen=True)
class Stamps:
    """How galaxies are cut.

    Parameters
    ----------
    bands : str
        One letter a band.
    pixels : int
        Side of a cutout.
    pixel_scale : float
        Side of a pixel, arcsec.
    north_up : bool
        North up and east left, instead of along the frame's rows and columns.
    max_missing : float
        Galaxies with a larger part of their cutout off the frames are flagged and not used.
    dtype : str
        Of the store.
    """

    bands: str
    pixels: int
    pixel_scale: float
    north_up: bool
    max_missing: float
    dtype: str


def read_positions(path: Path, rules: TableRules, limit: int | None) -> Table:
    """Read a table of positions, with what else is known of the galaxies.

    Returns
    -------
    Table
        The standard table, and, where they are there, run, rerun, camcol, field (-1 in an empty cell), rowc,
        colc (r-frame pixels, the centre of the first is 0.5; NaN in an empty cell).

    Raises
    ------
    DataError
        It has no ra and dec, or a value cannot be used.
    """
    raw = read_table(path)
    names = {name: rules.columns.get(name, name) for name in ("ra", "dec")}
    for name, theirs in names.items():
        if theirs not in raw.colnames:
            raise DataError(
                f"{path}: no column '{theirs}': data.positions needs ra and dec in degrees. Its columns are: "
                f"{', '.join(raw.colnames)}. Name yours by data.columns.{name}=..."
            )
    table, rows = standard_table(raw, str(path), rules)
    table = with_ids(table)
    for name in (*PLACE, *PIXEL_POSITION):
        if name in raw.colnames:
            values = numbers(raw, name, str(path))[rows]
            table[name] = values if name in PIXEL_POSITION else _whole_numbers(values, name, path)
    return table[:limit]


def _whole_numbers(values: NDArray[np.float64], name: str, path: Path) -> NDArray[np.int64]:
    """Return names of fields as integers, -1 where a cell is empty."""
    values = np.where(np.isfinite(values), values, -1)
    if (wrong := values != np.floor(values)).any():
        raise DataError(f"{path}: column {name} holds {values[wrong][0]:g}: whole numbers are needed")
    return values.astype(np.int64)


def ask_catalogue(
    selection: skyserver.Selection, folder: Path, server: skyserver.SkyServer, rules: TableRules
) -> Table:
    """Fetch galaxies with good spectra from the SkyServer; the folder keeps its pages."""
    raw = skyserver.standard_columns(skyserver.query(selection, folder, server), rules.ebv_maps)
    table, rows = standard_table(raw, server.base, rules)
    for name in raw.colnames:
        if name not in table.colnames:
            table[name] = raw[name][rows]
    return table


def make_store(
    folder: Path,
    galaxies: Table,
    frames: Path | Archive,
    stamps: Stamps,
    *,
    settings: dict[str, Any],
    workers: int,
    progress: Callable[[int, int], None],
) -> Store:
    """Cut all galaxies and write the store; what an interrupted run cut is kept.

    Parameters
    ----------
    folder : Path
        Final place of the store.
    galaxies : Table
        From `read_positions` or `ask_catalogue`.
    frames : Path or Archive
        A folder of frames, or the archive: its frames are removed once cut.
    stamps : Stamps
        How galaxies are cut.
    settings : dict
        What the store was made from, for the record.
    workers : int
        Threads that read frames.
    progress : callable
        Told after each field how many more galaxies are done, and of how many.

    Raises
    ------
    DataError
        No galaxy could be cut, frames cannot be had, or the manifest is damaged.
    """
    n = len(galaxies)
    shape = (n, len(stamps.bands), stamps.pixels, stamps.pixels)
    partial = partial_folder(folder)
    again = is_complete(partial)  # `reopen` left it so: what it has can be used, whatever happens now
    if not has_inputs(folder, shape, stamps.dtype):
        (partial / "manifest.csv").unlink(missing_ok=True)
    with open_rows(folder, shape, stamps.dtype) as inputs:
        manifest = Manifest(partial / "manifest.csv", galaxies["object_id"])
        rows = np.flatnonzero(~manifest.settled)
        progress(n - len(rows), n)
        try:
            with closing(_from(frames, galaxies, rows, stamps, workers)) as fields:
                for field in fields:
                    manifest.add(field, _write(inputs, field, stamps.max_missing))
                    progress(len(field.rows), n)
        except DataError as error:
            if not again:
                raise
            log.warning("%s", error)
    catalogue = galaxies.copy()
    catalogue["missing_fraction"] = manifest.missing_fraction
    given = np.asarray(catalogue["flag"]) if "flag" in catalogue.colnames else np.full(n, "", "U8")
    catalogue["flag"] = np.where(given == "", manifest.flag, given)
    if (catalogue["flag"] != "").all():
        raise DataError(
            f"none of {n} galaxies could be cut; {partial / 'manifest.csv'} says why: {manifest.reasons()}"
        )
    manifest.rewrite()
    if reasons := manifest.reasons():
        log.warning(
            "%d of %d galaxies were not cut (manifest.csv): %s", (manifest.flag != "").sum(), n, reasons
        )
    return finish_store(folder, catalogue, shape=shape, kind="images", settings=settings)


def failed_rows(store: Store) -> int:
    """Count the galaxies of a finished store that lack a frame: another try may get it."""
    return int((store.flags == "frame").sum())


def reopen(folder: Path) -> None:
    """Make a finished store unfinished again, so that galaxies that lacked a frame are tried.

    It keeps its `store.json`, which tells `make_store` that it can be finished whatever happens.
    """
    partial = partial_folder(folder)
    folder.rename(partial)
    (partial / "data_report.html").unlink(missing_ok=True)


def _write(inputs: NDArray[Any], field: FieldCutouts, max_missing: float) -> list[str]:
    """Write a field's cutouts into the store, on disk before it returns; return the flag of each galaxy."""
    with np.errstate(over="ignore"):
        cutouts = field.cutouts.astype(inputs.dtype)
    flags = []
    for i, (fault, missing) in enumerate(zip(field.faults, field.missing_fraction, strict=True)):
        finite = bool(np.isfinite(cutouts[i]).all())
        flag = "frame" if fault else "edge" if missing > max_missing else "" if finite else "pixels"
        if flag:
            cutouts[i] = 0
        flags.append(flag)
    inputs[field.rows] = cutouts
    inputs.flush()  # type: ignore[attr-defined]  # a memory map
    return flags


class Manifest:
    """What became of each galaxy, one line each in a file that only grows until the store is finished.

    Galaxies that lack a frame are not settled: the next run tries them again.

    Parameters
    ----------
    path : Path
        The file.
    object_id : array (n,)
        Of all galaxies.

    Raises
    ------
    DataError
        The file is damaged, or of other galaxies.
    """

    def __init__(self, path: Path, object_id: NDArray[Any]) -> None:
        self.path, self.object_id = path, np.asarray(object_id)
        n = len(self.object_id)
        self.lines: list[dict[str, Any] | None] = [None] * n
        if path.is_file():
            _end_at_a_line(path)
            for line in _read_manifest(path, self.object_id):
                self.lines[int(line["row"])] = line

    @property
    def settled(self) -> NDArray[np.bool_]:
        """Which galaxies need no other try, (n,)."""
        return np.array([line is not None and line["status"] != "frame" for line in self.lines])

    @property
    def flag(self) -> NDArray[np.str_]:
        """Flag of each galaxy, (n,); those without a line count as lacking their frame."""
        status = [line["status"] if line else "frame" for line in self.lines]
        return np.array(["" if s == "done" else s for s in status], dtype="U8")

    @property
    def missing_fraction(self) -> NDArray[np.float32]:
        """Part of each cutout that lies off the frames, (n,)."""
        return np.array([float(line["missing_fraction"]) if line else 1.0 for line in self.lines], np.float32)

    def add(self, field: FieldCutouts, flags: list[str]) -> None:
        """Add the galaxies of a field, once their cutouts are on disk."""
        new = not self.path.is_file() or self.path.stat().st_size == 0
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, MANIFEST)
            if new:
                writer.writeheader()
            for row, flag, missing, fault in zip(
                field.rows, flags, field.missing_fraction, field.faults, strict=True
            ):
                reason = fault or {
                    "": "",
                    "edge": f"{missing:.0%} of the cutout is off the frames",
                    "pixels": "a value does not fit the type: data.dtype=float32",
                }.get(flag, "")
                line = {
                    "row": int(row),
                    "object_id": self.object_id[row],
                    "status": flag or "done",
                    "missing_fraction": f"{missing:.4f}",
                    "field": "" if field.field is None else str(field.field),
                    "reason": " ".join(reason.split()),
                }
                writer.writerow(line)
                self.lines[int(row)] = line
            file.flush()
            os.fsync(file.fileno())

    def reasons(self) -> str:
        """Say why galaxies were not cut, the commonest reasons first."""
        failed = [line for line in self.lines if line and line["status"] != "done"]
        counts = Counter(FLAGS["edge"] if line["status"] == "edge" else line["reason"] for line in failed)
        words = [f"{count} x {reason}" for reason, count in counts.most_common(5)]
        return "; ".join([*words, *(["..."] if len(counts) > 5 else [])])

    def rewrite(self) -> None:
        """Write one line a galaxy, in the order of the table."""
        beside = self.path.with_suffix(".partial.csv")
        with beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, MANIFEST)
            writer.writeheader()
            writer.writerows(line for line in self.lines if line)
        beside.replace(self.path)


def _read_manifest(path: Path, object_id: NDArray[Any]) -> list[dict[str, Any]]:
    """Read the lines and check that they are of these galaxies."""
    try:
        with path.open(newline="") as file:
            lines = list(csv.DictReader(file, strict=True))
        for line in lines:
            float(line["missing_fraction"])
            if line["status"] not in ("done", "edge", "frame", "pixels"):
                raise ValueError(f"status {line['status']!r}")
            if str(object_id[int(line["row"])]) != line["object_id"]:
                raise ValueError(f"row {line['row']} is of another galaxy")
    except (ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
        raise DataError(
            f"{path}: damaged ({error}). Remove {path.parent} and prepare the data set again"
        ) from error
    return lines


def _end_at_a_line(path: Path) -> None:
    """Take away the beginning of a line that a killed run left."""
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _from(
    frames: Path | Archive, galaxies: Table, rows: NDArray[np.int64], stamps: Stamps, workers: int
) -> Generator[FieldCutouts, None, None]:
    if isinstance(frames, Archive):
        return from_archive(frames, galaxies, rows, stamps, workers)
    return from_folder(frames, galaxies, rows, stamps, workers)


def from_folder(
    folder: Path, galaxies: Table, rows: NDArray[np.int64], stamps: Stamps, workers: int
) -> Generator[FieldCutouts, None, None]:
    """Cut galaxies from frames on disk, field by field."""
    if len(rows) == 0:
        return
    yield from _cut(find_frames(folder, stamps.bands), galaxies, rows, stamps, workers)


def _cut(
    index: Mapping[Field, Mapping[str, Path]],
    galaxies: Table,
    rows: NDArray[np.int64],
    stamps: Stamps,
    workers: int,
) -> Generator[FieldCutouts, None, None]:
    """Cut some galaxies from an index of frames; the rows that come out are those of the whole table."""
    part = galaxies[rows]
    pixel = [np.asarray(part[n], float) if n in part.colnames else None for n in ("rowc", "colc")]
    for field in cut_fields(
        np.asarray(part["ra"], float),
        np.asarray(part["dec"], float),
        index,
        stamps.bands,
        pixels=stamps.pixels,
        pixel_scale=stamps.pixel_scale,
        north_up=stamps.north_up,
        rowc=pixel[0],
        colc=pixel[1],
        max_workers=workers,
    ):
        yield replace(field, rows=rows[field.rows])


def fields_of(galaxies: Table, rows: NDArray[np.int64], reach: float) -> list[tuple[Field, ...]]:
    """Return the fields that each galaxy is cut from: its own, and a neighbour where it is close to the edge.

    None for galaxies of which the table does not say it.

    Parameters
    ----------
    galaxies : Table
        With run, camcol, field and, where known, rowc.
    rows : array (m,)
        Which galaxies.
    reach : float
        How far a cutout reaches from its middle, in pixels of the frames.

    Raises
    ------
    DataError
        The table has no columns that say it.
    """
    if missing := [n for n in ("run", "camcol", "field") if n not in galaxies.colnames]:
        raise DataError(
            f"data.positions has no column {', '.join(missing)}: the archive is asked by run, camcol and "
            "field. Add these columns, or name a folder of frames by data.frames"
        )
    part = galaxies[rows]
    run, camcol, field = (np.asarray(part[n], dtype=np.int64) for n in ("run", "camcol", "field"))
    rowc = np.asarray(part["rowc"], float) if "rowc" in part.colnames else np.full(len(part), FIELD_ROWS / 2)
    step = np.where(rowc < reach, -1, np.where(rowc > FIELD_ROWS - reach, 1, 0))
    own = [Field(*map(int, names)) for names in zip(run, camcol, field, strict=True)]
    return [
        () if min(f) < 0 else (f,) if s == 0 else (f, f._replace(field=f.field + int(s)))
        for f, s in zip(own, step, strict=True)
    ]


def from_archive(
    archive: Archive, galaxies: Table, rows: NDArray[np.int64], stamps: Stamps, workers: int
) -> Generator[FieldCutouts, None, None]:
    """Fetch fields in order, cut galaxies as soon as their fields are there, remove frames that are used up.

    No frame is fetched twice: one that several galaxies need stays until the last of them is cut, and those
    of a field that lacks a band stay for another try.
    """
    reach = stamps.pixels * stamps.pixel_scale / 0.396 * 0.75  # turned by up to 45 degrees, and a margin
    needs = dict(zip(rows.tolist(), fields_of(galaxies, rows, reach), strict=True))
    lost = np.array([row for row in needs if not needs[row]], np.int64)
    shape = (len(stamps.bands), stamps.pixels, stamps.pixels)
    yield from uncut(None, lost, shape, "its run, camcol or field is not in the table")
    waiting: dict[Field, set[int]] = {}
    for row, fields in needs.items():
        for f in fields:
            waiting.setdefault(f, set()).add(row)
    here: dict[Field, dict[str, Path]] = {}
    failed: dict[Field, dict[str, str]] = {}
    order = [[FrameName(band, *f) for band in stamps.bands] for f in sorted(waiting)]
    with closing(archive.fetch(order)) as arriving:
        for fetched in arriving:
            field = fetched.frames[0].key
            here[field], failed[field] = dict(fetched.paths), dict(fetched.failures)
            for reason in fetched.failures.values():
                if UNREACHABLE in reason:
                    raise DataError(f"{reason}. What is cut is kept: type the same command to go on")
            ready = [row for row in sorted(waiting[field]) if all(f in here for f in needs[row])]
            groups: dict[tuple[Field, ...], list[int]] = {}
            for row in ready:
                groups.setdefault(needs[row], []).append(row)
            for fields, members in groups.items():
                yield from _cut_group(fields, here, failed, galaxies, np.array(members), stamps, workers)
            for row in ready:
                for f in needs[row]:
                    waiting[f].discard(row)
            for f in [f for f in here if not waiting[f]]:
                for path in here.pop(f).values():
                    if not failed[f]:
                        path.unlink(missing_ok=True)


def _cut_group(
    fields: tuple[Field, ...],
    here: Mapping[Field, Mapping[str, Path]],
    failed: Mapping[Field, Mapping[str, str]],
    galaxies: Table,
    rows: NDArray[np.int64],
    stamps: Stamps,
    workers: int,
) -> Generator[FieldCutouts, None, None]:
    """Cut galaxies that need the same fields; without their own in all bands they fail with the reason."""
    own = fields[0]
    if failed[own]:
        reason = "; ".join(f"band {band}: {why}" for band, why in failed[own].items())
        yield from uncut(own, rows, (len(stamps.bands), stamps.pixels, stamps.pixels), reason)
        return
    index = {f: here[f] for f in fields if not failed[f]}
    yield from _cut(index, galaxies, rows, stamps, workers)


def estimate(galaxies: Table, stamps: Stamps, frames: Path | Archive) -> str:
    """Say what a preparation takes: galaxies, fields, download, time, disk."""
    n = len(galaxies)
    cutouts = n * len(stamps.bands) * stamps.pixels**2 * np.dtype(stamps.dtype).itemsize
    words = f"{n} galaxies; cutouts take {cutouts / 1e9:.2f} GB"
    seconds = n / CUTTING
    if isinstance(frames, Archive):
        own = {f for fields in fields_of(galaxies, np.arange(n), stamps.pixels / 2) for f in fields}
        size, fetching = size_estimate(len(own) * len(stamps.bands), connections=frames.connections)
        seconds = max(seconds, fetching)
        words += f"; {len(own)} fields, {size / 1e9:.2f} GB to fetch (removed once cut)"
    return f"{words}; about {seconds / 60:.0f} min" if seconds > 90 else f"{words}; about {seconds:.0f} s"
