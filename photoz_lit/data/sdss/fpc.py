"""Corrected frames of data releases 1 to 7: counts, `fpC-RRRRRR-BC-FFFF.fit`, perhaps `.gz`.

Sixteen bits a pixel, with an offset SOFTBIAS and the sky in them; both are in the header, and FLUX20, the
counts of an object of magnitude 20, that is of 10 nanomaggies. Calibration and WCS are preliminary. The data
model: https://classic.sdss.org/dr7/dm/flatFiles/fpC.php. Frames of the early release, of no sky, and some
others lack SKY and FLUX20 (https://home.fnal.gov/~neilsen/documents/sdss_data).
"""

import re
from pathlib import Path

import numpy as np
from astropy.io.fits import Header
from numpy.typing import NDArray

from photoz_lit.errors import DataError

NAME = re.compile(r"fpC-(?P<run>\d{6})-(?P<band>[ugriz])(?P<camcol>\d)-(?P<field>\d{4})\.fit(\.gz)?")
FLUX = 10.0  # nanomaggies of magnitude 20
KEYWORDS = ("SOFTBIAS", "SKY", "FLUX20")


def is_fpc(path: Path) -> bool:
    """Whether a file is called as the old releases call corrected frames."""
    return path.name.startswith("fpC-")


def calibration(header: Header, path: Path) -> tuple[float, float]:
    """Return the counts of no light, and nanomaggies a count; DataError where the header does not say."""
    try:
        softbias, sky, flux20 = (float(header[key]) for key in KEYWORDS)
    except (KeyError, TypeError, ValueError):
        absent = ", ".join(key for key in KEYWORDS if not isinstance(header.get(key), int | float))
        raise DataError(
            f"{path}: its header has no {absent}, without which its counts are no fluxes. Take the frame of "
            "the same run, camcol and field of a later release, frame-BAND-RRRRRR-C-FFFF.fits.bz2"
        ) from None
    if not (np.isfinite([softbias, sky, flux20]).all() and flux20 > 0):
        raise DataError(f"{path}: SOFTBIAS={softbias:g}, SKY={sky:g}, FLUX20={flux20:g} are no calibration")
    return softbias + sky, FLUX / flux20


def calibrated(counts: NDArray[np.float32], header: Header, path: Path) -> NDArray[np.float32]:
    """Return a frame in nanomaggies, its sky subtracted."""
    zero, scale = calibration(header, path)
    return np.asarray((counts - np.float32(zero)) * np.float32(scale))
