"""Prepared data on disk: one table and one array of inputs, read by memory map or in plain reads."""

import io
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from photoz_lit.errors import DataError

VERSION = 1
FLAGS = {
    "": "can be used",
    "repaired": "pixels without a value were filled from those around them",
    "pixels": "NaN or infinite pixels, or none but zeros",
    "edge": "too much of the cutout lies off the frames",
    "frame": "no frame, or one that cannot be read",
    "table": "a value of the table cannot be used",
    # Of results only: with an estimate, and the first of these that holds.
    "far": "unlike the galaxies that the model was trained on",
    "r_range": "dered_petro_r is outside the range that the model was trained on",
    "ebv": "E(B-V) is not known: 0 was taken",
    "good": "nothing speaks against the estimate",
}
ESTIMATED = ("", "repaired", "far", "r_range", "ebv", "good")
"""Flags of galaxies that have an estimate."""


@dataclass(frozen=True)
class Store:
    """A prepared data set.

    Parameters
    ----------
    folder : Path
        Where it lies: `catalogue.fits`, `inputs.npy`, `store.json`.
    catalogue : Table
        One row a galaxy. Where it has a column `flag`, galaxies whose flag is not empty cannot be used
        (`FLAGS` says why) and their inputs are zeros.
    inputs : memory map
        Cutouts (n, bands, pixels, pixels) in nanomaggies, (n, 2, F) magnitudes and their errors, or (n, d)
        vectors.
    kind : str
        `images`, `features` or `vectors`.
    """

    folder: Path
    catalogue: Table
    inputs: NDArray[np.floating[Any]]
    kind: str

    @property
    def flags(self) -> NDArray[np.str_]:
        """Why each galaxy cannot be used, (n,); empty where it can."""
        if "flag" not in self.catalogue.colnames:
            return np.full(len(self.catalogue), "", dtype="U8")
        return np.char.strip(np.asarray(self.catalogue["flag"]).astype(str))

    def read(self, start: int, stop: int) -> NDArray[np.floating[Any]]:
        """Read the inputs of rows from start to stop (excluded) into memory of their own.

        A memory map counts every page it has touched as resident until the system wants it back; this does
        not, however large the store.
        """
        count = int(np.prod(self.inputs.shape[1:]))
        with (self.folder / "inputs.npy").open("rb") as file:
            np.lib.format.read_magic(file)
            np.lib.format.read_array_header_1_0(file)
            file.seek(start * count * self.inputs.dtype.itemsize, os.SEEK_CUR)
            flat = np.fromfile(file, dtype=self.inputs.dtype, count=(stop - start) * count)
        return flat.reshape(-1, *self.inputs.shape[1:])


def is_complete(folder: Path) -> bool:
    """Whether a store was written to its end."""
    return (folder / "store.json").is_file()


def open_store(folder: Path) -> Store:
    """Open a store without reading its inputs.

    Raises
    ------
    DataError
        It is absent, truncated or of another version.
    """
    remedy = f"Delete {folder} and prepare it again: python -m photoz_lit stage=prepare"
    try:
        facts = json.loads((folder / "store.json").read_text())
        kind, shape, version = facts["kind"], facts["shape"], facts["version"]
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*truncated")  # astropy only warns, then reads on
            catalogue = Table.read(  # without a mask over what is NaN or empty
                folder / "catalogue.fits", format="fits", character_as_bytes=False, mask_invalid=False
            )
        inputs = np.load(folder / "inputs.npy", mmap_mode="r")
    except (OSError, ValueError, TypeError, KeyError, EOFError, AstropyWarning) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{folder}: the store is truncated or cannot be read ({reason}). {remedy}") from error
    if version != VERSION:
        raise DataError(f"{folder}: a store of version {version}, this is {VERSION}. {remedy}")
    if len(catalogue) != len(inputs) or list(inputs.shape) != shape:
        raise DataError(
            f"{folder}: {len(catalogue)} rows in catalogue.fits, inputs of shape {inputs.shape}, "
            f"{shape} expected: the store is truncated. {remedy}"
        )
    return Store(folder, catalogue, inputs, kind)


