"""`data=stamps`: a folder of FITS stamps, one file a band or one file a galaxy.

A file of a galaxy holds a cube (bands, y, x) or one image extension a band. Weight, mask and other planes
beside the image, known by EXTNAME or IMTYPE, are never taken for it; where several may be meant,
`data.images_key` says which. Pixels are in the unit of `data.zero_point`, or else of BUNIT, or nanomaggies.
"""

import glob
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sources.published import UNREADABLE
from photoz_lit.data.sources.settings import NANOMAGGIES, CutoutSettings, Plan, Survey, cutout_facts
from photoz_lit.data.sources.stamp_files import find_files, folder_and_pattern, is_auxiliary
from photoz_lit.errors import DataError
from photoz_lit.setting import setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from astropy.io import fits
    from astropy.table import Table

    from photoz_lit.data.catalogue import TableRules

log = logging.getLogger(__name__)

KINDS = ("images",)
CHUNK = 256
SOME = 20  # stamps that are tried before the others
# AB zero points of units, by their names in lower case without spaces, plural or "per pixel".
UNITS = {
    **dict.fromkeys(("nanomaggy", "nanomaggie", "nanomgy", "nmaggy", "nmaggie", "nmgy"), NANOMAGGIES),
    **dict.fromkeys(("maggy", "maggie", "mgy"), 0.0),
    **dict.fromkeys(("jy", "jansky"), 8.9),
    **dict.fromkeys(("mjy", "millijy", "millijansky"), 16.4),
    **dict.fromkeys(("ujy", "µjy", "μjy", "mujy", "microjy", "microjansky"), 23.9),
    **dict.fromkeys(("njy", "nanojy", "nanojansky"), 31.4),
}
Stamps = NDArray[np.float32]


@dataclass
class Settings(CutoutSettings):
    """The folder, which images of its files are meant, and what is known of the galaxies.

    `images` may say how files are named: `stamps/{object_id}-{band}.fits`, with `*` for anything.
    `images_key` is a name or number of an HDU, with `{band}` where there is one a band: `SCI_{band}`.
    """

    source: str = "stamps"
    images: str | None = setting(None, kind="path")
    path: str | None = setting(None, kind="path")
    images_key: str | None = None


def check(settings: Settings, survey: Survey) -> None:
    """Ask for the folder."""
    settings.need_path("images", "the folder of FITS stamps, e.g. data.images=stamps")


def facts(settings: Settings, survey: Survey, target: Target) -> dict[str, Any]:
    """Return what the store depends on; of a pattern, all files that may fit it."""
    files = str(settings.images)
    if folder_and_pattern(files)[1]:
        files = re.sub(r"\{object_id\}|\{band\}|\[\*\]", "*", glob.escape(files)) + "*"
    return cutout_facts(replace(settings, images=files), survey, target) | {"named": settings.images}


def plan(settings: Settings, survey: Survey, target: Target, workers: int) -> Plan:
    """Find the stamps and the galaxies that they show; pixels are read when they are asked for."""
    s, rules = settings, settings.rules(survey, target)
    images, pattern = folder_and_pattern(str(s.images))
    found = find_files(images, pattern, survey.bands)
    reader = Reader(survey.bands, survey.pixels, s.images_key, s.zero_point is None)
    reader.check([paths for paths in found.values() if paths][:SOME])
    if s.path is not None:
        table, files = _with_table(s.path, found, images, rules)
    elif s.labelled:
        raise DataError(
            f"{images}: the stamps have no {target.column}: name a table with object_id, {target.column} and "
            "dered_petro_r by data.path, or type data.labelled=false for galaxies to predict"
        )
    else:
        table, files = reader.without_table(found, images, rules)
    if not s.labelled:
        absent = np.array([not paths for paths in files])
        table["flag"][absent & (np.asarray(table["flag"]) == "")] = "frame"
    strict = s.labelled and not s.drop_invalid

    def chunks(start: int) -> Iterator[Stamps]:
        for i in range(start, len(files), CHUNK):
            yield reader.read_chunk(files[i : i + CHUNK], strict)

    return s.plan_cutouts(survey, table, chunks)


