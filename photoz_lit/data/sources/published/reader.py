"""What the readers of all layouts share: one long table, and its cutouts in a stream of flat memory."""

import glob
import lzma
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray

from photoz_lit.errors import DataError

# What zipfile, numpy and h5py raise for files that are cut off, damaged or not what they say they are.
UNREADABLE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError),
)
CHUNK_BYTES = 64 * 2**20  # of cutouts as the file holds them: twice or thrice that is in memory at once
NANOMAGGIES = 22.5  # AB zero point


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
class Reader:
    """A published data set, opened but for its cutouts.

    Parameters
    ----------
    table : Table
        The labels as published, one row a cutout; columns named there keep their names.
    columns : mapping
        Our name of a column -> the name in `table`, where the layout is known to have it.
    bands : str
        The bands of the cutouts, in order.
    parts : sequence of Part
        Where the cutouts are; their rows make up the table's rows in order.
    channels_last : bool
        Cutouts are (y, x, bands) in the file; rows of an image are y, as NumPy and FITS readers have it.
    shape : tuple
        (n, bands, y, x) of all cutouts.
    zero_point : float
        AB zero point of the fluxes in the file, mag.
    """

    table: Table
    columns: Mapping[str, str]
    bands: str
    parts: Sequence[Part]
    channels_last: bool
    shape: tuple[int, int, int, int]
    zero_point: float = NANOMAGGIES

    def chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        """Yield the cutouts of sorted rows in nanomaggies, (m, bands, y, x), a chunk at a time.

        Pixels that are no numbers are passed on: who keeps the cutouts checks them.

        Raises
        ------
        DataError
            A file is damaged or truncated.
        """
        before = 0
        for part in self.parts:
            first, last = np.searchsorted(rows, (before, before + part.rows))
            yield from self._of_part(part, np.asarray(rows[first:last]) - before)
            before += part.rows

    def _of_part(self, part: Part, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        if len(rows) == 0:
            return
        most = max(1, CHUNK_BYTES // (int(np.prod(part.cutout)) * part.dtype.itemsize))
        groups = np.split(rows, np.flatnonzero(np.diff(rows // most)) + 1)
        spans = [(int(group[0]), int(group[-1]) + 1) for group in groups]
        for group, read in zip(groups, part.read(spans), strict=True):
            yield self._ours(read if len(read) == len(group) else read[group - group[0]])

    def _ours(self, cutouts: NDArray[Any]) -> NDArray[np.float32]:
        """Turn cutouts as the file holds them into (m, bands, y, x) float32 in nanomaggies."""
        if self.channels_last:
            cutouts = cutouts.transpose(0, 3, 1, 2)
        with np.errstate(over="ignore"):  # beyond float32: infinite, which the store refuses
            ours = np.ascontiguousarray(cutouts, dtype=np.float32)
        if self.zero_point != NANOMAGGIES:
            ours = ours * np.float32(10 ** (-0.4 * (self.zero_point - NANOMAGGIES)))
        return ours


def assemble(
    parts: Sequence[Part],
    table: Table,
    *,
    columns: Mapping[str, Sequence[str]],
    bands: str,
    n_bands: int,
    pixels: int,
    prefer_last: bool,
    zero_point: float = NANOMAGGIES,
) -> Reader:
    """Check that parts, table and survey fit together, and return the reader.

    Parameters
    ----------
    parts, table, bands, zero_point : as in `Reader`
    columns : mapping
        Our name -> names that the published tables have for it, the first found counts.
    n_bands, pixels : int
        Of the survey.
    prefer_last : bool
        What to assume where a cutout has as many bands as pixels.

    Raises
    ------
    DataError
        Shapes do not fit.
    """
    last = [_channels_last(part, n_bands, pixels, prefer_last) for part in parts]
    if len(set(last)) > 1:
        other = parts[last.index(not last[0])].path
        raise DataError(f"{other}: the order of axes is not that of {parts[0].path}: rewrite one of them")
    n = sum(part.rows for part in parts)
    if n != len(table):
        raise DataError(f"{parts[0].path}: {n} cutouts for {len(table)} rows of labels")
    if n == 0:
        raise DataError(f"{parts[0].path}: no cutouts in it")
    names = {name.lower(): name for name in reversed(table.colnames)}
    found = {
        ours: next(names[t.lower()] for t in theirs if t.lower() in names)
        for ours, theirs in columns.items()
        if any(t.lower() in names for t in theirs)
    }
    return Reader(table, found, bands, parts, last[0], (n, n_bands, pixels, pixels), zero_point)


def _channels_last(part: Part, n_bands: int, pixels: int, prefer_last: bool) -> bool:
    """Whether a cutout is (y, x, bands); an error where it is neither that nor (bands, y, x)."""
    if part.dtype.kind not in "fiu":
        raise DataError(f"{part.path}: cutouts of type {part.dtype}, numbers expected")
    orders = {True: (pixels, pixels, n_bands), False: (n_bands, pixels, pixels)}
    for last in (prefer_last, not prefer_last):
        if part.cutout == orders[last]:
            return last
    raise DataError(
        f"{part.path}: cutouts of shape {part.cutout}, {orders[prefer_last]} expected "
        f"({n_bands} survey.bands, survey.pixels={pixels}): set these to what the file holds"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong in reading a file into a DataError with its name."""
    try:
        yield
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0]
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


def stacked(tables: Sequence[Table]) -> Table:
    """Put tables under one another, with the columns that all of them have."""
    return tables[0] if len(tables) == 1 else vstack(tables, join_type="inner", metadata_conflicts="silent")


def as_table(array: NDArray[Any]) -> Table:
    """Return a structured array as a table; a field of several numbers becomes name_0, name_1, ..."""
    table = Table()
    for name in array.dtype.names or ():
        add_column(table, name, array[name])
    return table


def add_column(table: Table, name: str, values: NDArray[Any]) -> None:
    """Add a column of one number a row, or several of them."""
    if values.ndim == 2 and values.shape[1] > 1:
        for i in range(values.shape[1]):
            table[f"{name}_{i}"] = values[:, i]
    elif values.ndim <= 2:
        table[name] = values.reshape(len(values))
