"""`data=catalogue`: any table of magnitudes with spec_z."""

from pathlib import Path

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray

from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.formats import read_table
from photoz_lit.data.splits import with_ids
from photoz_lit.errors import DataError


def load(path: Path, test_path: Path | None, rules: TableRules) -> tuple[Table, NDArray[np.float32]]:
    """Read and check the table, and the separate test table where there is one.

    Parameters
    ----------
    path, test_path : Path
        Tables; the rows of the second become the test split.
    rules : TableRules
        Names of columns, and what to check.

    Returns
    -------
    catalogue : Table
        The standard table.
    inputs : array (n, 2, F)
        Magnitudes and their errors (zero where none are given), mag.
    """
    files = [path] if test_path is None else [path, test_path]
    checked = [standard_table(read_table(file), str(file), rules)[0] for file in files]
    catalogue = with_ids(checked[0] if test_path is None else with_test_table(*checked))
    values = np.column_stack([catalogue[name] for name in rules.magnitudes])
    if rules.magnitude_errors:
        errors = np.column_stack([catalogue[name] for name in rules.magnitude_errors])
    else:
        errors = 0 * values
    return catalogue, np.stack([values, errors], axis=1).astype(np.float32)


def with_test_table(table: Table, test: Table) -> Table:
    """Put the test table below the other and say so in the column `split`.

    Raises
    ------
    DataError
        One has a column that the other lacks.
    """
    table["split"] = "train"
    test["split"] = "test"
    if lone := set(table.colnames) ^ set(test.colnames):
        raise DataError(
            f"data.path and data.test_path must have the same columns: only one of them has "
            f"{', '.join(sorted(lone))}"
        )
    if "object_id" in table.colnames and table["object_id"].dtype.kind != test["object_id"].dtype.kind:
        table["object_id"] = table["object_id"].astype(str)
        test["object_id"] = test["object_id"].astype(str)
    return vstack([table, test], join_type="exact", metadata_conflicts="silent")
