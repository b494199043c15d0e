"""Parquet with the names of Rubin's photo-z catalogues: objectId, photoz_lit_z_median, _z_err68_low, ...

Those of Data Preview 1, `<estimator>_z_mode`, `_z_err68_low` and so on, are redshifts, the ends of intervals
too. p(z) are nested as `nested-pandas` and LSDB have them: a struct of two lists, `z` and `p`, a density.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table

from photoz_lit import metrics
from photoz_lit.grids import Bools, Floats, RedshiftGrid
from photoz_lit.products.opened import opened

NAME = "photo_z.parquet"
ESTIMATOR = "photoz_lit"
NAMES = {"object_id": "objectId", "ra": "coord_ra", "dec": "coord_dec", "flag": f"{ESTIMATOR}_flag"}
KINDS = {"median": "median", "mode": "mode", "mean": "mean", "lower": "err68_low", "upper": "err68_high"}
KINDS |= {"individual": "individual", "individual_err": "individual_err"}  # our own, for one spec_z


def write(folder: Path, place: Path) -> None:
    """Write the results of a run folder, a row group a chunk."""
    import pyarrow.parquet as pq

    batches = batches_of(folder, "parquet")
    first = next(batches)
    with pq.ParquetWriter(place, first.schema, compression="zstd") as writer:
        writer.write_table(first)
        for batch in batches:
            writer.write_table(batch)


def batches_of(folder: Path, form: str) -> Iterator[Any]:
    """Yield tables of pyarrow, in order."""
    results = opened(folder, form)
    for rows, pdf in results:
        yield batch_of(rows, pdf, results.grid)


def batch_of(rows: Table, pdf: Floats, grid: RedshiftGrid) -> Any:
    """Return galaxies as a table of pyarrow, of their rows and p(z) (m, n_outputs)."""
    import pyarrow as pa

    low, high = within(pdf, grid, 0.95).T
    renamed = NAMES | {f"photo_z_{kind}": f"{ESTIMATOR}_z_{theirs}" for kind, theirs in KINDS.items()}
    there = {ours: theirs for ours, theirs in renamed.items() if ours in rows.colnames}
    columns = {theirs: pa.array(np.asarray(rows[ours])) for ours, theirs in there.items()}
    columns |= {f"{ESTIMATOR}_z_err95_low": pa.array(low), f"{ESTIMATOR}_z_err95_high": pa.array(high)}
    known: Bools = np.asarray(np.isfinite(pdf).all(axis=1))
    offsets = pa.array(np.concatenate([[0], np.cumsum(known * grid.n_outputs)]), pa.int32())
    z = np.tile(grid.centres.astype(np.float32), known.sum())
    density = (pdf[known] / grid.width).astype(np.float32).ravel()
    lists = [pa.ListArray.from_arrays(offsets, values) for values in (z, density)]
    return pa.table(columns | {f"{ESTIMATOR}_pdf": pa.StructArray.from_arrays(lists, ["z", "p"])})


def within(pdf: Floats, grid: RedshiftGrid, level: float) -> Floats:
    """Return the central interval of each p(z), (m, 2), within the survey; NaN where there is no p(z)."""
    known: Bools = np.asarray(np.isfinite(pdf).all(axis=1))
    limits = np.full((len(pdf), 2), np.nan)
    limits[known] = np.clip(metrics.interval(pdf[known], grid, level), grid.z_min, grid.z_max)
    return limits
