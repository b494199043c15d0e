import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import cramervonmises, kstest, norm, wasserstein_distance

from photoz_lit import metrics
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

Golden = Callable[[str], dict[str, Any]]

GRID = RedshiftGrid(0.0, 0.4, 40)
EXTENDED = GRID.extended(20, 20)
SLICES = MagnitudeSlices(15.0, 1.0, 3)
TAGS = ["cont", "quant"]


class Reference:
    """The golden sample with the sizes that follow from the arrays."""

    def __init__(self, arrays: dict[str, Any], tag: str) -> None:
        self.arrays, self.tag = arrays, tag
        n_slices, n_bins = arrays[f"var_grid_{tag}"].shape
        self.grid = RedshiftGrid(0.0, 0.4, n_bins)
        self.slices = MagnitudeSlices(12.5, 0.5, n_slices)
        self.spec_z, self.r, self.photo_z = arrays["zspec"], arrays["r"], arrays[f"zphoto_{tag}"]
        self.n_wide = len(self["ressim_k1.0"])

    def __getitem__(self, name: str) -> Any:
        return self.arrays[f"{name}_{self.tag}"]

    def line(self, name: str) -> metrics.BinnedResiduals:
        z, mean, error = (self[f"{name}_{part}"] for part in ("z", "res", "err"))
        return metrics.BinnedResiduals(z, mean, error, np.ones(len(z), dtype=np.int64))


@pytest.fixture(scope="module", params=TAGS)
def reference(request: pytest.FixtureRequest, golden: Golden) -> Reference:
    return Reference(golden("a1_metrics"), request.param)


def within_seeds(value: Any, seeds: Any) -> None:
    """Check that a bootstrap mean, which scatters as the seeds do, lies within their scatter."""
    scatter = seeds.std(axis=0, ddof=1) + 1e-3 * np.abs(seeds.mean(axis=0))
    assert np.all(np.abs(value - seeds.mean(axis=0)) < 6 * scatter)


def test_golden_var_inst_and_var_grid(reference: Reference) -> None:
    per_galaxy, table = metrics.variances(
        reference.spec_z,
        reference.photo_z,
        reference.r,
        reference.arrays["siglist"],
        reference.grid,
        reference.slices,
    )
    np.testing.assert_allclose(table, reference["var_grid"], rtol=1e-10)
    np.testing.assert_allclose(per_galaxy, reference["var_inst"], rtol=1e-10)


