"""Figures of the classifier stage: the balanced subset, the dispersions, the labels and their shift."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import NDArray

from photoz_lit.dispersion import convolve
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.report.figures.style import (
    COLOURS,
    DENSITY,
    FULL_WIDTH,
    GREY,
    LIGHT,
    STYLE,
    note,
    panels,
    signed,
)
from photoz_lit.target import REDSHIFT, Target

R_MAG = r"dereddened Petrosian $r$  [mag]"


@matplotlib.rc_context(STYLE)
def figure_counts(
    counts_before: NDArray[np.int64],
    counts_after: NDArray[np.int64],
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    target: Target = REDSHIFT,
) -> Figure:
    """Draw the number of galaxies per (spec_z bin, r slice), before and after balancing.

    Parameters
    ----------
    counts_before, counts_after : ndarray, shape (K, n_slices)
        Galaxies per cell in the training set and in the balanced subset.
    grid : RedshiftGrid
        The survey's redshift bins.
    slices : MagnitudeSlices
        The slices of r.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        Two maps of the cells on one logarithmic scale, and the n(z) of both.
    """
    edges = grid.extended(0, 0).edges
    figure = Figure(figsize=(FULL_WIDTH, 3.4), layout=ConstrainedLayoutEngine(wspace=0.04))
    before, after, profile = figure.subplots(1, 3, width_ratios=[1, 1, 0.95])
    norm = LogNorm(1.0, max(2.0, float(counts_before.max())))
    for ax, counts, title in (
        (before, counts_before, "Training set"),
        (after, counts_after, "Balanced subset"),
    ):
        shown = np.ma.masked_equal(counts.T, 0)
        mesh = ax.pcolormesh(edges, slices.edges, shown, norm=norm, cmap=DENSITY, rasterized=True)
        ax.set_title(f"{title}: {int(counts.sum()):,} galaxies")
        ax.set(xlabel=target.true_axis, ylabel=R_MAG)
        ax.grid(visible=False)
    figure.colorbar(mesh, ax=[before, after], label="galaxies per cell", aspect=30, pad=0.02)
    for counts, colour, name in (
        (counts_before, GREY, "training set"),
        (counts_after, COLOURS["balanced"], "balanced subset"),
    ):
        profile.stairs(counts.sum(axis=1), edges, color=colour, linewidth=1.5, label=name)
    profile.set_title(target.n_of)
    profile.set(xlabel=target.true_axis, ylabel="galaxies per bin", yscale="log", ylim=(0.7, None))
    profile.legend(loc="lower center")
    return figure


@matplotlib.rc_context(STYLE)
def figure_dispersions(
    spec_z_hist: NDArray[np.float64],
    photo_z_hist: NDArray[np.float64],
    sigma: NDArray[np.float64],
    grid: RedshiftGrid,
    target: Target = REDSHIFT,
) -> Figure:
    """Draw, per output, how a Gaussian turns the piled-up photo_z back into the n(z) of spec_z.

    Parameters
    ----------
    spec_z_hist, photo_z_hist : ndarray, shape (K, R)
        Histograms over the slices of each output, on the survey's bins.
    sigma : ndarray, shape (R,)
        Fitted dispersion of each output, bins.
    grid : RedshiftGrid
        The survey's redshift bins.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        One panel an output.
    """
    edges = grid.extended(0, 0).edges
    figure, axes = panels(sigma.size, 2.3, columns=3, share_y=False)
    figure.set_figwidth(FULL_WIDTH if sigma.size >= 3 else figure.get_figwidth())
    for i, ax in enumerate(axes):
        spec, photo = (h[:, i] / max(float(h[:, i].sum()), 1.0) for h in (spec_z_hist, photo_z_hist))
        ax.stairs(spec, edges, fill=True, color=LIGHT, label=target.true)
        ax.stairs(photo, edges, color=COLOURS["hard"], linewidth=0.9, label=target.estimated)
        ax.stairs(
            convolve(photo, float(sigma[i])),
            edges,
            color=COLOURS["full"],
            linewidth=2.0,
            label=f"{target.estimated}, convolved",
        )
        ax.set_title(f"Output {i + 1}")
        ax.set_ylim(0.0, max(3.0 * float(spec.max()), 1e-9))
        note(ax, rf"$\sigma_1$ = {sigma[i]:.2f} bins = {sigma[i] * grid.width:.4f}", x=0.97)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=3)
    figure.supxlabel(f"{target.label}{target.unit_text}", fontsize=10.5)
    figure.supylabel("fraction of galaxies per bin", fontsize=10.5)
    return figure


@matplotlib.rc_context(STYLE)
def figure_labels(
    grid: RedshiftGrid,
    labels: Sequence[tuple[str, NDArray[np.floating[Any]]]],
    bins: Sequence[int] | NDArray[np.int64],
    target: Target = REDSHIFT,
) -> Figure:
    """Draw the label vectors of a few cells, and how far each moved from its one-hot bin.

    Parameters
    ----------
    grid : RedshiftGrid
        The bins of the outputs, extension included.
    labels : sequence of (title, label)
        A cell's title and its label vector of shape (n_outputs,).
    bins : sequence of int
        The bin of spec_z of each cell, in the survey's K bins.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        One panel a cell; the redshifts beyond the survey's limits are shaded.
    """
    columns = 3 if len(labels) % 3 == 0 else 4
    figure, axes = panels(len(labels), 2.5, columns=columns, share_y=False)
    figure.set_figwidth(FULL_WIDTH if len(labels) >= 3 else figure.get_figwidth())
    ends = float(grid.edges[0]), float(grid.edges[-1])
    for ax, (title, label), original in zip(axes, labels, bins, strict=True):
        z_original = float(grid.centres[grid.extend_left + original])
        shift = float(label @ grid.centres / label.sum()) - z_original
        for outside in ((ends[0], grid.z_min), (grid.z_max, ends[1])):
            ax.axvspan(*outside, color="#f1f3f4", zorder=0)
        ax.stairs(label, grid.edges, fill=True, color=COLOURS["full"], alpha=0.45)
        ax.stairs(label, grid.edges, color=COLOURS["full"], linewidth=1.2)
        ax.axvline(z_original, color=COLOURS["Baseline"], linewidth=1.5, linestyle="--")
        ax.set_title(title)
        ax.set(xlim=ends, ylim=(0.0, 1.3 * float(label.max())))
        note(
            ax,
            f"shift {signed(shift)} in {target.symbol}",
            x=0.97 if z_original < (ends[0] + ends[1]) / 2 else 0.03,
        )
    key = f"(dashed: the galaxy's {target.true}, shaded: beyond the survey)"
    figure.supxlabel(f"{target.label}{target.unit_text}   {key}", fontsize=10.5)
    figure.supylabel("label per bin", fontsize=10.5)
    return figure


@matplotlib.rc_context(STYLE)
def figure_shift(
    mean: NDArray[np.float64],
    membership: NDArray[np.bool_],
    grid: RedshiftGrid,
    occupied: NDArray[np.bool_],
    slices: MagnitudeSlices,
    target: Target = REDSHIFT,
) -> Figure:
    """Draw how far labels are shifted in redshift, against spec_z, per output and slice of r.

    Parameters
    ----------
    mean : ndarray, shape (n_slices, K, R)
        Mean of the shifted label, in bins of the survey (0 to K - 1 inside it).
    membership : ndarray, shape (n_slices, R)
        Which output covers which slice.
    grid : RedshiftGrid
        The survey's redshift bins.
    occupied : ndarray, shape (n_slices, K)
        Cells that hold training galaxies; the others are not drawn.
    slices : MagnitudeSlices
        The slices of r, which give the lines their colours.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        One panel an output; above zero, labels move to higher redshift.
    """
    n_slices, n_bins, n_outputs = mean.shape
    centres = grid.extended(0, 0).centres
    shift = (mean - np.arange(n_bins)[None, :, None]) * grid.width
    figure, axes = panels(n_outputs, 2.3, columns=3)
    figure.set_figwidth(FULL_WIDTH if n_outputs >= 3 else figure.get_figwidth() + 1.0)
    colours = ListedColormap(matplotlib.colormaps["viridis_r"](np.linspace(0.08, 1.0, n_slices)))
    for i, ax in enumerate(axes):
        ax.axhline(0.0, color="#3c4043", linewidth=1.0)
        for s in np.flatnonzero(membership[:, i]):
            line = np.where(occupied[s], shift[s, :, i], np.nan)
            ax.plot(centres, line, color=colours(int(s)), marker=".", markersize=3, linewidth=1.3)
        ax.set_title(f"Output {i + 1}")
    scale = ScalarMappable(BoundaryNorm(slices.edges, n_slices), colours)
    figure.colorbar(scale, ax=axes, label=R_MAG, aspect=35, pad=0.01)
    figure.supxlabel(target.true_axis, fontsize=10.5)
    figure.supylabel(f"shift of the label in {target.symbol}{target.unit_text}", fontsize=10.5)
    return figure
