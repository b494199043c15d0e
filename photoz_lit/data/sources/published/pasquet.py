"""`sdss.npz`, the data set of Pasquet et al. 2019 (A&A 621, A26): SDSS Main Galaxy Sample.

`cube` (659857, 64, 64, 5) float32, bands ugriz, nanomaggies, and `labels`, a structured array with z, EBV,
dered_petro_r, ra, dec, primtarget and more, one row a galaxy. The authors' own sample of 100 galaxies names
the cutouts `data`, with one array a column beside them (z, ebv): read alike.
"""

from pathlib import Path

from astropy.table import Table

from photoz_lit.data.sources.published import npz
from photoz_lit.data.sources.published.reader import Reader, add_column, as_table, assemble
from photoz_lit.errors import DataError

BANDS = "ugriz"
COLUMNS = {
    "spec_z": ("z", "spec_z", "zspec", "specz", "redshift"),
    "dered_petro_r": ("dered_petro_r", "dered_petro_mag_r", "dered_petro_mag_2", "dered_petro_mag"),
    "ebv": ("EBV", "E_BV", "E(B-V)"),
    "object_id": ("object_id", "objID", "bestObjID", "dr7objid", "specObjID"),
    "ra": ("ra",),
    "dec": ("dec",),
}


def open_pasquet(path: Path, n_bands: int, pixels: int) -> Reader:
    """Open a `.npz` with `cube` and `labels`; see `open_layout`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check data.path (relative paths start at {Path.cwd()})")
    names = npz.array_names(path)
    key = next((name for name in ("cube", "data") if name in names), None)
    if key is None:
        raise DataError(
            f"{path}: no array 'cube' in it, as layout=pasquet needs. Its arrays: {', '.join(names)}"
        )
    cube = npz.NpzCube(path, key)
    if "labels" in names:
        table = labels_table(path, "labels")
    else:
        table = Table()
        for name in names:
            if name != key and npz.array_shape(path, name)[:1] == (cube.rows,):
                add_column(table, name, npz.read_array(path, name))
        if not table.colnames:
            raise DataError(f"{path}: no array 'labels' in it, as layout=pasquet needs")
    return assemble(
        [cube], table, columns=COLUMNS, bands=BANDS, n_bands=n_bands, pixels=pixels, prefer_last=True
    )


def labels_table(path: Path, key: str) -> Table:
    """Read a structured array of labels as a table."""
    labels = npz.read_array(path, key)
    if labels.dtype.names is None or labels.ndim != 1:
        raise DataError(
            f"{path}: '{key}' has shape {labels.shape} and type {labels.dtype}: a structured array of named "
            "fields, one row a galaxy, is needed"
        )
    return as_table(labels)
