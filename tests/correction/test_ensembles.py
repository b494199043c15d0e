import numpy as np
import pytest
from scipy.special import softmax

from photoz_lit.correction.ensembles import Mean, combine

LOGITS = np.random.default_rng(1).normal(size=(3, 20, 30))
PDFS = list(softmax(LOGITS, axis=2))


def normalised(p: np.ndarray) -> np.ndarray:
    return p / p.sum(axis=1, keepdims=True)


def test_means_are_their_definitions() -> None:
    np.testing.assert_allclose(combine(PDFS, "arithmetic"), np.mean(PDFS, axis=0))
    np.testing.assert_allclose(combine(PDFS, "geometric"), softmax(LOGITS.mean(axis=0), axis=1))
    np.testing.assert_allclose(combine(PDFS, "harmonic"), normalised(1 / np.mean(1 / np.array(PDFS), axis=0)))


@pytest.mark.parametrize("mean", ["arithmetic", "geometric", "harmonic"])
def test_one_member_is_itself_and_weights_choose(mean: Mean) -> None:
    np.testing.assert_allclose(combine(PDFS[:1], mean), PDFS[0])
    np.testing.assert_allclose(combine(PDFS, mean, [0, 2, 0]), PDFS[1])


def test_harmonic_mean_is_narrowest() -> None:
    z = np.linspace(-5, 5, 201)
    members = [normalised(np.exp(-0.5 * (z[None] - shift) ** 2)) for shift in (-1.0, 1.0)]
    means: list[Mean] = ["harmonic", "geometric", "arithmetic"]
    variances = [float((combine(members, mean) @ z**2)[0]) for mean in means]
    assert variances == sorted(variances)
    assert variances[1] == pytest.approx(1, rel=1e-3)  # product of two unit Gaussians, rooted
    assert variances[2] == pytest.approx(2, rel=1e-3)  # one plus the square of the shift


@pytest.mark.parametrize("mean", ["geometric", "harmonic"])
def test_members_without_a_bin_in_common_stay_finite(mean: Mean) -> None:
    p = combine([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]], mean)
    assert p[0, 0] == pytest.approx(p[0, 1])
    assert p[0, 2] < p[0, 1]
    assert p.sum() == pytest.approx(1)


def test_what_is_no_ensemble_is_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        combine([], "arithmetic")
    with pytest.raises(ValueError, match="one shape"):
        combine([[[1.0]], [[0.5, 0.5]]], "arithmetic")
    with pytest.raises(ValueError, match="mean must be"):
        combine(PDFS, "quadratic")  # type: ignore[arg-type]
