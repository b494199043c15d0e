import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from simulated_runs import KINDS, MASS, write_labels, write_newer, write_run

from photoz_lit.files import read_arrays
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.metrics import fit_line, residuals_by_photo_z
from photoz_lit.report.figures import comparison, data, labels, residuals, results, style
from photoz_lit.report.runs import Run, Survey, read_run
from photoz_lit.report.sweeps import Line, Sweep
from photoz_lit.report.table import KEYS, ORDER
from photoz_lit.target import REDSHIFT, Target

GRID = RedshiftGrid(0.0, 0.4, 40)
SURVEY = Survey("mock", RedshiftGrid(0.0, 0.4, 90), MagnitudeSlices(12.5, 0.5, 11), 0.05, "mode")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(write_run(tmp_path_factory.mktemp("run"), KINDS[-1], 1, n=600))


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder)
    return read_arrays(folder / "labels.npz") | read_arrays(folder / "counts.npz")


def curve(label: str, seed: int = 0) -> residuals.Curve:
    rng = np.random.default_rng(seed)
    spec_z = rng.uniform(0.0, 0.4, 600)
    binned = residuals_by_photo_z(spec_z, spec_z + 0.01 * rng.standard_normal(600), GRID)
    return residuals.Curve(label, binned, fit_line(binned))


def row(label: str, slope: float, total_variation: float) -> dict[str, Any]:
    numbers = {key: 0.05 for key in (*KEYS, "bulk_mean")} | {f"{key}_spread": 0.01 for key in KEYS}
    own = {"slope_spec_z": slope, "total_variation": total_variation, "sigma_mad": 0.01 + slope / 9}
    return numbers | own | {"label": label, "title": label, "correction": label}


def sweep_line(label: str) -> Line:
    keys = ("slope_spec_z", "total_variation", "sigma_mad", "crps")
    values = {key: np.array([0.1, -0.2, 0.3]) for key in keys}
    return Line(label, np.arange(3.0), values, {key: np.full(3, 0.05) for key in keys})


CURVES = [curve("Baseline"), curve("full", 1), curve("full · threshold=20", 2)]
NAMES = ("Baseline", "full", "unheard of", "hard", "none")
POINTS = np.arange(13.0, 18.0), np.full(5, 0.013), np.full(5, 0.001)
ROWS = [
    row("full", 0.02, 0.08),
    row("trend", 0.001, 0.24),
    row("lds", -0.08, 0.2),
    row("full · threshold=20", 0.02, 0.3),
    row("none", np.nan, np.nan) | {"total_variation_spread": np.nan},
]
AXIS = Sweep("survey.n_bins", "number of bins", (0, 1, 2))
CATEGORY = Sweep("encoder.name", "encoder", ("a", "b", "c"))
FLOOR = np.arange(3.0), np.full(3, 0.06)

