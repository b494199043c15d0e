from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from estimates import EXTENDED, GRID, gaussian_pdf, sample
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import cramervonmises, kstest, norm

from photoz_lit import metrics
from photoz_lit.grids import RedshiftGrid

Golden = Callable[[str], dict[str, Any]]


@pytest.mark.parametrize(("pdf", "stats"), [("s12_mixture", "s12_stats"), ("s0_p", "s0_stats")])
def test_golden_a3_stats(golden: Golden, pdf: str, stats: str) -> None:
    """Mean residual, sigma_mad, outlier fraction and CRPS of s12_stats and s0_stats."""
    arrays = golden("a3_loss")
    grid, z = RedshiftGrid(0.0, 0.4, arrays[pdf].shape[1]), arrays["z"]
    dz = metrics.residual(z, metrics.mode(arrays[pdf], grid))
    reached = np.arange(grid.n_bins) >= grid.index(z)[:, None]
    ours = [
        metrics.bias(dz),
        metrics.sigma_mad(dz),
        metrics.outlier_fraction(dz, 0.05),
        # The reference takes F at the bin's upper edge and spec_z at its bin.
        ((metrics.cumulative(arrays[pdf])[:, 1:] - reached) ** 2).sum(axis=1).mean() * grid.width,
    ]
    np.testing.assert_allclose(ours, arrays[stats][1:], rtol=1e-5)


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
