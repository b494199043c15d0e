"""Imaging frames of the survey: their names, where they lie on disk and on the sky, reading them.

The archive serves `frame-B-RRRRRR-C-FFFF.fits.bz2` (band, run, camera column, field), of 1489 rows and 2048
columns, in nanomaggies per pixel with the sky subtracted. The data model:
https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html
"""

from __future__ import annotations

import bz2
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from astropy.coordinates import angular_separation
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

Image = NDArray[np.float32]
Array = NDArray[np.float64]
Frame = tuple[Image, WCS]
Footprint = tuple[WCS, tuple[int, int]]  # rows and columns

PIXEL = 0.396  # arcsec
SCALE_TOLERANCE = 0.02  # relative
ROUND_TRIP = 0.01  # arcsec
FIELD_STEP = 1361  # rows from a field to the next of the same run and camera column
# Pixels by which a frame across RA 0 may lie off its neighbours' line. The archive's fault is 100-180 pixels;
# frames much further off are simply elsewhere.
MISPLACED = (50.0, 500.0)

NAME = re.compile(r"frame-(?P<band>[ugriz])-(?P<run>\d{6})-(?P<camcol>\d)-(?P<field>\d{4})\.fits(\.bz2)?")
# What bz2 and astropy raise for files that are cut off or not what their names say.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, fits.VerifyError)
UNITS = ("nanomaggy", "nanomaggies")


class Field(NamedTuple):
    """A field of the imaging survey: one frame in each band."""

    run: int
    camcol: int
    field: int

    def __str__(self) -> str:
        return f"run {self.run} camcol {self.camcol} field {self.field}"


@dataclass(frozen=True)
class FrameName:
    """What the name of a frame's file says."""

    band: str
    run: int
    camcol: int
    field: int

    @classmethod
    def parse(cls, name: str) -> FrameName:
        """Read the name of a file, compressed or not.

        Raises
        ------
        DataError
            It is not the name of a frame.
        """
        match = NAME.fullmatch(name)
        if match is None:
            raise DataError(f"{name}: not a frame; those are named frame-BAND-RRRRRR-C-FFFF.fits[.bz2]")
        return cls(match["band"], int(match["run"]), int(match["camcol"]), int(match["field"]))

    @property
    def key(self) -> Field:
        """The field that the frame belongs to."""
        return Field(self.run, self.camcol, self.field)

    def filename(self) -> str:
        """Return the file's name in the archive."""
        return f"frame-{self.band}-{self.run:06d}-{self.camcol}-{self.field:04d}.fits.bz2"