FIGURES = {
    "residuals": lambda run, arrays: residuals.figure_residuals(CURVES, CURVES),
    "residual_panels": lambda run, arrays: residuals.figure_residual_panels(CURVES, CURVES[0], "z", REDSHIFT),
    "one_panel": lambda run, arrays: residuals.figure_residual_panels(CURVES[:1], CURVES[0], "z", REDSHIFT),
    "n_of_z": lambda run, arrays: results.figure_n_of_z(dict.fromkeys(NAMES, run)),
    "density": lambda run, arrays: results.figure_density(dict.fromkeys(NAMES, run)),
    "pit": lambda run, arrays: results.figure_pit(dict.fromkeys(NAMES, run)),
    "sigma_mad": lambda run, arrays: results.figure_sigma_mad(dict.fromkeys(NAMES, POINTS), ["full"]),
    "pareto": lambda run, arrays: comparison.figure_pareto(ROWS, 0.06),
    "biases": lambda run, arrays: comparison.figure_biases(ROWS),
    "calibrated": lambda run, arrays: comparison.figure_calibrated(ROWS[:1], ROWS[1:2]),
    "sweep": lambda run, arrays: comparison.figure_sweep(AXIS, [sweep_line("Baseline"), sweep_line("full")]),
    "category": lambda run, arrays: comparison.figure_sweep(CATEGORY, [sweep_line("full")], FLOOR),
    "counts": lambda run, arrays: labels.figure_counts(arrays, SURVEY),
    "dispersions": lambda run, arrays: labels.figure_dispersions(arrays, SURVEY),
    "labels": lambda run, arrays: labels.figure_labels(arrays, SURVEY),
    "shift": lambda run, arrays: labels.figure_shift(arrays, SURVEY),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_labelled_axes_and_renders(
    name: str, run: Run, arrays: dict[str, np.ndarray]
) -> None:
    figure = FIGURES[name](run, arrays)
    assert isinstance(figure, Figure)
    shared_x, shared_y = figure.get_supxlabel(), figure.get_supylabel()
    for ax in figure.axes:
        if ax.get_label() == "<colorbar>":
            assert ax.get_ylabel() or ax.get_xlabel()
            continue
        assert ax.get_xlabel() or shared_x
        # Beside each other on one y axis, the first panel's label serves all.
        assert ax.get_ylabel() or shared_y or ax.get_shared_y_axes().joined(ax, figure.axes[0])
    root = ET.fromstring(style.as_svg(figure))
    assert root.tag.endswith("svg")


def test_svg_is_the_same_each_time(run: Run) -> None:
    first, second = (style.as_svg(results.figure_pit({"full": run})) for _ in range(2))
    assert first == second


def test_figures_leave_no_trace_in_the_settings_of_matplotlib() -> None:
    before = {key: matplotlib.rcParams[key] for key in style.STYLE}
    style.as_svg(comparison.figure_biases(ROWS))
    assert {key: matplotlib.rcParams[key] for key in style.STYLE} == before


def test_n_of_z_of_redshifts_of_two_decimals_has_neither_gaps_nor_doubled_bins(run: Run) -> None:
    z = np.round(np.arange(40) * 0.01, 2)
    survey = replace(run.survey, grid=GRID)
    given = replace(run, survey=survey, spec_z=z, photo_z=z, dered_petro_r=np.full(40, 16.0))
    filled = results.figure_n_of_z({"full": given}).axes[0].patches[0]
    np.testing.assert_allclose(filled.get_data().values, 1 / 40)


def test_n_of_z_shows_what_p_z_say_where_a_run_has_it(run: Run, tmp_path: Path) -> None:
    write_newer(write_run(tmp_path, KINDS[-1], 1, n=200))
    newer = read_run(next(tmp_path.glob("*/*/*")))
    figure = results.figure_n_of_z({"full": newer, "none": run})
    inferred, stacked = figure.axes[0].lines
    for line in (inferred, stacked):
        np.testing.assert_allclose(line.get_xydata(), np.c_[newer.survey.grid.centres, np.full(90, 1 / 90)])
    assert figure.axes[0].texts[0].get_text().endswith("\nstacked 0.030\ninferred 0.040")
    assert not figure.axes[1].lines
    assert "stacked" in figure.get_supxlabel()
    assert "stacked" not in results.figure_n_of_z({"none": run}).get_supxlabel()


def test_n_of_z_shows_estimates_beyond_the_survey(run: Run) -> None:
    wide = replace(run, spec_z=np.full(500, 0.39), photo_z=np.linspace(0.38, 0.45, 500))
    assert results.figure_n_of_z({"full": wide}).axes[0].get_xlim()[1] > 0.44


def test_no_other_beats_what_is_on_the_front() -> None:
    points = np.array([[1.0, 4.0], [2.0, 2.0], [2.0, 2.0], [2.0, 3.0], [4.0, 1.0], [5.0, 1.0], [np.nan, 0.0]])
    assert comparison.non_dominated(points).tolist() == [True, True, True, False, True, False, False]
    points = np.random.default_rng(0).uniform(size=(60, 3))
    beaten = [any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert comparison.non_dominated(points).tolist() == [not b for b in beaten]


def test_pareto_names_every_correction_once_where_it_can_be_read() -> None:
    rng = np.random.default_rng(1)
    many = [row(name, *rng.uniform(0.0, 0.3, 2)) for name in style.ALTERNATIVES]
    figure = comparison.figure_pareto(many, 0.06)
    figure.draw_without_rendering()
    (ax, _) = figure.axes
    texts = [t for t in ax.texts if not t.get_text().startswith("floor")]
    assert sorted(t.get_text() for t in texts) == sorted(style.ALTERNATIVES)
    boxes = [t.get_window_extent() for t in texts]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    frame = ax.get_window_extent()
    assert all(frame.x0 <= b.x0 and b.x1 <= frame.x1 and frame.y0 <= b.y0 for b in boxes)


def test_bars_of_absolute_slopes_end_at_zero() -> None:
    line = sweep_line("full")
    figure = comparison.figure_sweep(AXIS, [line])
    (points, _, (bars,)) = figure.axes[0].containers[0]
    np.testing.assert_allclose(points.get_ydata(), [0.1, 0.2, 0.3])
    assert min(segment[:, 1].min() for segment in bars.get_segments()) >= 0.0


def test_every_correction_has_its_own_mark() -> None:
    names = [name for name in ORDER if name not in ("none",)]  # which is Step 1's own output
    marks = {(style.colour_of(name), style.look_of(name)[1]) for name in names}
    assert len(marks) == len(names)
    assert style.colour_of("none") == style.colour_of("Step 1")


def test_a_name_unheard_of_has_one_mark_that_no_known_one_has() -> None:
    unheard = [f"method {i}" for i in range(40)]
    known = {(style.colour_of(name), style.look_of(name)[1]) for name in ORDER}
    assert not known & {(style.colour_of(name), style.look_of(name)[1]) for name in unheard}
    assert len({(style.colour_of(name), style.look_of(name)[1]) for name in unheard}) > 10
    assert style.colour_of("method 1 · threshold=20") == style.colour_of("method 1")


def test_one_value_or_nan_pit_still_draws(run: Run) -> None:
    z = np.array([0.1, 0.1])
    empty = replace(run, spec_z=z, photo_z=z, pit=np.array([np.nan, np.nan]))
    assert style.as_svg(results.figure_pit({"full": empty}))
    assert style.as_svg(results.figure_density({"full": empty}))


def test_counts_lose_none_of_the_galaxies(arrays: dict[str, np.ndarray]) -> None:
    figure = labels.figure_counts(arrays, SURVEY)
    assert figure.axes[0].get_title(loc="left") == f"Training set: {arrays['before'].sum():,} galaxies"


def test_labels_name_their_cells_and_shifts(arrays: dict[str, np.ndarray]) -> None:
    axes = labels.figure_labels(arrays, SURVEY).axes
    assert [ax.get_title(loc="left") for ax in axes] == [
        f"r 14-14.5, spec_z {z:.3f}" for z in (0.4 / 90 * np.array([5.5, 40.5, 85.5]))
    ]
    # Three bins of 0.4 / 90 up, none, and three down.
    assert [ax.texts[0].get_text().split()[1] for ax in axes] == ["+0.013", "0.000", "\N{MINUS SIGN}0.013"]


def test_labels_are_drawn_from_the_arrays_of_a_folder(tmp_path: Path) -> None:
    def drawn() -> dict[str, int]:
        labels.draw_labels(tmp_path, SURVEY)
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}

    assert not drawn()
    write_labels(tmp_path)
    (tmp_path / "counts.npz").unlink()
    some = drawn()
    assert some.keys() == {"dispersions.png", "labels.png", "shift.png"}
    assert drawn() == some  # not once more
    write_labels(tmp_path)
    every = drawn()
    assert every == some | {"counts.png": every["counts.png"]}


def test_figure_without_panels_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        results.figure_pit({})


def test_distributions_of_a_data_set_show_the_target_by_split() -> None:
    rng = np.random.default_rng(0)
    split = np.repeat(["train", "test"], 100)
    columns = {name: rng.uniform(size=200) for name in ("log_mass", "spec_z")}
    mass, spec_z = data.figure_distributions(columns, split, Target(**MASS)).axes
    assert (mass.get_xlabel(), spec_z.get_xlabel()) == ("stellar mass  [dex]", "spectroscopic redshift")
    assert [t.get_text() for t in mass.get_legend().get_texts()] == ["train", "test"]
    assert spec_z.get_legend() is None
