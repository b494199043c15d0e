"""Calibrated estimates on disk: `<output_dir>/<run>/calibrate/<run folder>/<name>/`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoz_lit.errors import DataError
from photoz_lit.report.runs import Run, folders, read_numbers, reason_of
from photoz_lit.report.table import BULK, INDIVIDUAL, SCATTER, Column, middle_and_spread

USUAL = "target=training"  # how most are calibrated, and what their names need not say
CALIBRATED_COLUMNS = (
    Column("bulk_mean", "mean |residual|", "over galaxies, of the mean residual of their bin", 4),
    Column("bulk_max", "largest", "largest mean residual of a bin", 4),
    BULK,
    INDIVIDUAL,
    SCATTER,
)
KEYS = tuple(column.key for column in CALIBRATED_COLUMNS)


@dataclass(frozen=True)
class Calibrated:
    """Estimates of one run, or of a table, calibrated, with their numbers before and after.

    `run` is the family of runs, `model` the folder of the run or the name of the table whose estimates they
    are, `name` how they were calibrated.
    """

    run: str
    model: str
    name: str
    before: dict[str, float]
    after: dict[str, float]


def read_calibrated(
    output_dir: Path, family: str | None = None
) -> tuple[list[Calibrated], list[tuple[Path, str]]]:
    """Read all calibrated estimates whose truth is known, and name finished folders that cannot be read."""
    found: list[Calibrated] = []
    broken: list[tuple[Path, str]] = []
    for folder in folders(output_dir, family, ("calibrate",), "*/*"):
        files = [folder / name for name in ("metrics_before.json", "metrics.json")]
        if not (folder / "done.json").is_file() or not files[0].is_file():
            continue  # without the truth there is nothing to judge
        try:
            before, after = (read_numbers(file, KEYS) for file in files)
        except DataError as error:
            broken.append((folder, reason_of(error, folder)))
            continue
        found.append(Calibrated(folder.parents[2].name, folder.parent.name, folder.name, before, after))
    return found, broken


def calibrated_rows(
    found: Sequence[Calibrated], corrections: dict[str, list[Run]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Summarise calibrated estimates before and after: one row a correction and way of calibration.

    A row has `label`, a shorter `title`, `correction`, `seeds`, and each number's median and spread.
    """
    names = {run.folder.name: label for label, same in corrections.items() for run in same}
    groups: dict[tuple[str, str], list[Calibrated]] = {}
    for product in found:
        label = names.get(product.model, product.model)
        groups.setdefault((label, product.name), []).append(product)
    before = [_row(group, [p.before for p in same]) for group, same in groups.items()]
    return before, [_row(group, [p.after for p in same]) for group, same in groups.items()]


def _row(group: tuple[str, str], numbers: Sequence[dict[str, float]]) -> dict[str, Any]:
    label, name = group
    further = name.removeprefix(USUAL).removeprefix(",")
    how = f" ({further})" if further else ""
    row: dict[str, Any] = {
        "label": f"{label}, calibrated{how}",
        "title": f"{label}{how}",
        "correction": label,
        "seeds": len(numbers),
    }
    for key in KEYS:
        row[key], row[f"{key}_spread"] = middle_and_spread(numbers, key)
    return row
