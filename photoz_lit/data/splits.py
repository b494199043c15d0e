"""Which rows are one object, and which split, subset or fold an object belongs to."""

import logging
from collections.abc import Sequence

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from astropy.table import Table
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


def with_ids(table: Table, labelled: bool = True) -> Table:
    """Number the rows where they have no object_id.

    Labelled rows that are equal, duplicates of one object, share the number of the first of them, so that
    they land in one split. The number tells nothing of what the row holds.
    """
    if "object_id" in table.colnames:
        return table
    if not labelled:
        table.add_column(np.arange(len(table)), name="object_id", index=0)
    else:
        names = [n for n in table.colnames if n != "split"]
        content = np.column_stack([np.asarray(table[n], dtype=np.float64) for n in names])
        _, first, inverse = np.unique(content, axis=0, return_index=True, return_inverse=True)
        table.add_column(first[inverse.ravel()].astype(np.int64), name="object_id", index=0)
    return table


def same_object(table: Table, radius_arcsec: float = 1.0) -> NDArray[np.int64]:
    """Group rows of one object: equal object_id, or positions within a radius.

    Parameters
    ----------
    table : Table
        With object_id and, where known, ra and dec in degrees.
    radius_arcsec : float
        Largest separation of two entries of one object.

    Returns
    -------
    group : array (n,)
        Rows with equal numbers are one object.
    """
    _, group = np.unique(np.asarray(table["object_id"]), return_inverse=True)
    group = np.asarray(group.ravel(), dtype=np.int64)
    if not {"ra", "dec"} <= set(table.colnames):
        return group
    sky = SkyCoord(np.asarray(table["ra"]) * u.deg, np.asarray(table["dec"]) * u.deg)
    first, second, _, _ = search_around_sky(sky, sky, radius_arcsec * u.arcsec)
    n = int(group.max()) + 1
    links = coo_array((np.ones(first.size), (group[first], group[second])), shape=(n, n))
    _, joined = connected_components(links, directed=False)
    return np.asarray(joined[group], dtype=np.int64)


def assign_splits(
    table: Table,
    *,
    test_fraction: float,
    val_fraction: float,
    seed: int,
    n_train: int | None = None,
    train_fraction: float = 1.0,
    thin: Sequence[float] = (),
    target: str = "spec_z",
) -> NDArray[np.str_]:
    """Split by object: every row of an object lands in one split.

    Parameters
    ----------
    table : Table
        A standard table. Where it has a column `split` that says `test`, those rows stay the test split
        (with all other rows of their objects); so do those that say `val`, or else `val` is drawn from the
        rest.
    test_fraction, val_fraction : float
        Fractions of the objects.
    seed : int
        Same seed, same objects: same splits.
    n_train : int, optional
        Keep only so many training rows; the others get the split `unused`, as do rows with a `flag`.
    train_fraction : float
        Keep only such a share of the training rows; fewer are a part of more.
    thin : (z_low, z_high, fraction), optional
        First, keep only such a fraction of the training rows with z_low <= spec_z < z_high.
    target : str
        Column of the true values, spec_z above.

    Returns
    -------
    split : array of str (n,)
        `train`, `val`, `test` or `unused`.
    """
    group = same_object(table)
    n_objects = int(group.max()) + 1
    place = np.empty(n_objects)
    rng = np.random.default_rng([seed, 71])
    place[rng.permutation(n_objects)] = (np.arange(n_objects) + 0.5) / n_objects
    given = np.asarray(table["split"]).astype(str) if "split" in table.colnames else None
    if given is None:
        names = np.where(
            place < test_fraction, "test", np.where(place < test_fraction + val_fraction, "val", "train")
        )
    else:
        in_test = np.zeros(n_objects, bool)
        in_test[group[given == "test"]] = True
        moved = int((in_test[group] & (given != "test")).sum())
        if moved:
            log.warning("%d other rows are objects of the test split: they join it and train nothing", moved)
        in_val = place < val_fraction
        if (given == "val").any():
            in_val = np.zeros(n_objects, bool)
            in_val[group[given == "val"]] = True
        names = np.where(in_test, "test", np.where(in_val, "val", "train"))
    split = names[group].astype("<U6")
    if "flag" in table.colnames:
        split[np.char.strip(np.asarray(table["flag"]).astype(str)) != ""] = "unused"
    if len(thin) == 3:
        z_low, z_high, fraction = thin
        true = np.asarray(table[target])
        inside = np.flatnonzero((split == "train") & (true >= z_low) & (true < z_high))
        spare = np.random.default_rng([seed, 73]).permutation(inside)[round(fraction * inside.size) :]
        split[spare] = "unused"
    if n_train is not None or train_fraction < 1:
        members = rng.permutation(np.flatnonzero(split == "train"))
        kept = round(train_fraction * members.size)
        split[members[kept if n_train is None else min(kept, n_train) :]] = "unused"
    for name in SPLITS:
        if not (split == name).any():
            column = "" if given is None else "; the column split names the test rows by the word test"
            raise DataError(
                f"the {name} split is empty with {len(table)} galaxies: use more galaxies, or change "
                f"data.test_fraction and data.val_fraction{column}"
            )
    return np.asarray(split)
