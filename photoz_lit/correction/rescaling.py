"""The scale of a trained redshift output's weights, bin by bin (Kang et al. 2020, arXiv:1910.09217).

They freeze the representation and correct the classifier in one of three ways. To train it again on balanced
classes is what Step 2 does. Here are the other two, which keep the direction of each bin's weights and change
their length: tau-normalisation and learnt weight scaling (LWS).

Weights are those of `Head.redshift`, viewed as (R, K, d); in a head of several outputs the scales of each are
its own. Embeddings are (n, d), and z_bin (n,) is the bin of spec_z, counted with the extension.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.correction import CHUNK
from photoz_lit.grids import Floats

Array = NDArray[Any]

TAUS = np.linspace(0, 1, 11)  # choices of the power of tau-normalisation
MOST_ITERATIONS = 200  # of the fit of learnt scales, an output


def tau_normalised(weight: Array, tau: float) -> Floats:
    """Divide each bin's weights (..., d) by a power of their norm: w / norm(w)^tau.

    Norms tend to grow with the number of galaxies a bin was trained with; tau = 0 leaves them, 1 makes them
    equal. The authors leave the bias out: set it to zero with tau > 0, as `choose_tau` does.
    """
    w = np.asarray(weight, dtype=np.float64)
    norm = np.linalg.norm(w, axis=-1, keepdims=True)
    return np.asarray(w / np.where(norm > 0, norm, 1.0) ** tau)


def choose_tau(embeddings: Array, weight: Array, gate: Array | None, z_bin: Array, balance: Array) -> float:
    """Choose tau by the weighted negative log-likelihood of the mixture on validation galaxies.

    `gate` (n, R) is the probability of each output, None with a single one; `balance` (n,) are weights that
    balance the galaxies, as `lds_weights` does.
    """
    from scipy.special import log_softmax  # as long to import as many a correction takes

    mix = np.ones((len(embeddings), len(weight))) if gate is None else gate

    def nll(tau: float) -> float:
        scaled, total = tau_normalised(weight, tau), 0.0
        for start in range(0, len(embeddings), CHUNK):
            part = slice(start, start + CHUNK)
            x, k = embeddings[part].astype(np.float64), z_bin[part, None, None]
            logits = np.einsum("nd,rkd->nrk", x, scaled, optimize=True)
            at_label = np.take_along_axis(log_softmax(logits, axis=2), k, axis=2)[..., 0]
            p = (mix[part] * np.exp(at_label)).sum(axis=1)
            total -= float(balance[part] @ np.log(np.maximum(p, 1e-30)))
        return total

    return float(min(TAUS, key=nll))


def learnt_scales(
    embeddings: Array, weight: Array, bias: Array, z_bin: Array, member: Array, penalty: float = 1e-3
) -> Floats:
    """Learn a scale (R, K) of each bin's weights on balanced galaxies: logits f_k (w_k . x) + b_k.

    Minimises the cross-entropy of each output, one-hot labels for its members (n, R) and uniform ones for the
    others as in Step 2, over the scales only: a convex problem, solved by L-BFGS. The paper trains the same
    scales with class-balanced sampling, the balanced subset's part here. The penalty, times the mean of
    (f - 1)^2 over bins, lets a bin of few galaxies keep its scale.
    """
    outputs = zip(weight, bias, member.T, strict=True)
    return np.stack([_learnt_scale(embeddings, w, b, z_bin, of_it, penalty) for w, b, of_it in outputs])


def _learnt_scale(x: Array, weight: Array, bias: Array, k: Array, member: Array, penalty: float) -> Floats:
    """Scales of one output, shape (K,)."""
    from scipy.optimize import minimize  # takes half a second to import
    from scipy.special import log_softmax

    n_bins, wide = len(bias), weight.T.astype(np.float64)

    def objective(scale: Floats) -> tuple[float, Floats]:
        loss, gradient = 0.0, np.zeros(n_bins)
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            score = x[part].astype(np.float64) @ wide
            target = np.full(score.shape, 1 / n_bins)
            inside = np.flatnonzero(member[part])
            target[inside] = np.arange(n_bins) == k[part][inside, None]
            log_p = log_softmax(score * scale + bias, axis=1)
            loss -= float((target * log_p).sum())
            gradient += ((np.exp(log_p) - target) * score).sum(axis=0)
        pull = scale - 1
        loss = loss / len(x) + penalty * float(pull @ pull) / n_bins
        return loss, gradient / len(x) + 2 * penalty * pull / n_bins

    options = {"maxiter": MOST_ITERATIONS}
    found = minimize(objective, np.ones(n_bins), jac=True, method="L-BFGS-B", options=options)
    return np.asarray(found.x, dtype=np.float64)
