"""The page of a single position: pictures in colour, and what is not known."""

from dataclasses import replace

import numpy as np
import pytest

from photoz_lit.grids import RedshiftGrid
from photoz_lit.report.figures.position import COLOURS, Page, colour_picture, figure_position
from photoz_lit.report.figures.style import as_png

GRID = RedshiftGrid(0.0, 0.4, 40)
ROW = {"photo_z": 0.1, "photo_z_lower": 0.08, "photo_z_upper": 0.12, "distance": 3.0, "dered_petro_r": 16.0}


def stamp(colours: dict[str, float]) -> np.ndarray:
    """Draw a galaxy of so much light in each band."""
    y, x = np.indices((64, 64)) - 31.5
    light = np.exp(-np.hypot(x, y) / 3)
    noise = np.random.default_rng(0).normal(0, 0.01, (5, 64, 64))
    return noise + np.array([colours.get(band, 1.0) for band in "ugriz"])[:, None, None] * light


PAGE = Page(
    *("galaxy: photo_z 0.100", "a line\nanother", ROW, stamp({}), "ugriz", 0.396, GRID),
    *(np.full(40, 1 / 40), np.full(40, 1 / 40), np.linspace(1, 5, 50), 4.5),
    ranges={"dered_petro_r": np.array([12.5, 18.0]), "ebv": np.array([0.0, 0.5])},
)


def test_colours_tell_red_from_blue() -> None:
    grey = {band: 2.0 / weight for band, weight in COLOURS.items()}
    for colours, order in ((grey, "same"), ({**grey, "g": 0.2}, "red"), ({**grey, "i": 0.2}, "blue")):
        picture = colour_picture(stamp(colours), "ugriz")
        assert picture.shape == (64, 64, 3)
        assert 0 <= picture.min() <= picture.max() <= 1
        red, _, blue = picture[31, 31]
        assert {"same": red == pytest.approx(blue, abs=0.05), "red": red > 2 * blue, "blue": blue > 2 * red}[
            order
        ]
    np.testing.assert_array_equal(np.ptp(colour_picture(stamp({})[:1], "u"), axis=2), 0)
    assert np.isfinite(colour_picture(np.zeros((5, 64, 64)), "ugriz")).all()


def test_the_page_says_what_is_known_and_what_is_not() -> None:
    axes = {ax.get_title(loc="left") or ax.get_xlabel(): ax for ax in figure_position(PAGE).axes}
    labels = [text.get_text() for text in axes["p(z)"].get_legend().get_texts()]
    assert labels == ["training n(z)", "68 %: 0.080 to 0.120", "p(z)", "photo_z 0.100"]
    assert "dereddened Petrosian r [mag], bar: training" in axes
    assert "E(B-V) [mag]: not known here" in axes
    assert "redshift" in axes["p(z)"].get_xlabel()
    assert len(as_png(figure_position(PAGE))) > 10_000
    nothing = replace(PAGE, row={**dict.fromkeys(ROW, np.nan)}, pdf=np.full(40, np.nan), ranges={})
    nothing = replace(nothing, distances=np.empty(0), threshold=np.inf)
    assert "p(z): no estimate" in [ax.get_title(loc="left") for ax in figure_position(nothing).axes]
    assert len(as_png(figure_position(nothing))) > 10_000
