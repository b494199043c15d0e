"""What the layouts of published data sets share: one table, and its cutouts streamed in flat memory.

Arrays in `.npz` may have any size: NumPy's own `mmap_mode` maps nothing there and reads whole arrays.
"""

import glob
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sources.settings import NANOMAGGIES, CutoutSettings, Plan, Survey, cutout_facts
from photoz_lit.errors import DataError
from photoz_lit.setting import setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from astropy.table import Table

# What zipfile, numpy and h5py raise for files that are cut off, damaged or not what they say they are.
UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
)
STEP = 4 * 2**20  # bytes a read: what zipfile holds of a compressed member at once
CHUNK_BYTES = 64 * 2**20  # of cutouts as the file holds them: twice or thrice that is in memory at once
KINDS = ("images",)
facts = cutout_facts


@dataclass
class PublishedSettings(CutoutSettings):
    """The file, folder or pattern of files; `zero_point` null: the layout's."""

    drop_invalid: bool = True
    path: str | None = setting(None, kind="path")


def check(settings: PublishedSettings, survey: Survey) -> None:
    """Ask for the data set."""
    settings.need_path("path", "the data set's file or folder, e.g. data.path=sdss_vagc.npz")


class Part(Protocol):
    """The cutouts of one file, or of one folder of small files."""

    path: Path
    rows: int
    cutout: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, spans: Sequence[tuple[int, int]]) -> Iterator[NDArray[Any]]:
        """Yield the cutouts of ascending row ranges [low, high), as the file holds them."""
        ...


@dataclass(frozen=True)
class Published:
    """A published data set, opened but for its cutouts."""

    table: "Table"  # as published, a row a cutout
    names: Mapping[str, Sequence[str]]  # what tables call our columns, in any case; the first that is there
    parts: Sequence[Part]  # their rows make up the table's rows in order
    zero_point: float = NANOMAGGIES  # AB, mag
    bands_last: bool = True  # what to assume where a cutout has as many bands as pixels

    @property
    def columns(self) -> dict[str, str]:
        """Our name of a column -> the name in the table, where it has one."""
        there = {name.lower(): name for name in reversed(self.table.colnames)}
        pairs = ((ours, n.lower()) for ours, theirs in self.names.items() for n in reversed(theirs))
        return {ours: there[name] for ours, name in pairs if name in there}

    def plan(self, settings: PublishedSettings, survey: Survey, target: Target) -> Plan:
        """Check labels and shapes, and plan to stream the cutouts of the rows that can be used."""
        from photoz_lit.data.catalogue import standard_table
        from photoz_lit.data.splits import with_ids

        bands_last = self.bands_are_last(survey)
        rules = settings.rules(survey, target)
        rules = replace(rules, columns={**self.columns, **rules.columns})
        table, rows = standard_table(self.table, str(settings.path), rules)

        def chunks(start: int) -> Iterator[NDArray[np.float32]]:
            return self.chunks(rows[start:], bands_last)

        return settings.plan_cutouts(survey, with_ids(table), chunks, self.zero_point)

    def bands_are_last(self, survey: Survey) -> bool:
        """Whether cutouts are (y, x, bands); an error where parts, table and survey do not fit together."""
        parts, n = self.parts, sum(part.rows for part in self.parts)
        last = [self._bands_last(part, survey) for part in parts]
        if len(set(last)) > 1:
            other = parts[last.index(not last[0])].path
            raise DataError(f"{other}: the order of axes is not that of {parts[0].path}: rewrite one of them")
        if n != len(self.table) or n == 0:
            what = f"{n} cutouts for {len(self.table)} rows of labels" if n else "no cutouts in it"
            raise DataError(f"{parts[0].path}: {what}")
        return last[0]

    def chunks(self, rows: NDArray[np.int64], bands_last: bool) -> Iterator[NDArray[np.float32]]:
        """Yield the cutouts (m, bands, y, x) of sorted rows, a chunk at a time, in the files' unit."""
        before = 0
        for part in self.parts:
            first, end = np.searchsorted(rows, (before, before + part.rows))
            for cutouts in _of_rows(part, rows[first:end] - before):
                ours = cutouts.transpose(0, 3, 1, 2) if bands_last else cutouts
                with np.errstate(over="ignore"):  # beyond float32: infinite, which the store refuses
                    yield np.ascontiguousarray(ours, dtype=np.float32)
            before += part.rows

    def _bands_last(self, part: Part, survey: Survey) -> bool:
        if part.dtype.kind not in "fiu":
            raise DataError(f"{part.path}: cutouts of type {part.dtype}, numbers expected")
        n, side = len(survey.bands), survey.pixels
        orders = {True: (side, side, n), False: (n, side, side)}
        for last in (self.bands_last, not self.bands_last):
            if part.cutout == orders[last]:
                return last
        raise DataError(
            f"{part.path}: cutouts of shape {part.cutout}, {orders[self.bands_last]} expected "
            f"({n} survey.bands, survey.pixels={side}): set these to what the file holds"
        )


