"""A FITS table with the names of Euclid's PHZ catalogues: PHZ_PDF, PHZ_MEDIAN, PHZ_MODE_1, PHZ_70_INT, ...

PHZ_PDF is a density at the centres of our bins, which the header tells. The first and second mode are the
two parts of p(z) between its minima with the largest area. Intervals are central, about the median.
"""

from pathlib import Path

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from photoz_lit.grids import Bools, Floats, RedshiftGrid
from photoz_lit.products.opened import opened
from photoz_lit.products.rubin import within

NAME = "photo_z_euclid.fits"
LEVELS = (70, 90, 95)
OURS = {"OBJECT_ID": "object_id", "RIGHT_ASCENSION": "ra", "DECLINATION": "dec", "FLAG": "flag"}
OURS |= {"PHZ_MEDIAN": "photo_z_median"}


def write(folder: Path, place: Path) -> None:
    """Write the results of a run folder, one row a galaxy, in order."""
    results = opened(folder, "fits")
    carried = {name: ours for name, ours in OURS.items() if ours in (results.dtype.names or ())}
    columns: list[tuple[str, object]] = [(n, results.dtype[o].newbyteorder(">")) for n, o in carried.items()]
    columns += [(f"PHZ_MODE_{i}{what}", ">f4") for i in (1, 2) for what in ("", "_AREA")]
    columns += [(f"PHZ_{level}_INT", ">f4", (2,)) for level in LEVELS]  # type: ignore[misc]
    dtype = np.dtype([*columns, ("PHZ_PDF", ">f4", (results.grid.n_outputs,))])
    with place.open("wb") as file:
        file.write(header_of(dtype, results.n, results.grid))
        for rows, pdf in results:
            out = np.zeros(len(rows), dtype)
            for name, ours in carried.items():
                values = np.asarray(rows[ours])
                out[name] = np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
            fill(out, pdf, results.grid)
            file.write(out.tobytes())
        file.write(b"\0" * (-file.tell() % 2880))  # FITS files are made of such blocks


def header_of(dtype: np.dtype[np.void], n: int, grid: RedshiftGrid) -> bytes:
    """Return all of the file that stands before its first row."""
    header = fits.BinTableHDU(np.zeros(1, dtype)).header
    header["NAXIS2"] = n
    header["PDF_Z0"] = float(grid.centres[0]), "redshift of the first value of PHZ_PDF"
    header["PDF_DZ"] = float(grid.width), "step of PHZ_PDF"
    text: str = fits.PrimaryHDU().header.tostring() + header.tostring()
    return text.encode("ascii")


def fill(out: NDArray[np.void], pdf: Floats, grid: RedshiftGrid) -> None:
    """Fill in what p(z) (m, n_outputs) say of galaxies; NaN where there is none."""
    known: Bools = np.asarray(np.isfinite(pdf).all(axis=1))
    for level in LEVELS:
        out[f"PHZ_{level}_INT"] = within(pdf, grid, level / 100)
    for i, (z, area) in enumerate(zip(*modes(np.where(known[:, None], pdf, 1.0), grid), strict=True), 1):
        out[f"PHZ_MODE_{i}"], out[f"PHZ_MODE_{i}_AREA"] = (np.where(known, v, np.nan) for v in (z, area))
    out["PHZ_PDF"] = pdf / grid.width


def modes(pdf: Floats, grid: RedshiftGrid) -> tuple[Floats, Floats]:
    """Return redshift and area of the two largest modes of each p(z), (2, m); NaN and 0 where it has one."""
    m, k = pdf.shape
    inner = pdf[:, 1:-1]
    lowest = np.zeros((m, k), dtype=bool)  # the first bin after a minimum begins a new part
    lowest[:, 1:-1] = (inner < pdf[:, :-2]) & (inner <= pdf[:, 2:])
    part = np.cumsum(lowest, axis=1) + np.arange(m)[:, None] * k
    area = np.bincount(part.ravel(), pdf.ravel(), minlength=m * k).reshape(m, k).astype(np.float64)
    first = np.argsort(-area, axis=1, kind="stable")[:, :2].T
    found = np.take_along_axis(area, first.T, axis=1).T
    of = part - np.arange(m)[:, None] * k
    peaks = np.stack([np.where(of == which[:, None], pdf, -1.0).argmax(axis=1) for which in first])
    return np.where(found > 0, grid.centres[peaks], np.nan), found