def test_golden_reszspec(reference: Reference) -> None:
    ours = metrics.residuals_by_spec_z(
        reference.spec_z, reference.photo_z, reference["var_inst"], reference.grid, reference.n_wide
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
    ours = metrics.residuals_by_photo_z(
        reference.spec_z[inside], photo_z[inside], reference.grid, reference.n_wide
    )
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
    ours = metrics.simulated_residuals(
        reference.spec_z,
        reference.r,
        reference["var_grid"],
        reference.grid,
        reference.slices,
        factor,
        reference.n_wide,
    )
    np.testing.assert_allclose(ours.mean, reference[f"ressim_k{factor}"], rtol=1e-10, atol=1e-15)


def test_golden_ressim_permag(reference: Reference) -> None:
    row = 9  # part of the array's name
    ours = metrics.simulated_residuals(
        reference.spec_z,
        reference.r,
        reference["var_grid"],
        reference.grid,
        reference.slices,
        n_bins=reference.n_wide,
    )
    filled = np.isfinite(ours.by_slice[row])
    np.testing.assert_allclose(
        ours.by_slice[row][filled], reference["ressim_permag_r9"][filled], rtol=1e-10, atol=1e-15
    )
    np.testing.assert_allclose(
        ours.weight[row][filled], reference["ressim_permag_w9"][filled], rtol=1e-10, atol=1e-15
    )


def test_golden_noboot(reference: Reference) -> None:
    """The arrays tv_noboot, wdist_noboot, sigmad_noboot and rmean_noboot."""
    z, estimate = reference.spec_z, reference.photo_z
    rng = np.random.default_rng(0)
    tv = metrics.total_variation(z, estimate, reference.grid)
    np.testing.assert_allclose(tv, reference["tv_noboot"], rtol=1e-10)
    slices = metrics.by_magnitude(
        z, estimate, reference.r, reference.slices.edges, outlier_cut=0.05, rng=rng, n_bootstrap=2
    )
    np.testing.assert_allclose(slices.sigma_mad, reference["sigmad_noboot"], rtol=1e-10)
    np.testing.assert_allclose(slices.r, reference["rmean_noboot"], rtol=1e-10)
    edges = np.linspace(
        reference.slices.edges[0], reference.slices.edges[-1], len(reference["wdist_noboot"]) + 1
    )
    wide = metrics.by_magnitude(
        z, estimate, reference.r, edges, outlier_cut=0.05, rng=rng, n_bootstrap=2, grid=reference.grid
    )
    np.testing.assert_allclose(wide.wasserstein, reference["wdist_noboot"], rtol=1e-10)


def test_golden_sigmad_seeds(reference: Reference) -> None:
    seeds = reference["sigmad_seeds"]
    rng = np.random.default_rng(1)
    table = metrics.by_magnitude(
        reference.spec_z, reference.photo_z, reference.r, reference.slices.edges, outlier_cut=0.05, rng=rng
    )
    np.testing.assert_allclose(table.r_err, seeds[:, 1].mean(axis=0), rtol=0.4)
    np.testing.assert_allclose(table.sigma_mad_err, seeds[:, 3].mean(axis=0), rtol=0.4)
    dz = metrics.residuals(reference.spec_z, reference.photo_z)
    rows = reference.slices.index(reference.r)
    for row in range(reference.slices.n_slices):
        part = dz[rows == row]

        def statistic(draw: Any, part: Any = part) -> float:
            return metrics.sigma_mad(part[draw])

        samples = metrics.bootstrap(statistic, len(part), 100, rng)
        within_seeds(samples.mean(), seeds[:, 2, row])


def test_golden_wdist_seeds(reference: Reference) -> None:
    """Only the distance and its error: the reference's magnitudes are wrong."""
    seeds = reference["wdist_seeds"]
    n_rows = seeds.shape[2]
    edges = np.linspace(reference.slices.edges[0], reference.slices.edges[-1], n_rows + 1)
    row = np.clip(np.searchsorted(edges, reference.r, side="right") - 1, 0, n_rows - 1)
    rng = np.random.default_rng(2)
    for i in range(n_rows):
        z, estimate = reference.spec_z[row == i], reference.photo_z[row == i]

        def statistic(draw: Any, z: Any = z, estimate: Any = estimate) -> float:
            return metrics.wasserstein(z[draw], estimate[draw], reference.grid)

        samples = metrics.bootstrap(statistic, len(z), 100, rng)
        within_seeds(samples.mean(), seeds[:, 2, i])
        np.testing.assert_allclose(metrics.standard_error(samples), seeds[:, 3, i].mean(), rtol=0.4)


def test_golden_tv_seeds_edgefixed(reference: Reference) -> None:
    """Bootstrap mean and error of TV (the same in tv_seeds_asis) and of its floor."""
    seeds = reference["tv_seeds_edgefixed"]
    np.testing.assert_allclose(reference["tv_seeds_asis"][:, :2], seeds[:, :2], rtol=0.1)
    z, estimate = reference.spec_z, reference.photo_z
    rng = np.random.default_rng(3)
    samples = metrics.bootstrap(
        lambda draw: metrics.total_variation(z[draw], estimate[draw], reference.grid), len(z), 100, rng
    )
    within_seeds(samples.mean(), seeds[:, 0])
    np.testing.assert_allclose(metrics.standard_error(samples), seeds[:, 1].mean(), rtol=0.4)
    floor = metrics.total_variation_floor(
        z, estimate, reference["var_inst"], reference.grid, rng, n_bins=reference.n_wide
    )
    within_seeds(floor.mean(), seeds[:, 2])
    np.testing.assert_allclose(metrics.standard_error(floor), seeds[:, 3].mean(), rtol=0.4)


@pytest.mark.parametrize(("pdf", "stats"), [("s12_mixture", "s12_stats"), ("s0_p", "s0_stats")])
def test_golden_a3_stats(golden: Golden, pdf: str, stats: str) -> None:
    """Mean residual, sigma_mad, outlier fraction and CRPS of s12_stats and s0_stats."""
    arrays = golden("a3_loss")
    grid, z = RedshiftGrid(0.0, 0.4, arrays[pdf].shape[1]), arrays["z"]
    dz = metrics.residuals(z, metrics.mode(arrays[pdf], grid))
    ours = [
        metrics.bias(dz),
        metrics.sigma_mad(dz),
        metrics.outlier_fraction(dz, 0.05),
        metrics.crps(arrays[pdf], z, grid, inside_bin="step").mean(),
    ]
    np.testing.assert_allclose(ours, arrays[stats][1:], rtol=1e-5)


def gaussian_pdf(centre: Any, sigma: float, grid: RedshiftGrid) -> Any:
    return np.diff(norm.cdf(grid.edges[None, :], np.asarray(centre)[:, None], sigma), axis=1)


def sample(n: int, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    spec_z = np.clip(rng.gamma(4.0, 0.03, n), 0.001, 0.399)
    photo_z = spec_z + rng.normal(0, 0.02, n)
    return spec_z, photo_z, rng.uniform(15, 18, n), gaussian_pdf(photo_z, 0.02, EXTENDED)


def test_scatter_and_bias_of_known_numbers() -> None:
    dz = np.array([-0.1, 0.0, 0.0, 0.01, 0.2])
    assert metrics.bias(dz) == pytest.approx(0.022)
    assert metrics.bias(dz, "median") == 0.0
    assert metrics.sigma_mad(dz) == pytest.approx(1.4826 * 0.01)
    assert metrics.sigma_iqr(dz) == pytest.approx(0.01 / 1.349)
    assert metrics.outlier_fraction(dz, 0.05) == pytest.approx(0.4)
    assert metrics.rail_outlier_cut(dz) == 0.06
    assert metrics.rail_outlier_cut(10 * dz) == pytest.approx(0.3 / 1.349)
    np.testing.assert_allclose(metrics.residuals([1.0], [1.2]), [0.1])


def test_both_scatters_are_the_standard_deviation_of_a_normal_distribution() -> None:
    dz = np.random.default_rng(0).normal(0, 0.02, 200_000)
    assert metrics.sigma_mad(dz) == pytest.approx(0.02, rel=0.01)
    assert metrics.sigma_iqr(dz) == pytest.approx(0.02, rel=0.01)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.floats(-1, 1))
def test_scatter_does_not_see_an_offset(values: list[float], offset: float) -> None:
    dz = np.array(values)
    assert metrics.sigma_mad(dz + offset) == pytest.approx(metrics.sigma_mad(dz), abs=1e-9)
    assert metrics.sigma_iqr(dz + offset) == pytest.approx(metrics.sigma_iqr(dz), abs=1e-9)
    assert metrics.bias(dz + offset) == pytest.approx(metrics.bias(dz) + offset, abs=1e-9)


def test_nothing_is_undefined_loudly() -> None:
    for statistic in (
        metrics.bias,
        metrics.sigma_mad,
        metrics.sigma_iqr,
        metrics.rail_outlier_cut,
        metrics.pit_ks,
        metrics.pit_cvm,
    ):
        assert np.isnan(statistic([]))
    assert np.isnan(metrics.outlier_fraction([], 0.05))
    assert np.isnan(metrics.total_variation([], [], GRID))
    assert np.isnan(metrics.wasserstein([], []))
    assert np.isnan(metrics.total_variation_floor([], [], [], GRID, np.random.default_rng(0))).all()
    assert metrics.crps(np.empty((0, 40)), [], GRID).shape == (0,)
    assert metrics.cde_loss(np.empty((0, 40)), [], GRID).shape == (0,)
    nothing = metrics.pdf_scores(np.empty((0, 40)), [], GRID).summary(np.arange(0))
    assert np.isnan(list(nothing.values())).all()
    assert metrics.median(np.empty((0, 40)), GRID).shape == (0,)


def test_crps_of_a_step_function_is_the_distance_to_it() -> None:
    # One narrow bin far away: the distribution is a step but for the bin's width.
    grid = RedshiftGrid(0.0, 1.0, 1000)
    pdf = np.zeros((3, 1000))
    pdf[:, 300] = 1.0
    score = metrics.crps(pdf, [0.8, 0.1, -0.5], grid)
    # Exactly: the distance to the bin's centre less a sixth of the width.
    np.testing.assert_allclose(score, np.abs(np.array([0.8, 0.1, -0.5]) - 0.3005) - 1e-3 / 6, rtol=1e-12)


def test_crps_of_a_uniform_distribution_in_closed_form() -> None:
    z = np.array([0.0, 0.1, 0.25, 0.4])
    t = z / 0.4
    expected = 0.4 * (t**3 + (1 - t) ** 3) / 3
    np.testing.assert_allclose(metrics.crps(np.full((4, 40), 1 / 40), z, GRID), expected, rtol=1e-12)


def test_crps_of_a_gaussian_in_closed_form() -> None:
    grid, sigma = RedshiftGrid(0.0, 1.0, 1000), 0.05
    z = np.array([0.42, 0.5, 0.63])
    x = (z - 0.5) / sigma
    expected = sigma * (x * (2 * norm.cdf(x) - 1) + 2 * norm.pdf(x) - 1 / np.sqrt(np.pi))
    pdf = gaussian_pdf(np.full(3, 0.5), sigma, grid)
    np.testing.assert_allclose(metrics.crps(pdf, z, grid), expected, rtol=1e-4)
    np.testing.assert_allclose(metrics.crps(pdf, z, grid, "step"), expected, rtol=0.05)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-0.3, 0.7))
