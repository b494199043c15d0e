"""Sharpened or widened p(z): softmax(f / T), that is p(z)^(1/T) normalised, with T of the best likelihood.

Guo et al. 2017, ICML, "On calibration of modern neural networks", arXiv:1706.04599. For a mixture of
outputs f is log p(z) of the mixture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.correction import CHUNK
from photoz_lit.correction.finishing.link import Arrays, Facts, Galaxies, Link, Maybe, Nature, OnTensors
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Floats

SMALLEST_PDF = 1e-30  # floor of p(z) before a logarithm; softmax in float32 reaches zero
RANGE = (0.05, 20.0)  # of the search for T


def nature(value: Any) -> Nature:
    """Widens or sharpens."""
    return Nature()


def check(value: Any, correction: CorrectionConfig) -> None:
    """Refuse all but `temperature: fitted`."""
    if value != "fitted":
        raise ConfigError(f"correction.finish: temperature={value} is not valid: type temperature: fitted")


def fit(value: str, galaxies: Galaxies, facts: Facts) -> "Temperature":
    """Fit T on the galaxies."""
    z_bin = facts.grid.index(galaxies.spec_z) + facts.grid.extend_left
    return Temperature(fit_temperature(galaxies.pdf, z_bin))


def link_from(arrays: Arrays, facts: Facts) -> "Temperature":
    """Build the link again."""
    return Temperature(float(arrays["temperature"]))


@dataclass(frozen=True)
class Temperature(Link):
    """A temperature: above 1 it widens, below 1 it sharpens."""

    temperature: float

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Return p(z), (n, n_outputs), rows of sum 1."""
        p = np.asarray(pdf, dtype=np.float64)
        tempered = (p / p.max(axis=1, keepdims=True)) ** (1 / self.temperature)
        return np.asarray(tempered / tempered.sum(axis=1, keepdims=True))

    def on_tensors(self) -> OnTensors:
        """Return the same for a program."""
        return lambda pdf, _: (pdf.log() / self.temperature).softmax(dim=1)


def fit_temperature(pdf: ArrayLike, z_bin: ArrayLike) -> float:
    """Temperature of least negative log-likelihood of p(z) (n, n_outputs) at the bins (n,) of spec_z."""
    # The likelihood of a power of p(z) is log-concave in 1 / T: one minimum.
    low, high = np.log(RANGE)
    found = least_nll(pdf, z_bin, lambda log_p, log_t, _: log_p * np.exp(-log_t), (low, high))
    return float(np.exp(found))


def least_nll(
    pdf: ArrayLike,
    z_bin: ArrayLike,
    logits: Callable[[Floats, float, slice], Floats],
    bounds: tuple[float, float],
    weight: ArrayLike | None = None,
) -> float:
    """Find where softmax(logits(log p(z), x, rows)) at the bins (n,), by weights (n,), is most likely.

    Logits are asked for some galaxies at a time, those of these rows.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    log_p, k = np.log(np.maximum(np.asarray(pdf), SMALLEST_PDF)), np.asarray(z_bin, dtype=np.int64)
    if log_p.ndim != 2 or k.shape != (len(log_p),) or k.size == 0:
        raise ValueError(f"a fit needs p(z) and bins of validation galaxies, got {log_p.shape}, {k.shape}")
    w = np.ones(len(log_p)) if weight is None else np.asarray(weight, dtype=np.float64)

    def mean_nll(x: float) -> float:
        total = 0.0
        for start in range(0, len(log_p), CHUNK):
            part = slice(start, start + CHUNK)
            f = logits(log_p[part].astype(np.float64), x, part)
            at_label = np.take_along_axis(f, k[part, None], axis=1)[:, 0]
            total += float(w[part] @ (logsumexp(f, axis=1) - at_label))
        return total / float(w.sum())

    return float(minimize_scalar(mean_nll, bounds=bounds, method="bounded", options={"xatol": 1e-4}).x)
