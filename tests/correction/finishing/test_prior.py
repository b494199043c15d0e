import numpy as np
import pytest
from scipy.stats import norm

from photoz_lit.correction.finishing.link import Facts, Galaxies
from photoz_lit.correction.finishing.prior import check, fit, fit_prior_power
from photoz_lit.correction.prior import Priors, smoothed_prior, swap_prior
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

Z = np.linspace(-3, 3, 121)
NARROW, WIDE = norm.pdf(Z, -0.5, 0.7) + 1e-3, norm.pdf(Z, 0.8, 1.1) + 1e-3
NARROW, WIDE = NARROW / NARROW.sum(), WIDE / WIDE.sum()


def posterior(measured: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """p(z | measured) of a Gaussian measurement of width 0.5."""
    p = norm.pdf(measured[:, None], Z, 0.5) * prior
    return p / p.sum(axis=1, keepdims=True)


def sample(prior: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bins drawn from a prior, and measurements of them."""
    k = rng.choice(len(Z), n, p=prior)
    return k, rng.normal(Z[k], 0.5)


def test_prior_swap_is_bayes() -> None:
    measured = np.linspace(-2, 2, 9)
    swapped = swap_prior(posterior(measured, NARROW), NARROW, WIDE)
    np.testing.assert_allclose(swapped, posterior(measured, WIDE), rtol=1e-9)
    flat = swap_prior(posterior(measured, NARROW), NARROW, np.ones(len(Z)))
    np.testing.assert_allclose(flat, posterior(measured, np.ones(len(Z))), rtol=1e-9)


def test_prior_swap_there_and_back() -> None:
    pdf = posterior(np.array([0.0, 1.0]), NARROW)
    np.testing.assert_allclose(swap_prior(swap_prior(pdf, NARROW, WIDE), WIDE, NARROW), pdf, rtol=1e-9)


def test_prior_swap_calibrates_the_other_sample() -> None:
    """Stacked p(z) of galaxies that follow the wide prior is that prior only after the swap."""
    k, measured = sample(WIDE, 10_000, np.random.default_rng(2))
    pdf = posterior(measured, NARROW)
    true_mean, true_error = Z[k].mean(), Z[k].std() / 100
    assert abs((pdf @ Z).mean() - true_mean) > 15 * true_error
    assert abs((swap_prior(pdf, NARROW, WIDE) @ Z).mean() - true_mean) < 4 * true_error


def test_target_of_zero_stays_zero() -> None:
    target = np.where(Z > 0, 1.0, 0.0)
    swapped = swap_prior(posterior(np.array([0.3]), NARROW), NARROW, target)
    assert (swapped[:, Z <= 0] == 0).all()
    assert swapped.sum() == pytest.approx(1)


def test_impossible_priors_are_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        swap_prior([[0.5, 0.5]], [1.0, 0.0], [0.5, 0.5])
    with pytest.raises(ValueError, match="no bin in common"):
        swap_prior([[1.0, 0.0]], [0.5, 0.5], [0.0, 1.0])


def test_smoothed_prior_is_of_each_output() -> None:
    prior = smoothed_prior([[3, 0], [0, 0]])
    np.testing.assert_allclose(prior, [[3.5 / 4, 0.5 / 4], [0.5, 0.5]])


def test_prior_power_of_weighted_validation_galaxies_is_one() -> None:
    """A calibrated p(z) serves a flat n(z) with its whole prior divided out, and its own n(z) as it is."""
    k, measured = sample(NARROW, 20_000, np.random.default_rng(4))
    pdf = posterior(measured, NARROW)
    assert fit_prior_power(pdf, k, NARROW, np.ones(len(k))) == pytest.approx(0, abs=0.05)
    assert fit_prior_power(pdf, k, NARROW, 1 / NARROW[k]) == pytest.approx(1, abs=0.1)


def test_flat_prior_is_as_flat_as_it_helps_and_told() -> None:
    grid = RedshiftGrid(0.0, 1.21, len(Z))
    k, measured = sample(NARROW, 20_000, np.random.default_rng(5))
    galaxies = Galaxies(posterior(measured, NARROW), grid.centres[k], np.full(len(k), 15.0), np.empty((0, 0)))
    slices, n_of_z = MagnitudeSlices(14.0, 2.0, 1), np.bincount(k, minlength=121)[None] / len(k)
    priors = Priors(NARROW[None], n_of_z, slices)
    facts = Facts(grid, slices, priors)
    flat = fit("flat", galaxies, facts).priors(priors).implicit
    assert np.ptp(np.log(flat)) < 0.2 * np.ptp(np.log(NARROW))
    training = fit("training", galaxies, facts).priors(priors).implicit
    np.testing.assert_allclose(training, n_of_z, atol=5e-6)


def test_each_slice_is_flattened_by_its_own_prior() -> None:
    """And galaxies of unknown r by the n(z) of all, to which the slices add with their shares."""
    grid, slices, rng = RedshiftGrid(0, 1.21, len(Z)), MagnitudeSlices(14, 2, 3), np.random.default_rng(6)
    joint = np.stack([0.9 * NARROW, 0.1 * WIDE, 0 * WIDE])
    (bright, x), (faint, y) = sample(NARROW, 18_000, rng), sample(WIDE, 2_000, rng)
    pdf, k = np.concatenate([posterior(x, NARROW), posterior(y, WIDE)]), np.concatenate([bright, faint])
    galaxies = Galaxies(pdf, grid.centres[k], np.repeat([15.0, 17.0], [18_000, 2_000]), np.empty((0, 0)))
    link = fit("flat", galaxies, Facts(grid, slices, Priors(joint, joint, slices)))
    measured = np.array([-1.0, 0.5])
    exact = posterior(measured, np.ones(len(Z)))
    for prior, magnitude in [(NARROW, 15.0), (WIDE, 17.0), (joint.sum(axis=0), np.nan)]:
        before = posterior(measured, prior)
        off = np.abs(link(before, np.full(2, magnitude)) - exact).sum()
        assert off < 0.2 * np.abs(before - exact).sum()


def test_other_priors_are_refused() -> None:
    with pytest.raises(ConfigError, match="Valid values: flat, training"):
        check("none", CorrectionConfig())
