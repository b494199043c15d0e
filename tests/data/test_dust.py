"""E(B-V) from dust maps of known values."""

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

import photoz_lit
from photoz_lit.data.dust import EXTINCTION_PER_EBV, ebv_at, ebv_from_maps
from photoz_lit.data.mock.instrument import EXTINCTION
from photoz_lit.errors import DataError


def write_maps(folder: Path, north: float, south: float) -> Path:
    """Write maps of one value a hemisphere, in the maps' Lambert projection."""
    for name, value, sign in (("ngp", north, 1), ("sgp", south, -1)):
        header = fits.Header(
            {"CRPIX1": 32.5, "CRPIX2": 32.5, "LAM_NSGP": sign, "LAM_SCAL": 32, "CRVAL1": 0.0, "CRVAL2": 0.0}
        )
        image = np.full((64, 64), value, np.float32)
        fits.PrimaryHDU(image, header).writeto(folder / f"SFD_dust_4096_{name}.fits")
    return folder


def test_maps_are_read_on_their_own_scale_in_both_hemispheres(tmp_path: Path) -> None:
    maps = write_maps(tmp_path, 0.05, 0.4)
    ra, dec = np.array([192.9, 12.9, np.nan]), np.array([27.1, -27.1, 0.0])  # near the galactic poles
    np.testing.assert_allclose(ebv_from_maps(ra, dec, maps), [0.05, 0.4, np.nan], rtol=1e-5)


@pytest.mark.parametrize(
    ("ra", "dec", "ebv", "within"),
    [  # extinction_r / 2.751 of SDSS's own catalogues
        (150.05477, 12.70730, 0.0322, 0.004),
        (164.414, 39.122, 0.0203, 0.004),
        (266.4, -29.0, 50.0, 45.0),  # towards the centre of the Galaxy
    ],
)
def test_the_coarse_map_is_near_the_fine_one(ra: float, dec: float, ebv: float, within: float) -> None:
    assert ebv_at(ra, dec)[0] == pytest.approx(ebv, abs=within)
    found = ebv_from_maps(np.array([np.nan, ra]), np.array([0.0, dec]), Path("coarse"))
    np.testing.assert_array_equal(found, [np.nan, ebv_at(ra, dec)[0]])


def test_missing_maps_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SFD_dust_4096_ngp.fits"):
        ebv_from_maps(np.zeros(1), np.zeros(1), tmp_path)


def test_coefficients_stand_once() -> None:
    others = ("2.285", "3.303")  # of another scale of E(B-V)
    numbers = [*map(str, EXTINCTION_PER_EBV.values()), *others]
    package = Path(photoz_lit.__file__).parent
    found = {path.name for path in package.rglob("*.py") if any(n in path.read_text() for n in numbers)}
    assert found == {"dust.py"}
    np.testing.assert_array_equal(EXTINCTION, list(EXTINCTION_PER_EBV.values()))
