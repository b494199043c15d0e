"""Photo-z table, p(z) and run facts on disk; every file is written beside its place and renamed."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit import metrics
from photoz_lit.errors import DataError
from photoz_lit.grids import RedshiftGrid


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON beside its place and rename it; numbers that are not finite become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}
    beside = path.with_name(path.name + ".partial")
    beside.write_text(json.dumps(clean, indent=1, allow_nan=False) + "\n")
    beside.rename(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read JSON.

    Raises
    ------
    DataError
        The file is absent or truncated.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): delete its folder and run again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object: delete its folder and run again")
    return content


def write_table(path: Path, table: Table) -> None:
    """Write a FITS table beside its place and rename it."""
    beside = path.with_name(path.stem + ".partial.fits")
    table.write(beside, overwrite=True)
    os.replace(beside, path)


def write_results(
    folder: Path,
    galaxies: Table,
    pdf_chunks: Iterable[NDArray[np.floating[Any]]],
    grid: RedshiftGrid,
    train_n_of_z: NDArray[np.floating[Any]],
    estimate: str = "mode",
) -> Table:
    """Write `pdf.hdf5` and `photo_z.fits` chunk by chunk.

    Parameters
    ----------
    folder : Path
        Run folder.
    galaxies : Table
        object_id, dered_petro_r and, where known, spec_z: one row a galaxy.
    pdf_chunks : iterable of arrays (m, n_outputs)
        Probabilities per bin, in the order of the table.
    grid : RedshiftGrid
        Bins of p(z), extension included.
    train_n_of_z : array (n_outputs,)
        Mean of the labels that p(z) was trained with: its implicit prior.
    estimate : {"mode", "median", "mean"}
        Which of the estimates is the run's `photo_z`.

    Returns
    -------
    Table
        The photo-z table: object_id, spec_z, dered_petro_r, photo_z (one of the three that follow),
        photo_z_mode, photo_z_mean, photo_z_median, photo_z_lower, photo_z_upper (68 % interval), pit.
    """
    n = len(galaxies)
    pdf_beside = folder / "pdf.hdf5.partial"
    columns: dict[str, list[NDArray[np.float64]]] = {}
    with h5py.File(pdf_beside, "w") as file:
        ids = np.asarray(galaxies["object_id"])
        file["object_id"] = ids.astype("S") if ids.dtype.kind == "U" else ids
        file["edges"] = grid.edges
        file["train_n_of_z"] = train_n_of_z
        data = file.create_dataset("pdf", shape=(n, grid.n_outputs), dtype="f4")
        row = 0
        for chunk in pdf_chunks:
            part = slice(row, row + len(chunk))
            data[part] = chunk
            spec_z = np.asarray(galaxies["spec_z"][part]) if "spec_z" in galaxies.colnames else None
            for name, values in _estimates(np.asarray(chunk, dtype=np.float64), grid, spec_z).items():
                columns.setdefault(name, []).append(values)
            row += len(chunk)
    if row != n:
        raise DataError(f"{folder}: p(z) of {row} galaxies were given for {n}")
    table = galaxies[[c for c in ("object_id", "spec_z", "dered_petro_r") if c in galaxies.colnames]].copy()
    table["photo_z"] = np.concatenate(columns[f"photo_z_{estimate}"])
    for name, parts in columns.items():
        table[name] = np.concatenate(parts)
    table.meta = {"z_min": grid.z_min, "z_max": grid.z_max, "n_bins": grid.n_bins, "estimate": estimate}
    pdf_beside.rename(folder / "pdf.hdf5")
    write_table(folder / "photo_z.fits", table)
    return table


def _estimates(
    pdf: NDArray[np.float64], grid: RedshiftGrid, spec_z: NDArray[np.float64] | None
) -> dict[str, NDArray[np.float64]]:
    lower, upper = metrics.interval(pdf, grid).T
    estimates = {
        "photo_z_mode": metrics.mode(pdf, grid),
        "photo_z_mean": metrics.mean(pdf, grid),
        "photo_z_median": metrics.median(pdf, grid),
        "photo_z_lower": lower,
        "photo_z_upper": upper,
    }
    if spec_z is not None:
        estimates["pit"] = metrics.pit(pdf, spec_z, grid)
    return estimates


def read_pdf(folder: Path, chunk: int = 65536) -> Iterator[NDArray[np.float32]]:
    """Yield p(z) of a run folder in chunks (m, n_outputs)."""
    with h5py.File(folder / "pdf.hdf5") as file:
        data = file["pdf"]
        for start in range(0, len(data), chunk):
            yield data[start : start + chunk]
