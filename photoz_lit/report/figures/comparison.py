"""Figures that compare corrections by their numbers: what is best at what, and at which price."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from photoz_lit.report.figures.style import (
    FULL_WIDTH,
    GREY,
    PROMINENT,
    STYLE,
    colour_of,
    edge_of,
    face_of,
    known_label,
    marker_of,
    size_of,
)
from photoz_lit.target import REDSHIFT, Target

# Even in lightness, for colour-blind readers too; without the yellow, which vanishes on white paper.
SCATTER_COLOURS = ListedColormap(
    matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1.0, 256)), name="scatter"
)
FINE = "#3c4043"


@dataclass(frozen=True)
class Score:
    """A number with its spread; the spread is NaN where it was not measured."""

    value: float
    spread: float


@dataclass(frozen=True)
class Standing:
    """The numbers of one correction.

    Parameters
    ----------
    label : str
        Name of the correction.
    slope_true, slope_estimate : Score
        Absolute slopes of the mean residual against truth and estimate.
    total_variation : Score
        Between the distributions of estimates and truth.
    residual_rms : Score
        Root mean square of the mean residuals in bins of the truth.
    sigma_mad : Score
        Scatter.
    """

    label: str
    slope_true: Score
    slope_estimate: Score
    total_variation: Score
    residual_rms: Score
    sigma_mad: Score


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points no other point beats, all coordinates being the better the smaller.

    Parameters
    ----------
    points : ndarray, shape (n, d)
        Points with a coordinate that is not finite are never among them.

    Returns
    -------
    ndarray, shape (n,)
        Equal points do not beat each other.
    """
    usable = np.isfinite(points).all(axis=1)
    others = points[usable]
    no_worse = (others[None] <= points[:, None]).all(axis=2)
    better = (others[None] < points[:, None]).any(axis=2)
    beaten = np.logical_and(no_worse, better).any(axis=1)
    return np.asarray(usable & ~beaten)


@matplotlib.rc_context(STYLE)
def figure_pareto(
    standings: Sequence[Standing], floor: float | None = None, target: Target = REDSHIFT
) -> Figure:
    """Draw mode collapse against tilt with the scatter as colour; a line joins those that none beats in both.

    Parameters
    ----------
    standings : sequence of Standing
        One a correction.
    floor : float, optional
        Total variation that remains without any mode collapse.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        The best place is the lower left corner, and dark blue the largest scatter.
    """
    shown = [s for s in standings if np.isfinite([s.slope_true.value, s.total_variation.value]).all()]
    figure = Figure(figsize=(FULL_WIDTH, 5.6))
    ax = figure.subplots()
    places = np.array([[s.slope_true.value, s.total_variation.value] for s in shown]).reshape(-1, 2)
    best = non_dominated(places)
    scatter = np.array([s.sigma_mad.value for s in shown])
    norm = _norm(scatter)
    front = places[best][np.argsort(places[best][:, 0])]
    # Between two corrections on the front nothing is known: steps claim no more than the points do.
    ax.step(front[:, 0], front[:, 1], where="post", color=FINE, linewidth=1.2, linestyle=":", zorder=1)
    for s, own, on_front in zip(shown, scatter, best, strict=True):
        colour = SCATTER_COLOURS(norm(own)) if np.isfinite(own) else GREY
        _bars(ax, s.slope_true, s.total_variation)
        ax.plot(
            s.slope_true.value,
            s.total_variation.value,
            marker_of(s.label),
            color=colour,
            markersize=size_of(s.label, 10),
            markeredgecolor="black" if on_front else "white",
            markeredgewidth=1.3 if on_front else 0.6,
            zorder=4 if on_front else 3,
        )
    if floor is not None and np.isfinite(floor):
        ax.axhline(floor, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        ax.annotate(
            f"floor {floor:.3f}",
            (1.0, floor),
            xycoords=("axes fraction", "data"),
            xytext=(-2, -3),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=9,
            color=GREY,
        )
    ax.set_xlabel(rf"|slope| of $\langle{target.delta_math}\rangle$ against ${target.true_math}$   (tilt)")
    ax.set_ylabel(f"total variation of {target.n_of}   (mode collapse)")
    ax.set(xlim=(0.0, None), ylim=(0.0, None))
    figure.colorbar(
        ScalarMappable(norm, SCATTER_COLOURS),
        ax=ax,
        label=r"scatter $\sigma_\mathrm{MAD}$" + target.residual_unit_text,
        aspect=30,
        pad=0.01,
    )
    spreads = np.array([[s.slope_true.spread, s.total_variation.spread] for s in shown]).reshape(-1, 2)
    _name_points(ax, places, np.nan_to_num(spreads), [s.label for s in shown], best)
    return figure


def _norm(values: NDArray[np.float64]) -> Normalize:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + max(abs(low), 1e-9) / 10)


def _bars(ax: Axes, x: Score, y: Score, colour: str = "#8a9096") -> None:
    """Draw error bars that stop at zero: neither coordinate can be negative."""
    errors = [
        [[min(s.spread, s.value)], [s.spread]] if np.isfinite(s.spread) else [[0.0], [0.0]] for s in (x, y)
    ]
    ax.errorbar(
        x.value, y.value, xerr=errors[0], yerr=errors[1], fmt="none", ecolor=colour, elinewidth=1.0, zorder=2
    )


