"""Magnitudes of a store of images, from its table: what encoders of catalogues read of the same galaxies."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from photoz_lit.data.store import Store
from photoz_lit.errors import DataError
from photoz_lit.files import beside, digest_of


def with_magnitudes(store: Store, bands: str, also: Sequence[str] = ()) -> Store:
    """Return a store with columns `mag_<band>` and `mag_err_<band>` (mag) as features, (n, 2, bands).

    Further columns that are named follow the magnitudes, with errors of zero. They are written beside the
    images, once. DataError where the table lacks one, or has one that is no number in a galaxy that can be
    used.
    """
    path = store.folder / f"magnitudes_{bands}{'_' + digest_of(list(also)) if also else ''}.npy"
    if not path.is_file():
        names = [[*(f"mag_{band}" for band in bands), *also], [f"mag_err_{band}" for band in bands]]
        if missing := [name for row in names for name in row if name not in store.catalogue.colnames]:
            raise DataError(
                f"{store.folder}: its table has no {', '.join(missing)}: encoder=mlp reads magnitudes, and "
                "what encoder.also names. Type encoder=fast to read the images"
            )
        columns = np.zeros((len(store.catalogue), 2, len(names[0])))
        for i, row in enumerate(names):
            columns[:, i, : len(row)] = np.column_stack([store.column(name) for name in row])
        if (faulty := store.usable & ~np.isfinite(columns).all(axis=(1, 2))).any():
            first = int(faulty.argmax())
            raise DataError(f"{store.folder}: a magnitude, or its error, is no number in row {first}")
        with beside(path) as partial, partial.open("wb") as file:
            np.save(file, np.where(np.isfinite(columns), columns, 0).astype(np.float32))
    return replace(store, inputs=np.load(path, mmap_mode="r"), kind="features")
