"""Sharpened or widened p(z): softmax(f / T), that is p(z)^(1/T) normalised, with T of the best likelihood.

Guo et al. 2017, ICML, "On calibration of modern neural networks", arXiv:1706.04599. For a mixture of
outputs f is log p(z) of the mixture.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction import CHUNK
from photoz_lit.correction.finishing.link import Facts, Floats, Galaxies, Link
from photoz_lit.errors import ConfigError

if TYPE_CHECKING:
    from photoz_lit.correction.settings import CorrectionConfig

KEEPS_PRIOR = False
HELD_OUT = False
NEEDS_PRIOR = False

SMALLEST_PDF = 1e-30
"""Floor of p(z) before a logarithm; softmax in float32 reaches zero."""

RANGE = (0.05, 20.0)
"""Range of the search for T."""


def check(value: Any, correction: "CorrectionConfig") -> None:
    """Refuse all but `temperature: fitted`."""
    if value != "fitted":
        raise ConfigError(f"correction.finish: temperature={value} is not valid: type temperature: fitted")


def fit(value: str, galaxies: Galaxies, facts: Facts) -> "Temperature":
    """Fit T on the galaxies."""
    z_bin = facts.grid.index(galaxies.spec_z) + facts.grid.extend_left
    return Temperature(fit_temperature(galaxies.pdf, z_bin))


def link_from(arrays: Mapping[str, NDArray[Any]], facts: Facts) -> "Temperature":
    """Build the link again."""
    return Temperature(float(arrays["temperature"]))


@dataclass(frozen=True)
class Temperature(Link):
    """A temperature: above 1 it widens, below 1 it sharpens."""

    temperature: float

    def __call__(
        self, pdf: ArrayLike, dered_petro_r: ArrayLike | None = None, embeddings: ArrayLike | None = None
    ) -> Floats:
        """Return p(z), (n, n_outputs), rows of sum 1."""
        p = np.asarray(pdf, dtype=np.float64)
        scaled = p / p.max(axis=1, keepdims=True)
        tempered = scaled ** (1 / self.temperature)
        return np.asarray(tempered / tempered.sum(axis=1, keepdims=True))

    def arrays(self) -> dict[str, ArrayLike]:
        """Return the temperature."""
        return {"temperature": self.temperature}


def fit_temperature(pdf: ArrayLike, z_bin: ArrayLike) -> float:
    """Temperature of least negative log-likelihood of p(z) (n, n_outputs) at the bins (n,) of spec_z."""
    from scipy.optimize import minimize_scalar

    log_p = log_pdf(pdf)

    def nll(log_temperature: float) -> float:
        return mean_nll(log_p, z_bin, lambda part: part * np.exp(-log_temperature))

    # The likelihood of a power of p(z) is log-concave in 1 / T: one minimum.
    found = minimize_scalar(nll, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-4})
    return float(np.exp(found.x))


def log_pdf(pdf: ArrayLike) -> NDArray[np.floating[Any]]:
    """Logarithm of p(z), in its own precision, finite."""
    return np.asarray(np.log(np.maximum(np.asarray(pdf), SMALLEST_PDF)))


def mean_nll(
    log_p: NDArray[np.floating[Any]],
    z_bin: ArrayLike,
    logits: Callable[[Floats], Floats],
    weight: ArrayLike | None = None,
) -> float:
    """Mean negative log-likelihood of softmax(logits(log p(z))) at the bins (n,), by weights (n,).

    Raises
    ------
    ValueError
        If p(z) (n, n_outputs) and bins do not fit together or there are none.
    """
    from scipy.special import logsumexp

    k = np.asarray(z_bin, dtype=np.int64)
    if log_p.ndim != 2 or k.shape != (len(log_p),) or k.size == 0:
        raise ValueError(
            f"a fit needs p(z) (n, K) and bins (n,) of validation galaxies, got {log_p.shape}, {k.shape}"
        )
    w = np.ones(len(log_p)) if weight is None else np.asarray(weight, dtype=np.float64)
    total = 0.0
    for start in range(0, len(log_p), CHUNK):
        part = slice(start, start + CHUNK)
        f = logits(log_p[part].astype(np.float64))
        at_label = np.take_along_axis(f, k[part, None], axis=1)[:, 0]
        total += float(w[part] @ (logsumexp(f, axis=1) - at_label))
    return total / float(w.sum())
