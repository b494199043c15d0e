"""Photo-z table and p(z) on disk."""

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.io import fits
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit import metrics
from photoz_lit.errors import DataError
from photoz_lit.files import read_json, write_json, write_table
from photoz_lit.grids import RedshiftGrid


def write_results(
    folder: Path,
    galaxies: Table,
    pdf_chunks: Iterable[NDArray[np.floating[Any]]],
    grid: RedshiftGrid,
    train_n_of_z: NDArray[np.floating[Any]],
    estimate: str = "mode",
    names: tuple[str, str] = ("spec_z", "photo_z"),
) -> Table:
    """Write `pdf.hdf5` and `photo_z.fits` chunk by chunk.

    Parameters
    ----------
    folder : Path
        Run folder.
    galaxies : Table
        object_id, dered_petro_r and, where known, the truth: one row a galaxy.
    pdf_chunks : iterable of arrays (m, n_outputs)
        Probabilities per bin, in the order of the table.
    grid : RedshiftGrid
        Bins of p(z), extension included.
    train_n_of_z : array (n_outputs,)
        Mean of the labels that p(z) was trained with: its implicit prior.
    estimate : {"mode", "median", "mean"}
        Which of the estimates is the run's `photo_z`.
    names : (str, str)
        Columns of the truth and of the estimate, spec_z and photo_z below.

    Returns
    -------
    Table
        The photo-z table: object_id, spec_z, dered_petro_r, photo_z (one of the three that follow),
        photo_z_mode, photo_z_mean, photo_z_median, photo_z_lower, photo_z_upper (68 % interval), pit.
    """
    n, (truth, name) = len(galaxies), names
    pdf_beside = folder / "pdf.hdf5.partial"
    columns: dict[str, list[NDArray[np.float64]]] = {}
    with h5py.File(pdf_beside, "w") as file:
        data = _pdf_dataset(file, _ids(galaxies), grid, train_n_of_z)
        row = 0
        for chunk in pdf_chunks:
            part = slice(row, row + len(chunk))
            data[part] = chunk
            spec_z = np.asarray(galaxies[truth][part]) if truth in galaxies.colnames else None
            for kind, values in _estimates(np.asarray(chunk, dtype=np.float64), grid, spec_z).items():
                columns.setdefault(kind, []).append(values)
            row += len(chunk)
    if row != n:
        raise DataError(f"{folder}: p(z) of {row} galaxies were given for {n}")
    table = galaxies[[c for c in ("object_id", truth, "dered_petro_r") if c in galaxies.colnames]].copy()
    table[name] = np.concatenate(columns[estimate])
    for kind, parts in columns.items():
        table[_called(kind, name)] = np.concatenate(parts)
    table.meta = {"z_min": grid.z_min, "z_max": grid.z_max, "n_bins": grid.n_bins, "estimate": estimate}
    pdf_beside.rename(folder / "pdf.hdf5")
    write_table(folder / "photo_z.fits", table)
    return table


def _called(kind: str, name: str) -> str:
    """Return the column of a kind of estimate; pit is that of the galaxy, not of an estimate."""
    return kind if kind == "pit" else f"{name}_{kind}"


def _ids(galaxies: Table) -> NDArray[Any]:
    """Return object_id as numbers, or as bytes of one length."""
    ids = np.asarray(galaxies["object_id"])
    return ids.astype("S") if ids.dtype.kind == "U" else ids


def _pdf_dataset(
    file: h5py.File, ids: NDArray[Any], grid: RedshiftGrid, train_n_of_z: NDArray[np.floating[Any]]
) -> h5py.Dataset:
    """Write what goes with p(z) and return its data set, the whole length of it allocated, to be filled."""
    file["object_id"] = ids
    file["edges"] = grid.edges
    file["train_n_of_z"] = train_n_of_z
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return file.create_dataset("pdf", shape=(len(ids), grid.n_outputs), dtype="<f4", dcpl=layout)


