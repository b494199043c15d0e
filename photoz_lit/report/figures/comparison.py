"""Figures that compare corrections by their numbers: what is best at what, at which price, and along sweeps.

`rows` are those of `corrections_table`; slopes are drawn by their absolute values.
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
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, ScalarFormatter

from photoz_lit.grids import Bools, Floats
from photoz_lit.report.figures.style import FULL_WIDTH, GREY, INK, PROMINENT, STYLE, known_label, mark
from photoz_lit.report.sweeps import Line, Sweep
from photoz_lit.report.table import Rows
from photoz_lit.target import REDSHIFT, Target

# Even in lightness, for colour-blind readers too; without the yellow, which vanishes on white paper.
SCATTER_COLOURS = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.1, 1.0, 256)))


def non_dominated(points: Floats) -> Bools:
    """Return which finite points (n, d) no other beats, smaller being better; equal ones do not beat."""
    usable = np.isfinite(points).all(axis=1)
    others = points[usable]
    no_worse = (others[None] <= points[:, None]).all(axis=2)
    better = (others[None] < points[:, None]).any(axis=2)
    beaten = np.logical_and(no_worse, better).any(axis=1)
    return np.asarray(usable & ~beaten)


@matplotlib.rc_context(STYLE)
def figure_pareto(rows: Rows, floor: float | None = None, target: Target = REDSHIFT) -> Figure:
    """Draw mode collapse against tilt, colour is scatter; a line joins those that none beats in both."""
    x, y = "slope_spec_z", "total_variation"
    shown = [row for row in rows if np.isfinite([row[x], row[y]]).all()]
    figure = Figure(figsize=(FULL_WIDTH, 5.6))
    ax = figure.subplots()
    places = np.array([[abs(row[x]), row[y]] for row in shown]).reshape(-1, 2)
    best = non_dominated(places)
    scatters = [row["sigma_mad"] for row in shown if np.isfinite(row["sigma_mad"])] or [0.0, 1.0]
    low, high = min(scatters), max(scatters)
    norm = Normalize(low, high if high > low else low + max(abs(low), 1e-9) / 10)
    front = places[best][np.argsort(places[best][:, 0])]
    # Between two corrections on the front nothing is known: steps claim no more than the points do.
    ax.step(front[:, 0], front[:, 1], where="post", color=INK, linewidth=1.2, linestyle=":", zorder=1)
    for row, place, on_front in zip(shown, places, best, strict=True):
        colour = SCATTER_COLOURS(norm(row["sigma_mad"])) if np.isfinite(row["sigma_mad"]) else GREY
        edge, width, zorder = ("black", 1.3, 4) if on_front else ("white", 0.6, 3)
        look = mark(row["label"], 10) | {"color": colour, "markerfacecolor": colour}
        _bars(ax, row, x, y)
        ax.plot(*place, **look | {"markeredgecolor": edge, "markeredgewidth": width}, zorder=zorder)
    if floor is not None and np.isfinite(floor):
        ax.axhline(floor, color=GREY, linewidth=1.2, linestyle="--", zorder=0)
        end = ax.get_yaxis_transform()
        name = ax.annotate(f"floor {floor:.3f}", (1.0, floor), (-2, -3), end, "offset points", color=GREY)
        name.set(horizontalalignment="right", verticalalignment="top", fontsize=9)
    ax.set_xlabel(rf"|slope| of $\langle{target.delta_math}\rangle$ against ${target.true_math}$   (tilt)")
    ax.set_ylabel(f"total variation of {target.n_of}   (mode collapse)")
    ax.set(xlim=(0.0, None), ylim=(0.0, None))
    scatter = r"scatter $\sigma_\mathrm{MAD}$" + target.residual_unit_text
    figure.colorbar(ScalarMappable(norm, SCATTER_COLOURS), ax=ax, label=scatter, aspect=30, pad=0.01)
    spreads = np.array([[row[f"{x}_spread"], row[f"{y}_spread"]] for row in shown]).reshape(-1, 2)
    _name_points(ax, places, np.nan_to_num(spreads), [row["label"] for row in shown], best)
    return figure


def _bars(ax: Axes, row: dict[str, Any], x: str, y: str, colour: str = "#8a9096") -> None:
    """Draw error bars that stop at zero: neither coordinate can be negative."""
    values = [abs(row[key]) for key in (x, y)]
    spreads = [float(np.nan_to_num(row[f"{key}_spread"])) for key in (x, y)]
    xerr, yerr = ([[min(s, value)], [s]] for value, s in zip(values, spreads, strict=True))
    ax.errorbar(values[0], values[1], yerr, xerr, fmt="none", ecolor=colour, elinewidth=1.0, zorder=2)


def _name_points(ax: Axes, places: Floats, spreads: Floats, names: Sequence[str], strong: Bools) -> None:
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


def _free_place(point: Floats, size: Floats, unit: float, taken: Floats, room: Floats) -> Floats:
    """Return the box of a size near a point that covers least of what is taken and leaves the room least."""
    # Boxes are (left, lower, right, upper) in pixels, those taken (n, 4).
    angles = np.deg2rad((0, 180, 90, 270, 30, 330, 150, 210, 60, 300, 120, 240))
    steps = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = np.repeat((9.0, 14.0, 22.0, 32.0, 44.0, 58.0, 74.0), len(steps)) * unit
    steps = np.tile(steps, (7, 1))
    middles = point + steps * (reach[:, None] + size / 2)
    boxes = np.hstack([middles - size / 2, middles + size / 2])
    outside = size.prod() - _overlap(boxes, room[None])[:, 0]
    cost = _overlap(boxes, taken).sum(axis=1) + outside + 0.02 * reach * size[1]
    return np.asarray(boxes[np.argmin(cost)])


def _overlap(boxes: Floats, others: Floats) -> Floats:
    """Return the area that each box, (m, 4), shares with each of others, (n, 4): shape (m, n)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.maximum(high - low, 0.0).prod(axis=2))


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
    rms = rf"rms of $\langle{target.delta_math}\rangle$ over bins of ${target.true_math}$"
    scatter = r"scatter $\sigma_\mathrm{MAD}$" + target.residual_unit_text
    left.set(title="Bias and scatter", xlabel=rms + target.residual_unit_text, ylabel=scatter)
    left.set_xlim(left=0.0)
    left.xaxis.set_major_locator(MaxNLocator(6))
    individual = f"individual: |slope| against ${target.true_math}$"
    bulk = f"bulk: |slope| against ${target.estimated_math}$"
    right.set(title="The two views of bias", xlabel=individual, ylabel=bulk, xlim=(0, None), ylim=(0, None))
    handles, names = left.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=columns, columnspacing=1.2)
    return figure


