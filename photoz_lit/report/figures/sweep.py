"""Figure of a sweep: how bias, mode collapse, scatter and the quality of p(z) follow one setting."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from photoz_lit.report.figures.style import FULL_WIDTH, GREY, STYLE, mark
from photoz_lit.report.sweeps import Line, Sweep
from photoz_lit.target import REDSHIFT, Target


@matplotlib.rc_context(STYLE)
def figure_sweep(
    sweep: Sweep,
    lines: Sequence[Line],
    floor: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None,
    target: Target = REDSHIFT,
) -> Figure:
    """Draw tilt, mode collapse, scatter and CRPS against a setting, one line a correction.

    Corrections that the setting does not touch are dashed lines; `floor` has places on the axis, and the
    total variation that remains there without mode collapse.
    """
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
    if floor is not None:
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
