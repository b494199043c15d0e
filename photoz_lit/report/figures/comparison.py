"""Figures that compare corrections by their numbers: what is best at what, and at which price.

`rows` are those of `corrections_table`: under each key of `metrics.json` a number, under `<key>_spread` its
spread, which is NaN where it was not measured; slopes are drawn by their absolute values.
"""

from collections.abc import Sequence
from typing import Any

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
    INK,
    PROMINENT,
    STYLE,
    known_label,
    mark,
)
from photoz_lit.target import REDSHIFT, Target

Rows = Sequence[dict[str, Any]]

# Even in lightness, for colour-blind readers too; without the yellow, which vanishes on white paper.
SCATTER_COLOURS = ListedColormap(
    matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1.0, 256)), name="scatter"
)


def non_dominated(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points (n, d) no other point beats, all coordinates being the better the smaller.

    Equal points do not beat each other; a point with a coordinate that is not finite is never among them.
    """
    usable = np.isfinite(points).all(axis=1)
    others = points[usable]
    no_worse = (others[None] <= points[:, None]).all(axis=2)
    better = (others[None] < points[:, None]).any(axis=2)
    beaten = np.logical_and(no_worse, better).any(axis=1)
    return np.asarray(usable & ~beaten)


@matplotlib.rc_context(STYLE)
def figure_pareto(rows: Rows, floor: float | None = None, target: Target = REDSHIFT) -> Figure:
    """Draw mode collapse against tilt, colour is scatter; a line joins those that none beats in both.

    The best place is the lower left corner.
    """
    x, y = "slope_spec_z", "total_variation"
    shown = [row for row in rows if np.isfinite([row[x], row[y]]).all()]
    figure = Figure(figsize=(FULL_WIDTH, 5.6))
    ax = figure.subplots()
    places = np.array([[abs(row[x]), row[y]] for row in shown]).reshape(-1, 2)
    best = non_dominated(places)
    norm = _norm(np.array([row["sigma_mad"] for row in shown]))
    front = places[best][np.argsort(places[best][:, 0])]
    # Between two corrections on the front nothing is known: steps claim no more than the points do.
    ax.step(front[:, 0], front[:, 1], where="post", color=INK, linewidth=1.2, linestyle=":", zorder=1)
    for row, place, on_front in zip(shown, places, best, strict=True):
        colour = SCATTER_COLOURS(norm(row["sigma_mad"])) if np.isfinite(row["sigma_mad"]) else GREY
        rim = {
            "color": colour,
            "markerfacecolor": colour,
            "markeredgecolor": "black" if on_front else "white",
            "markeredgewidth": 1.3 if on_front else 0.6,
        }
        _bars(ax, row, x, y)
        ax.plot(*place, **mark(row["label"], 10) | rim, zorder=4 if on_front else 3)
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
    spreads = np.array([[row[f"{x}_spread"], row[f"{y}_spread"]] for row in shown]).reshape(-1, 2)
    _name_points(ax, places, np.nan_to_num(spreads), [row["label"] for row in shown], best)
    return figure


def _norm(values: NDArray[np.float64]) -> Normalize:
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return Normalize(low, high if high > low else low + max(abs(low), 1e-9) / 10)


def _bars(ax: Axes, row: dict[str, Any], x: str, y: str, colour: str = "#8a9096") -> None:
    """Draw error bars that stop at zero: neither coordinate can be negative."""
    values = [abs(row[key]) for key in (x, y)]
    spreads = [float(np.nan_to_num(row[f"{key}_spread"])) for key in (x, y)]
    xerr, yerr = ([[min(s, value)], [s]] for value, s in zip(values, spreads, strict=True))
    ax.errorbar(values[0], values[1], yerr, xerr, fmt="none", ecolor=colour, elinewidth=1.0, zorder=2)


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
        text.set_color("black" if strong[i] else INK)
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
def figure_biases(rows: Rows, target: Target = REDSHIFT) -> Figure:
    """Draw bias against scatter, and the two views of bias; the lower left corner is the best of both."""
    longest = max((len(row["label"]) for row in rows), default=1)
    columns = int(np.clip(130 // (longest + 8), 1, 7))  # of the legend: 130 letters fit the width
    figure = Figure(figsize=(FULL_WIDTH, 4.6 + 0.21 * -(-len(rows) // columns)))
    left, right = figure.subplots(1, 2)
    for row in rows:
        label = row["label"]
        look = mark(label, 9) | {"linestyle": "none", "zorder": 5 if known_label(label) in PROMINENT else 3}
        for ax, x, y in ((left, "residual_rms", "sigma_mad"), (right, "slope_spec_z", "slope_photo_z")):
            _bars(ax, row, x, y, look["color"])
            ax.plot(abs(row[x]), abs(row[y]), **look, label=label)
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


@matplotlib.rc_context(STYLE)
def figure_calibrated(before: Rows, after: Rows, target: Target = REDSHIFT) -> Figure:
    """Draw both views of bias before (open) and after (filled) calibration, a line a product.

    Left the bulk bias, which calibration cures; right the individual bias, which it brings back.
    """
    figure = Figure(figsize=(FULL_WIDTH, 1.25 + 0.34 * len(before)))
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, key in ((left, "bulk_mean"), (right, "slope_spec_z")):
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            look, start, end = mark(old["correction"], 8), abs(old[key]), abs(new[key])
            ax.annotate(
                "", (end, i), (start, i), arrowprops={"arrowstyle": "->", "color": GREY, "shrinkB": 6}
            )
            rim = {"markeredgecolor": look["color"], "markeredgewidth": 1.0}
            ax.plot(start, i, **look | rim | {"markerfacecolor": "white"})
            ax.plot(end, i, **look | rim | {"markerfacecolor": look["color"]})
        ax.set_xlim(left=0.0)
        ax.margins(x=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    left.set_yticks(range(len(before)), [row["title"] for row in before])
    left.set_ylim(len(before) - 0.5, -0.5)
    left.set_ylabel("calibrated")
    mean = rf"|\langle{target.delta_math}\rangle|"
    left.set_xlabel(rf"mean ${mean}$ in bins of ${target.estimated_math}${target.residual_unit_text}")
    right.set_xlabel(f"|slope| against ${target.true_math}$")
    left.set_title("Bulk bias")
    right.set_title("Individual bias")
    return figure
