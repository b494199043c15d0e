"""One p(z) from several: arithmetic, geometric and harmonic mean."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Mean = Literal["arithmetic", "geometric", "harmonic"]

SMALLEST_PDF = 1e-30
"""Floor of p(z) under a logarithm or a fraction: one member's underflow to zero is no veto of a bin."""


def combine(pdfs: Sequence[ArrayLike], mean: Mean, weights: ArrayLike | None = None) -> Floats:
    """Combine the p(z) of an ensemble bin by bin and normalise.

    The arithmetic mean keeps what any member finds possible and is the widest: it is right where one member
    is right and nobody knows which (Lakshminarayanan et al. 2017, arXiv:1612.01474). The harmonic mean keeps
    what all members find possible; Lin et al. 2024 (A&A 691, A331, CLAP) combine ten realisations with it.
    The geometric mean, between the two, is the mean of the logits.

    Parameters
    ----------
    pdfs : sequence of array_like, each of shape (n, K)
        p(z) of the same galaxies on the same grid; rows are independent, so that chunks will do.
    mean : {"arithmetic", "geometric", "harmonic"}
        Which mean.
    weights : array_like, shape (n_members,), optional
        Weight of each member, equal by default.

    Returns
    -------
    ndarray, shape (n, K)
        Rows sum to 1.

    Raises
    ------
    ValueError
        If there is no member, shapes differ, weights do not fit or the mean is none of the three.
    """
    shapes = {np.shape(p) for p in pdfs}
    w = np.ones(len(pdfs)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(shapes) != 1 or w.shape != (len(pdfs),) or not (w >= 0).all() or not w.sum() > 0:
        raise ValueError(f"an ensemble needs p(z) of one shape and a weight each, got {shapes} and {w}")
    if mean not in ("arithmetic", "geometric", "harmonic"):
        raise ValueError(f"mean must be arithmetic, geometric or harmonic, got {mean!r}")
    total: Floats = np.zeros(shapes.pop())
    for pdf, share in zip(pdfs, w / w.sum(), strict=True):
        p = np.asarray(pdf, dtype=np.float64)
        if mean != "arithmetic":
            p = np.maximum(p, SMALLEST_PDF)
            p = np.log(p) if mean == "geometric" else 1 / p
        total += share * p
    if mean == "geometric":
        total = np.exp(total - total.max(axis=1, keepdims=True))
    if mean == "harmonic":
        # Relative to the largest: floored members would otherwise leave rows of 1e-30.
        total = total.min(axis=1, keepdims=True) / total
    normalised: Floats = total / total.sum(axis=1, keepdims=True)
    return normalised