def test_crps_equals_its_integral(seed: int, z: float) -> None:
    pdf = np.random.default_rng(seed).dirichlet(np.ones(80))[None, :]
    x = np.linspace(-0.5, 0.9, 140_001)
    cdf = np.interp(x, EXTENDED.edges, np.concatenate([[0.0], np.cumsum(pdf[0])]))
    integral = np.trapezoid((cdf - (x >= z)) ** 2, x)
    np.testing.assert_allclose(metrics.crps(pdf, [z], EXTENDED)[0], integral, atol=3e-5)


def test_crps_does_not_see_empty_extension() -> None:
    z, _, _, _ = sample(50)
    pdf = np.random.default_rng(1).dirichlet(np.ones(40), 50)
    padded = np.pad(pdf, ((0, 0), (20, 20)))
    np.testing.assert_allclose(metrics.crps(padded, z, EXTENDED), metrics.crps(pdf, z, GRID), rtol=1e-10)
    np.testing.assert_allclose(metrics.pit(padded, z, EXTENDED), metrics.pit(pdf, z, GRID), rtol=1e-10)


def test_pit_is_uniform_for_calibrated_distributions_and_not_for_others() -> None:
    rng = np.random.default_rng(4)
    centre = rng.uniform(0.1, 0.3, 5000)
    z = rng.normal(centre, 0.02)
    calibrated = metrics.pit(gaussian_pdf(centre, 0.02, EXTENDED), z, EXTENDED)
    narrow = metrics.pit(gaussian_pdf(centre, 0.01, EXTENDED), z, EXTENDED)
    assert kstest(calibrated, "uniform").pvalue > 0.01
    assert kstest(narrow, "uniform").pvalue < 1e-10
    assert metrics.pit_ks(narrow) == pytest.approx(kstest(narrow, "uniform").statistic)


