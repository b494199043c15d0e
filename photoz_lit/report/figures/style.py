"""One look for all figures: fonts, marks that colour-blind readers tell apart, numbers, panels, SVG."""

import io
import math
import zlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

GREY, LIGHT, INK = "#5f6368", "#c9cdd2", "#3c4043"
DASH, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"

# Colours of Okabe and Ito (2008), less their yellow, which vanishes on white paper; a marker each, so that
# black-and-white prints keep the key.
VERMILION, ORANGE, GREEN, BLUE = "#d55e00", "#e69f00", "#009e73", "#0072b2"
SKY, PINK, BLACK = "#56b4e9", "#cc79a7", "#1a1a1a"
LOOKS = {
    "trainz": (GREY, "x"),
    "Baseline": (VERMILION, "o"),
    "Step 1": (ORANGE, "s"),
    "none": (ORANGE, "s"),
    "balanced": (SKY, "^"),
    "hard": (PINK, "X"),
    "unshifted": (GREEN, "D"),
    "skip_balanced": (BLACK, "P"),
    "full": (BLUE, "*"),
    "best": (GREEN, "H"),
    "calibrated": (GREEN, "D"),
}
PROMINENT = ("full", "best")

# Alternatives take marker and colour by their place here: five markers that the above leave free and seven
# colours, so that 35 of them differ. Add at the end: a place in the middle would change all that follow.
ALTERNATIVES = (
    *("balanced_softmax", "lds", "dense_weight", "crps_loss", "trend", "logit_adjustment", "prior_swap"),
    *("temperature", "pit", "full_pit", "sord", "tau_norm", "learnt_scales", "clap", "local_pit"),
    *("ensemble", "harmonic_ensemble", "unshrink"),
)
_COLOUR_CYCLE = (PINK, BLUE, ORANGE, GREEN, VERMILION, BLACK, SKY)
_MARKER_CYCLE = ("v", "<", "p", ">", "d")

# Any: the type of these settings differs between releases of Matplotlib.
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.0,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e6e8eb",
    "grid.linewidth": 0.7,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "lines.linewidth": 1.6,
    "figure.labelsize": 10.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.constrained_layout.use": True,
    # The same results give the same bytes, so a rewritten report shows what changed.
    "svg.hashsalt": "photoz_lit",
    "svg.fonttype": "path",
}

# Galaxies per cell: one alone must still be seen on white paper, so the lightest blues are left out.
DENSITY = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.3, 1.0, 256)), name="density")

PANEL_WIDTH, HALF_WIDTH, FULL_WIDTH = 2.85, 5.6, 11.4  # inches
COLUMNS = 4


def known_label(label: str) -> str:
    """Return the named correction behind a label that carries further settings ("full · threshold=20")."""
    return label.split(" · ", maxsplit=1)[0]


def colour_of(label: str) -> str:
    """Return the colour of a correction, the same in every figure."""
    known = known_label(label)
    return LOOKS[known][0] if known in LOOKS else _COLOUR_CYCLE[_place(known) % len(_COLOUR_CYCLE)]


def marker_of(label: str) -> str:
    """Return the marker of a correction, the same in every figure."""
    known = known_label(label)
    return LOOKS[known][1] if known in LOOKS else _MARKER_CYCLE[_place(known) % len(_MARKER_CYCLE)]


def mark(label: str, size: float) -> dict[str, Any]:
    """Return what `plot` and `errorbar` need to mark a correction; the principal ones are larger.

    The mark is open where a correction has other settings than its name says; otherwise its rim is white, so
    that marks on top of each other stay apart.
    """
    known, colour = known_label(label), colour_of(label)
    return {
        "color": colour,
        "marker": marker_of(label),
        "markersize": size * (1.55 if known in PROMINENT else 1.0),
        "markerfacecolor": colour if label == known else "white",
        "markeredgecolor": "white" if label == known else colour,
        "markeredgewidth": 0.6,
    }


def _place(label: str) -> int:
    """Return an alternative's place among marks; a name unheard of gets one of the free places."""
    if label in ALTERNATIVES:
        return ALTERNATIVES.index(label)
    n = len(ALTERNATIVES)
    return n + zlib.crc32(label.encode()) % (len(_COLOUR_CYCLE) * len(_MARKER_CYCLE) - n)


def panels(
    n: int, height: float, *, columns: int = COLUMNS, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """Make a figure of `n` small panels of one size (rows are `height` inches high) on shared axes."""
    if n < 1:
        raise ValueError("a figure of panels needs at least one panel")
    columns = min(columns, n)
    rows = -(-n // columns)
    # Few panels keep their width instead of growing to fill the page: one look for any number.
    width = FULL_WIDTH if columns == COLUMNS else max(PANEL_WIDTH * columns, 4.2) + 0.3
    figure = Figure(figsize=(width, height * rows + 0.35))
    grid: np.ndarray = figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False)
    axes: list[Axes] = list(grid.ravel())
    for ax in axes[n:]:
        ax.remove()
    for ax in axes[max(0, n - columns) : n]:
        ax.tick_params(labelbottom=True)  # the lowest panel of each column, also above a removed place
    return figure, axes[:n]


def note(ax: Axes, text: str, *, x: float = 0.03, y: float = 0.96) -> None:
    """Write a short note in a panel, in axes coordinates, legible on top of what is drawn."""
    ax.text(
        x,
        y,
        text,
        transform=ax.transAxes,
        ha="left" if x < 0.5 else "right",
        va="top" if y > 0.5 else "bottom",
        fontsize=9,
        color="#202124",
        zorder=10,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5},
    )


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Write a number with fixed digits and a true minus; a dash where it could not be measured."""
    if not math.isfinite(value):
        return DASH
    value = round(value, digits) + 0.0  # no "-0.000"
    return f"{value:{'+' if signed and value else ''}.{digits}f}".replace("-", MINUS)


@matplotlib.rc_context(STYLE)
def as_svg(figure: Figure) -> bytes:
    """Render a figure as SVG, the same bytes each time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def as_png(figure: Figure) -> bytes:
    """Render a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
