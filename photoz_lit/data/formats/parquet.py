"""Parquet: one file, a folder of them or a HATS catalogue, with pyarrow alone: astropy wants pandas too."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from astropy.table import Table
from astropy.table.meta import get_header_from_yaml
from numpy.typing import NDArray

from photoz_lit.data.formats import hats


def read(path: Path, part: str | None) -> Table:
    """Read all rows, of a folder in the order of the files' names, and all columns or those named in `part`.

    Names are between commas, in any case; those that are not there are left to whoever asks for them.
    """
    catalogue = hats.find(path) if path.is_dir() else None
    found = [f for f in path.rglob("*") if f.suffix in hats.PARQUET] if path.is_dir() else [path]
    files = catalogue.files if catalogue else sorted(f for f in found if f == path or f.name[0] not in "._")
    if not files:
        raise ValueError("the folder holds no .parquet files")
    schema = pyarrow.parquet.read_schema(files[0])
    columns = [f.name for f in schema if catalogue is None or catalogue.is_column(f)]
    if part is not None:
        named = {name.strip().partition("[")[0].lower() for name in part.split(",")}
        columns = [name for name in columns if name.lower() in named]
        if not columns:
            raise ValueError(f"it has no column [{part}]. Its columns are: {', '.join(schema.names)}")
    content = pyarrow.parquet.read_table(files, columns=columns, partitioning=None)
    if catalogue and catalogue.rows not in (None, len(content)):
        raise ValueError(
            f"its files hold {len(content)} rows, its properties say {catalogue.rows}: fetch it anew"
        )
    units = _units(content.schema)
    table = Table(meta={"unread": [name for name in schema.names if name not in columns]})
    for name, column in zip(content.column_names, content.columns, strict=True):
        values, empty = _values(column), column.is_null().to_numpy()
        if empty.any():
            values = np.ma.masked_array(values)
            values[empty] = np.ma.masked
        table[name] = values
        table[name].unit = units.get(name)
    return table


def _values(column: pa.ChunkedArray) -> NDArray[np.generic]:
    """Return the cells: integers stay integers beside empty ones, lists of one length become rows."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return np.asarray(column.fill_null(0).to_numpy())
    values = column.to_numpy()
    if str(column.type).startswith(("list", "large_list", "fixed_size_list")):
        lengths = {len(row) for row in values if row is not None}
        if len(lengths) == 1:
            blank = np.full(lengths.pop(), np.nan)
            return np.stack([blank if row is None else row for row in values])
    return np.asarray(values)


def _units(schema: pa.Schema) -> dict[str, str]:
    """Return units, as columns or astropy's description of the table have them."""
    units = {field.name: field.metadata.get(b"unit") for field in schema if field.metadata}
    known = {name: unit.decode() for name, unit in units.items() if unit}
    if described := (schema.metadata or {}).get(b"table_meta_yaml"):
        header = get_header_from_yaml(described.decode().splitlines())
        known |= {c["name"]: c["unit"] for c in header["datatype"] if "unit" in c}
    return known
