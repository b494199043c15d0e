"""The table of corrections: one row a correction, medians and spread over its seeds."""

import csv
import io
import itertools
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
from photoz_lit.report.runs import METRICS, NEWER, Run, sets_of_runs
from photoz_lit.target import Target

Rows = Sequence[dict[str, Any]]  # of `corrections_table`

PRINCIPAL = ("Baseline", "Step 1", "none", "balanced", "hard", "unshifted", "skip_balanced", "full", "best")
ORDER = ("trainz", *PRINCIPAL, *ALTERNATIVES)
KEYS = (*METRICS, *NEWER, "residual_rms", "total_variation_excess", "seconds")
# Without Steps 2 and 3 a correction is the representation's own output.
TWINS = {"none": "Step 1", "none · head=single": "Baseline"}
ENCODER, MAGNITUDES = "encoder=mlp", " · magnitudes"  # which sees no images, and what that is called


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

    def spread(self, row: dict[str, Any], end: str = "spread") -> str:
        """Write a row's spread, or what else stands beside a value, or nothing where there is none."""
        spread = row[f"{self.key}_{end}"] * self.factor
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
RMS = Column("rms", "rms", "root mean square of {delta}; small is best", 4)
OUTLIERS = Column("outlier_fraction", "outliers %", "beyond the outlier cut; small is best", 2, False, 100)
COLLAPSE = Column("total_variation", "TV", "total variation, n({estimated}) to n({true}); small is best", 3)
PLAIN = Column("slope_spec_z_plain", "plain {true}", "slope by ordinary least squares", 3, True)
PLAIN_BULK = Column("slope_photo_z_plain", "plain {estimated}", "slope by ordinary least squares", 3, True)
ESTIMATE_COLUMNS = (
    *(INDIVIDUAL, HIGH, BULK, COLLAPSE),
    Column("total_variation_floor", "TV floor", "total variation that remains without mode collapse", 3),
    SCATTER,
    Column("bias", "bias", "mean residual of all test galaxies; 0 is best", 4, True),
    OUTLIERS,
)
POINT_COLUMNS = (  # of each estimate of one p(z)
    *(INDIVIDUAL, PLAIN, BULK, PLAIN_BULK),
    Column("slope_slices", "steepest in r", "the steepest plain {true} of slices of r; 0 is best", 3, True),
    Column("total_variation_excess", "TV − floor", "TV less its floor; small is best", 3, True, ideal=None),
    *(SCATTER, RMS, OUTLIERS),
    Column("within_error", "within error %", "{true} within the error; 68 is best", 1, False, 100, 0.68),
)
CRPS = Column("crps", "CRPS", "continuous ranked probability score of {pdf}; small is best", 4)
PDF_COLUMNS = (
    CRPS,
    Column("pit_ks", "PIT KS", "distance of the PIT from uniform (Kolmogorov-Smirnov); small is best", 3),
    Column(
        "coverage_68", "within 68 %", "{true} in the central 68 % of {pdf}; 68 is best", 1, False, 100, 0.68
    ),
    Column("cde_loss", "CDE loss", "conditional density loss of {pdf}; the lower the better", 2, ideal=None),
    Column("stacked_tv", "stacked TV", "total variation, sum of {pdf} to n({true}); small is best", 3),
    Column("n_of_z_floor", "{n_of} floor", "what counting galaxies leaves of it for the right {n_of}", 3),
    Column("stacked_mean_error", "stacked mean", "error of the mean of that sum; 0 is best", 4, True),
    Column("inferred_tv", "inferred TV", "as stacked TV, the prior of {pdf} divided out; small is best", 3),
    Column("inferred_mean_error", "inferred mean", "error of the mean of that; 0 is best", 4, True),
)
BY_BINS = Column("residual_rms", "bias rms", "rms of the mean residuals in bins of {true}; small is best", 4)
COLUMNS = (*ESTIMATE_COLUMNS[:3], BY_BINS, *ESTIMATE_COLUMNS[3:], *PDF_COLUMNS)


