"""Figures of a classifier's labels, from the arrays that its run folder holds: subset, dispersions, labels.

`counts.npz` has `before` and `after`, galaxies per (r slice, bin of the truth), shape (S, K), of the training
set and of the balanced subset. `labels.npz`, with R outputs and J bins of p(z), has `spec_z_hist` and
`photo_z_hist` (R, K), `sigma_dispersion` (R,) in bins, `counts` (S, K), `mean` (S, K, R) of the shifted
labels in bins, `membership` (S, R), `edges` (J + 1,), `examples` (3, J) and `example_cells` (3, 2).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from photoz_lit.dispersion import convolve
from photoz_lit.files import beside, read_arrays
from photoz_lit.report.figures import style
from photoz_lit.report.figures.style import STYLE, note, number, panels
from photoz_lit.report.runs import Survey

R_MAG = r"dereddened Petrosian $r$  [mag]"

Arrays = Mapping[str, NDArray[Any]]


def draw_labels(folder: Path, survey: Survey) -> None:
    """Draw the figures of a run folder into it, where their arrays are there and they are not."""
    for name, (source, draw) in FIGURES.items():
        path, arrays = folder / name, folder / source
        if arrays.is_file() and not path.is_file():
            with beside(path) as part:
                draw(read_arrays(arrays), survey).savefig(part, dpi=150)


@matplotlib.rc_context(STYLE)
def figure_counts(arrays: Arrays, survey: Survey) -> Figure:
    """Draw the number of galaxies per cell before and after balancing, and the n(z) of both."""
    before, after, target = arrays["before"], arrays["after"], survey.target
    edges, slices = survey.grid.edges, survey.slices.edges
    figure = Figure(figsize=(style.FULL_WIDTH, 3.4), layout=ConstrainedLayoutEngine(wspace=0.04))
    *maps, profile = figure.subplots(1, 3, width_ratios=[1, 1, 0.95])
    norm = LogNorm(1.0, max(2.0, float(before.max())))
    kinds = (("Training set", before, style.GREY), ("Balanced subset", after, style.SKY))
    for ax, (title, counts, colour) in zip(maps, kinds, strict=True):
        cells = np.ma.masked_equal(counts, 0)
        mesh = ax.pcolormesh(edges, slices, cells, norm=norm, cmap=style.DENSITY, rasterized=True)
        ax.set_title(f"{title}: {int(counts.sum()):,} galaxies")
        ax.set(xlabel=target.true_axis, ylabel=R_MAG)
        ax.grid(visible=False)
        profile.stairs(counts.sum(axis=0), edges, color=colour, linewidth=1.5, label=title.lower())
    figure.colorbar(mesh, ax=maps, label="galaxies per cell", aspect=30, pad=0.02)
    profile.set_title(target.n_of)
    profile.set(xlabel=target.true_axis, ylabel="galaxies per bin", yscale="log", ylim=(0.7, None))
    profile.legend(loc="lower center")
    return figure


@matplotlib.rc_context(STYLE)
def figure_dispersions(arrays: Arrays, survey: Survey) -> Figure:
    """Draw, per output, how a Gaussian turns the piled-up photo_z back into the n(z) of spec_z."""
    grid, target, sigma = survey.grid, survey.target, arrays["sigma_dispersion"]
    figure, axes = panels([f"Output {i + 1}" for i in range(sigma.size)], 2.3, columns=3, share_y=False)
    for i, ax in enumerate(axes):
        histograms = (arrays[name][i] for name in ("spec_z_hist", "photo_z_hist"))
        spec, photo = (h / max(float(h.sum()), 1.0) for h in histograms)
        spread = convolve(photo, float(sigma[i]))
        ax.stairs(spec, grid.edges, fill=True, color=style.LIGHT, label=target.true)
        ax.stairs(photo, grid.edges, color=style.PINK, linewidth=0.9, label=target.estimated)
        ax.stairs(spread, grid.edges, color=style.BLUE, linewidth=2.0, label=f"{target.estimated}, convolved")
        ax.set_ylim(0.0, max(3.0 * float(spec.max()), 1e-9))
        note(ax, rf"$\sigma_1$ = {sigma[i]:.2f} bins = {sigma[i] * grid.width:.4f}", x=0.97)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3)
    figure.supxlabel(f"{target.label}{target.unit_text}")
    figure.supylabel("fraction of galaxies per bin")
    return figure


@matplotlib.rc_context(STYLE)
def figure_labels(arrays: Arrays, survey: Survey) -> Figure:
    """Draw the labels of a few cells and how far each moved from its one-hot bin."""
    grid, target, edges = survey.grid, survey.target, arrays["edges"]
    examples, cells = arrays["examples"], arrays["example_cells"]
    lower, width = survey.slices.edges, survey.slices.width
    named = [(lower[i], float(grid.centres[k])) for i, k in cells.tolist()]
    titles = [f"r {r:g}-{r + width:g}, {target.column} {original:.3f}" for r, original in named]
    figure, axes = panels(titles, 2.5, columns=3, share_y=False)
    ends, centres = (float(edges[0]), float(edges[-1])), (edges[1:] + edges[:-1]) / 2
    for ax, label, (_, original) in zip(axes, examples, named, strict=True):
        shift = float(label @ centres / label.sum()) - original
        for outside in ((ends[0], grid.z_min), (grid.z_max, ends[1])):
            ax.axvspan(*outside, color="#f1f3f4", zorder=0)
        ax.stairs(label, edges, fill=True, color=style.BLUE, alpha=0.45)
        ax.stairs(label, edges, color=style.BLUE, linewidth=1.2)
        ax.axvline(original, color=style.VERMILION, linewidth=1.5, linestyle="--")
        ax.set(xlim=ends, ylim=(0.0, 1.3 * float(label.max())))
        text = f"shift {number(shift, 3, signed=True)} in {target.symbol}"
        note(ax, text, x=0.97 if original < sum(ends) / 2 else 0.03)
    key = f"(dashed: the galaxy's {target.true}, shaded: beyond the survey)"
    figure.supxlabel(f"{target.label}{target.unit_text}   {key}")
    figure.supylabel("label per bin")
    return figure


@matplotlib.rc_context(STYLE)
def figure_shift(arrays: Arrays, survey: Survey) -> Figure:
    """Draw how far labels are shifted against spec_z, a panel an output, a line a slice of r."""
    grid, target, mean = survey.grid, survey.target, arrays["mean"]
    n_slices, n_bins, n_outputs = mean.shape
    shift = (mean - np.arange(n_bins)[None, :, None]) * grid.width
    figure, axes = panels([f"Output {i + 1}" for i in range(n_outputs)], 2.3, columns=3)
    if n_outputs < 3:
        figure.set_figwidth(figure.get_figwidth() + 1.0)  # for the colour bar
    colours = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.08, 1.0, n_slices)))
    for i, ax in enumerate(axes):
        ax.axhline(0.0, color=style.INK, linewidth=1.0)
        for s in np.flatnonzero(arrays["membership"][:, i]):
            line = np.where(arrays["counts"][s] > 0, shift[s, :, i], np.nan)
            ax.plot(grid.centres, line, color=colours(int(s)), marker=".", markersize=3, linewidth=1.3)
    scale = ScalarMappable(BoundaryNorm(survey.slices.edges, n_slices), colours)
    figure.colorbar(scale, ax=axes, label=R_MAG, aspect=35, pad=0.01)
    figure.supxlabel(target.true_axis)
    figure.supylabel(f"shift of the label in {target.symbol}{target.unit_text}")
    return figure


FIGURES: dict[str, tuple[str, Callable[[Arrays, Survey], Figure]]] = {
    "counts.png": ("counts.npz", figure_counts),
    "dispersions.png": ("labels.npz", figure_dispersions),
    "labels.png": ("labels.npz", figure_labels),
    "shift.png": ("labels.npz", figure_shift),
}
