"""The figures of a section, each with its heading and a sentence on what to look for."""

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from photoz_lit.report import curves, figures
from photoz_lit.report.figures.style import known_label
from photoz_lit.report.runs import Run
from photoz_lit.report.table import PRINCIPAL, number

HIGHLIGHTS = ("Baseline", "Step 1", "none", "full", "best")
ENOUGH_PANELS = 12  # in one figure; of more, the principal corrections come first and the others folded away


@dataclass(frozen=True)
class Picture:
    """A figure as base64 SVG, the text that stands in for it, and its natural width in CSS pixels."""

    data: str
    alt: str
    width: int


@dataclass(frozen=True)
class Block:
    """A heading, what to look for, figures, and further ones that are folded away, with what they show."""

    heading: str
    text: str
    figures: tuple[Picture, ...]
    more: tuple[Picture, ...] = ()
    more_text: str = ""


def build_blocks(corrections: dict[str, list[Run]], rows: dict[str, dict[str, Any]]) -> tuple[Block, ...]:
    """Draw the figures of one set of runs.

    Parameters
    ----------
    corrections : dict of str to list of Run
        Runs of each correction, by seed.
    rows : dict of str to dict
        Row of the table of corrections by label.

    Returns
    -------
    tuple of Block
        Blocks in the order of the page.
    """
    # `none` is Step 1's own output: a second panel of the same would only take room.
    shown = {
        k: v for k, v in corrections.items() if not (known_label(k) == "none" and "Step 1" in corrections)
    }
    main = [k for k in HIGHLIGHTS if k in shown]
    main = main if len(main) > 1 else list(shown)[:3]
    tilt, *panels_of_tilt = _residual_blocks(shown, main)
    collapse, density, pit = _sample_blocks(shown)
    return (tilt, collapse, _cost_block(shown, main, rows), *panels_of_tilt, density, pit)


def picture(figure: Figure, alt: str) -> Picture:
    """Turn a figure into what the page holds."""
    width = round(96 * figure.get_figwidth())  # CSS pixels an inch: text keeps the size it was drawn with
    return Picture(base64.b64encode(figures.as_svg(figure)).decode("ascii"), alt, width)


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
    return Block(
        heading,
        text,
        (picture(draw(first), alt),),
        (picture(draw(others), f"{alt}, the others"),) if others else (),
        f"{len(others)} further corrections" if others else "",
    )


def _residual_blocks(shown: dict[str, list[Run]], main: list[str]) -> tuple[Block, Block, Block]:
    """Draw mean residuals: the main corrections together, then every correction in its panel."""
    spec = {k: curves.against_spec_z(k, v) for k, v in shown.items()}
    photo = {k: curves.against_photo_z(k, v) for k, v in shown.items()}
    target, first = shown[main[0]][0].survey.target, main[0]
    together = figures.figure_residuals([spec[k] for k in main], [photo[k] for k in main], target)
    who = "host galaxy" if target.is_redshift else "galaxy"
    which = "tomographic bin" if target.is_redshift else "sample chosen by the estimate"
    alt = f"Mean residual against {target.true} and against {target.estimated}, with straight lines"
    return (
        Block(
            "Mean residual: the tilt and its cure",
            f"Left, against {target.true}: the bias that one {who} suffers. Right, against"
            f" {target.estimated}: the bias of a {which}. Both cannot vanish for an imperfect estimator;"
            " corrections in training cure the left one.",
            (picture(together, alt),),
        ),
        _panels(
            f"Mean residual against {target.true}, every correction",
            f"A cure lies flat on the zero line. Grey behind each panel: {first}.",
            f"Mean residual against {target.true}, one panel a correction",
            list(shown),
            lambda some: figures.figure_residual_panels([spec[k] for k in some], spec[first], target=target),
        ),
        _panels(
            f"Mean residual against {target.estimated}, every correction",
            f"What tilts here is left to a calibration against {target.estimated}, after training.",
            f"Mean residual against {target.estimated}, one panel a correction",
            list(shown),
            lambda some: figures.figure_residual_panels(
                [photo[k] for k in some], photo[first], against="photo_z", target=target
            ),
        ),
    )


