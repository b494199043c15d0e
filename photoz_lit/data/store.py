"""Prepared data on disk: one table and one array of inputs, read by memory map or in plain reads."""

import io
import json
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from photoz_lit.data.pixels import Inspected, inspect_numbers
from photoz_lit.errors import DataError
from photoz_lit.files import fingerprint, reserve
from photoz_lit.grids import Bools, Floats, Texts

if TYPE_CHECKING:
    from astropy.table import Table

VERSION = 2
FLAGS = {
    "": "can be used",
    "repaired": "pixels without a flux were interpolated from their neighbours",
    "pixels": "pixels without a flux (NaN, infinite, masked), or a band that is constant",
    "edge": "too much of the cutout lies off the frames",
    "frame": "no frame, or one that cannot be read",
    "table": "a value of the table cannot be used",
    "empty": "no source is seen at the position",
    # Of results only: with an estimate, and the first of these that holds.
    "far": "unlike the galaxies that the model was trained on",
    "r_range": "dered_petro_r is outside the range that the model was trained on",
    "ebv": "E(B-V) is not known: 0 was taken",
    "good": "nothing speaks against the estimate",
}
ESTIMATED = ("", "repaired", "far", "r_range", "ebv", "good")
"""Flags of galaxies that have an estimate."""
MARKS = ("", "pixels", "repaired")  # what is noted of each row while a store is written


class TooLargeForHalfError(Exception):
    """A galaxy that can be used has values that float16 cannot hold."""


@dataclass(frozen=True)
class Store:
    """A prepared data set; inputs of galaxies that cannot be used mean nothing.

    `inputs` is a memory map: cutouts (n, bands, pixels, pixels) in nanomaggies, magnitudes and their errors
    (n, 2, F), or vectors (n, d).
    """

    folder: Path  # catalogue.fits, store.json and inputs.npy, unless these are the user's own array
    catalogue: "Table"  # a row a galaxy, perhaps with a column flag (`FLAGS`)
    inputs: NDArray[np.floating[Any]]
    kind: str  # images, features or vectors

    @property
    def flags(self) -> Texts:
        """What is said of each galaxy, (n,); empty where nothing is."""
        if "flag" not in self.catalogue.colnames:
            return np.full(len(self.catalogue), "", dtype="U8")
        return np.char.strip(np.asarray(self.catalogue["flag"]).astype(str))

    @property
    def usable(self) -> Bools:
        """Which galaxies can be used, (n,)."""
        return np.isin(self.flags, ESTIMATED)

    def column(self, name: str) -> Floats:
        """Return a column of the catalogue, (n,): NaN where a cell is empty, all NaN without it."""
        if name not in self.catalogue.colnames:
            return np.full(len(self.catalogue), np.nan)
        return np.ma.filled(np.ma.asarray(self.catalogue[name], dtype=np.float64), np.nan)

    def read(self, start: int, stop: int) -> NDArray[np.floating[Any]]:
        """Read rows of inputs into memory of their own: pages that a memory map touched stay resident."""
        assert isinstance(self.inputs, np.memmap)
        count = int(np.prod(self.inputs.shape[1:]))
        with Path(str(self.inputs.filename)).open("rb") as file:
            file.seek(self.inputs.offset + start * count * self.inputs.dtype.itemsize)
            flat = np.fromfile(file, dtype=self.inputs.dtype, count=(stop - start) * count)
        return flat.reshape(-1, *self.inputs.shape[1:])


def is_complete(folder: Path) -> bool:
    """Whether a store was written to its end."""
    return (folder / "store.json").is_file()


