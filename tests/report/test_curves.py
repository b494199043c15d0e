from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import KINDS, MASS, Kind, write_run

from photoz_lit import metrics
from photoz_lit.report import curves
from photoz_lit.report.runs import Run, read_run


def run_of(folder: Path, kind: Kind, seed: int) -> Run:
    return read_run(write_run(folder, kind, seed, n=1500))


def evaluated(run: Run) -> dict[str, float]:
    return metrics.evaluate(
        run.spec_z,
        run.photo_z,
        run.dered_petro_r,
        None,
        run.survey.grid,
        run.survey.slices,
        outlier_cut=0.05,
        rng=np.random.default_rng(0),
        n_bootstrap=2,
    )


def test_lines_have_the_slopes_of_the_metrics(tmp_path: Path) -> None:
    run = run_of(tmp_path, KINDS[0], 1)
    numbers = evaluated(run)
    assert curves.against_spec_z("Baseline", [run]).fit.slope == pytest.approx(numbers["slope_spec_z"])
    assert curves.against_photo_z("Baseline", [run]).fit.slope == pytest.approx(numbers["slope_photo_z"])


def test_one_seed_takes_its_error_from_the_metrics(tmp_path: Path) -> None:
    run = run_of(tmp_path, KINDS[0], 1)
    assert curves.against_spec_z("Baseline", [run]).fit.slope_error == run.metrics["slope_spec_z_err"]


def test_seeds_are_averaged_by_their_numbers_of_galaxies(tmp_path: Path) -> None:
    runs = [run_of(tmp_path, KINDS[0], seed) for seed in (1, 2)]
    both = curves.against_photo_z("Baseline", runs)
    single = [curves.against_photo_z("Baseline", [run]) for run in runs]
    centres = {z for c in single for z in c.binned.centre.round(9)}
    assert set(both.binned.centre) == centres
    shared = [np.flatnonzero(c.binned.centre.round(9) == both.binned.centre[3])[0] for c in single]
    mean, count = zip(
        *((c.binned.mean[i], c.binned.count[i]) for c, i in zip(single, shared, strict=True)), strict=True
    )
    assert both.binned.mean[3] == pytest.approx(np.average(mean, weights=count))
    slopes = [c.fit.slope for c in single]
    assert both.fit.slope == pytest.approx(np.median(slopes))
    assert both.fit.slope_error == pytest.approx(abs(slopes[0] - slopes[1]) / 2)


def test_tilt_of_the_simulation_is_found(tmp_path: Path) -> None:
    tilted = run_of(tmp_path, Kind("Baseline", "representation", "head=single", -0.09, 0.01, 0.0), 1)
    assert curves.against_spec_z("Baseline", [tilted]).fit.slope == pytest.approx(-0.09, abs=0.01)


def test_bias_over_the_range_is_the_rms_of_the_bins_with_enough_galaxies(tmp_path: Path) -> None:
    run = run_of(tmp_path, KINDS[0], 1)
    centres = (np.arange(40) + 0.5) * 0.01
    spec_z = np.repeat(centres[:8], [40, 40, 40, 40, 40, 40, 29, 1])
    dz = np.repeat([0.01, -0.01, 0.02, 0.0, 0.0, 0.0, 5.0, 5.0], [40, 40, 40, 40, 40, 40, 29, 1])
    wiggle = np.tile([0.004, -0.004], spec_z.size // 2)
    exact = replace(run, spec_z=spec_z, photo_z=spec_z + (dz + wiggle) * (1 + spec_z))
    found = curves.residual_rms(exact)
    rms = np.sqrt(0.0006 / 6)
    assert found["residual_rms"] == pytest.approx(rms)
    error = 0.004 / np.sqrt(39)
    assert found["residual_rms_err"] == pytest.approx(np.sqrt(0.0006) * error / (6 * rms))
    few = replace(run, spec_z=spec_z[:160], photo_z=spec_z[:160])
    assert np.isnan(curves.residual_rms(few)["residual_rms"])


def test_scatter_by_magnitude_leaves_out_slices_with_few_galaxies(tmp_path: Path) -> None:
    magnitude, sigma_mad, error = curves.sigma_mad_by_magnitude([run_of(tmp_path, KINDS[-1], 1)])
    assert 3 <= magnitude.size < 11
    assert np.all(np.diff(magnitude) > 0)
    assert np.all((sigma_mad > 0.01) & (sigma_mad < 0.02))
    assert np.all(error > 0)


def test_residuals_of_other_quantities_are_differences(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, KINDS[0], 1, n=1500, target=MASS))
    numbers = metrics.evaluate(
        run.spec_z, run.photo_z, run.dered_petro_r, None, run.survey.grid, run.survey.slices,
        outlier_cut=0.05, rng=np.random.default_rng(0), n_bootstrap=2, relative=False,
    )  # fmt: skip
    assert curves.against_spec_z("Baseline", [run]).fit.slope == pytest.approx(numbers["slope_spec_z"])
    assert curves.against_photo_z("Baseline", [run]).fit.slope == pytest.approx(numbers["slope_photo_z"])
