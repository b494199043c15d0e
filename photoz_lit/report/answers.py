"""Which correction is best at what, and whether it can be told apart from the others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from photoz_lit.report.figures.style import number
from photoz_lit.report.table import Column, columns_for
from photoz_lit.target import Target

NAMED = 3  # of those that cannot be told apart from the best; the others are counted


@dataclass(frozen=True)
class Answer:
    """The best correction by one number.

    Parameters
    ----------
    question : str
        What is asked, and by which number it is judged.
    best, best_value, second, second_value : str
        Names of the best correction and of the runner-up, and their numbers with their spreads.
    told_apart : bool
        Whether the best is ahead of all others by more than both spreads together.
    verdict : str
        That, in words.
    scatter : str
        sigma_mad of the best: what it costs.
    """

    question: str
    best: str
    best_value: str
    second: str
    second_value: str
    told_apart: bool
    verdict: str
    scatter: str


def answers(
    rows: Sequence[dict[str, Any]], calibrated: Sequence[dict[str, Any]], target: Target
) -> tuple[Answer, ...]:
    """Name the best correction for each bias and for p(z), one answer a number that two corrections have.

    `rows` are those of `corrections_table`, of one set of runs; `calibrated` those after calibration, which
    compete for the bias against the estimate only.
    """
    columns = {c.key: c for c in columns_for(target)}
    contest = contestants(rows)
    asked = (
        (f"Bias against {target.true}, one galaxy: |slope|", "slope_spec_z", contest),
        (f"Bias against {target.estimated}, a sample: |slope|", "slope_photo_z", contest),
        (f"The same with calibrated {target.estimated}", "slope_photo_z", [*contest, *calibrated]),
        ("Mode collapse: total variation", "total_variation", contest),
        (f"{target.pdf}: CRPS", "crps", contest),
        (f"{target.pdf}: {target.true} within 68 %", "coverage_68", contest),
    )
    found = [
        _answer(question, columns[key], columns["sigma_mad"], among)
        for question, key, among in asked
        if calibrated or among is contest
    ]
    return tuple(answer for answer in found if answer is not None)


def contestants(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that are corrections: all but trainz."""
    return [row for row in rows if row["label"] != "trainz"]


def _answer(question: str, column: Column, scatter: Column, rows: Sequence[dict[str, Any]]) -> Answer | None:
    ranked = sorted((row for row in rows if math.isfinite(row[column.key])), key=column.miss)
    if len(ranked) < 2:
        return None
    best, second = ranked[:2]
    alike = [str(row["label"]) for row in ranked[1:] if not _told_apart(column, best, row)]
    if alike:
        others = ", ".join(alike[:NAMED]) + (f" and {len(alike) - NAMED} more" if len(alike) > NAMED else "")
        verdict = f"not told apart from {others}: within the spread"
    else:
        ahead = (column.miss(second) - column.miss(best)) * column.factor
        verdict = f"ahead by {number(ahead, column.digits)}, more than both spreads together"
    return Answer(
        question=question,
        best=str(best["label"]),
        best_value=column.with_spread(best),
        second=str(second["label"]),
        second_value=column.with_spread(second),
        told_apart=not alike,
        verdict=verdict,
        scatter=scatter.with_spread(best),
    )


def _told_apart(column: Column, best: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two corrections differ by more than both spreads; never where a spread was not measured."""
    spreads = best[f"{column.key}_spread"] + other[f"{column.key}_spread"]
    return bool(column.miss(other) - column.miss(best) > spreads)
