"""What the curves of few labels are made of."""

import few_labels
import numpy as np
import pytest
import torch
from few_labels import Galaxies, blend, known_of, of_size, on_simulated, scores, simulated


def galaxies(n: int, seed: int) -> Galaxies:
    """Magnitudes that redshift makes red and faint, with errors of galaxies of several sizes."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.02, 0.3, n)
    magnitudes = 17 + 3 * z[:, None] + np.linspace(2, -1, 5) * (0.3 + 3 * z[:, None])
    magnitudes += 0.05 * rng.standard_normal((n, 5))
    errors = 0.01 * 10 ** (0.2 * (magnitudes - 17)) * np.exp(0.2 * rng.standard_normal((n, 1)))
    return Galaxies(torch.tensor(magnitudes).float(), torch.tensor(errors).float(), z)


def test_what_errors_say_of_size_is_not_what_magnitudes_say() -> None:
    data = galaxies(500, 0)
    size = of_size(data)[:, 0].numpy()
    true = np.log(data.errors[:, 2].numpy()) - 0.2 * np.log(10) * (data.magnitudes[:, 2].numpy() - 17)
    assert np.corrcoef(size, true)[0, 1] > 0.99
    assert abs(np.corrcoef(size, data.magnitudes[:, 2].numpy())[0, 1]) < 0.01


def test_labels_count_by_their_number() -> None:
    a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    np.testing.assert_allclose(blend(a, b, 0), a)
    np.testing.assert_allclose(blend(a, b, few_labels.WORTH), [[0.5, 0.5]])


def test_few_labels_do_no_harm_to_a_right_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_labels, "HIDDEN", [32])
    monkeypatch.setattr(few_labels, "STEPS", 300)
    net = simulated(galaxies(2000, 1), 0)
    real = known_of(galaxies(600, 2))
    own, test = real[:60], real[60:]
    alone = few_labels._mean([net], test.magnitudes)
    helped = on_simulated([net], own, test, 0)
    np.testing.assert_allclose(helped.sum(axis=1), 1, rtol=1e-5)
    before, after = (scores(pdf, test.spec_z)["crps"] for pdf in (alone, helped))
    assert 0 < before < 0.02
    assert after < 1.02 * before
