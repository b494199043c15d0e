"""What is known of the galaxies of a store: the true values, and the labels that training is told."""

import numpy as np

from photoz_lit.data.columns import numbers
from photoz_lit.data.faults import range_faults
from photoz_lit.data.store import Store
from photoz_lit.errors import DataError
from photoz_lit.grids import Floats, Texts


def truth(store: Store, column: str, z_range: tuple[float, float]) -> Floats:
    """Return the true values of the target, (n,), checked for all galaxies that can be used."""
    known = store.catalogue.colnames
    if column not in known:
        raise DataError(
            f"{store.folder}: no column '{column}' (target.column). Its columns are: {', '.join(known)}. "
            "Bring data that have it"
        )
    values = numbers(store.catalogue, column, str(store.folder))
    faults = [(f"{column} is not finite", ~np.isfinite(values))]
    for what, mask in faults + range_faults(values, column, z_range):
        if bad := int((mask & store.usable).sum()):
            raise DataError(
                f"{store.folder}: {what} in {bad} of {len(values)} galaxies: change survey.z_min and "
                "survey.z_max, or leave these galaxies out of the data"
            )
    return values


def training_labels(
    true: Floats, split: Texts, error: float, z_range: tuple[float, float], seed: int
) -> Floats:
    """Return what training is told of each galaxy, (N,): the truth, with Gaussian errors.

    Galaxies of the training and validation splits have one error each, from the seed: every stage is told the
    same. No label leaves the survey's range: clipped ones would pile up at its ends. Test galaxies have none.
    """
    if error == 0:
        return true
    from scipy.stats import truncnorm  # takes a second to import

    u = np.random.default_rng([seed, 17]).random(len(true))
    low, high = z_range
    told = truncnorm.ppf(u, (low - true) / error, (high - true) / error, true, error)
    return np.where(np.isin(split, ("train", "val")), told, true)
