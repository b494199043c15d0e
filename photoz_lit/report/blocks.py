"""The figures of a section, each with its heading and a sentence on what to look for."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from photoz_lit.report import curves
from photoz_lit.report.figures.comparison import (
    figure_biases,
    figure_calibrated,
    figure_pareto,
)
from photoz_lit.report.figures.residuals import figure_residual_panels, figure_residuals
from photoz_lit.report.figures.results import figure_density, figure_n_of_z, figure_pit, figure_sigma_mad
from photoz_lit.report.figures.sweep import figure_sweep
from photoz_lit.report.html import Block, svg
from photoz_lit.report.runs import Run
from photoz_lit.report.sweeps import Sweep, floor_of_sweep, lines_of
from photoz_lit.report.table import PRINCIPAL
from photoz_lit.target import Target

HIGHLIGHTS = ("Baseline", "Step 1", "none", "full", "best")
ENOUGH_PANELS = 12  # in one figure; of more, the principal corrections come first and the others folded away

Rows = Sequence[dict[str, Any]]


def build_blocks(corrections: dict[str, list[Run]]) -> list[Block]:
    """Draw every correction of one set from its runs by seed."""
    target = next(iter(corrections.values()))[0].survey.target
    main = [label for label in HIGHLIGHTS if label in corrections]
    main = main if len(main) > 1 else list(corrections)[:3]
    tilt, *panels_of_tilt = _residual_blocks(corrections, main, target)
    collapse, density, pit = _sample_blocks(corrections, target)
    return [tilt, collapse, _cost_block(corrections, main, target), *panels_of_tilt, density, pit]


def first_and_others(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort corrections into those whose panels are shown at once and, where there are many, the others."""
    if len(labels) <= ENOUGH_PANELS:
        return list(labels), []
    principal = [label for label in labels if label in PRINCIPAL]
    first = principal if len(principal) > 1 else list(labels)[:ENOUGH_PANELS]
    return first, [label for label in labels if label not in first]


def _panels(
    heading: str, text: str, alt: str, labels: Sequence[str], draw: Callable[[list[str]], Figure]
) -> Block:
    """Make a block with a panel a correction."""
    first, others = first_and_others(labels)
    alt += ", one panel a correction"
    more = (Block(figures=(svg(draw(others), f"{alt}, the others"),)),) if others else ()
    summary = f"{len(others)} further corrections"
    return Block(heading, text, figures=(svg(draw(first), alt),), folded=more, summary=summary)


def _residual_blocks(
    corrections: dict[str, list[Run]], main: list[str], target: Target
) -> tuple[Block, Block, Block]:
    """Draw mean residuals: the main corrections together, then every correction in its panel."""
    spec = {k: curves.against_spec_z(k, v) for k, v in corrections.items()}
    photo = {k: curves.against_photo_z(k, v) for k, v in corrections.items()}
    labels, first = list(corrections), main[0]
    together = figure_residuals([spec[k] for k in main], [photo[k] for k in main], target)
    who = "host galaxy" if target.is_redshift else "galaxy"
    which = "tomographic bin" if target.is_redshift else "sample chosen by the estimate"
    alt = f"Mean residual against {target.true} and against {target.estimated}, with straight lines"
    return (
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
            labels,
            lambda some: figure_residual_panels([spec[k] for k in some], spec[first], target=target),
        ),
        _panels(
            f"Mean residual against {target.estimated}, every correction",
            f"What tilts here is left to a calibration against {target.estimated}, after training.",
            f"Mean residual against {target.estimated}",
            labels,
            lambda some: figure_residual_panels(
                [photo[k] for k in some], photo[first], against="photo_z", target=target
            ),
        ),
    )


def _sample_blocks(corrections: dict[str, list[Run]], target: Target) -> tuple[Block, Block, Block]:
    """Draw what one run of each correction says galaxy by galaxy: n(z), density, PIT."""
    runs = {label: _typical(same) for label, same in corrections.items()}
    labels, cut = list(runs), next(iter(runs.values())).survey.outlier_cut
    return (
        _panels(
            f"{target.n_of}: mode collapse at a glance",
            f"Spikes of the line above the filled histogram are {target.plural} on which estimates pile up."
            " Each panel shows the seed with the median total variation (TV).",
            f"Histograms of {target.estimated} over {target.true}",
            labels,
            lambda some: figure_n_of_z({k: runs[k] for k in some}),
        ),
        _panels(
            f"{target.estimated[0].upper()}{target.estimated[1:]} against {target.true}",
            f"Solid line: {target.estimated} equals {target.true}. Dashed lines: outlier cut,"
            f" |Δ{target.symbol}| = {cut:g}. Horizontal stripes are mode collapse.",
            f"Density of {target.estimated} against {target.true}",
            labels,
            lambda some: figure_density({k: runs[k] for k in some}),
        ),
        _panels(
            f"PIT: can {target.pdf} be trusted?",
            f"Flat is right. A hump in the middle: {target.pdf} is too wide; peaks at the ends: too narrow; a"
            " tilt: biased. The grey band is counting noise (2 sigma).",
            "Histograms of PIT",
            labels,
            lambda some: figure_pit({k: runs[k] for k in some}),
        ),
    )


def _typical(runs: list[Run]) -> Run:
    """Take the run with the median total variation: pooling seeds would hide the collapse of each."""
    return sorted(runs, key=lambda r: r.metrics["total_variation"])[(len(runs) - 1) // 2]


def _cost_block(corrections: dict[str, list[Run]], main: list[str], target: Target) -> Block:
    scatter = {label: curves.sigma_mad_by_magnitude(same) for label, same in corrections.items()}
    return Block(
        "Scatter by magnitude: what each correction costs",
        f"A cure should stay close to {main[0]}.",
        figures=(svg(figure_sigma_mad(scatter, main, target), "Scatter by magnitude"),),
    )


def floor_of(rows: Rows) -> float | None:
    """Return the median floor of the total variation, None where none was measured."""
    floors = [row["total_variation_floor"] for row in rows if math.isfinite(row["total_variation_floor"])]
    return float(np.median(floors)) if floors else None


def comparison_blocks(rows: Rows, target: Target) -> list[Block]:
    """Draw corrections against each other by their numbers; of a single one there is nothing to compare."""
    if len(rows) < 2:
        return []
    pareto = figure_pareto(rows, floor_of(rows), target)
    biases = figure_biases(rows, target)
    return [
        Block(
            "Mode collapse against tilt: what no other correction beats",
            "Best is the lower left corner; colour is the scatter. The dotted line joins the corrections"
            " (black rim, bold) that no other beats in both. Bars are the spread.",
            figures=(
                svg(pareto, f"Total variation against |slope| against {target.true}, colour is scatter"),
            ),
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