class EstimateFiles:
    """`pdf.hdf5` and `photo_z.fits` of any number of galaxies, filled in place in order, and resumable.

    Both files have their whole length from the start, under names that say `partial`. `progress.json` says
    how many galaxies are in them for good: an interruption costs one chunk of work, nothing is written twice
    or gathered in memory, and the bytes do not depend on interruptions.

    The table has, of each galaxy: object_id and, where known, ra, dec, spec_z, dered_petro_r; `flag`, "good"
    or why there is no estimate (`photoz_lit.data.store.FLAGS`); photo_z (one of the three that follow),
    photo_z_mode, photo_z_mean, photo_z_median, photo_z_lower, photo_z_upper (68 % interval); `distance` to
    the training galaxies in the embedding, and whether that is `far`. Galaxies without estimate have NaN
    there and in their row of p(z).

    Parameters
    ----------
    folder : Path
        Where they lie.
    galaxies : Table
        One row a galaxy; only the columns named above are read.
    flags : array of str (n,)
        Why each galaxy gets no estimate; empty where it does.
    grid, train_n_of_z, estimate, names
        As in `write_results`.
    """

    def __init__(
        self,
        folder: Path,
        galaxies: Table,
        flags: NDArray[np.str_],
        grid: RedshiftGrid,
        train_n_of_z: NDArray[np.floating[Any]],
        estimate: str,
        names: tuple[str, str] = ("spec_z", "photo_z"),
    ) -> None:
        self.grid, self.estimate, self.flags = grid, estimate, flags.astype("S8")
        truth, self.name = names
        carried = ("object_id", "ra", "dec", truth, "dered_petro_r")
        self.carried = {n: np.asarray(galaxies[n]) for n in carried if n in galaxies.colnames}
        self.carried["object_id"] = _ids(galaxies)
        self.pdf, self.table = folder / "pdf.hdf5", folder / "photo_z.fits"
        self.pdf_beside, self.table_beside = folder / "pdf.hdf5.partial", folder / "photo_z.partial.fits"
        self.progress = folder / "progress.json"
        header = self._hdu(0, np.ones((1, grid.n_outputs)), np.zeros(1), np.zeros(1, bool)).header
        header["NAXIS2"] = len(flags)
        self.row_bytes = int(header["NAXIS1"])
        self.header = (fits.PrimaryHDU().header.tostring() + header.tostring()).encode("ascii")
        if not self._is_begun():
            self._begin(train_n_of_z)
        content = read_json(self.progress)
        self.rows, self.n_far, self.pdf_offset = content["rows"], content["far"], content["pdf_offset"]

    def append(
        self, pdf: NDArray[np.float32], distance: NDArray[np.floating[Any]], far: NDArray[np.bool_]
    ) -> None:
        """Write the next galaxies.

        Parameters
        ----------
        pdf : array (m, n_outputs)
            Their p(z); rows of galaxies with a flag are not used.
        distance, far : array (m,)
            Distance to the training galaxies, and whether it is large.

        Raises
        ------
        DataError
            A p(z) is not finite.
        """
        usable = self.flags[self.rows : self.rows + len(pdf)] == b""
        if (bad := usable & ~np.isfinite(pdf).all(axis=1)).any():
            row = self.rows + int(bad.argmax())
            raise DataError(
                f"the model gives p(z) that are not finite for {bad.sum()} galaxies, first in row {row} "
                f"(object_id {self.carried['object_id'][row]}): look at its inputs, and whether training "
                "diverged"
            )
        pdf = np.where(usable[:, None], pdf, np.float32(np.nan)).astype("<f4")
        distance, far = np.where(usable, distance, np.nan), far & usable
        table = io.BytesIO()
        self._hdu(self.rows, pdf, distance, far).writeto(table)
        skip = len(self.header)  # the chunk's own header has this length too
        rows = table.getvalue()[skip : skip + len(pdf) * self.row_bytes]
        _write_at(self.pdf_beside, self.pdf_offset + self.rows * pdf[0].nbytes, pdf.tobytes())
        _write_at(self.table_beside, skip + self.rows * self.row_bytes, rows)
        self.rows, self.n_far = self.rows + len(pdf), self.n_far + int(far.sum())
        self._save()

    def finish(self) -> None:
        """Put both files in their place; `forget` what is then left once the run is complete."""
        for beside, path in ((self.pdf_beside, self.pdf), (self.table_beside, self.table)):
            if beside.exists():
                beside.rename(path)

    def forget(self) -> None:
        """Remove the record of progress."""
        self.progress.unlink()

    def _is_begun(self) -> bool:
        """Whether an earlier run left files to go on with."""
        if not self.progress.is_file():
            return False
        whole = read_json(self.progress)["rows"] == len(self.flags)
        files = ((self.pdf_beside, self.pdf), (self.table_beside, self.table))
        return all(beside.is_file() or (whole and path.is_file()) for beside, path in files)

    def _begin(self, train_n_of_z: NDArray[np.floating[Any]]) -> None:
        """Reserve both files, so that a full disk is an error now and not after hours."""
        with h5py.File(self.pdf_beside, "w") as file:
            data = _pdf_dataset(file, self.carried["object_id"], self.grid, train_n_of_z)
            self.pdf_offset = data.id.get_offset()
        size = len(self.header) + len(self.flags) * self.row_bytes
        self.table_beside.write_bytes(self.header)
        _reserve(self.table_beside, size + -size % 2880)  # FITS files are made of such blocks
        _reserve(self.pdf_beside, self.pdf_beside.stat().st_size)
        self.rows = self.n_far = 0
        self._save()

    def _save(self) -> None:
        content = {"rows": self.rows, "far": self.n_far, "pdf_offset": self.pdf_offset}
        write_json(self.progress, content)

    def _hdu(
        self,
        start: int,
        pdf: NDArray[np.floating[Any]],
        distance: NDArray[np.floating[Any]],
        far: NDArray[np.bool_],
    ) -> fits.BinTableHDU:
        """Return the table of galaxies from `start` on."""
        part = slice(start, start + len(pdf))
        usable = self.flags[part] == b""
        table = Table({name: values[part] for name, values in self.carried.items()})
        # Not empty, as in a store: astropy's reader masks empty text, and a comparison would find none.
        table["flag"] = np.where(usable, b"good", self.flags[part]).astype("S8")
        estimates = _estimates(np.where(usable[:, None], pdf, 1.0), self.grid, None)
        for kind, values in {"": estimates[self.estimate], **estimates}.items():
            table[_called(kind, self.name) if kind else self.name] = np.where(usable, values, np.nan)
        table["distance"], table["far"] = distance.astype(np.float32), far
        g = self.grid
        table.meta = {"z_min": g.z_min, "z_max": g.z_max, "n_bins": g.n_bins, "estimate": self.estimate}
        return fits.table_to_hdu(table)


def _write_at(path: Path, offset: int, content: bytes) -> None:
    """Write bytes into a file that is there, down to the disk."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _reserve(path: Path, size: int) -> None:
    """Lengthen a file with zeros that have their place on the disk."""
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(size)


def _estimates(
    pdf: NDArray[np.float64], grid: RedshiftGrid, spec_z: NDArray[np.float64] | None
) -> dict[str, NDArray[np.float64]]:
    lower, upper = metrics.interval(pdf, grid).T
    estimates = {
        "mode": metrics.mode(pdf, grid),
        "mean": metrics.mean(pdf, grid),
        "median": metrics.median(pdf, grid),
        "lower": lower,
        "upper": upper,
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
