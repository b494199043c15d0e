import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.metrics import fit_line, residuals_by_photo_z
from photoz_lit.report import figures
from photoz_lit.report.figures.style import ALTERNATIVES, STYLE, colour_of, marker_of
from photoz_lit.report.table import ORDER

GRID = RedshiftGrid(0.0, 0.4, 40)
SLICES = MagnitudeSlices(12.5, 0.5, 5)


def sample(label: str, seed: int = 0) -> figures.Sample:
    rng = np.random.default_rng(seed)
    spec_z = rng.uniform(0.0, 0.4, 600)
    return figures.Sample(
        label, spec_z, spec_z + 0.01 * rng.standard_normal(600), rng.uniform(size=600), "TV 0.1"
    )


def curve(label: str, seed: int = 0) -> figures.Curve:
    s = sample(label, seed)
    binned = residuals_by_photo_z(s.spec_z, s.photo_z, GRID)
    return figures.Curve(label, binned, fit_line(binned))


def scatter(label: str) -> figures.MagnitudeCurve:
    return figures.MagnitudeCurve(label, np.arange(13.0, 18.0), np.full(5, 0.013), np.full(5, 0.001))


def trade_off(label: str, slope: float) -> figures.TradeOff:
    return figures.TradeOff(label, slope, 0.002, 0.1, 0.01)


def standing(label: str, slope: float, total_variation: float) -> figures.Standing:
    values = (slope, 0.05, total_variation, 0.004, 0.014 + total_variation / 100)
    return figures.Standing(label, *(figures.Score(value, 0.01) for value in values))


def sweep_line(label: str) -> figures.SweepLine:
    keys = ("slope_spec_z", "total_variation", "sigma_mad", "crps")
    values = {key: np.array([0.1, -0.2, 0.3]) for key in keys}
    return figures.SweepLine(label, np.arange(3.0), values, {key: np.full(3, 0.05) for key in keys})


def counts(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).poisson(4.0, shape)


CURVES = [curve("Baseline"), curve("full", 1), curve("full · threshold=20", 2)]
SAMPLES = [
    sample("Baseline"),
    sample("full", 1),
    sample("unheard of", 2),
    sample("hard", 3),
    sample("none", 4),
]
STANDINGS = [
    standing("full", 0.02, 0.08),
    standing("trend", 0.001, 0.24),
    standing("lds", 0.08, 0.2),
    standing("full · threshold=20", 0.02, 0.3),
    figures.Standing("none", *[figures.Score(np.nan, np.nan)] * 5),
]
LABEL = np.exp(-0.5 * ((np.arange(80) - 25) / 2.0) ** 2)
MEAN = np.tile(np.arange(40.0)[None, :, None], (5, 1, 3)) + 1.0

