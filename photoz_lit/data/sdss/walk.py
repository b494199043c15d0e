"""From a table of galaxies to a store of their cutouts, field by field, whatever interrupts it."""

import logging
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit.data.sdss.cut import FieldCutouts, cut_fields, uncut
from photoz_lit.data.sdss.fetch import Archive
from photoz_lit.data.sdss.fields import Positions, Rows, Stamps
from photoz_lit.data.sdss.frames import ROWS, Field, Index, find_frames
from photoz_lit.data.sdss.manifest import Manifest
from photoz_lit.data.store import Store, finish_store, has_inputs, is_complete, open_rows, partial_folder
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

Cutouts = Generator[FieldCutouts, None, None]

MAX_MISSING = 0.05  # galaxies with a larger part of their cutout off the frames are flagged
DTYPE = "float16"  # of the store; a pixel of a frame holds a few thousand nanomaggies at most
CUTTING = 60.0  # galaxies a second and core, about: for the estimate
MEAN_BYTES = 3.35e6  # a compressed frame: measured on eleven of three fields, 2.9 to 3.8 MB
BYTES_PER_SECOND = 1e6  # of a connection, assumed


@dataclass(frozen=True)
class Walk:
    """Galaxies, where their frames are, and how they are cut.

    The table has object_id, ra, dec; rowc, colc where known (r-frame pixels, the centre of the first is 0.5);
    for the archive run, camcol, field, -1 where unknown. Rows with a `flag` are left out.
    """

    galaxies: Table
    frames: Path | Archive  # a folder, or the archive
    stamps: Stamps
    workers: int  # threads that read frames
    complete: Callable[[Table, NDArray[Any]], Table] | None = None  # the table, when the inputs are known

    def write(self, folder: Path, facts: dict[str, Any], progress: Callable[[int, int], None]) -> Store:
        """Cut all galaxies and write the store; what an interrupted run cut is kept."""
        n, known = len(self.galaxies), self.galaxies.colnames
        shape = (n, *self.stamps.shape)
        given = np.asarray(self.galaxies["flag"]) if "flag" in known else np.full(n, "", "U8")
        partial = partial_folder(folder)
        again = is_complete(partial)  # `reopen` left it so: what it has can be used, whatever happens now
        if not has_inputs(folder, shape, DTYPE):
            (partial / "manifest.csv").unlink(missing_ok=True)
        log.info("%s", self.estimate())
        with open_rows(folder, shape, DTYPE) as inputs:
            manifest = Manifest(partial / "manifest.csv", self.galaxies["object_id"])
            rows = np.flatnonzero(~manifest.settled & (given == ""))
            progress(n - len(rows), n)
            try:
                with closing(self._cutouts(rows)) as fields:
                    for field in fields:
                        manifest.add(field, self._put(inputs, field))
                        progress(len(field.rows), n)
            except DataError as error:
                if not again:
                    raise
                log.warning("%s", error)
        catalogue = self.galaxies.copy()
        catalogue["missing_fraction"] = manifest.missing_fraction
        catalogue["flag"] = np.where(given == "", manifest.flag, given)
        reasons = manifest.reasons()
        if (catalogue["flag"] != "").all():
            raise DataError(f"none of {n} galaxies could be cut; {manifest.path} says why: {reasons}")
        manifest.rewrite()
        if reasons:
            failed = (catalogue["flag"] != given).sum()
            log.warning("%d of %d galaxies were not cut (manifest.csv): %s", failed, n, reasons)
        if self.complete is not None:
            catalogue = self.complete(catalogue, np.load(partial / "inputs.npy", mmap_mode="r"))
        return finish_store(folder, catalogue, shape=shape, kind="images", settings=facts)

    def _put(self, inputs: NDArray[Any], field: FieldCutouts) -> list[str]:
        """Write a field's cutouts into the store, on disk before it returns; return each galaxy's flag."""
        with np.errstate(over="ignore"):
            cutouts = field.cutouts.astype(inputs.dtype)
        fits = np.isfinite(cutouts).all((1, 2, 3))
        cases = [np.array(field.faults) != "", field.missing_fraction > MAX_MISSING, ~fits]
        flags = np.select(cases, ["frame", "edge", "pixels"], "")
        cutouts[flags != ""] = 0
        inputs[field.rows] = cutouts
        inputs.flush()  # type: ignore[attr-defined]  # a memory map
        return [str(flag) for flag in flags]

    def _cutouts(self, rows: Rows) -> Cutouts:
        if isinstance(self.frames, Archive):
            yield from self._from_archive(self.frames, rows)
        elif len(rows):
            yield from self._cut(find_frames(self.frames, self.stamps.bands), rows)

    def _cut(self, index: Index, rows: Rows) -> Cutouts:
        """Cut some galaxies; the rows that come out are those of the whole table."""
        part = self.galaxies[rows]
        pixel = [part[name] if name in part.colnames else np.nan for name in ("rowc", "colc")]
        positions = Positions.of(part["ra"], part["dec"], *pixel)
        for field in cut_fields(positions, index, self.stamps, self.workers):
            yield replace(field, rows=rows[field.rows])

    def _from_archive(self, archive: Archive, rows: Rows) -> Cutouts:
        """Cut the galaxies of a field as soon as its frames, and those of its neighbours, are there."""
        members, needed = self._fields(rows)
        lost = np.setdiff1d(rows, [row for mine in members.values() for row in mine])
        yield from uncut(None, lost, self.stamps, "its run, camcol or field is not known")
        homes = sorted(members)
        with closing(archive.fetch([sorted(needed[home]) for home in homes], self.stamps.bands)) as arriving:
            for home, (paths, failures) in zip(homes, arriving, strict=True):
                mine = np.array(members[home])
                if home in failures:
                    yield from uncut(home, mine, self.stamps, failures[home])
                    continue
                index = {field: files for field, files in paths.items() if field not in failures}
                reason = "; ".join(failures.values())
                for part in self._cut(index, mine):
                    yield replace(part, incomplete=[reason if m else "" for m in part.missing_fraction])

    def _fields(self, rows: Rows) -> tuple[dict[Field, list[int]], dict[Field, set[Field]]]:
        """Return the rows of each field that the table names, and which fields they need, neighbours too."""
        part = self.galaxies[rows]
        names = np.stack([np.asarray(part[n], dtype=np.int64) for n in ("run", "camcol", "field")], axis=1)
        rowc = np.asarray(part["rowc"], float) if "rowc" in part.colnames else np.full(len(part), ROWS / 2)
        step = np.where(rowc < self.stamps.reach, -1, np.where(rowc > ROWS - self.stamps.reach, 1, 0))
        members: dict[Field, list[int]] = defaultdict(list)
        needed: dict[Field, set[Field]] = defaultdict(set)
        for row, name, s in zip(rows.tolist(), names.tolist(), step.tolist(), strict=True):
            if min(name) >= 0:
                field = Field(*name)
                members[field].append(row)
                needed[field] |= {field, field._replace(field=field.field + s)}
        return members, needed

    def estimate(self) -> str:
        """Say what a preparation takes: galaxies, fields, download, time, disk."""
        n = len(self.galaxies)
        cutouts = n * int(np.prod(self.stamps.shape)) * np.dtype(DTYPE).itemsize
        words, seconds = f"{n} galaxies; cutouts take {cutouts / 1e9:.2f} GB", n / CUTTING
        if isinstance(self.frames, Archive):
            fields = set().union(*self._fields(np.arange(n))[1].values())
            size = len(fields) * len(self.stamps.bands) * MEAN_BYTES
            seconds = max(seconds, size / (self.frames.connections * BYTES_PER_SECOND))
            words += f"; {len(fields)} fields, {size / 1e9:.2f} GB to fetch (removed once cut)"
        return f"{words}; about {seconds / 60:.0f} min" if seconds > 90 else f"{words}; about {seconds:.0f} s"


def reopen(store: Store) -> int:
    """Make a finished store unfinished where another try may get frames; return for how many galaxies."""
    try:
        settled = Manifest(store.folder / "manifest.csv", store.catalogue["object_id"]).settled
    except DataError as error:
        log.warning("the store can be used, but nothing in it is tried again: %s", error)
        return 0
    n = int((~settled & np.isin(store.flags, ("frame", "edge"))).sum())
    if n:
        partial = partial_folder(store.folder)
        store.folder.rename(partial)  # its `store.json` tells `Walk.write` that it can be used as it is
        (partial / "data_report.html").unlink(missing_ok=True)
    return n
