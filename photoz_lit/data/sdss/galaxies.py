"""The table of galaxies to cut: somebody's positions, or the survey's own catalogue."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.columns import find_column, numbers
from photoz_lit.data.formats import read_table
from photoz_lit.data.sdss.query import Selection, query, standard_columns
from photoz_lit.data.splits import with_ids
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

PLACE = ("run", "camcol", "field")


def read_positions(path: Path, rules: TableRules, limit: int | None, *, places: bool) -> Table:
    """Read a table of positions as `Walk` needs it; `places`: with run, camcol and field, -1 in empty cells.

    Otherwise columns of such names, which may be anything, are not looked at.
    """
    raw, origin = read_table(path), str(path)

    def found(name: str) -> str | None:
        return find_column(raw, rules.columns.get(name, name), origin)

    table, rows = standard_table(raw, origin, replace(rules, needed=("ra", "dec")))
    table = with_ids(table)
    if found("ebv") is None and rules.ebv_maps is None:
        if rules.labelled:  # to predict it is looked up
            log.warning(
                "%s has no E(B-V): frames show galaxies through the dust of the Milky Way, and photo_z will "
                "be off where there is some. Type data.ebv_maps=coarse, or a folder of the SFD maps",
                path,
            )
        table["ebv_known"] = False
    for name in ("rowc", "colc"):
        if theirs := found(name):
            table[name] = numbers(raw, theirs, origin)[rows]
    if places and (missing := [name for name in PLACE if found(name) is None]):
        raise DataError(
            f"{path}: no column {', '.join(missing)}: the archive is asked by run, camcol and field. Add "
            "these columns, or name a folder of frames by data.images"
        )
    for name in PLACE if places else ():
        values = np.nan_to_num(numbers(raw, found(name) or name, origin)[rows], nan=-1)
        if (wrong := values != np.floor(values)).any():
            raise DataError(f"{path}: column {name} holds {values[wrong][0]:g}: whole numbers are needed")
        table[name] = values.astype(np.int64)
    return table[:limit]


def ask_catalogue(selection: Selection, folder: Path, server: str, rules: TableRules) -> Table:
    """Fetch galaxies with good spectra from the SkyServer; the folder keeps its pages."""
    raw = standard_columns(query(selection, folder, server))
    table, rows = standard_table(raw, server, rules)
    for name in raw.colnames:
        if name not in table.colnames:
            table[name] = raw[name][rows]
    return table
