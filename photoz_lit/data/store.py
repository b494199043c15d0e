"""Prepared data on disk: one table and one array of inputs, read by memory map."""

import io
import json
import os
import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from photoz_lit.errors import DataError

VERSION = 1


@dataclass(frozen=True)
class Store:
    """A prepared data set.

    Parameters
    ----------
    folder : Path
        Where it lies: `catalogue.fits`, `inputs.npy`, `store.json`.
    catalogue : Table
        One row a galaxy.
    inputs : memory map
        Cutouts (n, bands, pixels, pixels) in nanomaggies, or (n, 2, F) magnitudes and their errors.
    kind : str
        `images` or `features`.
    """

    folder: Path
    catalogue: Table
    inputs: NDArray[np.floating[Any]]
    kind: str


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
            catalogue = Table.read(folder / "catalogue.fits", format="fits", character_as_bytes=False)
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
) -> Store:
    """Write a store beside its place and rename it; inputs that an interrupted write left are kept.

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

    Raises
    ------
    DataError
        A value is not finite, or does not fit the type.
    """
    partial = partial_folder(folder)
    partial.mkdir(parents=True, exist_ok=True)
    row = rows_written(folder, shape, dtype)
    with (partial / "inputs.npy").open("r+b" if row else "wb") as file:
        if row == 0:
            file.write(_header(shape, dtype))
        file.seek(len(_header(shape, dtype)) + row * _row_bytes(shape, dtype))
        file.truncate()
        for chunk in chunks:
            file.write(_checked(chunk, row, catalogue, dtype).tobytes())
            row += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if row != shape[0]:
        raise DataError(f"{folder}: {row} rows of inputs were given for {shape[0]} galaxies")
    catalogue.write(partial / "catalogue.fits", overwrite=True)
    facts = {"version": VERSION, "kind": kind, "shape": list(shape), "settings": settings}
    (partial / "store.json").write_text(json.dumps(facts, indent=1))
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    return open_store(folder)


def partial_folder(folder: Path) -> Path:
    """Where a store lies until it is complete."""
    return folder.with_name(folder.name + ".partial")


def rows_written(folder: Path, shape: tuple[int, ...], dtype: str) -> int:
    """Rows of inputs that an interrupted write left whole."""
    path = partial_folder(folder) / "inputs.npy"
    if not path.is_file():
        return 0
    return max(0, (path.stat().st_size - len(_header(shape, dtype))) // _row_bytes(shape, dtype))


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the header of a .npy file."""
    facts = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, facts)
    return buffer.getvalue()


def _row_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape[1:])) * np.dtype(dtype).itemsize


def _checked(
    chunk: NDArray[np.floating[Any]], row: int, catalogue: Table, dtype: str
) -> NDArray[np.floating[Any]]:
    """Convert a chunk and refuse values that are not finite, naming the galaxy."""
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(chunk, dtype=dtype)
    bad = ~np.isfinite(converted).all(axis=tuple(range(1, converted.ndim)))
    if bad.any():
        first = row + int(np.flatnonzero(bad)[0])
        raise DataError(
            f"the inputs of {int(bad.sum())} galaxies hold NaN or values beyond {dtype}, "
            f"first in row {first} (object_id {catalogue['object_id'][first]}): "
            "mend them or take them out of the table; "
            "for very large values type data.dtype=float32"
        )
    return converted
