"""What p(z) say of each galaxy: mode, mean, median, 68 % interval, and what else a table has of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit import metrics
from photoz_lit.correction.finishing.response import Response
from photoz_lit.grids import Bools, RedshiftGrid

Floats = NDArray[np.floating[Any]]


def estimates_of(
    given: Floats,
    usable: Bools,
    grid: RedshiftGrid,
    chosen: str,
    truth: Floats | None = None,
    responses: Sequence[Response] = (),
    r: Floats | None = None,
) -> dict[str, Floats]:
    """Return, by kind, what p(z) (n, n_outputs) say of each galaxy, (n,); "" is the chosen estimate.

    Galaxies that are not `usable`, (n,), get NaN, whatever their p(z).
    """
    pdf = np.where(usable[:, None], given, 1.0).astype(np.float64)
    lower, median, upper = metrics.central(pdf, grid).T
    estimates = {"mode": metrics.mode(pdf, grid), "mean": metrics.mean(pdf, grid), "median": median}
    photo_z = estimates[chosen]
    estimates |= {"": photo_z, "lower": np.minimum(np.clip(lower, grid.z_min, grid.z_max), photo_z)}
    estimates["upper"] = np.maximum(np.clip(upper, grid.z_min, grid.z_max), photo_z)
    if grid.n_outputs > grid.n_bins:
        inside = pdf[:, grid.extend_left : grid.extend_left + grid.n_bins].sum(axis=1)
        estimates["pdf_outside"] = np.maximum(1 - inside / pdf.sum(axis=1), 0)
    if truth is not None:
        known = np.isfinite(truth)
        estimates["pit"] = np.full(len(pdf), np.nan)
        estimates["pit"][known] = metrics.pit(pdf[known], truth[known], grid)
    if responses:
        found = np.mean([response.individual(pdf, r) for response in responses], axis=0)
        estimates |= {"individual": found[0], "individual_err": found[1]}
    return {kind: np.where(usable, values, np.nan) for kind, values in estimates.items()}
