"""The chain of prior, temperature and PIT recalibration on p(z) of a known fault."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from photoz_lit import metrics
from photoz_lit.correction.finishing import Finishing, fit_finishing
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 100, 20, 20)
SLICES = MagnitudeSlices(14.0, 2.0, 3)


def sample(n: int, seed: int, too_wide: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian p(z) of a width that is wrong by a factor; true scatter grows with r."""
    rng = np.random.default_rng(seed)
    r = rng.uniform(14, 20, n)
    sigma = 0.01 * (1 + (r - 14) / 6)
    z = rng.uniform(0.1, 0.3, n)
    centre = z + rng.normal(0, sigma)
    cdf = norm.cdf((GRID.edges[None] - centre[:, None]) / (too_wide * sigma[:, None]))
    pdf = np.diff(cdf, axis=1)
    return pdf / pdf.sum(axis=1, keepdims=True), z, r


def fitted(**steps: Any) -> Finishing:
    pdf, z, r = sample(3000, 1)
    flat = np.full(GRID.n_outputs, 1 / GRID.n_outputs)
    defaults: dict[str, Any] = {"prior": "none", "temperature": False, "recalibration": "none"}
    return fit_finishing(
        pdf,
        z,
        r,
        GRID,
        SLICES,
        implicit_prior=flat,
        training_prior=np.full(GRID.n_bins, 1 / GRID.n_bins),
        n_fitted=3000,
        rng=np.random.default_rng(2),
        **(defaults | steps),
    )


def coverage(pdf: np.ndarray, z: np.ndarray) -> float:
    low, high = metrics.interval(pdf, GRID).T
    return float(np.mean((z >= low) & (z <= high)))


def test_nothing_asked_for_changes_nothing() -> None:
    pdf, _, r = sample(50, 3)
    np.testing.assert_array_equal(fitted()(pdf, r), pdf.astype(np.float32))


def test_temperature_undoes_a_width() -> None:
    finishing = fitted(temperature=True)
    assert finishing.temperature == pytest.approx(0.25, rel=0.05)  # a Gaussian of half the width


@pytest.mark.parametrize("recalibration", ["global", "slices"])
def test_recalibration_gives_the_coverage_of_unseen_galaxies(recalibration: str) -> None:
    pdf, z, r = sample(4000, 5)
    assert coverage(pdf, z) > 0.9
    out = fitted(recalibration=recalibration)(pdf, r)
    assert coverage(out, z) == pytest.approx(0.68, abs=0.03)
    np.testing.assert_allclose(out.sum(axis=1), 1, rtol=1e-5)


def test_galaxies_of_unknown_r_get_the_map_over_all() -> None:
    pdf, _, r = sample(20, 6)
    both, overall = fitted(recalibration="slices"), fitted(recalibration="global")
    r[:5] = np.nan
    np.testing.assert_array_equal(both(pdf, r)[:5], overall(pdf)[:5])
    np.testing.assert_array_equal(both(pdf), overall(pdf))
    assert not np.array_equal(both(pdf, r)[5:], overall(pdf)[5:])


@pytest.mark.parametrize("prior", ["none", "flat", "training"])
@pytest.mark.parametrize("recalibration", ["none", "global", "slices"])
def test_arrays_hold_all_of_it(prior: str, recalibration: str) -> None:
    pdf, _, r = sample(30, 7)
    finishing = fitted(prior=prior, temperature=True, recalibration=recalibration)
    arrays = {name: np.asarray(values) for name, values in finishing.arrays().items()}
    again = Finishing.from_arrays(arrays, SLICES, GRID)
    np.testing.assert_array_equal(again(pdf, r), finishing(pdf, r))


def test_training_prior_takes_the_place_of_the_implicit_one() -> None:
    pdf, z, r = sample(2000, 8)
    implicit = np.linspace(1, 3, GRID.n_outputs)
    training = np.exp(-GRID.centres[20:-20] * 20)
    finishing = fit_finishing(
        pdf,
        z,
        r,
        GRID,
        SLICES,
        implicit_prior=implicit / implicit.sum(),
        training_prior=training / training.sum(),
        n_fitted=10**9,
        prior="training",
        temperature=False,
        recalibration="none",
        rng=np.random.default_rng(0),
    )
    ratio = np.zeros(GRID.n_outputs)
    ratio[20:-20] = training / implicit[20:-20]
    expected = pdf * ratio
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(finishing(pdf), expected, atol=1e-5)


def by_place(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p(z) too wide on one side of the embedding (n, 2) and too narrow on the other, and spec_z."""
    place = np.random.default_rng(seed).uniform(-1, 1, (n, 2)).astype(np.float32)
    wide, narrow = (sample(n, seed, too_wide=width) for width in (2.0, 0.5))  # of the same galaxies
    return np.where(place[:, :1] > 0, wide[0], narrow[0]), wide[1], place


def fitted_by_place(n: int) -> Finishing:
    pdf, z, place = by_place(n, 1)
    return fit_finishing(
        pdf,
        z,
        np.full(n, 15.0),
        GRID,
        SLICES,
        implicit_prior=np.full(GRID.n_outputs, 1 / GRID.n_outputs),
        training_prior=np.full(GRID.n_bins, 1 / GRID.n_bins),
        n_fitted=n,
        prior="none",
        temperature=False,
        recalibration="local",
        rng=np.random.default_rng(2),
        embeddings=place,
    )


def test_local_recalibration_gives_the_coverage_on_either_side() -> None:
    pdf, z, place = by_place(4000, 5)
    finishing = fitted_by_place(3000)
    for side in (place[:, 0] > 0.1, place[:, 0] < -0.1):
        assert abs(coverage(pdf[side], z[side]) - 0.68) > 0.2
        assert abs(coverage(finishing(pdf)[side], z[side]) - 0.68) > 0.1  # by the map over all galaxies
        local = finishing(pdf, None, place)[side]
        assert coverage(local, z[side]) == pytest.approx(0.68, abs=0.06)
        np.testing.assert_allclose(local.sum(axis=1), 1, rtol=1e-5)


def test_arrays_hold_the_validation_galaxies_of_local_recalibration() -> None:
    pdf, _, place = by_place(30, 7)
    finishing = fitted_by_place(400)
    arrays = {name: np.asarray(values) for name, values in finishing.arrays().items()}
    again = Finishing.from_arrays(arrays, SLICES, GRID)
    np.testing.assert_array_equal(again(pdf, None, place), finishing(pdf, None, place))
    assert not np.array_equal(again(pdf, None, place), again(pdf))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_validation_galaxies_are_no_obstacle_to_local_recalibration(n: int) -> None:
    pdf, _, place = by_place(10, 7)
    finishing = fitted_by_place(n)
    assert (finishing.local_map is None) == (n == 1)
    np.testing.assert_allclose(finishing(pdf, None, place).sum(axis=1), 1, rtol=1e-5)
