"""Results in the field's other formats, made of a run folder's `photo_z.fits` and `pdf.hdf5`, in chunks.

A format is a module with `NAME`, of the file or folder that it makes, and `write(folder, place)`. Galaxies
without an estimate stay in their row, with NaN.
"""

import importlib
import importlib.util
import logging
import shutil
from pathlib import Path
from typing import Any

from photoz_lit.errors import DataError
from photoz_lit.files import beside, locked

log = logging.getLogger(__name__)

FORMATS = {
    "parquet": "rubin",
    "hats": "hats",
    "fits": "euclid",
    "ecsv": "ecsv",
    "quantiles": "quantiles",
    "mixture": "mixture",
}
NEEDED = {"hats": "hats"}  # packages, each an extra of its name
MADE_OF = ("photo_z.fits", "pdf.hdf5")


def check(name: str) -> None:
    """Raise DataError where a format needs a package that is not installed."""
    needed = NEEDED.get(name)
    if needed and importlib.util.find_spec(needed) is None:
        raise DataError(f"format={name} needs {needed}: type pip install 'photoz_lit[{needed}]'")


def make(name: str, folder: Path) -> Path | None:
    """Write the results of a run folder in a format, unless they are there; none for `qp`, which they are in.

    DataError where they cannot be had in it.
    """
    if name not in FORMATS:
        return None
    module = importlib.import_module(f"{__name__}.{FORMATS[name]}")
    place: Path = folder / module.NAME
    with locked(folder):
        made = max((folder / source).stat().st_mtime_ns for source in MADE_OF)
        if place.exists() and place.stat().st_mtime_ns >= made:
            log.info("%s is there already", place)
        else:
            _write(module, folder, place)
            log.info("format=%s -> %s", name, place)
        (folder / "lock").unlink(missing_ok=True)
    return place


def _write(module: Any, folder: Path, place: Path) -> None:
    with beside(place) as partial:
        try:
            module.write(folder, partial)
            if place.is_dir():
                shutil.rmtree(place)
        except BaseException:
            if partial.is_dir():
                shutil.rmtree(partial)
            raise
