"""Colours and k-corrections of four galaxy spectra on a redshift grid.

The spectra are those of Coleman, Wu & Weedman (1980, ApJS 43, 393) as recalibrated by Benitez et al. (2004,
ApJS 150, 1), the filters the SDSS 2010 curves (Doi et al. 2010, AJ 139, 1628).
`tests/data/mock/make_templates.py` made the table of both.
"""

from functools import cache
from pathlib import Path

import numpy as np
from astropy.table import Table

from photoz_lit.grids import Floats

BANDS = ("u", "g", "r", "i", "z")
TYPES = ("El", "Sbc", "Scd", "Im")
TABLE = Path(__file__).with_name("templates.ecsv")


@cache
def load_templates() -> tuple[Floats, Floats, Floats]:
    """Return redshifts (nz,), colours and k-corrections in r (nz, 4), mag.

    Colours, by redshift, type and band, (nz, 4, 5), are AB magnitudes minus that in r, observer's frame.
    """
    table = Table.read(TABLE, format="ascii.ecsv")
    colours = np.stack([[table[f"{t}_{b}"] for b in BANDS] for t in TYPES]).transpose(2, 0, 1)
    k_r = np.stack([table[f"{t}_k_r"] for t in TYPES], axis=1)
    return np.asarray(table["z"], float), colours, k_r
