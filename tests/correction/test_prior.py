"""Priors by slice of r, on a survey whose p(z, r) and likelihood are known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm

from photoz_lit.correction.prior import (
    NEW_FLOOR,
    Priors,
    gaussian_smoothed,
    joint_histogram,
    mean_priors,
    prior_of,
)
from photoz_lit.correction.prior import swap_prior as swap
from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid

GRID, SLICES = RedshiftGrid(0.0, 0.4, 10), MagnitudeSlices(14.0, 1.0, 3)
K = np.arange(10)
BRIGHT, FAINT = 0.6**K * (K < 8), 1.3**K * (K > 0)  # p(z | r), of no galaxies at some redshifts
TRAINING = np.stack([0.2 * BRIGHT / BRIGHT.sum(), 0.8 * FAINT / FAINT.sum(), np.zeros(10)])
FLAT = (TRAINING > 0) / 17.0  # a balanced subset: of as many galaxies in each cell that has some
PRIORS = Priors(FLAT, TRAINING, SLICES)
# p(x | z) of nine measurements, and galaxies of each in both slices.
LIKELIHOOD = np.random.default_rng(1).dirichlet(np.full(9, 5.0), 10)
R, X = np.repeat([14.5, 15.5], 9), np.tile(np.arange(9), 2)


def posterior(joint: Floats) -> Floats:
    """p(z | x, r) of a survey of p(z, r), (S, K), galaxy by galaxy."""
    p = LIKELIHOOD[:, X].T * joint[np.repeat([0, 1], 9)]
    return np.asarray(p / p.sum(axis=1, keepdims=True))


def test_another_prior_is_bayes_by_slice_and_not_without() -> None:
    pdf, exact = posterior(FLAT), posterior(TRAINING)
    training = replace(PRIORS, implicit=TRAINING)
    np.testing.assert_allclose(PRIORS.convert(pdf, R, training), exact, atol=1e-12)
    there, back = (np.where(PRIORS.of(R, 18) > 0, p, 1) for p in (training.of(R, 18), PRIORS.of(R, 18)))
    np.testing.assert_allclose(swap(exact, there, back), pdf, atol=1e-12)
    averaged = swap(pdf, FLAT.sum(axis=0), TRAINING.sum(axis=0))
    assert np.abs(averaged - exact).sum(axis=1).mean() > 0.3
    np.testing.assert_allclose(PRIORS.convert(pdf, R, PRIORS), pdf, atol=1e-12)


@pytest.mark.parametrize("wanted", [TRAINING.sum(axis=0), np.linspace(2, 1, 10) / 15], ids=["own", "other"])
def test_galaxies_of_another_n_of_z_are_as_bright_at_given_z(wanted: Floats) -> None:
    found = PRIORS.converted(wanted)
    expected = wanted * TRAINING / TRAINING.sum(axis=0)
    np.testing.assert_allclose(found.implicit, expected, atol=2 * NEW_FLOOR)
    np.testing.assert_array_equal(found.training, TRAINING)
    np.testing.assert_allclose(PRIORS.convert(posterior(FLAT), R, found), posterior(expected), atol=5e-3)
    np.testing.assert_allclose(PRIORS.converted(None).of(R, 18), 0.1)
    np.testing.assert_allclose(PRIORS.converted(None).implicit[:2].sum(axis=1), [0.2, 0.8])


def test_each_galaxy_has_the_prior_of_its_slice_or_the_mean() -> None:
    """The mean of unknown r, or in a slice, the last, that no training galaxy is in."""
    found = prior_of(TRAINING, np.array([15.0, 3.0, np.nan, 16.5, 99.0]), SLICES, 5)
    mean = TRAINING.sum(axis=0)
    np.testing.assert_allclose(found, [TRAINING[1] / 0.8, TRAINING[0] / 0.2, mean, mean, mean])
    np.testing.assert_allclose(prior_of(TRAINING, None, SLICES, 1), [mean])


def test_priors_are_close_to_the_density_and_keep_the_shares_of_the_slices() -> None:
    """A plain histogram of 200 in 100 bins is farther off; labels are smoothed by the widths of galaxies."""
    grid, rng = RedshiftGrid(0.0, 0.4, 100, 5, 5), np.random.default_rng(2)
    z = np.concatenate([rng.normal(0.1, 0.03, 200), rng.normal(0.2, 0.05, 2000)])
    r = np.repeat([14.5, 15.5], [200, 2000])
    plain = joint_histogram(SLICES.index(r), grid.index(z) + 5, (3, 110))
    weighted = joint_histogram(SLICES.index(r), grid.index(z) + 5, (3, 110), np.where(r < 15, 10.0, 1.0))
    for labels, shares in [(None, [1 / 11, 10 / 11, 0]), (weighted, [0.5, 0.5, 0])]:
        found = Priors.of_labels(labels, z, r, grid, SLICES)
        np.testing.assert_allclose(found.training.sum(axis=1), plain.sum(axis=1), atol=1e-12)
        np.testing.assert_allclose(found.implicit.sum(axis=1), shares, atol=1e-12)
        for i, of in enumerate([(0.1, 0.03), (0.2, 0.05)]):
            density, ratio = np.diff(norm.cdf(grid.edges, *of)), shares[i] / plain[i].sum()
            off = np.abs(found.training[i] / plain[i].sum() - density).sum()
            assert off < min(0.12, 0.5 * np.abs(plain[i] / plain[i].sum() - density).sum())
            np.testing.assert_allclose(found.implicit[i], ratio * found.training[i], atol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 10**6])
def test_galaxies_of_a_single_bin_are_a_prior_too(n: int) -> None:
    found = Priors.of_labels(None, np.full(n, 0.18), np.full(n, 14.5), GRID, SLICES).training
    assert found[0, 4] > 0.99
    assert found.sum() == pytest.approx(1)


def test_arrays_hold_all_of_it_and_members_have_the_mean() -> None:
    again = Priors.from_arrays({name: np.asarray(values) for name, values in PRIORS.arrays().items()})
    assert again.slices == SLICES
    np.testing.assert_array_equal([again.implicit, again.training], [FLAT, TRAINING])
    mean = mean_priors([PRIORS, replace(PRIORS, implicit=TRAINING)])
    np.testing.assert_allclose(mean.implicit, (FLAT + TRAINING) / 2)
    np.testing.assert_array_equal(mean.training, TRAINING)


@pytest.mark.parametrize("width", [0.01, 0.4, 2.0, 9.3, 60.0])
@pytest.mark.parametrize("n", [1, 2, 5, 90])
def test_smoothing_is_that_of_scipy(n: int, width: float) -> None:
    values = np.random.default_rng(n).random(n)
    np.testing.assert_allclose(gaussian_smoothed(values, width), gaussian_filter1d(values, width), rtol=1e-12)
