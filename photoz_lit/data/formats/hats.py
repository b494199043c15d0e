"""HATS catalogues: Parquet files, one (or a folder of some) a HEALPix pixel, and properties beside them.

`dataset/Norder=K/Dir=D/Npix=N.parquet` and `hats.properties` (or `properties`); in a collection of such
folders `collection.properties` names that of the objects. After `io/paths.py` and `catalog/dataset` of
https://github.com/astronomy-commons/hats, 0.6.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pyarrow as pa

FILES = ("hats.properties", "properties", "collection.properties")
PARQUET = (".parquet", ".parq", ".pq")


class Hats(NamedTuple):
    """What is to be read of a catalogue of objects."""

    files: list[Path]  # by order and number of their pixels
    healpix: str  # the column that numbers places on the sky
    rows: int | None  # as the properties say

    def is_column(self, field: "pa.Field") -> bool:
        """Whether a column is a quantity of an object: not the index, nor a nested table (light curves)."""
        return field.name != self.healpix and "struct" not in str(field.type)


def find(folder: Path) -> Hats | None:
    """Find the files of a HATS catalogue; None where a folder is none. ValueError where it cannot be read."""
    if (path := next((folder / name for name in FILES if (folder / name).is_file()), None)) is None:
        return None
    said = dict(re.findall(r"^\s*([^#!\s=:]+)\s*[=:]\s*(.*?)\s*$", path.read_text(), re.MULTILINE))
    if path.name == FILES[-1]:
        url = said.get("hats_primary_table_url", "")
        if not url or (found := find(folder / url)) is None:
            raise ValueError(f"{path.name} says hats_primary_table_url={url}: no HATS catalogue there")
        return found
    if (kind := said.get("dataproduct_type", "")) != "object":
        raise ValueError(f"{path.name} says dataproduct_type={kind}: a HATS catalogue of objects is needed")
    pixels = list((folder / "dataset").glob("Norder=*/Dir=*/Npix=*"))
    pixels.sort(key=lambda pixel: [int(n) for n in re.findall(r"(?:Norder|Npix)=(\d+)", str(pixel))])
    parts = [part for pixel in pixels for part in (sorted(pixel.iterdir()) if pixel.is_dir() else [pixel])]
    files = [part for part in parts if part.suffix in PARQUET and part.name[0] not in "._"]
    if not files:
        raise ValueError("the HATS catalogue has no dataset/Norder=*/Dir=*/Npix=*.parquet")
    rows = said.get("hats_nrows", "")
    return Hats(files, said.get("hats_col_healpix", "_healpix_29"), int(rows) if rows else None)
