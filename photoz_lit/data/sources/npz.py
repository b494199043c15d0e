"""Arrays in `.npz` files of any size; NumPy's own `mmap_mode` maps nothing there and reads whole arrays."""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sources.published import reading, table_of
from photoz_lit.errors import DataError

if TYPE_CHECKING:
    from astropy.table import Table

STEP = 4 * 2**20  # bytes a read: what zipfile holds of a compressed member at once


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
