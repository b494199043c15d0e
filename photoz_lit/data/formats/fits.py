"""FITS: binary and text tables, also in files compressed by gzip, bzip2 or fpack."""

import logging
from pathlib import Path

from astropy.io import fits
from astropy.table import Table

log = logging.getLogger(__name__)


def read(path: Path, part: str | None) -> Table:
    """Read the first table, or that of an HDU by its number (0 is the primary one) or name."""
    with fits.open(path) as file:
        tables = {i: hdu for i, hdu in enumerate(file) if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)}
        there = ", ".join(f"[{i}] {hdu.name}".strip() for i, hdu in tables.items())
        if not tables:
            raise ValueError("it holds no table, only images")
        wanted = [i for i, hdu in tables.items() if part is None or part.upper() in (str(i), hdu.name)]
        if not wanted:
            raise ValueError(f"it has no table [{part}]; there are {there}")
        if part is None and len(tables) > 1:
            log.info("%s: [%d] is read of its tables %s", path, wanted[0], there)
        hdu = tables[wanted[0]]
        if hdu.header.get("ZTABLE"):
            raise ValueError("its table is compressed: type funpack first")
        return Table.read(hdu, format="fits", unit_parse_strict="silent")
