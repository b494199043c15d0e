"""Which correction is best at what, and whether it can be told apart from the others."""

import math
from typing import Any

from photoz_lit.report.figures.style import number
from photoz_lit.report.html import Cell
from photoz_lit.report.table import Column, Rows, columns_for
from photoz_lit.target import Target

HEADINGS = ("judged by", "best", "its σ_MAD", "runner-up", "verdict on the best")
NAMED = 3  # of those that cannot be told apart from the best; the others are counted


def answers(rows: Rows, calibrated: Rows, target: Target) -> list[list[Cell]]:
    """Name the best correction for each bias and for p(z), a row of `HEADINGS` where two compete."""
    columns = {c.key: c for c in columns_for(target)}
    contest = contestants(rows)
    individual = [
        estimate | {"label": f"{row['label']}, individual"}
        for row in contest
        for estimate in row.get("estimates", ())
        if estimate["estimate"] == "individual"
    ]
    asked = [
        (f"Bias against {target.true}, one galaxy: |slope|", "slope_spec_z", [*contest, *individual]),
        (f"Bias against {target.estimated}, a sample: |slope|", "slope_photo_z", contest),
        (f"The same with calibrated {target.estimated}", "slope_photo_z", [*contest, *calibrated]),
        ("Mode collapse: total variation", "total_variation", contest),
        (f"{target.pdf}: CRPS", "crps", contest),
        (f"{target.pdf}: {target.true} within 68 %", "coverage_68", contest),
    ]
    asked = asked if calibrated else [*asked[:2], *asked[3:]]
    found = (_answer(question, columns[key], columns["sigma_mad"], among) for question, key, among in asked)
    return [answer for answer in found if answer]


def contestants(rows: Rows) -> list[dict[str, Any]]:
    """Return the rows that are corrections: all but trainz."""
    return [row for row in rows if row["label"] != "trainz"]


def _answer(question: str, column: Column, scatter: Column, rows: Rows) -> list[Cell]:
    """Say who is best by a number, at which scatter, who comes next, and whether they can be told apart."""
    ranked = sorted((row for row in rows if math.isfinite(row[column.key])), key=column.miss)
    if len(ranked) < 2:
        return []
    best, second = ranked[:2]
    spread = f"{column.key}_spread"
    alike = [
        str(row["label"])
        for row in ranked[1:]  # never told apart where a spread was not measured
        if not column.miss(row) - column.miss(best) > best[spread] + row[spread]
    ]
    if alike:
        others = ", ".join(alike[:NAMED]) + (f" and {len(alike) - NAMED} more" if len(alike) > NAMED else "")
        verdict = f"not told apart from {others}: within the spread"
    else:
        ahead = (column.miss(second) - column.miss(best)) * column.factor
        verdict = f"ahead by {number(ahead, column.digits)}, more than both spreads together"
    return [
        Cell(question),
        Cell(str(best["label"]), column.with_spread(best)),
        Cell(scatter.with_spread(best)),
        Cell(str(second["label"]), column.with_spread(second)),
        Cell(verdict, kind="alike" if alike else "apart"),
    ]
