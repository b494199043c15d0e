"""A HATS catalogue: Parquet files of the columns of `rubin`, by HEALPix pixel, as LSDB opens them.

All partitions are of one order of pixels, the lowest that keeps the fullest below `MOST`. Layout: the IVOA
note on HATS, by the package `hats`, which is imported when it is used.
"""

from pathlib import Path
from typing import Any

import numpy as np

from photoz_lit.errors import DataError
from photoz_lit.grids import Ints
from photoz_lit.products import rubin
from photoz_lit.products.opened import Opened, name_of_run, opened

NAME = "photo_z_hats"
INDEX, FINEST = "_healpix_29", 29
MOST, DEEPEST = 100_000, 8  # galaxies in a partition; order


def write(folder: Path, place: Path) -> None:
    """Write the results of a run folder as a catalogue; DataError where a position is not known."""
    from hats.catalog import PartitionInfo, TableProperties
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.pixel_math import HealpixPixel

    results = opened(folder, "hats")
    index = indices(results)
    order = order_of(index)
    name = name_of_run(folder)
    pixels = partition(results, index, order, place)
    PartitionInfo.from_healpix([HealpixPixel(order, int(pixel)) for pixel in pixels]).write_to_file(
        place / "partition_info.csv"
    )
    TableProperties(
        catalog_name=name,
        catalog_type="object",
        total_rows=results.n,
        ra_column="coord_ra",
        dec_column="coord_dec",
        healpix_column=INDEX,
        healpix_order=FINEST,
    ).to_properties_file(place)
    write_parquet_metadata(place, create_thumbnail=True)


def indices(results: Opened) -> Ints:
    """Return the pixel of each galaxy at order 29, (n,); DataError where a position is not known."""
    from hats.pixel_math.spatial_index import compute_spatial_index

    if not {"ra", "dec"} <= set(results.dtype.names or ()):
        raise DataError(f"{results.folder}: format=hats needs ra and dec, which the galaxies have not")
    found: list[Ints] = []
    for rows, _ in results:
        ra, dec = (np.asarray(rows[name], np.float64) for name in ("ra", "dec"))
        if (bad := ~(np.isfinite(ra) & np.isfinite(dec))).any():
            row = int(bad.argmax()) + sum(map(len, found))
            raise DataError(f"{results.folder}: format=hats needs ra and dec: row {row} has none")
        found.append(compute_spatial_index(ra, dec))
    return np.concatenate(found)


def order_of(index: Ints) -> int:
    """Return the order of pixels of the partitions."""
    for order in range(DEEPEST):
        if np.unique(at(index, order), return_counts=True)[1].max() <= MOST:
            return order
    return DEEPEST


def at(index: Ints, order: int) -> Ints:
    """Return the pixels at an order of indices at order 29: each of those has four of the next."""
    return np.asarray(index >> 2 * (FINEST - order))


def partition(results: Opened, index: Ints, order: int, place: Path) -> Ints:
    """Write the file of each pixel, its galaxies in the order of their index, and return the pixels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def file_of(pixel: int) -> Path:
        folder = place / "dataset" / f"Norder={order}" / f"Dir={pixel // 10000 * 10000}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"Npix={pixel}.parquet"

    parts: dict[int, list[Any]] = {}
    counts = dict(zip(*np.unique(at(index, order), return_counts=True), strict=True))
    start = 0
    for rows, pdf in results:
        own = index[start : start + len(rows)]
        batch = rubin.batch_of(rows, pdf, results.grid).add_column(0, INDEX, pa.array(own))
        for pixel in np.unique(at(own, order)).tolist():
            part = batch.take(np.flatnonzero(at(own, order) == pixel))
            parts.setdefault(pixel, []).append(part)
            if sum(map(len, parts[pixel])) == counts[pixel]:
                whole = pa.concat_tables(parts.pop(pixel)).sort_by(INDEX)
                pq.write_table(whole, file_of(pixel), compression="zstd")
        start += len(rows)
    return np.asarray(list(counts))
