"""The figures of a section, each with its heading and a sentence on what to look for."""

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from photoz_lit.report import curves, figures
from photoz_lit.report.figures.style import known_label
from photoz_lit.report.runs import Run
from photoz_lit.report.table import number

HIGHLIGHTS = ("Baseline", "Step 1", "none", "full")


@dataclass(frozen=True)
class Picture:
    """A figure as base64 SVG, the text that stands in for it, and its natural width in CSS pixels."""

    data: str
    alt: str
    width: int


@dataclass(frozen=True)
class Block:
    """A heading, what to look for, and one or two figures."""

    heading: str
    text: str
    figures: tuple[Picture, ...]


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


def _picture(figure: Figure, alt: str) -> Picture:
    width = round(96 * figure.get_figwidth())  # CSS pixels an inch: text keeps the size it was drawn with
    return Picture(base64.b64encode(figures.as_svg(figure)).decode("ascii"), alt, width)


def _residual_blocks(shown: dict[str, list[Run]], main: list[str]) -> tuple[Block, Block, Block]:
    """Draw mean residuals: the main corrections together, then every correction in its panel."""
    spec = {k: curves.against_spec_z(k, v) for k, v in shown.items()}
    photo = {k: curves.against_photo_z(k, v) for k, v in shown.items()}
    first = main[0]
    together = figures.figure_residuals([spec[k] for k in main], [photo[k] for k in main])
    by_spec_z = figures.figure_residual_panels(list(spec.values()), spec[first])
    by_photo_z = figures.figure_residual_panels(list(photo.values()), photo[first], against="photo_z")
    return (
        Block(
            "Mean residual: the tilt and its cure",
            "Left, against spec z: the bias that one host galaxy suffers. Right, against photo z: the bias of"
            " a tomographic bin. Both cannot vanish for an imperfect estimator; corrections in training cure"
            " the left one.",
            (_picture(together, "Mean residual against spec z and against photo z, with straight lines"),),
        ),
        Block(
            "Mean residual against spec z, every correction",
            f"A cure lies flat on the zero line. Grey behind each panel: {first}.",
            (_picture(by_spec_z, "Mean residual against spec z, one panel a correction"),),
        ),
        Block(
            "Mean residual against photo z, every correction",
            "What tilts here is left to a calibration against photo z, after training.",
            (_picture(by_photo_z, "Mean residual against photo z, one panel a correction"),),
        ),
    )


def _sample_blocks(shown: dict[str, list[Run]]) -> tuple[Block, Block, Block]:
    """Draw what one run of each correction says galaxy by galaxy: n(z), density, PIT."""
    samples = [_sample(label, runs) for label, runs in shown.items()]
    survey = next(iter(shown.values()))[0].survey
    n_of_z = figures.figure_n_of_z(samples, survey.grid)
    density = figures.figure_density(samples, survey.grid, survey.outlier_cut)
    return (
        Block(
            "n(z): mode collapse at a glance",
            "Spikes of the line above the filled histogram are redshifts on which estimates pile up. Each"
            " panel shows the seed with the median total variation (TV).",
            (_picture(n_of_z, "Histograms of photo z over spec z, one panel a correction"),),
        ),
        Block(
            "Photo z against spec z",
            f"Solid line: photo z equals spec z. Dashed lines: outlier cut, |Δz| = {survey.outlier_cut:g}."
            " Horizontal stripes are mode collapse.",
            (_picture(density, "Density of photo z against spec z, one panel a correction"),),
        ),
        Block(
            "PIT: can p(z) be trusted?",
            "Flat is right. A hump in the middle: p(z) is too wide; peaks at the ends: too narrow; a tilt:"
            " biased. The grey band is counting noise (2 sigma).",
            (_picture(figures.figure_pit(samples), "Histograms of PIT, one panel a correction"),),
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
    scatter = {k: curves.sigma_mad_by_magnitude(k, v) for k, v in shown.items()}
    floors = [
        rows[k]["total_variation_floor"] for k in shown if math.isfinite(rows[k]["total_variation_floor"])
    ]
    trade_off = figures.figure_trade_off(
        [_trade_off(k, rows[k]) for k in shown], float(np.median(floors)) if floors else None
    )
    by_magnitude = figures.figure_sigma_mad(
        [scatter[k] for k in main], [v for k, v in scatter.items() if k not in main]
    )
    return Block(
        "What each correction gains, and what it costs",
        "Left: mode collapse against tilt; the best place is on the vertical line, near the floor. Right:"
        f" scatter by magnitude; a cure should stay close to {main[0]}.",
        (
            _picture(trade_off, "Total variation against slope, one marker a correction"),
            _picture(by_magnitude, "Scatter by magnitude"),
        ),
    )


def _trade_off(label: str, row: dict[str, Any]) -> figures.TradeOff:
    keys = ("slope_spec_z", "slope_spec_z_spread", "total_variation", "total_variation_spread")
    return figures.TradeOff(label, *(float(row[key]) for key in keys))