def columns_for(target: Target, columns: Sequence[Column] = COLUMNS) -> tuple[Column, ...]:
    """Put a target's words into the headings and meanings of columns."""
    words = {name: getattr(target, name) for name in ("true", "estimated", "symbol", "pdf", "n_of")}
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
    groups: dict[tuple[str, str, tuple[str, ...]], list[Run]] = {}
    for run in sorted(runs, key=lambda r: r.seed):
        groups.setdefault((run.label, run.stage, _further(run)), []).append(run)
    sharing = [label for label, _, _ in groups]  # of several, each is named by its further settings too
    no_images = ("mlp", "precomputed")
    images = any(ENCODER not in r.group and r.setting("encoder.name") not in no_images for r in runs)
    named: dict[str, list[Run]] = {}
    for (label, _, settings), members in groups.items():
        magnitudes = images and ENCODER in settings
        further = ", ".join(s for s in settings if not (magnitudes and s == ENCODER))
        name = f"{label} · {further}" if sharing.count(label) > 1 and further else label
        named[name + MAGNITUDES * magnitudes] = members
    for end, (name, twin) in itertools.product(("", MAGNITUDES), TWINS.items()):
        if name + end in named and twin + end in named:  # which gets the seeds that it lacks
            seeds = {run.seed for run in named[twin + end]}
            named[twin + end] += [run for run in named.pop(name + end) if run.seed not in seeds]
    return dict(sorted(named.items(), key=lambda item: rank(item[0])))


def _further(run: Run) -> tuple[str, ...]:
    """Return the settings of a run that its label does not tell; that a seed has its own survey is none."""
    told = ("correction",) if run.group.startswith("correction=") else ("head=",)
    own = f"data.mock_seed={run.seed}"
    return tuple(s for s in run.group.split(",") if not s.startswith(told) and s != own)


def rank(name: str) -> tuple[int, list[tuple[float, str]]]:
    """Sort by place in the table, then by name, numbers within it by size."""
    label = known_label(name)
    parts = re.split(r"(\d+(?:\.\d+)?(?:e-?\d+)?)", name)
    by_size = [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]
    return (ORDER.index(label) if label in ORDER else len(ORDER), by_size)


def corrections_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Summarise finished runs: one row a correction and set of runs, each set with its own `trainz`.

    A row has `run` (name of the set), `label`, `group`, `target`, `blind` (yes or no), `seeds` (their
    number), and for each of `KEYS` the median over seeds (`n` is the number of test galaxies).
    `<key>_spread` is half their range, or the error of one seed: `spread` says "seeds" or "bootstrap". What
    was not measured is NaN. `estimates` are such rows by `estimate`: mode, median, individual.
    """
    rows: list[dict[str, Any]] = []
    for name, members in sets_of_runs(runs).items():
        of_seed = {r.seed: r for r in reversed(members)}.values()  # trainz depends on its split only
        trainz = [replace(r, metrics=r.trainz, group="", points={}, seconds=math.nan) for r in of_seed]
        for label, same in ({"trainz": trainz} | by_correction(members)).items():
            words: dict[str, Any] = {"run": name, "target": same[0].survey.target, "label": label}
            words |= {"group": same[0].group, "blind": blind(same)}
            estimates: dict[str, list[dict[str, float]]] = {}
            for r in same:  # those of earlier versions know one estimate only
                for estimate, own in (r.points or {r.survey.estimate: r.metrics}).items():
                    estimates.setdefault(estimate, []).append(own | {"seconds": r.seconds})
            bias = [{} if label == "trainz" else residual_rms(r) for r in same]
            numbers = [r.metrics | b | {"seconds": r.seconds} for r, b in zip(same, bias, strict=True)]
            by_estimate = [words | {"estimate": e} | _over_seeds(own) for e, own in estimates.items()]
            rows.append(words | _over_seeds(numbers) | {"estimates": by_estimate})
    return rows


def estimates_table(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the rows of mode, median and individual estimate, those of each correction in turn."""
    return [row for correction in corrections_table(runs) for row in correction["estimates"]]


