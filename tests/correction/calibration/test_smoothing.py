import inspect

import numpy as np
import pytest
from biased_survey import (
    EXPECTED,
    GRID,
    SLICES,
    Floats,
    Golden,
    Reference,
    mean_residuals,
    sample,
    survey,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz_lit import metrics
from photoz_lit.correction.calibration.deconvolution import (
    Expected,
    expected_counts,
)
from photoz_lit.correction.calibration.sample import (
    Sample,
)
from photoz_lit.correction.calibration.smoothing import (
    WIDTHS,
    Calibration,
    calibrate,
    choose_smoothing,
    fit_binned,
    fit_smooth,
)
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid


@pytest.mark.parametrize("tag", ["cont", "quant"])
@pytest.mark.parametrize("resampled", [False, True])
def test_correction_is_the_references(golden: Golden, tag: str, resampled: bool) -> None:
    reference = Reference(golden, tag)
    drawn = reference.step4["resample_seed5_multiplicity_rowsfixed_cont"].astype(float)
    corrected = reference.corrected(drawn if resampled else np.ones_like(drawn))
    name = "resampled" if resampled else "notresampled"
    expected = reference.step4[f"corr_{name}_rowsfixed_{tag}"]
    # The reference corrects neither estimates on an edge nor those in a bin without training galaxies; here
    # everyone is corrected.
    corrects = expected != reference.target_z
    np.testing.assert_allclose(corrected[corrects], expected[corrects], atol=3e-10)
    assert (~corrects[~reference.target_on_edge]).sum() < 80
    assert np.all(corrected[~corrects] != reference.target_z[~corrects])


@pytest.mark.parametrize("edge", [0.03, 0.07, 0.29])
def test_bins_are_half_open(edge: float) -> None:
    # On either side of an edge the residual is another; 0.07 / 0.01 and 0.29 / 0.01 round to below it.
    photo_z = np.array([edge - 0.005, edge + 0.005])
    fit = fit_binned(Sample(photo_z - [0.001, 0.002], photo_z, np.full(2, 16.5), np.ones(2)), SLICES)
    inside = np.array([edge - 0.01, edge - 1e-6, edge, edge + 0.00999])
    np.testing.assert_allclose(inside - fit.correct(inside, np.full(4, 16.5)), [0.001, 0.001, 0.002, 0.002])


@pytest.mark.parametrize("smooth", [False, True])
def test_every_galaxy_is_corrected(smooth: bool) -> None:
    z = np.repeat([0.1, 0.2], 50)
    one = Sample(z - np.where(z < 0.15, 0.01, 0.02), z, np.full(100, 16.5), np.ones(100))
    fit = fit_smooth(one, SLICES, 1.0, 0.0) if smooth else fit_binned(one, SLICES)
    photo_z, r = np.array([-1, 0.1, 0.12, 0.18, 0.2, 3]), np.array([10.0, 16.5, 17.5, 15.5, 16.5, 30])
    shift = photo_z - fit.correct(photo_z, r)
    np.testing.assert_allclose(shift, [0.01, 0.01, 0.01, 0.02, 0.02, 0.02], rtol=1e-6)


def test_smooth_correction_is_exact_for_a_straight_line() -> None:
    rng = np.random.default_rng(0)
    photo_z = rng.uniform(0.05, 0.35, 20000)
    one = Sample(photo_z - (0.01 - 0.1 * photo_z), photo_z, rng.uniform(15, 18, 20000), np.ones(20000))
    target, r = np.linspace(0.06, 0.34, 50), np.full(50, 16.2)
    binned, smooth = (
        fit.correct(target, r) - (target - (0.01 - 0.1 * target))
        for fit in (fit_binned(one, SLICES), fit_smooth(one, SLICES, 2.0, 0.5))
    )
    assert np.abs(smooth).max() < 1e-4
    assert np.abs(binned).max() > 3e-4


def test_more_noise_is_smoothed_more() -> None:
    def chosen(n: int) -> float:
        width, slice_width = choose_smoothing(sample(n), SLICES)
        return width * (1 + slice_width)

    assert chosen(300) > chosen(30000)


def test_smoothing_beats_plain_bins_on_few_galaxies() -> None:
    spec_z, photo_z, r = survey(20000, 5)
    mse = []
    for paper in (False, True):
        fit, _ = calibrate(sample(1500), photo_z, r, GRID, SLICES, paper=paper)
        mse.append(np.mean((fit.correct(photo_z, r) - spec_z) ** 2))
    assert mse[0] < mse[1] < np.mean((photo_z - spec_z) ** 2) + 1e-5


@pytest.mark.parametrize("paper", [False, True])
def test_residuals_of_other_galaxies_vanish(paper: bool) -> None:
    spec_z, photo_z, r = survey(20000, 2)
    fit, facts = calibrate(sample(), photo_z, r, GRID, SLICES, paper=paper)
    corrected = fit.correct(photo_z, r)
    assert mean_residuals(spec_z, photo_z) > 0.002
    assert mean_residuals(spec_z, corrected) < 0.0008
    slopes = [
        metrics.fit_line(metrics.residuals_by_photo_z(spec_z, z, GRID, min_count=10)).slope
        for z in (photo_z, corrected)
    ]
    assert abs(slopes[1]) < 0.25 * abs(slopes[0])
    assert facts.iterations == 0
    assert (facts.width > 0) != paper


@pytest.mark.parametrize("tilt", [-15.0, 12.0])
def test_deconvolved_beats_training_for_another_distribution(tilt: float) -> None:
    spec_z, photo_z, r = survey(20000, 11, tilt)
    left = {}
    for expected in EXPECTED:
        fit, facts = calibrate(sample(), photo_z, r, GRID, SLICES, expected=expected)
        left[expected] = mean_residuals(spec_z, fit.correct(photo_z, r))
        assert (facts.iterations > 0) == (facts.expected == "deconvolved")
    assert left["auto"] == left["deconvolved"]
    assert left["deconvolved"] < 0.5 * left["training"]
    assert left["deconvolved"] < left["photo"]


@pytest.mark.parametrize("tilt", [-1.0, -0.5, 0.0, 0.5, 1.0])
def test_a_shifted_n_of_z_is_never_made_worse(tilt: float) -> None:
    # Estimates without bias at given spec_z, as `full` has them: their mean dz vanishes whatever n(z) is, and
    # what is measured with the training n(z) spoils it for another one.
    def unbiased(spec_z: Floats, photo_z: Floats, r: Floats) -> tuple[Floats, Floats, Floats]:
        return spec_z, photo_z - 0.1 * (spec_z - 0.1), r

    n = 8000
    z, photo_z, r = unbiased(*survey(n, 22, tilt / 0.06))  # 0.06: the standard deviation of spec_z
    known = unbiased(*survey(20000, 1))
    found = {}
    for expected in ("training", "auto"):
        fit, facts = calibrate(Sample(*known, np.ones(20000)), photo_z, r, GRID, SLICES, expected=expected)
        found[expected] = fit.correct(photo_z, r)
    assert facts.expected == ("deconvolved" if tilt else "training")

    def mean_and_error(estimate: Floats) -> tuple[float, float]:
        dz = (estimate - z) / (1 + z)
        return abs(dz.mean()), dz.std() / np.sqrt(n)

    before, error = mean_and_error(photo_z)
    assert mean_and_error(found["auto"])[0] < before + 3 * error
    assert mean_residuals(z, found["auto"]) < mean_residuals(z, photo_z) + 3 * error
    if abs(tilt) == 1:
        assert mean_and_error(found["training"])[0] > before + 6 * error


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 100),
    expected=st.sampled_from(EXPECTED),
    paper=st.booleans(),
)
def test_a_handful_of_galaxies_is_no_error(n: int, seed: int, expected: Expected, paper: bool) -> None:
    _, photo_z, r = survey(20, seed + 1000)
    fit, facts = calibrate(sample(n, seed), photo_z, r, GRID, SLICES, expected=expected, paper=paper)
    assert np.isfinite(fit.correct(photo_z, r)).all()
    assert 1 <= facts.n_effective <= facts.n_galaxies + 1e-9


