"""The table of corrections: one row a correction, medians and spread over its seeds."""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from photoz_lit.report.curves import residual_rms
from photoz_lit.report.figures.style import ALTERNATIVES, DASH, PROMINENT, known_label, number
from photoz_lit.report.runs import METRICS, Run, sets_of_runs
from photoz_lit.target import Target

Rows = Sequence[dict[str, Any]]  # of `corrections_table`

PRINCIPAL = ("Baseline", "Step 1", "none", "balanced", "hard", "unshifted", "skip_balanced", "full", "best")
ORDER = ("trainz", *PRINCIPAL, *ALTERNATIVES)
KEYS = (*METRICS, "residual_rms")
# Without Steps 2 and 3 a correction is the representation's own output.
TWINS = {"none": "Step 1", "none · head=single": "Baseline"}


@dataclass(frozen=True)
class Column:
    """A column of the table: key of `metrics.json`, heading, what it means, digits, and how to write it."""

    key: str
    heading: str
    meaning: str
    digits: int
    signed: bool = False
    factor: float = 1.0
    ideal: float | None = 0.0  # the best value of `metrics.json`; None: the lower the better, below 0 too

    def text(self, row: dict[str, Any]) -> str:
        """Write a row's value, without its spread."""
        return number(row[self.key] * self.factor, self.digits, signed=self.signed)

    def spread(self, row: dict[str, Any]) -> str:
        """Write a row's spread, or nothing where there is none."""
        spread = row[f"{self.key}_spread"] * self.factor
        return number(spread, self.digits) if math.isfinite(spread) else ""

    def with_spread(self, row: dict[str, Any]) -> str:
        """Write a row's value and its spread, where there is one."""
        return f"{self.text(row)} ± {self.spread(row)}" if self.spread(row) else self.text(row)

    def miss(self, row: dict[str, Any]) -> float:
        """Return a number that is the smaller, the better a row's value is."""
        value = float(row[self.key])
        return value if self.ideal is None else abs(value - self.ideal)


# Words in braces are the target's: `columns_for` puts them in.
BULK = Column("slope_photo_z", "slope {estimated}", "bulk bias, against {estimated}; 0 is best", 3, True)
INDIVIDUAL = Column("slope_spec_z", "slope {true}", "individual bias, against {true}; 0 is best", 3, True)
HIGH = Column("slope_spec_z_high", "slope high {symbol}", "the same at high {true} only; 0 is best", 3, True)
SCATTER = Column("sigma_mad", "σ_MAD", "scatter 1.4826 median|{delta} − median({delta})|; small is best", 4)
ESTIMATE_COLUMNS = (
    INDIVIDUAL,
    HIGH,
    BULK,
    Column("total_variation", "TV", "total variation between n({estimated}) and n({true}); small is best", 3),
    Column("total_variation_floor", "TV floor", "total variation that remains without mode collapse", 3),
    SCATTER,
    Column("bias", "bias", "mean residual of all test galaxies; 0 is best", 4, True),
    Column(
        "outlier_fraction", "outliers %", "beyond the outlier cut, per cent; small is best", 2, False, 100
    ),
)
PDF_COLUMNS = (
    Column("crps", "CRPS", "continuous ranked probability score of {pdf}; small is best", 4),
    Column("pit_ks", "PIT KS", "distance of the PIT from uniform (Kolmogorov-Smirnov); small is best", 3),
    Column(
        "coverage_68", "within 68 %", "{true} in the central 68 % of {pdf}; 68 is best", 1, False, 100, 0.68
    ),
    Column("cde_loss", "CDE loss", "conditional density loss of {pdf}; the lower the better", 2, ideal=None),
)
RMS = Column("residual_rms", "bias rms", "rms of the mean residuals in bins of {true}; small is best", 4)
COLUMNS = (*ESTIMATE_COLUMNS[:3], RMS, *ESTIMATE_COLUMNS[3:], *PDF_COLUMNS)


def columns_for(target: Target, columns: Sequence[Column] = COLUMNS) -> tuple[Column, ...]:
    """Put a target's words into the headings and meanings of columns."""
    words = {name: getattr(target, name) for name in ("true", "estimated", "symbol", "pdf")}
    words["delta"] = f"Δ{target.symbol}"
    return tuple(
        replace(c, heading=c.heading.format(**words), meaning=c.meaning.format(**words)) for c in columns
    )


