from collections.abc import Callable

import numpy as np
import pytest

from finishing.gaussians import GRID, at_spec_z, coverage, galaxies
from photoz_lit import metrics
from photoz_lit.correction.finishing.pit import Recalibration, choose_pit_map
from photoz_lit.correction.finishing.pit_local import (
    LocalChoice,
    LocalMap,
    cdf_at,
    choose_local,
    density_at,
    shrunk_density,
)
from photoz_lit.correction.losses.nearest import nearest
from photoz_lit.grids import MagnitudeSlices

SLICES = MagnitudeSlices(12.0, 1.0, 3)


def test_shrinkage_runs_from_the_counts_to_uniform() -> None:
    counts = np.array([[6, 2, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(shrunk_density(counts, 1e-9), [[3, 1, 0, 0], [1, 1, 1, 1]], atol=1e-8)
    np.testing.assert_allclose(shrunk_density(counts, 8), [[2, 1, 0.5, 0.5], [1, 1, 1, 1]])
    np.testing.assert_allclose(shrunk_density(counts, 1e12), 1.0)


def test_cdf_is_the_integral_of_the_density() -> None:
    density = shrunk_density(np.random.default_rng(1).integers(0, 50, (5, 8)), 3.0)
    v = np.tile(np.linspace(0, 1, 4001), (5, 1))
    cdf, values = cdf_at(density, v), density_at(density, v)
    np.testing.assert_allclose(cdf[:, [0, -1]], np.tile([0.0, 1.0], (5, 1)), atol=1e-12)
    steps = 0.5 * (values[:, 1:] + values[:, :-1]) / 4000
    np.testing.assert_allclose(np.diff(cdf, axis=1), steps, atol=1e-7)
    np.testing.assert_allclose(density_at(density, v)[:, 250::500], density, rtol=1e-12)


@pytest.fixture
def line() -> Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Galaxies along a line, from too narrow p(z) to too wide: calibrated on the whole, wrong everywhere."""

    def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x = np.random.default_rng(seed).uniform(size=n)
        return x, *galaxies(0.5 * 4**x, n, seed + 1)

    return draw


def test_local_recalibration_where_global_fails(
    line: Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> None:
    x, pdf, spec_z = line(4000, 10)
    pit = metrics.pit(pdf, spec_z, GRID)
    pit_map = choose_pit_map(pit, np.random.default_rng(1))
    v = pit_map.cdf(pit)
    among = nearest(x[:, None], x[:, None], 400, leave_one_out=True)
    choice = choose_local(v, among, (100, 200, 400))
    assert choice.gain > 0.02
    x_test, pdf_test, z_test = line(3000, 20)
    alone = Recalibration(pit_map, SLICES)(pdf_test)
    of_place = LocalMap(x[:, None], v, choice)
    local = Recalibration(pit_map, SLICES, local=of_place)(pdf_test, None, x_test[:, None])
    for low, high in [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]:
        part = (x_test >= low) & (x_test < high)
        assert coverage(local[part], z_test[part]) == pytest.approx(0.68, abs=0.05)
    ends = x_test < 0.25
    assert abs(coverage(alone[ends], z_test[ends]) - 0.68) > 0.15
    assert np.log(at_spec_z(local, z_test)).mean() > np.log(at_spec_z(alone, z_test)).mean() + 0.02


def test_local_density_counts_the_nearest() -> None:
    x, v = np.array([[0.0], [1.0], [3.0]], dtype=np.float32), np.array([0.1, 0.2, 0.9])
    around = LocalMap(x, v, LocalChoice(k=2, m=2, prior_count=2.0, gain=0.0))
    np.testing.assert_allclose(around.density([[0.1], [2.9]]), [[1.5, 0.5], [1.0, 1.0]])
