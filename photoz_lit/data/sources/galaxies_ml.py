"""`data=galaxies_ml`: HSC cutouts in HDF5 (Do et al. 2024, arXiv 2410.00271, doi 10.5281/zenodo.11117528).

`image` (n, 5, 64, 64) or (n, 5, 127, 127), bands grizy, in the counts of HSC's coadds (AB zero point 27), and
one data set a column: object_id, specz_redshift, ra, dec, r_cmodel_mag, ... There is no E(B-V), and cmodel
magnitudes are as observed, not dereddened. A folder or pattern of several files makes one table; where every
name says training, validation or testing, as the published ones do, it has a column `split`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from photoz_lit.data.sources import published
from photoz_lit.data.sources.published import Published, PublishedSettings, found_files, reading
from photoz_lit.errors import DataError

if TYPE_CHECKING:
    from astropy.table import Table

KINDS, check, facts = published.KINDS, published.check, published.facts
ZERO_POINT = 27.0
COLUMNS = {name: (name,) for name in ("object_id", "ra", "dec", "split")} | {
    "spec_z": ("specz_redshift",),
    "dered_petro_r": ("r_cmodel_mag",),
}
SPLITS = {"train": "train", "valid": "val", "test": "test"}


@dataclass
class Settings(PublishedSettings):
    """The files; also type survey=hsc."""

    source: str = "galaxies_ml"


def read(path: Path) -> Published:
    """Open one file, a folder or a pattern of files, sorted by name."""
    from astropy.table import vstack

    files = found_files(path, (".hdf5", ".h5"))
    parts = [HdfImages(file) for file in files]
    tables = [_table(part) for part in parts]
    splits = [next((ours for word, ours in SPLITS.items() if word in f.stem.lower()), "") for f in files]
    if len(files) > 1 and all(splits):
        for table, split in zip(tables, splits, strict=True):
            table["split"] = split
    table = vstack(tables, join_type="inner", metadata_conflicts="silent")
    return Published(table, COLUMNS, parts, ZERO_POINT, bands_last=False)


plan = published.planner(read)


class HdfImages:
    """The data set `image` of an HDF5 file."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        with reading(path), h5py.File(path) as file:
            image = file.get("image")
            if not isinstance(image, h5py.Dataset) or image.ndim != 4:
                raise DataError(
                    f"{path}: no data set 'image' with four axes, as data=galaxies_ml needs. "
                    f"It holds: {', '.join(file)}"
                )
            self.rows, self.cutout, self.dtype = image.shape[0], image.shape[1:], image.dtype

    def read(self, spans: Sequence[tuple[int, int]]) -> Iterator[NDArray[Any]]:
        """Yield the cutouts of ascending row ranges [low, high): slices, which HDF5 reads fast."""
        import h5py

        with reading(self.path), h5py.File(self.path) as file:
            for low, high in spans:
                yield file["image"][low:high]


def _table(part: HdfImages) -> "Table":
    """Read the one-dimensional data sets as columns."""
    import h5py
    from astropy.table import Table

    table = Table()
    with reading(part.path), h5py.File(part.path) as file:
        for name, item in file.items():
            if isinstance(item, h5py.Dataset) and item.shape == (part.rows,):
                text = h5py.check_string_dtype(item.dtype)
                table[name] = item[:] if text is None else item.asstr()[:].astype(str)
    if "specz_redshift" not in table.colnames:
        raise DataError(
            f"{part.path}: no column 'specz_redshift' of {part.rows} rows, as data=galaxies_ml needs. "
            f"Its columns: {', '.join(table.colnames)}"
        )
    return table