def duration(seconds: float) -> str:
    """Write a wall-clock time in the unit a person would use."""
    if not math.isfinite(seconds):
        return DASH
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{minutes // 60} h {minutes % 60:02d} min"


def by_correction(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Sort the runs of one set into corrections, in the order of the table, each with its runs by seed."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        groups.setdefault((run.label, run.stage, run.group), []).append(run)
    sharing = [label for label, _, _ in groups]  # of several, each is named by its further settings too
    named: dict[str, list[Run]] = {}
    for (label, _, group), members in groups.items():
        told = ("correction",) if group.startswith("correction=") else ("head=",)  # by the label
        further = ", ".join(setting for setting in group.split(",") if not setting.startswith(told))
        named[f"{label} · {further}" if sharing.count(label) > 1 and further else label] = members
    for name, twin in TWINS.items():  # which gets the seeds that it lacks
        if name in named and twin in named:
            seeds = {run.seed for run in named[twin]}
            named[twin] += [run for run in named.pop(name) if run.seed not in seeds]
    return dict(sorted(named.items(), key=lambda item: rank(item[0])))


def rank(name: str) -> tuple[int, list[tuple[float, str]]]:
    """Sort by place in the table, then by name, numbers within it by size."""
    label = known_label(name)
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", name)
    by_size = [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]
    return (ORDER.index(label) if label in ORDER else len(ORDER), by_size)


def corrections_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Summarise finished runs: one row a correction and set of runs, each set with its own `trainz`.

    A row has `run` (name of the set), `label`, `group`, `target`, `seeds` (their number), `seconds`, and for
    each of `KEYS` the median over seeds (`n` is the number of test galaxies). `<key>_spread` is half their
    range, or the error of one seed: `spread` says "seeds" or "bootstrap". What was not measured is NaN.
    """
    rows: list[dict[str, Any]] = []
    for name, members in sets_of_runs(runs).items():
        first_of_seed = {r.seed: r for r in reversed(members)}  # trainz depends on the seed's split only
        common = {"run": name, "target": members[0].survey.target}
        rows.append(common | _row("trainz", "", [r.trainz for r in first_of_seed.values()], []))
        for label, same in by_correction(members).items():
            numbers = [r.metrics | residual_rms(r) for r in same]
            rows.append(common | _row(label, same[0].group, numbers, [r.seconds for r in same]))
    return rows


def _row(label: str, group: str, metrics: Rows, seconds: Sequence[float]) -> dict[str, Any]:
    spread = "bootstrap" if len(metrics) == 1 else "seeds"
    finite = [s for s in seconds if math.isfinite(s)]
    median = float(np.median(finite)) if finite else math.nan
    row = {"label": label, "group": group, "seeds": len(metrics), "spread": spread, "seconds": median}
    return row | medians(metrics, KEYS)


def medians(metrics: Sequence[dict[str, float]], keys: Sequence[str]) -> dict[str, float]:
    """Return medians over seeds, and under `<key>_spread` half their range, or the error of one seed."""
    found = {}
    for key in keys:
        values = np.array([m.get(key, math.nan) for m in metrics])
        values = values[np.isfinite(values)]
        found[key] = float(np.median(values)) if values.size else math.nan
        spread = float(np.ptp(values)) / 2 if values.size > 1 else math.nan
        found[f"{key}_spread"] = metrics[0].get(f"{key}_err", math.nan) if len(metrics) == 1 else spread
    return found


def galaxies(row: dict[str, Any]) -> str:
    """Write how many test galaxies a row is made from, the median over seeds."""
    return f"{row['n']:,.0f}" if math.isfinite(row["n"]) else DASH


def print_table(console: Console, rows: Rows) -> None:
    """Print the rows of `corrections_table`: for each set a table of estimates and one of p(z)."""
    for run in dict.fromkeys(row["run"] for row in rows):
        of_run = [row for row in rows if row["run"] == run]
        several, target = any(row["spread"] == "seeds" for row in of_run), of_run[0]["target"]
        caption = "median over seeds, ± half their range" if several else "± bootstrap error"
        estimates, pdfs = columns_for(target, ESTIMATE_COLUMNS), columns_for(target, PDF_COLUMNS)
        for table in (
            _console_table(f"Corrections, run {run!r}", of_run, estimates, timed=True),
            _console_table(f"Their {target.pdf}, run {run!r}", of_run, pdfs, caption=caption),
        ):
            # A pipe or a narrow terminal gets the whole table: cut numbers are worse than wrapped lines.
            needed = console.measure(table, options=console.options.update(max_width=400)).maximum
            wide = console if console.width >= needed else Console(file=console.file, width=needed)
            wide.print(table)


def _console_table(
    title: str, rows: Rows, columns: Sequence[Column], *, caption: str | None = None, timed: bool = False
) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("correction", no_wrap=True)
    headings = [c.heading.replace(" ", "\n", 1) for c in columns]
    for heading in ("seeds", "n", *headings, *(["time"] if timed else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        cells = [f"{c.text(row)}\n[dim]{'±' + c.spread(row) if c.spread(row) else ''}[/dim]" for c in columns]
        cells += [duration(row["seconds"])] if timed else []
        style = "bold" if row["label"] in PROMINENT else None
        table.add_row(row["label"], str(row["seeds"]), galaxies(row), *cells, style=style)
    return table


def summary_csv(runs: Sequence[Run]) -> str:
    """Write one row a run folder as CSV; numbers that were not measured stay empty."""
    keys = [name for key in METRICS for name in (key, f"{key}_err")]
    names = ["run", "stage", "label", "group", "seed", *keys, "seconds"]
    return _csv(names, [vars(run) | run.metrics for run in runs])


def corrections_csv(rows: Rows) -> str:
    """Write the rows of one set of runs as CSV, as the page shows them but with all digits."""
    keys = ["n", *(name for c in COLUMNS for name in (c.key, f"{c.key}_spread")), "seconds"]
    return _csv(["correction", "seeds", *keys], [row | {"correction": row["label"]} for row in rows])


def _csv(names: Sequence[str], rows: Rows) -> str:
    writer = csv.writer(text := io.StringIO(), lineterminator="\n")
    writer.writerow(names)
    for values in ([row[name] for name in names] for row in rows):
        writer.writerow(["" if isinstance(x, float) and not math.isfinite(x) else x for x in values])
    return text.getvalue()
