"""What small files of p(z) share: a qp file in compressed chunks, and what the compression lost.

Galaxies without an estimate are left out, which the log tells: qp reads no such quantiles or mixtures.

The loss of a galaxy is the integral of the difference of the two cumulative distributions, a redshift
(Wasserstein's distance), and the largest such difference. Both are in the file, as attributes of `data`.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from photoz_lit import metrics
from photoz_lit.grids import Bools, Floats, RedshiftGrid
from photoz_lit.products.opened import opened

log = logging.getLogger(__name__)

Fitted = tuple[Mapping[str, Floats], Floats]  # arrays of m galaxies by name; cumulative p(z) at the edges


def write_small(
    form: str,
    folder: Path,
    place: Path,
    meta: Mapping[str, NDArray[Any]],
    fit: Callable[[Floats, RedshiftGrid], Fitted],
) -> None:
    """Write p(z) of a run folder as `fit` has them, with the metadata that qp needs."""
    results = opened(folder, form)
    lost, n = np.zeros(2), 0
    with h5py.File(place, "w") as file:
        for name, values in meta.items():
            file[f"meta/{name}"] = values
        for rows, pdf in results:
            known: Bools = np.asarray(np.isfinite(pdf).all(axis=1))
            arrays, cdf = fit(pdf[known], results.grid)
            off = np.abs(cdf - metrics.cumulative(pdf[known]))
            lost += off.sum() * results.grid.width, off.max(axis=1).sum()
            n += int(known.sum())
            for name, values in arrays.items():
                _append(file, f"data/{name}", values.astype(np.float32))
            for ours, theirs in (("object_id", "object_id"), ("flag", "flag"), ("photo_z_mode", "zmode")):
                values = np.asarray(rows[ours][known])
                values = np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
                _append(file, f"ancil/{theirs}", values)
        of = file["data"]
        size = sum(data.dtype.itemsize * data.shape[1] for data in of.values())
        of.attrs["mean_wasserstein"], of.attrs["mean_largest_cdf_error"] = lost / max(n, 1)
    log.info(
        "%d bytes a galaxy instead of %d; lost on average %.2g in redshift, %.2g at most in p(<z); "
        "%d galaxies without an estimate are left out",
        *(size, 4 * results.grid.n_outputs, *lost / max(n, 1), results.n - n),
    )


def _append(file: Any, name: str, values: NDArray[Any]) -> None:
    if name not in file:
        shape = (None, *values.shape[1:])
        options = {"compression": "gzip", "compression_opts": 4, "shuffle": True}
        file.create_dataset(name, data=values, maxshape=shape, chunks=True, **options)
        return
    data = file[name]
    data.resize(len(data) + len(values), axis=0)
    data[len(data) - len(values) :] = values
