"""Photo-z table and p(z) on disk: one writer for the test split of a run and for any number of galaxies.

`pdf.hdf5` is a file of qp (`qp.read`; qp-prob 1.1): p(z) as densities on bins (`data/pdfs`, `meta/bins`) with
names, flags and estimates (`ancil`). Beside them stand our `priors`.

It and `photo_z.fits` have their whole length from the start, under names that say `partial`, and are
filled in place, in order. `progress.json` says how many galaxies are in them for good: an interruption costs
one chunk of work, nothing is written twice or gathered in memory, and the bytes do not depend on
interruptions. That is why p(z) lie contiguous in their file and are not compressed: a compressed data set
cannot be filled in place after a kill, and gzip would save a tenth of it. `photoz_lit.products` makes small
files of them.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy import units
from astropy.io import fits
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction.finishing.response import Response
from photoz_lit.correction.prior import Priors
from photoz_lit.data.store import ESTIMATED
from photoz_lit.errors import DataError
from photoz_lit.estimates import estimates_of
from photoz_lit.files import read_json, reserve, write_json
from photoz_lit.grids import RedshiftGrid, Texts
from photoz_lit.target import REDSHIFT, Target

Facts = Mapping[str, tuple[str | float, str]]
Floats = NDArray[np.floating[Any]]

BLOCK = 1024  # galaxies whose estimates are made together: what a processor's cache takes
PDFS, BINS = "data/pdfs", "meta/bins"
QP_NAMES = {"mode": "zmode", "median": "zmedian", "mean": "zmean"}  # as RAIL has them


def write_results(
    folder: Path,
    galaxies: Table,
    pdf_chunks: Iterable[Floats],
    grid: RedshiftGrid,
    priors: Priors,
    estimate: str = "mode",
    target: Target = REDSHIFT,
    responses: Sequence[Response] = (),
) -> Table:
    """Write the results of galaxies that all have an estimate, and return the photo-z table.

    `pdf_chunks` are arrays (m, n_outputs), in the order of the galaxies; all else is as in `Results`.
    """
    (folder / "progress.json").unlink(missing_ok=True)
    results = Results(folder, galaxies, grid, priors, estimate, target, responses=responses)
    for chunk in pdf_chunks:
        results.append(chunk, np.full(len(chunk), "good"))
    if results.rows != len(galaxies):
        raise DataError(f"{folder}: p(z) of {results.rows} galaxies were given for {len(galaxies)}")
    results.finish()
    results.forget()
    return Table.read(results.table, format="fits", mask_invalid=False)


class Results:
    """`pdf.hdf5` and `photo_z.fits`, filled chunk by chunk; those of an interrupted run are gone on with.

    The table has, of each galaxy: object_id and, where known, ra, dec, spec_z, dered_petro_r and ebv; `flag`
    (`photoz_lit.data.store.FLAGS`); photo_z (one of the three that follow), photo_z_mode, photo_z_mean,
    photo_z_median, photo_z_lower, photo_z_upper (68 % interval, within the survey's range, and as wide as to
    hold photo_z); photo_z_individual with its error, NaN where it does not hold, with a `response`; pit where
    the truth is known; `pdf_outside`, the share of p(z) beyond the survey's range, on an extended grid;
    `distance` to the training galaxies in the embedding. Galaxies without estimate have NaN there and in
    their p(z).

    p(z) are on the bins of `grid`, extension included; beside them stand their `priors`. `facts`, each a
    value and a comment, are for the header of the table.
    """

    def __init__(
        self,
        folder: Path,
        galaxies: Table,
        grid: RedshiftGrid,
        priors: Priors,
        estimate: str = "mode",
        target: Target = REDSHIFT,
        facts: Facts | None = None,
        responses: Sequence[Response] = (),
    ) -> None:
        self.responses = responses
        self.grid, self.estimate, self.n = grid, estimate, len(galaxies)
        self.truth, self.name = target.column, target.estimate
        carried = ("object_id", "ra", "dec", self.truth, "dered_petro_r", "ebv")
        self.carried = {n: _plain(galaxies[n]) for n in carried if n in galaxies.colnames}
        self.table = folder / "photo_z.fits"
        self.pdf_beside, self.table_beside = folder / "pdf.hdf5.partial", folder / "photo_z.partial.fits"
        self.files = ((self.pdf_beside, folder / "pdf.hdf5"), (self.table_beside, self.table))
        self.progress = folder / "progress.json"
        kinds = ["mode", "mean", "median", "lower", "upper"]
        kinds += ["individual", "individual_err"] if responses else []
        kinds += ["pit"] * (self.truth in self.carried)
        kinds += ["pdf_outside"] * (grid.n_outputs > grid.n_bins)
        columns: list[tuple[str, Any]] = [(n, v.dtype.newbyteorder(">")) for n, v in self.carried.items()]
        columns += [("flag", "S8"), (self.name, ">f8"), *((self._called(kind), ">f8") for kind in kinds)]
        self.dtype = np.dtype([*columns, ("distance", ">f4")])
        named = {QP_NAMES[kind] if target.is_redshift else self._called(kind): kind for kind in QP_NAMES}
        own = {self._called(kind): kind for kind in ("", "individual") if kind in ("", *kinds)}
        self.ancil = {name: self._called(kind) for name, kind in (named | own).items()} | {"flag": "flag"}
        self.header = self._header(target, facts or {})
        if not self._is_begun():
            self._begin(priors)
        content = read_json(self.progress)
        self.rows, self.offsets = content["rows"], content["offsets"]  # of what is filled, in pdf.hdf5
        self.counts = Counter(content["counts"])  # galaxies by flag

    def append(self, pdf: Floats, flags: Texts, distance: Floats | None = None) -> None:
        """Write the next galaxies: p(z) (m, n_outputs), flag and distance (m,).

        p(z) of galaxies whose flag says that they have no estimate are not used. DataError where another is
        not finite, or there are more than galaxies.
        """
        part = slice(self.rows, self.rows + len(pdf))
        if part.stop > self.n:
            raise DataError(f"{self.table}: p(z) of {part.stop} galaxies were given for {self.n}")
        usable = np.isin(flags, ESTIMATED)
        if (bad := usable & ~np.isfinite(pdf).all(axis=1)).any():
            row = self.rows + int(bad.argmax())
            raise DataError(
                f"the model gives p(z) that are not finite for {bad.sum()} galaxies, first in row {row} "
                f"(object_id {self.carried['object_id'][row]}): look at its inputs, and whether training "
                "diverged"
            )
        rows = np.empty(len(pdf), self.dtype)
        for name, values in self.carried.items():
            rows[name] = values[part]
        rows["flag"] = flags.astype("S8")
        rows["distance"] = np.nan if distance is None else np.where(usable, distance, np.nan)
        truth = self.carried[self.truth][part] if self.truth in self.carried else None
        r = self.carried["dered_petro_r"][part] if "dered_petro_r" in self.carried else None
        width = self.grid.width
        density = np.empty(pdf.shape, "<f4")
        for s in (slice(i, i + BLOCK) for i in range(0, len(pdf), BLOCK)):
            density[s] = np.where(usable[s, None], pdf[s].astype(np.float64) / width, np.nan)
            # Of p(z) as they are read again: results that are written again are the same.
            stored = density[s].astype(np.float64) * width
            z, mag = (None if values is None else values[s] for values in (truth, r))
            estimates = estimates_of(stored, usable[s], self.grid, self.estimate, z, self.responses, mag)
            for kind, values in estimates.items():
                rows[self._called(kind)][s] = values
        filled = {name: rows[column] for name, column in self.ancil.items()} | {PDFS: density}
        plain = {name: values.astype(values.dtype.newbyteorder("<")) for name, values in filled.items()}
        places = {
            self.offsets[name] + self.rows * (values.nbytes // len(values)): values.tobytes()
            for name, values in plain.items()
        }
        _write_at(self.pdf_beside, places)
        _write_at(self.table_beside, {len(self.header) + self.rows * self.dtype.itemsize: rows.tobytes()})
        self.rows = part.stop
        self.counts.update(flags.tolist())
        self._save()

    def finish(self) -> None:
        """Put both files in their place; `forget` what is then left once the run is complete."""
        for beside, path in self.files:
            if beside.exists():
                beside.rename(path)

    def forget(self) -> None:
        """Remove the record of progress."""
        self.progress.unlink()

    def _called(self, kind: str) -> str:
        """Return the column of a kind of estimate, or of what is none."""
        return {"": self.name, "pit": "pit", "pdf_outside": kind}.get(kind, f"{self.name}_{kind}")

    def _header(self, target: Target, facts: Facts) -> bytes:
        """Return all of the table's file that stands before its first row."""
        header = fits.BinTableHDU(np.zeros(1, self.dtype)).header
        header["NAXIS2"] = self.n
        said = {
            "object_id": ("", "identity, as it was given"),
            "ra": ("deg", "right ascension"),
            "dec": ("deg", "declination"),
            self.truth: (target.unit, "true value"),
            "dered_petro_r": ("mag" if target.is_redshift else "", "magnitude in r, dereddened"),
            "ebv": ("mag", "E(B-V); NaN where it is not known"),
            "flag": ("", "good, or what speaks against an estimate"),
            self.name: (target.unit, f"estimate: {self.estimate} of p(z)"),
            **{self._called(kind): (target.unit, f"{kind} of p(z)") for kind in ("mode", "mean", "median")},
            self._called("lower"): (target.unit, "lower end of the 68 % interval"),
            self._called("upper"): (target.unit, "upper end of the 68 % interval"),
            self._called("individual"): (target.unit, "for galaxies of one true value; NaN where none"),
            self._called("individual_err"): (target.unit, "its error, 68 %"),
            "pdf_outside": ("", "share of p(z) beyond the survey, where Step 3 extends it"),
            "pit": ("", "integral of p(z) up to the true value"),
            "distance": ("", "from the training galaxies, in the embedding"),
        }
        for i, name in enumerate(self.dtype.names or (), 1):
            in_unit, words = said[name]
            known = units.Unit(in_unit, format="fits", parse_strict="silent")
            if in_unit and not isinstance(known, units.UnrecognizedUnit):
                header[f"TUNIT{i}"], in_unit = in_unit, ""
            header[f"TCOMM{i}"] = f"{words}, {in_unit}" if in_unit else words
        header["Z_MIN"] = float(self.grid.z_min), "of the survey"
        header["Z_MAX"] = float(self.grid.z_max), "of the survey"
        header["N_BINS"] = int(self.grid.n_bins), "of p(z) in it"
        header["ESTIMATE"] = self.estimate, "of p(z): the estimate"
        header.update(facts)
        text: str = fits.PrimaryHDU().header.tostring() + header.tostring()
        return text.encode("ascii")

    def _is_begun(self) -> bool:
        """Whether an earlier run left files to go on with."""
        if not self.progress.is_file():
            return False
        whole = read_json(self.progress)["rows"] == self.n
        return all(beside.is_file() or (whole and path.is_file()) for beside, path in self.files)

    def _begin(self, priors: Priors) -> None:
        """Make both files in their whole length."""
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        kinds = {name: self.dtype[column].newbyteorder("<") for name, column in self.ancil.items()}
        with h5py.File(self.pdf_beside, "w") as file:
            file["meta/pdf_name"], file["meta/pdf_version"] = np.array([b"hist"]), np.array([0])
            file[BINS] = self.grid.edges[None]
            priors.write(file.create_group("priors"))
            file["ancil/object_id"] = self.carried["object_id"]
            made = {
                name: file.create_dataset(f"ancil/{name}", (self.n,), dtype=kind, dcpl=layout)
                for name, kind in kinds.items()
            }
            shape = (self.n, self.grid.n_outputs)
            made[PDFS] = file.create_dataset(PDFS, shape, dtype="<f4", dcpl=layout)
            made[PDFS].attrs["content"] = "p(z) as a density: probability of a bin / its width"
            self.offsets = {name: data.id.get_offset() for name, data in made.items()}
        size = len(self.header) + self.n * self.dtype.itemsize
        self.table_beside.write_bytes(self.header)
        reserve(self.table_beside, size + -size % 2880)  # FITS files are made of such blocks
        reserve(self.pdf_beside, self.pdf_beside.stat().st_size)
        self.rows, self.counts = 0, Counter()
        self._save()

    def _save(self) -> None:
        content = {"rows": self.rows, "offsets": self.offsets, "counts": dict(self.counts)}
        write_json(self.progress, content)


