from pathlib import Path

import numpy as np
import pytest
from scipy.stats import beta, norm

from finishing.gaussians import GRID, SIGMA, at_spec_z, coverage, galaxies
from photoz_lit import metrics
from photoz_lit.correction.finishing.pit import (
    PitMap,
    Recalibration,
    choose_pit_map,
    choose_slice_maps,
    fit_pit_map,
)
from photoz_lit.correction.losses.nearest import nearest
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

SLICES = MagnitudeSlices(0.0, 1.0, 11)


# The global map


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_pit_is_flat_after_recalibration(factor: float) -> None:
    """Of too narrow and of too wide p(z), on galaxies that the map was not fitted to."""
    validation, test = galaxies(factor, 20_000, 1), galaxies(factor, 20_000, 2)
    pit_map = choose_pit_map(metrics.pit(*validation, GRID), np.random.default_rng(3))
    assert abs(coverage(*test) - 0.68) > 0.15
    pdf = Recalibration(pit_map, SLICES)(test[0])
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
    np.testing.assert_allclose(Recalibration(pit_map, SLICES)(wide), right, atol=5e-4)


def test_recalibration_is_p_times_the_density_of_the_pit() -> None:
    """p'(z) = p(z) N(F(z)) (Bordoloi et al. 2010) in the limit of narrow bins."""
    pit_map = fit_pit_map(beta(2, 3).rvs(5000, random_state=1), 12)
    pdf = np.diff(norm.cdf(RedshiftGrid(0.0, 0.4, 4000).edges, 0.2, 0.05))[None]
    middle = metrics.cumulative(pdf)[:, :-1] + pdf / 2
    np.testing.assert_allclose(Recalibration(pit_map, SLICES)(pdf), pdf * pit_map.density(middle), atol=1e-6)


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
    alone = Recalibration(pit_map, SLICES)(test[0])
    pdf = Recalibration(pit_map, SLICES, slices)(test[0], test_groups + 0.5)

    def by_slice(p: np.ndarray) -> np.ndarray:
        return np.array([coverage(p[test_groups == s], test[1][test_groups == s]) for s in range(11)])

    assert np.abs(by_slice(alone) - 0.68).max() > 0.1
    assert np.abs(by_slice(pdf) - 0.68).max() < 0.07
    assert coverage(pdf, test[1]) == pytest.approx(0.68, abs=0.02)
    assert np.log(at_spec_z(pdf, test[1])).mean() > np.log(at_spec_z(alone, test[1])).mean() + 0.02


def test_slices_that_do_not_differ_are_shrunk_to_the_global_map() -> None:
    rng, u, departure = np.random.default_rng(8), np.linspace(0, 1, 101), []
    for _ in range(5):
        v, groups = rng.uniform(size=1000), rng.integers(0, 5, 1000)
        slices = choose_slice_maps(v, groups, 5, rng)
        departure.append(np.mean([np.abs(m.cdf(u) - u).max() for m in slices]))
    assert np.mean(departure) < 0.75 * 0.87 / np.sqrt(200)  # the galaxies of a slice alone would say 0.87


def test_an_empty_slice_gets_the_global_map() -> None:
    rng, v = np.random.default_rng(9), np.linspace(0, 1, 11)[None]
    slices = choose_slice_maps(beta(2, 2).rvs(1000, random_state=1), np.zeros(1000, int), 3, rng)
    for one in slices[1:]:
        np.testing.assert_allclose(one.cdf(v), v)
    np.testing.assert_allclose(slices[0].cdf(v), beta(2, 2).cdf(v), atol=0.04)


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
    bright = MagnitudeSlices(16.0, 0.5, 5)
    index = bright.index(magnitude[:, 2])
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
        pdf = Recalibration(pit_map, bright, slices)(narrow[test], magnitude[test, 2])
        parts = [np.ones(len(test), dtype=bool)] + [index[test] == s for s in range(3)]
        for p in (narrow[test], pdf):
            covered.append([coverage(p[part], spec_z[test][part]) for part in parts])
    before, after = np.mean(covered[::2], axis=0), np.mean(covered[1::2], axis=0)
    assert (before < 0.55).all()
    assert after[0] == pytest.approx(0.68, abs=0.02)
    np.testing.assert_allclose(after[1:], 0.68, atol=0.04)