def test_pit_of_one_hot_distributions() -> None:
    pdf = np.zeros((5, 40))
    pdf[:, 10] = 1.0
    z = [0.05, 0.1, 0.1025, 0.2, 7.0]
    np.testing.assert_allclose(metrics.pit(pdf, z, GRID), [0, 0, 0.25, 1, 1], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_pit_cvm_is_the_statistic_of_scipy_per_galaxy(seed: int, n: int) -> None:
    u = np.random.default_rng(seed).beta(0.5, 1.0, n)
    assert metrics.pit_cvm(u) == pytest.approx(cramervonmises(u, "uniform").statistic / n, rel=1e-9)


def test_pit_cvm_of_known_samples() -> None:
    assert metrics.pit_cvm(np.zeros(7)) == pytest.approx(1 / 3)
    assert metrics.pit_cvm((np.arange(10) + 0.5) / 10) == pytest.approx(1 / 1200)
    rng = np.random.default_rng(12)
    distances = np.array([metrics.pit_cvm(rng.uniform(size=50)) for _ in range(2000)])
    error = distances.std() / np.sqrt(2000)
    assert distances.mean() == pytest.approx(1 / 300, abs=4 * error)


def test_cde_loss_of_a_uniform_distribution() -> None:
    """Inside, 1/L - 2/L; outside the grid the density is zero, and 1/L remains."""
    loss = metrics.cde_loss(np.full((5, 40), 3.0), [0.0, 0.123, 0.4, -0.01, 0.41], GRID)
    np.testing.assert_allclose(loss, [-2.5, -2.5, -2.5, 2.5, 2.5])


def test_cde_loss_of_a_gaussian_in_closed_form() -> None:
    grid, sigma = RedshiftGrid(0.0, 1.0, 2000), 0.05
    z = np.array([0.43025, 0.50025, 0.60025])  # centres of bins
    expected = 1 / (2 * np.sqrt(np.pi) * sigma) - 2 * norm.pdf(z, 0.5, sigma)
    loss = metrics.cde_loss(gaussian_pdf(np.full(3, 0.5), sigma, grid), z, grid)
    np.testing.assert_allclose(loss, expected, atol=1e-3)


def test_cde_loss_is_least_for_the_true_density() -> None:
    rng, sigma = np.random.default_rng(13), 0.02
    centre = rng.uniform(0.1, 0.3, 5000)
    z = rng.normal(centre, sigma)
    grid = RedshiftGrid(0.0, 0.4, 200, 50, 50)

    def loss(offset: float, width: float) -> Any:
        return metrics.cde_loss(gaussian_pdf(centre + offset, width, grid), z, grid)

    truth = loss(0.0, sigma)
    error = truth.std() / np.sqrt(len(truth))
    assert truth.mean() == pytest.approx(-1 / (2 * np.sqrt(np.pi) * sigma), abs=4 * error)
    for wrong in (loss(0.01, sigma), loss(0.0, sigma / 2), loss(0.0, 2 * sigma)):
        excess = wrong - truth
        assert excess.mean() > 10 * excess.std() / np.sqrt(len(excess))


@pytest.mark.parametrize("level", [0.68, 0.95])
@pytest.mark.parametrize("assumed", [0.5, 1.0, 2.0])
def test_coverage_of_a_gaussian_in_closed_form(level: float, assumed: float) -> None:
    """An interval of the assumed width holds the probability 2 Phi(assumed x quantile) - 1."""
    n, sigma, rng = 5000, 0.02, np.random.default_rng(14)
    grid, centre = RedshiftGrid(0.0, 0.4, 200, 50, 50), rng.uniform(0.1, 0.3, n)
    inside = metrics.covered(
        gaussian_pdf(centre, assumed * sigma, grid), rng.normal(centre, sigma), grid, level
    )
    expected = 2 * norm.cdf(assumed * norm.ppf(0.5 + level / 2)) - 1
    assert inside.mean() == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / n))