def open_store(folder: Path) -> Store:
    """Open a store without reading its inputs."""
    remedy = "Prepare it again under another data_dir, or move it away: python -m photoz_lit stage=prepare"
    if not is_complete(folder):
        raise DataError(f"{folder}: no prepared data set (a folder with store.json) is there")
    try:
        facts = json.loads((folder / "store.json").read_text())
        kind, shape, version = facts["kind"], facts["shape"], facts["version"]
        if version != VERSION:
            raise DataError(f"{folder}: a store of version {version}, this is {VERSION}. {remedy}")
        array = facts["inputs"]
        if array is not None and fingerprint([array[0]]) != [array]:
            raise DataError(f"{folder}: its cutouts {array[0]} are gone or have changed. {remedy}")
        from astropy.table import Table

        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*truncated")  # astropy only warns, then reads on
            catalogue = Table.read(  # without a mask over what is NaN or empty
                folder / "catalogue.fits", format="fits", character_as_bytes=False, mask_invalid=False
            )
        inputs = np.load(folder / "inputs.npy" if array is None else array[0], mmap_mode="r")
    except (OSError, ValueError, TypeError, KeyError, EOFError, AstropyWarning) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{folder}: the store is truncated or cannot be read ({reason}). {remedy}") from error
    if len(catalogue) != len(inputs) or list(inputs.shape) != shape:
        raise DataError(
            f"{folder}: {len(catalogue)} rows in catalogue.fits, inputs of shape {inputs.shape}, "
            f"{shape} expected: the store is truncated. {remedy}"
        )
    return Store(folder, catalogue, inputs, kind)


def write_store(
    folder: Path,
    catalogue: "Table",
    chunks: Iterable[NDArray[np.floating[Any]]],
    *,
    shape: tuple[int, ...],
    dtype: str,
    kind: str,
    settings: dict[str, Any],
    inspect: Callable[[NDArray[Any]], Inspected] = inspect_numbers,
    keep_faulty: bool = False,
    array: Path | None = None,
    complete: "Callable[[Table, NDArray[Any]], Table] | None" = None,
) -> Store:
    """Write a store in order, beside its place, and rename it; what an interrupted write left is kept.

    `chunks` are the inputs from row `rows_written(folder, ...)` on, in order; `inspect` turns one into inputs
    in the store's unit and says what is wrong with them. Galaxies whose inputs cannot be used are flagged if
    `keep_faulty`, else a DataError. `settings` are what it was made from. An `array` is a `.npy` that holds
    the inputs already: it is looked through and stays where it is. `complete` makes the table from the
    catalogue and the inputs that were written.
    """
    partial = partial_folder(folder)
    partial.mkdir(parents=True, exist_ok=True)
    row = rows_written(folder, shape, dtype)
    header = _header(shape, dtype)
    with (
        (partial / "inputs.npy").open("r+b" if row else "wb") as file,
        (partial / "marks.bin").open("r+b" if row else "wb") as marks,
    ):
        if row == 0:
            file.write(header)
        file.seek(len(header) + row * _row_bytes(shape, dtype))
        file.truncate()
        marks.seek(row)
        marks.truncate()
        for chunk in chunks:
            seen = inspect(chunk)
            if seen.bad.any() and not keep_faulty:
                raise _faulty(seen, row, catalogue)
            if dtype == "float16" and array is None and not seen.fits_half:
                raise TooLargeForHalfError
            mark = np.where(seen.bad, 1, np.where(seen.repaired, 2, 0)).astype(np.uint8)
            marks.write(mark.tobytes())
            marks.flush()  # a galaxy's mark is on disk before its inputs
            if array is None:
                converted = _converted(seen.inputs, dtype)
                converted[seen.bad] = 0
                file.write(converted.data)
            row += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if row != shape[0]:
        raise DataError(f"{folder}: {row} rows of inputs were given for {shape[0]} galaxies")
    if complete is not None:
        catalogue = complete(catalogue, np.load(partial / "inputs.npy", mmap_mode="r"))
    noted = np.array(MARKS)[np.fromfile(partial / "marks.bin", dtype=np.uint8)]
    if (noted != "").any() or "flag" in catalogue.colnames:
        given = np.asarray(catalogue["flag"] if "flag" in catalogue.colnames else np.full(len(noted), ""))
        catalogue = catalogue.copy(copy_data=False)
        catalogue["flag"] = np.where(given == "", noted, given).astype("U8")
    return finish_store(folder, catalogue, shape=shape, kind=kind, settings=settings, array=array)


