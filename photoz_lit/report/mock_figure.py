"""Simulated galaxies beside a real stamp of SDSS."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.render import render_cutouts
from photoz_lit.report.figures.data import colour_image

ROWS, COLUMNS = 5, 6
BANDS = "ugriz"


def figure_examples(
    galaxies: Table,
    cutouts: NDArray[np.float32],
    real_stamp: NDArray[np.float32] | None = None,
    *,
    real_label: str = "SDSS",
) -> Figure:
    """Draw up to 5 x 6 simulated galaxies in colour, and a real stamp beside them at the same stretch.

    `galaxies` has columns ``spec_z`` and ``dered_petro_r``; cutouts (n, 5, y, x) and stamp (5, y, x) are in
    nanomaggies, bands u g r i z.
    """
    figure = Figure(figsize=(9.6 if real_stamp is None else 13.2, 8.2), layout="constrained")
    mosaic = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype(str)
    if real_stamp is not None:
        # Two by two cells for the real stamp, half-way up.
        margin = np.full((ROWS, 2), ".", dtype=object)
        margin[1:3] = "real"
        mosaic = np.hstack([mosaic.astype(object), margin])
    axes = figure.subplot_mosaic(mosaic.tolist())
    for i in range(ROWS * COLUMNS):
        axis = axes[str(i)]
        axis.set_axis_off()
        if i < len(galaxies):
            label = f"z = {galaxies['spec_z'][i]:.3f}   r = {galaxies['dered_petro_r'][i]:.2f}"
            _show(axis, cutouts[i], label)
    if real_stamp is not None:
        axes["real"].set_axis_off()
        _show(axes["real"], real_stamp, real_label)
    figure.suptitle(
        "Simulated survey" + ("" if real_stamp is None else "; at the right a real galaxy of SDSS")
    )
    return figure


def _show(axis: Axes, stamp: NDArray[np.float32], label: str) -> None:
    """Show the colour image of one stamp; north and east carry no meaning here."""
    axis.imshow(colour_image(stamp, BANDS), origin="lower", interpolation="nearest")
    axis.set_title(label, fontsize=8, pad=2)


def figure_against_real(mock: Table, real: Table) -> Figure:
    """Draw the distributions of colours, magnitude and redshift of simulated and of real galaxies.

    Both tables have columns ``spec_z`` and ``mag_u`` to ``mag_z``.
    """
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    for axis, (blue, red) in zip(axes, (("u", "g"), ("g", "r"), ("r", "i"), ("i", "z")), strict=False):
        colours = (np.asarray(table[f"mag_{blue}"] - table[f"mag_{red}"], float) for table in (mock, real))
        _compare(axis, *colours, label=f"${blue} - {red}$")
    for axis, name, label in ((axes[4], "mag_r", "$r$"), (axes[5], "spec_z", "spectroscopic redshift")):
        _compare(axis, *(np.asarray(table[name], float) for table in (mock, real)), label=label)
    axes[0].legend(frameon=False)
    return figure


def _compare(axis: Axes, mock: NDArray[np.float64], real: NDArray[np.float64], *, label: str) -> None:
    """Draw two normalised histograms over the range of the real one, without its outermost 0.2 %."""
    low, high = np.percentile(real, [0.2, 99.8])
    bins = np.linspace(low, high, 50).tolist()
    axis.hist(real, bins, density=True, color="0.8", label="real")
    axis.hist(mock, bins, density=True, histtype="step", color="C3", linewidth=1.5, label="simulated")
    axis.set_xlabel(label)
    axis.set_yticks([])


def main() -> None:
    """Write the figure of simulated galaxies, beside a real stamp where one is given."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("output", type=Path, help="file to write, e.g. examples.png")
    parser.add_argument("--stamp", type=Path, help="folder with stamp-[ugriz].fits, nanomaggies")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    galaxies = draw_galaxies(30, arguments.seed)
    real = None
    if arguments.stamp is not None:
        files = [arguments.stamp / f"stamp-{band}.fits" for band in BANDS]
        real = np.stack([fits.getdata(file).astype(np.float32) for file in files])
    figure = figure_examples(galaxies, render_cutouts(galaxies, arguments.seed), real)
    figure.savefig(arguments.output, dpi=120)


if __name__ == "__main__":
    main()
