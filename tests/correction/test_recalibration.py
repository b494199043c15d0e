from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, norm

from photoz_lit import metrics
from photoz_lit.correction.nearest import nearest
from photoz_lit.correction.recalibration import (
    LocalChoice,
    PitMap,
    cdf_at,
    choose_local,
    choose_pit_map,
    choose_slice_maps,
    density_at,
    fit_pit_map,
    local_density,
    recalibrate,
    shrunk_density,
)
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 200)
SIGMA = 0.02


def galaxies(
    factor: float | np.ndarray, n: int, seed: int, offset: float | np.ndarray = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """p(z) `factor` times too wide and moved by `offset` (in redshift), and spec_z."""
    rng = np.random.default_rng(seed)
    spec_z = rng.uniform(0.12, 0.28, n)
    centre = spec_z + rng.normal(0, SIGMA, n) + offset
    width = np.broadcast_to(np.asarray(factor) * SIGMA, n)[:, None]
    return np.diff(norm.cdf(GRID.edges, centre[:, None], width), axis=1) + 1e-12, spec_z


def coverage(pdf: np.ndarray, spec_z: np.ndarray, level: float = 0.68) -> float:
    """Fraction of spec_z inside the equal-tailed interval."""
    return float(np.mean(np.abs(metrics.pit(pdf, spec_z, GRID) - 0.5) < level / 2))


# The global map


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_pit_is_flat_after_recalibration(factor: float) -> None:
    """Of too narrow and of too wide p(z), on galaxies that the map was not fitted to."""
    validation, test = galaxies(factor, 20_000, 1), galaxies(factor, 20_000, 2)
    pit_map = choose_pit_map(metrics.pit(*validation, GRID), np.random.default_rng(3))
    assert abs(coverage(*test) - 0.68) > 0.15
    pdf = recalibrate(test[0], pit_map)
    np.testing.assert_allclose(pdf.sum(axis=1), 1)
    assert (pdf >= 0).all()
    assert coverage(pdf, test[1]) == pytest.approx(0.68, abs=0.01)
    assert coverage(pdf, test[1], 0.95) == pytest.approx(0.95, abs=0.01)
    # 1.63 / sqrt(n) is the 1 % point of the distance for one sample; here two samples differ.
    assert metrics.pit_ks(metrics.pit(pdf, test[1], GRID)) < 1.63 * np.sqrt(2 / 20_000)


def test_recalibrated_gaussian_is_the_right_gaussian() -> None:
    """The PIT of a Gaussian twice too wide has a known distribution: its map restores the width."""
    levels = np.linspace(0, 1, 401)[1:-1]
    knots = norm.cdf(norm.ppf(levels) / 2)
    pit_map = PitMap(np.r_[0, knots, 1], np.r_[0, levels, 1], 0.0)
    wide = np.diff(norm.cdf(GRID.edges, 0.2, 0.04))[None]
    right = np.diff(norm.cdf(GRID.edges, 0.2, 0.02))[None]
    np.testing.assert_allclose(recalibrate(wide, pit_map), right, atol=5e-4)


def test_recalibration_is_p_times_the_density_of_the_pit() -> None:
    """p'(z) = p(z) N(F(z)) (Bordoloi et al. 2010) in the limit of narrow bins."""
    pit_map = fit_pit_map(beta(2, 3).rvs(5000, random_state=1), 12)
    pdf = np.diff(norm.cdf(RedshiftGrid(0.0, 0.4, 4000).edges, 0.2, 0.05))[None]
    middle = metrics.cumulative(pdf)[:, :-1] + pdf / 2
    np.testing.assert_allclose(recalibrate(pdf, pit_map), pdf * pit_map.density(middle), atol=1e-6)


def test_map_is_monotone_from_0_to_1_and_density_its_derivative() -> None:
    pit_map = fit_pit_map(beta(0.2, 0.3).rvs(3000, random_state=1), 20)
    u = np.linspace(0, 1, 20_001)
    cdf = pit_map.cdf(u)
    assert cdf[0] == 0
    assert cdf[-1] == pytest.approx(1)
    assert (np.diff(cdf) > 0).all()
    middle = 0.5 * (u[1:] + u[:-1])
    np.testing.assert_allclose(np.diff(cdf)[200:-200] * 20_000, pit_map.density(middle)[200:-200], rtol=1e-3)


def test_calibrated_pdfs_are_left_alone() -> None:
    """Few galaxies and a uniform PIT: the choice is a coarse map, close to the identity."""
    gaps = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        pit_map = choose_pit_map(rng.uniform(size=300), rng)
        u = np.linspace(0, 1, 101)
        gaps.append(np.abs(pit_map.cdf(u) - u).max())
    assert np.mean(gaps) < 0.8 / np.sqrt(300)  # an empirical distribution alone is 0.87 / sqrt(n) off


def test_pit_of_zeros_and_ones_is_no_obstacle() -> None:
    pit_map = fit_pit_map(np.r_[np.zeros(300), np.ones(300), np.full(400, 0.5)], 20)
    assert (np.diff(pit_map.cdf(np.linspace(0, 1, 101))) > 0).all()
    only = fit_pit_map(np.zeros(10), 5)
    np.testing.assert_allclose(only.cdf([0.0, 0.3, 1.0]), [0.0, 0.3, 1.0])


def test_maps_need_values_between_0_and_1() -> None:
    with pytest.raises(ValueError, match="PIT map"):
        fit_pit_map([], 3)
    with pytest.raises(ValueError, match="PIT map"):
        fit_pit_map([0.2, 1.2], 3)


# Densities of groups


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


# r slices


def test_coverage_is_right_in_every_slice() -> None:
    """11 slices of 200 to 3600 validation galaxies, some with p(z) too wide, some too narrow, some moved."""
    rng = np.random.default_rng(5)
    sizes = np.geomspace(200, 3600, 11).astype(int)
    factors, offsets = np.linspace(0.6, 1.8, 11), np.linspace(-0.5, 0.5, 11)[::-1] * SIGMA
    groups = np.repeat(np.arange(11), sizes)
    validation = galaxies(factors[groups], len(groups), 6, offsets[groups])
    pit = metrics.pit(*validation, GRID)
    pit_map = choose_pit_map(pit, rng)
    slices = choose_slice_maps(pit_map.cdf(pit), groups, 11, rng)
    test_groups = np.repeat(np.arange(11), 1500)
    test = galaxies(factors[test_groups], len(test_groups), 7, offsets[test_groups])
    alone = recalibrate(test[0], pit_map)
    pdf = recalibrate(test[0], pit_map, slices, test_groups)

    def by_slice(p: np.ndarray) -> np.ndarray:
        return np.array([coverage(p[test_groups == s], test[1][test_groups == s]) for s in range(11)])

    assert np.abs(by_slice(alone) - 0.68).max() > 0.1
    assert np.abs(by_slice(pdf) - 0.68).max() < 0.07
    assert coverage(pdf, test[1]) == pytest.approx(0.68, abs=0.02)
    gain = np.log(at_spec_z(pdf, test[1])).mean() - np.log(at_spec_z(alone, test[1])).mean()
    assert gain > 0.5 * slices.gain > 0


def at_spec_z(pdf: np.ndarray, spec_z: np.ndarray) -> np.ndarray:
    return np.take_along_axis(pdf, GRID.index(spec_z)[:, None], axis=1)[:, 0]


def test_slices_that_do_not_differ_are_shrunk_to_the_global_map() -> None:
    rng, u, departure = np.random.default_rng(8), np.linspace(0, 1, 101), []
    for _ in range(5):
        v, groups = rng.uniform(size=1000), rng.integers(0, 5, 1000)
        slices = choose_slice_maps(v, groups, 5, rng)
        departure.append(np.mean([np.abs(m.cdf(u) - u).max() for m in slices.maps]))
    assert np.mean(departure) < 0.75 * 0.87 / np.sqrt(200)  # the galaxies of a slice alone would say 0.87


def test_an_empty_slice_gets_the_global_map() -> None:
    rng, v = np.random.default_rng(9), np.linspace(0, 1, 11)[None]
    slices = choose_slice_maps(beta(2, 2).rvs(1000, random_state=1), np.zeros(1000, int), 3, rng)
    np.testing.assert_allclose(slices.cdf(np.tile(v, (2, 1)), [1, 2]), np.tile(v, (2, 1)))
    np.testing.assert_allclose(slices.cdf(v, [0]), beta(2, 2).cdf(v), atol=0.04)
    assert slices.gain > 0


def test_slices_need_a_slice_each() -> None:
    with pytest.raises(ValueError, match="a slice of each galaxy"):
        choose_slice_maps([0.5], [0, 1], 2, np.random.default_rng(1))
    with pytest.raises(ValueError, match="go together"):
        recalibrate([[1.0]], fit_pit_map([0.5], 1), slice_index=[0])


# Neighbours


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
    choice = choose_local(v, among, ks=(100, 200, 400, 800))
    assert choice.k <= 400
    assert choice.gain > 0.02
    x_test, pdf_test, z_test = line(3000, 20)
    near = nearest(x_test[:, None], x[:, None], 400)
    alone = recalibrate(pdf_test, pit_map)
    local = recalibrate(pdf_test, pit_map, density=local_density(v, near, choice))
    for low, high in [(0.0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0)]:
        part = (x_test >= low) & (x_test < high)
        assert coverage(local[part], z_test[part]) == pytest.approx(0.68, abs=0.05)
    ends = x_test < 0.25
    assert abs(coverage(alone[ends], z_test[ends]) - 0.68) > 0.15
    assert np.log(at_spec_z(local, z_test)).mean() > np.log(at_spec_z(alone, z_test)).mean() + 0.02


def test_local_density_counts_the_nearest() -> None:
    v, near = np.array([0.1, 0.2, 0.9]), np.array([[0, 1, 2], [2, 1, 0]])
    density = local_density(v, near, LocalChoice(k=2, m=2, prior_count=2.0, gain=0.0))
    np.testing.assert_allclose(density, [[1.5, 0.5], [1.0, 1.0]])


def test_neighbours_must_leave_the_galaxy_out() -> None:
    with pytest.raises(ValueError, match="without the galaxy itself"):
        choose_local([0.1, 0.2], [[0], [0]], ks=(1,))
    with pytest.raises(ValueError, match="none of k"):
        choose_local([0.1, 0.2], [[1], [0]], ks=(5,))


# Real galaxies


def test_real_galaxies_are_covered(real_data: Path) -> None:
    """SDSS main galaxy sample: Gaussian p(z) of one wrong width about a mean of neighbours in colours.

    Mean of eight divisions of the galaxies: in one, a slice of 400 test galaxies has a standard error of
    0.023, and one of as many validation galaxies adds the same.
    """
    table = np.genfromtxt(real_data / "sdss_mgs" / "sdss_mgs.csv", delimiter=",", names=True)
    spec_z = table["spec_z"]
    magnitude = np.stack([table[f"mag_{band}"] for band in "ugriz"], axis=1)
    features = np.concatenate([-np.diff(magnitude, axis=1), magnitude[:, 2:3]], axis=1)
    index = MagnitudeSlices(16.0, 0.5, 5).index(magnitude[:, 2])
    covered: list[list[float]] = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        train, validation, test = np.split(rng.permutation(len(spec_z)), [2000, 3500])
        near = nearest(features, features[train], 16)[:, 1:]  # the first may be the galaxy itself
        centre = spec_z[train][near].mean(axis=1)
        narrow = np.diff(norm.cdf(GRID.edges, centre[:, None], 0.01), axis=1) + 1e-9
        pit = metrics.pit(narrow[validation], spec_z[validation], GRID)
        pit_map = choose_pit_map(pit, rng)
        slices = choose_slice_maps(pit_map.cdf(pit), index[validation], 5, rng)
        pdf = recalibrate(narrow[test], pit_map, slices, index[test])
        parts = [np.ones(len(test), dtype=bool)] + [index[test] == s for s in range(3)]
        for p in (narrow[test], pdf):
            covered.append([coverage(p[part], spec_z[test][part]) for part in parts])
    before, after = np.mean(covered[::2], axis=0), np.mean(covered[1::2], axis=0)
    assert (before < 0.55).all()
    assert after[0] == pytest.approx(0.68, abs=0.02)
    np.testing.assert_allclose(after[1:], 0.68, atol=0.04)
