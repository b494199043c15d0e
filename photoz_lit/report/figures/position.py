"""One page of one galaxy: its cutout, its p(z), and where it lies among the model's training galaxies."""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from photoz_lit.grids import Floats, RedshiftGrid
from photoz_lit.report.figures import style
from photoz_lit.report.figures.style import STYLE, number
from photoz_lit.target import REDSHIFT, Target

LINEAR, WHITE = 4.0, 250.0  # sigma of the sky: where the picture turns logarithmic, and where it is white
COLOURS = {"g": 1.6, "r": 1.0, "i": 0.75}  # weights that make an old galaxy of low redshift yellow
BAR = 5.0  # arcsec
LINE = 100  # letters of a line
WORDS = {"dered_petro_r": "dereddened Petrosian r [mag]", "ebv": "E(B-V) [mag]"}
KEY = {"frameon": True, "framealpha": 0.9, "edgecolor": "none", "fontsize": 9}


@dataclass(frozen=True)
class Page:
    """What is drawn of a galaxy; NaN is what is not known."""

    title: str
    said: str  # lines below
    row: Mapping[str, float]  # of `photo_z.fits`
    cutout: NDArray[np.floating]  # (bands, pixels, pixels), nanomaggies
    bands: str
    pixel_scale: float  # arcsec
    grid: RedshiftGrid
    pdf: Floats  # (n_outputs,), of sum 1
    training: Floats  # n(z) of the training galaxies, of sum 1
    distances: Floats  # (m,), in the embedding, of validation galaxies
    threshold: float  # beyond which a galaxy is far
    ranges: Mapping[str, Floats]  # by column: least and most in training
    target: Target = REDSHIFT


@matplotlib.rc_context(STYLE)
def figure_position(page: Page) -> Figure:
    """Draw the page."""
    figure = Figure(figsize=(style.FULL_WIDTH, 5.4))
    rows: list[Any] = [["cutout", "pdf", "place"], *(["said", "said", column] for column in WORDS)]
    axes = figure.subplot_mosaic(rows, height_ratios=(1.0, 0.035, 0.035), width_ratios=(1.0, 1.15, 1.1))
    figure.suptitle(page.title, x=0.01, ha="left", fontsize=13, fontweight="bold")
    words = "\n".join(part for line in page.said.splitlines() for part in textwrap.wrap(line, LINE))
    left = blended_transform_factory(figure.transFigure, axes["said"].transAxes)
    axes["said"].text(0.012, 1, words, transform=left, va="top", color=style.INK, linespacing=1.5)
    axes["said"].set_axis_off()
    axes["said"].set_in_layout(False)
    _draw_cutout(axes["cutout"], page)
    _draw_pdf(axes["pdf"], page)
    _draw_distances(axes["place"], page)
    for column in WORDS:
        _draw_range(axes[column], column, page)
    return figure


def colour_picture(cutout: NDArray[np.floating], bands: str) -> NDArray[np.float64]:
    """Return i, r and g as red, green and blue, 0 to 1, (pixels, pixels, 3), by an asinh of their mean.

    The middle band stands for one that there is not.
    """
    chosen = [band if band in bands else bands[len(bands) // 2] for band in "irg"]
    planes = np.stack([np.asarray(cutout[bands.index(b)], float) * COLOURS.get(b, 1) for b in chosen])
    planes -= np.median(planes, axis=(1, 2), keepdims=True)
    sigma = np.quantile(np.abs(planes.mean(axis=0)), 0.25) / 0.3186  # of a quarter: most may be galaxy
    planes /= LINEAR * max(sigma, 1e-9)
    light = planes.mean(axis=0) + 1e-9
    rgb = np.clip(planes * np.arcsinh(light) / light / np.arcsinh(WHITE / LINEAR), 0, None)
    return np.moveaxis(rgb / np.maximum(rgb.max(axis=0), 1), 0, -1)


def _draw_cutout(ax: Axes, page: Page) -> None:
    half = page.cutout.shape[-1] * page.pixel_scale / 2
    ax.imshow(colour_picture(page.cutout, page.bands), origin="lower", extent=(-half, half, -half, half))
    for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1)):  # the position, left open
        ax.plot([2.5 * x, 4 * x], [2.5 * y, 4 * y], color="white", linewidth=1.2)
    ax.plot([-0.9 * half, -0.9 * half + BAR], [-0.86 * half] * 2, color="white", linewidth=2.2)
    ax.text(-0.9 * half, -0.82 * half, f"{BAR:g} arcsec", color="white", fontsize=9, va="bottom")
    ax.set(title="cutout in i, r, g", xticks=[], yticks=[])
    ax.set_xlabel(f"{2 * half:.0f} arcsec a side, as the frame lies")


def _draw_pdf(ax: Axes, page: Page) -> None:
    grid, target, name = page.grid, page.target, page.target.estimate
    best, low, high = (float(page.row[column]) for column in (name, f"{name}_lower", f"{name}_upper"))
    tallest = float(np.nanmax([page.training.max(), *page.pdf])) / grid.width
    ax.stairs(
        page.training / grid.width, grid.edges, fill=True, color=style.LIGHT, label=f"training {target.n_of}"
    )
    if np.isfinite(best):
        words = f"68 %: {number(low, 3)} to {number(high, 3)}"
        ax.axvspan(low, high, ymax=0.78, color=style.SKY, alpha=0.3, linewidth=0, label=words)
        ax.stairs(page.pdf / grid.width, grid.edges, color=style.BLUE, linewidth=1.8, label=target.pdf)
        words = f"{name} {number(best, 3)}"
        ax.axvline(best, ymax=0.78, color=style.VERMILION, linestyle="--", label=words)
    ax.set(title=f"{target.pdf}{'' if np.isfinite(best) else ': no estimate'}", ylabel="probability density")
    ax.set(xlabel=f"{target.label}{target.unit_text}", xlim=(grid.z_min, grid.z_max), ylim=(0, 1.3 * tallest))
    ax.legend(loc="upper center", ncols=2, columnspacing=1.2, **KEY)


def _draw_distances(ax: Axes, page: Page) -> None:
    here = float(page.row["distance"])
    most = 1.05 * np.nanmax([here, *page.distances, 1.0])
    ax.hist(
        page.distances,
        np.linspace(0, most, 41).tolist(),
        color=style.LIGHT,
        label="galaxies like the training's",
    )
    ax.axvline(page.threshold, color=style.GREY, linestyle=":", label="beyond: far (1 % of them)")
    if np.isfinite(here):
        ax.axvline(here, color=style.VERMILION, linestyle="--", label="this galaxy")
    ax.set(title="among the training galaxies", xlim=(0, most), ylabel="galaxies")
    ax.set_xlabel("distance from them in the embedding")
    ax.legend(loc="upper right", **KEY)


def _draw_range(ax: Axes, column: str, page: Page) -> None:
    """Draw what was trained on as a bar, and the galaxy as a mark on it."""
    value, ends = float(page.row.get(column, np.nan)), page.ranges.get(column, np.full(2, np.nan))
    ax.axvspan(*ends, color=style.LIGHT)
    ax.plot([value], [0.9], color=style.VERMILION, marker="v", markersize=9, clip_on=False)
    ax.set(ylim=(0, 1), yticks=[])
    ax.set_xlabel(f"{WORDS[column]}{', bar: training' if np.isfinite(value) else ': not known here'}")
    ax.spines["left"].set_visible(False)
    ax.grid(visible=False)