FIGURES = {
    "residuals": lambda: figures.figure_residuals(CURVES, CURVES),
    "residual_panels": lambda: figures.figure_residual_panels(CURVES, CURVES[0]),
    "residual_panels_alone": lambda: figures.figure_residual_panels(CURVES[:1], against="photo_z"),
    "n_of_z": lambda: figures.figure_n_of_z(SAMPLES, GRID),
    "density": lambda: figures.figure_density(SAMPLES, GRID, 0.05),
    "pit": lambda: figures.figure_pit(SAMPLES),
    "sigma_mad": lambda: figures.figure_sigma_mad([scatter("Baseline"), scatter("full")], [scatter("hard")]),
    "trade_off": lambda: figures.figure_trade_off(
        [trade_off("Baseline", -0.1), trade_off("full", 0.0)], 0.06, [trade_off("lds", -0.05)]
    ),
    "pareto": lambda: figures.figure_pareto(STANDINGS, 0.06),
    "biases": lambda: figures.figure_biases(STANDINGS),
    "sweep": lambda: figures.figure_sweep(
        figures.SweepAxis("number of bins", "linear"), [sweep_line("Baseline"), sweep_line("full")]
    ),
    "sweep_of_a_category": lambda: figures.figure_sweep(
        figures.SweepAxis("encoder", "category", ("a", "b", "c")),
        [sweep_line("full")],
        (np.arange(3.0), np.full(3, 0.06)),
    ),
    "calibrated": lambda: figures.figure_calibrated(
        [figures.BeforeAfter("full", "full (target=training)", (0.004, 0.001), (0.02, 0.1))]
    ),
    "counts": lambda: figures.figure_counts(counts((40, 5)), np.minimum(counts((40, 5)), 2), GRID, SLICES),
    "dispersions": lambda: figures.figure_dispersions(
        counts((40, 3)) * 1.0, counts((40, 3)) * 1.0, np.array([0.05, 1.0, 3.0]), GRID
    ),
    "labels": lambda: figures.figure_labels(
        GRID.extended(20, 20), [("z = 0.05", LABEL), ("z = 0.06", LABEL)], [5, 6]
    ),
    "shift": lambda: figures.figure_shift(MEAN, SLICES.membership, GRID, np.ones((5, 40), bool), SLICES),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_labelled_axes_and_renders(name: str) -> None:
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    shared_x, shared_y = figure.get_supxlabel(), figure.get_supylabel()
    for ax in figure.axes:
        if ax.get_label() == "<colorbar>":
            assert ax.get_ylabel() or ax.get_xlabel()
            continue
        assert ax.get_xlabel() or shared_x
        # Beside each other on one y axis, the first panel's label serves all.
        assert ax.get_ylabel() or shared_y or ax.get_shared_y_axes().joined(ax, figure.axes[0])
    root = ET.fromstring(figures.as_svg(figure))
    assert root.tag.endswith("svg")


def test_svg_is_the_same_each_time() -> None:
    assert figures.as_svg(FIGURES["pit"]()) == figures.as_svg(FIGURES["pit"]())


def test_figures_leave_no_trace_in_the_settings_of_matplotlib() -> None:
    before = {key: matplotlib.rcParams[key] for key in STYLE}
    figures.as_svg(FIGURES["trade_off"]())
    assert {key: matplotlib.rcParams[key] for key in STYLE} == before


def test_n_of_z_shows_estimates_beyond_the_survey() -> None:
    wide = figures.Sample("full", np.full(500, 0.39), np.linspace(0.38, 0.45, 500), np.full(500, 0.5))
    assert figures.figure_n_of_z([wide], GRID).axes[0].get_xlim()[1] > 0.44


def test_no_other_beats_what_is_on_the_front() -> None:
    points = np.array([[1.0, 4.0], [2.0, 2.0], [2.0, 2.0], [2.0, 3.0], [4.0, 1.0], [5.0, 1.0], [np.nan, 0.0]])
    assert figures.non_dominated(points).tolist() == [True, True, True, False, True, False, False]
    points = np.random.default_rng(0).uniform(size=(60, 3))
    beaten = [any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert figures.non_dominated(points).tolist() == [not b for b in beaten]


def test_pareto_names_every_correction_once_where_it_can_be_read() -> None:
    rng = np.random.default_rng(1)
    many = [standing(name, *rng.uniform(0.0, 0.3, 2)) for name in ALTERNATIVES]
    figure = figures.figure_pareto(many, 0.06)
    figure.draw_without_rendering()
    (ax, _) = figure.axes
    texts = [t for t in ax.texts if not t.get_text().startswith("floor")]
    assert sorted(t.get_text() for t in texts) == sorted(ALTERNATIVES)
    boxes = [t.get_window_extent() for t in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = ax.get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 for b in boxes)


def test_bars_of_absolute_slopes_end_at_zero() -> None:
    line = sweep_line("full")
    figure = figures.figure_sweep(figures.SweepAxis("x", "linear"), [line])
    (points, _, (bars,)) = figure.axes[0].containers[0]
    np.testing.assert_allclose(points.get_ydata(), [0.1, 0.2, 0.3])
    assert min(segment[:, 1].min() for segment in bars.get_segments()) >= 0.0


def test_every_correction_has_its_own_mark() -> None:
    names = [name for name in ORDER if name not in ("none",)]  # which is Step 1's own output
    marks = {(colour_of(name), marker_of(name)) for name in names}
    assert len(marks) == len(names)
    assert colour_of("none") == colour_of("Step 1")


def test_a_name_unheard_of_has_one_mark_that_no_known_one_has() -> None:
    unheard = [f"method {i}" for i in range(40)]
    known = {(colour_of(name), marker_of(name)) for name in ORDER}
    assert not known & {(colour_of(name), marker_of(name)) for name in unheard}
    assert len({(colour_of(name), marker_of(name)) for name in unheard}) > 10
    assert colour_of("method 1 · threshold=20") == colour_of("method 1")


def test_no_estimate_or_nan_pit_still_draws() -> None:
    empty = figures.Sample("full", np.array([0.1, 0.1]), np.array([0.1, 0.1]), np.array([np.nan, np.nan]))
    assert figures.as_svg(figures.figure_pit([empty]))


def test_counts_lose_none_of_the_galaxies() -> None:
    before = counts((40, 5))
    figure = figures.figure_counts(before, np.minimum(before, 2), GRID, SLICES)
    assert figure.axes[0].get_title(loc="left") == f"Training set: {before.sum():,} galaxies"


def test_labels_name_their_shift() -> None:
    figure = figures.figure_labels(GRID.extended(20, 20), [("a cell", LABEL)], [3])
    # The label's mean is output 25, that is bin 5 of the survey, two bins of 0.01 above the galaxy's own.
    assert "+0.020" in figure.axes[0].texts[0].get_text()


def test_figure_without_panels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        figures.figure_pit([])
