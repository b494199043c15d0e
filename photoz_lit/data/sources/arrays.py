"""`data=arrays`: cutouts in .npy, .npz or HDF5 with a table beside them."""

import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit.data.catalogue import read_table, standard_table
from photoz_lit.errors import DataError

CHUNK = 1024


class Cutouts:
    """An array of cutouts on disk, (n, bands, pixels, pixels), read in chunks.

    Parameters
    ----------
    path : Path
        `.npy` (memory map), `.npz` (read whole, since a zip cannot be mapped) or HDF5.
    key : str, optional
        Name of the array in `.npz` or HDF5; needed where there is more than one.

    Raises
    ------
    DataError
        The file cannot be read, or the array is not named.
    """

    def __init__(self, path: Path, key: str | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(f"{path}: no such file. Check data.images (relative paths start at {Path.cwd()})")
        try:
            self.array = self._open(key)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{path}: cannot be read as cutouts, perhaps truncated: {error}") from error

    def _open(self, key: str | None) -> Any:
        match self.path.suffix.lower():
            case ".npy":
                return np.load(self.path, mmap_mode="r")
            case ".npz":
                archive = np.load(self.path)
                return archive[self._named(key, archive.files)]
            case ".h5" | ".hdf5":
                file = h5py.File(self.path)
                return file[
                    self._named(key, [n for n, item in file.items() if getattr(item, "ndim", 0) == 4])
                ]
            case suffix:
                raise DataError(
                    f"{self.path}: unknown kind of cutouts '{suffix}'. Known: .npy, .npz, .h5, .hdf5"
                )

    def _named(self, key: str | None, names: list[str]) -> str:
        if key is None and len(names) == 1:
            return names[0]
        if key not in names:
            raise DataError(f"{self.path}: data.images_key={key} names no array. Arrays: {', '.join(names)}")
        return key

    def check(self, n_bands: int, pixels: int, n_rows: int, table: Path) -> None:
        """Raise DataError unless the shape fits the survey and the table."""
        shape = tuple(self.array.shape)
        if len(shape) != 4 or shape[1:] != (n_bands, pixels, pixels):
            raise DataError(
                f"{self.path}: cutouts of shape {shape}, (n, {n_bands}, {pixels}, {pixels}) expected "
                "(survey.bands, survey.pixels)"
            )
        if self.array.dtype.kind not in "fiu":
            raise DataError(f"{self.path}: cutouts of type {self.array.dtype}, numbers expected")
        if shape[0] != n_rows:
            raise DataError(f"{self.path}: {shape[0]} cutouts for {n_rows} rows of {table}")

    def chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.floating[Any]]]:
        """Yield the cutouts of sorted rows, a chunk at a time."""
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            low = int(part[0])
            yield self.array[low : int(part[-1]) + 1][part - low]


def load(
    path: Path,
    images: Path,
    images_key: str | None,
    *,
    columns: Mapping[str, str],
    z_range: tuple[float, float],
    drop_invalid: bool,
    n_bands: int,
    pixels: int,
) -> tuple[Table, Cutouts, NDArray[np.int64]]:
    """Read and check a table and the cutouts beside it.

    Returns
    -------
    catalogue : Table
        The standard table of the usable rows.
    cutouts : Cutouts
        All cutouts of the file.
    rows : array (n,)
        Which of them the table's rows are.
    """
    table = read_table(path)
    cutouts = Cutouts(images, images_key)
    cutouts.check(n_bands, pixels, len(table), path)
    catalogue, rows = standard_table(
        table, str(path), columns=columns, z_range=z_range, drop_invalid=drop_invalid
    )
    return catalogue, cutouts, rows
