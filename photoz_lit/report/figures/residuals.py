"""Figures of the mean residual: the tilt that unbalanced training causes, and its cure."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from photoz_lit.grids import Bools
from photoz_lit.metrics import BinnedResiduals, LineFit
from photoz_lit.report.figures.style import FULL_WIDTH, INK, LIGHT, STYLE, mark, note, number, panels
from photoz_lit.target import REDSHIFT, Target

FEW = 10  # galaxies; bins with fewer are not drawn, whatever the fit makes of them


@dataclass(frozen=True)
class Curve:
    """Mean residual of one correction in bins of truth or estimate, and the straight line through them."""

    label: str
    binned: BinnedResiduals
    fit: LineFit

    @property
    def drawn(self) -> Bools:
        """Which bins hold enough galaxies to be drawn, shape (n_bins,)."""
        b = self.binned
        return np.asarray((b.count >= FEW) & np.isfinite(b.mean) & np.isfinite(b.error))

    @property
    def slope(self) -> str:
        """The slope and its error, in words."""
        return rf"slope {number(self.fit.slope, 3, signed=True)} $\pm$ {number(self.fit.slope_error, 3)}"


def _limit(curves: Sequence[Curve], target: Target) -> float:
    # Redshifts have a scale of their own; of another quantity, only its residuals tell it.
    least, most = (0.005, 0.08) if target.is_redshift else (1e-9, np.inf)
    highest = max((float(np.abs(c.binned.mean[c.drawn]).max()) for c in curves if c.drawn.any()), default=0)
    return float(np.clip(1.12 * highest, least, most))


def _draw(ax: Axes, curve: Curve, size: float) -> None:
    look, b = mark(curve.label, size), curve.binned
    x = b.centre[curve.drawn]
    label = f"{curve.label}   {curve.slope}"
    mean, error = b.mean[curve.drawn], b.error[curve.drawn]
    ax.axhline(0.0, color=INK, linewidth=1.0, zorder=1)
    ax.errorbar(x, mean, error, **look, linestyle="none", elinewidth=0.8, label=label)
    if x.size and np.isfinite(curve.fit.slope):
        ax.plot(x, curve.fit.intercept + curve.fit.slope * x, color=look["color"], linewidth=2.0, alpha=0.75)


@matplotlib.rc_context(STYLE)
def figure_residuals(
    against_spec_z: Sequence[Curve], against_photo_z: Sequence[Curve], target: Target = REDSHIFT
) -> Figure:
    """Draw mean residuals of a few corrections with straight lines, against the truth and the estimate."""
    figure = Figure(figsize=(FULL_WIDTH, 4.5))
    left, right = figure.subplots(1, 2, sharey=True)
    limit = _limit([*against_spec_z, *against_photo_z], target)
    sides = (left, against_spec_z, target.true_axis), (right, against_photo_z, target.estimated_axis)
    for ax, curves, name in sides:
        for curve in curves:
            _draw(ax, curve, 5.0)
        ax.set(xlabel=name, ylim=(-limit, limit))
        # A legend below the axes never covers a point, whatever the slopes are.
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), handletextpad=0.4)
    one, many = ("host galaxy", "tomographic bin") if target.is_redshift else ("galaxy", "selection")
    left.set_title(f"Against {target.true}: one {one}")
    right.set_title(f"Against {target.estimated}: a {many}")
    between = ",  " if target.is_redshift else "\n"  # names of other quantities may be long
    mean = rf"mean residual $\langle{target.delta_math}\rangle$"
    left.set_ylabel(f"{mean}{between}{target.definition_math}", fontsize=9.5)
    return figure


@matplotlib.rc_context(STYLE)
def figure_residual_panels(curves: Sequence[Curve], reference: Curve, against: str, target: Target) -> Figure:
    """Draw a panel a correction, against what is named, in front of the reference's in grey."""
    figure, axes = panels([curve.label for curve in curves], 2.1)
    limit = _limit([*curves, reference], target)
    for ax, curve in zip(axes, curves, strict=True):
        behind = reference.drawn
        ax.plot(reference.binned.centre[behind], reference.binned.mean[behind], color=LIGHT, linewidth=3.0)
        _draw(ax, curve, 3.6)
        ax.set_ylim(-limit, limit)
        # In the corner that the line turns away from.
        note(ax, curve.slope, x=0.97, y=0.96 if curve.fit.slope < 0 else 0.04)
    figure.supxlabel(against)
    figure.supylabel(rf"mean residual $\langle{target.delta_math}\rangle$")
    return figure
