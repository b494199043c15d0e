"""`data=arrays`: cutouts in .npy, .npz or HDF5 with a table beside them, one row a cutout."""

import logging
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sources.catalogue import stacked
from photoz_lit.data.sources.published import UNREADABLE
from photoz_lit.data.sources.settings import NANOMAGGIES, CutoutSettings, Plan, Survey, cutout_facts, need
from photoz_lit.errors import DataError
from photoz_lit.setting import setting
from photoz_lit.target import Target

log = logging.getLogger(__name__)

KINDS = ("images",)
facts = cutout_facts
CHUNK = 1024


@dataclass
class Settings(CutoutSettings):
    """A table and cutouts (n, bands, pixels, pixels); perhaps others for the test split."""

    source: str = "arrays"
    path: str | None = setting(None, kind="path")
    images: str | None = setting(None, kind="path")
    images_key: str | None = None
    test_path: str | None = setting(None, kind="path")
    test_images: str | None = setting(None, kind="path")


def check(settings: Settings, survey: Survey) -> None:
    """Ask for cutouts, and a table unless there is nothing to be known."""
    if settings.labelled:
        settings.need_path("path", "a table with the true values, e.g. data.path=galaxies.csv")
    settings.need_path("images", "the cutouts, e.g. data.images=cutouts.npy")
    need(
        (settings.test_path is None) == (settings.test_images is None),
        "data.test_path and data.test_images go together: set both or neither",
    )


def plan(settings: Settings, survey: Survey, target: Target, workers: int) -> Plan:
    """Read the tables; cutouts are read in chunks when they are asked for."""
    from astropy.table import Table

    from photoz_lit.data.catalogue import standard_table
    from photoz_lit.data.formats import read_table
    from photoz_lit.data.splits import with_ids

    s, rules = settings, settings.rules(survey, target)
    pairs = [(s.path, s.images)]
    if s.test_path is not None and s.labelled:
        pairs.append((s.test_path, s.test_images))
    tables, parts = [], []
    for path, images in pairs:
        cutouts = ArrayFile(Path(str(images)), s.images_key)
        numbered = Table({"object_id": np.arange(len(cutouts.array))})  # where no table is
        table = numbered if path is None else read_table(Path(path))
        shape = (len(survey.bands), survey.pixels, survey.pixels)
        cutouts.check(shape, " (survey.bands, survey.pixels)", len(table), str(path))
        checked, rows = standard_table(table, str(path or images), rules)
        tables.append(checked)
        parts.append((cutouts, rows))

    def chunks(start: int) -> Iterator[NDArray[Any]]:
        before = 0
        for cutouts, rows in parts:
            yield from cutouts.chunks(rows[min(max(start - before, 0), len(rows)) :])
            before += len(rows)

    table = with_ids(stacked(tables))
    return s.plan_cutouts(survey, table, chunks, array=None if s.labelled else parts[0][0].as_it_is(s))


class ArrayFile:
    """An array on disk with a row a galaxy: of four axes for cutouts, of two for vectors.

    In `.npy` (memory map), `.npz` (read whole, since a zip cannot be mapped) or HDF5; `key` says which.
    """

    def __init__(self, path: Path, key: str | None = None, n_axes: int = 4) -> None:
        self.path, self.n_axes = Path(path), n_axes
        if not self.path.is_file():
            raise DataError(f"{path}: no such file. Check data.images (relative paths start at {Path.cwd()})")
        try:
            self.array = self._open(key)
        except UNREADABLE as error:
            raise DataError(f"{path}: cannot be read as an array, perhaps truncated: {error}") from error

    def _open(self, key: str | None) -> Any:
        match self.path.suffix.lower():
            case ".npy":
                return np.load(self.path, mmap_mode="r")
            case ".npz":
                archive = np.load(self.path)
                return archive[self._named(key, archive.files)]
            case ".h5" | ".hdf5":
                import h5py

                file = h5py.File(self.path)
                names = [n for n, item in file.items() if getattr(item, "ndim", 0) == self.n_axes]
                return file[self._named(key, names)]
            case suffix:
                raise DataError(
                    f"{self.path}: unknown kind of array '{suffix}'. Known: .npy, .npz, .h5, .hdf5"
                )

    def _named(self, key: str | None, names: list[str]) -> str:
        if key is None and len(names) == 1:
            return names[0]
        if key not in names:
            raise DataError(f"{self.path}: data.images_key={key} names no array. Arrays: {', '.join(names)}")
        return key

    def check(self, shape: tuple[int, ...], words: str, n_rows: int, table: str) -> None:
        """Raise DataError unless a row has the wanted shape, and the table as many rows."""
        found = tuple(self.array.shape)
        if len(found) != self.n_axes or (shape and found[1:] != shape):
            wanted = ", ".join(["n", *map(str, shape)]) if shape else "n, d"
            raise DataError(f"{self.path}: an array of shape {found}, ({wanted}) expected{words}")
        if self.array.dtype.kind not in "fiu":
            raise DataError(f"{self.path}: an array of type {self.array.dtype}, numbers expected")
        if found[0] != n_rows:
            raise DataError(f"{self.path}: {found[0]} rows for {n_rows} rows of {table}")

    def as_it_is(self, settings: Settings) -> "np.memmap[Any, Any] | None":
        """Return the memory map if it can serve as a store's inputs: nothing needs to be converted."""
        reason = None
        if self.path.suffix.lower() != ".npy":
            reason = "not .npy"
        elif self.array.dtype not in (np.float16, np.float32) or not self.array.flags.c_contiguous:
            reason = f"of type {self.array.dtype}, or not in C order"
        elif settings.zero_point not in (None, NANOMAGGIES) or settings.repair != "none":
            reason = "changed by data.zero_point or data.repair"
        if reason is None:
            return cast("np.memmap[Any, Any]", self.array)
        log.info("%s: the cutouts are copied, being %s", self.path, reason)
        return None

    def chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """Yield sorted rows, a chunk at a time."""
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            low = int(part[0])
            try:
                chunk = self.array[low : int(part[-1]) + 1]
            except OSError as error:
                raise DataError(f"{self.path}: rows {low} to {part[-1]} cannot be read: {error}") from error
            yield chunk[part - low]
            if isinstance(self.array, np.memmap) and isinstance(self.array.base, mmap.mmap):
                self.array.base.madvise(mmap.MADV_DONTNEED)  # else pages that were read stay resident
