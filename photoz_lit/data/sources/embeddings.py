"""`data=embeddings`: vectors from any network or method, with a table beside them or as its columns."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from astropy.table import Column, Table
from numpy.typing import NDArray

from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.formats import read_table
from photoz_lit.data.sources.arrays import ArrayFile
from photoz_lit.errors import DataError


def load(
    path: Path, array: Path | None, key: str | None, vectors: Sequence[str], rules: TableRules
) -> tuple[Table, NDArray[np.float32]]:
    """Read and check a table and a vector for each of its rows.

    Parameters
    ----------
    path : Path
        The table.
    array : Path, optional
        Array (n, d) in `.npy`, `.npz` or HDF5.
    key : str, optional
        Name of the array in `.npz` or HDF5.
    vectors : sequence of str
        Without an array: the columns that make the vectors; patterns such as `f*` are known.
    rules : TableRules
        Names of the other columns, and what to check.

    Returns
    -------
    catalogue : Table
        The standard table of the usable rows.
    vectors : array (n, d)
        Their vectors.

    Raises
    ------
    DataError
        A file cannot be read, or table and vectors do not fit.
    """
    table = read_table(path)
    catalogue, rows = standard_table(table, str(path), rules)
    if array is not None:
        file = ArrayFile(array, key, n_axes=2)
        file.check((), " (one vector a galaxy)", len(table), path)
        return catalogue, np.asarray(file.array[:], dtype=np.float32)[rows]
    names = [n for n in table.colnames if any(fnmatchcase(n, pattern) for pattern in vectors)]
    if not names:
        raise DataError(
            f"{path}: data.vectors={list(vectors)} names no column. Its columns are: "
            f"{', '.join(table.colnames)}"
        )
    if (truth := rules.columns.get(rules.target, rules.target)) in names:
        raise DataError(
            f"{path}: data.vectors={list(vectors)} names {truth}, the true values that are to be estimated: "
            "leave it out"
        )
    columns = [_numbers(table[n], f"{path}: column {n}, of data.vectors={list(vectors)},") for n in names]
    return catalogue, np.column_stack(columns)[rows]


def _numbers(column: Column, what: str) -> NDArray[np.float32]:
    """Return a column as numbers, NaN in empty cells."""
    try:
        return np.asarray(np.ma.filled(np.ma.asarray(column, dtype=np.float32), np.nan))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} holds text: {error}") from error