def _name_points(
    ax: Axes,
    places: NDArray[np.float64],
    spreads: NDArray[np.float64],
    names: Sequence[str],
    strong: NDArray[np.bool_],
) -> None:
    """Write each point's name where it covers no point, bar or name, with a fine line where it is far."""
    figure = ax.figure.figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()  # fixes the layout, which the placing below takes as it is
    to_pixels, unit = ax.transData, figure.dpi / 72
    points = to_pixels.transform(places)
    taken = np.hstack([points - 7 * unit, points + 7 * unit])
    for axis in (0, 1):
        bar = spreads * (np.arange(2) == axis)
        low, high = (to_pixels.transform(places + side * bar) + side * 1.5 * unit for side in (-1, 1))
        taken = np.vstack([taken, np.hstack([low, high])])
    # Crowded points choose last: those at the rim leave them their place.
    room = np.array(ax.get_window_extent().extents)
    distance = np.sort(np.linalg.norm(points[:, None] - points[None], axis=2), axis=1)
    for i in np.argsort(-distance[:, :4].sum(axis=1), kind="stable"):
        text = ax.text(0, 0, names[i], fontsize=9, fontweight="bold" if strong[i] else "normal", zorder=6)
        text.set_color("black" if strong[i] else FINE)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # legible on top of lines
        text.set_in_layout(False)  # a name at the rim must not move what it was placed by
        size = text.get_window_extent()
        box = _free_place(points[i], np.array([size.width, size.height]), unit, taken, room)
        taken = np.vstack([taken, box])
        text.set_position(tuple(to_pixels.inverted().transform(box[:2])))
        text.set_verticalalignment("bottom")
        near = np.clip(points[i], box[:2], box[2:])
        if np.linalg.norm(near - points[i]) > 12 * unit:
            ends = to_pixels.inverted().transform([points[i], near])
            ax.plot(ends[:, 0], ends[:, 1], color="#9aa0a6", linewidth=0.7, zorder=1.5)


def _free_place(
    point: NDArray[np.float64],
    size: NDArray[np.float64],
    unit: float,
    taken: NDArray[np.float64],
    room: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the box of a size near a point that covers least of what is taken and leaves the room least.

    Boxes are (left, lower, right, upper) in pixels, `taken` of shape (n, 4).
    """
    angles = np.deg2rad((0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240))
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = np.repeat((9.0, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0), len(steps)) * unit
    steps = np.tile(steps, (7, 1))
    middles = point + steps * (reach[:, None] + size / 2)
    boxes = np.hstack([middles - size / 2, middles + size / 2])
    outside = size.prod() - _overlap(boxes, room[None])[:, 0]
    cost = _overlap(boxes, taken).sum(axis=1) + outside + 0.02 * reach * size[1]
    best: NDArray[np.float64] = boxes[np.argmin(cost)]
    return best


def _overlap(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the area that each box, (m, 4), shares with each of others, (n, 4): shape (m, n)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: NDArray[np.float64] = np.maximum(high - low, 0.0).prod(axis=2)
    return shared


@matplotlib.rc_context(STYLE)
def figure_biases(standings: Sequence[Standing], target: Target = REDSHIFT) -> Figure:
    """Draw bias against scatter, and the two views of bias against each other.

    Parameters
    ----------
    standings : sequence of Standing
        One a correction.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        Two panels with one legend below; the best place of both is the lower left corner.
    """
    longest = max((len(s.label) for s in standings), default=1)
    columns = int(np.clip(130 // (longest + 8), 1, 7))  # of the legend: 130 letters fit the width
    figure = Figure(figsize=(FULL_WIDTH, 4.6 + 0.21 * -(-len(standings) // columns)))
    left, right = figure.subplots(1, 2)
    for s in standings:
        for ax, x, y in ((left, s.residual_rms, s.sigma_mad), (right, s.slope_true, s.slope_estimate)):
            _bars(ax, x, y, colour_of(s.label))
            ax.plot(
                x.value,
                y.value,
                marker_of(s.label),
                linestyle="none",
                color=colour_of(s.label),
                markersize=size_of(s.label, 9),
                markerfacecolor=face_of(s.label),
                markeredgecolor=edge_of(s.label),
                markeredgewidth=0.7,
                label=s.label,
                zorder=5 if known_label(s.label) in PROMINENT else 3,
            )
    left.set_title("Bias and scatter")
    rms = rf"rms of $\langle{target.delta_math}\rangle$ over bins of ${target.true_math}$"
    left.set_xlabel(rms + target.residual_unit_text)
    left.set_ylabel(r"scatter $\sigma_\mathrm{MAD}$" + target.residual_unit_text)
    right.set_title("The two views of bias")
    right.set_xlabel(f"individual: |slope| against ${target.true_math}$")
    right.set_ylabel(f"bulk: |slope| against ${target.estimated_math}$")
    left.set_xlim(left=0.0)
    left.xaxis.set_major_locator(MaxNLocator(6))
    right.set(xlim=(0.0, None), ylim=(0.0, None))
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=columns, columnspacing=1.2)
    return figure
