"""The standard table: our own columns of a foreign one, checked."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table

from photoz_lit.data.columns import find_column, identities, numbers, text
from photoz_lit.data.dust import ebv_from_maps
from photoz_lit.data.faults import (
    FAR,
    LIMITS,
    STAND_INS,
    Fault,
    absent_faults,
    far_from_others,
    range_faults,
    stand_ins,
    value_faults,
)
from photoz_lit.errors import DataError
from photoz_lit.grids import Bools, Ints, Texts

log = logging.getLogger(__name__)

OWN_COLUMNS = ("object_id", "spec_z", "dered_petro_r", "ebv", "ra", "dec", "split")
KINDS = {"ebv": "magnitude", "ra": "angle", "dec": "angle"}
LABEL_KINDS = {"spec_z": "redshift", "dered_petro_r": "magnitude"}
LIKELY = {  # what others call our columns, without capitals: proposed, never taken
    "spec_z": r"z|zs|z_?spec\w*|spec_?z\w*|z_?true|(true_)?redshift(_true)?",
    "dered_petro_r": r"r|(\w*mag_?)r(_\w+)?|r_?(\w+_)?mag\w*",
    "object_id": r"(\w+_)?(obj|object|source|target)?_?id",
}
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True)
class TableRules:
    """How a foreign table becomes the project's own."""

    columns: Mapping[str, str]  # our name -> the table's; our own names are found without being listed
    z_range: tuple[float, float]  # redshifts, or values of the target, that the survey covers
    magnitudes: Sequence[str] = ()  # columns to keep as features, mag
    magnitude_errors: Sequence[str] = ()
    drop_invalid: bool = False  # drop rows that cannot be used, with a message, instead of stopping
    # Whether galaxies are to be trained on or tested with. If not, target and dered_petro_r may be absent and
    # are not checked, and every row is kept: those that cannot be used have the `flag` "table".
    labelled: bool = True
    ebv_maps: Path | None = None  # folder of the SFD maps: E(B-V) comes from them where there are positions
    needed: Sequence[str] = ()  # of ra and dec, those without which the source can do nothing with a row
    target: str = "spec_z"  # where it is another, spec_z is not needed, and dered_petro_r any quantity

    @property
    def own_columns(self) -> tuple[str, ...]:
        """Names of the project's own columns, in order."""
        return OWN_COLUMNS if self.target == "spec_z" else ("object_id", self.target, *OWN_COLUMNS[1:])

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of all columns that may be used of the foreign table."""
        return (*self.own_columns, *self.columns.values(), *self.magnitudes, *self.magnitude_errors)


def standard_table(table: Table, origin: str, rules: TableRules) -> tuple[Table, Ints]:
    """Return the project's own columns of a foreign table, checked, and the row of each galaxy in it, (n,).

    They are object_id, the target, spec_z, dered_petro_r, ebv, positions, split, magnitudes and errors, as
    far as there; what is unknown and not needed is NaN, E(B-V) is 0. Where not labelled, `flag` is "table" of
    rows that cannot be used, and `ebv_known` false for galaxies whose E(B-V) is not known.
    """
    _check_rules(rules)
    features = {
        **dict.fromkeys(rules.magnitudes, ("data.magnitudes", "magnitude")),
        **dict.fromkeys(rules.magnitude_errors, ("data.magnitude_errors", "error")),
    }
    theirs = {name: _found(table, name, origin, key) for name, (key, _) in features.items()}
    truth = find_column(table, rules.columns.get(rules.target, rules.target), origin)
    if truth in theirs.values():
        raise DataError(f"data.magnitudes names {truth}, the true values to be estimated: leave it out")
    out, faults = _own_columns(table, origin, rules)
    # Tables of another field try their columns as magnitudes first.
    hint = "" if rules.target == "spec_z" else "; other quantities: data=embeddings data.vectors=[...]"
    for name, (_, kind) in features.items():
        out[name] = numbers(table, theirs[name], origin, "magnitude")
        faults += value_faults(out[name], name, kind, hint)
    if not rules.labelled and "object_id" not in out.colnames:
        _tell_names(table, out, origin)
    if rules.ebv_maps is not None and {"ra", "dec"} <= set(out.colnames):
        out["ebv"] = ebv_from_maps(np.asarray(out["ra"]), np.asarray(out["dec"]), rules.ebv_maps)
    elif "ebv" not in out.colnames:
        out["ebv"] = 0.0 if rules.labelled else np.nan
        if rules.labelled:  # else what is taken is said later
            log.info("%s has no column ebv: E(B-V) is left out (0), as for dereddened data", origin)
    own = [n for n in rules.own_columns if n in out.colnames]
    out = out[list(dict.fromkeys([*own, *features]))]  # spec_z may be a feature
    for name in rules.needed:
        faults += absent_faults(out[name], name)
        faults += [] if rules.labelled else value_faults(out[name], name, name)
    if not rules.labelled:
        return _flagged(out, faults, origin, rules), np.arange(len(out))
    faults = _label_faults(out, rules) + faults + absent_faults(out["ebv"], "ebv")
    faults += value_faults(out["ebv"], "ebv", "ebv") + _position_faults(out, rules)
    keep = _usable(faults, origin, rules.drop_invalid)
    out = out[keep]
    _doubt_identity(out, origin, rules.target)
    return out, np.flatnonzero(keep)


def _check_rules(rules: TableRules) -> None:
    magnitudes, errors = rules.magnitudes, rules.magnitude_errors
    if unknown := sorted(set(rules.columns) - set(rules.own_columns)):
        raise DataError(
            f"data.columns names {', '.join(unknown)}; it may name {', '.join(rules.own_columns)}"
        )
    if len(errors) not in (0, len(magnitudes)):
        raise DataError(
            f"data.magnitude_errors has {len(errors)} columns for {len(magnitudes)} magnitudes: "
            "give one each, or none"
        )


def _own_columns(table: Table, origin: str, rules: TableRules) -> tuple[Table, list[Fault]]:
    """Return the columns of our own names, and what is wrong with ids and splits of labelled rows."""
    out, faults = Table(), list[Fault]()
    required = {*rules.columns, *rules.needed, *((rules.target, "dered_petro_r") if rules.labelled else ())}
    for name in rules.own_columns:
        wanted = rules.columns.get(name, name)
        if name in required:
            other = name == rules.target != "spec_z"
            key = "target.column or data.columns.target" if other else f"data.columns.{name}"
            theirs: str | None = _found(table, wanted, origin, key)
        else:
            theirs = find_column(table, wanted, origin)
        if theirs is None or (name == "split" and not rules.labelled):
            continue
        if name == "object_id":
            out[name], empty = identities(table, theirs, origin)
            faults.append((f"column {theirs} has an empty cell", empty))
            faults.append((f"column {theirs} is no identity but stands for none", stand_ins(out[name])))
        elif name == "split":
            out[name], empty = split_words(table, theirs, origin)
            faults.append((f"column {theirs} has an empty cell", empty))
        else:
            kinds = KINDS if rules.target != "spec_z" else {**KINDS, **LABEL_KINDS}
            try:
                out[name] = numbers(table, theirs, origin, kinds.get(name))
            except DataError as error:
                if name in required or rules.labelled:
                    raise
                log.warning("%s; the column is left out", error)
    return out, faults if rules.labelled else []


def _tell_names(table: Table, own: Table, origin: str) -> None:
    """Say that rows have no identity; stop where nothing is known by its name."""
    names = [*table.colnames, *table.meta.get("unread", ())]
    said = f"Its columns are: {', '.join(names)}. Name the one by data.columns.object_id=NAME"
    if not own.colnames:
        raise DataError(f"{origin}: no column has a name that is known here, such as object_id. {said}")
    log.warning("%s: no column object_id, rows are numbered. %s", origin, said)


def _found(table: Table, name: str, origin: str, key: str) -> str:
    """Return the table's name of a column that it must have."""
    if (theirs := find_column(table, name, origin)) is None:
        likely = LIKELY.get(name, rf"{re.escape(name.lower())}_\w+")  # as RAIL's mag_u_lsst for mag_u
        names = [*table.colnames, *table.meta.get("unread", ())]
        found = [n for n in names if re.fullmatch(likely, n.lower()) and "err" not in n.lower()]
        how = f"{key}={found[0]}" if found and key.startswith("data.columns") else f"it in {key}"
        perhaps = f". Perhaps {' or '.join(found)}: type {how}" if found else ""
        raise DataError(
            f"{origin}: no column '{name}' (set by {key}). Its columns are: {', '.join(names)}{perhaps}"
        )
    return theirs


