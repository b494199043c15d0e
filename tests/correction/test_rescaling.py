import numpy as np
import pytest
import torch
from scipy.special import softmax

from photoz_lit.correction.losses.functions import hard_label_loss
from photoz_lit.correction.rescaling import choose_tau, learnt_scales, tau_normalised


def test_tau_runs_from_the_weights_to_equal_norms() -> None:
    weight = np.random.default_rng(1).normal(size=(2, 5, 8))
    weight[0, 3] = 0  # a bin without galaxies may have none
    np.testing.assert_array_equal(tau_normalised(weight, 0), weight)
    norm = np.linalg.norm(weight, axis=2)
    np.testing.assert_allclose(np.linalg.norm(tau_normalised(weight, 0.5), axis=2), np.sqrt(norm))
    np.testing.assert_allclose(np.linalg.norm(tau_normalised(weight, 1), axis=2), norm > 0)


def head(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, weights of equal norm (1, K, d), and bins that follow their softmax."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0, np.pi, 6)
    weight = 3 * np.stack([np.cos(angle), np.sin(angle)], axis=1)[None]
    x = rng.normal(size=(n, 2))
    p = softmax(x @ weight[0].T, axis=1)
    return x, weight, (p.cumsum(axis=1) < rng.uniform(size=(n, 1))).sum(axis=1)


def test_tau_of_weights_scaled_by_rarity_is_found() -> None:
    """Norms N^0.5 of a head whose direction alone is right: tau = 1 makes them equal, to 1 in place of 3."""
    x, weight, z_bin = head(4000, 1)
    lengths = np.array([0.2, 0.5, 1, 1, 2, 4])[None, :, None]
    assert choose_tau(x, weight / 3 * lengths, None, z_bin, np.ones(len(x))) == 1
    assert choose_tau(x, weight, None, z_bin, np.ones(len(x))) == 0


def test_tau_is_that_of_the_mixture() -> None:
    """An output that the gate ignores has no say."""
    x, weight, z_bin = head(3000, 2)
    both = np.concatenate([weight, np.random.default_rng(1).normal(size=weight.shape)])
    gate = np.tile([1.0, 0.0], (len(x), 1))
    assert choose_tau(x, both, gate, z_bin, np.ones(len(x))) == 0


def test_scales_undo_wrong_lengths() -> None:
    x, weight, z_bin = head(20_000, 3)
    wrong = np.array([0.5, 0.8, 1.0, 1.25, 1.5, 2.0])
    member = np.ones((len(x), 1), dtype=bool)
    scale = learnt_scales(x, weight * wrong[None, :, None], np.zeros((1, 6)), z_bin, member, penalty=0)
    np.testing.assert_allclose(scale[0] * wrong, 1, atol=0.12)


def test_scales_are_where_the_loss_is_least() -> None:
    """Against the loss of Step 2 with its outputs and members, in which the gradient must vanish."""
    rng = np.random.default_rng(4)
    x, z_bin = rng.normal(size=(500, 4)), rng.integers(0, 7, 500)
    weight, bias = rng.normal(size=(2, 7, 4)), rng.normal(size=(2, 7))
    member = rng.uniform(size=(500, 2)) < 0.7
    found = learnt_scales(x, weight, bias, z_bin, member, penalty=0.01)
    score = torch.einsum("nd,rkd->nrk", *map(torch.from_numpy, (x, weight)))

    def steepness(at: np.ndarray) -> float:
        scale = torch.from_numpy(at).requires_grad_()
        logits = score * scale + torch.from_numpy(bias)
        loss = hard_label_loss(logits, None, torch.from_numpy(z_bin), torch.from_numpy(member))
        loss = loss + 0.01 * ((scale - 1) ** 2).mean(dim=1).sum()
        return float(torch.autograd.grad(loss, scale)[0].abs().max())

    assert steepness(found) < 1e-4 < 1e-2 < steepness(np.ones((2, 7)))


def test_a_strong_penalty_keeps_the_scales() -> None:
    x, weight, z_bin = head(300, 5)
    scale = learnt_scales(x, weight, np.zeros((1, 6)), z_bin, np.ones((300, 1), dtype=bool), penalty=1e6)
    assert scale == pytest.approx(np.ones((1, 6)), abs=1e-4)