def find_frames(folder: Path, bands: Sequence[str]) -> dict[Field, dict[str, Path]]:
    """Find the frames in a folder and the folders in it.

    Parameters
    ----------
    folder : Path
        Such as a copy of the archive's, with frames in RUN/CAMCOL.
    bands : sequence of str
        Bands to look for; the frames of others are passed over.

    Returns
    -------
    dict
        Files by band of each field, in the order of fields and of `bands`. A field may lack bands. Where a
        frame is there compressed and decompressed, the decompressed file, which is read faster.

    Raises
    ------
    DataError
        There is no frame of these bands, or no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of frames (relative paths start at {Path.cwd()})")
    found: dict[Field, dict[str, Path]] = {}
    # Compressed ones sort last; in reverse, decompressed ones replace them.
    for path in sorted(folder.rglob("frame-*.fits*"), key=lambda path: path.name, reverse=True):
        if NAME.fullmatch(path.name) and path.is_file():
            name = FrameName.parse(path.name)
            if name.band in bands:
                found.setdefault(name.key, {})[name.band] = path
    if not found:
        raise DataError(
            f"{folder}: no frames of bands {', '.join(bands)} here or below. "
            "Files are looked for by the archive's names, frame-BAND-RRRRRR-C-FFFF.fits.bz2 or .fits"
        )
    return {
        field: {band: files[band] for band in bands if band in files}
        for field, files in sorted(found.items())
    }


def read_frame(path: Path) -> tuple[Image, WCS]:
    """Read the image of a frame; what follows it in the file is not looked at.

    Returns
    -------
    image : ndarray of float32, shape (rows, columns)
        Nanomaggies per pixel.
    wcs : WCS

    Raises
    ------
    DataError
        The file cannot be read or is truncated, is no FITS image, not in nanomaggies, has no sky coordinates.
    """
    with _open(path) as stream:
        header = _read_header(stream, path)
        wcs = _celestial_wcs(header, path)
        try:
            data = stream.read(header.data_size_padded)
            if len(data) < header.data_size:
                raise EOFError(f"{len(data)} of {header.data_size} bytes of the image")
            hdu = fits.PrimaryHDU.fromstring(header.tostring().encode("ascii") + data)
            image = np.asarray(hdu.data, np.float32)
        except UNREADABLE as error:
            raise DataError(f"{path}: truncated or corrupt ({error}); fetch it anew") from error
    return image, wcs


def footprint(path: Path) -> tuple[WCS, tuple[int, int]]:
    """Read where a frame lies from its header alone; of a compressed file, the first block is decompressed.

    Returns
    -------
    wcs : WCS
    shape : (int, int)
        Rows and columns.

    Raises
    ------
    DataError
        As `read_frame`, for what the header tells.
    """
    with _open(path) as stream:
        header = _read_header(stream, path)
    return _celestial_wcs(header, path), (header["NAXIS2"], header["NAXIS1"])


def _open(path: Path) -> BinaryIO:
    """Open a file, compressed or not."""
    try:
        return cast(BinaryIO, bz2.open(path) if Path(path).suffix == ".bz2" else Path(path).open("rb"))
    except OSError as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error


def _read_header(stream: BinaryIO, path: Path) -> fits.Header:
    """Read the first header and check that an image in nanomaggies follows."""
    try:
        first = stream.read(80)
        if not first.startswith(b"SIMPLE  ="):
            raise DataError(f"{path}: no FITS file (it starts with {first[:20]!r})")
        stream.seek(0)
        header = fits.Header.fromfile(stream)
        shape = [int(header[f"NAXIS{i + 1}"]) for i in range(header["NAXIS"])]
        unit = str(header.get("BUNIT", "")).strip()
    except UNREADABLE as error:
        raise DataError(f"{path}: truncated or corrupt ({error}); fetch it anew") from error
    if len(shape) != 2 or min(shape) < 1:
        raise DataError(f"{path}: no image in the first HDU, but axes {shape}; expected columns and rows")
    if unit.lower() not in UNITS:
        raise DataError(f"{path}: BUNIT is {unit!r}, not 'nanomaggy'; only calibrated frames can be used")
    return header


def _celestial_wcs(header: fits.Header, path: Path) -> WCS:
    """Return the header's WCS.

    Raises
    ------
    DataError
        There is none, or it is not one of right ascension and declination.
    """
    header = header.copy()
    try:
        # The survey's headers predate this keyword's name. Mended rather than astropy's warning filtered:
        # frames are read in threads, and all threads share the filters. So with `fix`, for dates.
        if "RADECSYS" in header and "RADESYS" not in header:
            header.rename_keyword("RADECSYS", "RADESYS")
        wcs = WCS(header, fix=False)
        celestial = wcs.has_celestial and [kind[:4] for kind in wcs.wcs.ctype] == ["RA--", "DEC-"]
        if celestial:
            wcs.world_to_pixel_values(*wcs.wcs.crval)  # fails if the matrix has no inverse
    except Exception as error:  # wcslib has an error class for each keyword; the user needs the file's name
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: unusable sky coordinates in the header ({reason})") from error
    if not celestial:
        kinds = ", ".join(wcs.wcs.ctype)
        raise DataError(f"{path}: no sky coordinates (CTYPE {kinds!r}); expected RA---TAN, DEC--TAN")
    return wcs


# --- Where frames lie ------------------------------------------------------------------


def reference_band(bands: Sequence[str]) -> str:
    """Return the band that gives the stamps their orientation and catalogue pixels their meaning."""
    return "r" if "r" in bands else bands[0]


def read_footprints(
    index: Mapping[Field, Mapping[str, Path]], bands: Sequence[str], *, max_workers: int = 2
) -> dict[Field, Footprint]:
    """Read where fields lie, from the header of the reference band, or of the next that can be read.

    Fields without any readable frame are left out, with a warning in the log.
    """
    reference = reference_band(bands)

    def read(field: Field) -> Footprint | None:
        files = index[field]
        for band in sorted((band for band in bands if band in files), key=lambda band: band != reference):
            try:
                return footprint(files[band])
            except DataError as error:
                log.warning("%s", error)
        return None

    with ThreadPoolExecutor(max_workers) as pool:
        found = zip(index, pool.map(read, index), strict=True)
        return {field: place for field, place in found if place is not None}


def check_footprints(footprints: Mapping[Field, Footprint]) -> dict[Field, str]:
    """Find fields whose WCS cannot be right; see `check_wcs`, and, across RA 0, their neighbours.

    Returns
    -------
    dict of Field to str
        What is wrong with each; fields that pass are absent.
    """
    faults = {}
    for field, place in footprints.items():
        fault = check_wcs(*place)
        if not fault and _spans_zero(*place):
            fault = _misplaced(field, footprints)
        if fault:
            faults[field] = fault
    return faults


def check_wcs(wcs: WCS, shape: tuple[int, int]) -> str:
    """Check a frame's WCS: scale at corners and middle, and the way to the sky and back.

    Returns
    -------
    str
        What is wrong; empty where nothing is.
    """
    x, y = corners(shape)
    ra, dec = wcs.pixel_to_world_values(x, y)
    scales = [separation((ra, dec), wcs.pixel_to_world_values(*end)) for end in ((x + 1, y), (x, y + 1))]
    if not (np.abs(np.array(scales) / PIXEL - 1) < SCALE_TOLERANCE).all():
        return f"the WCS has pixels of {np.min(scales):.4f} to {np.max(scales):.4f} arcsec, not {PIXEL}"
    back = wcs.pixel_to_world_values(*wcs.world_to_pixel_values(ra % 360, dec))
    if not (separation((ra, dec), back) < ROUND_TRIP).all():
        return f"the WCS does not lead from the sky back to the same position within {ROUND_TRIP} arcsec"
    return ""


def corners(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return x and y of a frame's middle and corners."""
    height, width = shape
    return (
        np.array([(width - 1) / 2, 0, width - 1, 0, width - 1]),
        np.array([(height - 1) / 2, 0, 0, height - 1, height - 1]),
    )