def test_the_targets_spec_z_has_no_way_in() -> None:
    for function in (calibrate, expected_counts, Calibration.correct):
        names = set(inspect.signature(function).parameters)
        assert not {name for name in names if "spec" in name}, function
    assert set(inspect.signature(Calibration.correct).parameters) == {"self", "photo_z", "dered_petro_r"}


def test_same_seed_same_calibration() -> None:
    _, photo_z, r = survey(500, 2)
    first, second = (
        calibrate(sample(1000), photo_z, r, GRID, SLICES, expected="deconvolved", paper=True, seed=4)[0]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.table, second.table)


def test_estimates_that_are_not_finite_are_refused() -> None:
    fit = fit_binned(sample(100), SLICES)
    with pytest.raises(ValueError, match="finite"):
        fit.correct([0.1, np.nan], [16.0, 16.0])
    with pytest.raises(ValueError, match="one length"):
        fit.correct([0.1, 0.2], [16.0])


def test_differences_of_another_quantity_vanish_in_its_own_bins() -> None:
    # A stellar mass with estimates too low by 0.3 at the low end: bins of 0.1, no division by 1 + truth.
    rng = np.random.default_rng(3)
    truth = rng.uniform(9.0, 11.0, 4000)
    estimate = truth - np.where(truth < 10, 0.3, 0.0) + rng.normal(0, 0.02, 4000)
    r, grid = np.full(4000, 16.0), RedshiftGrid(8.0, 12.0, 40)
    slices = MagnitudeSlices(15.0, 1.0, 3)
    sample = Sample(truth, estimate, r, np.ones(4000))
    found, _ = calibrate(sample, estimate, r, grid, slices, paper=True, relative=False, bin_width=0.1)
    assert found.width == 0.1
    left = found.correct(estimate, r) - truth
    bins = np.floor(estimate / 0.1 + 1e-9)
    for k in np.unique(bins):
        assert abs(left[bins == k].mean()) < 1e-9
    smooth, facts = calibrate(sample, estimate, r, grid, slices, relative=False, bin_width=0.1)
    assert facts.width in WIDTHS
    assert np.abs(smooth.correct(estimate, r) - truth).mean() < 0.5 * np.abs(estimate - truth).mean()
