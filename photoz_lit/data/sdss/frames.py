"""Imaging frames of the survey: their names, where they lie on disk and on the sky, reading them.

The archive serves `frame-B-RRRRRR-C-FFFF.fits.bz2` (band, run, camera column, field), of 1489 rows and 2048
columns, in nanomaggies per pixel with the sky subtracted; those of old releases are in `fpc`. The data model:
https://data.sdss.org/datamodel/files/BOSS_PHOTOOBJ/frames/RERUN/RUN/CAMCOL/frame.html
"""

import bz2
import gzip
import logging
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from photoz_lit.data.sdss import fpc
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

Image = NDArray[np.float32]
Array = NDArray[np.float64]
Frame = tuple[Image, WCS]
Footprint = tuple[WCS, tuple[int, int]]  # rows and columns

ROWS = 1489  # of a frame; neighbouring fields of a run share 128 of them
NAME = re.compile(r"frame-(?P<band>[ugriz])-(?P<run>\d{6})-(?P<camcol>\d)-(?P<field>\d{4})\.fits(\.bz2)?")
# What bz2 and astropy raise for files that are cut off or not what their names say.
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error, fits.VerifyError)
OPEN: Mapping[str, Any] = {".bz2": bz2.open, ".gz": gzip.open}
UNITS = ("nanomaggy", "nanomaggies")


class Field(NamedTuple):
    """A field of the imaging survey: one frame in each band."""

    run: int
    camcol: int
    field: int

    def __str__(self) -> str:
        return f"run {self.run} camcol {self.camcol} field {self.field}"

    def filename(self, band: str) -> str:
        """Name a frame's file as the archive does."""
        return f"frame-{band}-{self.run:06d}-{self.camcol}-{self.field:04d}.fits.bz2"


Index = Mapping[Field, Mapping[str, Path]]  # files by field and band


def find_frames(folder: Path, bands: Sequence[str]) -> dict[Field, dict[str, Path]]:
    """Find the frames in a folder and below, by field and band, in the order of both; a field may lack bands.

    Of a frame that is there twice, the decompressed file is taken, which is read faster; that of an old
    release only where there is no other.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of frames (relative paths start at {Path.cwd()})")
    found: dict[Field, dict[str, Path]] = {}
    # Compressed ones sort last; in reverse, decompressed ones replace them.
    paths = (path for pattern in ("frame-*.fits*", "fpC-*.fit*") for path in folder.rglob(pattern))
    for path in sorted(paths, key=lambda path: (fpc.is_fpc(path), path.name), reverse=True):
        name = NAME.fullmatch(path.name) or fpc.NAME.fullmatch(path.name)
        if name and name["band"] in bands and path.is_file():
            field = Field(int(name["run"]), int(name["camcol"]), int(name["field"]))
            found.setdefault(field, {})[name["band"]] = path
    if not found:
        raise DataError(
            f"{folder}: no frames of bands {', '.join(bands)} here or below. "
            "Files are looked for by the archive's names, frame-BAND-RRRRRR-C-FFFF.fits.bz2 or .fits, "
            "or fpC-RRRRRR-BANDC-FFFF.fit.gz or .fit of old releases"
        )
    if old := sum(any(map(fpc.is_fpc, files.values())) for files in found.values()):
        log.info("%s: %d fields in frames of an old release, of preliminary calibration", folder, old)
    fields = sorted(found.items())
    return {field: {band: files[band] for band in bands if band in files} for field, files in fields}


def read_frame(path: Path) -> tuple[Image, WCS]:
    """Read the image of a frame, (rows, columns) in nanomaggies; what follows it is not looked at."""
    with _opened(path) as (stream, header, wcs):
        data = stream.read(header.data_size_padded)
        if len(data) < header.data_size:
            raise EOFError(f"{len(data)} of {header.data_size} bytes of the image")
        if path.suffix == ".gz":
            stream.read()  # to its end, where the checksum is
        hdu = fits.PrimaryHDU.fromstring(header.tostring().encode("ascii") + data)
        image = np.asarray(hdu.data, np.float32)
        return fpc.calibrated(image, header, path) if fpc.is_fpc(path) else image, wcs


def footprint(path: Path) -> Footprint:
    """Read where a frame lies; of a compressed file, the first block is enough."""
    with _opened(path) as (_, header, wcs):
        return wcs, (header["NAXIS2"], header["NAXIS1"])


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, fits.Header, WCS]]:
    """Open a file, compressed or not, and read the header of an image in nanomaggies."""
    try:
        with cast(BinaryIO, OPEN.get(path.suffix, open)(path, "rb")) as stream:
            first = stream.read(80)
            if not first.startswith(b"SIMPLE  ="):
                raise DataError(f"{path}: no FITS file (it starts with {first[:20]!r})")
            stream.seek(0)
            header = fits.Header.fromfile(stream)
            shape = [int(header[f"NAXIS{i + 1}"]) for i in range(header["NAXIS"])]
            if len(shape) != 2 or min(shape) < 1:
                raise DataError(f"{path}: no image in the first HDU, but axes {shape}; expected two")
            if fpc.is_fpc(path):
                fpc.calibration(header, path)
            elif (unit := str(header.get("BUNIT", "")).strip()).lower() not in UNITS:
                raise DataError(f"{path}: BUNIT is {unit!r}, not 'nanomaggy': it must be a calibrated frame")
            yield stream, header, _celestial_wcs(header, path)
    except (FileNotFoundError, PermissionError) as error:
        raise DataError(f"{path}: cannot be opened ({error.strerror})") from error
    except UNREADABLE as error:
        raise DataError(f"{path}: truncated or corrupt ({error}); fetch it anew") from error


def _celestial_wcs(header: fits.Header, path: Path) -> WCS:
    """Return the header's WCS, of right ascension and declination."""
    try:
        # The survey's headers predate this keyword's name. Mended rather than astropy's warning filtered:
        # frames are read in threads, and all threads share the filters. So with `fix`, for dates.
        if "RADECSYS" in header and "RADESYS" not in header:
            header.rename_keyword("RADECSYS", "RADESYS")
        wcs = WCS(header, fix=False)
        if not wcs.has_celestial or [kind[:4] for kind in wcs.wcs.ctype] != ["RA--", "DEC-"]:
            raise ValueError(f"CTYPE {', '.join(wcs.wcs.ctype)!r}; expected RA---TAN, DEC--TAN")
        wcs.world_to_pixel_values(*wcs.wcs.crval)  # fails if the matrix has no inverse
    except Exception as error:  # wcslib has an error class for each keyword; the user needs the file's name
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: unusable sky coordinates in the header ({reason})") from error
    return wcs
