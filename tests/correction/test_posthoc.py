import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from photoz_lit.correction.posthoc import (
    fit_prior_power,
    fit_temperature,
    smoothed_prior,
    swap_prior,
    temper,
)

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
    flat = swap_prior(posterior(measured, NARROW), NARROW)
    np.testing.assert_allclose(flat, posterior(measured, np.ones(len(Z))), rtol=1e-9)


def test_prior_swap_there_and_back() -> None:
    pdf = posterior(np.array([0.0, 1.0]), NARROW)
    np.testing.assert_allclose(swap_prior(swap_prior(pdf, NARROW, WIDE), WIDE, NARROW), pdf, rtol=1e-9)


def test_power_is_that_of_logit_adjustment() -> None:
    """softmax(f - tau log prior)."""
    logits = np.random.default_rng(1).normal(size=(4, len(Z)))
    expected = softmax(logits - 0.6 * np.log(NARROW), axis=1)
    np.testing.assert_allclose(swap_prior(softmax(logits, axis=1), NARROW, power=0.6), expected, rtol=1e-9)


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
        swap_prior([[0.5, 0.5]], [1.0, 0.0])
    with pytest.raises(ValueError, match="no bin in common"):
        swap_prior([[1.0, 0.0]], [0.5, 0.5], [0.0, 1.0])
    with pytest.raises(ValueError, match="pseudo_count"):
        smoothed_prior([1, 2], 0.0)


def test_smoothed_prior_is_of_each_output() -> None:
    prior = smoothed_prior([[3, 0], [0, 0]], pseudo_count=1.0)
    np.testing.assert_allclose(prior, [[3.5 / 4, 0.5 / 4], [0.5, 0.5]])


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_recovered(temperature: float) -> None:
    """Logits multiplied by T are undone by T; 8000 galaxies give it to about a percent."""
    k, measured = sample(WIDE, 8000, np.random.default_rng(3))
    logits = temperature * np.log(posterior(measured, WIDE))
    fitted = fit_temperature(softmax(logits, axis=1), k)
    assert fitted == pytest.approx(temperature, rel=0.03)
    np.testing.assert_allclose(
        temper(softmax(logits, axis=1), temperature), posterior(measured, WIDE), rtol=1e-6, atol=1e-30
    )


def test_temperature_survives_zeros_in_pdf() -> None:
    p = np.array([[1.0, 0.0, 0.0], [0.7, 0.3, 0.0]])
    assert np.isfinite(fit_temperature(np.repeat(p, 10, axis=0), np.repeat([0, 1], 10)))
    np.testing.assert_allclose(temper(p, 2.0).sum(axis=1), 1)


def test_prior_power_of_weighted_validation_galaxies_is_one() -> None:
    """A calibrated p(z) serves a flat n(z) with its whole prior divided out, and its own n(z) as it is."""
    k, measured = sample(NARROW, 20_000, np.random.default_rng(4))
    pdf = posterior(measured, NARROW)
    assert fit_prior_power(pdf, k, NARROW, np.ones(len(k))) == pytest.approx(0, abs=0.05)
    assert fit_prior_power(pdf, k, NARROW, 1 / NARROW[k]) == pytest.approx(1, abs=0.1)


def test_fits_need_galaxies() -> None:
    with pytest.raises(ValueError, match="validation galaxies"):
        fit_temperature(np.empty((0, 3)), [])
