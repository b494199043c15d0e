import csv
import math
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from simulated_runs import KINDS, write_run

from photoz_lit import metrics
from photoz_lit.report.paired import KEYS, paired_rows
from photoz_lit.report.runs import Run, read_run

N = 2000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(write_run(tmp_path_factory.mktemp("run"), KINDS[0], 1, n=N))


def test_of_estimators_that_differ_by_a_shift_the_scatter_differs_by_exactly_nothing(run: Run) -> None:
    survey = replace(run.survey, target=replace(run.survey.target, residual="difference"))
    one = replace(run, survey=survey)
    (row,) = paired_rows({"Baseline": [one], "full": [replace(one, photo_z=one.photo_z + 0.01)]})
    assert (row["correction"], row["reference"], row["seeds"]) == ("full", "Baseline", 1)
    for key in ("sigma_mad", "slope_spec_z_plain", "slope_photo_z_plain", "crps"):
        assert row[key] == pytest.approx(0.0, abs=1e-12)
        assert row[f"{key}_err"] == pytest.approx(0.0, abs=1e-12)
    assert row["rms_err"] > 0
    assert math.isnan(row["rms_spread"])  # one seed has no range


def test_differences_and_their_errors(run: Run) -> None:
    rng = np.random.default_rng(0)
    spec_z = rng.uniform(0.05, 0.35, N)
    noise = rng.standard_normal(N)
    one, other = (
        replace(run, spec_z=spec_z, photo_z=spec_z + s * noise * (1 + spec_z)) for s in (0.01, 0.02)
    )
    (row,) = paired_rows({"Step 1": [one], "full": [other]})
    sigma = metrics.sigma_mad(noise)
    assert row["sigma_mad"] == pytest.approx(0.01 * sigma)
    assert row["rms"] == pytest.approx(0.01 * np.sqrt(np.mean(noise**2)))
    # The difference is 0.01 of a normal sample's rms, whose error is sqrt(1 / (2 n)): half the unpaired.
    assert row["rms_err"] == pytest.approx(0.01 / np.sqrt(2 * N), rel=0.2)
    assert row["outlier_fraction"] == pytest.approx(np.mean(np.abs(0.02 * noise) > 0.05), abs=1e-3)


def test_medians_and_half_the_range_over_seeds_in_common(tmp_path: Path) -> None:
    runs = {
        kind.label: [read_run(write_run(tmp_path, kind, seed, n=200)) for seed in seeds]
        for kind, seeds in ((KINDS[0], (1, 2, 3)), (KINDS[-1], (2, 3, 4)))
    }
    (row,) = paired_rows(runs)
    single = [
        paired_rows({"Baseline": [runs["Baseline"][i + 1]], "full": [runs["full"][i]]})[0] for i in (0, 1)
    ]
    assert row["seeds"] == 2
    for key in KEYS:
        values = [s[key] for s in single]
        assert row[key] == pytest.approx(np.mean(values))
        assert row[f"{key}_spread"] == pytest.approx(abs(values[1] - values[0]) / 2)
        assert row[f"{key}_err"] == pytest.approx(np.mean([s[f"{key}_err"] for s in single]))


def test_crps_is_that_of_p_z_on_its_own_grid(run: Run, tmp_path: Path) -> None:
    grid = run.survey.grid.extended(3, 4)
    pdf = np.random.default_rng(1).dirichlet(np.ones(grid.n_outputs), N).astype(np.float32)
    with h5py.File(tmp_path / "pdf.hdf5", "w") as file:
        file["data/pdfs"], file["meta/bins"] = pdf / grid.width, grid.edges[None]
    (row,) = paired_rows({"none": [run], "full": [replace(run, folder=tmp_path)]})
    flat = metrics.crps(np.full((N, 90), 1 / 90), run.spec_z, run.survey.grid)
    assert row["crps"] == pytest.approx(float(np.mean(metrics.crps(pdf, run.spec_z, grid) - flat)))
    (gone,) = paired_rows({"none": [run], "full": [replace(run, folder=tmp_path / "gone")]})
    assert np.isnan([gone["crps"], gone["crps_err"]]).all()
    assert gone["sigma_mad"] == 0.0


def test_other_galaxies_seeds_or_no_reference_are_not_compared(run: Run) -> None:
    others = replace(run, spec_z=run.spec_z[::-1]), replace(run, seed=2)
    assert all(paired_rows({"Baseline": [run], "full": [other]}) == [] for other in others)
    assert paired_rows({"balanced": [run], "full": [run]}) == []


def test_eight_runs_take_a_moment(run: Run) -> None:
    began = time.process_time()
    paired_rows({name: [run] for name in ("Baseline", *"abcdefg")})
    assert time.process_time() - began < 3


def test_differences_are_on_the_page_and_beside_it(finished: Path) -> None:
    with (finished / "paired-demo.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["correction"] for row in rows] == ["Step 1", "balanced", "hard", "full"]
    assert {row["reference"] for row in rows} == {"Baseline"}
    assert "Differences from Baseline, paired" in (finished / "report.html").read_text(encoding="utf-8")