def separation(first: tuple[Array, Array], second: tuple[Array, Array]) -> Array:
    """Return the angle between positions in degrees, arcsec; RA counts modulo 360."""
    angle = angular_separation(*np.radians(first), *np.radians(second))
    return np.asarray(np.degrees(angle) * 3600)


def _spans_zero(wcs: WCS, shape: tuple[int, int]) -> bool:
    """Return whether a frame lies across RA 0."""
    ra = wcs.pixel_to_world_values(*corners(shape))[0] % 360
    return bool(np.ptp(ra) > 180)


def _misplaced(field: Field, footprints: Mapping[Field, Footprint]) -> str:
    """Compare a frame's WCS with where the fields before and after it place it; empty where they agree."""
    wcs, shape = footprints[field]
    middle = tuple(axis[:1] for axis in corners(shape))
    for step in (-1, 1):
        neighbour = field._replace(field=field.field + step)
        if neighbour not in footprints or _spans_zero(*footprints[neighbour]):
            continue
        x, y = footprints[neighbour][0].world_to_pixel_values(*wcs.pixel_to_world_values(*middle))
        off = float(np.hypot(x - middle[0], y - middle[1] + step * FIELD_STEP)[0])
        if MISPLACED[0] < off < MISPLACED[1]:
            return f"the WCS, across RA 0, lies {off:.0f} pixels from where that of {neighbour} places it"
    return ""
