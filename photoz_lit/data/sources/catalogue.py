"""`data=catalogue`: any table of magnitudes with spec_z."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from photoz_lit.data.sources.settings import Plan, Survey, TableSettings, facts_of, need
from photoz_lit.errors import DataError
from photoz_lit.setting import setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from astropy.table import Table

KINDS = ("features",)
facts = facts_of


@dataclass
class Settings(TableSettings):
    """A table, the columns that are features, and perhaps a table for the test split."""

    source: str = "catalogue"
    path: str | None = setting(None, kind="path")
    test_path: str | None = setting(None, kind="path")
    magnitudes: list[str] = setting(["mag_u", "mag_g", "mag_r", "mag_i", "mag_z"])
    magnitude_errors: list[str] = setting([])


def check(settings: Settings, survey: Survey) -> None:
    """Ask for a table and columns."""
    settings.need_path("path", "a table with the true values, e.g. data.path=galaxies.csv")
    need(
        len(settings.magnitudes) > 0,
        "data.magnitudes is empty: name the columns, e.g. data.magnitudes=[mag_g,mag_r,mag_i]",
    )


def plan(settings: Settings, survey: Survey, target: Target, workers: int) -> Plan:
    """Read the table, and that of the test split: inputs (n, 2, F) are magnitudes and errors (zero: none)."""
    from photoz_lit.data.catalogue import standard_table
    from photoz_lit.data.formats import read_table
    from photoz_lit.data.splits import with_ids

    magnitudes, errors = settings.magnitudes, settings.magnitude_errors
    rules = settings.rules(survey, target, magnitudes=magnitudes, magnitude_errors=errors)
    files = [path for path in (settings.path, settings.test_path if settings.labelled else None) if path]
    tables = [standard_table(read_table(file, rules.wanted), file, rules)[0] for file in files]
    table = with_ids(stacked(tables))
    values = np.column_stack([table[name] for name in magnitudes])
    noise = np.column_stack([table[name] for name in errors]) if errors else 0 * values
    inputs = np.stack([values, noise], axis=1).astype(np.float32)
    return Plan(
        table, inputs.shape, "features", lambda start: [inputs[start:]], keep_faulty=not settings.labelled
    )


def stacked(tables: list["Table"]) -> "Table":
    """Put the table of the test split below that of training, which may name its own validation galaxies."""
    if len(tables) == 1:
        return tables[0]
    from astropy.table import vstack

    train, test = tables
    test["split"] = "test"
    if "split" not in train.colnames:
        train["split"] = "train"
    if lone := set(train.colnames) ^ set(test.colnames):
        raise DataError(
            f"data.path and data.test_path must have the same columns: only one of them has "
            f"{', '.join(sorted(lone))}"
        )
    if "object_id" in train.colnames and train["object_id"].dtype.kind != test["object_id"].dtype.kind:
        for table in tables:
            table["object_id"] = table["object_id"].astype(str)
    return vstack([train, test], join_type="exact", metadata_conflicts="silent")