def _with_table(
    path: str, found: dict[str, list[Path]], images: Path, rules: "TableRules"
) -> tuple["Table", list[list[Path]]]:
    """Return the standard table, and the files of each of its rows."""
    from photoz_lit.data.catalogue import standard_table
    from photoz_lit.data.columns import find_column, identities
    from photoz_lit.data.formats import read_table

    table, wanted = read_table(path), rules.columns.get("object_id", "object_id")
    if (column := find_column(table, wanted, path)) is None:
        raise DataError(
            f"{path}: no column '{wanted}', which names the files of each row (data.columns.object_id). "
            f"Its columns are: {', '.join(table.colnames)}"
        )
    names = identities(table, column, path)[0].astype(str).tolist()
    files = [found.get(name, []) for name in names]
    if (lone := sorted(found.keys() - set(names))) and len(lone) < len(found):
        said = f"{images}: {len(lone)} of {len(found)} stamps have no row in {path}: {_some(lone)}"
        if not rules.labelled and not rules.drop_invalid:
            raise DataError(
                f"{said}. Add rows, leave data.path out, or type data.drop_invalid=true to ignore them"
            )
        log.warning("%s: ignored", said)
    keep = np.ones(len(names), bool)
    if absent := [name for name in names if not found.get(name)]:
        n, of = len(absent), len(names)
        where = (
            f"{images} has no stamp in all bands for {n} of {of} rows of {path}, object_id {_some(absent)}"
        )
        if n == of:
            raise DataError(
                f"{where}; its stamps are called {', '.join(list(found)[:3])}. Check data.columns.object_id "
                "and data.images"
            )
        if rules.labelled and not rules.drop_invalid:
            raise DataError(f"{where}. Add them, or type data.drop_invalid=true to leave these rows out")
        log.warning("%s: %s", where, "left out" if rules.labelled else "flagged")
        if rules.labelled:
            keep = np.array([bool(paths) for paths in files])
    catalogue, rows = standard_table(table[keep], path, rules)
    return catalogue, [files[i] for i in np.flatnonzero(keep)[rows]]


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


class _UnusableStampError(DataError):
    """One galaxy's files cannot be used; the others may be fine."""


