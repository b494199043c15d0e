"""One section of the report: what one set of runs says, as tiles and tables."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from photoz_lit.report.blocks import Block, build_blocks
from photoz_lit.report.figures.style import colour_of
from photoz_lit.report.runs import Run
from photoz_lit.report.table import COLUMNS, by_correction, corrections_table, duration, number

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
    """All that the page shows of one set of runs."""

    run: str
    facts: str
    spread: str
    tiles: tuple[Tile, ...]
    rows: tuple[Row, ...]
    blocks: tuple[Block, ...]
    runs: tuple[RunRow, ...]
    configs: tuple[tuple[str, str], ...]


def build_section(runs: Sequence[Run]) -> Section:
    """Build the section of one set of runs.

    Parameters
    ----------
    runs : sequence of Run
        Finished runs of one `<run>` folder, at least one.

    Returns
    -------
    Section
        What the template shows.
    """
    corrections = by_correction(runs)
    table = corrections_table(runs)
    survey, grid = runs[0].survey, runs[0].survey.grid
    sizes = sorted({r.spec_z.size for r in runs})
    galaxies = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    seeds = len({r.seed for r in runs})
    return Section(
        run=runs[0].run,
        facts=(
            f"Survey {survey.name}: redshifts {grid.z_min:g} to {grid.z_max:g} in {grid.n_bins} bins."
            f" Estimates are the {survey.estimate} of p(z)."
            f" {galaxies} test galaxies. {len(runs)} runs of {len(corrections)} corrections,"
            f" {seeds} {'seed' if seeds == 1 else 'seeds'}."
        ),
        spread=(
            "Medians over seeds, with half their range; bootstrap errors where there is one seed."
            if any(row["spread"] == "seeds" for row in table)
            else "One seed; errors from the bootstrap."
        ),
        tiles=_tiles(table),
        rows=_rows(table),
        blocks=build_blocks(corrections, {row["label"]: row for row in table}),
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


def _tiles(table: Sequence[dict[str, Any]]) -> tuple[Tile, ...]:
    """Compare the full correction with the Baseline, or with what else no correction was applied to."""
    rows = {row["label"]: row for row in table}
    reference = next((rows[name] for name in ("Baseline", "Step 1", "none") if name in rows), None)
    full = rows.get("full")
    if reference is None or full is None:
        return ()
    floor = number(full["total_variation_floor"], 3)
    names = {
        "slope_spec_z": "Tilt: slope against spec z",
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


def _rows(table: Sequence[dict[str, Any]]) -> tuple[Row, ...]:
    best = {
        c.key: min(
            (c.miss(r) for r in table if r["label"] != "trainz" and math.isfinite(r[c.key])), default=math.nan
        )
        for c in JUDGED
    }
    several = len(table) > 2
    rows = []
    for row in table:
        label = str(row["label"])
        cells = tuple(
            Cell(
                c.key,
                repr(row[c.key]),
                c.text(row),
                c.spread(row),
                several and label != "trainz" and c.miss(row) == best.get(c.key),
            )
            for c in COLUMNS
        )
        kind = label if label == "trainz" else "highlight" if label == "full" else ""
        rows.append(Row(label, kind, colour_of(label), row["seeds"], cells, duration(row["seconds"])))
    return tuple(rows)
