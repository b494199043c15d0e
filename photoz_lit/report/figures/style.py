"""One look for all figures: fonts, marks that colour-blind readers tell apart, numbers, panels, SVG."""

import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
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
    *("ensemble", "harmonic_ensemble"),
)
_COLOUR_CYCLE = (PINK, BLUE, ORANGE, GREEN, VERMILION, BLACK, SKY)
_MARKER_CYCLE = ("v", "<", "p", ">", "d")

_OWN = Path(__file__).with_name("figures.mplstyle")
STYLE = matplotlib.rc_params_from_file(_OWN, use_default_template=False)
STYLE["axes.edgecolor"] = INK

# Galaxies per cell: one alone must still be seen on white paper, so the lightest blues are left out.
DENSITY = ListedColormap(matplotlib.colormaps["Blues"](np.linspace(0.3, 1.0, 256)), name="density")

PANEL_WIDTH, HALF_WIDTH, FULL_WIDTH = 2.85, 5.6, 11.4  # inches


def known_label(label: str) -> str:
    """Return the named correction behind a label that carries further settings ("full · threshold=20")."""
    return label.split(" · ", maxsplit=1)[0]


def look_of(label: str) -> tuple[str, str]:
    """Return colour and marker of a correction, the same in every figure; of a name unheard of, free ones."""
    known = known_label(label)
    if known in LOOKS:
        return LOOKS[known]
    n = len(ALTERNATIVES)
    free = len(_COLOUR_CYCLE) * len(_MARKER_CYCLE) - n
    place = ALTERNATIVES.index(known) if known in ALTERNATIVES else n + zlib.crc32(known.encode()) % free
    return _COLOUR_CYCLE[place % len(_COLOUR_CYCLE)], _MARKER_CYCLE[place % len(_MARKER_CYCLE)]


def colour_of(label: str) -> str:
    """Return the colour of a correction."""
    return look_of(label)[0]


def mark(label: str, size: float) -> dict[str, Any]:
    """Return what `plot` and `errorbar` need to mark a correction; open where it has further settings."""
    known, (colour, marker) = known_label(label), look_of(label)
    return {
        "color": colour,
        "marker": marker,
        "markersize": size * (1.55 if known in PROMINENT else 1.0),
        "markerfacecolor": colour if label == known else "white",
        "markeredgecolor": "white" if label == known else colour,  # marks on top of each other stay apart
        "markeredgewidth": 0.6,
    }


def panels(
    titles: Sequence[str], height: float, *, columns: int = 4, share_y: bool = True
) -> tuple[Figure, list[Axes]]:
    """Make a figure of small panels of one size (rows are `height` inches high) on shared axes."""
    n = len(titles)
    if n < 1:
        raise ValueError("a figure of panels needs at least one panel")
    # Few panels keep their width instead of growing to fill the page: one look for any number.
    width = FULL_WIDTH if n >= columns else max(PANEL_WIDTH * n, 4.2) + 0.3
    columns = min(columns, n)
    rows = -(-n // columns)
    figure = Figure(figsize=(width, height * rows + 0.35))
    grid: np.ndarray = figure.subplots(rows, columns, sharex=True, sharey=share_y, squeeze=False)
    axes: list[Axes] = list(grid.ravel())
    for ax in axes[n:]:
        ax.remove()
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title)
    for ax in axes[max(0, n - columns) : n]:
        ax.tick_params(labelbottom=True)  # the lowest panel of each column, also above a removed place
    return figure, axes[:n]


def note(ax: Axes, text: str, *, x: float = 0.03, y: float = 0.96) -> None:
    """Write a short note in a panel, in axes coordinates, legible on top of what is drawn."""
    ha, va = "left" if x < 0.5 else "right", "top" if y > 0.5 else "bottom"
    words = ax.text(x, y, text, transform=ax.transAxes, ha=ha, va=va, fontsize=9, color="#202124", zorder=10)
    words.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.5})


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Write a number with fixed digits and a true minus; a dash where it could not be measured."""
    if not math.isfinite(value):
        return DASH
    value = round(value, digits) + 0.0  # no "-0.000"
    return f"{value:{'+' if signed and value else ''}.{digits}f}".replace("-", MINUS)


@matplotlib.rc_context(STYLE)
def as_svg(figure: Figure) -> bytes:
    """Render a figure as SVG, the same bytes each time."""
    figure.savefig(buffer := io.BytesIO(), format="svg", metadata={"Date": None})
    return buffer.getvalue()


def as_png(figure: Figure) -> bytes:
    """Render a figure as PNG."""
    figure.savefig(buffer := io.BytesIO(), format="png", dpi=110)
    return buffer.getvalue()
