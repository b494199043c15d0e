"""Arrays in `.npz` files of any size, read a few rows at a time."""

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sources.published.reader import reading
from photoz_lit.errors import DataError

STEP = 4 * 2**20  # bytes a read: what zipfile holds of a compressed member at once
_LOCAL_HEADER = 30  # bytes before a member's name (PKWARE's APPNOTE.TXT, 4.3.7)


class NpzCube:
    """The cutouts in a `.npz`: read from their place in the file, or decompressed in a stream.

    NumPy's own `mmap_mode` maps nothing in a `.npz` and reads the whole array.

    Parameters
    ----------
    path : Path
        The `.npz`.
    key : str
        Name of an array (n, ...) of numbers in C order.

    Raises
    ------
    DataError
        The file is damaged or the array cannot be read in rows.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.member = path, f"{key}.npy"
        with reading(path), zipfile.ZipFile(path) as archive:
            info = archive.getinfo(self.member)
            with archive.open(info) as file:
                shape, fortran, self.dtype = _header(file)
                self._header_bytes = file.tell()
        if len(shape) != 4 or fortran or self.dtype.hasobject:
            order = ", in Fortran order" if fortran else ""
            raise DataError(
                f"{path}: '{key}' of shape {shape} and type {self.dtype}{order}: four axes (galaxy, y, x, "
                "band) of numbers in C order are needed"
            )
        self.rows = shape[0]
        self.cutout: tuple[int, ...] = shape[1:]
        self._row_bytes = int(np.prod(self.cutout)) * self.dtype.itemsize
        if info.file_size != self._header_bytes + self.rows * self._row_bytes:
            raise DataError(f"{path}: '{key}' is truncated: {info.file_size} bytes for shape {shape}")

    def read(self, spans: Sequence[tuple[int, int]]) -> Iterator[NDArray[Any]]:
        """Yield the cutouts of ascending row ranges [low, high), as the file holds them."""
        with reading(self.path), self._content() as (file, start):
            for low, high in spans:
                file.seek(start + low * self._row_bytes)  # a compressed member is read up to there
                rows = np.empty((high - low, *self.cutout), self.dtype)
                _fill(file, rows.reshape(-1).view(np.uint8))
                yield rows

    @contextmanager
    def _content(self) -> Iterator[tuple[IO[bytes], int]]:
        """Open what holds the array, and say where its first number is."""
        with zipfile.ZipFile(self.path) as archive:
            info = archive.getinfo(self.member)
            if info.compress_type == zipfile.ZIP_STORED:
                with self.path.open("rb") as file:
                    file.seek(info.header_offset + _LOCAL_HEADER - 4)
                    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
                    yield file, info.header_offset + _LOCAL_HEADER + name + extra + self._header_bytes
            else:
                with archive.open(info) as member:
                    yield member, self._header_bytes


def _fill(file: IO[bytes], content: NDArray[np.uint8]) -> None:
    filled = 0
    while filled < len(content):
        piece = file.read(min(STEP, len(content) - filled))
        if not piece:
            raise EOFError("the file ends within the cutouts")
        content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a .npy: shape, Fortran order, type."""
    match np.lib.format.read_magic(file):
        case (1, 0):
            return np.lib.format.read_array_header_1_0(file)
        case (2, 0):
            return np.lib.format.read_array_header_2_0(file)
        case version:
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
        try:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            raise DataError(
                f"{path}: '{key}' holds Python objects, which can run code and are not read. Write it again "
                "with numbers and text only"
            ) from error
