"""Figures of the estimates: mode collapse, density and PIT, a panel each run of one data set, and scatter."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from photoz_lit.grids import Floats, bin_of
from photoz_lit.report.figures import style
from photoz_lit.report.figures.style import STYLE, colour_of, mark, note, number, panels
from photoz_lit.report.runs import Run
from photoz_lit.target import REDSHIFT, Target

CELLS = 90  # of the density, a side: finer cells are too small to see
PIT_BINS = 20

Points = tuple[Floats, Floats, Floats]  # x, y and the error of y


@matplotlib.rc_context(STYLE)
def figure_n_of_z(runs: Mapping[str, Run]) -> Figure:
    """Draw n(z) of photo_z on top of n(z) of spec_z in the survey's bins; mode collapse shows as spikes.

    What p(z) say of n(z), their sum and the inferred one, is drawn where runs have it: lines without spikes.
    """
    figure, axes = panels(list(runs), 2.3)
    survey = next(iter(runs.values())).survey
    target, halo = survey.target, [withStroke(linewidth=3.4, foreground="white")]
    edges = _edges(runs)
    tallest = 0.0
    for ax, (label, run) in zip(axes, runs.items(), strict=True):
        spec, photo = (_shares(z, edges) for z in (run.spec_z, run.photo_z))
        highest = float(spec.max())
        tallest = max(tallest, 1.6 * highest, min(1.08 * float(photo.max()), 4.0 * highest))
        ax.stairs(spec, edges, fill=True, color=style.LIGHT)
        ax.stairs(photo, edges, color=colour_of(label), linewidth=1.3)
        misses = [f"TV {number(run.metrics['total_variation'], 3)}"]
        if table := run.n_of_z:
            centre = (table["z_low"] + table["z_high"]) / 2
            ax.plot(centre, table["inferred"], color=style.BLACK, linewidth=1.5, linestyle=(0, (3, 1.5)))
            ax.plot(centre, table["stacked"], color=style.BLACK, linewidth=1.7, path_effects=halo)
            misses[0] = misses[0].replace("TV", f"TV {target.estimated}")
            misses += [f"{n} {number(run.metrics[f'{n}_tv'], 3)}" for n in ("stacked", "inferred")]
        note(ax, "\n".join(misses), x=0.97)
    axes[0].set(xlim=(edges[0], edges[-1]), ylim=(0.0, tallest))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    lines = f"filled: {target.true}, steps: {target.estimated}"
    if any(run.n_of_z for run in runs.values()):
        lines += f"; {target.n_of} from {target.pdf}: black line stacked, dashes inferred"
    figure.supxlabel(f"{target.label}{target.unit_text}   ({lines})")
    figure.supylabel(f"galaxies per bin of {survey.grid.width:.4f}")
    return figure


@matplotlib.rc_context(STYLE)
def figure_density(runs: Mapping[str, Run]) -> Figure:
    """Draw photo_z against spec_z as a density, with the outlier cut as dashed lines."""
    figure, axes = panels(list(runs), 2.65)
    survey = next(iter(runs.values())).survey
    target = survey.target
    bins = _edges(runs)
    z_range = float(bins[0]), float(bins[-1])
    edges = np.linspace(*z_range, min(bins.size - 1, CELLS) + 1)
    cells = [np.histogram2d(run.spec_z, run.photo_z, (edges, edges))[0].T for run in runs.values()]
    norm = LogNorm(1.0, max(2.0, *(float(c.max()) for c in cells)))
    line = np.array(z_range)
    cut = survey.outlier_cut * (1 + line if target.relative else np.ones(2))
    for ax, run, counts in zip(axes, runs.values(), cells, strict=True):
        # Rasterised: thousands of vector cells would weigh more than the rest of the page.
        shown = np.ma.masked_equal(counts, 0)
        mesh = ax.pcolormesh(edges, edges, shown, norm=norm, cmap=style.DENSITY, rasterized=True)
        ax.plot(line, line, color=style.VERMILION, linewidth=1.0)
        for sign in (-1, 1):
            ax.plot(line, line + sign * cut, color=style.VERMILION, linewidth=0.8, linestyle="--")
        ax.set(xlim=z_range, ylim=z_range, aspect="equal")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        note(ax, f"TV {number(run.metrics['total_variation'], 3)}")
    figure.colorbar(mesh, ax=axes, label="galaxies per cell", shrink=0.9, aspect=35, pad=0.01)
    figure.supxlabel(target.true_axis)
    figure.supylabel(target.estimated_axis)
    return figure


@matplotlib.rc_context(STYLE)
def figure_pit(runs: Mapping[str, Run]) -> Figure:
    """Draw the histogram of PIT, the probability that p(z) puts below the truth: flat means trustworthy."""
    figure, axes = panels(list(runs), 1.9)
    target = next(iter(runs.values())).survey.target
    top = 1.6
    for ax, (label, run) in zip(axes, runs.items(), strict=True):
        pit = run.pit[np.isfinite(run.pit)]
        noise = 2.0 * np.sqrt(PIT_BINS / max(pit.size, 1))  # of counting, 2 sigma
        density, edges = np.histogram(np.clip(pit, 0.0, 1.0), PIT_BINS, (0.0, 1.0), density=pit.size > 0)
        ax.axhspan(1.0 - noise, 1.0 + noise, color=style.LIGHT, alpha=0.6, linewidth=0)
        ax.stairs(density, edges, fill=True, color=colour_of(label), alpha=0.35)
        ax.stairs(density, edges, color=colour_of(label), linewidth=1.4)
        ax.axhline(1.0, color=style.INK, linewidth=0.9)
        top = max(top, min(float(density.max()) * 1.1, 4.0))
    axes[0].set(xlim=(0.0, 1.0), ylim=(0.0, top))
    axes[0].set_xticks([0.0, 0.5, 1.0])
    figure.supxlabel(f"PIT: probability that {target.pdf} puts below the true {target.label}")
    figure.supylabel("density")
    return figure


@matplotlib.rc_context(STYLE)
def figure_sigma_mad(curves: Mapping[str, Points], main: Sequence[str], target: Target = REDSHIFT) -> Figure:
    """Draw sigma_mad by magnitude: the main corrections in colour, the others as thin grey lines."""
    figure = Figure(figsize=(style.HALF_WIDTH, 3.9))
    ax = figure.subplots()
    name = "others"
    for label, (magnitude, sigma_mad, _) in curves.items():
        if label not in main:
            ax.plot(magnitude, sigma_mad, color=style.LIGHT, linewidth=1.2, label=name)
            name = ""  # one entry of the legend stands for all
    for label in main:
        ax.errorbar(*curves[label], **mark(label, 6), elinewidth=1.0, capsize=2.0, label=label)
    ax.set_xlabel(r"dereddened Petrosian magnitude $r$  [mag]")
    ax.set_ylabel(rf"scatter $\sigma_\mathrm{{MAD}}$ of ${target.delta_math}${target.residual_unit_text}")
    ax.set_ylim(bottom=0.0)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _shares(z: Floats, edges: Floats) -> Floats:
    """Return the share of values in each bin; those on an edge are where the grid has them."""
    inside, width = z[(z >= edges[0]) & (z <= edges[-1])], float(edges[1] - edges[0])
    k = bin_of(inside, float(edges[0]), width, 0, len(edges) - 2)
    return np.asarray(np.bincount(k, minlength=len(edges) - 1) / z.size)


def _edges(runs: Mapping[str, Run]) -> Floats:
    """Return bin edges that hold nearly all estimates: beyond the survey's limits where there are any."""
    grid = next(iter(runs.values())).survey.grid
    lowest, highest = np.quantile(np.concatenate([run.photo_z for run in runs.values()]), [0.002, 0.998])
    left, right = ((grid.z_min - lowest) / grid.width, (highest - grid.z_max) / grid.width)
    return grid.extended(max(0, int(np.ceil(left))), max(0, int(np.ceil(right)))).edges
