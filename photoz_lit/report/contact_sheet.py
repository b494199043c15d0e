"""A contact sheet: some galaxies of a store in colour, by redshift."""

import argparse
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from photoz_lit.data.store import Store, open_store
from photoz_lit.errors import DataError, PhotozError
from photoz_lit.grids import Ints
from photoz_lit.report.cutout_checks import border_noise
from photoz_lit.report.figures.data import colour_bands, figure_contact_sheet, stretch_for
from photoz_lit.report.figures.style import as_png
from photoz_lit.report.html import write

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


def draw_contact_sheet(store: Store, bands: str, n: int = SHOWN) -> Figure:
    """Draw up to n galaxies of a store of images in colour; DataError where there are none to draw."""
    check_images(store, bands)
    rows = sample_rows(store)
    if not rows.size:
        raise DataError(f"{store.folder}: no galaxy can be used, all are flagged")
    rows = rows[chosen(store, rows, n)]
    return figure_of(store, rows, read_rows(store, rows), bands, n)


def figure_of(store: Store, rows: Ints, cutouts: NDArray[np.float32], bands: str, n: int = SHOWN) -> Figure:
    """Draw up to n of these cutouts, those of `rows`, as bright as the noise of all of them asks for."""
    noise = float(np.median([border_noise(cutouts[:, i]) for i in colour_bands(bands)]))
    places = chosen(store, rows, n)
    return figure_contact_sheet(cutouts[places], labels(store, rows[places]), bands, stretch_for(noise))


def check_images(store: Store, bands: str) -> None:
    """Raise DataError unless a store holds images of these bands."""
    if store.kind != "images":
        raise DataError(f"{store.folder}: a store of {store.kind}, images are needed")
    n = store.inputs.shape[1]
    if n != len(bands):
        raise DataError(f"{store.folder}: cutouts of {n} bands, but {len(bands)} are named: {bands}")


def main() -> None:
    """Draw some galaxies of a prepared data set in colour, by redshift."""
    parser = argparse.ArgumentParser(
        prog="python -m photoz_lit.report.contact_sheet", description=main.__doc__
    )
    parser.add_argument("store", type=Path, help="folder of the store: data_dir/SOURCE-DIGEST")
    parser.add_argument("output", type=Path, help="file to write, e.g. contact_sheet.png")
    parser.add_argument("--bands", default="ugriz", help="names of its bands, a letter each")
    parser.add_argument("--number", type=int, default=SHOWN, help="how many galaxies")
    arguments = parser.parse_args()
    try:
        store = open_store(arguments.store)
        figure = draw_contact_sheet(store, arguments.bands, arguments.number)
        write(arguments.output, as_png(figure))
    except PhotozError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
