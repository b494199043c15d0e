"""`data=pasquet`: `sdss.npz` of Pasquet et al. 2019 (A&A 621, A26), the SDSS Main Galaxy Sample.

`cube` (659857, 64, 64, 5) float32, bands ugriz, nanomaggies, and `labels`, a structured array with z, EBV,
dered_petro_r, ra, dec, primtarget and more, one row a galaxy. The authors' own sample of 100 galaxies names
the cutouts `data`, with one array a column beside them (z, ebv): read alike.
"""

from dataclasses import dataclass
from pathlib import Path

from photoz_lit.data.sources import published
from photoz_lit.data.sources.published import Published, PublishedSettings, table_of
from photoz_lit.errors import DataError

KINDS, check, facts = published.KINDS, published.check, published.facts
COLUMNS = {
    "spec_z": ("z", "spec_z", "zspec", "specz", "redshift"),
    "dered_petro_r": ("dered_petro_r", "dered_petro_mag_r", "dered_petro_mag_2", "dered_petro_mag"),
    "ebv": ("EBV", "E_BV", "E(B-V)"),
    "object_id": ("object_id", "objID", "bestObjID", "dr7objid", "specObjID"),
    "ra": ("ra",),
    "dec": ("dec",),
}


@dataclass
class Settings(PublishedSettings):
    """The `.npz`."""

    source: str = "pasquet"


def read(path: Path) -> Published:
    """Open a `.npz` with `cube` and `labels`."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check data.path (relative paths start at {Path.cwd()})")
    names = published.array_names(path)
    key = next((name for name in ("cube", "data") if name in names), None)
    if key is None:
        raise DataError(
            f"{path}: no array 'cube' in it, as data=pasquet needs. Its arrays: {', '.join(names)}"
        )
    cube = published.NpzCube(path, key)
    if "labels" in names:
        return Published(published.labels_table(path, "labels"), COLUMNS, [cube])
    columns = [n for n in names if n != key and published.array_shape(path, n)[:1] == (cube.rows,)]
    if not columns:
        raise DataError(f"{path}: no array 'labels' in it, as data=pasquet needs")
    return Published(table_of({name: published.read_array(path, name) for name in columns}), COLUMNS, [cube])


plan = published.planner(read)
