"""The figures of a section, each with its heading and a sentence on what to look for."""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np
from matplotlib.figure import Figure

from photoz_lit.report import curves
from photoz_lit.report.aside import aside
from photoz_lit.report.figures.comparison import figure_biases, figure_calibrated, figure_pareto, figure_sweep
from photoz_lit.report.figures.residuals import Curve, figure_residual_panels, figure_residuals
from photoz_lit.report.figures.results import figure_density, figure_n_of_z, figure_pit, figure_sigma_mad
from photoz_lit.report.html import Block, svg
from photoz_lit.report.runs import Run
from photoz_lit.report.sweeps import Sweep, floor_of_sweep, lines_of
from photoz_lit.report.table import PRINCIPAL, Rows
from photoz_lit.target import Target

HIGHLIGHTS = ("Baseline", "Step 1", "none", "full", "best")
Shown = TypeVar("Shown", Run, Curve)  # what a panel is drawn from
ENOUGH_PANELS = 12  # in one figure; of more, the principal corrections come first and the others folded away


def build_blocks(corrections: dict[str, list[Run]]) -> list[Block]:
    """Draw every correction of one set from its runs by seed."""
    target = next(iter(corrections.values()))[0].survey.target
    main = [label for label in HIGHLIGHTS if label in corrections]
    main = main if len(main) > 1 else list(corrections)[:3]
    samples = aside(_sample_blocks, corrections, target)
    tilt, *panels_of_tilt = _residual_blocks(corrections, main, target)
    scatter = {label: curves.sigma_mad_by_magnitude(same) for label, same in corrections.items()}
    cost = Block(
        "Scatter by magnitude: what each correction costs",
        f"A cure should stay close to {main[0]}.",
        figures=(svg(figure_sigma_mad(scatter, main, target), "Scatter by magnitude"),),
    )
    collapse, *others = samples()
    return [tilt, collapse, cost, *panels_of_tilt, *others]


def _panels(
    heading: str, text: str, alt: str, shown: Mapping[str, Shown], draw: Callable[[dict[str, Shown]], Figure]
) -> Block:
    """Make a block with a panel a correction; of many, the others are folded away."""
    principal = [label for label in shown if label in PRINCIPAL]
    many = len(shown) > ENOUGH_PANELS
    labels = principal if many and len(principal) > 1 else list(shown)[:ENOUGH_PANELS]
    first = {label: shown[label] for label in labels}
    others = {label: one for label, one in shown.items() if label not in first}
    alt += ", one panel a correction"
    more = (Block(figures=(svg(draw(others), f"{alt}, the others"),)),) if others else ()
    summary = f"{len(others)} further corrections"
    return Block(heading, text, figures=(svg(draw(first), alt),), folded=more, summary=summary)


def _residual_blocks(corrections: dict[str, list[Run]], main: list[str], target: Target) -> list[Block]:
    """Draw mean residuals: the main corrections together, then every correction in its panel."""
    spec = {k: curves.against_spec_z(k, v) for k, v in corrections.items()}
    photo = {k: curves.against_photo_z(k, v) for k, v in corrections.items()}
    first = main[0]
    together = figure_residuals([spec[k] for k in main], [photo[k] for k in main], target)
    who = "host galaxy" if target.is_redshift else "galaxy"
    which = "tomographic bin" if target.is_redshift else "sample chosen by the estimate"
    alt = f"Mean residual against {target.true} and against {target.estimated}, with straight lines"
    return [
        Block(
            "Mean residual: the tilt and its cure",
            f"Left, against {target.true}: the bias that one {who} suffers. Right, against"
            f" {target.estimated}: the bias of a {which}. Both cannot vanish for an imperfect estimator;"
            " corrections in training cure the left one.",
            figures=(svg(together, alt),),
        ),
        _panels(
            f"Mean residual against {target.true}, every correction",
            f"A cure lies flat on the zero line. Grey behind each panel: {first}.",
            f"Mean residual against {target.true}",
            spec,
            lambda some: figure_residual_panels(list(some.values()), spec[first], target.true_axis, target),
        ),
        _panels(
            f"Mean residual against {target.estimated}, every correction",
            f"What tilts here is left to a calibration against {target.estimated}, after training.",
            f"Mean residual against {target.estimated}",
            photo,
            lambda some: figure_residual_panels(
                list(some.values()), photo[first], target.estimated_axis, target
            ),
        ),
    ]


