import numpy as np
import pytest
from scipy.special import softmax
from scipy.stats import norm

from photoz_lit.correction.finishing.temperature import Temperature, check, fit_temperature
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError

Z = np.linspace(-3, 3, 121)
WIDE = norm.pdf(Z, 0.8, 1.1) + 1e-3
WIDE = WIDE / WIDE.sum()


def posterior(measured: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """p(z | measured) of a Gaussian measurement of width 0.5."""
    p = norm.pdf(measured[:, None], Z, 0.5) * prior
    return p / p.sum(axis=1, keepdims=True)


def sample(prior: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bins drawn from a prior, and measurements of them."""
    k = rng.choice(len(Z), n, p=prior)
    return k, rng.normal(Z[k], 0.5)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_temperature_is_recovered(temperature: float) -> None:
    """Logits multiplied by T are undone by T; 8000 galaxies give it to about a percent."""
    k, measured = sample(WIDE, 8000, np.random.default_rng(3))
    logits = temperature * np.log(posterior(measured, WIDE))
    fitted = fit_temperature(softmax(logits, axis=1), k)
    assert fitted == pytest.approx(temperature, rel=0.03)
    np.testing.assert_allclose(
        Temperature(temperature)(softmax(logits, axis=1)), posterior(measured, WIDE), rtol=1e-6, atol=1e-30
    )


def test_temperature_survives_zeros_in_pdf() -> None:
    p = np.array([[1.0, 0.0, 0.0], [0.7, 0.3, 0.0]])
    assert np.isfinite(fit_temperature(np.repeat(p, 10, axis=0), np.repeat([0, 1], 10)))
    np.testing.assert_allclose(Temperature(2.0)(p).sum(axis=1), 1)


def test_fits_need_galaxies() -> None:
    with pytest.raises(ValueError, match="validation galaxies"):
        fit_temperature(np.empty((0, 3)), [])


def test_other_words_are_refused() -> None:
    check("fitted", CorrectionConfig())
    with pytest.raises(ConfigError, match="temperature: fitted"):
        check(2.0, CorrectionConfig())
