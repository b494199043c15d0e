"""One section of the report: what one set of runs says, as tiles and tables."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from photoz_lit.report.answers import Answer, answers
from photoz_lit.report.blocks import Block, build_blocks
from photoz_lit.report.calibrated import CALIBRATED_COLUMNS, Calibrated, calibrated_rows
from photoz_lit.report.comparison import calibrated_block, comparison_blocks, sweep_block
from photoz_lit.report.figures.style import PROMINENT, colour_of, known_label
from photoz_lit.report.runs import Run
from photoz_lit.report.sweeps import reference_runs, sweeps_of
from photoz_lit.report.table import (
    COLUMNS,
    Column,
    by_correction,
    columns_for,
    corrections_csv,
    corrections_table,
    duration,
    number,
)
from photoz_lit.target import Target

# The floor describes the sample, not the correction.
JUDGED = [c for c in COLUMNS if c.key != "total_variation_floor"]


@dataclass(frozen=True)
class Tile:
    """One number before and after the correction, and what that means."""

    name: str
    before: str
    after: str
    verdict: str


@dataclass(frozen=True)
class Cell:
    """A number of the table of corrections."""

    key: str
    value: str
    text: str
    spread: str
    best: bool


@dataclass(frozen=True)
class Row:
    """A correction in the table."""

    label: str
    kind: str
    colour: str
    seeds: int
    cells: tuple[Cell, ...]
    time: str
    seconds: str


@dataclass(frozen=True)
class Change:
    """Calibrated estimates in their table: a pair of texts a number, before and after."""

    label: str
    seeds: int
    cells: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RunRow:
    """A run folder in the table of runs."""

    label: str
    stage: str
    seed: int
    n: str
    time: str
    folder: str


@dataclass(frozen=True)
class Section:
    """All that the page shows of one set of runs.

    `compared` stands by the table of corrections; of a sweep, `blocks` are folded away under `folded`.
    """

    run: str
    target: Target
    facts: str
    spread: str
    tiles: tuple[Tile, ...]
    sweeps: tuple[Block, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    csv: str
    answers: tuple[Answer, ...]
    compared: tuple[Block, ...]
    calibrated_columns: tuple[Column, ...]
    changes: tuple[Change, ...]
    calibrated: tuple[Block, ...]
    folded: str
    blocks: tuple[Block, ...]
    runs: tuple[RunRow, ...]
    configs: tuple[tuple[str, str], ...]

    @property
    def all_blocks(self) -> tuple[Block, ...]:
        """Return all figures of the section, in the order of the page."""
        return (*self.sweeps, *self.compared, *self.calibrated, *self.blocks)


def build_section(name: str, runs: Sequence[Run], calibrated: Sequence[Calibrated] = ()) -> Section:
    """Build the section of one set of runs.

    Parameters
    ----------
    name : str
        Name of the set.
    runs : sequence of Run
        Finished runs of one `<run>` folder and one target, at least one.
    calibrated : sequence of Calibrated
        Calibrated estimates of that folder.

    Returns
    -------
    Section
        What the template shows.
    """
    corrections, table, target = by_correction(runs), corrections_table(runs), runs[0].survey.target
    before, after = calibrated_rows(calibrated, corrections)
    sweeps = sweeps_of(runs)
    # Along a sweep, numbers of different values do not compete: bins or galaxies differ, for trainz too.
    table = [row for row in table if not (sweeps and row["label"] == "trainz")]
    folded, shown = reference_runs(sweeps[0]) if sweeps else ("", list(runs))
    of_figures = by_correction(shown)
    rows_of_figures = {row["label"]: row for row in corrections_table(shown)}
    return Section(
        run=name,
        target=target,
        facts=_facts(runs, list(corrections)),
        spread=(
            "Medians over seeds, with half their range; bootstrap errors where there is one seed."
            if any(row["spread"] == "seeds" for row in table)
            else "One seed; errors from the bootstrap."
        ),
        tiles=_tiles(table, target) if not sweeps else (),
        sweeps=tuple(sweep_block(sweep, target) for sweep in sweeps),
        columns=columns_for(target),
        rows=_rows(table, mark_best=not sweeps and len(table) > 2),
        csv=base64.b64encode(corrections_csv(table).encode()).decode("ascii"),
        answers=answers(table, after, target) if not sweeps else (),
        compared=comparison_blocks(table, target) if not sweeps else (),
        calibrated_columns=columns_for(target, CALIBRATED_COLUMNS),
        changes=tuple(
            Change(
                str(b["title"]),
                int(b["seeds"]),
                tuple((c.with_spread(b), c.with_spread(a)) for c in CALIBRATED_COLUMNS),
            )
            for b, a in zip(before, after, strict=True)
        ),
        calibrated=(calibrated_block(before, after, target),) if before else (),
        folded=f"Figures of every correction at {sweeps[0].key} = {folded}" if sweeps else "",
        blocks=build_blocks(of_figures, rows_of_figures),
        runs=tuple(
            RunRow(
                label,
                r.stage,
                r.seed,
                f"{r.spec_z.size:,}",
                duration(r.seconds),
                f"{r.run}/{r.stage}/{r.folder.name}",
            )
            for label, same in corrections.items()
            for r in same
        ),
        configs=tuple((label, same[0].config) for label, same in corrections.items() if same[0].config),
    )


def _facts(runs: Sequence[Run], labels: Sequence[str]) -> str:
    """Say what the set is made of; where its runs differ, say so too."""
    survey, grid, target = runs[0].survey, runs[0].survey.grid, runs[0].survey.target
    sizes = sorted({r.spec_z.size for r in runs})
    galaxies = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    bins = sorted({r.survey.grid.n_bins for r in runs})
    n_bins = f"{bins[0]}" if len(bins) == 1 else f"{bins[0]} to {bins[-1]}"
    estimates = " or ".join(dict.fromkeys(r.survey.estimate for r in runs))
    seeds = len({r.seed for r in runs})
    n_corrections = len({known_label(label) for label in labels})
    settings = f" in {len(labels)} settings" if len(labels) > n_corrections else ""
    unit = f" {target.unit}" if target.unit else ""
    return (
        f"Survey {survey.name}: {target.plural} {grid.z_min:g} to {grid.z_max:g}{unit} in {n_bins} bins."
        f" Estimates are the {estimates} of {target.pdf}."
        f" {galaxies} test galaxies. {len(runs)} runs of {n_corrections} corrections{settings},"
        f" {seeds} {'seed' if seeds == 1 else 'seeds'}."
    )


def _tiles(table: Sequence[dict[str, Any]], target: Target) -> tuple[Tile, ...]:
    """Compare the full correction with the Baseline, or with what else no correction was applied to."""
    rows = {row["label"]: row for row in table}
    reference = next((rows[name] for name in ("Baseline", "Step 1", "none") if name in rows), None)
    full = rows.get("full")
    if reference is None or full is None:
        return ()
    floor = number(full["total_variation_floor"], 3)
    names = {
        "slope_spec_z": f"Tilt: slope against {target.true}",
        "total_variation": f"Mode collapse: total variation (floor {floor})",
        "sigma_mad": "Cost: scatter σ_MAD",
    }
    tiles = []
    for column in (c for c in COLUMNS if c.key in names):
        before, after = abs(reference[column.key]), abs(full[column.key])
        change = (
            f"{'|slope|' if column.signed else 'ratio'} × {number(after / before, 2)}" if before > 0 else ""
        )
        verdict = f"{reference['label']} to full{': ' + change if change else ''}"
        tiles.append(Tile(names[column.key], column.text(reference), column.text(full), verdict))
    return tuple(tiles)


def _rows(table: Sequence[dict[str, Any]], *, mark_best: bool) -> tuple[Row, ...]:
    best = {
        c.key: min(
            (c.miss(r) for r in table if r["label"] != "trainz" and math.isfinite(r[c.key])), default=math.nan
        )
        for c in JUDGED
    }
    rows = []
    for row in table:
        label = str(row["label"])
        cells = tuple(
            Cell(
                c.key,
                repr(row[c.key]),
                c.text(row),
                c.spread(row),
                mark_best and label != "trainz" and c.miss(row) == best.get(c.key),
            )
            for c in COLUMNS
        )
        kind = label if label == "trainz" else "highlight" if label in PROMINENT else ""
        seconds = row["seconds"]
        rows.append(Row(label, kind, colour_of(label), row["seeds"], cells, duration(seconds), repr(seconds)))
    return tuple(rows)
