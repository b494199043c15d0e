"""Figures of the mean residual: the tilt that unbalanced training causes, and its cure."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from photoz_lit.metrics import BinnedResiduals, LineFit
from photoz_lit.report.figures.style import (
    FULL_WIDTH,
    LIGHT,
    STYLE,
    colour_of,
    marker_of,
    note,
    panels,
    signed,
    size_of,
    symmetric_limit,
)
from photoz_lit.target import REDSHIFT, Target

FEW = 10  # galaxies; bins with fewer are not drawn, whatever the fit makes of them


@dataclass(frozen=True)
class Curve:
    """Mean residual of one correction in bins of redshift, and its straight line.

    Parameters
    ----------
    label : str
        Name of the correction.
    binned : BinnedResiduals
        Mean residual, its error and the number of galaxies per bin, each of shape (n_bins,).
    fit : LineFit
        Straight line through the bins.
    """

    label: str
    binned: BinnedResiduals
    fit: LineFit


def _drawn(binned: BinnedResiduals) -> NDArray[np.bool_]:
    """Return which bins hold enough galaxies to be drawn, shape (n_bins,)."""
    return np.asarray((binned.count >= FEW) & np.isfinite(binned.mean) & np.isfinite(binned.error))


def _residual_limit(curves: Sequence[Curve], target: Target) -> float:
    # Redshifts have a scale of their own; of another quantity, only its residuals tell it.
    least, most = (0.005, 0.08) if target.is_redshift else (1e-9, np.inf)
    return symmetric_limit([c.binned.mean[_drawn(c.binned)] for c in curves], at_least=least, at_most=most)


def _mean_residual(target: Target) -> str:
    return rf"mean residual $\langle{target.delta_math}\rangle$"


def _draw_curve(ax: Axes, curve: Curve, *, size: float, with_fit: bool = True) -> None:
    colour, use = colour_of(curve.label), _drawn(curve.binned)
    z = curve.binned.centre[use]
    text = rf"{curve.label}   slope {signed(curve.fit.slope)} $\pm$ {curve.fit.slope_error:.3f}"
    ax.errorbar(
        z,
        curve.binned.mean[use],
        curve.binned.error[use],
        fmt=marker_of(curve.label),
        color=colour,
        markersize=size_of(curve.label, size),
        markeredgecolor="white",
        markeredgewidth=0.4,
        elinewidth=0.8,
        label=text,
    )
    if with_fit and z.size and np.isfinite(curve.fit.slope):
        ax.plot(z, curve.fit.intercept + curve.fit.slope * z, color=colour, linewidth=2.0, alpha=0.75)


@matplotlib.rc_context(STYLE)
def figure_residuals(
    against_spec_z: Sequence[Curve], against_photo_z: Sequence[Curve], target: Target = REDSHIFT
) -> Figure:
    """Draw mean residuals against spec_z and against photo_z, side by side, with straight-line fits.

    Parameters
    ----------
    against_spec_z, against_photo_z : sequence of Curve
        The few corrections to compare, the same in both.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        Left what one host galaxy suffers, right what a tomographic bin suffers.
    """
    figure = Figure(figsize=(FULL_WIDTH, 4.5))
    left, right = figure.subplots(1, 2, sharey=True)
    sides = ((left, against_spec_z, target.true_axis), (right, against_photo_z, target.estimated_axis))
    limit = _residual_limit([*against_spec_z, *against_photo_z], target)
    for ax, curves, name in sides:
        ax.axhline(0.0, color="#3c4043", linewidth=1.0)
        for curve in curves:
            _draw_curve(ax, curve, size=5.0)
        ax.set(xlabel=name, ylim=(-limit, limit))
        # A legend below the axes never covers a point, whatever the slopes are.
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), handletextpad=0.4)
    left.set_title(f"Against {target.true}: one {'host ' if target.is_redshift else ''}galaxy")
    right.set_title(
        f"Against {target.estimated}: a {'tomographic bin' if target.is_redshift else 'selection'}"
    )
    between = ",  " if target.is_redshift else "\n"  # names of other quantities may be long
    left.set_ylabel(f"{_mean_residual(target)}{between}{target.definition_math}", fontsize=9.5)
    return figure


@matplotlib.rc_context(STYLE)
def figure_residual_panels(
    curves: Sequence[Curve],
    reference: Curve | None = None,
    *,
    against: str = "spec_z",
    target: Target = REDSHIFT,
) -> Figure:
    """Draw one panel a correction: its mean residual and line in front of the reference in grey.

    Parameters
    ----------
    curves : sequence of Curve
        The corrections, a panel each.
    reference : Curve, optional
        Drawn in grey behind every panel, usually the Baseline.
    against : {"spec_z", "photo_z"}
        Whether truth or estimate is on the horizontal axis.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        Small panels on shared axes.
    """
    figure, axes = panels(len(curves), 2.1)
    limit = _residual_limit([*curves, *([reference] if reference else [])], target)
    for ax, curve in zip(axes, curves, strict=True):
        ax.axhline(0.0, color="#3c4043", linewidth=1.0)
        if reference is not None:
            use = _drawn(reference.binned)
            ax.plot(reference.binned.centre[use], reference.binned.mean[use], color=LIGHT, linewidth=3.0)
        _draw_curve(ax, curve, size=3.6)
        ax.set_title(curve.label)
        ax.set_ylim(-limit, limit)
        # In the corner that the line turns away from.
        text = rf"slope {signed(curve.fit.slope)} $\pm$ {curve.fit.slope_error:.3f}"
        note(ax, text, x=0.97, y=0.96 if curve.fit.slope < 0 else 0.04)
    axis = target.true_axis if against == "spec_z" else target.estimated_axis
    figure.supxlabel(axis, fontsize=10.5)
    figure.supylabel(_mean_residual(target), fontsize=10.5)
    return figure