def blind(runs: Sequence[Run]) -> str:
    """Say whether the numbers of all runs are blind: yes or no."""
    return "yes" if all(run.blind for run in runs) else "no"


def _over_seeds(metrics: Rows) -> dict[str, Any]:
    tv, floor = "total_variation", "total_variation_floor"
    excess = [{f"{tv}_excess": m[tv] - m[floor], f"{tv}_excess_err": m[f"{tv}_err"]} for m in metrics]
    spread = "bootstrap" if len(metrics) == 1 else "seeds"
    found = medians([m | e for m, e in zip(metrics, excess, strict=True)], KEYS)
    return {"seeds": len(metrics), "spread": spread} | found


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
        caption += f"; {'' if all(row['blind'] == 'yes' for row in of_run) else 'not '}blind"
        points, pdfs = columns_for(target, POINT_COLUMNS), columns_for(target, PDF_COLUMNS)
        estimates = [row for correction in of_run for row in correction["estimates"]]
        whole = f"Their {target.pdf} and {target.n_of}, run {run!r}"
        for table in (
            _console_table(f"Corrections, run {run!r}", estimates, points),
            _console_table(whole, of_run, pdfs, caption),
        ):
            # A pipe or a narrow terminal gets the whole table: cut numbers are worse than wrapped lines.
            needed = console.measure(table, options=console.options.update(max_width=400)).maximum
            wide = console if console.width >= needed else Console(file=console.file, width=needed)
            wide.print(table)


def _console_table(title: str, rows: Rows, columns: Sequence[Column], caption: str | None = None) -> Table:
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("correction", no_wrap=True)
    headings = [c.heading.replace(" ", "\n", 1) for c in columns]
    by_estimate = "estimate" in rows[0]
    headings = ["estimate", *headings, "time"] if by_estimate else ["seeds", "n", *headings]
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "estimate" else "right", no_wrap=True)
    before = None
    for row in rows:
        cells = [f"{c.text(row)}\n[dim]{'±' + c.spread(row) if c.spread(row) else ''}[/dim]" for c in columns]
        label = row["label"] if row["label"] != before else ""  # once for all its estimates
        if by_estimate:
            cells = [row["estimate"], *cells, duration(row["seconds"]) if label else ""]
        else:
            cells = [str(row["seeds"]), galaxies(row), *cells]
        table.add_row(label, *cells, style="bold" if row["label"] in PROMINENT else None)
        before = row["label"]
    return table


def summary_csv(runs: Sequence[Run]) -> str:
    """Write one row a run folder as CSV; numbers that were not measured stay empty."""
    keys = [name for key in (*METRICS, *NEWER) for name in (key, f"{key}_err")]
    names = ["run", "stage", "label", "group", "seed", "blind", *keys, "seconds"]
    return as_csv(names, [vars(run) | run.metrics | {"blind": blind([run])} for run in runs])


def corrections_csv(rows: Rows) -> str:
    """Write the rows of one set of runs as CSV, as the page shows them but with all digits."""
    keys = ["n", *(name for c in COLUMNS for name in (c.key, f"{c.key}_spread")), "seconds"]
    names = ["correction", "seeds", "blind", *keys]
    return as_csv(names, [row | {"correction": row["label"]} for row in rows])


def as_csv(names: Sequence[str], rows: Rows) -> str:
    """Write named values of rows as CSV; numbers that are not finite stay empty."""
    writer = csv.writer(text := io.StringIO(), lineterminator="\n")
    writer.writerow(names)
    for values in ([row[name] for name in names] for row in rows):
        writer.writerow(["" if isinstance(x, float) and not math.isfinite(x) else x for x in values])
    return text.getvalue()
