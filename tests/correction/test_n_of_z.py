"""n(z) from p(z) that are exact: Gaussian measurements of redshifts on the bins of a known p(z, r)."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import norm

from photoz_lit.correction.n_of_z import inferred, likelihood_of, stacked, tv_and_mean_error
from photoz_lit.correction.prior import Priors
from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid

GRID, SLICES = RedshiftGrid(0.0, 0.4, 40), MagnitudeSlices(14.0, 1.0, 3)
Z = GRID.centres
N, NOISE = 20_000, 0.03
FAINT = np.stack([1.2 - 2.5 * Z, np.full(40, 0.6), 0.2 + 2.5 * Z])
BRIGHTNESS = FAINT / FAINT.sum(axis=0)  # of galaxies of each redshift: the same in all samples
OWN, OTHER = (shape / shape.sum() for shape in (norm.pdf(Z, 0.17, 0.06), norm.pdf(Z, 0.24, 0.05)))
FLAT = np.repeat((BRIGHTNESS * OWN).sum(axis=1, keepdims=True), 40, axis=1) / 40
PRIORS = Priors(BRIGHTNESS * OWN, BRIGHTNESS * OWN, SLICES)


def sample(n_of_z: Floats, joint: Floats, seed: int, known: float = 1.0) -> tuple[Floats, Floats, Floats]:
    """Draw N galaxies; return their spec_z, r, NaN where not known, and p(z) of the prior (S, K)."""
    rng = np.random.default_rng(seed)
    of = rng.choice(40, N, p=n_of_z)
    in_slice = (rng.random(N)[:, None] > BRIGHTNESS.cumsum(axis=0)[:2, of].T).sum(axis=1)
    measured = Z[of] + NOISE * rng.standard_normal(N)
    has_r = rng.random(N) < known
    rows = np.concatenate([joint, joint.sum(axis=0, keepdims=True)])[np.where(has_r, in_slice, 3)]
    pdf = norm.pdf(measured[:, None], Z, NOISE) * rows
    return Z[of], np.where(has_r, 14.5 + in_slice, np.nan), pdf / pdf.sum(axis=1, keepdims=True)


def distance(found: Floats, n_of_z: Floats) -> float:
    """Total variation of n(z) from the one that was drawn from."""
    return float(0.5 * np.abs(found - n_of_z).sum())


def mean_is_right(found: Floats, spec_z: Floats) -> bool:
    """Whether the mean redshift is that of the galaxies: to 4 sigma, and what floors of priors do to it."""
    return bool(abs(found @ Z - spec_z.mean()) < 4 * NOISE / np.sqrt(N) + 1e-3)


def test_the_sum_is_right_where_the_prior_is_the_samples_own() -> None:
    spec_z, r, pdf = sample(OWN, PRIORS.implicit, 1)
    for found in (stacked(pdf), inferred(pdf, r, PRIORS)):
        assert found.sum() == pytest.approx(1)
        assert distance(found, OWN) < 0.03
        assert mean_is_right(found, spec_z)
    np.testing.assert_allclose(stacked(7 * pdf), stacked(pdf))


@pytest.mark.parametrize("known", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("n_of_z", [OWN, OTHER], ids=["own", "other"])
@pytest.mark.parametrize("implicit", [PRIORS.implicit, FLAT], ids=["training", "flat"])
def test_n_of_z_is_inferred_under_any_prior(implicit: Floats, n_of_z: Floats, known: float) -> None:
    priors = replace(PRIORS, implicit=implicit)
    spec_z, r, pdf = sample(n_of_z, implicit, 2, known)
    found, summed = inferred(pdf, r, priors), stacked(pdf)
    assert found.sum() == pytest.approx(1)
    assert distance(found, n_of_z) < 0.045  # smoothed by a fifth of the noise, and counted
    assert mean_is_right(found, spec_z)
    if n_of_z is not OWN or implicit is FLAT:
        assert distance(summed, n_of_z) > 2.5 * distance(found, n_of_z)
    if known == 0:
        np.testing.assert_array_equal(inferred(pdf, None, priors), found)


def test_there_is_nothing_where_nothing_was_trained_on() -> None:
    near = Z < 0.25
    training = PRIORS.training * near
    priors = Priors(FLAT, training / training.sum(), SLICES)
    spec_z, r, pdf = sample(near * OWN / OWN[near].sum(), FLAT, 3)
    assert stacked(pdf)[~near].sum() > 0.05  # p(z) do not end there
    found = inferred(pdf, r, priors)
    assert found[Z > 0.29].sum() < 1e-3  # smoothing reaches a bin or two
    assert mean_is_right(found, spec_z)


def test_galaxies_as_none_in_training_are_no_harm() -> None:
    """A slice without training galaxies says nothing of r; p(z) where there are none says nothing at all."""
    training = PRIORS.training.copy()
    training[0] = 0
    lone = Priors(training / training.sum(), training / training.sum(), SLICES)
    bright, unknown = (likelihood_of(np.full((1, 40), 1 / 40), np.array([r]), lone) for r in (14.5, np.nan))
    np.testing.assert_array_equal(bright, unknown)
    near = Priors(PRIORS.implicit, PRIORS.training * (Z < 0.25), SLICES)
    nowhere = np.where(Z > 0.3, 0.1, 0.0)[None]
    np.testing.assert_array_equal(likelihood_of(nowhere, np.array([15.5]), near), np.ones((1, 40)))
    _, r, pdf = sample(OWN, FLAT, 4)
    alone = inferred(pdf, r, near)
    found = inferred(np.concatenate([pdf, np.repeat(nowhere, 100, axis=0)]), np.append(r, [15.5] * 100), near)
    np.testing.assert_allclose(found, alone, atol=1e-3)


def test_tv_and_mean_error_by_hand() -> None:
    grid = RedshiftGrid(0.0, 0.4, 4, 1, 1)  # with a bin on either side
    n_of_z, spec_z = np.array([0.0, 0.25, 0.25, 0.25, 0.25, 0.0]), np.array([0.05, 0.05, 0.15, 0.35])
    assert tv_and_mean_error(n_of_z, spec_z, grid) == pytest.approx((0.25, 0.05))
    assert tv_and_mean_error(np.eye(6)[3], spec_z, grid) == pytest.approx((1.0, 0.1))
