"""The standard table: our own columns of a foreign one, checked."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit.data.dust import ebv_from_maps
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

OWN_COLUMNS = ("object_id", "spec_z", "dered_petro_r", "ebv", "ra", "dec", "split")
LABELS = ("spec_z", "dered_petro_r")


@dataclass(frozen=True)
class TableRules:
    """How a foreign table becomes the project's own.

    Parameters
    ----------
    columns : mapping
        Our name -> the table's name; our own names are found without being listed.
    z_range : (float, float)
        Redshifts, or values of the target, that the survey covers.
    magnitudes, magnitude_errors : sequences of str
        Columns to keep as features, mag; errors may be empty.
    drop_invalid : bool
        Drop rows that cannot be used, with a message, instead of stopping.
    labelled : bool
        Whether galaxies are to be trained on or tested with. If not, target and dered_petro_r may be absent
        and are not checked, and every row is kept: those that cannot be used have the `flag` "table".
    ebv_maps : Path, optional
        Folder of the SFD dust maps: E(B-V) comes from them where the table has positions.
    target : str
        Column of the true values. Where it is another than spec_z, spec_z is not needed, and any quantity
        may stand in dered_petro_r.
    """

    columns: Mapping[str, str]
    z_range: tuple[float, float]
    magnitudes: Sequence[str] = ()
    magnitude_errors: Sequence[str] = ()
    drop_invalid: bool = False
    labelled: bool = True
    ebv_maps: Path | None = None
    target: str = "spec_z"

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Names of the project's own columns, in order."""
        return OWN_COLUMNS if self.target == "spec_z" else ("object_id", self.target, *OWN_COLUMNS[1:])


def standard_table(table: Table, origin: str, rules: TableRules) -> tuple[Table, NDArray[np.int64]]:
    """Return the project's own columns of a foreign table, checked.

    Parameters
    ----------
    table : Table
        Any table.
    origin : str
        What messages call it, usually its path.
    rules : TableRules
        Names of its columns, and what to check.

    Returns
    -------
    table : Table
        The target, dered_petro_r, ebv, then object_id, spec_z, positions, split, magnitudes and errors as
        given; `flag` where not labelled.
    rows : array (n,)
        Row of each kept galaxy in the input.

    Raises
    ------
    DataError
        A column is missing or a value cannot be used; the message names both.
    """
    columns, labelled = rules.columns, rules.labelled
    magnitudes, magnitude_errors = rules.magnitudes, rules.magnitude_errors
    unknown = sorted(set(columns) - set(rules.own_columns))
    if unknown:
        raise DataError(
            f"data.columns names {', '.join(unknown)}; it may name {', '.join(rules.own_columns)}"
        )
    if rules.target in (*magnitudes, *magnitude_errors):
        raise DataError(
            f"data.magnitudes names {rules.target}, the true values that are to be estimated: leave it out"
        )
    if len(magnitude_errors) not in (0, len(magnitudes)):
        raise DataError(
            f"data.magnitude_errors has {len(magnitude_errors)} columns for {len(magnitudes)} magnitudes: "
            "give one each, or none"
        )
    out, masks = Table(), {}
    for name in rules.own_columns:
        theirs = columns.get(name, name)
        required = (labelled and name in (rules.target, "dered_petro_r")) or name in columns
        if theirs in table.colnames:
            out[name], masks[name] = _plain(table, theirs, origin, text=name in ("object_id", "split"))
        elif required:
            other = name == rules.target != "spec_z"
            key = "target.column or data.columns.target" if other else f"data.columns.{name}"
            raise _missing(table, theirs, origin, key)
    for key, names in (("data.magnitudes", magnitudes), ("data.magnitude_errors", magnitude_errors)):
        for name in names:
            if name not in table.colnames:
                raise _missing(table, name, origin, key)
            out[name], masks[name] = _plain(table, name, origin)
    if rules.ebv_maps is not None and {"ra", "dec"} <= set(out.colnames):
        out["ebv"] = ebv_from_maps(np.asarray(out["ra"]), np.asarray(out["dec"]), rules.ebv_maps)
    elif "ebv" not in out.colnames:
        out["ebv"] = np.zeros(len(out))
        log.info("%s has no column ebv: E(B-V) is left out (0), as for dereddened data", origin)
    own = [n for n in rules.own_columns if n in out.colnames]
    order = list(dict.fromkeys([*own, *magnitudes, *magnitude_errors]))  # spec_z may be a feature of a mass
    if not labelled:
        return _flagged(out[order], _faults(out, masks, rules), origin, rules), np.arange(len(out))
    faults = _label_faults(out, masks, rules) + _faults(out, masks, rules)
    keep = _usable(len(out), faults, origin, rules.drop_invalid)
    return out[order][keep], np.flatnonzero(keep)


