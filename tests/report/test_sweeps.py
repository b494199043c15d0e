import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import KINDS, write_run, write_sweep

from photoz_lit.report.figures.comparison import figure_sweep
from photoz_lit.report.page import write_report
from photoz_lit.report.runs import gather
from photoz_lit.report.sweeps import Sweep, floor_of_sweep, lines_of, reference_runs, sweeps_of

BASELINE, STEP_1, NONE, BALANCED = KINDS[:4]
SKIP_BALANCED, FULL = KINDS[-2:]


def only_sweep(folder: Path) -> Sweep:
    (sweep,) = sweeps_of(gather(folder).runs)
    return sweep


def test_runs_are_grouped_by_correction_and_value(tmp_path: Path) -> None:
    for value, tilt in ((100, -0.3), (5, -0.1), (20, -0.2)):
        kinds = [replace(FULL, tilt=tilt), replace(BALANCED, tilt=2 * tilt)]
        write_sweep(tmp_path, kinds, "correction.threshold", [value], seeds=(1, 2, 4), n=50)
    sweep = only_sweep(tmp_path)
    assert (sweep.label, sweep.scale, sweep.values) == ("number of threshold", "log", (5, 20, 100))
    balanced, full = lines_of(sweep)
    assert (balanced.label, full.label) == ("balanced", "full")
    np.testing.assert_array_equal(full.x, [5, 20, 100])
    # Seed 2 is the middle one: its slope is the tilt, and seeds 1 and 4 lie 0.002 below and 0.004 above.
    np.testing.assert_allclose(full.numbers["slope_spec_z"], [-0.1, -0.2, -0.3])
    np.testing.assert_allclose(full.spreads["slope_spec_z"], 0.003)
    np.testing.assert_allclose(balanced.numbers["slope_spec_z"], [-0.2, -0.4, -0.6])
    places, floor = floor_of_sweep([balanced, full]) or ([], [])
    np.testing.assert_array_equal(places, [5, 20, 100])
    np.testing.assert_allclose(floor, 0.06)


def test_step_1_stands_for_none(tmp_path: Path) -> None:
    write_sweep(tmp_path, [STEP_1, NONE, FULL], "survey.n_bins", [30, 90], n=50)
    assert [line.label for line in lines_of(only_sweep(tmp_path))] == ["Step 1", "full"]


def test_words_make_a_category_and_missing_values_come_last(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "data.n_train", ["null", 1000, 300], n=50)
    sweep = only_sweep(tmp_path)
    assert (sweep.scale, sweep.ticks) == ("category", ("300", "1000", "not set"))
    np.testing.assert_array_equal(lines_of(sweep)[0].x, [0, 1, 2])


def test_names_of_encoders_are_a_category(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "encoder.name", ["net_p", "fast"], n=50)
    assert only_sweep(tmp_path).ticks == ("fast", "net_p")


def test_lists_are_a_category_with_the_empty_one_first(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "data.thin", ["[0.08, 0.16, 0.1]", "[]"], n=50)
    assert only_sweep(tmp_path).ticks == ("none", "0.08, 0.16, 0.1")


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ((1, 2, 3, 4, 5), "linear"),
        ((0, 0.02, 0.2), "linear"),
        ((-1.0, 8.0), "linear"),
        ((0.125, 0.25, 1), "log"),
        ((100, 800), "log"),
        ((100, 799), "linear"),
        ((5, None), "category"),
        ((False, True), "category"),
        (("fast", "net_p"), "category"),
    ],
)
def test_the_scale_of_the_axis_follows_from_the_values(values: tuple[object, ...], scale: str) -> None:
    assert Sweep("a.b", "", values).scale == scale


def test_panels_show_the_middle_value_where_all_have_as_many_runs(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "survey.n_bins", [20, 90, 500], seeds=(1,), n=50)
    value, (run,) = reference_runs(only_sweep(tmp_path))
    assert (value, run.label) == ("90", "full · n_bins=90")