def test_covered_takes_both_ends_and_nothing_beyond_the_grid() -> None:
    pdf = np.full((5, 40), 1 / 40)
    low, high = metrics.interval(pdf[:1], GRID)[0]
    inside = metrics.covered(pdf, [low, high, low - 1e-9, high + 1e-9, 0.5], GRID)
    np.testing.assert_array_equal(inside, [True, True, False, False, False])


def test_point_estimates() -> None:
    pdf = np.zeros((2, 40))
    pdf[0, [4, 5]], pdf[1, 20] = [0.75, 0.25], 1.0
    np.testing.assert_allclose(metrics.mode(pdf, GRID), [0.045, 0.205])
    np.testing.assert_allclose(metrics.mean(pdf, GRID), [0.0475, 0.205])
    np.testing.assert_allclose(metrics.median(pdf, GRID), [0.04 + 0.01 * 2 / 3, 0.205])
    np.testing.assert_allclose(metrics.interval(pdf, GRID)[1], [0.2016, 0.2084])
    centred = gaussian_pdf([0.2], 0.03, EXTENDED)
    np.testing.assert_allclose(metrics.interval(centred, EXTENDED, 0.6827)[0], [0.17, 0.23], atol=5e-4)


def test_float32_distributions_give_the_same_numbers() -> None:
    z, _, _, pdf = sample(200)
    single = pdf.astype(np.float32)
    np.testing.assert_allclose(metrics.crps(single, z, EXTENDED), metrics.crps(pdf, z, EXTENDED), rtol=1e-4)
    np.testing.assert_allclose(metrics.mean(single, EXTENDED), metrics.mean(pdf, EXTENDED), rtol=1e-5)


def test_a_broken_distribution_is_an_error() -> None:
    for bad in (np.full((1, 40), np.nan), np.zeros((1, 40)), np.full((1, 40), -1.0)):
        with pytest.raises(ValueError, match="finite, not negative"):
            metrics.crps(bad, [0.1], GRID)
    with pytest.raises(ValueError, match="fit together"):
        metrics.pit(np.ones((1, 39)), [0.1], GRID)
    with pytest.raises(ValueError, match="shape"):
        metrics.cumulative(np.ones(40))


def test_trainz_is_the_training_distribution_for_everyone() -> None:
    pdf = metrics.trainz([0.005, 0.005, 0.205, 0.395], EXTENDED, 3)
    assert pdf.shape == (3, 80)
    np.testing.assert_allclose(pdf[:, [20, 40, 59]], [[0.5, 0.25, 0.25]] * 3)
    rng = np.random.default_rng(5)
    z = rng.uniform(0, 0.4, 20_000)
    transform = metrics.pit(metrics.trainz(z[:10_000], GRID, 10_000), z[10_000:], GRID)
    assert metrics.pit_ks(transform) < 0.03
    with pytest.raises(ValueError, match="at least one"):
        metrics.trainz([], GRID, 1)


