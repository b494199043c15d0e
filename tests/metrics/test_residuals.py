from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from estimates import GRID, SLICES, Reference, bootstrap, sample, within_seeds

from photoz_lit import metrics
from photoz_lit.dispersion import variances

Golden = Callable[[str], dict[str, Any]]


def test_golden_reszspec(reference: Reference) -> None:
    ours = metrics.residuals_by_spec_z(
        reference.spec_z, reference.photo_z, reference["var_inst"], reference.grid
    )
    np.testing.assert_allclose(ours.centre, reference["reszspec_z"], rtol=1e-10)
    np.testing.assert_allclose(ours.mean, reference["reszspec_res"], rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(ours.error, reference["reszspec_err"], rtol=1e-10)


def test_golden_reszphoto(reference: Reference) -> None:
    """The reference drops estimates on an edge and trusts the last digit of those beside it, ours does not.

    So the former are left out by hand, and the latter moved off by 1e-10.
    """
    edges = np.arange(reference.n_wide + 1) * 0.4 / reference.n_wide
    above = reference.photo_z - edges[np.rint(reference.photo_z / 0.4 * reference.n_wide).astype(int)]
    photo_z = reference.photo_z + np.where(np.abs(above) < 1e-12, 1e-10 * np.sign(above), 0.0)
    inside = above != 0
    ours = metrics.residuals_by_photo_z(reference.spec_z[inside], photo_z[inside], reference.grid)
    np.testing.assert_allclose(ours.centre, reference["reszphoto_z"], rtol=1e-10)
    np.testing.assert_allclose(ours.mean, reference["reszphoto_res"], atol=1e-10)
    np.testing.assert_allclose(ours.error, reference["reszphoto_err"], atol=1e-10)
    everyone = metrics.residuals_by_photo_z(reference.spec_z, reference.photo_z, reference.grid)
    assert everyone.count.sum() >= len(reference.photo_z) - reference.n_wide


@pytest.mark.parametrize("name", ["reszspec", "reszphoto"])
def test_golden_fit(reference: Reference, name: str) -> None:
    """The reference's minimiser stops within 1e-6 standard errors of the optimum, which ours is exactly."""
    binned = reference.line(name)
    fit = metrics.fit_line(binned)
    golden_line, golden_error = reference[f"fit_{name}"][:2], reference[f"fit_{name}"][2:]
    line = np.array([fit.slope, fit.intercept])
    np.testing.assert_allclose(
        line, np.polyfit(binned.centre, binned.mean, 1, w=1 / binned.error), rtol=1e-10
    )
    assert np.all(np.abs(line - golden_line) < 1e-6 * golden_error)
    np.testing.assert_allclose([fit.slope_error, fit.intercept_error], golden_error, rtol=1e-7)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_golden_ressim(reference: Reference, factor: float) -> None:
    ours, _, _ = metrics.simulated_residuals(
        reference.spec_z,
        reference.r,
        reference["var_grid"],
        reference.grid,
        reference.slices,
        factor,
    )
    np.testing.assert_allclose(ours, reference[f"ressim_k{factor}"], rtol=1e-10, atol=1e-15)


def test_golden_ressim_permag(reference: Reference) -> None:
    row = 9  # part of the array's name
    _, ours, weight = metrics.simulated_residuals(
        reference.spec_z,
        reference.r,
        reference["var_grid"],
        reference.grid,
        reference.slices,
    )
    filled = np.isfinite(ours[row])
    np.testing.assert_allclose(
        ours[row][filled], reference["ressim_permag_r9"][filled], rtol=1e-10, atol=1e-15
    )
    np.testing.assert_allclose(
        weight[row][filled], reference["ressim_permag_w9"][filled], rtol=1e-10, atol=1e-15
    )


def test_golden_tv_seeds_edgefixed(reference: Reference) -> None:
    """Bootstrap mean and error of TV (the same in tv_seeds_asis) and of its floor."""
    seeds = reference["tv_seeds_edgefixed"]
    np.testing.assert_allclose(reference["tv_seeds_asis"][:, :2], seeds[:, :2], rtol=0.1)
    z, estimate = reference.spec_z, reference.photo_z
    rng = np.random.default_rng(3)
    samples = bootstrap(
        lambda draw: metrics.total_variation(z[draw], estimate[draw], reference.grid), len(z), 100, rng
    )
    within_seeds(samples.mean(), seeds[:, 0])
    np.testing.assert_allclose(metrics.standard_error(samples), seeds[:, 1].mean(), rtol=0.4)
    floor = metrics.total_variation_floor(z, estimate, reference["var_inst"], reference.grid, rng)
    within_seeds(floor.mean(), seeds[:, 2])
    np.testing.assert_allclose(metrics.standard_error(floor), seeds[:, 3].mean(), rtol=0.4)


def test_residuals_by_spec_z_weight_with_the_inverse_variance() -> None:
    binned = metrics.residuals_by_spec_z([0.101, 0.101, 0.5], [0.112, 0.134, 0.4], [1.0, 4.0, 1.0], GRID)
    dz = np.array([0.011, 0.033]) / 1.101
    np.testing.assert_allclose(binned.centre, [0.105, 0.395])
    np.testing.assert_allclose(binned.mean[0], (dz[0] + dz[1] / 4) / 1.25)
    np.testing.assert_allclose(binned.error[0], 1 / np.sqrt(1.25 * 1.101**2))
    np.testing.assert_array_equal(binned.count, [2, 1])


def test_residuals_by_photo_z_take_estimates_on_edges_and_outside() -> None:
    edges = np.arange(-5, 50) * 0.4 / 40
    photo_z = np.repeat(edges, 3)
    binned = metrics.residuals_by_photo_z(np.full(len(photo_z), 0.2), photo_z, GRID)
    np.testing.assert_array_equal(binned.count, 3)
    np.testing.assert_allclose(binned.centre, edges + 0.005, atol=1e-12)
    # Equal residuals have no scatter: the error is that of the bin's width.
    np.testing.assert_allclose(binned.error, 0.01 / 6)


def test_fit_line_recovers_a_line_and_its_errors() -> None:
    x = np.linspace(0, 0.4, 30)
    errors = np.random.default_rng(6).uniform(0.5, 2.0, 30) * 1e-3
    fits = []
    for seed in range(300):
        y = 0.01 - 0.1 * x + np.random.default_rng(seed).normal(0, errors)
        fits.append(metrics.fit_line(metrics.BinnedResiduals(x, y, errors, np.ones(30, dtype=np.int64))))
    slopes = np.array([fit.slope for fit in fits])
    assert slopes.mean() == pytest.approx(-0.1, abs=4 * slopes.std() / np.sqrt(300))
    assert np.mean([fit.slope_error for fit in fits]) == pytest.approx(slopes.std(), rel=0.15)
    intercepts = np.array([fit.intercept for fit in fits])
    assert np.mean([fit.intercept_error for fit in fits]) == pytest.approx(intercepts.std(), rel=0.15)


def test_fit_line_with_few_bins() -> None:
    def binned(n: int) -> metrics.BinnedResiduals:
        x: Any = np.arange(n) * 0.1
        return metrics.BinnedResiduals(x, 0.5 * x, np.ones(n), np.ones(n, dtype=np.int64))

    assert np.isnan(metrics.fit_line(binned(1)).slope)
    two = metrics.fit_line(binned(2))
    assert two.slope == pytest.approx(0.5)
    assert np.isnan(two.slope_error)
    assert metrics.fit_line(binned(4), z_from=0.15).slope == pytest.approx(0.5)


def test_plain_slopes_obey_the_trade() -> None:
    z, photo_z, _, _ = sample(500)
    of_spec_z, of_photo_z = metrics.plain_slope(z, photo_z - z), metrics.plain_slope(photo_z, photo_z - z)
    assert of_spec_z == pytest.approx(np.polyfit(z, photo_z - z, 1)[0])
    assert (1 + of_spec_z) * (1 - of_photo_z) == pytest.approx(np.corrcoef(z, photo_z)[0, 1] ** 2)
    assert np.isnan([metrics.plain_slope(x, x) for x in ([], [0.1], [0.2, 0.2])]).all()


def test_simulated_residuals_vanish_for_a_flat_sample_and_pull_inwards_at_its_ends() -> None:
    z = np.repeat(GRID.centres, 20)
    r = np.full(len(z), 16.5)
    curve, by_slice, _ = metrics.simulated_residuals(z, r, np.full((3, 40), 0.02**2), GRID, SLICES)
    np.testing.assert_allclose(curve[15:25], 0.0, atol=1e-10)
    assert curve[0] > 0.005
    assert curve[-1] < -0.005
    assert np.isnan(by_slice[0]).all()
    assert np.isnan(metrics.simulated_residuals([], [], np.zeros((3, 40)), GRID, SLICES)[0]).all()


def test_the_floor_reaches_the_total_variation_of_a_sample_without_collapse() -> None:
    z, estimate, r, _ = sample(4000)
    variance, _ = variances(z, estimate, r, GRID, SLICES, [2.0, 2.0])
    floor = metrics.total_variation_floor(z, estimate, variance, GRID, np.random.default_rng(7))
    assert metrics.total_variation(z, estimate, GRID) == pytest.approx(floor.mean(), abs=0.02)
    collapsed = np.round(estimate / 0.05) * 0.05
    assert metrics.total_variation(z, collapsed, GRID) > floor.mean() + 0.2


def test_simulated_differences_are_the_relative_ones_times_one_plus_z() -> None:
    z = np.random.default_rng(1).normal(0.2, 0.05, 2000).clip(0.01, 0.39)
    r, variance = np.full(2000, 16.0), np.full((3, 40), 0.02**2)
    relative, _, _ = metrics.simulated_residuals(z, r, variance, GRID, SLICES)
    difference, _, _ = metrics.simulated_residuals(z, r, variance, GRID, SLICES, relative=False)
    np.testing.assert_allclose(difference, relative * (1 + metrics.wide(GRID).centres))
