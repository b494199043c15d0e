"""Which rows are one object, and which split, subset or fold an object belongs to.

Whatever is drawn is drawn by the names of objects: the same in any order of the rows, and no object moves
when others come or go. Rows of a simulated survey, or of a table with neither ids nor positions, have numbers
but no names (`NUMBERED` in the table's meta): they are drawn by a permutation of all.
"""

import hashlib
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.store import ESTIMATED
from photoz_lit.errors import DataError
from photoz_lit.grids import Floats, Ints, Texts

if TYPE_CHECKING:
    from astropy.table import Table

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
OUTER = 5  # parts of the objects of nested splits
SAME_PLACE = 1.0  # arcsec: entries that are no farther apart are of one object
NUMBERED = "NUMBERED"  # a keyword of FITS headers, so that stores know it too


def with_ids(table: "Table") -> "Table":
    """Number the rows where they have no object_id: each is an object of its own, unless positions agree."""
    if "object_id" in table.colnames:
        return table
    if "split" in table.colnames:
        names = [n for n in table.colnames if n != "split"]
        content = np.column_stack([np.asarray(table[n], dtype=np.float64) for n in names])
        _, alike = np.unique(content, axis=0, return_inverse=True)
        test = np.asarray(table["split"]) == "test"
        if both := int(np.isin(alike.ravel()[test], alike.ravel()[~test]).sum()):
            log.warning(
                "%d test rows equal rows that are trained on in every column: without object_id "
                "(data.columns.object_id) they count as different objects",
                both,
            )
    table.add_column(np.arange(len(table)), name="object_id", index=0)
    table.meta[NUMBERED] = True
    return table


def same_object(table: "Table") -> Ints:
    """Number rows by object, (n,): equal for an equal object_id, and for positions (deg) at one place."""
    _, group = np.unique(np.asarray(table["object_id"]), return_inverse=True)
    group = np.asarray(group.ravel(), dtype=np.int64)
    if not {"ra", "dec"} <= set(table.colnames):
        return group
    ra, dec = np.asarray(table["ra"]), np.asarray(table["dec"])
    known = np.flatnonzero(np.isfinite(ra + dec))
    from astropy import units as u  # a second of start-up, that those who predict need not wait
    from astropy.coordinates import SkyCoord, search_around_sky

    sky = SkyCoord(ra[known] * u.deg, dec[known] * u.deg)
    first, second, _, _ = search_around_sky(sky, sky, SAME_PLACE * u.arcsec)
    first, second, n = group[known[first]], group[known[second]], int(group.max()) + 1
    if np.array_equal(first, second):
        return group
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(first.size), (first, second)), shape=(n, n))
    _, joined = connected_components(links, directed=False)
    return np.asarray(joined[group], dtype=np.int64)


def object_names(table: "Table") -> Texts | None:
    """Return what each row's object is called, (n,): its id, or else its place; None if neither is known."""
    if not table.meta.get(NUMBERED, False):
        return np.asarray(table["object_id"]).astype(str)
    if not {"ra", "dec"} <= set(table.colnames):
        return None
    places = zip(*(np.asarray(table[n]).tolist() for n in ("ra", "dec", "object_id")), strict=True)
    return np.array([str(n) if math.isnan(ra + dec) else f"{ra:.6f}{dec:+.6f}" for ra, dec, n in places])


def draw(names: Texts | None, n: int, seed: Sequence[int] | int) -> NDArray[np.uint64]:
    """Return a random number for each of n rows: what is drawn has the lowest.

    It depends on the name of the row's object and the seed alone; None draws a permutation of the rows.
    """
    if names is None:
        return np.random.default_rng(seed).permutation(n).astype(np.uint64)
    unique, inverse = np.unique(names, return_inverse=True)
    salt = repr(np.atleast_1d(seed).tolist()).encode()
    lots = [hashlib.blake2b(name.encode(), digest_size=8, key=salt).digest() for name in unique.tolist()]
    return np.frombuffer(b"".join(lots), dtype="<u8").astype(np.uint64)[inverse.ravel()]