def _converted(inputs: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Return a copy of inputs as they are stored; torch, where it is there, is ten times as fast."""
    torch: Any = sys.modules.get("torch")  # whose import takes seconds and 0.3 GB
    if torch is not None and dtype == "float16" and inputs.dtype == np.float32:
        made: NDArray[Any] = torch.from_numpy(np.array(inputs, order="C")).half().numpy()
        return made
    with np.errstate(over="ignore"):
        return np.array(inputs, dtype=dtype, order="C", copy=True)


def _faulty(seen: Inspected, row: int, catalogue: "Table") -> DataError:
    """Return what is wrong, by kind, each with its first row."""
    told = []
    for what, mask in seen.faults.items():
        if mask.any():
            first = row + int(mask.argmax())
            galaxy = catalogue["object_id"][first]
            told.append(f"{what}: {mask.sum()} galaxies, first in row {first} (object_id {galaxy})")
    return DataError(
        f"inputs that cannot be used: {'; '.join(told)}. Mend them, or leave these galaxies out with "
        "data.drop_invalid=true; single pixels of cutouts can be filled with data.repair=interpolate"
    )


@contextmanager
def open_rows(folder: Path, shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[np.floating[Any]]]:
    """Open the inputs of an unfinished store to write rows in any order; unwritten ones stay zeros."""
    partial = partial_folder(folder)
    partial.mkdir(parents=True, exist_ok=True)
    path, size = partial / "inputs.npy", _size(shape, dtype)
    if not has_inputs(folder, shape, dtype):
        try:
            path.write_bytes(_header(shape, dtype))
            reserve(path, size)
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
    folder: Path,
    catalogue: "Table",
    *,
    shape: tuple[int, ...],
    kind: str,
    settings: dict[str, Any],
    array: Path | None = None,
) -> Store:
    """Write table and facts of a store whose inputs are all there, and put it in its place."""
    partial = partial_folder(folder)
    catalogue.write(partial / "catalogue.fits", overwrite=True)
    own = None if array is None else fingerprint([array])[0]
    facts = {"version": VERSION, "kind": kind, "shape": list(shape), "settings": settings, "inputs": own}
    if array is not None:
        (partial / "inputs.npy").unlink()
    (partial / "marks.bin").unlink(missing_ok=True)
    (partial / "store.json").write_text(json.dumps(facts, indent=1))
    if is_complete(folder):  # of another process
        shutil.rmtree(partial)
    else:
        partial.rename(folder)
    return open_store(folder)


def partial_folder(folder: Path) -> Path:
    """Where a store lies until it is complete."""
    return folder.with_name(folder.name + ".partial")


def rows_written(folder: Path, shape: tuple[int, ...], dtype: str) -> int:
    """Rows of inputs that an interrupted write left whole."""
    partial, header = partial_folder(folder), _header(shape, dtype)
    path, marks = partial / "inputs.npy", partial / "marks.bin"
    if not path.is_file() or not marks.is_file():
        return 0
    with path.open("rb") as file:
        if file.read(len(header)) != header:  # of another type
            return 0
    whole = (path.stat().st_size - len(header)) // _row_bytes(shape, dtype)
    return max(0, min(whole, marks.stat().st_size))


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    """Return the header of a .npy file."""
    facts = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, facts)
    return buffer.getvalue()


def _size(shape: tuple[int, ...], dtype: str) -> int:
    return len(_header(shape, dtype)) + shape[0] * _row_bytes(shape, dtype)


def _row_bytes(shape: tuple[int, ...], dtype: str) -> int:
    return int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