@matplotlib.rc_context(STYLE)
def figure_calibrated(before: Rows, after: Rows, target: Target = REDSHIFT) -> Figure:
    """Draw both views of bias before (open) and after (filled) calibration, a line a product."""
    figure = Figure(figsize=(FULL_WIDTH, 1.25 + 0.34 * len(before)))
    left, right = figure.subplots(1, 2, sharey=True)
    for ax, key in ((left, "bulk_mean"), (right, "slope_spec_z")):
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            look, start, end = mark(old["correction"], 8), abs(old[key]), abs(new[key])
            arrow = {"arrowstyle": "->", "color": GREY, "shrinkB": 6}
            ax.annotate("", (end, i), (start, i), arrowprops=arrow)
            rim = {"markeredgecolor": look["color"], "markeredgewidth": 1.0}
            ax.plot(start, i, **look | rim | {"markerfacecolor": "white"})
            ax.plot(end, i, **look | rim | {"markerfacecolor": look["color"]})
        ax.set_xlim(left=0.0)
        ax.margins(x=0.08)
        ax.xaxis.set_major_locator(MaxNLocator(5))
    left.set_yticks(range(len(before)), [row["title"] for row in before])
    left.set_ylim(len(before) - 0.5, -0.5)
    mean = rf"|\langle{target.delta_math}\rangle|"
    bulk = rf"mean ${mean}$ in bins of ${target.estimated_math}${target.residual_unit_text}"
    left.set(title="Bulk bias", xlabel=bulk, ylabel="calibrated")
    right.set(title="Individual bias", xlabel=f"|slope| against ${target.true_math}$")
    return figure


@matplotlib.rc_context(STYLE)
def figure_sweep(
    sweep: Sweep, lines: Sequence[Line], floor: tuple[Floats, Floats] | None = None, target: Target = REDSHIFT
) -> Figure:
    """Draw tilt, mode collapse, scatter and CRPS against a setting; dashed where it does not touch them."""
    figure = Figure(figsize=(FULL_WIDTH, 6.2))
    axes: list[Axes] = list(figure.subplots(2, 2, sharex=True).ravel())
    words = {
        "slope_spec_z": rf"|slope| against ${target.true_math}$",
        "total_variation": f"total variation of {target.n_of}",
        "sigma_mad": r"scatter $\sigma_\mathrm{MAD}$" + target.residual_unit_text,
        "crps": f"CRPS of {target.pdf}{target.unit_text}",
    }
    for ax, (key, name) in zip(axes, words.items(), strict=True):
        for line in lines:
            _draw_line(ax, line, key)
        ax.set_ylabel(name)
    if floor is not None:  # places on the axis, and the total variation without mode collapse
        axes[1].plot(*floor, color=GREY, linestyle=(0, (4, 2)), linewidth=1.2, marker="_", label="floor")
    for ax in axes[:2]:
        ax.set_ylim(bottom=0.0)
    _set_scale(axes, sweep, lines)
    # The panel without the floor gives the corrections in their order; the floor comes last.
    handles, names = axes[0].get_legend_handles_labels()
    handles += [h for h in axes[1].lines if h.get_label() == "floor"]
    figure.legend(handles, [*names, "floor"][: len(handles)], loc="outside right center")
    figure.supxlabel(sweep.label)
    return figure


def _draw_line(ax: Axes, line: Line, key: str) -> None:
    look = mark(line.label, 6)
    slope = key.startswith("slope")
    values = np.abs(line.numbers[key]) if slope else line.numbers[key]
    if line.x.size == 0:
        ax.axhline(float(values[0]), color=look["color"], linestyle="--", linewidth=1.3, label=line.label)
        return
    spread = np.nan_to_num(line.spreads[key])
    below = np.minimum(spread, values) if slope else spread
    ax.errorbar(line.x, values, [below, spread], **look, elinewidth=1.0, capsize=2.0, label=line.label)


def _set_scale(axes: Sequence[Axes], sweep: Sweep, lines: Sequence[Line]) -> None:
    places = np.unique(np.concatenate([line.x for line in lines]))
    for ax in axes:
        if sweep.scale == "category":
            ax.set_xticks(range(len(sweep.ticks)), sweep.ticks, rotation=0 if len(sweep.ticks) < 7 else 30)
            ax.set_xlim(-0.4, len(sweep.ticks) - 0.6)
        elif sweep.scale == "log":
            ax.set_xscale("log")
        if sweep.scale != "category" and 0 < places.size <= 9:
            # The values that were run, instead of round ones between them.
            ax.xaxis.set_major_locator(FixedLocator(places.tolist()))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
