"""Simulated galaxies in colour, and a real stamp before them at the same stretch."""

import argparse
from pathlib import Path

import numpy as np
from astropy.io import fits

from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.render import render_cutouts
from photoz_lit.report.figures.data import figure_contact_sheet
from photoz_lit.report.figures.style import as_png
from photoz_lit.report.html import write

BANDS = "ugriz"


def main() -> None:
    """Draw simulated galaxies, and a real one before them where its stamp is given."""
    parser = argparse.ArgumentParser(prog="python -m photoz_lit.report.mock_figure", description=main.__doc__)
    parser.add_argument("output", type=Path, help="file to write, e.g. examples.png")
    parser.add_argument("--stamp", type=Path, help="folder with stamp-[ugriz].fits, nanomaggies")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--number", type=int, default=30, help="how many galaxies")
    arguments = parser.parse_args()
    galaxies = draw_galaxies(arguments.number, arguments.seed)
    cutouts = list(render_cutouts(galaxies, arguments.seed))
    labels = [f"z = {g['spec_z']:.3f}  r = {g['dered_petro_r']:.2f}" for g in galaxies]
    if arguments.stamp is not None:
        planes = [fits.getdata(arguments.stamp / f"stamp-{band}.fits") for band in BANDS]
        cutouts.insert(0, np.stack(planes).astype(np.float32))
        labels.insert(0, "a real galaxy of SDSS")
    write(arguments.output, as_png(figure_contact_sheet(cutouts, labels, BANDS)))


if __name__ == "__main__":
    main()
