"""Figure of calibrated estimates: what the calibration cures, and what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from photoz_lit.report.figures.style import FULL_WIDTH, GREY, STYLE, colour_of, marker_of, size_of
from photoz_lit.target import REDSHIFT, Target


@dataclass(frozen=True)
class BeforeAfter:
    """Numbers of one correction before and after its calibration, each a pair.

    Parameters
    ----------
    label : str
        Name of the correction.
    title : str
        What is written beside it.
    bulk : (float, float)
        Mean abs of the mean residual in bins of the estimate.
    slope_true : (float, float)
        Absolute slope of the mean residual against the truth.
    """

    label: str
    title: str
    bulk: tuple[float, float]
    slope_true: tuple[float, float]


@matplotlib.rc_context(STYLE)
def figure_calibrated(products: Sequence[BeforeAfter], target: Target = REDSHIFT) -> Figure:
    """Draw both views of bias before (open) and after (filled) calibration, a line a product.

    Parameters
    ----------
    products : sequence of BeforeAfter
        Calibrated estimates.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        Left the bulk bias, which calibration cures; right the individual bias, which it brings back.
    """
    figure = Figure(figsize=(FULL_WIDTH, 1.25 + 0.34 * len(products)))
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, key in ((left, "bulk"), (right, "slope_true")):
        for i, product in enumerate(products):
            colour, (before, after) = colour_of(product.label), getattr(product, key)
            ax.annotate(
                "", (after, i), (before, i), arrowprops={"arrowstyle": "->", "color": GREY, "shrinkB": 6}
            )
            mark, size = marker_of(product.label), size_of(product.label, 8)
            ax.plot(before, i, mark, color=colour, markersize=size, markerfacecolor="white")
            ax.plot(after, i, mark, color=colour, markersize=size)
        ax.set_xlim(left=0.0)
        ax.margins(x=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    left.set_yticks(range(len(products)), [p.title for p in products])
    left.set_ylim(len(products) - 0.5, -0.5)
    left.set_ylabel("calibrated")
    mean = rf"|\langle{target.delta_math}\rangle|"
    left.set_xlabel(rf"mean ${mean}$ in bins of ${target.estimated_math}${target.residual_unit_text}")
    right.set_xlabel(f"|slope| against ${target.true_math}$")
    left.set_title("Bulk bias")
    right.set_title("Individual bias")
    return figure