def _of_rows(part: Part, rows: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """Yield the cutouts of sorted rows, a chunk at a time."""
    if len(rows) == 0:
        return
    most = max(1, CHUNK_BYTES // (int(np.prod(part.cutout)) * part.dtype.itemsize))
    groups = np.split(rows, np.flatnonzero(np.diff(rows // most)) + 1)
    spans = [(int(group[0]), int(group[-1]) + 1) for group in groups]
    for group, read in zip(groups, part.read(spans), strict=True):
        yield read if len(read) == len(group) else read[group - group[0]]


def planner(read: Callable[[Path], Published]) -> Callable[[PublishedSettings, Survey, Target, int], Plan]:
    """Return the `plan` of a layout: its labels are read, its cutouts streamed."""
    return lambda settings, survey, target, _: read(Path(str(settings.path))).plan(settings, survey, target)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file into a DataError with its name."""
    try:
        yield
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        if "allow_pickle" in reason:
            raise DataError(
                f"{path}: holds Python objects, which can run code and are not read. Write it again with "
                "numbers and text only"
            ) from error
        raise DataError(f"{path}: cannot be read, perhaps truncated: {reason}. Fetch it again") from error


def found_files(path: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return a file, the files of a folder, or those that match a pattern, sorted by name."""
    if path.is_file():
        return [path]
    pattern = str(Path(glob.escape(str(path))) / "*") if path.is_dir() else str(path)
    found = sorted(Path(name) for name in glob.glob(pattern) if Path(name).suffix.lower() in suffixes)
    if not found:
        raise DataError(
            f"{path}: no {' or '.join(suffixes)} file there. Set data.path to a file, a folder or a pattern "
            f"(relative paths start at {Path.cwd()})"
        )
    return found


def table_of(columns: Mapping[str, Any]) -> "Table":
    """Return arrays of one length as a table; one of several numbers a row becomes name_0, name_1, ..."""
    from astropy.table import Table

    table = Table()
    for name, values in columns.items():
        if values.ndim == 2 and values.shape[1] > 1:
            for i in range(values.shape[1]):
                table[f"{name}_{i}"] = values[:, i]
        elif values.ndim <= 2:
            table[name] = values.reshape(len(values))
    return table


class NpzCube:
    """The cutouts in a `.npz`, an array (n, ...) of numbers in C order, decompressed in a stream."""

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.member = path, f"{key}.npy"
        with reading(path), zipfile.ZipFile(path) as archive, archive.open(self.member) as file:
            shape, fortran, self.dtype = _header(file)
            self._start, size = file.tell(), archive.getinfo(self.member).file_size
        if len(shape) != 4 or fortran or self.dtype.hasobject:
            order = ", in Fortran order" if fortran else ""
            raise DataError(
                f"{path}: '{key}' of shape {shape} and type {self.dtype}{order}: four axes (galaxy, y, x, "
                "band) of numbers in C order are needed"
            )
        self.rows = shape[0]
        self.cutout: tuple[int, ...] = shape[1:]
        self._row_bytes = int(np.prod(self.cutout)) * self.dtype.itemsize
        if size != self._start + self.rows * self._row_bytes:
            raise DataError(f"{path}: '{key}' is truncated: {size} bytes for shape {shape}")

    def read(self, spans: Sequence[tuple[int, int]]) -> Iterator[NDArray[Any]]:
        """Yield the cutouts of ascending row ranges [low, high), as the file holds them."""
        with reading(self.path), zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            for low, high in spans:
                file.seek(self._start + low * self._row_bytes)  # a compressed one is read up to there
                rows = np.empty((high - low, *self.cutout), self.dtype)
                left = rows.reshape(-1).view(np.uint8)
                while left.size:
                    piece = np.frombuffer(file.read(min(STEP, left.size)), np.uint8)
                    if piece.size == 0:
                        raise EOFError("the file ends within the cutouts")
                    left[: piece.size] = piece
                    left = left[piece.size :]
                yield rows


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a .npy: shape, Fortran order, type."""
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f".npy of version {version} where numbers are expected")


def array_names(path: Path) -> list[str]:
    """Return the names of the arrays in a `.npz`."""
    with reading(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def array_shape(path: Path, key: str) -> tuple[int, ...]:
    """Return the shape of an array in a `.npz` without reading it."""
    with reading(path), zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        return _header(file)[0]


def read_array(path: Path, key: str) -> NDArray[Any]:
    """Read a whole array of a `.npz`; Python objects are refused."""
    with reading(path), zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def labels_table(path: Path, key: str) -> "Table":
    """Read a structured array of labels as a table."""
    labels = read_array(path, key)
    if labels.dtype.names is None or labels.ndim != 1:
        raise DataError(
            f"{path}: '{key}' has shape {labels.shape} and type {labels.dtype}: a structured array of named "
            "fields, one row a galaxy, is needed"
        )
    return table_of({name: labels[name] for name in labels.dtype.names})
