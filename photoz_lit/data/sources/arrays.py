"""`data=arrays`: cutouts in .npy, .npz or HDF5 with a table beside them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.formats import read_table
from photoz_lit.data.sources.published.reader import UNREADABLE
from photoz_lit.errors import DataError

CHUNK = 1024


class ArrayFile:
    """An array on disk with a row a galaxy, read in chunks.

    Parameters
    ----------
    path : Path
        `.npy` (memory map), `.npz` (read whole, since a zip cannot be mapped) or HDF5.
    key : str, optional
        Name of the array in `.npz` or HDF5; needed where there is more than one.
    n_axes : int
        4 for cutouts, 2 for vectors.

    Raises
    ------
    DataError
        The file cannot be read, or the array is not named.
    """

    def __init__(self, path: Path, key: str | None = None, n_axes: int = 4) -> None:
        self.path, self.n_axes = Path(path), n_axes
        if not self.path.is_file():
            raise DataError(f"{path}: no such file. Check data.images (relative paths start at {Path.cwd()})")
        try:
            self.array = self._open(key)
        except DataError:
            raise
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

    def check(self, shape: tuple[int, ...], words: str, n_rows: int, table: Path) -> None:
        """Raise DataError unless a row has the wanted shape, and the table as many rows."""
        found = tuple(self.array.shape)
        if len(found) != self.n_axes or (shape and found[1:] != shape):
            wanted = ", ".join(["n", *map(str, shape)]) if shape else "n, d"
            raise DataError(f"{self.path}: an array of shape {found}, ({wanted}) expected{words}")
        if self.array.dtype.kind not in "fiu":
            raise DataError(f"{self.path}: an array of type {self.array.dtype}, numbers expected")
        if found[0] != n_rows:
            raise DataError(f"{self.path}: {found[0]} rows for {n_rows} rows of {table}")

    def chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.floating[Any]]]:
        """Yield sorted rows, a chunk at a time."""
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            low = int(part[0])
            try:
                chunk = self.array[low : int(part[-1]) + 1]
            except OSError as error:
                raise DataError(f"{self.path}: rows {low} to {part[-1]} cannot be read: {error}") from error
            yield chunk[part - low]


def load(
    path: Path, images: Path, images_key: str | None, rules: TableRules, n_bands: int, pixels: int
) -> tuple[Table, ArrayFile, NDArray[np.int64]]:
    """Read and check a table and the cutouts beside it.

    Returns
    -------
    catalogue : Table
        The standard table of the usable rows.
    cutouts : ArrayFile
        All cutouts of the file.
    rows : array (n,)
        Which of them the table's rows are.
    """
    table = read_table(path)
    cutouts = ArrayFile(images, images_key)
    shape = (n_bands, pixels, pixels)
    cutouts.check(shape, " (survey.bands, survey.pixels)", len(table), path)
    catalogue, rows = standard_table(table, str(path), rules)
    return catalogue, cutouts, rows