def split_words(table: Table, name: str, origin: str) -> tuple[Texts, Bools]:
    """Return the splits of a table in our words, and which cells are empty."""
    given, empty = text(table, name, origin)
    words = np.array([SPLIT_WORDS.get(word.casefold(), "") for word in given], dtype="U5")
    if (unknown := (words == "") & ~empty).any():
        said = ", ".join(repr(str(word)) for word in np.unique(given[unknown])[:5])
        raise DataError(
            f"{origin}: column {name} says {said} in {_rows(unknown)}. It may say {', '.join(SPLIT_WORDS)}: "
            "mend it, or leave those rows out of the table"
        )
    return words, empty


def _label_faults(table: Table, rules: TableRules) -> list[Fault]:
    """Rows whose true value or r cannot be trained on, by kind of fault."""
    true, r = np.asarray(table[rules.target]), np.asarray(table["dered_petro_r"])
    faults = absent_faults(true, rules.target) + range_faults(true, rules.target, rules.z_range)
    if rules.target != "spec_z":
        return faults + absent_faults(r, "dered_petro_r")
    faults += value_faults(r, "dered_petro_r", "magnitude")
    return [*faults, (f"column dered_petro_r is {FAR:g} mag from all others", far_from_others(r))]


def _position_faults(table: Table, rules: TableRules) -> list[Fault]:
    """Positions that cannot be; unknown ones are no fault."""
    names = [n for n in ("ra", "dec") if n in table.colnames]
    faults = [f for n in names for f in value_faults(np.asarray(table[n]), n, n)]
    if len(names) == 2:
        ra, dec = np.asarray(table["ra"]), np.asarray(table["dec"])
        known = np.flatnonzero(np.isfinite(ra) & np.isfinite(dec))
        shared = np.zeros(len(table), bool)
        shared[known] = stand_ins(ra[known] + 1j * dec[known], [complex(v, v) for v in STAND_INS])
        at = f"{ra[shared][0]:g}, {dec[shared][0]:g}" if shared.any() else ""
        words = f"ra, dec are ({at}), no positions but one that stands for none (leave such cells empty),"
        faults.append((words, shared))
    return faults


