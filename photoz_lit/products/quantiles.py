"""p(z) as quantiles: `quant` of qp."""

from pathlib import Path

import numpy as np
from scipy.special import ndtr

from photoz_lit import metrics
from photoz_lit.grids import Floats, RedshiftGrid
from photoz_lit.products.small import Fitted, write_small

NAME = "pdf_quantiles.hdf5"
LEVELS = np.concatenate([[0], ndtr(np.linspace(-3.5, 3.5, 25)), [1]])  # even in sigma: tails are kept


def write(folder: Path, place: Path) -> None:
    """Write the quantiles of p(z) of a run folder, with what that lost."""
    name = np.array([b"quant"])
    meta = {"pdf_name": name, "pdf_version": np.array([0]), "quants": LEVELS[None]}
    meta |= {"pdf_constructor_name": np.array([b"piecewise_linear"]), "ensure_extent": np.array([True])}
    write_small("quantiles", folder, place, meta, fit)


def fit(pdf: Floats, grid: RedshiftGrid) -> Fitted:
    """Return the redshifts of the levels, (m, L), and the cumulative p(z) that is linear between them."""
    cdf = metrics.cumulative(pdf)
    locs = np.array([np.interp(LEVELS, c, grid.edges) for c in cdf]).reshape(-1, len(LEVELS))
    locs[:, 0] = grid.edges[(pdf > 0).argmax(axis=1)]  # where p(z) begin and end
    locs[:, -1] = grid.edges[grid.n_outputs - (pdf > 0)[:, ::-1].argmax(axis=1)]
    return {"locs": locs}, np.array([np.interp(grid.edges, row, LEVELS) for row in locs]).reshape(cdf.shape)