def _plain(
    table: Table, name: str, origin: str, text: bool = False
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Return a column as a plain array, and which of its cells are empty."""
    column = table[name]
    empty = np.asarray(getattr(column, "mask", np.zeros(len(table), bool)), dtype=bool)
    if text:
        filled = column.filled() if hasattr(column, "filled") else column
        return np.asarray(filled), empty
    return numbers(table, name, origin), empty


def numbers(table: Table, name: str, origin: str) -> NDArray[np.float64]:
    """Return a column as numbers, NaN in empty cells.

    Raises
    ------
    DataError
        It holds text.
    """
    column = table[name]
    empty = np.ma.getmaskarray(column)
    filled = (
        np.ma.filled(np.ma.masked_array(np.asarray(column), empty), 0) if empty.any() else np.asarray(column)
    )
    try:
        values = filled.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{origin}: column {name} holds text where numbers are needed: {error}") from error
    return np.where(empty, np.nan, values)


def _missing(table: Table, name: str, origin: str, key: str) -> DataError:
    return DataError(
        f"{origin}: no column '{name}' (set by {key}). Its columns are: {', '.join(table.colnames)}"
    )


Fault = tuple[str, NDArray[np.bool_]]


def _absent(table: Table, empty: Mapping[str, NDArray[np.bool_]], names: Sequence[str]) -> list[Fault]:
    """Rows without a value, by column."""
    faults = [(f"column {n} has an empty cell", empty[n]) for n in names if n in empty]
    for name in [n for n in names if n not in ("object_id", "split")]:
        mask = ~np.isfinite(np.asarray(table[name])) & ~empty.get(name, np.zeros(len(table), bool))
        faults.append((f"column {name} is not finite", mask))
    return faults


def range_faults(values: NDArray[np.float64], name: str, z_range: tuple[float, float]) -> list[Fault]:
    """Rows whose true value lies outside the survey's range, by kind of fault."""
    low, high = z_range
    negative = (values < 0) & (low >= 0)
    outside = ~negative & ((values < low) | (values > high))
    return [
        (f"{name} is negative", negative),
        (f"{name} is outside the survey's {low:g}{'-' if low >= 0 else ' to '}{high:g}", outside),
    ]


def _label_faults(table: Table, empty: Mapping[str, NDArray[np.bool_]], rules: TableRules) -> list[Fault]:
    """Rows whose true value or r cannot be trained on, by kind of fault."""
    faults = _absent(table, empty, (rules.target, "dered_petro_r"))
    faults += range_faults(np.asarray(table[rules.target]), rules.target, rules.z_range)
    if rules.target == "spec_z":
        r = np.asarray(table["dered_petro_r"])
        faults.append(("column dered_petro_r is no magnitude (outside 0-40)", (r < 0) | (r > 40)))
    return faults


def _faults(table: Table, empty: Mapping[str, NDArray[np.bool_]], rules: TableRules) -> list[Fault]:
    """Rows that can be used neither for training nor for prediction, by kind of fault."""
    faults = _absent(table, empty, [n for n in table.colnames if n not in (rules.target, *LABELS)])
    faults.append(("ebv is negative", np.asarray(table["ebv"]) < 0))
    # Of another field, where data.magnitudes would be tried first.
    hint = "" if rules.target == "spec_z" else "; other quantities: data=embeddings data.vectors=[...]"
    for name in rules.magnitudes:
        value = np.asarray(table[name])
        faults.append((f"column {name} is no magnitude (outside 0-40{hint})", (value < 0) | (value > 40)))
    if "dec" in table.colnames:
        faults.append(("dec is outside -90 to 90 degrees", np.abs(np.asarray(table["dec"])) > 90))
    for name in rules.magnitude_errors:
        faults.append((f"column {name} is negative", np.asarray(table[name]) < 0))
    return faults


def _usable(n: int, faults: list[Fault], origin: str, drop_invalid: bool) -> NDArray[np.bool_]:
    """Find the rows that can be used; stop at the first kind of fault unless they may be dropped."""
    keep = np.ones(n, bool)
    for what, mask in faults:
        if not mask.any():
            continue
        rows = np.flatnonzero(mask)
        where = f"{what} in {rows.size} of {n} rows (counted from 0): {_some(rows)}"
        if not drop_invalid:
            raise DataError(
                f"{origin}: {where}. Mend the table, or type data.drop_invalid=true to leave them out"
            )
        log.warning("%s: %s: left out", origin, where)
        keep &= ~mask
    if not keep.any():
        raise DataError(f"{origin}: no usable rows are left")
    return keep


def _flagged(table: Table, faults: list[Fault], origin: str, rules: TableRules) -> Table:
    """Keep all rows; flag those with a fault and set what is not finite in them to 0."""
    flag = np.full(len(table), "", dtype="U8")
    for what, mask in faults:
        if mask.any():
            log.warning("%s: %s in %d of %d rows: flagged", origin, what, mask.sum(), len(table))
        flag[mask] = "table"
    for name in [n for n in table.colnames if n not in ("object_id", "split", rules.target, *LABELS)]:
        table[name] = np.where(np.isfinite(table[name]), table[name], 0)
    table["flag"] = flag
    return table


def _some(rows: NDArray[np.int64], most: int = 5) -> str:
    more = f" and {rows.size - most} more" if rows.size > most else ""
    return ", ".join(str(r) for r in rows[:most]) + more