@dataclass(frozen=True)
class Reader:
    """How the stamp of a galaxy (bands, pixels, pixels) is read; `by_unit`: in nanomaggies by BUNIT."""

    bands: str
    pixels: int
    extension: str | None
    by_unit: bool

    def check(self, files: Sequence[Sequence[Path]]) -> None:
        """Stop where none of the first stamps can be used: a setting is wrong, not a stamp."""
        faults = []
        for own in files:
            try:
                self.read(own)
            except _UnusableStampError as error:
                faults.append(error)
            else:
                return
        if faults:
            raise faults[0]

    def read_chunk(self, files: Sequence[Sequence[Path]], strict: bool) -> Stamps:
        """Read stamps; unless `strict`, one that cannot be used is NaN."""
        stamps = np.full((len(files), len(self.bands), self.pixels, self.pixels), np.nan, dtype=np.float32)
        faults: list[_UnusableStampError] = []
        for stamp, own in zip(stamps, files, strict=True):
            try:
                if own:  # else it is flagged already
                    stamp[:] = self.read(own)
            except _UnusableStampError as error:
                if strict:
                    raise
                faults.append(error)
        if faults:
            log.warning("%d stamps cannot be used: flagged. The first: %s", len(faults), faults[0])
        return stamps

    def read(self, files: Sequence[Path]) -> Stamps:
        """Read the stamp of one galaxy from its file, or from one file a band."""
        parts = self.bands if len(files) > 1 else [self.bands]
        return np.concatenate([self._from_file(*part) for part in zip(files, parts, strict=True)])

    def _from_file(self, path: Path, bands: str) -> Stamps:
        """Read the planes of some bands from one file."""
        n, side = len(bands), self.pixels
        with _opened(path) as file:
            if self.extension and "{band}" in self.extension:
                planes = [_only(self._images(file, path, band), path, band) for band in bands]
                return np.stack([self._pixels(plane, path, (side, side)) for plane in planes])
            images = self._images(file, path)
            cubes = [image for image in images if image.header["NAXIS"] > 2]
            if cubes and n > 1:
                return self._cube(_only(cubes, path), path)
            named = {band: [image for image in images if _is_named(image, band)] for band in bands}
            if all(named.values()):
                planes = [_only(named[band], path, band) for band in bands]
            elif n == 1:
                fit = [image for image in images if image.shape == (side, side)]
                planes = [_only(fit or images[:1], path)]
            elif len(images) == n and not any(named.values()):
                planes = images
            else:
                raise _UnusableStampError(
                    f"{path}: {len(images)} images ({_names(images)}); a cube of shape {(n, side, side)} or "
                    "one extension a band named by EXTNAME expected "
                    f"(survey.bands={bands}, survey.pixels={side})"
                )
            return np.stack([self._pixels(plane, path, (side, side)) for plane in planes])

    def _images(self, file: "fits.HDUList", path: Path, band: str = "") -> list[Any]:
        """Return the images that may be meant: those of `extension`, or all but weights and the like."""
        found = [(i, hdu) for i, hdu in enumerate(file) if hdu.is_image and hdu.header.get("NAXIS", 0) >= 2]
        if self.extension is None:
            meant = [hdu for _, hdu in found if not _is_auxiliary(hdu)]
        else:
            name = self.extension.replace("{band}", band).lower()
            meant = [hdu for i, hdu in found if name in (str(i), hdu.name.lower())]
        if not meant:
            which = f"that is called {name} (data.images_key)" if self.extension else "of a galaxy"
            there = f"; data.images_key can name one of: {_names(hdu for _, hdu in found)}" if found else ""
            raise _UnusableStampError(f"{path}: holds no image {which}{there}")
        return meant

    def _cube(self, hdu: Any, path: Path) -> Stamps:
        """Read a cube (bands, y, x); the cutout server of the Legacy Surveys says the order in BANDS."""
        order = str(hdu.header.get("BANDS", "")).strip() or self.bands
        if absent := [band for band in self.bands if band not in order]:
            raise _UnusableStampError(
                f"{path}: its header says BANDS={order}: no {', '.join(absent)} of survey.bands={self.bands}"
            )
        cube = self._pixels(hdu, path, (len(order), self.pixels, self.pixels))
        return cube if order == self.bands else cube[[order.index(band) for band in self.bands]]

    def _pixels(self, hdu: Any, path: Path, shape: tuple[int, ...]) -> Stamps:
        """Return the pixels of an image of the wanted shape, in nanomaggies unless the user says the unit."""
        unit = str(hdu.header.get("BUNIT", "")).strip()
        name = re.sub(r"^1(\.0*)?\*?|/pix(el)?$|[\s-]", "", unit.replace(" ", "")).rstrip("s").lower()
        zero_point = NANOMAGGIES if not unit else None if unit.startswith("MJ") else UNITS.get(name)
        if self.by_unit and zero_point is None:
            raise DataError(
                f"{path}: its pixels are in '{unit}' (BUNIT), no unit of AB fluxes that is known: type "
                "data.zero_point=..., the AB magnitude of one such unit (22.5 for nanomaggies, 31.4 for nJy)"
            )
        if hdu.shape != shape:
            raise _UnusableStampError(
                f"{path}: an image of shape {hdu.shape}, {shape} expected (survey.bands, survey.pixels)"
            )
        pixels = np.asarray(hdu.data, dtype=np.float32)
        if not self.by_unit or zero_point in (None, NANOMAGGIES):
            return pixels
        return pixels * np.float32(10 ** (-0.4 * (zero_point - NANOMAGGIES)))

    def without_table(
        self, found: dict[str, list[Path]], images: Path, rules: "TableRules"
    ) -> tuple["Table", list[list[Path]]]:
        """Make the table of stamps without one: names, and positions where all files have them."""
        from astropy.table import Table

        from photoz_lit.data.catalogue import standard_table

        files = list(found.values())
        table = Table({"object_id": list(found)})
        position = np.array([self._position(own[0]) if own else (np.inf, np.inf) for own in files])
        unreadable, unknown = np.isinf(position).any(axis=1), np.isnan(position).any(axis=1)
        if n := int(unknown.sum()):
            log.info("%s: %d of %d stamps have no celestial WCS: positions left out", images, n, len(files))
        elif not unreadable.all():
            position[unreadable] = 0.0
            table["ra"], table["dec"] = position.T
        catalogue, _ = standard_table(
            table, str(images), replace(rules, columns={name: name for name in table.colnames})
        )
        if unreadable.any():
            log.warning("%s: %d stamps cannot be read or lack a band: flagged", images, unreadable.sum())
        return catalogue, [[] if bad else own for own, bad in zip(files, unreadable, strict=True)]

    def _position(self, path: Path) -> tuple[float, float]:
        """Return ra and dec of a stamp's centre, degrees; NaN without a WCS, infinite if unreadable."""
        from astropy.wcs import WCS, FITSFixedWarning

        try:
            with _opened(path) as file:
                header = self._images(file, path, self.bands[0])[0].header
                # Old names of keywords, such as RADECSYS in frames of SDSS, are understood.
                warnings.simplefilter("ignore", FITSFixedWarning)
                wcs = WCS(header, naxis=2)
                if wcs.wcs.lngtyp != "RA":
                    return np.nan, np.nan
                middle = (header["NAXIS1"] - 1) / 2, (header["NAXIS2"] - 1) / 2
                axes = wcs.all_pix2world(*middle, 0)  # declination may come first
                return float(axes[wcs.wcs.lng]), float(axes[wcs.wcs.lat])
        except _UnusableStampError:
            return np.inf, np.inf


