"""VOTable, the Virtual Observatory's XML."""

from pathlib import Path

from astropy.io import votable
from astropy.table import Table


def read(path: Path, part: str | None) -> Table:
    """Read the only table of a file, or one by its name, ID or number from 0."""
    tables = list(votable.parse(path, verify="ignore").iter_tables())
    names = [table.name or table.ID or "" for table in tables]
    there = ", ".join(f"[{i}] {name}".strip() for i, name in enumerate(names))
    wanted = [i for i, name in enumerate(names) if part is None or part in (str(i), name, tables[i].ID)]
    if len(wanted) != 1:
        raise ValueError(f"add the table that you mean, as in [0]; there are: {there or 'none'}")
    return tables[wanted[0]].to_table(use_names_over_ids=True)
