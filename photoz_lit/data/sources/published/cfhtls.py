"""CFHTLS cutouts as Treyer et al. and Lin et al. 2022 use them.

Files `CUBE_WD_ZHQ_0001.npz` ... `CUBE_WD_ZLR_0002.npz` with `cube` (n, 64, 64, 5), bands ugriz, AB zero point
30 as all stacks of TERAPIX, and `info`, a structured array. ZHQ files hold high-resolution spectroscopic
redshifts of high quality, ZLR files low-resolution ones. These name some fields otherwise; both get the names
of the ZHQ files. ZFLAG is the quality of a redshift; FIELD tells wide (W) from deep (D) fields.
"""

from pathlib import Path

import numpy as np
from astropy.table import Table

from photoz_lit.data.sources.published import npz
from photoz_lit.data.sources.published.pasquet import labels_table
from photoz_lit.data.sources.published.reader import Reader, assemble, found_files, stacked
from photoz_lit.errors import DataError

BANDS = "ugriz"
ZERO_POINT = 30.0
COLUMNS = {"spec_z": ("ZSPEC",), "dered_petro_r": ("R",), "ebv": ("EBV",), "ra": ("RA",), "dec": ("DEC",)}
NEEDED = ("ZSPEC", "R", "EBV")
RENAMED = {
    "ZPHOT": "zphot",
    "ERRU": "Uerr",
    "ERRG": "Gerr",
    "ERRR": "Rerr",
    "Ip_2": "I",
    "ERRIp_2": "Ierr",
    "ERRZ": "Zerr",
}


def open_cfhtls(path: Path, n_bands: int, pixels: int) -> Reader:
    """Open one file, a folder or a pattern of files, sorted by name; see `open_layout`.

    Columns beside those published: `subset` (the file's name without its suffix) and `resolution` of the
    spectroscopy (`high`, `low`, or `unknown` where the file's name has neither ZHQ nor ZLR).
    """
    files = found_files(path, (".npz",))
    parts, tables = [], []
    for file in files:
        missing = {"cube", "info"} - set(npz.array_names(file))
        if missing:
            raise DataError(f"{file}: no array {' and '.join(sorted(missing))} in it, as layout=cfhtls needs")
        parts.append(npz.NpzCube(file, "cube"))
        tables.append(_info(file))
        if len(tables[-1]) != parts[-1].rows:
            raise DataError(f"{file}: {parts[-1].rows} cutouts for {len(tables[-1])} rows of 'info'")
    return assemble(
        parts,
        stacked(tables),
        columns=COLUMNS,
        bands=BANDS,
        n_bands=n_bands,
        pixels=pixels,
        prefer_last=True,
        zero_point=ZERO_POINT,
    )


def _info(file: Path) -> Table:
    """Read a file's table, with the names of the ZHQ files."""
    table = labels_table(file, "info")
    for theirs, ours in RENAMED.items():
        if theirs in table.colnames and ours not in table.colnames:
            table.rename_column(theirs, ours)
    missing = [name for name in NEEDED if name not in table.colnames]
    if missing:
        raise DataError(
            f"{file}: 'info' has no {', '.join(missing)}. Its fields: {', '.join(table.colnames)}"
        )
    table.convert_bytestring_to_unicode()
    resolution = "high" if "ZHQ" in file.stem else "low" if "ZLR" in file.stem else "unknown"
    table["subset"] = np.full(len(table), file.stem)
    table["resolution"] = np.full(len(table), resolution)
    return table
