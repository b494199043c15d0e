"""What acts on finished p(z): another prior, another temperature.

Rows of p(z) are galaxies and independent of each other, so that p(z) too large for memory can be given in
chunks. What is fitted is fitted on validation galaxies, given as arrays.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from photoz_lit.metrics import CHUNK

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SMALLEST_PDF = 1e-30
"""Floor of p(z) before a logarithm; softmax in float32 reaches zero."""


def smoothed_prior(counts: ArrayLike, pseudo_count: float = 1.0) -> Floats:
    """Normalise counts of galaxies by redshift bin to a prior without zeros.

    Parameters
    ----------
    counts : array_like, shape (..., K)
        Galaxies in each bin, for instance by output: `membership.T @ counts_by_slice`, (R, K).
    pseudo_count : float
        Galaxies added to each row, spread over its bins, so that an empty bin has a finite logarithm.

    Returns
    -------
    ndarray, shape (..., K)
        Priors; rows sum to 1.

    Raises
    ------
    ValueError
        If the pseudo-count is not positive.
    """
    if not pseudo_count > 0:
        raise ValueError(f"pseudo_count must be above 0, got {pseudo_count}")
    n = np.asarray(counts, dtype=np.float64)
    filled = n + pseudo_count / n.shape[-1]
    prior: Floats = filled / filled.sum(axis=-1, keepdims=True)
    return prior


def swap_prior(
    pdf: ArrayLike, prior: ArrayLike, target: ArrayLike | None = None, power: float = 1.0
) -> Floats:
    """Convert p(z) from its implicit prior to another: p'(z) ~ p(z) target(z) / prior(z)^power.

    Bayes' theorem where only n(z) differs between training and use. With a flat target and `power` = tau this
    is post-hoc logit adjustment, f - tau log(prior) (Menon et al. 2021, ICLR, arXiv:2007.07314);
    with a target, post-compensated softmax, f - log(prior) + log(target) (Hong et al. 2021, CVPR,
    arXiv:2012.00321). A p(z) of a balanced, softened or shifted head has the n(z) of its labels
    for a prior, not that of the galaxies.

    Parameters
    ----------
    pdf : array_like, shape (n, K)
        Probability of each bin.
    prior : array_like, shape (K,) or (n, K)
        Implicit prior of the p(z), positive (`smoothed_prior`).
    target : array_like, shape (K,) or (n, K), optional
        Wanted prior; flat by default.
    power : float
        Power tau of the implicit prior that is divided out.

    Returns
    -------
    ndarray, shape (n, K)
        Rows sum to 1. Where the target is zero, so is the result.

    Raises
    ------
    ValueError
        If a prior is not positive, a target is negative, or nothing is left of a row.
    """
    old = np.asarray(prior, dtype=np.float64)
    new = np.ones_like(old) if target is None else np.asarray(target, dtype=np.float64)
    if not (old > 0).all() or not (new >= 0).all():
        raise ValueError("the implicit prior must be positive in all bins and the target not negative")
    p = np.asarray(pdf, dtype=np.float64) * (new / old**power)
    total = p.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("p(z) and the target prior have no bin in common")
    return np.asarray(p / total)


def temper(pdf: ArrayLike, temperature: float) -> Floats:
    """Sharpen or widen p(z): softmax(f / T), that is p(z)^(1/T) normalised.

    Guo et al. 2017, ICML, "On calibration of modern neural networks", arXiv:1706.04599. For a mixture of
    outputs f is log p(z) of the mixture.

    Parameters
    ----------
    pdf : array_like, shape (n, K)
        Probability of each bin.
    temperature : float
        T > 0: above 1 widens, below 1 sharpens, 1 leaves p(z).

    Returns
    -------
    ndarray, shape (n, K)
        Rows sum to 1.
    """
    p = np.asarray(pdf, dtype=np.float64)
    scaled = p / p.max(axis=1, keepdims=True)
    tempered = scaled ** (1 / temperature)
    return np.asarray(tempered / tempered.sum(axis=1, keepdims=True))


def fit_temperature(pdf: ArrayLike, z_bin: ArrayLike, bounds: tuple[float, float] = (0.05, 20.0)) -> float:
    """Temperature of least negative log-likelihood on validation galaxies (Guo et al. 2017).

    Parameters
    ----------
    pdf : array_like, shape (n, K)
        p(z) of validation galaxies.
    z_bin : array_like of int, shape (n,)
        Bin of spec_z in p(z), counted with the extension.
    bounds : (float, float)
        Range of the search.

    Returns
    -------
    float
        T.
    """
    log_p, k = _validation(pdf, z_bin)

    def nll(log_temperature: float) -> float:
        return _nll(log_p, k, lambda part: part * np.exp(-log_temperature))

    # The likelihood of a power of p(z) is log-concave in 1 / T: one minimum.
    found = minimize_scalar(nll, bounds=np.log(bounds), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def fit_prior_power(
    pdf: ArrayLike,
    z_bin: ArrayLike,
    prior: ArrayLike,
    weight: ArrayLike,
    bounds: tuple[float, float] = (0.0, 2.0),
) -> float:
    """Power tau of `swap_prior` to a flat target of least weighted negative log-likelihood on validation.

    Parameters
    ----------
    pdf : array_like, shape (n, K)
        p(z) of validation galaxies.
    z_bin : array_like of int, shape (n,)
        Bin of spec_z in p(z), counted with the extension.
    prior : array_like, shape (K,)
        Implicit prior, positive.
    weight : array_like, shape (n,)
        Weight of each galaxy. Validation galaxies of the training n(z) would ask for tau = 0: weights of the
        inverse density (`lds_weights` of the validation galaxies) make them those of a flat n(z).
    bounds : (float, float)
        Range of the search.

    Returns
    -------
    float
        tau.
    """
    log_p, k = _validation(pdf, z_bin)
    log_prior = np.log(np.asarray(prior, dtype=np.float64))
    w = np.asarray(weight, dtype=np.float64)

    def nll(power: float) -> float:
        return _nll(log_p, k, lambda part: part - power * log_prior, w)

    return float(minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x)


def _validation(pdf: ArrayLike, z_bin: ArrayLike) -> tuple[NDArray[np.floating[Any]], Ints]:
    """Logarithm of p(z), in its own precision, and bins; they must fit together, and there must be some."""
    p, k = np.asarray(pdf), np.asarray(z_bin, dtype=np.int64)
    if p.ndim != 2 or k.shape != (len(p),) or k.size == 0:
        raise ValueError(
            f"a fit needs p(z) (n, K) and bins (n,) of validation galaxies, got {p.shape}, {k.shape}"
        )
    return np.log(np.maximum(p, SMALLEST_PDF)), k


def _nll(
    log_p: NDArray[np.floating[Any]],
    z_bin: Ints,
    logits: Callable[[Floats], Floats],
    weight: Floats | None = None,
) -> float:
    """Mean negative log-likelihood of softmax(logits(log p(z))) at the bins, by chunks."""
    total, w = 0.0, np.ones(len(log_p)) if weight is None else weight
    for start in range(0, len(log_p), CHUNK):
        part = slice(start, start + CHUNK)
        f = logits(log_p[part].astype(np.float64))
        at_label = np.take_along_axis(f, z_bin[part, None], axis=1)[:, 0]
        total += float(w[part] @ (logsumexp(f, axis=1) - at_label))
    return total / float(w.sum())
