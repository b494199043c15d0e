import numpy as np
import pytest

from photoz_lit.correction.weights import dense_weights, galaxy_weights, lds_weights
from photoz_lit.grids import RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 40)


@pytest.fixture
def spec_z() -> np.ndarray:
    return np.random.default_rng(1).gamma(4.0, 0.025, 5000)


def test_lds_without_smoothing_is_the_inverse_count(spec_z: np.ndarray) -> None:
    weight, k = lds_weights(spec_z, GRID, sigma=1e-3), GRID.index(spec_z)
    assert weight.mean() == pytest.approx(1)
    totals = np.bincount(k, weights=weight)
    np.testing.assert_allclose(totals[totals > 0], totals.max())


def test_lds_of_a_uniform_sample_is_one_up_to_the_ends() -> None:
    np.testing.assert_allclose(lds_weights(np.repeat(GRID.centres, 7), GRID, sigma=3.0), 1.0)


def test_lds_smooths_by_the_kernel() -> None:
    """Two bins, one ten times as full, so close that the kernel sees them as one."""
    z = np.repeat([GRID.centres[20], GRID.centres[21]], [100, 10])
    hard, soft = lds_weights(z, GRID, 1e-3), lds_weights(z, GRID, 5.0)
    assert hard[-1] / hard[0] == pytest.approx(10)
    kernel = np.exp(-0.5 / 25)
    assert soft[-1] / soft[0] == pytest.approx((100 + 10 * kernel) / (100 * kernel + 10), rel=1e-6)
    root = lds_weights(z, GRID, 1e-3, power=0.5)
    assert root[-1] / root[0] == pytest.approx(np.sqrt(10))


def test_lds_with_power_zero_changes_nothing(spec_z: np.ndarray) -> None:
    np.testing.assert_allclose(lds_weights(spec_z, GRID, 2.0, power=0.0), 1.0)


def test_dense_weights_are_their_definition(spec_z: np.ndarray) -> None:
    """Against a direct kernel density estimate at each galaxy."""
    z = spec_z[:300]
    width = 1.06 * z.std(ddof=1) * 300**-0.2
    density = np.exp(-0.5 * ((z[:, None] - z) / width) ** 2).sum(axis=1)
    steps = np.linspace(z.min(), z.max(), 2000)
    curve = np.exp(-0.5 * ((steps[:, None] - z) / width) ** 2).sum(axis=1)
    expected = np.maximum(1 - 0.8 * (density - curve.min()) / (curve.max() - curve.min()), 1e-6)
    weight = dense_weights(z, 0.8)
    np.testing.assert_allclose(weight, expected / expected.mean(), atol=2e-3)


def test_dense_weights_are_least_where_galaxies_are_many(spec_z: np.ndarray) -> None:
    weight = dense_weights(spec_z, 1.0)
    assert weight.mean() == pytest.approx(1)
    common = np.abs(spec_z - 0.075) < 0.005  # the mode of the gamma distribution
    assert weight[common].max() < weight[spec_z > 0.2].min()
    assert weight.min() == pytest.approx(1e-6 * weight.max(), rel=0.05)
    np.testing.assert_allclose(dense_weights(spec_z, 0.0), 1.0)


@pytest.mark.parametrize(("z", "alpha"), [([0.1, 0.1], 1.0), ([0.1], 1.0)])
def test_dense_weights_reject_what_has_no_density(z: list[float], alpha: float) -> None:
    with pytest.raises(ValueError, match="DenseWeight needs"):
        dense_weights(z, alpha)


def test_weights_are_those_of_the_settings(spec_z: np.ndarray) -> None:
    assert galaxy_weights("none", spec_z, GRID) is None
    for kind, expected in (
        ("lds", lds_weights(spec_z, GRID, 2.0, power=0.5)),
        ("dense", dense_weights(spec_z, 1.0)),
    ):
        found = galaxy_weights(kind, spec_z, GRID)
        assert found is not None
        np.testing.assert_allclose(found, expected, rtol=1e-6)
