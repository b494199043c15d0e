"""Many samples at once have the numbers of each alone."""

import numpy as np
import pytest
from estimates import EXTENDED, GRID, SLICES, gaussian_pdf, sample

from photoz_lit import metrics
from photoz_lit.metrics import draws
from photoz_lit.metrics.residuals import bins_of_photo_z, means_by_photo_z, means_by_spec_z


def test_draws_are_those_of_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "AT_A_TIME", 1000)
    rng = np.random.default_rng(3)
    expected = [rng.integers(0, 300, 300) for _ in range(10)]
    found = list(draws.drawn(300, 10, np.random.default_rng(3)))
    assert [len(some) for some in found] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(found), expected)


def test_rows_have_the_numbers_of_one_sample_each() -> None:
    z, estimate, r, _ = sample(2000)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(z), (5, len(z)))
    pit = metrics.pit(gaussian_pdf(estimate, 0.02, EXTENDED), z, EXTENDED)
    dz, group, weight = metrics.residual(z, estimate), SLICES.index(r), rng.uniform(1, 2, len(z))
    spec, photo, k = z[rows], estimate[rows], metrics.wide(GRID).index(z)
    by_spec_z = means_by_spec_z(k[rows], dz[rows], (1 + spec) ** 2 / weight[rows])
    in_bulk, centres = bins_of_photo_z(estimate, GRID)
    bulk = means_by_photo_z(in_bulk[rows], dz[rows], len(centres), 10, GRID.width)
    ks, cvm = draws.ks_and_cvm(pit[rows])
    steepest = draws.steepest(spec, photo - spec, group[rows], np.array([0, 2]))
    slopes = draws.line_slope(metrics.wide(GRID).centres, *by_spec_z[:2])
    slopes_bulk = draws.line_slope(centres, *bulk[:2])
    for i, own in enumerate(rows):
        one, other, x = z[own], estimate[own], dz[own]
        binned = metrics.residuals_by_spec_z(one, other, weight[own], GRID)
        binned_bulk = metrics.residuals_by_photo_z(one, other, GRID, 10)
        lines = [np.polyfit(one[m], (other - one)[m], 1)[0] for m in (group[own] == 0, group[own] == 2)]
        u = np.sort(pit[own])
        for found, expected in (
            (draws.mean(dz[rows])[i], x.mean()),
            (draws.sigma_mad(dz[rows])[i], 1.4826 * np.median(np.abs(x - np.median(x)))),
            (draws.wasserstein(spec, photo)[i], np.abs(np.sort(one) - np.sort(other)).mean()),
            (draws.plain_slope(spec, photo)[i], np.polyfit(one, other, 1)[0]),
            (ks[i], np.abs(u - (np.arange(len(u)) + 0.5) / len(u)).max() + 0.5 / len(u)),
            (cvm[i], ((u - (np.arange(len(u)) + 0.5) / len(u)) ** 2).mean() + 1 / (12 * len(u) ** 2)),
            (steepest[i], max(lines, key=abs)),
            (slopes[i], metrics.fit_line(binned).slope),
            (slopes_bulk[i], metrics.fit_line(binned_bulk).slope),
        ):
            assert found == pytest.approx(expected, rel=1e-10)


def test_samples_without_galaxies_or_spread_have_no_slope() -> None:
    nothing, same = np.empty((2, 0)), np.full((2, 700), 0.1)
    assert np.isnan(draws.plain_slope(nothing, nothing)).all()
    assert np.isnan(draws.plain_slope(same, np.arange(1400.0).reshape(2, 700))).all()
    group = np.zeros((2, 700), dtype=np.int64)
    assert np.isnan(draws.steepest(same, np.arange(1400.0).reshape(2, 700), group, np.array([0]))).all()
    assert np.isnan(draws.steepest(same, same, group, np.array([], dtype=np.int64))).all()
    one_bin = np.array([[1.0, np.nan]])
    assert np.isnan(draws.line_slope(np.array([0.1, 0.2]), one_bin, np.ones((1, 2)))).all()
