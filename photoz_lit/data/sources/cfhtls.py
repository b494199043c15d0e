"""`data=cfhtls`: CFHTLS cutouts as Treyer et al. and Lin et al. 2022 use them.

Files `CUBE_WD_ZHQ_0001.npz` ... `CUBE_WD_ZLR_0002.npz` with `cube` (n, 64, 64, 5), bands ugriz, AB zero point
30 as all stacks of TERAPIX, and `info`, a structured array. ZHQ files hold high-resolution spectroscopic
redshifts of high quality, ZLR files low-resolution ones. These name some fields otherwise; both get the names
of the ZHQ files. ZFLAG is the quality of a redshift; FIELD tells wide (W) from deep (D) fields.
"""

from dataclasses import dataclass
from pathlib import Path

from photoz_lit.data.sources import published
from photoz_lit.data.sources.published import Published, PublishedSettings, found_files
from photoz_lit.errors import DataError

KINDS, check, facts = published.KINDS, published.check, published.facts
ZERO_POINT = 30.0
COLUMNS = {"spec_z": ["ZSPEC"], "dered_petro_r": ["R"], "ebv": ["EBV"], "ra": ["RA"], "dec": ["DEC"]}
NEEDED = ("ZSPEC", "R", "EBV")
RENAMED = {"ZPHOT": "zphot", "Ip_2": "I", "ERRIp_2": "Ierr"} | {f"ERR{b}": f"{b}err" for b in "UGRZ"}


@dataclass
class Settings(PublishedSettings):
    """The files; also type survey=cfhtls_wide or cfhtls_deep."""

    source: str = "cfhtls"


def read(path: Path) -> Published:
    """Open one file, a folder or a pattern of files; columns `subset` and `resolution` tell them apart."""
    from astropy.table import vstack

    parts, tables = [], []
    for file in found_files(path, (".npz",)):
        if missing := {"cube", "info"} - set(published.array_names(file)):
            raise DataError(f"{file}: no array {' and '.join(sorted(missing))} in it, as data=cfhtls needs")
        parts.append(published.NpzCube(file, "cube"))
        table = published.labels_table(file, "info")
        for theirs, ours in RENAMED.items():
            if theirs in table.colnames and ours not in table.colnames:
                table.rename_column(theirs, ours)
        if lost := [name for name in NEEDED if name not in table.colnames]:
            there = ", ".join(table.colnames)
            raise DataError(f"{file}: 'info' has no {', '.join(lost)}. Its fields: {there}")
        if len(table) != parts[-1].rows:
            raise DataError(f"{file}: {parts[-1].rows} cutouts for {len(table)} rows of 'info'")
        table.convert_bytestring_to_unicode()
        table["subset"] = file.stem
        table["resolution"] = "high" if "ZHQ" in file.stem else "low" if "ZLR" in file.stem else "unknown"
        tables.append(table)
    table = vstack(tables, join_type="inner", metadata_conflicts="silent")
    return Published(table, COLUMNS, parts, ZERO_POINT)


plan = published.planner(read)