@contextmanager
def _opened(path: Path) -> Iterator["fits.HDUList"]:
    """Open a file; say so if it cannot be read to the end of what is asked for."""
    from astropy.io import fits
    from astropy.io.fits.verify import VerifyError
    from astropy.utils.exceptions import AstropyWarning

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*truncated")  # astropy only warns, then reads on
            with fits.open(path, memmap=False) as file:
                yield file
    except (*UNREADABLE, VerifyError, AstropyWarning) as error:
        reason = str(error).strip().partition("\n")[0]
        raise _UnusableStampError(f"{path}: cannot be read, perhaps truncated: {reason}") from error


def _is_auxiliary(hdu: Any) -> bool:
    """Whether its name or type says weight, mask, variance, ..."""
    said = [hdu.name, *(str(hdu.header.get(key, "")) for key in ("IMTYPE", "EXTTYPE"))]
    return any(is_auxiliary(text) for text in said)


def _is_named(hdu: Any, band: str) -> bool:
    """Whether EXTNAME is a band, or ends with it as in SDSS-R; FITS does not tell cases apart."""
    return re.split(r"[-_. ]", hdu.name.strip().lower())[-1] == band.lower()


def _only(images: Sequence[Any], path: Path, band: str = "") -> Any:
    if len(images) > 1:
        of_band = f" of band {band}" if band else ""
        example = "SCI_{band}" if band else "SCI"
        raise _UnusableStampError(
            f"{path}: {len(images)} images{of_band} ({_names(images)}): say which is meant by "
            f"data.images_key, a name such as {example} or a number"
        )
    return images[0]


def _names(images: Iterable[Any]) -> str:
    return ", ".join(hdu.name or "unnamed" for hdu in images)