def _plain(column: ArrayLike) -> NDArray[Any]:
    """Return a column as FITS and HDF5 keep it: whole numbers, floats, or UTF-8 of one length."""
    values: NDArray[Any] = np.ma.filled(np.ma.asarray(column))
    if values.dtype.kind == "U":
        return np.char.encode(values, "utf-8")
    return values.astype(np.int64) if values.dtype.kind in "ub" else values


def _write_at(path: Path, places: Mapping[int, bytes]) -> None:
    """Write bytes at offsets of a file that is there, down to the disk."""
    with path.open("r+b") as file:
        for offset, content in places.items():
            file.seek(offset)
            file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_pdf(folder: Path, chunk: int = 65536) -> Iterator[NDArray[np.float64]]:
    """Yield p(z) of a run folder, probabilities of bins, in chunks (m, n_outputs)."""
    edges = read_edges(folder)
    width = (edges[-1] - edges[0]) / (len(edges) - 1)
    with h5py.File(folder / "pdf.hdf5") as file:
        data = file[PDFS]
        for start in range(0, len(data), chunk):
            yield data[start : start + chunk].astype(np.float64) * width


def read_rows(folder: Path, chunk: int) -> Iterator[tuple[NDArray[Any], NDArray[np.float64]]]:
    """Yield rows of the table of a run folder and their p(z) (m, n_outputs), without keeping the rest."""
    path, start = folder / "photo_z.fits", 0
    with fits.open(path, memmap=True) as hdus:
        dtype, place = hdus[1].data.dtype, hdus[1].fileinfo()["datLoc"]
    for pdf in read_pdf(folder, chunk):
        yield np.fromfile(path, dtype, len(pdf), offset=place + start * dtype.itemsize), pdf
        start += len(pdf)


def read_edges(folder: Path) -> NDArray[np.float64]:
    """Return the edges of the bins of p(z) of a run folder, (n_outputs + 1,); DataError where it has none."""
    path = folder / "pdf.hdf5"
    try:
        with h5py.File(path) as file:
            return np.asarray(file[BINS][0], np.float64)
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: cannot be read ({error}): delete its folder and run again") from error


def read_grid(folder: Path, bins: RedshiftGrid) -> RedshiftGrid:
    """Return the bins of p(z) of a run folder: the survey's own, with those that Step 3 added to them."""
    edges = read_edges(folder)
    left = round((bins.z_min - edges[0]) / bins.width)
    return bins.extended(left, len(edges) - 1 - bins.n_bins - left)
