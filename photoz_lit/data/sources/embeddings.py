"""`data=embeddings`: vectors from any network or method, with a table beside them or as its columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sources.arrays import ArrayFile
from photoz_lit.data.sources.catalogue import stacked
from photoz_lit.data.sources.settings import Plan, Survey, TableSettings, facts_of, need
from photoz_lit.errors import DataError
from photoz_lit.setting import setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from astropy.table import Column, Table

    from photoz_lit.data.catalogue import TableRules

KINDS = ("vectors",)
facts = facts_of


@dataclass
class Settings(TableSettings):
    """A table and vectors: an array (n, d) beside it, or columns of it (patterns such as `f*` are known)."""

    source: str = "embeddings"
    path: str | None = setting(None, kind="path")
    images: str | None = setting(None, kind="path")
    images_key: str | None = None
    vectors: list[str] = setting([])
    test_path: str | None = setting(None, kind="path")
    test_images: str | None = setting(None, kind="path")


def check(settings: Settings, survey: Survey) -> None:
    """Ask for a table and vectors."""
    settings.need_path("path", "a table with the true values, e.g. data.path=galaxies.csv")
    need(
        (settings.images is None) != (len(settings.vectors) == 0),
        "data=embeddings needs either data.images=vectors.npy (an array with a row a galaxy) "
        'or data.vectors=["f*"] (columns of the table)',
    )


def plan(settings: Settings, survey: Survey, target: Target, workers: int) -> Plan:
    """Read tables and vectors."""
    from photoz_lit.data.splits import with_ids

    rules, s = settings.rules(survey, target), settings
    files = [(s.path, s.images)]
    if s.test_path is not None and s.labelled:
        files.append((s.test_path, s.test_images))
    loaded = [load(str(path), array, s.images_key, s.vectors, rules) for path, array in files]
    table = with_ids(stacked([table for table, _ in loaded]))
    vectors = np.concatenate([values for _, values in loaded])
    keep_faulty = s.drop_invalid or not s.labelled
    return Plan(table, vectors.shape, "vectors", lambda i: [vectors[i:]], keep_faulty=keep_faulty)


def load(
    path: str, array: str | None, key: str | None, vectors: Sequence[str], rules: "TableRules"
) -> tuple["Table", NDArray[np.float32]]:
    """Read and check a table and a vector (n, d) for each of its usable rows."""
    from photoz_lit.data.catalogue import standard_table
    from photoz_lit.data.columns import find_column
    from photoz_lit.data.formats import read_table

    table = read_table(Path(path))
    named = rules.columns.get("object_id", "object_id")
    if array is None and not rules.labelled and find_column(table, named, path) is None:
        table["object_id"] = np.arange(len(table))  # the vectors alone are enough
    catalogue, rows = standard_table(table, path, rules)
    if array is not None:
        file = ArrayFile(Path(array), key, n_axes=2)
        file.check((), " (one vector a galaxy)", len(table), path)
        return catalogue, np.asarray(file.array[:], dtype=np.float32)[rows]
    said = f"{path}: data.vectors={list(vectors)} names"
    names = [n for n in table.colnames if any(fnmatchcase(n, pattern) for pattern in vectors)]
    if not names:
        raise DataError(f"{said} no column. Its columns are: {', '.join(table.colnames)}")
    if (truth := find_column(table, rules.columns.get(rules.target, rules.target), path)) in names:
        raise DataError(f"{said} {truth}, the true values that are to be estimated: leave it out")
    columns = [_numbers(table[n], f"{path}: column {n}, of data.vectors={list(vectors)},") for n in names]
    return catalogue, np.column_stack(columns)[rows]


def _numbers(column: "Column", what: str) -> NDArray[np.float32]:
    """Return a column as numbers, NaN in empty cells."""
    try:
        return np.asarray(np.ma.filled(np.ma.asarray(column, dtype=np.float32), np.nan))
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} holds text: {error}") from error
