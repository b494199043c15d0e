from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from estimates import GRID, bootstrap
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import wasserstein_distance

from photoz_lit import metrics

Golden = Callable[[str], dict[str, Any]]


def test_scatter_and_bias_of_known_numbers() -> None:
    dz = np.array([-0.1, 0.0, 0.0, 0.01, 0.2])
    assert metrics.bias(dz) == pytest.approx(0.022)
    assert metrics.sigma_mad(dz) == pytest.approx(1.4826 * 0.01)
    assert metrics.outlier_fraction(dz, 0.05) == pytest.approx(0.4)
    np.testing.assert_allclose(metrics.residual([1.0], [1.2]), [0.1])


def test_sigma_mad_is_the_standard_deviation_of_a_normal_distribution() -> None:
    dz = np.random.default_rng(0).normal(0, 0.02, 200_000)
    assert metrics.sigma_mad(dz) == pytest.approx(0.02, rel=0.01)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.floats(-1, 1))
def test_scatter_does_not_see_an_offset(values: list[float], offset: float) -> None:
    dz = np.array(values)
    assert metrics.sigma_mad(dz + offset) == pytest.approx(metrics.sigma_mad(dz), abs=1e-9)
    assert metrics.bias(dz + offset) == pytest.approx(metrics.bias(dz) + offset, abs=1e-9)


def test_nothing_is_undefined_loudly() -> None:
    for statistic in (
        metrics.bias,
        metrics.sigma_mad,
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
    nothing = metrics.pdf_scores(np.empty((0, 40)), [], GRID).summary(np.empty((1, 0), dtype=np.int64))
    assert np.isnan(list(nothing.values())).all()
    assert metrics.median(np.empty((0, 40)), GRID).shape == (0,)


def test_total_variation_of_disjoint_and_equal_samples() -> None:
    z = GRID.centres
    assert metrics.total_variation(z, z, GRID) == 0.0
    assert metrics.total_variation(z[:20], z[20:], GRID) == 1.0
    # Estimates outside count in the end bins.
    assert metrics.total_variation([0.001, 0.399], [-0.2, 0.6], GRID) == 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_wasserstein_equals_scipy(seed: int, n: int) -> None:
    a, b = np.random.default_rng(seed).uniform(0, 0.4, (2, n))
    assert metrics.wasserstein(a, b) == pytest.approx(wasserstein_distance(a, b), abs=1e-12)


def test_bootstrap_error_of_a_mean() -> None:
    values = np.random.default_rng(8).normal(0, 1, 400)
    samples = bootstrap(lambda draw: values[draw].mean(), 400, 500, np.random.default_rng(9))
    assert metrics.standard_error(samples) == pytest.approx(0.05, rel=0.15)
    np.testing.assert_array_equal(metrics.standard_error([[1.0, np.nan], [3.0, 2.0]]), [1.0, np.nan])
