"""A contact sheet: some galaxies of a store in colour, by redshift."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from photoz_lit.data.store import Store
from photoz_lit.grids import Ints
from photoz_lit.report.cutout_checks import border_noise
from photoz_lit.report.figures.data import colour_bands, figure_contact_sheet, stretch_for

SHOWN = 30
SAMPLE = 512
SAMPLE_BYTES = 200_000_000


def sample_rows(store: Store, most: int = SAMPLE) -> Ints:
    """Return usable rows, evenly spread over the store, as many as fit in little memory."""
    usable = np.flatnonzero(store.usable)
    row_bytes = 4 * int(np.prod(store.inputs.shape[1:]))
    n = min(len(usable), most, max(SHOWN, SAMPLE_BYTES // row_bytes))
    return usable[np.linspace(0, len(usable) - 1, n).astype(np.int64)] if n else usable


def read_rows(store: Store, rows: Ints) -> NDArray[np.float32]:
    """Read rows of the inputs, (n, ...)."""
    inputs = np.empty((len(rows), *store.inputs.shape[1:]), np.float32)
    for out, row in zip(inputs, rows.tolist(), strict=True):
        out[:] = store.read(row, row + 1)[0]
    return inputs


def chosen(store: Store, rows: Ints, n: int = SHOWN) -> Ints:
    """Return which places of `rows` to show: n, in the order of spec_z, or of r, or of the store."""
    columns = (store.column(name)[rows] for name in ("spec_z", "dered_petro_r"))
    order = np.argsort(next((c for c in columns if np.isfinite(c).any()), 0 * rows), kind="stable")
    return order[np.linspace(0, len(rows) - 1, min(n, len(rows))).round().astype(np.int64)]


def labels(store: Store, rows: Ints) -> list[str]:
    """Write spec_z and r of galaxies, or their object_id where neither is known."""
    columns = ("z", 3, store.column("spec_z")), ("r", 2, store.column("dered_petro_r"))
    written = []
    for row in rows.tolist():
        words = [f"{name} = {c[row]:.{digits}f}" for name, digits, c in columns if np.isfinite(c[row])]
        written.append("  ".join(words) or str(store.catalogue["object_id"][row]))
    return written


def figure_of(store: Store, rows: Ints, cutouts: NDArray[np.float32], bands: str) -> Figure:
    """Draw some of these cutouts, those of `rows`, as bright as the noise of all of them asks for."""
    noise = float(np.median([border_noise(cutouts[:, i]) for i in colour_bands(bands)]))
    places = chosen(store, rows)
    return figure_contact_sheet(cutouts[places], labels(store, rows[places]), bands, stretch_for(noise))
