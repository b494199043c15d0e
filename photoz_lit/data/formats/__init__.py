"""Tables as they come: one file a format, one function each; a format is known by the ending of a name.

A reader takes the path and the part of the file that is wanted (None: the only one), raises any error with
its reason, and returns a Table in which the format's own empty cells are masked. It converts nothing: columns
that nobody uses may hold what they like. To be imported where a table is read: the libraries take their time.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning

from photoz_lit.data.formats import fits, hdf5, parquet, text, votable
from photoz_lit.errors import DataError

FORMATS: dict[str, Callable[[Path, str | None], Table]] = {
    **dict.fromkeys((".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".dat", ".ecsv", ".ecsv.gz"), text.read),
    **dict.fromkeys((".fits", ".fits.gz", ".fits.fz", ".fits.bz2", ".fit", ".fit.gz"), fits.read),
    **dict.fromkeys((".vot", ".vot.gz", ".votable", ".xml"), votable.read),
    **dict.fromkeys((".parquet", ".pq"), parquet.read),
    **dict.fromkeys((".hdf5", ".h5"), hdf5.read),
}


def table_file(path: Path | str) -> tuple[Path, str | None]:
    """Return the file of a table and the part of it that is named, as in `galaxies.fits[2]`."""
    path = Path(path).expanduser()
    named = re.fullmatch(r"(.+)\[([^\[\]]+)\]", str(path))
    return (path, None) if named is None or path.exists() else (Path(named[1]), named[2].strip())


def read_table(path: Path | str, wanted: Iterable[str] = ()) -> Table:
    """Read a table by the ending of its name; a folder is one of Parquet files, of which `wanted` are enough.

    One of several tables of a file is named in brackets, as in `galaxies.fits[2]`: by the number or name of
    an HDU or VOTable, the group or data set of an HDF5 file. All that goes wrong is a DataError.
    """
    file, part = table_file(path)
    endings = [e for e in FORMATS if file.name.lower().endswith(e)]
    ending = ".parquet" if file.is_dir() else max(endings, key=len, default=None)
    if ending == ".parquet" and part is None:
        part = ",".join(wanted) or None
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