def write_store(
    folder: Path,
    catalogue: Table,
    chunks: Iterable[NDArray[np.floating[Any]]],
    *,
    shape: tuple[int, ...],
    dtype: str,
    kind: str,
    settings: dict[str, Any],
    keep_faulty: bool = False,
) -> Store:
    """Write a store in order, beside its place, and rename it; what an interrupted write left is kept.

    Parameters
    ----------
    folder : Path
        Final place.
    catalogue : Table
        One row a galaxy.
    chunks : iterable of arrays
        The inputs from row `rows_written(folder, ...)` on, in order.
    shape, dtype, kind : as in `Store`
        Of the whole array of inputs.
    settings : dict
        What the store was made from, for the record.
    keep_faulty : bool
        Flag galaxies whose inputs cannot be used, instead of stopping at them.

    Raises
    ------
    DataError
        A value is not finite, or does not fit the type, and `keep_faulty` is false.
    """
    partial = partial_folder(folder)
    partial.mkdir(parents=True, exist_ok=True)
    row = rows_written(folder, shape, dtype)
    header = _header(shape, dtype)
    with (
        (partial / "inputs.npy").open("r+b" if row else "wb") as file,
        (partial / "faulty.bin").open("r+b" if row else "wb") as marks,
    ):
        if row == 0:
            file.write(header)
        file.seek(len(header) + row * _row_bytes(shape, dtype))
        file.truncate()
        marks.seek(row)
        marks.truncate()
        for chunk in chunks:
            converted, bad = _converted(chunk, dtype)
            if keep_faulty:
                bad |= ~converted.any(axis=tuple(range(1, converted.ndim)))
                converted[bad] = 0
            elif bad.any():
                raise _not_finite(bad, row, catalogue, dtype)
            marks.write(bad.tobytes())
            marks.flush()  # a galaxy's mark is on disk before its inputs
            file.write(converted.tobytes())
            row += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if row != shape[0]:
        raise DataError(f"{folder}: {row} rows of inputs were given for {shape[0]} galaxies")
    faulty = np.fromfile(partial / "faulty.bin", dtype=bool)
    if faulty.any() or "flag" in catalogue.colnames:
        given = catalogue["flag"] if "flag" in catalogue.colnames else np.full(len(catalogue), "", "U8")
        catalogue = catalogue.copy(copy_data=False)
        catalogue["flag"] = np.where((np.asarray(given) == "") & faulty, "pixels", np.asarray(given))
    return finish_store(folder, catalogue, shape=shape, kind=kind, settings=settings)


@contextmanager
def open_rows(folder: Path, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[np.floating[Any]]]:
    """Open the inputs of an unfinished store to write rows in any order; flushed to disk on leaving.

    Rows that nobody writes stay zeros. End with `finish_store`.

    Raises
    ------
    DataError
        The disk has no room for them.
    """
    partial = partial_folder(folder)
    partial.mkdir(parents=True, exist_ok=True)
    path = partial / "inputs.npy"
    if not has_inputs(folder, shape, dtype):
        size = _size(shape, dtype)
        try:
            with path.open("wb") as file:
                file.write(_header(shape, dtype))
                if hasattr(os, "posix_fallocate"):  # not on macOS; a full disk is no crash later
                    os.posix_fallocate(file.fileno(), 0, size)
                file.truncate(size)
        except OSError as error:
            path.unlink(missing_ok=True)
            raise DataError(f"{path}: no room for {size / 1e9:.2f} GB of inputs ({error})") from error
    inputs = np.load(path, mmap_mode="r+")
    try:
        yield inputs
    finally:
        inputs.flush()


def has_inputs(folder: Path, shape: tuple[int, ...], dtype: str) -> bool:
    """Whether the inputs of an unfinished store are there in their full size, as `open_rows` makes them."""
    path = partial_folder(folder) / "inputs.npy"
    return path.is_file() and path.stat().st_size == _size(shape, dtype)


def finish_store(
    folder: Path, catalogue: Table, *, shape: tuple[int, ...], kind: str, settings: dict[str, Any]
) -> Store:
    """Write table and facts of a store whose inputs are all there, and put it in its place."""
    partial = partial_folder(folder)
    catalogue.write(partial / "catalogue.fits", overwrite=True)
    facts = {"version": VERSION, "kind": kind, "shape": list(shape), "settings": settings}
    (partial / "store.json").write_text(json.dumps(facts, indent=1))
    (partial / "faulty.bin").unlink(missing_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return open_store(folder)


def partial_folder(folder: Path) -> Path:
    """Where a store lies until it is complete."""
    return folder.with_name(folder.name + ".partial")


def rows_written(folder: Path, shape: tuple[int, ...], dtype: str) -> int:
    """Rows of inputs that an interrupted write left whole."""
    partial = partial_folder(folder)
    path, marks = partial / "inputs.npy", partial / "faulty.bin"
    if not path.is_file() or not marks.is_file():
        return 0
    whole = (path.stat().st_size - len(_header(shape, dtype))) // _row_bytes(shape, dtype)
    return max(0, min(whole, marks.stat().st_size))


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the header of a .npy file."""
    facts = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, facts)
    return buffer.getvalue()


def _size(shape: tuple[int, ...], dtype: str) -> int:
    """Return the bytes of a .npy file."""
    return len(_header(shape, dtype)) + shape[0] * _row_bytes(shape, dtype)


def _row_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape[1:])) * np.dtype(dtype).itemsize


def _converted(
    chunk: NDArray[np.floating[Any]], dtype: str
) -> tuple[NDArray[np.floating[Any]], NDArray[np.bool_]]:
    """Convert a chunk to the store's type; say which galaxies hold values that are not finite in it."""
    with np.errstate(over="ignore"):
        converted = np.array(chunk, dtype=dtype, order="C", copy=True)
    return converted, ~np.isfinite(converted).all(axis=tuple(range(1, converted.ndim)))


def _not_finite(bad: NDArray[np.bool_], row: int, catalogue: Table, dtype: str) -> DataError:
    first = row + int(np.flatnonzero(bad)[0])
    return DataError(
        f"the inputs of {int(bad.sum())} galaxies hold NaN or values beyond {dtype}, "
        f"first in row {first} (object_id {catalogue['object_id'][first]}): "
        "mend them, or leave them out with data.drop_invalid=true; "
        "for very large values type data.dtype=float32"
    )