def test_variances_are_floored_for_galaxies_only() -> None:
    z, r = np.full(5, 0.1), np.full(5, 16.5)
    per_galaxy, table = metrics.variances(z, z, r, 1.0, GRID, SLICES)
    assert not table.any()
    np.testing.assert_allclose(per_galaxy, 0.01**2 / 12)


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


def test_simulated_residuals_vanish_for_a_flat_sample_and_pull_inwards_at_its_ends() -> None:
    z = np.repeat(GRID.centres, 20)
    r = np.full(len(z), 16.5)
    curve = metrics.simulated_residuals(z, r, np.full((3, 40), 0.02**2), GRID, SLICES)
    np.testing.assert_allclose(curve.mean[15:25], 0.0, atol=1e-10)
    assert curve.mean[0] > 0.005
    assert curve.mean[-1] < -0.005
    assert np.isnan(curve.by_slice[0]).all()
    assert np.isnan(metrics.simulated_residuals([], [], np.zeros((3, 40)), GRID, SLICES).mean).all()


def test_total_variation_of_disjoint_and_equal_samples() -> None:
    z = GRID.centres
    assert metrics.total_variation(z, z, GRID) == 0.0
    assert metrics.total_variation(z[:20], z[20:], GRID) == 1.0
    # Estimates outside count in the end bins.
    assert metrics.total_variation([0.001, 0.399], [-0.2, 0.6], GRID) == 0.0


def test_the_floor_reaches_the_total_variation_of_a_sample_without_collapse() -> None:
    z, estimate, r, _ = sample(4000)
    variance, _ = metrics.variances(z, estimate, r, 2.0, GRID, SLICES)
    floor = metrics.total_variation_floor(z, estimate, variance, GRID, np.random.default_rng(7))
    assert metrics.total_variation(z, estimate, GRID) == pytest.approx(floor.mean(), abs=0.02)
    collapsed = np.round(estimate / 0.05) * 0.05
    assert metrics.total_variation(z, collapsed, GRID) > floor.mean() + 0.2


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_wasserstein_equals_scipy(seed: int, n: int) -> None:
    a, b = np.random.default_rng(seed).uniform(0, 0.4, (2, n))
    assert metrics.wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b), abs=1e-12)
    binned = wasserstein_distance(GRID.centres[GRID.index(a)], GRID.centres[GRID.index(b)])
    assert metrics.wasserstein(a, b, GRID) == pytest.approx(binned, abs=1e-12)


def test_bootstrap_error_of_a_mean() -> None:
    values = np.random.default_rng(8).normal(0, 1, 400)
    samples = metrics.bootstrap(lambda draw: values[draw].mean(), 400, 500, np.random.default_rng(9))
    assert metrics.standard_error(samples) == pytest.approx(0.05, rel=0.15)
    np.testing.assert_array_equal(metrics.standard_error([[1.0, np.nan], [3.0, 2.0]]), [1.0, np.nan])


def test_by_magnitude_with_an_empty_row() -> None:
    z, estimate, _, _ = sample(100)
    r = np.where(np.arange(100) < 99, 15.5, 17.5)
    table = metrics.by_magnitude(
        z, estimate, r, SLICES.edges, outlier_cut=0.05, rng=np.random.default_rng(0), n_bootstrap=10
    )
    np.testing.assert_array_equal(table.count, [99, 0, 1])
    assert np.isnan(table.sigma_mad[1])
    assert np.isnan(table.sigma_mad_err[1])
    assert table.sigma_mad_err[2] == 0.0
    assert table.r[0] == pytest.approx(15.5)


def test_by_redshift_sees_each_bin_alone() -> None:
    z, estimate, _, pdf = sample(3000)
    narrow = gaussian_pdf(estimate, 0.008, EXTENDED)
    scores = metrics.pdf_scores(np.where(z[:, None] < 0.1, pdf, narrow), z, EXTENDED)
    edges = np.array([0.0, 0.1, 0.3, 0.35, 9.0])
    table = metrics.by_redshift(
        z, estimate, scores, edges, outlier_cut=0.05, rng=np.random.default_rng(0), n_bootstrap=50
    )
    assert table["count"].sum() == 3000
    part = (z >= 0.1) & (z < 0.3)
    assert table["count"][1] == part.sum()
    assert table["bias"][1] == pytest.approx(metrics.residuals(z, estimate)[part].mean())
    assert table["spec_z"][1] == pytest.approx(z[part].mean())
    assert table["crps"][1] == pytest.approx(metrics.crps(narrow, z, EXTENDED)[part].mean())
    assert table["pit_ks"][1] == metrics.pit_ks(metrics.pit(narrow, z, EXTENDED)[part])
    share = metrics.covered(narrow, z, EXTENDED)[part].mean()
    assert table["coverage_68"][1] == pytest.approx(share)
    assert table["coverage_68_err"][1] == pytest.approx(np.sqrt(share * (1 - share) / part.sum()), rel=0.4)
    assert table["coverage_68"][0] > table["coverage_68"][1] + 0.2
    assert (table["coverage_68"] <= table["coverage_95"]).all()


