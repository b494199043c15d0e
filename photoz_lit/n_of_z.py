"""An n(z) of a user's own, for prior of p(z): what `predict.prior` names."""

from pathlib import Path
from typing import Literal

import numpy as np

from photoz_lit.data.columns import numbers
from photoz_lit.errors import DataError
from photoz_lit.grids import Floats, RedshiftGrid


def read_prior(wanted: str, grid: RedshiftGrid) -> Floats | Literal["flat"] | None:
    """Return the n(z) that `predict.prior` names, (n_outputs,), or None where p(z) stay as they are.

    It is "none"; "flat", over all bins of p(z) in each slice of r; or the path of a table with columns `z`
    and `n_of_z`, a density of any scale, linear between its rows and zero beyond. DataError where it is no
    n(z) on the bins.
    """
    if wanted == "none":
        return None
    if wanted == "flat":
        return "flat"
    from photoz_lit.data.formats import read_table

    path = Path(wanted).expanduser()
    table = read_table(path)
    if not {"z", "n_of_z"} <= set(table.colnames):
        raise DataError(
            f"{path} has the columns {', '.join(table.colnames)}: predict.prior is flat, none or a table "
            "with z and n_of_z"
        )
    z, n = (numbers(table, name, str(path)) for name in ("z", "n_of_z"))
    faulty = ~np.isfinite(z) | ~np.isfinite(n) | (n < 0) | (np.diff(z, prepend=-np.inf) <= 0)
    if faulty.any():
        row = int(faulty.argmax())
        raise DataError(
            f"{path}: z={z[row]:g}, n_of_z={n[row]:g} in row {row}: z must rise from row to row, n_of_z must "
            "be a number and not negative"
        )
    if not (on_bins := np.interp(grid.centres, z, n, left=0, right=0)).any():
        raise DataError(
            f"{path}: n_of_z is zero on the range of p(z), {grid.edges[0]:g} to {grid.edges[-1]:g}: bring "
            "that of the galaxies to predict for"
        )
    return np.asarray(on_bins / on_bins.sum())
