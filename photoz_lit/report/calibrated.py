"""Calibrated estimates on disk: `<output_dir>/<run>/calibrate/<run folder>/<name>/`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from photoz_lit.report.runs import BrokenRunError, Run, read_json, read_number
from photoz_lit.report.table import Column, middle_and_spread

USUAL = "target=training"  # how most are calibrated, and what their names need not say
KEYS = ("bulk_mean", "bulk_max", "slope_photo_z", "slope_spec_z", "sigma_mad")
CALIBRATED_COLUMNS = (
    Column("bulk_mean", "mean |residual|", "over galaxies, of the mean residual of their bin", 4),
    Column("bulk_max", "largest", "largest mean residual of a bin", 4),
    Column("slope_photo_z", "slope {estimated}", "bulk bias; 0 is best", 3, signed=True),
    Column("slope_spec_z", "slope {true}", "individual bias: what the calibration costs", 3, signed=True),
    Column("sigma_mad", "σ_MAD", "scatter", 4),
)


@dataclass(frozen=True)
class Calibrated:
    """Estimates of one run, or of a table, calibrated.

    Parameters
    ----------
    run, model, name : str
        Set of runs, folder of the run (or name of the table) whose estimates they are, and how they were
        calibrated.
    before, after : dict of str to float
        Numbers of the estimates before and after, with their errors under `<key>_err`.
    """

    run: str
    model: str
    name: str
    before: dict[str, float]
    after: dict[str, float]

    @property
    def key(self) -> tuple[str, str]:
        """Return set of runs and folder of the run."""
        return self.run, self.model


def read_calibrated(output_dir: Path) -> tuple[list[Calibrated], list[tuple[Path, str]]]:
    """Read all calibrated estimates whose truth is known.

    Parameters
    ----------
    output_dir : Path
        Folder that holds `<run>/calibrate/`.

    Returns
    -------
    list of Calibrated, list of (Path, str)
        What was read, and finished folders that cannot be read, with the reason.
    """
    found: list[Calibrated] = []
    broken: list[tuple[Path, str]] = []
    for folder in sorted(p.parent for p in output_dir.glob("*/calibrate/*/*/done.json")):
        if not (folder / "metrics_before.json").is_file():
            continue  # without the truth there is nothing to judge
        try:
            before, after = (_numbers(folder / name) for name in ("metrics_before.json", "metrics.json"))
        except BrokenRunError as error:
            broken.append((folder, str(error)))
            continue
        found.append(Calibrated(folder.parents[2].name, folder.parent.name, folder.name, before, after))
    return found, broken


def _numbers(path: Path) -> dict[str, float]:
    content = read_json(path)
    missing = [key for key in KEYS if key not in content]
    if missing:
        raise BrokenRunError(f"{path.name} lacks {', '.join(missing)}")
    try:
        return {name: read_number(content.get(name)) for key in KEYS for name in (key, f"{key}_err")}
    except (TypeError, ValueError) as error:
        raise BrokenRunError(f"{path.name} holds an entry that is no number ({error})") from error


def calibrated_rows(
    found: Sequence[Calibrated], corrections: dict[str, list[Run]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Summarise calibrated estimates: one row a correction and way of calibration, before and after.

    Parameters
    ----------
    found : sequence of Calibrated
        Of one set of runs.
    corrections : dict of str to list of Run
        Runs of each correction of the set.

    Returns
    -------
    list of dict, list of dict
        Rows before and after: `label`, a shorter `title`, `correction`, `seeds`, and each number's median and
        spread over seeds.
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