def _sample_blocks(corrections: dict[str, list[Run]], target: Target) -> list[Block]:
    """Draw what one run of each correction says galaxy by galaxy: n(z), density, PIT."""
    runs = {}
    for label, same in corrections.items():
        # The run with the median total variation: pooling seeds would hide the collapse of each.
        runs[label] = sorted(same, key=lambda r: r.metrics["total_variation"])[(len(same) - 1) // 2]
    cut = next(iter(runs.values())).survey.outlier_cut
    smooth = (
        f" The black lines are {target.n_of} as whole {target.pdf} tell it, without choosing an estimate:"
        " stacked, their sum; inferred, their prior divided out (dashes, seen where the two differ)."
    ) * any(run.n_of_z for run in runs.values())
    return [
        _panels(
            f"{target.n_of}: mode collapse at a glance",
            f"Spikes of the line above the filled histogram are {target.plural} on which estimates pile up."
            f" Each panel shows the seed with the median total variation (TV).{smooth}",
            f"Histograms of {target.estimated} over {target.true}",
            runs,
            figure_n_of_z,
        ),
        _panels(
            f"{target.estimated[0].upper()}{target.estimated[1:]} against {target.true}",
            f"Solid line: {target.estimated} equals {target.true}. Dashed lines: outlier cut,"
            f" |Δ{target.symbol}| = {cut:g}. Horizontal stripes are mode collapse.",
            f"Density of {target.estimated} against {target.true}",
            runs,
            figure_density,
        ),
        _panels(
            f"PIT: can {target.pdf} be trusted?",
            f"Flat is right. A hump in the middle: {target.pdf} is too wide; peaks at the ends: too narrow; a"
            " tilt: biased. The grey band is counting noise (2 sigma).",
            "Histograms of PIT",
            runs,
            figure_pit,
        ),
    ]


def comparison_blocks(rows: Rows, target: Target) -> list[Block]:
    """Draw corrections against each other by their numbers; of a single one there is nothing to compare."""
    if len(rows) < 2:
        return []
    floors = [row["total_variation_floor"] for row in rows if math.isfinite(row["total_variation_floor"])]
    pareto = figure_pareto(rows, float(np.median(floors)) if floors else None, target)
    alt = f"Total variation against |slope| against {target.true}, colour is scatter"
    biases = figure_biases(rows, target)
    return [
        Block(
            "Mode collapse against tilt: what no other correction beats",
            "Best is the lower left corner; colour is the scatter. The dotted line joins the corrections"
            " (black rim, bold) that no other beats in both. Bars are the spread.",
            figures=(svg(pareto, alt),),
        ),
        Block(
            "Bias and scatter; individual and bulk bias",
            f"Left: the root mean square of the mean residuals in bins of {target.true} (40 over the range,"
            " those with 30 galaxies or more) against the scatter: what a correction takes from the one it"
            " often adds to the other. Right: the slope of the mean residual against"
            f" {target.true} and against {target.estimated}; an imperfect estimator cannot have both flat.",
            figures=(svg(biases, "Bias against scatter, and individual against bulk bias"),),
        ),
    ]


def sweep_block(sweep: Sweep, target: Target) -> Block:
    """Draw a sweep: bias, mode collapse, scatter and CRPS against the swept setting."""
    lines = lines_of(sweep)
    figure = figure_sweep(sweep, lines, floor_of_sweep(lines), target)
    untouched = any(line.x.size == 0 for line in lines)
    dashed = " Dashed across: corrections that the setting does not touch." if untouched else ""
    return Block(
        f"Sweep: {sweep.label}",
        f"Lower is better everywhere. {len(sweep.values)} values of {sweep.key}: medians over seeds with half"
        " their range, or one seed with its bootstrap error; the floor is the median over corrections."
        f"{dashed}",
        figures=(svg(figure, f"Bias, mode collapse, scatter and CRPS against {sweep.label}"),),
    )


def calibrated_block(before: Rows, after: Rows, target: Target) -> Block:
    """Draw what calibration does to both views of bias, from the rows of `calibrated_rows`."""
    return Block(
        f"Calibrated {target.estimated}",
        f"Calibration takes the mean residual in bins of {target.estimated} away, after training. From open"
        " to filled: what that does to the bulk bias, and what it costs in individual bias.",
        figures=(svg(figure_calibrated(before, after, target), "Both biases before and after calibration"),),
    )
