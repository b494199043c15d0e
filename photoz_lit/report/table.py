"""The table of corrections: one row a correction, medians and spread over its seeds."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from photoz_lit.report.runs import METRICS, NoResultsError, Run, gather

ORDER = ("trainz", "Baseline", "Step 1", "none", "balanced", "hard", "unshifted", "skip_balanced", "full")
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Column:
    """A column of the table: key of `metrics.json`, heading, what it means, digits, and how to write it.

    `ideal` is the best value of `metrics.json`; None where the lower is the better, below zero too.
    """

    key: str
    heading: str
    meaning: str
    digits: int
    signed: bool = False
    factor: float = 1.0
    ideal: float | None = 0.0

    def text(self, row: dict[str, Any]) -> str:
        """Write a row's value, without its spread."""
        return number(row[self.key] * self.factor, self.digits, signed=self.signed)

    def spread(self, row: dict[str, Any]) -> str:
        """Write a row's spread, or nothing where there is none."""
        spread = row[f"{self.key}_spread"] * self.factor
        return number(spread, self.digits) if math.isfinite(spread) else ""

    def miss(self, row: dict[str, Any]) -> float:
        """Return a number that is the smaller, the better a row's value is."""
        value = float(row[self.key])
        return value if self.ideal is None else abs(value - self.ideal)


ESTIMATE_COLUMNS = (
    Column(
        "slope_spec_z", "slope spec z", "slope of the mean residual against spec z; 0 is best", 3, signed=True
    ),
    Column(
        "slope_spec_z_high", "slope high z", "the same slope at high spec z only; 0 is best", 3, signed=True
    ),
    Column(
        "slope_photo_z",
        "slope photo z",
        "slope of the mean residual against photo z; 0 is best",
        3,
        signed=True,
    ),
    Column("total_variation", "TV", "total variation between n(photo z) and n(spec z); small is best", 3),
    Column("total_variation_floor", "TV floor", "total variation that remains without mode collapse", 3),
    Column("sigma_mad", "σ_MAD", "scatter 1.4826 median|Δz − median(Δz)|; small is best", 4),
    Column("bias", "bias", "mean residual of all test galaxies; 0 is best", 4, signed=True),
    Column(
        "outlier_fraction",
        "outliers %",
        "galaxies beyond the outlier cut, per cent; small is best",
        2,
        factor=100.0,
    ),
)
PDF_COLUMNS = (
    Column("crps", "CRPS", "continuous ranked probability score of p(z); small is best", 4),
    Column("pit_ks", "PIT KS", "distance of the PIT from uniform (Kolmogorov-Smirnov); small is best", 3),
    Column(
        "coverage_68",
        "within 68 %",
        "galaxies whose spec z lies in the central 68 % of p(z), per cent; 68 is best",
        1,
        factor=100.0,
        ideal=0.68,
    ),
    Column("cde_loss", "CDE loss", "conditional density loss of p(z); the lower the better", 2, ideal=None),
)
COLUMNS = ESTIMATE_COLUMNS + PDF_COLUMNS


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Write a number with fixed digits and a true minus; a dash where it could not be measured."""
    if not math.isfinite(value):
        return DASH
    value = round(value, digits) + 0.0  # no "-0.000"
    return f"{value:{'+' if signed and value else ''}.{digits}f}".replace("-", MINUS)


def duration(seconds: float) -> str:
    """Write a wall-clock time in the unit a person would use."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{minutes // 60} h {minutes % 60:02d} min"