def test_by_group_with_an_empty_group() -> None:
    scores = metrics.pdf_scores(np.full((3, 40), 1 / 40), [0.1, 0.2, 0.3], GRID)
    table = metrics.by_group(scores.summary, [0, 2, 2], 3, rng=np.random.default_rng(0), n_bootstrap=10)
    np.testing.assert_array_equal(table["count"], [1, 0, 2])
    np.testing.assert_allclose(table["cde_loss"], [-2.5, np.nan, -2.5])
    np.testing.assert_allclose(table["cde_loss_err"], [0, np.nan, 0], atol=1e-12)


KEYS = [
    "bias",
    "sigma_mad",
    "outlier_fraction",
    "crps",
    "pit_ks",
    "pit_cvm",
    "cde_loss",
    "coverage_68",
    "coverage_95",
    "slope_spec_z",
    "slope_spec_z_high",
    "slope_photo_z",
    "total_variation",
    "total_variation_floor",
    "wasserstein",
]


def test_evaluate_gives_all_keys_fast_and_the_same_by_seed() -> None:
    z, estimate, r, _ = sample(4000)
    grid = RedshiftGrid(0.0, 0.4, 180, 90, 90)
    pdf = gaussian_pdf(estimate, 0.02, grid).astype(np.float32)
    start = time.perf_counter()
    first = metrics.evaluate(
        z, estimate, r, pdf, grid, SLICES, outlier_cut=0.05, rng=np.random.default_rng(1)
    )
    # Below 1 s alone; a loaded machine gets room.
    assert time.perf_counter() - start < 10
    assert set(first) == {"n", *KEYS, *(f"{key}_err" for key in KEYS)}
    assert np.isfinite(list(first.values())).all()
    assert first["n"] == 4000
    assert first["coverage_68"] == metrics.covered(pdf, z, grid, 0.68).mean()
    assert first["coverage_95"] == metrics.covered(pdf, z, grid, 0.95).mean()
    assert first["cde_loss"] == metrics.cde_loss(pdf, z, grid).mean()
    assert first["coverage_95_err"] == pytest.approx(np.sqrt(0.95 * 0.05 / 4000), rel=0.5)
    again = metrics.evaluate(
        z, estimate, r, pdf, grid, SLICES, outlier_cut=0.05, rng=np.random.default_rng(1)
    )
    assert first == again


def test_evaluate_sees_the_biases() -> None:
    z, estimate, r, _ = sample(4000)
    shrunk = 0.12 + 0.7 * (estimate - 0.12)
    options: dict[str, Any] = {"outlier_cut": 0.05, "n_bootstrap": 20}
    honest = metrics.evaluate(z, estimate, r, None, GRID, SLICES, rng=np.random.default_rng(1), **options)
    biased = metrics.evaluate(
        z, shrunk, r, None, GRID, SLICES, sigma_dispersion=[2.0, 2.0], rng=np.random.default_rng(1), **options
    )
    assert abs(honest["slope_spec_z"]) < 4 * honest["slope_spec_z_err"]
    assert biased["slope_spec_z"] == pytest.approx(-0.27, abs=0.05)
    for key in ("crps", "pit_ks", "pit_cvm", "cde_loss", "coverage_68", "coverage_95"):
        assert np.isnan([honest[key], honest[f"{key}_err"]]).all()


@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
def test_evaluate_small_samples_and_constant_estimates(n: int) -> None:
    z, estimate, r, pdf = sample(n)
    for photo_z in (estimate, np.full(n, 0.1), z, estimate - 1.0):
        numbers = metrics.evaluate(
            z,
            photo_z,
            r,
            pdf,
            EXTENDED,
            SLICES,
            outlier_cut=0.05,
            rng=np.random.default_rng(2),
            n_bootstrap=10,
        )
        assert np.isfinite([numbers["bias"], numbers["crps"], numbers["total_variation"]]).all()