def _usable(faults: list[Fault], origin: str, drop_invalid: bool) -> Bools:
    """Find the rows that can be used; stop at any fault unless its rows may be left out."""
    told = [f"{what} in {_rows(mask)}" for what, mask in faults if mask.any()]
    if told and not drop_invalid:
        raise DataError(
            f"{origin}: {'; '.join(told)}. Mend the table, or type data.drop_invalid=true to leave them out"
        )
    for where in told:
        log.warning("%s: %s: left out", origin, where)
    keep = ~np.any([mask for _, mask in faults], axis=0)
    if not keep.any():
        raise DataError(f"{origin}: no usable rows are left")
    return np.asarray(keep)


def _flagged(table: Table, faults: list[Fault], origin: str, rules: TableRules) -> Table:
    """Keep all rows; flag those with a fault; give a value to what is unknown and asked for."""
    flag = np.full(len(table), "", dtype="U8")
    for what, mask in faults:
        if mask.any():
            log.warning("%s: %s in %d of %d rows: flagged", origin, what, mask.sum(), len(table))
        flag[mask] = "table"
    for name in {*rules.magnitudes, *rules.magnitude_errors, *rules.needed}:
        table[name] = np.where(np.isfinite(table[name]), table[name], 0)
    table["flag"] = flag
    ebv = np.asarray(table["ebv"])
    known = np.isfinite(ebv) & (ebv >= LIMITS["ebv"][0]) & (ebv <= LIMITS["ebv"][1])
    if not known.all():
        if known.any():  # else it is said already that there is none
            log.warning(
                "%s: E(B-V) is unknown or impossible for %d of %d galaxies, 0 is taken: with their positions "
                "data.ebv_maps=coarse, or a folder of the SFD maps, gives it",
                *(origin, (~known).sum(), len(table)),
            )
        table["ebv"], table["ebv_known"] = np.where(known, ebv, 0), known
    if "dered_petro_r" in table.colnames and rules.target == "spec_z":
        r = np.asarray(table["dered_petro_r"])
        if (wrong := (r <= 0) | (r > LIMITS["magnitude"][1])).any():
            log.warning("%s: dered_petro_r is no magnitude in %d rows: unknown there", origin, wrong.sum())
            table["dered_petro_r"] = np.where(wrong, np.nan, r)
    return table


def _doubt_identity(table: Table, origin: str, target: str) -> None:
    """Warn of an object_id of many rows that are not one galaxy."""
    if "object_id" not in table.colnames:
        log.info("%s has no column object_id (data.columns.object_id): each row is an object", origin)
        return
    values, inverse, counts = np.unique(table["object_id"], return_inverse=True, return_counts=True)
    for one in np.flatnonzero(counts > 10)[:3]:
        if np.ptp(own := np.asarray(table[target])[inverse == one]) > 0.01:
            log.warning(
                "%s: object_id %s stands in %d rows of %s %g to %g: is that one galaxy?",
                *(origin, values[one], counts[one], target, own.min(), own.max()),
            )


def _rows(mask: Bools) -> str:
    """Say how many rows a mask holds, and the first of them."""
    rows = np.flatnonzero(mask)
    more = f" and {rows.size - 5} more" if rows.size > 5 else ""
    return f"{rows.size} of {mask.size} rows (counted from 0): {', '.join(map(str, rows[:5]))}{more}"