def assign_splits(
    table: "Table",
    *,
    test_fraction: float,
    val_fraction: float,
    seed: int,
    n_train: float | None = None,
    thin: Sequence[float] = (),
    target: str = "spec_z",
    nested: str = "none",
) -> Texts:
    """Split by object, `train`, `val`, `test` or `unused`, (n,): every row of an object lands in one split.

    Where a standard table has a column `split`, objects of its `test` rows are the test split; so it is with
    `val`, or else `val` is drawn from the rest. Fractions are those of the objects, on average: each has its
    own lot. `thin` = (low, high, fraction) keeps only such a fraction of the training rows with true values,
    the column `target`, from low to below high; then `n_train` keeps only so many or, up to 1, such a share:
    fewer are a part of more. The others, and rows that cannot be used by their `flag`, are unused.

    `nested` parts the objects into fifths, the same for all seeds, of which that of the number `seed` modulo
    5 is the outer part: `inner` leaves it out, and settings can be chosen on the test split of the rest;
    `outer` makes it the test split.
    """
    group, names = same_object(table), object_names(table)
    rng = np.random.default_rng([seed, 71])
    place = _places(group, names, [seed, 71], rng)
    given = np.asarray(table["split"]).astype(str) if "split" in table.colnames else None
    outer = np.zeros(len(table), dtype=bool)
    if nested != "none":
        if given is not None:
            raise DataError(f"data.nested={nested} but the table has its own splits, in the column split")
        fifths = _places(group, names, [70], np.random.default_rng(70)) * OUTER
        outer = (fifths.astype(np.int64) == seed % OUTER)[group]
    if nested == "outer":
        in_test, in_val = outer, (place < _edge(place, 0.0, val_fraction))[group] & ~outer
    elif given is None:
        edge = _edge(place, 0.0, test_fraction)
        in_test, in_val = (place < edge)[group], (place < _edge(place, edge, edge + val_fraction))[group]
    else:
        in_test, in_val = (np.isin(group, group[given == name]) for name in ("test", "val"))
        if moved := int((in_test & (given != "test")).sum()):
            log.warning("%d other rows are objects of the test split: they join it and train nothing", moved)
        if not in_val.any():
            in_val = (place < _edge(place, 0.0, val_fraction))[group]
    split = np.where(in_test, "test", np.where(in_val, "val", "train")).astype("<U6")
    if nested == "inner":
        split[outer] = "unused"
    if "flag" in table.colnames:
        flag = np.char.strip(np.asarray(table["flag"]).astype(str))
        split[~np.isin(flag, ESTIMATED)] = "unused"
    if len(thin) == 3:
        low, high, fraction = thin
        true = np.asarray(table[target])
        inside = np.flatnonzero((split == "train") & (true >= low) & (true < high))
        spare = _drawn(inside, group, names, [seed, 73], np.random.default_rng([seed, 73]))
        split[spare[round(fraction * inside.size) :]] = "unused"
    if n_train is not None:
        members = _drawn(np.flatnonzero(split == "train"), group, names, [seed, 72], rng)
        split[members[round(n_train * members.size if n_train <= 1 else n_train) :]] = "unused"
    if absent := [name for name in SPLITS if not (split == name).any()]:
        column = "" if given is None else "; the column split names the test rows by the word test"
        raise DataError(
            f"the {absent[0]} split is empty with {len(table)} galaxies: use more galaxies, or change "
            f"data.test_fraction and data.val_fraction{column}"
        )
    return split


def _places(group: Ints, names: Texts | None, seed: list[int], rng: np.random.Generator) -> Floats:
    """Return a random number in 0-1 for each object, (n_objects,): the lowest of its rows' lots."""
    n = int(group.max()) + 1
    if names is None:
        return (np.argsort(rng.permutation(n)) + 0.5) / n
    lots = np.full(n, np.iinfo(np.uint64).max, dtype=np.uint64)
    np.minimum.at(lots, group, draw(names, len(group), seed))
    return lots / 2.0**64


def _edge(place: Floats, low: float, high: float) -> float:
    """Return where a split from low to high ends: beyond high if no object of few is there."""
    beyond = place[place >= low]
    if (high - low) * place.size < 0.99 or not beyond.size or beyond.min() < high:
        return high
    return float(np.nextafter(beyond.min(), 1))


def _drawn(rows: Ints, group: Ints, names: Texts | None, seed: list[int], rng: np.random.Generator) -> Ints:
    """Return rows in the random order of their objects."""
    if names is None:
        return rng.permutation(rows)
    return rows[np.argsort(_places(group, names, seed, rng)[group[rows]], kind="stable")]
