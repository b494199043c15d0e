"""Tables as they come: one file a format, one function each; a format is known by the ending of a name.

A reader takes the path and the part of the file that is wanted (None: the only one), raises any error with
its reason, and returns a Table in which the format's own empty cells are masked. It converts nothing: columns
that nobody uses may hold what they like. Each imports its library itself: most runs need one of them.
"""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from photoz_lit.data.formats import ecsv, fits, hdf5, parquet, text, votable
from photoz_lit.errors import DataError

if TYPE_CHECKING:
    from astropy.table import Table

FORMATS: dict[str, Callable[[Path, str | None], "Table"]] = {
    ".csv": text.read,
    ".csv.gz": text.read,
    ".tsv": text.read,
    ".tsv.gz": text.read,
    ".txt": text.read,
    ".dat": text.read,
    ".ecsv": ecsv.read,
    ".ecsv.gz": ecsv.read,
    ".fits": fits.read,
    ".fits.gz": fits.read,
    ".fits.fz": fits.read,
    ".fits.bz2": fits.read,
    ".fit": fits.read,
    ".fit.gz": fits.read,
    ".vot": votable.read,
    ".vot.gz": votable.read,
    ".votable": votable.read,
    ".xml": votable.read,
    ".parquet": parquet.read,
    ".pq": parquet.read,
    ".hdf5": hdf5.read,
    ".h5": hdf5.read,
}


def table_file(path: Path | str) -> tuple[Path, str | None]:
    """Return the file of a table and the part of it that is named, as in `galaxies.fits[2]`."""
    path = Path(path).expanduser()
    named = re.fullmatch(r"(.+)\[([^\[\]]+)\]", str(path))
    if named is None or path.exists():
        return path, None
    return Path(named[1]), named[2].strip()


def read_table(path: Path | str) -> "Table":
    """Read a table by the ending of its name; a folder is one of Parquet files.

    Parameters
    ----------
    path : Path
        One of several tables of a file is named in brackets: the number or name of an HDU or VOTable, the
        group or data set of an HDF5 file, such as `galaxies.fits[2]`.

    Raises
    ------
    DataError
        The file is absent, of an unknown kind, cannot be read or holds no rows.
    """
    from astropy.utils.exceptions import AstropyWarning

    file, part = table_file(path)
    ending = max((e for e in FORMATS if file.name.lower().endswith(e)), key=len, default=None)
    if file.is_dir():
        ending = ".parquet"
    if ending is None:
        raise DataError(f"{file}: unknown kind of table '{file.suffix}'. Known: {', '.join(sorted(FORMATS))}")
    if not file.exists():
        raise DataError(f"{file}: no such file. Check data.path (relative paths start at {Path.cwd()})")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            warnings.filterwarnings("error", message=".*truncated")  # astropy only warns, then reads on
            table = FORMATS[ending](file, part)
    except Exception as error:  # each reader has its own errors; the user needs the file's name
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: cannot be read as {ending}: {reason}") from error
    if len(table) == 0:
        raise DataError(f"{path}: the table has no rows")
    return table
