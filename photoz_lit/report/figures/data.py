"""Figures of a data set before any training: cutouts in colour and by band, distributions, photometry.

Cutouts are arrays (n, bands, y, x) in nanomaggies; `bands` has their names, a letter each.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from astropy.visualization import make_lupton_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from photoz_lit.grids import Floats, Texts
from photoz_lit.report.figures import style
from photoz_lit.report.figures.style import STYLE, note, number
from photoz_lit.target import Target

Cutouts = NDArray[np.float32]

# Weights of the colour images of SDSS relative to r, and their stretch (Lupton et al. 2004, PASP 116, 133).
WEIGHTS = {"i": 0.86, "r": 1.0, "g": 1.37}
STRETCH, SOFTENING = 0.35, 8.0  # nanomaggies per pixel of 0.396 arcsec; its ratio to the noise of SDSS is
STRETCH_OVER_NOISE = 14.0
SPLITS = ("train", "val", "test", "unused")
SPLIT_LOOKS = ((style.BLUE, "-"), (style.ORANGE, "--"), (style.VERMILION, "-."), (style.GREY, ":"))


def colour_bands(bands: str) -> tuple[int, int, int]:
    """Return which bands are shown as red, green and blue: i, r, g, or else the last three, last as red."""
    if set("gri") <= set(bands):
        return bands.index("i"), bands.index("r"), bands.index("g")
    last = list(range(len(bands)))[:-4:-1]
    return last[0], last[min(1, len(last) - 1)], last[-1]


def colour_image(stamp: Cutouts, bands: str, stretch: float = STRETCH) -> NDArray[np.uint8]:
    """Return the colour image (y, x, 3) of a cutout, on an asinh scale: logarithmic above `stretch`, nMgy."""
    planes = (stamp[i] * WEIGHTS.get(bands[i], 1.0) for i in colour_bands(bands))
    with np.errstate(invalid="ignore"):  # astropy divides by pixels that are zero before it masks them
        return np.asarray(make_lupton_rgb(*planes, minimum=0.0, stretch=stretch, Q=SOFTENING))


def stretch_for(noise: float) -> float:
    """Return the stretch that shows images of this noise, nanomaggies per pixel, as those of SDSS are."""
    return STRETCH_OVER_NOISE * noise if noise > 0 else STRETCH


@matplotlib.rc_context(STYLE)
def figure_contact_sheet(cutouts: Cutouts, labels: Sequence[str], bands: str, stretch: float) -> Figure:
    """Draw cutouts in colour, side by side, six a row."""
    columns = 6
    rows = max(1, -(-len(cutouts) // columns))
    figure = Figure(figsize=(1.9 * columns, 2.12 * rows))
    for ax in (axes := figure.subplots(rows, columns, squeeze=False).ravel()):
        ax.set_axis_off()
    for ax, stamp, label in zip(axes, cutouts, labels, strict=False):
        ax.imshow(colour_image(stamp, bands, stretch), origin="lower", interpolation="nearest")
        ax.set_title(label, fontsize=10, fontweight="normal", loc="center", pad=3)
    return figure


@matplotlib.rc_context(STYLE)
def figure_bands(
    cutouts: Cutouts, labels: Sequence[str], bands: str, noise: Sequence[float], stack: Cutouts
) -> Figure:
    """Draw each band in grey, on the scale of its `noise`: a few galaxies, on top the median of many."""
    n_rows, n_bands = len(cutouts) + 1, len(bands)
    figure = Figure(figsize=(1.45 * n_bands + 1.2, 1.47 * n_rows + 0.3))
    axes = figure.subplots(n_rows, n_bands, squeeze=False)
    images = np.concatenate([stack[None], cutouts])
    middle = (stack.shape[-1] - 1) / 2
    for row, (image, label) in enumerate(zip(images, ["median", *labels], strict=True)):
        for column, ax in enumerate(axes[row]):
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
            # The median has little noise: its own peak sets its scale.
            unit = float(np.nanmax(stack[column])) / 30 if row == 0 else noise[column]
            scaled = np.arcsinh(image[column] / (unit if unit > 0 else 1.0))
            ax.imshow(scaled, cmap="gray", origin="lower", vmin=-1.5, vmax=4.8, interpolation="nearest")
            if row == 0:
                ax.set_title(bands[column], loc="center", fontsize=12)
                reach = stack.shape[-1] / 2
                for low, high in ((0.25, 0.7), (-0.7, -0.25)):
                    span = [middle + low * reach, middle + high * reach]
                    ax.plot(span, [middle, middle], [middle, middle], span, color=style.ORANGE, linewidth=1.1)
        axes[row, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=9.5)
    return figure


@matplotlib.rc_context(STYLE)
def figure_distributions(columns: Mapping[str, Floats], split: Texts | None, target: Target) -> Figure:
    """Draw histograms of columns, a panel each, that of the target by split where there is one."""
    words = {"spec_z": "spectroscopic redshift"} | {c: f"{c}  [mag]" for c in ("dered_petro_r", "ebv")}
    words[target.column] = f"{target.label}{target.unit_text}"
    # Room between panels: tick labels of neighbours must not touch.
    figure = Figure(figsize=(3.8 * len(columns), 3.0), layout=ConstrainedLayoutEngine(wspace=0.06))
    axes = figure.subplots(1, len(columns), squeeze=False)[0]
    for ax, (name, values) in zip(axes, columns.items(), strict=True):
        finite, by = values[np.isfinite(values)], split if name == target.column else None
        low, high = np.percentile(finite, [0.1, 99.9]) if finite.size else (0.0, 1.0)
        smallest = finite.size if by is None else np.unique(by, return_counts=True)[1].min()
        n_edges = int(np.clip(2 * np.sqrt(smallest), 10, 50))  # counts of the smallest split are still smooth
        edges = np.linspace(low, high if high > low else low + 0.01, n_edges)
        parts = {"": (values, style.BLUE, "-")}
        if by is not None:
            looks = zip(SPLITS, SPLIT_LOOKS, strict=True)
            parts = {g: (values[by == g], *look) for g, look in looks if (by == g).any()}
        for group, (own, colour, line) in parts.items():
            counts = np.histogram(own[np.isfinite(own)], edges)[0]
            share = counts / max(counts.sum(), 1)  # splits of different size are compared by shape
            ax.stairs(share, edges, color=colour, linestyle=line, fill=not group, linewidth=1.5, label=group)
        ax.set(xlabel=words[name], yticks=[])
        ax.grid(visible=False)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.set_ylim(bottom=0.0)
        if len(parts) > 1:
            ax.legend(handlelength=1.8)
    figure.supylabel("share of galaxies")
    return figure


@matplotlib.rc_context(STYLE)
def figure_photometry(catalogue_r: Floats, measured_r: Floats, offset: float) -> Figure:
    """Draw magnitudes measured on the cutouts against the catalogue's; right units lie on the line."""
    figure = Figure(figsize=(style.HALF_WIDTH, 3.9))
    ax = figure.subplots()
    ax.plot(catalogue_r, measured_r, ".", color=style.BLUE, markersize=4, alpha=0.6)
    ends = np.percentile(catalogue_r, [0.5, 99.5]) + np.array([-0.3, 0.3])
    ax.plot(ends, ends, color=style.INK, linewidth=1.2, label="equal")
    ax.plot(ends, ends + offset, color=style.VERMILION, linewidth=1.2, linestyle="--", label="median offset")
    shown = np.concatenate([ends, np.percentile(measured_r, [1, 99])])
    ax.set(xlim=ends, ylim=(shown.max() + 0.2, shown.min() - 0.2))  # bright at the top
    ax.set(xlabel="dered_petro_r of the table  [mag]", ylabel="r measured on the cutouts  [mag]")
    note(ax, f"median offset {number(offset, 2, signed=True)} mag", x=0.97, y=0.04)
    ax.invert_xaxis()
    ax.legend(loc="upper left")
    return figure


@matplotlib.rc_context(STYLE)
def figure_brightness(magnitudes: Floats, bands: str, depth: Sequence[float]) -> Figure:
    """Draw how bright galaxies (n, bands) are, the middle 68 % as bars, and how faint one could be seen."""
    figure = Figure(figsize=(style.HALF_WIDTH, 3.9))
    ax = figure.subplots()
    x = np.arange(len(bands))
    known = [column[np.isfinite(column)] for column in magnitudes.T]
    ranges = [np.percentile(c, [16, 50, 84]) if c.size else [np.nan] * 3 for c in known]
    low, middle, high = np.array(ranges).T
    errors = [middle - low, high - middle]
    ax.errorbar(x, middle, errors, fmt="o-", color=style.BLUE, capsize=4, label="galaxies, 68 %")
    faintest = r"depth, 5$\sigma$ in 2″"
    ax.plot(x, depth, "v", color=style.VERMILION, markersize=9, linestyle="none", label=faintest)
    ax.set_xticks(x, list(bands))
    ax.set(ylabel="magnitude  [mag]", xlabel="band")
    ax.margins(x=0.12, y=0.12)
    ax.invert_yaxis()
    ax.legend(loc="best")
    return figure
