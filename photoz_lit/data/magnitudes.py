"""Magnitudes of a store of images, from its table: what encoders of catalogues read of the same galaxies."""

from dataclasses import replace

import numpy as np

from photoz_lit.data.store import Store
from photoz_lit.errors import DataError
from photoz_lit.files import beside


def with_magnitudes(store: Store, bands: str) -> Store:
    """Return a store with columns `mag_<band>` and `mag_err_<band>` (mag) as features, (n, 2, bands).

    They are written beside the images, once. DataError where the table lacks one, or has one that is no
    number in a galaxy that can be used.
    """
    path = store.folder / f"magnitudes_{bands}.npy"
    if not path.is_file():
        names = [[f"{kind}_{band}" for band in bands] for kind in ("mag", "mag_err")]
        if missing := [name for row in names for name in row if name not in store.catalogue.colnames]:
            raise DataError(
                f"{store.folder}: its table has no {', '.join(missing)}: encoder=mlp reads magnitudes. Type "
                "encoder=fast to read the images"
            )
        columns = np.stack([np.column_stack([store.column(name) for name in row]) for row in names], axis=1)
        if (faulty := store.usable & ~np.isfinite(columns).all(axis=(1, 2))).any():
            row = int(faulty.argmax())
            raise DataError(f"{store.folder}: a magnitude, or its error, is no number in row {row}")
        with beside(path) as partial, partial.open("wb") as file:
            np.save(file, np.where(np.isfinite(columns), columns, 0).astype(np.float32))
    return replace(store, inputs=np.load(path, mmap_mode="r"), kind="features")