def _sample_blocks(shown: dict[str, list[Run]]) -> tuple[Block, Block, Block]:
    """Draw what one run of each correction says galaxy by galaxy: n(z), density, PIT."""
    samples = {label: _sample(label, runs) for label, runs in shown.items()}
    survey = next(iter(shown.values()))[0].survey
    target = survey.target
    return (
        _panels(
            f"{target.n_of}: mode collapse at a glance",
            f"Spikes of the line above the filled histogram are {target.plural} on which estimates pile up."
            " Each panel shows the seed with the median total variation (TV).",
            f"Histograms of {target.estimated} over {target.true}, one panel a correction",
            list(shown),
            lambda some: figures.figure_n_of_z([samples[k] for k in some], survey.grid, target),
        ),
        _panels(
            f"{target.estimated[0].upper()}{target.estimated[1:]} against {target.true}",
            f"Solid line: {target.estimated} equals {target.true}. Dashed lines: outlier cut,"
            f" |{target.delta}| = {survey.outlier_cut:g}. Horizontal stripes are mode collapse.",
            f"Density of {target.estimated} against {target.true}, one panel a correction",
            list(shown),
            lambda some: figures.figure_density(
                [samples[k] for k in some], survey.grid, survey.outlier_cut, target
            ),
        ),
        _panels(
            f"PIT: can {target.pdf} be trusted?",
            f"Flat is right. A hump in the middle: {target.pdf} is too wide; peaks at the ends: too narrow; a"
            " tilt: biased. The grey band is counting noise (2 sigma).",
            "Histograms of PIT, one panel a correction",
            list(shown),
            lambda some: figures.figure_pit([samples[k] for k in some], target=target),
        ),
    )


def _sample(label: str, runs: list[Run]) -> figures.Sample:
    """Take the run with the median total variation: pooling seeds would hide the collapse of each."""
    run = sorted(runs, key=lambda r: r.metrics["total_variation"])[(len(runs) - 1) // 2]
    return figures.Sample(
        label, run.spec_z, run.photo_z, run.pit, f"TV {number(run.metrics['total_variation'], 3)}"
    )


def _cost_block(shown: dict[str, list[Run]], main: list[str], rows: dict[str, dict[str, Any]]) -> Block:
    """Draw total variation against slope, and sigma_mad by magnitude, side by side."""
    target = shown[main[0]][0].survey.target
    scatter = {k: curves.sigma_mad_by_magnitude(k, v) for k, v in shown.items()}
    first, others = first_and_others(list(shown))
    trade_off = figures.figure_trade_off(
        [_trade_off(k, rows[k]) for k in first],
        floor_of([rows[k] for k in shown]),
        [_trade_off(k, rows[k]) for k in others],
        target,
    )
    by_magnitude = figures.figure_sigma_mad(
        [scatter[k] for k in main], [v for k, v in scatter.items() if k not in main], target
    )
    return Block(
        "What each correction gains, and what it costs",
        "Left: mode collapse against tilt; the best place is on the vertical line, near the floor. Right:"
        f" scatter by magnitude; a cure should stay close to {main[0]}.",
        (
            picture(trade_off, "Total variation against slope, one marker a correction"),
            picture(by_magnitude, "Scatter by magnitude"),
        ),
    )


def floor_of(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the median floor of the total variation, None where none was measured."""
    floors = [row["total_variation_floor"] for row in rows if math.isfinite(row["total_variation_floor"])]
    return float(np.median(floors)) if floors else None


def _trade_off(label: str, row: dict[str, Any]) -> figures.TradeOff:
    keys = ("slope_spec_z", "slope_spec_z_spread", "total_variation", "total_variation_spread")
    return figures.TradeOff(label, *(float(row[key]) for key in keys))