def by_correction(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Sort the runs of one set into corrections, in the order of the table.

    Parameters
    ----------
    runs : sequence of Run
        Runs of one `<run>` folder.

    Returns
    -------
    dict of str to list of Run
        Runs by seed under a name: the label, with further settings where several groups share it.
    """
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        groups.setdefault((run.label, run.stage, run.group), []).append(run)
    sharing = [label for label, _, _ in groups]
    named: dict[str, list[Run]] = {}
    for (label, _, group), members in groups.items():
        further = _further_settings(group)
        named[f"{label} · {further}" if sharing.count(label) > 1 and further else label] = members
    return dict(sorted(named.items(), key=lambda item: _rank(item[0])))


def _further_settings(group: str) -> str:
    """Return the settings of a group that its label does not tell: "head=single, data.n_train=1000"."""
    own = ("correction",) if group.startswith("correction=") else ("head=",)
    return ", ".join(p for p in group.split(",") if not p.startswith(own))


def _rank(name: str) -> tuple[int, str]:
    label = name.split(" · ", maxsplit=1)[0]
    return (ORDER.index(label) if label in ORDER else len(ORDER), name)


def corrections_table(source: Path | Sequence[Run]) -> list[dict[str, Any]]:
    """Summarise finished runs: one row a correction and set of runs.

    Parameters
    ----------
    source : Path or sequence of Run
        The output folder, or runs already read.

    Returns
    -------
    list of dict
        `run`, `label`, `group`, `seeds` (their number), `seconds` (median); for each key of `metrics.json`
        the median over seeds, and under `<key>_spread` half their range, or the bootstrap error of one seed.
        `spread` says which: "seeds" or "bootstrap". Numbers that were not measured are NaN.
    """
    if isinstance(source, Path):
        runs: Sequence[Run] = gather(source).runs
        if not runs:
            raise nothing_finished(source)
    else:
        runs = source
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(r.run for r in runs):
        members = [r for r in runs if r.run == name]
        first_of_seed = {r.seed: r for r in reversed(members)}  # trainz depends on the seed's split only
        rows.append(_row(name, "trainz", "", [r.trainz for r in first_of_seed.values()], []))
        for label, same in by_correction(members).items():
            rows.append(
                _row(name, label, same[0].group, [r.metrics for r in same], [r.seconds for r in same])
            )
    return rows


def nothing_finished(output_dir: Path) -> NoResultsError:
    """Make the error for an output folder without finished runs."""
    return NoResultsError(
        f"no finished run under {output_dir}: run the demo with `make demo`, or a single run with"
        " `python -m photoz_lit stage=representation`, then"
        " `python -m photoz_lit stage=classifier correction=full`, and repeat the report"
    )


def _row(
    run: str, label: str, group: str, metrics: Sequence[dict[str, float]], seconds: Sequence[float]
) -> dict[str, Any]:
    single = len(metrics) == 1
    row: dict[str, Any] = {"run": run, "label": label, "group": group, "seeds": len(metrics)}
    row["spread"] = "bootstrap" if single else "seeds"
    for key in METRICS:
        values = np.array([m[key] for m in metrics])
        values = values[np.isfinite(values)]
        row[key] = float(np.median(values)) if values.size else math.nan
        row[f"{key}_spread"] = math.nan
        if single:
            row[f"{key}_spread"] = metrics[0][f"{key}_err"]
        elif values.size > 1:
            row[f"{key}_spread"] = float(np.ptp(values)) / 2
    finite = [s for s in seconds if math.isfinite(s)]
    row["seconds"] = float(np.median(finite)) if finite else math.nan
    return row


def print_table(console: Console, rows: Sequence[dict[str, Any]]) -> None:
    """Print the table of corrections: for each set of runs one table of estimates and one of p(z).

    Parameters
    ----------
    console : Console
        Where to print.
    rows : sequence of dict
        From `corrections_table`.
    """
    for run in dict.fromkeys(row["run"] for row in rows):
        of_run = [row for row in rows if row["run"] == run]
        several = any(row["spread"] == "seeds" for row in of_run)
        caption = "median over seeds, ± half their range" if several else "± bootstrap error"
        _print(console, _console_table(f"Corrections, run {run!r}", of_run, ESTIMATE_COLUMNS, timed=True))
        _print(console, _console_table(f"Their p(z), run {run!r}", of_run, PDF_COLUMNS, caption=caption))


def _console_table(
    title: str,
    rows: Sequence[dict[str, Any]],
    columns: Sequence[Column],
    *,
    caption: str | None = None,
    timed: bool = False,
) -> Table:
    table = Table(
        title=title,
        caption=caption,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("correction", no_wrap=True)
    headings = [c.heading.replace(" ", "\n", 1) for c in columns]
    for heading in ("seeds", *headings, *(["time"] if timed else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{c.text(row)}\n[dim]{'±' + c.spread(row) if c.spread(row) else ''}[/dim]" for c in columns]
        cells += [duration(row["seconds"])] if timed else []
        style = "bold" if row["label"] == "full" else None
        table.add_row(row["label"], str(row["seeds"]), *cells, style=style)
    return table


def _print(console: Console, table: Table) -> None:
    # A pipe or a narrow terminal gets the whole table: cut numbers are worse than wrapped lines.
    needed = console.measure(table, options=console.options.update(max_width=400)).maximum
    wide = console if console.width >= needed else Console(file=console.file, width=needed)
    wide.print(table)


def summary_csv(runs: Sequence[Run]) -> str:
    """Write one row a run folder as CSV; numbers that were not measured stay empty."""
    keys = [name for key in METRICS for name in (key, f"{key}_err")]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", "stage", "label", "group", "seed", *keys, "seconds"])
    for r in runs:
        numbers = [*(r.metrics[key] for key in keys), r.seconds]
        cells = [repr(x) if math.isfinite(x) else "" for x in numbers]
        writer.writerow([r.run, r.stage, r.label, r.group, r.seed, *cells])
    return buffer.getvalue()
