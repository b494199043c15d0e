"""Corrections against each other: along a sweep, at one setting, and after calibration."""

from collections.abc import Sequence
from typing import Any

from photoz_lit.report import figures
from photoz_lit.report.answers import contestants
from photoz_lit.report.blocks import Block, floor_of, picture
from photoz_lit.report.sweeps import Sweep, floor_of_sweep, lines_of
from photoz_lit.target import Target


def comparison_blocks(rows: Sequence[dict[str, Any]], target: Target) -> tuple[Block, ...]:
    """Draw corrections against each other by their numbers.

    Parameters
    ----------
    rows : sequence of dict
        From `corrections_table`, of one set of runs.
    target : Target
        What is estimated.

    Returns
    -------
    tuple of Block
        Empty for a single correction: there is nothing to compare.
    """
    rows = contestants(rows)
    if len(rows) < 2:
        return ()
    standings = [_standing(row) for row in rows]
    pareto = figures.figure_pareto(standings, floor_of(rows), target)
    biases = figures.figure_biases(standings, target)
    return (
        Block(
            "Mode collapse against tilt: what no other correction beats",
            "Best is the lower left corner; colour is the scatter. The dotted line joins the corrections"
            " (black rim, bold) that no other beats in both. Bars are the spread.",
            (picture(pareto, f"Total variation against |slope| against {target.true}, colour is scatter"),),
        ),
        Block(
            "Bias and scatter; individual and bulk bias",
            f"Left: the root mean square of the mean residuals in bins of {target.true} (40 over the range,"
            " those with 30 galaxies or more) against the scatter: what a correction takes from the one it"
            " often adds to the other. Right: the slope of the mean residual against"
            f" {target.true} and against {target.estimated}; an imperfect estimator cannot have both flat.",
            (picture(biases, "Bias against scatter, and individual against bulk bias"),),
        ),
    )


def _standing(row: dict[str, Any]) -> figures.Standing:
    def score(key: str) -> figures.Score:
        return figures.Score(abs(float(row[key])), float(row[f"{key}_spread"]))

    keys = ("slope_spec_z", "slope_photo_z", "total_variation", "residual_rms", "sigma_mad")
    return figures.Standing(str(row["label"]), *(score(key) for key in keys))


def sweep_block(sweep: Sweep, target: Target) -> Block:
    """Draw a sweep: bias, mode collapse, scatter and CRPS against the swept setting.

    Parameters
    ----------
    sweep : Sweep
        The setting and its runs.
    target : Target
        What is estimated.

    Returns
    -------
    Block
        One figure.
    """
    lines = lines_of(sweep)
    figure = figures.figure_sweep(sweep.axis, lines, floor_of_sweep(lines), target)
    untouched = any(line.x.size == 0 for line in lines)
    dashed = " Dashed across: corrections that the setting does not touch." if untouched else ""
    return Block(
        f"Sweep: {sweep.axis.label}",
        f"Lower is better everywhere. {len(sweep.values)} values of {sweep.key}: medians over seeds with half"
        " their range, or one seed with its bootstrap error; the floor is the median over corrections."
        f"{dashed}",
        (picture(figure, f"Bias, mode collapse, scatter and CRPS against {sweep.axis.label}"),),
    )


def calibrated_block(
    before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], target: Target
) -> Block:
    """Draw what calibration does to both views of bias.

    Parameters
    ----------
    before, after : sequence of dict
        From `calibrated_rows`, at least one.
    target : Target
        What is estimated.

    Returns
    -------
    Block
        One figure.
    """
    products = [
        figures.BeforeAfter(
            str(b["correction"]),
            str(b["title"]),
            (float(b["bulk_mean"]), float(a["bulk_mean"])),
            (abs(float(b["slope_spec_z"])), abs(float(a["slope_spec_z"]))),
        )
        for b, a in zip(before, after, strict=True)
    ]
    return Block(
        f"Calibrated {target.estimated}",
        f"Calibration takes the mean residual in bins of {target.estimated} away, after training. From open"
        " to filled: what that does to the bulk bias, and what it costs in individual bias.",
        (picture(figures.figure_calibrated(products, target), "Both biases before and after calibration"),),
    )
