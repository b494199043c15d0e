"""p(z) as mixtures of three Gaussians: `mixmod` of qp."""

from pathlib import Path

import numpy as np
from scipy.special import ndtr

from photoz_lit import metrics
from photoz_lit.grids import Floats, RedshiftGrid
from photoz_lit.products.small import Fitted, write_small

NAME = "pdf_mixture.hdf5"
N, STEPS, AT_ONCE = 3, 20, 1024  # Gaussians; steps of the fit; galaxies in memory


def write(folder: Path, place: Path) -> None:
    """Write mixtures that are like p(z) of a run folder, with what that lost."""
    meta = {"pdf_name": np.array([b"mixmod"]), "pdf_version": np.array([0])}
    write_small("mixture", folder, place, meta, fit)


def fit(pdf: Floats, grid: RedshiftGrid) -> Fitted:
    """Return means, widths and weights, (m, 3) each, and the cumulative p(z) of the mixtures."""
    parts = [_fit(pdf[i : i + AT_ONCE], grid) for i in range(0, max(len(pdf), 1), AT_ONCE)]
    means, stds, weights = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    cdf = sum(
        weights[:, i, None] * ndtr((grid.edges - means[:, i, None]) / stds[:, i, None]) for i in range(N)
    )
    return {"means": means, "stds": stds, "weights": weights}, np.asarray(cdf)


def _fit(pdf: Floats, grid: RedshiftGrid) -> tuple[Floats, Floats, Floats]:
    """Fit by expectation and maximisation (Dempster et al. 1977), from the sixths of p(z) onwards."""
    z, p = grid.centres.astype(np.float32), (pdf / pdf.sum(axis=1, keepdims=True)).astype(np.float32)
    least = np.float32(grid.width**2 / 12)  # a bin's own variance: the narrowest there can be
    starts = (np.arange(N) + 0.5) / N
    means = np.array([np.interp(starts, c, grid.edges) for c in metrics.cumulative(pdf)], np.float32)
    means = means.reshape(-1, N)
    spread = np.maximum(p @ z**2 - (p @ z) ** 2, least)
    variances = np.repeat(spread[:, None] / N, N, axis=1)
    weights = np.full_like(means, 1 / N)
    for _ in range(STEPS):
        off = (z - means[..., None]) ** 2
        log_density = -0.5 * (off / variances[..., None] + np.log(variances)[..., None])
        density = np.log(weights + 1e-12)[..., None] + log_density
        share = np.exp(density - density.max(axis=1, keepdims=True))
        share *= (p / share.sum(axis=1))[:, None]
        weights = share.sum(axis=2)
        safe = np.maximum(weights, 1e-12)
        means = share @ z / safe
        variances = np.maximum((share * (z - means[..., None]) ** 2).sum(axis=2) / safe, least)
    return means.astype(np.float64), np.sqrt(variances, dtype=np.float64), weights.astype(np.float64)
