"""Ordinal soft labels: a label that fades with the distance from its bin (Diaz & Marathe 2019)."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from photoz_lit.grids import RedshiftGrid

Floats = NDArray[np.float64]


def ordinal_labels(
    spec_z: ArrayLike, grid: RedshiftGrid, scale: float, metric: Literal["absolute", "squared"] = "squared"
) -> Floats:
    """Labels q_k ~ exp(-phi(z, z_k)) over the bins of the grid (SORD).

    phi is abs(z - z_k) / scale or ((z - z_k) / scale)^2 / 2, z_k being the bin centres (Diaz & Marathe 2019,
    CVPR, "Soft labels for ordinal regression", where the scale is part of phi). The squared metric
    is the softening of Step 3 with one width for all outputs, centred on spec_z and not on its bin.

    Parameters
    ----------
    spec_z : array_like, shape (n,)
        Redshifts; they may be the centres of bins, to make a table of labels by bin.
    grid : RedshiftGrid
        Redshift bins, extension included.
    scale : float
        Scale of phi, in redshift, above 0.
    metric : {"absolute", "squared"}
        Shape of phi.

    Returns
    -------
    ndarray, shape (n, n_outputs)
        Labels; rows sum to 1.

    Raises
    ------
    ValueError
        If the scale is not positive or the metric is none of the two.
    """
    if not scale > 0 or metric not in ("absolute", "squared"):
        raise ValueError(f"SORD needs scale > 0 and metric absolute or squared, got {scale} and {metric!r}")
    distance = np.abs(grid.centres - np.asarray(spec_z, dtype=np.float64)[:, None]) / scale
    labels: Floats = softmax(-distance if metric == "absolute" else -0.5 * distance**2, axis=1)
    return labels
