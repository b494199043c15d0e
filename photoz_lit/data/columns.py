"""The columns of a table that are used: found by name, converted, their shape, text and units checked.

A name is the table's own one; else the only one that differs from it by capitals alone. `mags[2]` is the
third value of each row of a column of vectors. `origin` is what messages call the table, usually its path.
"""

import re
import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.errors import DataError
from photoz_lit.grids import Bools, Floats, Ints, Texts

if TYPE_CHECKING:
    from astropy.table import Table

BLANK = ("", "nan", "none", "null", "n/a", "<na>", "--")
NO_UNIT = ("", "-", "--", "---", "1", "none", "n/a", "null", "dimensionless", "unitless")
UNITS = {  # by kind: ours, what else tables write for it, and what messages call it
    "angle": ("deg", r"deg(ree)?s?", "degrees"),
    "magnitude": (
        "mag",
        r"((ab|vega|asinh|sdss)[ _]?)?mag(s|nitudes?)?[ _]?(\(?(ab|vega)\)?)?",
        "magnitudes",
    ),
    "redshift": ("", r"z|redshifts?", "a redshift without a unit"),
}


def find_column(table: "Table", name: str, origin: str) -> str | None:
    """Return the name by which a table knows a column, None where it has none."""
    own, part = _without_index(table, name)
    if own in table.colnames:
        return own + part
    alike = [n for n in table.colnames if n.lower() == own.lower()]
    if len(alike) > 1:
        raise DataError(f"{origin}: column '{own}' may be {' or '.join(alike)}: type which is meant")
    return alike[0] + part if alike else None


def _without_index(table: "Table", name: str) -> tuple[str, str]:
    """Return the name of a column and the index of one of its vectors' values, as in `mags` and `[2]`."""
    indexed = re.fullmatch(r"(.+)(\[\d+\])", name)
    return (indexed[1], indexed[2]) if indexed and name not in table.colnames else (name, "")


def _cells(table: "Table", name: str, origin: str) -> tuple[NDArray[Any], Bools, Any]:
    """Return the values of a column, which are empty, and its unit."""
    own, index = _without_index(table, name)
    column = table[own]
    empty = np.ma.getmaskarray(column) if hasattr(column, "mask") else np.zeros(np.shape(column), bool)
    values = np.asarray(column.data if hasattr(column, "mask") else column)
    if values.ndim == 2 and values.shape[1] == 1 and not index:
        values, empty = values[:, 0], empty[:, 0]
    if values.ndim > 2 or (values.ndim == 2 and not index) or (values.ndim == 1 and index):
        several = f"{' x '.join(map(str, values.shape[1:])) or 'one'} value{'s' * (values.ndim > 1)} a row"
        first = f": type {own}[0] for the first of them, as in data.columns.dered_petro_r={own}[0]"
        raise DataError(f"{origin}: column {own} has {several}{first if values.ndim == 2 else ''}")
    if index:
        if (place := int(index[1:-1])) >= values.shape[1]:
            last = values.shape[1] - 1
            raise DataError(f"{origin}: there is no {name}: the last value of column {own} is {own}[{last}]")
        values, empty = values[:, place], empty[:, place]
    if values.dtype == object:
        empty = empty | np.array([v is None for v in values])
    return values, empty, getattr(column, "unit", None)


def numbers(table: "Table", name: str, origin: str, kind: str | None = None) -> Floats:
    """Return a column as numbers, NaN in empty cells, in our unit of its kind (a key of `UNITS`)."""
    cells, empty, unit = _cells(table, name, origin)
    if cells.dtype.kind in "fiub":
        values = np.where(empty, np.nan, cells.astype(np.float64))
    else:
        values = np.full(len(cells), np.nan)
        for row in np.flatnonzero(~empty):
            try:
                values[row] = float(cells[row])
            except (TypeError, ValueError) as error:
                raise DataError(
                    f"{origin}: column {name} holds text where numbers are needed: {_spelt(cells[row])!r} in "
                    f"row {row} (counted from 0)"
                ) from error
    spelt = str(unit or "").strip()
    if kind is None or spelt.lower() in NO_UNIT:
        return values
    from astropy import units as u

    ours, alike, wanted = UNITS[kind]
    try:
        return values if re.fullmatch(alike, spelt, re.IGNORECASE) else values * u.Unit(spelt).to(ours)
    except (u.UnitConversionError, ValueError, TypeError):
        raise DataError(
            f"{origin}: column {name} is in {spelt}, {wanted} expected: convert it, or name another column"
        ) from None


def text(table: "Table", name: str, origin: str) -> tuple[Texts, Bools]:
    """Return a column as text without blanks around it, and which cells are empty."""
    cells, empty, _ = _cells(table, name, origin)
    spelt = np.array(["" if gone else _spelt(cell) for cell, gone in zip(cells.tolist(), empty, strict=True)])
    return spelt, np.isin(np.char.lower(spelt), BLANK)


def _spelt(cell: object) -> str:
    if not isinstance(cell, bytes):
        return unicodedata.normalize("NFC", str(cell)).strip()
    try:
        return _spelt(cell.rstrip(b"\0").decode())
    except UnicodeDecodeError:
        return _spelt(cell.decode("latin-1"))


def identities(table: "Table", name: str, origin: str) -> tuple[Ints | Texts, Bools]:
    """Return a column of ids in one form whatever the format, and which cells are empty.

    Whole numbers are 64-bit integers, also if they came as text; all else is text. Empty cells are -1 or "".
    """
    cells, empty, _ = _cells(table, name, origin)
    if cells.dtype.kind in "iub" and cells.max(initial=0) <= np.iinfo(np.int64).max:
        return np.where(empty, -1, cells.astype(np.int64)), empty
    if cells.dtype.kind != "f":
        spelt, empty = text(table, name, origin)
        given = spelt[~empty]
        if all(re.fullmatch(r"0|-?[1-9]\d{0,17}|[1-8]\d{18}|9[01]\d{17}", one) for one in given):
            return np.where(empty, "-1", spelt).astype(np.int64), empty
        if not all(re.fullmatch(r"[+-]?\d+\.?\d*([eE][+-]?\d+)?", one) for one in given) or not any(
            set(one) & set(".eE") for one in given
        ):
            return np.where(empty, "", spelt), empty
        cells = np.where(empty, "nan", spelt).astype(np.float64)
    empty = empty | np.isnan(cells)
    given, digits = cells[~empty], np.finfo(cells.dtype).nmant + 1
    large = f"floating-point numbers above 2^{digits}, which stand for several integers each"
    for wrong, why in (
        (np.abs(given) > 2.0**digits, large),
        (given != np.round(given), "numbers that are not whole"),
    ):
        if wrong.any():
            raise DataError(
                f"{origin}: column {name} holds {why}, such as {given[wrong][0]!s}: different objects "
                "would be one. Write the ids as integers or text, or leave the column out"
            )
    return np.where(empty, -1, cells).astype(np.int64), empty
