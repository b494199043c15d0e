"""Frames like the survey's, small and with known content."""

import bz2
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from photoz_lit.data.sdss.frames import PIXEL, Field, FrameName

SHAPE = (300, 400)


def frame_header(
    ra: float, dec: float, *, angle: float = 56.0, shape: tuple[int, int] = SHAPE, scale: float = PIXEL
) -> fits.Header:
    """Return a header with the keywords, old ones too, of the archive; `angle` is of y, east of north."""
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    matrix = scale / 3600 * np.array([[-cosine, sine], [sine, cosine]])
    cards = {
        "DATE-OBS": "2003-04-29",
        "TIMESYS": "TAI",
        "EQUINOX": 2000.0,
        "BUNIT": "nanomaggy",
        "RADECSYS": "ICRS",
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRPIX1": shape[1] // 2 + 1.0,
        "CRPIX2": shape[0] // 2 + 1.0,
        "CRVAL1": ra % 360,
        "CRVAL2": dec,
    }
    cards |= {f"CD{i + 1}_{j + 1}": matrix[i, j] for i in (0, 1) for j in (0, 1)}
    return fits.Header(cards)


def frame_wcs(
    ra: float, dec: float, *, angle: float = 56.0, shape: tuple[int, int] = SHAPE, scale: float = PIXEL
) -> WCS:
    """Return the WCS of such a header."""
    header = frame_header(ra, dec, angle=angle, shape=shape, scale=scale)
    header.rename_keyword("RADECSYS", "RADESYS")
    return WCS(header, fix=False)


def write_frame(
    folder: Path, field: Field, band: str, image: NDArray[np.float32], header: fits.Header
) -> Path:
    """Write a frame as the archive does, with something behind the image, compressed."""
    path = folder / FrameName(band, *field).filename()
    plain = path.with_suffix("")
    behind = fits.ImageHDU(np.zeros(10, np.float32))
    fits.HDUList([fits.PrimaryHDU(image, header), behind]).writeto(plain, overwrite=True)
    path.write_bytes(bz2.compress(plain.read_bytes()))
    plain.unlink()
    return path


def draw_stars(wcs: WCS, ra: NDArray, dec: NDArray, *, flux: float = 100.0, sigma: float = 1.4) -> NDArray:
    """Draw round stars at positions, in an image of the synthetic frames' shape, nanomaggies per pixel."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    image = np.zeros(SHAPE)
    reach = int(8 * sigma)
    for column, row in zip(*wcs.world_to_pixel_values(ra, dec), strict=True):
        lines, columns = (slice(max(int(at) - reach, 0), max(int(at) + reach, 0)) for at in (row, column))
        squared = (x[lines, columns] - column) ** 2 + (y[lines, columns] - row) ** 2
        image[lines, columns] += np.exp(-squared / (2 * sigma**2)) * flux / (2 * np.pi * sigma**2)
    return image.astype(np.float32)
