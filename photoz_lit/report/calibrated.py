"""Calibrated estimates on disk: `<output_dir>/<run>/calibrate/<run folder>/<name>/`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoz_lit.report.runs import Broken, Run, folders, read_each, read_numbers
from photoz_lit.report.table import BULK, INDIVIDUAL, SCATTER, Column, Rows, medians

USUAL = "target=auto"  # how most are calibrated, and what their names need not say
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
    """Estimates of one run, or of a table, calibrated, with their numbers before and after."""

    run: str  # its family
    model: str  # folder of the run, or name of the table, whose estimates they are
    name: str  # how they were calibrated
    before: dict[str, float]
    after: dict[str, float]


def read_calibrated(output_dir: Path, family: str | None = None) -> tuple[list[Calibrated], Broken]:
    """Read all calibrated estimates whose truth is known, and name finished folders that cannot be read."""
    finished = [
        folder
        for folder in folders(output_dir, family, ("calibrate",), "*/*")
        if (folder / "done.json").is_file() and (folder / "metrics_before.json").is_file()
    ]
    return read_each(finished, _read)


def _read(folder: Path) -> Calibrated:
    numbers = (read_numbers(folder / name, KEYS) for name in ("metrics_before.json", "metrics.json"))
    return Calibrated(folder.parents[2].name, folder.parent.name, folder.name, *numbers)


def calibrated_rows(found: Sequence[Calibrated], corrections: dict[str, list[Run]]) -> tuple[Rows, Rows]:
    """Summarise calibrated estimates before and after: one row a correction and way of calibration."""
    names = {run.folder.name: label for label, same in corrections.items() for run in same}
    groups: dict[tuple[str, str], list[Calibrated]] = {}
    for product in found:
        label = names.get(product.model, product.model)
        groups.setdefault((label, product.name), []).append(product)
    before = [_row(*group, [p.before for p in same]) for group, same in groups.items()]
    return before, [_row(*group, [p.after for p in same]) for group, same in groups.items()]


def _row(label: str, name: str, numbers: Sequence[dict[str, float]]) -> dict[str, Any]:
    further = name.removeprefix(USUAL).removeprefix(",")
    how = f" ({further})" if further else ""
    words = {"label": f"{label}, calibrated{how}", "title": f"{label}{how}", "correction": label}
    return words | {"seeds": len(numbers)} | medians(numbers, KEYS)