def test_evaluate_refuses_what_it_cannot_judge() -> None:
    options: dict[str, Any] = {"outlier_cut": 0.05, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match="one length above 0"):
        metrics.evaluate([], [], [], None, GRID, SLICES, **options)
    with pytest.raises(ValueError, match="finite"):
        metrics.evaluate([0.1], [np.nan], [16.0], None, GRID, SLICES, **options)
    with pytest.raises(ValueError, match="n_bootstrap"):
        metrics.evaluate([0.1], [0.1], [16.0], None, GRID, SLICES, n_bootstrap=0, **options)
    with pytest.raises(ValueError, match="one length"):
        metrics.residuals([0.1], [0.1, 0.2])


# Other quantities than redshift: the residual is the difference


DIFFERENCES = RedshiftGrid(-3.0, 1.0, 40)


def tilted(tilt: float = -0.2, offset: float = 0.05) -> tuple[Any, Any, Any]:
    """Return truths at the centres of the wide bins, estimates on a straight line of them, and r."""
    truth = np.repeat(DIFFERENCES.centres, 30)
    return truth, truth + offset + tilt * (truth + 1), np.tile([15.5, 16.5, 17.5], 400)


def test_differences_have_the_slope_and_the_bias_that_they_were_made_with() -> None:
    truth, estimate, r = tilted()
    np.testing.assert_array_equal(metrics.residuals(truth, estimate, relative=False), estimate - truth)
    numbers = metrics.evaluate(
        truth,
        estimate,
        r,
        None,
        DIFFERENCES,
        SLICES,
        outlier_cut=0.31,
        rng=np.random.default_rng(0),
        n_bootstrap=3,
        z_high=0.0,
        relative=False,
    )
    assert numbers["slope_spec_z"] == pytest.approx(-0.2)
    assert numbers["slope_spec_z_high"] == pytest.approx(-0.2)
    assert numbers["bias"] == pytest.approx(0.05)  # the truths have the mean -1
    # abs(0.05 - 0.2 (x + 1)) > 0.31 for x > 0.8 or x < -2.3: 2 and 7 of the 40 centres.
    assert numbers["outlier_fraction"] == pytest.approx(9 / 40)
    # The estimates' spacing is 0.8 of a bin, and the residual falls by 0.2 a unit of truth.
    assert numbers["slope_photo_z"] == pytest.approx(-0.25, abs=0.01)


def test_differences_by_truth_and_by_magnitude() -> None:
    truth, estimate, r = tilted(tilt=0.0, offset=-0.1)
    binned = metrics.residuals_by_spec_z(truth, estimate, np.full(1200, 0.04), DIFFERENCES, relative=False)
    np.testing.assert_allclose(binned.mean, -0.1)
    np.testing.assert_allclose(binned.error, 0.2 / np.sqrt(30))
    by_estimate = metrics.residuals_by_photo_z(truth, estimate, DIFFERENCES, relative=False)
    np.testing.assert_allclose(by_estimate.mean, -0.1)
    common: dict[str, Any] = {"outlier_cut": 0.3, "rng": np.random.default_rng(0), "n_bootstrap": 2}
    slices = metrics.by_magnitude(truth, estimate, r, SLICES.edges, relative=False, **common)
    np.testing.assert_allclose(slices.bias, -0.1)
    scores = metrics.pdf_scores(None, truth, DIFFERENCES)
    bins = metrics.by_redshift(truth, estimate, scores, np.linspace(-3, 1, 5), relative=False, **common)
    np.testing.assert_allclose(bins["bias"], -0.1)
    floor = metrics.total_variation_floor(
        truth,
        estimate,
        np.full(1200, 1e-12),
        DIFFERENCES,
        np.random.default_rng(0),
        n_draws=2,
        relative=False,
    )
    # All estimates move by one bin: the first is empty, the last two are one.
    np.testing.assert_allclose(floor, metrics.total_variation(truth, truth - 0.1, DIFFERENCES))


def test_simulated_differences_are_the_relative_ones_times_one_plus_z() -> None:
    z = np.random.default_rng(1).normal(0.2, 0.05, 2000).clip(0.01, 0.39)
    r, variance = np.full(2000, 16.0), np.full((3, 40), 0.02**2)
    relative = metrics.simulated_residuals(z, r, variance, GRID, SLICES)
    difference = metrics.simulated_residuals(z, r, variance, GRID, SLICES, relative=False)
    np.testing.assert_allclose(difference.mean, relative.mean * (1 + relative.centre))
