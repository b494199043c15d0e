"""The results of a run folder as all formats read them: rows of the table with their p(z), in chunks."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from photoz_lit.errors import DataError
from photoz_lit.files import read_json
from photoz_lit.grids import Floats, RedshiftGrid
from photoz_lit.results import read_grid, read_rows

CHUNK = 16384  # galaxies at a time


@dataclass(frozen=True)
class Opened:
    """A run folder's results: how many galaxies, the bins of their p(z), their first row without values."""

    folder: Path
    n: int
    grid: RedshiftGrid
    dtype: np.dtype[np.void]

    def __iter__(self) -> Iterator[tuple[Table, Floats]]:
        """Yield rows of the table and their p(z), (m, n_outputs)."""
        for rows, pdf in read_rows(self.folder, CHUNK):
            table = Table({name: rows[name].astype(self.dtype[name]) for name in self.dtype.names or ()})
            table.convert_bytestring_to_unicode()
            yield table, pdf


def opened(folder: Path, form: str) -> Opened:
    """Open the results of a run folder; DataError where they are of no redshifts."""
    with fits.open(folder / "photo_z.fits", memmap=True) as hdus:
        header, dtype = hdus[1].header, hdus[1].data.dtype
    if "photo_z_median" not in dtype.names:
        raise DataError(f"{folder}: format={form} has names for redshifts alone: leave it out")
    grid = read_grid(folder, RedshiftGrid(header["Z_MIN"], header["Z_MAX"], header["N_BINS"]))
    return Opened(folder, header["NAXIS2"], grid, dtype.newbyteorder("="))


def name_of_run(folder: Path) -> str:
    """Return what a run folder calls itself."""
    done = folder / "done.json"
    return str(read_json(done)["label"]) if done.is_file() else folder.name