def test_a_setting_of_corrections_does_not_touch_the_representation(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "correction.threshold", [5, 20], n=50)
    for seed, threshold in ((1, 20), (2, 60)):  # whatever its settings say
        config = f"correction: {{threshold: {threshold}}}\n"
        write_run(tmp_path, BASELINE, seed, run="swept", n=50, config=config)
    sweep = only_sweep(tmp_path)
    assert sweep.values == (5, 20)
    baseline, full = lines_of(sweep)
    assert baseline.x.size == 0
    np.testing.assert_allclose(baseline.numbers["slope_spec_z"], [BASELINE.tilt - 0.001])
    floor_of_sweep([baseline, full])
    figure = figure_sweep(sweep, [baseline, full])
    dashed = [line for line in figure.axes[0].lines if line.get_label() == "Baseline"]
    assert [line.get_linestyle() for line in dashed] == ["--"]
    value, runs = reference_runs(sweep)
    assert value == "5"
    assert sorted(run.label for run in runs) == ["Baseline", "Baseline"] + ["full · threshold=5"] * 2


def test_a_correction_without_the_branch_of_a_setting_is_not_touched(tmp_path: Path) -> None:
    for threshold in (5, 20):
        config = f"correction: {{subset: {{threshold: {threshold}}}}}\n"
        config += "sweep: {axis: {correction.subset.threshold: threshold}}\n"
        kind = replace(FULL, group=f"correction=full,subset.threshold={threshold}")
        write_run(tmp_path, kind, 1, n=50, config=config)
    write_run(tmp_path, SKIP_BALANCED, 1, n=50, config="correction: {subset: null}\n")
    sweep = only_sweep(tmp_path)
    assert (sweep.values, sweep.scale) == ((5, 20), "linear")
    assert {line.label: line.x.tolist() for line in lines_of(sweep)} == {"skip_balanced": [], "full": [5, 20]}


def test_runs_that_were_there_before_the_sweep_join_it(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "survey.n_bins", [30, 60], n=50)
    write_run(tmp_path, FULL, 1, run="swept", n=50, config="survey: {n_bins: 90}\nsweep: {axis: {}}\n")
    assert only_sweep(tmp_path).values == (30, 60, 90)


def test_two_sweeps_of_one_set_keep_apart(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "survey.n_bins", [30, 60], n=50)
    write_sweep(tmp_path, [FULL], "encoder.name", ["fast", "net_p"], n=50)
    assert {sweep.key: sweep.values for sweep in sweeps_of(gather(tmp_path).runs)} == {
        "survey.n_bins": (30, 60),
        "encoder.name": ("fast", "net_p"),
    }


@pytest.mark.parametrize("config", ["", "sweep: {axis: {}}\n", "sweep: {axis: seed}\n", "a: [\n"])
def test_no_axis_no_sweep(tmp_path: Path, config: str) -> None:
    write_run(tmp_path, FULL, 1, n=50, config=config)
    assert sweeps_of(gather(tmp_path).runs) == []


def test_runs_of_other_data_do_not_share_a_sweep(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "survey.n_bins", [30, 60], n=50)
    write_sweep(tmp_path / "other", [FULL], "survey.n_bins", [60, 90], n=50, data="{n_train: 0.5}")
    for folder in (tmp_path / "other/swept/classifier").iterdir():
        folder.rename(tmp_path / "swept/classifier" / f"data.n_train=0.5,{folder.name}")
    assert [sweep.values for sweep in sweeps_of(gather(tmp_path).runs)] == [(30, 60), (60, 90)]


def test_one_value_is_no_sweep(tmp_path: Path) -> None:
    write_sweep(tmp_path, [FULL], "survey.n_bins", [30], n=50)
    assert sweeps_of(gather(tmp_path).runs) == []


def test_page_of_a_sweep_begins_with_its_figure_and_folds_the_others(
    tmp_path: Path, without_drawing: None
) -> None:
    write_sweep(tmp_path, [BALANCED, FULL], "survey.n_bins", [30, 180], seeds=(1,), n=150)
    text = write_report(tmp_path)[0].read_text(encoding="utf-8")
    headings = re.findall(r"<h3>(.*?)</h3>|<summary>(Figures.*?)</summary>", text)
    assert [a or b for a, b in headings][:5] == [
        "Sweep: number of n_bins",
        "Corrections",
        "Estimates: mode, median, individual",
        "Figures of every correction at survey.n_bins = 30",
        "Mode collapse against tilt: what no other correction beats",
    ]
    assert "2 corrections in 4 settings" in text
    assert 'class="best"' not in text  # numbers at different values do not compete
    assert "which is best at what" not in text
    assert (tmp_path / "figures/swept/sweep-number-of-n-bins.svg").is_file()
    rows = re.findall(r'<tr[^>]* data-label="([^"]*)"', text)
    assert rows == [f"{label} · n_bins={n}" for label in ("balanced", "full") for n in (30, 180)]
