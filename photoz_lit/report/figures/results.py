"""Figures of the estimates: mode collapse, scatter, calibration of p(z), and what each correction costs."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from photoz_lit.grids import RedshiftGrid
from photoz_lit.report.figures.style import (
    DENSITY,
    GREY,
    HALF_WIDTH,
    LIGHT,
    STYLE,
    colour_of,
    edge_of,
    face_of,
    marker_of,
    note,
    panels,
    size_of,
)
from photoz_lit.target import REDSHIFT, Target

CELLS = 90  # of the density, a side: finer cells are too small to see


@dataclass(frozen=True)
class Sample:
    """Estimates of one run on the test galaxies.

    Parameters
    ----------
    label : str
        Name of the correction.
    spec_z, photo_z : ndarray, shape (n,)
        Truth and estimates.
    pit : ndarray, shape (n,)
        Probability that p(z) puts below the truth, 0 to 1.
    note : str
        A short text drawn in the panel.
    """

    label: str
    spec_z: NDArray[np.float64]
    photo_z: NDArray[np.float64]
    pit: NDArray[np.float64]
    note: str = ""


@dataclass(frozen=True)
class MagnitudeCurve:
    """sigma_mad of one correction by magnitude: arrays of shape (n_slices,), magnitudes in mag."""

    label: str
    magnitude: NDArray[np.float64]
    sigma_mad: NDArray[np.float64]
    error: NDArray[np.float64]


@dataclass(frozen=True)
class TradeOff:
    """Slope of the mean residual against spec_z and total variation of one correction, with errors."""

    label: str
    slope: float
    slope_error: float
    total_variation: float
    total_variation_error: float


@matplotlib.rc_context(STYLE)
def figure_n_of_z(samples: Sequence[Sample], grid: RedshiftGrid, target: Target = REDSHIFT) -> Figure:
    """Draw n(z) of photo_z on top of n(z) of spec_z, one panel a correction; mode collapse shows as spikes.

    Parameters
    ----------
    samples : sequence of Sample
        One run a correction.
    grid : RedshiftGrid
        The survey's redshift bins; the histograms use them as they are.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        Small panels on shared axes.
    """
    figure, axes = panels(len(samples), 2.1)
    edges = _edges(samples, grid)
    tallest = 0.0
    for ax, sample in zip(axes, samples, strict=True):
        spec = np.histogram(sample.spec_z, edges)[0] / sample.spec_z.size
        photo = np.histogram(sample.photo_z, edges)[0] / sample.photo_z.size
        tallest = max(
            tallest, float(spec.max()) * 1.6, min(float(photo.max()) * 1.08, float(spec.max()) * 4.0)
        )
        ax.stairs(spec, edges, fill=True, color=LIGHT)
        ax.stairs(photo, edges, color=colour_of(sample.label), linewidth=1.3)
        ax.set_title(sample.label)
        note(ax, sample.note, x=0.97)
    axes[0].set(xlim=(edges[0], edges[-1]), ylim=(0.0, tallest))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, symbol=" %"))
    key = f"(filled: {target.true}, line: {target.estimated})"
    figure.supxlabel(f"{target.label}{target.unit_text}   {key}", fontsize=10.5)
    figure.supylabel(f"galaxies per bin of {grid.width:.4f}", fontsize=10.5)
    return figure


@matplotlib.rc_context(STYLE)
def figure_sigma_mad(
    curves: Sequence[MagnitudeCurve], others: Sequence[MagnitudeCurve] = (), target: Target = REDSHIFT
) -> Figure:
    """Draw sigma_mad by magnitude: some corrections in colour, the others as thin grey lines.

    Parameters
    ----------
    curves : sequence of MagnitudeCurve
        Corrections to compare.
    others : sequence of MagnitudeCurve
        Drawn in grey, so that the range of all is seen.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        One panel with a legend at its right.
    """
    figure = Figure(figsize=(HALF_WIDTH, 3.9))
    ax = figure.subplots()
    for i, curve in enumerate(others):
        ax.plot(
            curve.magnitude, curve.sigma_mad, color=LIGHT, linewidth=1.2, label="others" if i == 0 else None
        )
    for curve in curves:
        ax.errorbar(
            curve.magnitude,
            curve.sigma_mad,
            curve.error,
            color=colour_of(curve.label),
            marker=marker_of(curve.label),
            markersize=size_of(curve.label, 6),
            markeredgecolor="white",
            markeredgewidth=0.5,
            elinewidth=1.0,
            capsize=2.0,
            label=curve.label,
        )
    ax.set(
        xlabel=r"dereddened Petrosian magnitude $r$  [mag]",
        ylabel=rf"scatter $\sigma_\mathrm{{MAD}}$ of ${target.delta_math}${target.residual_unit_text}",
    )
    ax.set_ylim(bottom=0.0)
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@matplotlib.rc_context(STYLE)
def figure_trade_off(
    points: Sequence[TradeOff],
    floor: float | None = None,
    others: Sequence[TradeOff] = (),
    target: Target = REDSHIFT,
) -> Figure:
    """Draw total variation (mode collapse) against slope (residual), one marker a correction.

    Parameters
    ----------
    points : sequence of TradeOff
        One a correction.
    floor : float, optional
        Total variation that remains without any mode collapse.
    others : sequence of TradeOff
        Drawn as small grey dots without a name, so that the range of all is seen.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        The best place is at the bottom, on the vertical line.
    """
    figure = Figure(figsize=(HALF_WIDTH, 3.9))
    ax = figure.subplots()
    ax.axvline(0.0, color="#3c4043", linewidth=1.0)
    if floor is not None and np.isfinite(floor):
        ax.axhline(floor, color=GREY, linewidth=1.2, linestyle="--")
        # Below the line, where no correction can be.
        ax.annotate(
            f"floor {floor:.3f}",
            (0.02, floor),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=GREY,
        )
    if others:
        x, y = [p.slope for p in others], [p.total_variation for p in others]
        ax.plot(x, y, "o", color=LIGHT, markersize=5, label="others")
    for point in points:
        ax.errorbar(
            point.slope,
            point.total_variation,
            xerr=point.slope_error,
            yerr=point.total_variation_error,
            fmt=marker_of(point.label),
            color=colour_of(point.label),
            markersize=size_of(point.label, 9),
            markerfacecolor=face_of(point.label),
            markeredgecolor=edge_of(point.label),
            markeredgewidth=0.8,
            elinewidth=1.4,
            capsize=2.5,
            label=point.label,
        )
    ax.set(
        xlabel=rf"slope of $\langle{target.delta_math}\rangle$ against ${target.true_math}$",
        ylabel=f"total variation of {target.n_of}",
    )
    ax.set_ylim(bottom=0.0)
    ax.margins(x=0.12)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


@matplotlib.rc_context(STYLE)
def figure_pit(samples: Sequence[Sample], bins: int = 20, target: Target = REDSHIFT) -> Figure:
    """Draw the histogram of PIT, one panel a correction; flat means that p(z) can be trusted.

    Parameters
    ----------
    samples : sequence of Sample
        One run a correction.
    bins : int
        Number of bins on [0, 1].
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        Density 1 is the uniform distribution; the grey band is its 2-sigma counting noise.
    """
    figure, axes = panels(len(samples), 1.9)
    top = 1.6
    for ax, sample in zip(axes, samples, strict=True):
        pit = sample.pit[np.isfinite(sample.pit)]
        noise = 2.0 * np.sqrt(bins / max(pit.size, 1))
        density, edges = np.histogram(np.clip(pit, 0.0, 1.0), bins, (0.0, 1.0), density=pit.size > 0)
        ax.axhspan(1.0 - noise, 1.0 + noise, color=LIGHT, alpha=0.6, linewidth=0)
        ax.stairs(density, edges, fill=True, color=colour_of(sample.label), alpha=0.35)
        ax.stairs(density, edges, color=colour_of(sample.label), linewidth=1.4)
        ax.axhline(1.0, color="#3c4043", linewidth=0.9)
        ax.set_title(sample.label)
        top = max(top, min(float(density.max()) * 1.1, 4.0))
    axes[0].set(xlim=(0.0, 1.0), ylim=(0.0, top))
    axes[0].set_xticks([0.0, 0.5, 1.0])
    figure.supxlabel(f"PIT: probability that {target.pdf} puts below the true {target.label}", fontsize=10.5)
    figure.supylabel("density", fontsize=10.5)
    return figure


@matplotlib.rc_context(STYLE)
def figure_density(
    samples: Sequence[Sample], grid: RedshiftGrid, outlier_cut: float, target: Target = REDSHIFT
) -> Figure:
    """Draw photo_z against spec_z as a density, one panel a correction.

    Parameters
    ----------
    samples : sequence of Sample
        One run a correction.
    grid : RedshiftGrid
        The survey's redshift bins.
    outlier_cut : float
        Absolute residual beyond which an estimate is an outlier, drawn as dashed lines.
    target : Target
        What is estimated.

    Returns
    -------
    Figure
        Small square panels; colour is the number of galaxies per cell, on a logarithmic scale.
    """
    figure, axes = panels(len(samples), 2.65)
    bins = _edges(samples, grid)
    z_range = float(bins[0]), float(bins[-1])
    edges = np.linspace(*z_range, min(bins.size - 1, CELLS) + 1)
    cells = [np.histogram2d(s.spec_z, s.photo_z, (edges, edges))[0].T for s in samples]
    norm = LogNorm(1.0, max(2.0, *(float(c.max()) for c in cells)))
    line = np.array(z_range)
    cut = outlier_cut * (1 + line if target.relative else np.ones(2))
    for ax, sample, counts in zip(axes, samples, cells, strict=True):
        # Rasterised: thousands of vector cells would weigh more than the rest of the page.
        mesh = ax.pcolormesh(
            edges, edges, np.ma.masked_equal(counts, 0), norm=norm, cmap=DENSITY, rasterized=True
        )
        ax.plot(line, line, color="#d55e00", linewidth=1.0)
        for sign in (-1, 1):
            ax.plot(line, line + sign * cut, color="#d55e00", linewidth=0.8, linestyle="--")
        ax.set(xlim=z_range, ylim=z_range, aspect="equal")
        ax.xaxis.set_major_locator(MaxNLocator(4))
        ax.yaxis.set_major_locator(MaxNLocator(4))
        ax.set_title(sample.label)
        note(ax, sample.note)
    figure.colorbar(mesh, ax=axes, label="galaxies per cell", shrink=0.9, aspect=35, pad=0.01)
    figure.supxlabel(target.true_axis, fontsize=10.5)
    figure.supylabel(target.estimated_axis, fontsize=10.5)
    return figure


def _edges(samples: Sequence[Sample], grid: RedshiftGrid) -> NDArray[np.float64]:
    """Return bin edges that hold nearly all estimates: beyond the survey's limits where there are any."""
    lowest, highest = np.quantile(np.concatenate([s.photo_z for s in samples]), [0.002, 0.998])
    left, right = ((grid.z_min - lowest) / grid.width, (highest - grid.z_max) / grid.width)
    return grid.extended(max(0, int(np.ceil(left))), max(0, int(np.ceil(right)))).edges
