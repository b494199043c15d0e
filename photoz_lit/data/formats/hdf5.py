"""HDF5: compound data sets, or one data set a column, at the root or in groups."""

import logging
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
from astropy.io.misc.hdf5 import read_table_hdf5
from astropy.table import Table

log = logging.getLogger(__name__)

WIDEST = 64  # values a row; wider data sets are inputs of networks, no columns
MASK = ".mask"  # astropy's name for which cells of a column are empty


def read(path: Path, part: str | None) -> Table:
    """Read the table at the root, or the only one below it, or that of a group or data set."""
    with h5py.File(path) as file:
        tables = _tables(file)
        if part is not None:
            tables = {name: sets for name, sets in tables.items() if name == f"/{part.strip('/')}"}
        elif len(tables) > 1:
            root = [one for sets in tables.values() for one in sets if one.parent.name == "/"]
            tables = {"/": root} if root else tables
        if len(tables) != 1:
            there = ", ".join(f"[{name.strip('/')}]" for name in tables or _tables(file))
            raise ValueError(f"add the group or data set to its name; there are {there or 'no tables'}")
        return _joined(next(iter(tables.values())))


def _tables(file: h5py.File) -> dict[str, list[h5py.Dataset]]:
    """Return the data sets of each table, by the name of the compound data set or of the columns' group."""
    tables: dict[str, list[h5py.Dataset]] = {}

    def visit(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(item, h5py.Dataset) or not item.shape or name.endswith(".__table_column_meta__"):
            return
        if item.dtype.names:
            tables[item.name] = [item]
        elif item.ndim == 1 or (item.ndim == 2 and item.shape[1] <= WIDEST):
            tables.setdefault(item.parent.name, []).append(item)

    file.visititems(visit)
    return tables


def _joined(sets: list[h5py.Dataset]) -> Table:
    """Return the table of the data sets that have the length of most columns, with its empty cells masked."""
    lengths: Counter[int] = Counter()
    for one in sets:
        lengths[len(one)] += len(one.dtype.names or [0])
    length = max(lengths, key=lambda n: (lengths[n], n))
    if len(lengths) > 1:
        left = ", ".join(one.name for one in sets if len(one) != length)
        log.info("%s: not read, for they have no %d rows: %s", sets[0].file.filename, length, left)
    table = Table()
    for one in [one for one in sets if len(one) == length]:
        if one.dtype.names:
            part = read_table_hdf5(one.file, path=one.name)
            table = Table([*table.itercols(), *part.itercols()])
        else:
            table[one.name.rpartition("/")[2]] = one[:]
            unit = one.attrs.get("unit", one.attrs.get("units"))
            table.columns[-1].unit = unit.decode() if isinstance(unit, bytes) else unit
    for name in [n for n in table.colnames if n + MASK in table.colnames]:
        table[name] = np.ma.masked_array(table[name], np.asarray(table[name + MASK], dtype=bool))
        table.remove_column(name + MASK)
    return table
