"""The implicit prior of predicted p(z): that of a run, and another one to convert it to.

A p(z) has the n(z) of the labels that its outputs were trained with for a prior. Galaxies of another n(z)
need another one (`photoz_lit.correction.posthoc.swap_prior`): `predict.prior` names it, the results tell it.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.correction.posthoc import smoothed_prior, swap_prior
from photoz_lit.data.columns import numbers
from photoz_lit.data.formats import read_table
from photoz_lit.errors import DataError
from photoz_lit.grids import RedshiftGrid

Floats = NDArray[np.float64]

OLD_FLOOR = 0.01
"""Share of a flat n(z) in the prior that is divided out: bins of hardly a label have no p(z) to be raised."""

NEW_FLOOR = 1e-4
"""Share of a flat n(z) in the new prior: a galaxy where it is zero still gets a p(z)."""


@dataclass(frozen=True, eq=False)
class PriorSwap:
    """p(z) converted from one implicit prior to another, both of shape (n_outputs,)."""

    old: Floats
    new: Floats

    def __call__(self, pdf: ArrayLike) -> NDArray[np.float32]:
        """Convert p(z), (n, n_outputs)."""
        return swap_prior(pdf, smoothed_prior(self.old, OLD_FLOOR), self.new).astype(np.float32)


def train_n_of_z(folder: Path) -> Floats:
    """Return the implicit prior of a run, on the bins of its p(z).

    Raises
    ------
    DataError
        The run folder does not tell it.
    """
    try:
        with h5py.File(folder / "pdf.hdf5") as file:
            return np.asarray(file["train_n_of_z"][:], dtype=np.float64)
    except (OSError, KeyError) as error:
        raise DataError(
            f"{folder / 'pdf.hdf5'}: cannot be read ({error}): bring the whole run folder, or run it again"
        ) from error


def read_prior(wanted: str, grid: RedshiftGrid) -> Floats | None:
    """Return the prior that `predict.prior` names, (n_outputs,), or None where p(z) stay as they are.

    Parameters
    ----------
    wanted : str
        "none"; "flat", over all bins of p(z); or the path of a table with columns `z` and `n_of_z`, a density
        of any scale, linear between its rows and zero beyond them.
    grid : RedshiftGrid
        Bins of p(z), extension included.

    Raises
    ------
    DataError
        The table cannot be read, or is no n(z) on the range of p(z).
    """
    if wanted == "none":
        return None
    if wanted == "flat":
        return np.full(grid.n_outputs, 1 / grid.n_outputs)
    path = Path(wanted).expanduser()
    if not path.is_file():
        raise DataError(
            f"predict.prior={wanted}: no such file. It is none, flat, or a table with columns z and n_of_z "
            f"(relative paths start at {Path.cwd()})"
        )
    table = read_table(path)
    if missing := [name for name in ("z", "n_of_z") if name not in table.colnames]:
        raise DataError(
            f"{path}: has no column {' and no column '.join(missing)} but {', '.join(table.colnames)}: "
            "predict.prior is flat, none or a table with z and n_of_z"
        )
    z, n = (numbers(table, name, str(path)) for name in ("z", "n_of_z"))
    faulty = ~np.isfinite(z) | ~np.isfinite(n) | (n < 0) | (np.diff(z, prepend=-np.inf) <= 0)
    if faulty.any():
        row = int(faulty.argmax())
        raise DataError(
            f"{path}: z={z[row]:g}, n_of_z={n[row]:g} in row {row}: z must rise from row to row, n_of_z must "
            "be a number and not negative"
        )
    on_bins = np.interp(grid.centres, z, n, left=0, right=0) if len(z) else np.zeros(grid.n_outputs)
    if not on_bins.any():
        raise DataError(
            f"{path}: n_of_z is zero on the range of p(z), {grid.edges[0]:g} to {grid.edges[-1]:g}: bring "
            "the n(z) of the galaxies to predict for"
        )
    return smoothed_prior(on_bins / on_bins.sum(), NEW_FLOOR)
