"""Frames like the survey's, small and with known content."""

import bz2
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray

from photoz_lit.data.dust import EXTINCTION_PER_EBV
from photoz_lit.data.sdss.fields import PIXEL
from photoz_lit.data.sdss.frames import Field

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
    path = folder / field.filename(band)
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


BANDS = "ugriz"
FIELDS = [Field(1000, 3, number) for number in (10, 20, 30, 40)]  # far apart: none is another's neighbour
PIXELS = 24


@dataclass
class Survey:
    """A piece of sky: the galaxies of the catalogue, and the archive's files that show them."""

    photo: Table
    spec: Table
    files: dict[str, bytes]


def name_of(field: int, band: str) -> str:
    return FIELDS[field].filename(band)


def write_survey(folder: Path, *, neighbours: bool = False) -> Survey:
    """Write four fields of three galaxies; or two that overlap, a galaxy at the seam and one in each."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = []
    fields = [FIELDS[0], FIELDS[0]._replace(field=11)] if neighbours else FIELDS
    for i, field in enumerate(fields):
        step = 280 * PIXEL / 3600 if neighbours else 1.0
        centre, angle = (150.0 + i * step, 0.0 if neighbours else 2.0), 90.0 if neighbours else 56.0
        wcs = frame_wcs(*centre, angle=angle)
        x, y = rng.uniform(40, SHAPE[1] - 40, 3), rng.uniform(40, SHAPE[0] - 40, 3)
        if neighbours:
            x, y = np.array([200.0, 300.0])[i:], np.array([294.0, 150.0])[i:]
        rows += [(field, *values) for values in zip(*wcs.pixel_to_world_values(x, y), x, y, strict=True)]
    ra, dec = (np.array([row[k] for row in rows]) for k in (1, 2))
    for i, field in enumerate(fields):
        centre, angle = (150.0 + i * step, 0.0 if neighbours else 2.0), 90.0 if neighbours else 56.0
        image = draw_stars(frame_wcs(*centre, angle=angle), ra, dec)
        for band in BANDS:
            noise = rng.normal(0, 0.01, (SHAPE[0] // 4, SHAPE[1] // 4)).astype(np.float32)
            noise = noise.repeat(4, axis=0).repeat(4, axis=1)  # which bz2 takes apart fast
            write_frame(folder, field, band, image + noise, frame_header(*centre, angle=angle))
    n = len(rows)
    photo = Table({"objID": 1237648720000000000 + np.arange(n), "mode": np.ones(n, int)})
    for j, name in enumerate(("run", "camcol", "field")):
        photo[name] = [row[0][j] for row in rows]
    photo["rerun"] = 301
    photo["ra"], photo["dec"] = ra, dec
    photo["colc"], photo["rowc"] = ([float(row[k]) + 0.5 for row in rows] for k in (3, 4))
    photo["colc_r"], photo["rowc_r"] = photo["colc"], photo["rowc"]
    for band in BANDS:
        photo[f"extinction_{band}"] = 0.05 * EXTINCTION_PER_EBV[band]
        for name, value in (("petroMag", 17.0), ("modelMag", 17.1)):
            photo[f"{name}_{band}"], photo[f"{name}Err_{band}"] = value, 0.02
    spec = Table({"specObjID": 300000000000000000 + np.arange(n), "bestObjID": photo["objID"]})
    spec["z"], spec["zErr"] = rng.uniform(0.02, 0.3, n), 1e-4
    spec["class"], spec["zWarning"], spec["sciencePrimary"] = "GALAXY", 0, 1
    return Survey(photo, spec, {path.name: path.read_bytes() for path in folder.iterdir()})
