"""`data=stamps`: a folder of FITS stamps, one file a band or one file a galaxy."""

import logging
import os
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from astropy.table import Table
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray

from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.formats import read_table
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

CHUNK = 256
SOME = 20
SUFFIXES = (".fits", ".fits.gz", ".fit")
# Tried in this order where no pattern is given; `*` stands for anything within a name.
BAND_PATTERNS = (
    "{object_id}-{band}",
    "{object_id}_{band}",
    "{object_id}.{band}",
    "{object_id}/{band}",
    "{object_id}/*-{band}",
    "{object_id}/*_{band}",
    "{object_id}/*.{band}",
    "{band}/{object_id}",
)
CUBE_PATTERNS = ("{object_id}", "{object_id}/*")
NANOMAGGIES = re.compile(
    r"(1(\.0*)?\s*\*?\s*)?(n|nano)\s*-?m(gy|aggy|aggie)s?(\s*/\s*pix(el)?)?", re.IGNORECASE
)
UNREADABLE = (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error, VerifyError, AstropyWarning)

Files = dict[str, list[Path]]
Stamps = NDArray[np.float32]


class _UnusableStampError(DataError):
    """One galaxy's files cannot be used; the others may be fine."""


def load(
    images: Path, pattern: str | None, path: Path | None, rules: TableRules, bands: str, pixels: int
) -> tuple[Table, list[list[Path]]]:
    """Find the stamps of a folder and the galaxies that they show.

    Parameters
    ----------
    images : Path
        Folder of `.fits`, `.fits.gz` or `.fit` files, searched with its subfolders.
    pattern : str, optional
        How files are named below it, e.g. `{object_id}-{band}.fits` or `{object_id}/stamp.fits`; `*` stands
        for anything. Without `{band}` a file holds all bands. None: found out.
    path : Path, optional
        Table of the galaxies; its object_id names their files.
    rules : TableRules
        How the table becomes the project's own. Without a table, galaxies must be unlabelled.
    bands : str
        The survey's bands, a letter each, in the order of the stamps to be made.
    pixels : int
        Side of the stamps.

    Returns
    -------
    catalogue : Table
        The standard table. Without `path`: object_id, the position of the stamp's centre where all files know
        it, and ebv, in the natural order of the names.
    files : list of list of Path
        For each row its file, or its files in the order of the bands; none where the row is flagged `frame`.

    Raises
    ------
    DataError
        There are no files, their names cannot be made out, or a labelled galaxy has none.
    """
    found = find_files(images, pattern, bands)
    _check_some([own for own in found.values() if own][:SOME], bands, pixels)
    if path is None and rules.labelled:
        raise DataError(
            f"{images}: the stamps have no spec_z: name a table with object_id, spec_z and dered_petro_r by "
            "data.path, or type data.labelled=false for galaxies to predict"
        )
    if path is None:
        return _from_headers(found, images, rules)
    table = read_table(path)
    column = rules.columns.get("object_id", "object_id")
    if column not in table.colnames:
        raise DataError(
            f"{path}: no column '{column}', which names the files of each row (data.columns.object_id). "
            f"Its columns are: {', '.join(table.colnames)}"
        )
    keep, files = _matched(_names(table, column), found, images, path, rules)
    catalogue, rows = standard_table(table[keep], str(path), rules)
    files = [files[i] for i in np.flatnonzero(keep)[rows]]
    if not rules.labelled:
        _flag_absent(catalogue, files)
    return catalogue, files


def chunks(files: Sequence[Sequence[Path]], bands: str, pixels: int, strict: bool) -> Iterator[Stamps]:
    """Read stamps in order.

    Parameters
    ----------
    files : sequence of sequences of Path
        For each galaxy its file, or one a band, as `load` returns them.
    bands : str
        The survey's bands, in the order of the stamps.
    pixels : int
        Side of the stamps.
    strict : bool
        Stop at a stamp that cannot be used, instead of giving NaN in its place.

    Yields
    ------
    array (m, bands, pixels, pixels)
        Nanomaggies as in the files; axes band, y, x.

    Raises
    ------
    DataError
        A file says that its unit is another one, or, if `strict`, cannot be used.
    """
    for start in range(0, len(files), CHUNK):
        yield _read_chunk(files[start : start + CHUNK], bands, pixels, strict)


def _check_some(files: Sequence[Sequence[Path]], bands: str, pixels: int) -> None:
    """Stop where none of the first stamps can be used: a setting is wrong, not a stamp."""
    faults = []
    for own in files:
        try:
            _read_stamp(own, bands, pixels)
        except _UnusableStampError as error:
            faults.append(error)
        else:
            return
    if faults:
        raise faults[0]


def _read_chunk(files: Sequence[Sequence[Path]], bands: str, pixels: int, strict: bool) -> Stamps:
    stamps = np.full((len(files), len(bands), pixels, pixels), np.nan, dtype=np.float32)
    faults: list[_UnusableStampError] = []
    for i, own in enumerate(files):
        if not own:
            continue  # flagged by `load`
        try:
            stamps[i] = _read_stamp(own, bands, pixels)
        except _UnusableStampError as error:
            if strict:
                raise
            faults.append(error)
    if faults:
        log.warning("%d stamps cannot be used: flagged. The first: %s", len(faults), faults[0])
    return stamps


# ---- Which files belong to which galaxy


def find_files(images: Path, pattern: str | None, bands: str) -> Files:
    """Group the files of a folder by galaxy.

    Parameters
    ----------
    images, pattern, bands
        As in `load`.

    Returns
    -------
    dict of str to list of Path
        By object_id, in natural order: one file, or one a band in the order of the bands. None where a band
        is lacking.

    Raises
    ------
    DataError
        The folder is absent or empty, or the pattern fits no file or several of one galaxy and band.
    """
    if not images.is_dir():
        raise DataError(f"{images}: no such folder. Check data.images (relative paths start at {Path.cwd()})")
    names = sorted(
        os.path.relpath(os.path.join(folder, name), images).replace(os.sep, "/")
        for folder, _, inside in os.walk(images)
        for name in inside
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    )
    if not names:
        raise DataError(f"{images}: holds no {', '.join(SUFFIXES)} files (data.images)")
    if pattern is None:
        pattern = _guess_pattern(names, bands, images)
        log.info("%s: files are taken to be named %s", images, pattern)
    found = _grouped(names, pattern, bands)
    if not found:
        raise DataError(
            f"{images}: none of its {len(names)} files, such as {names[0]}, is named like "
            f"data.pattern={pattern}"
        )
    for name, own in found.items():
        _check_unique(name, own, images)
    wanted = list(bands) if "{band}" in pattern else [""]
    lacking = {name: "".join(own) for name, own in found.items() if len(own) < len(wanted)}
    if lacking:
        name, there = next(iter(lacking.items()))
        log.warning("%s: %d of %d galaxies lack a band", images, len(lacking), len(found))
        log.warning("such as %s, which has only %s of survey.bands=%s", name, there, bands)
    return {
        name: [] if name in lacking else [images / found[name][band][0] for band in wanted]
        for name in sorted(found, key=natural_key)
    }


def natural_key(name: str) -> list[str | int]:
    """Return what to sort names by, so that 2 comes before 10."""
    return [int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", name))]


def _guess_pattern(names: Sequence[str], bands: str, images: Path) -> str:
    """Return the pattern that gives the most complete galaxies."""
    complete = {
        pattern: sum(len(own) == len(bands) for own in _grouped(names, pattern, bands).values())
        for pattern in BAND_PATTERNS
    }
    best = max(complete, key=lambda p: complete[p])  # the first of equals
    if complete[best]:
        return best
    partial = [p for p in BAND_PATTERNS[:4] if _grouped(names, p, bands)]
    if partial and len(bands) > 1 and all(_grouped([n], partial[0], bands) for n in names):
        own = next(iter(_grouped(names, partial[0], bands).items()))
        raise DataError(
            f"{images}: no galaxy has all of survey.bands={bands}, {own[0]} has only {''.join(own[1])}. "
            "If the last letter of the names is no band, say how they are named by data.pattern"
        )
    for pattern in CUBE_PATTERNS:
        if _grouped(names, pattern, bands):
            return pattern
    raise DataError(
        f"{images}: cannot make out how the files are named, such as {names[0]}: type data.pattern, e.g. "
        "'{object_id}/stamp-{band}.fits'"
    )


def _grouped(names: Sequence[str], pattern: str, bands: str) -> dict[str, dict[str, list[str]]]:
    """Group the names that fit a pattern by object_id and band (empty where a file holds all)."""
    fits_name, single = _compiled(pattern, bands)
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        if match := fits_name.fullmatch(name):
            groups = match.groupdict()
            own = found.setdefault(groups.get("object_id", single), {})
            own.setdefault(groups.get("band", ""), []).append(name)
    return found


def _compiled(pattern: str, bands: str) -> tuple[re.Pattern[str], str]:
    """Turn a pattern into an expression, and into the name of its galaxy if it names one alone."""
    suffix = r"(?i:\.fits\.gz|\.fits|\.fit)"
    if pattern.lower().endswith(SUFFIXES):
        suffix = ""
    parts = {
        "{object_id}": r"(?P<object_id>[^/]+?)",
        "{band}": f"(?P<band>[{re.escape(bands)}])",
        "*": "[^/]*",
    }
    expression, seen = "", set()
    for piece in re.split(r"(\{object_id\}|\{band\}|\*)", pattern):
        again = piece in seen and piece != "*"
        expression += f"(?P={piece[1:-1]})" if again else parts.get(piece, re.escape(piece))
        seen |= {piece} & set(parts)
    stem = re.sub(r"(?i)(\.fits\.gz|\.fits|\.fit)$", "", pattern).replace("{band}", "").strip("-_./* ")
    return re.compile(expression + suffix), stem or "stamp"


def _check_unique(name: str, own: Mapping[str, Sequence[str]], images: Path) -> None:
    for band, several in own.items():
        if len(several) > 1:
            of_band = f" in band {band}" if band else ""
            raise DataError(
                f"{images}: galaxy {name} has {len(several)} files{of_band}, {' and '.join(several[:2])}: "
                "say which are meant by data.pattern, e.g. '{object_id}/stamp-{band}.fits'"
            )


# ---- The table


def _names(table: Table, column: str) -> list[str]:
    """Return a column of object_id as text, as in names of files."""
    values = np.ma.filled(np.ma.asarray(table[column]), fill_value=None)
    return [(v.decode() if isinstance(v, bytes) else str(v)).strip() for v in values.tolist()]


def _matched(
    names: list[str], found: Files, images: Path, path: Path, rules: TableRules
) -> tuple[NDArray[np.bool_], list[list[Path]]]:
    """Give each row of a table its files; say which rows to keep."""
    files = [found.get(name, []) for name in names]
    keep = np.ones(len(names), bool)
    if lone := Counter(found.keys() - set(names)).total():
        log.info("%s: %d of %d stamps have no row in %s: ignored", images, lone, len(found), path)
    absent = np.array([not own for own in files])
    if absent.any():
        some = [names[i] for i in np.flatnonzero(absent)[:5]]
        where = (
            f"{images} has no stamp in all bands for {absent.sum()} of {len(names)} rows of {path}, "
            f"object_id {', '.join(some)}{'' if absent.sum() <= len(some) else ', ...'}"
        )
        if absent.all():
            raise DataError(
                f"{where}; its stamps are called {', '.join(list(found)[:3])}. Check data.columns.object_id "
                "and data.pattern"
            )
        if rules.labelled and not rules.drop_invalid:
            raise DataError(f"{where}. Add them, or type data.drop_invalid=true to leave these rows out")
        log.warning("%s: %s", where, "left out" if rules.labelled else "flagged")
        keep = ~absent if rules.labelled else keep
    return keep, files


def _flag_absent(catalogue: Table, files: Sequence[Sequence[Path]]) -> None:
    absent = np.array([not own for own in files])
    catalogue["flag"][absent & (np.asarray(catalogue["flag"]) == "")] = "frame"


def _from_headers(found: Files, images: Path, rules: TableRules) -> tuple[Table, list[list[Path]]]:
    """Make the table of stamps without one: names, and positions where all files have them."""
    files = list(found.values())
    table = Table({"object_id": list(found)})
    position = np.array([_position(own[0]) if own else (np.inf, np.inf) for own in files])
    unreadable = np.isinf(position).any(axis=1)
    if np.isnan(position).any():
        n = int(np.isnan(position).any(axis=1).sum())
        log.info("%s: %d of %d stamps have no celestial WCS: positions are left out", images, n, len(files))
    elif not unreadable.all():
        position[unreadable] = 0.0
        table["ra"], table["dec"] = position.T
    own = {ours: ours for ours in ("object_id", "ra", "dec") if ours in table.colnames}
    catalogue, _ = standard_table(table, str(images), replace(rules, columns=own))
    files = [[] if bad else one for one, bad in zip(files, unreadable, strict=True)]
    if unreadable.any():
        log.warning("%s: %d stamps cannot be read or lack a band: flagged", images, unreadable.sum())
    _flag_absent(catalogue, files)
    return catalogue, files


def _position(path: Path) -> tuple[float, float]:
    """Return ra and dec of a stamp's centre, degrees; NaN without a WCS, infinite if it cannot be read."""
    try:
        with _opened(path) as file:
            header = _first_image(file, path).header
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


# ---- Pixels


def _read_stamp(files: Sequence[Path], bands: str, pixels: int) -> Stamps:
    """Read the stamp of one galaxy from its file, or from one file a band."""
    if len(files) == 1:
        with _opened(files[0]) as file:
            return _from_one_file(file, files[0], bands, pixels)
    stamp = np.empty((len(bands), pixels, pixels), np.float32)
    for plane, path in zip(stamp, files, strict=True):
        with _opened(path) as file:
            plane[:] = _checked(_first_image(file, path), path, (pixels, pixels))
    return stamp


@contextmanager
def _opened(path: Path) -> Iterator[fits.HDUList]:
    """Open a file; say so if it cannot be read to the end of what is asked for."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*truncated")  # astropy only warns, then reads on
            with fits.open(path, memmap=False) as file:
                yield file
    except UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0]
        raise _UnusableStampError(f"{path}: cannot be read, perhaps truncated: {reason}") from error


def _is_image(hdu: fits.hdu.base.ExtensionHDU | fits.PrimaryHDU) -> bool:
    return bool(hdu.is_image) and hdu.header.get("NAXIS", 0) >= 2


def _first_image(file: fits.HDUList, path: Path) -> fits.ImageHDU:
    for hdu in file:
        if _is_image(hdu):
            return hdu
    raise _UnusableStampError(f"{path}: holds no image")


def _from_one_file(file: fits.HDUList, path: Path, bands: str, pixels: int) -> Stamps:
    """Read a cube (bands, y, x), or one image extension a band."""
    first = _first_image(file, path)
    if first.header["NAXIS"] > 2:
        order = str(
            first.header.get("BANDS", "")
        ).strip()  # written by the cutout server of the Legacy Surveys
        n = len(order or bands)
        cube = _checked(first, path, (n, pixels, pixels))
        if not order:
            return cube
        if absent := [b for b in bands if b not in order]:
            raise _UnusableStampError(
                f"{path}: its header says BANDS={order}: no {', '.join(absent)} of survey.bands={bands}"
            )
        return cube[[order.index(b) for b in bands]]
    images = [hdu for hdu in file if _is_image(hdu)]
    named = {band: hdu for band in bands for hdu in reversed(images) if _is_named(hdu, band)}
    if not named and len(images) == len(bands):
        named = dict(zip(bands, images, strict=True))
    if len(named) != len(bands):
        extensions = ", ".join(hdu.name or "unnamed" for hdu in images)
        raise _UnusableStampError(
            f"{path}: {len(images)} images ({extensions}); a cube of shape "
            f"({len(bands)}, {pixels}, {pixels}) or one extension a band named by EXTNAME expected "
            f"(survey.bands={bands}, survey.pixels={pixels})"
        )
    return np.stack([_checked(named[band], path, (pixels, pixels)) for band in bands])


def _is_named(hdu: fits.ImageHDU, band: str) -> bool:
    """Whether EXTNAME is a band, or ends with it as in SDSS-R; FITS does not tell cases apart."""
    return re.split(r"[-_. ]", hdu.name.strip().lower())[-1] == band.lower()


def _checked(hdu: fits.ImageHDU, path: Path, shape: tuple[int, ...]) -> Stamps:
    """Return the pixels of an image of the wanted shape in nanomaggies."""
    unit = str(hdu.header.get("BUNIT", "")).strip()
    if unit and not NANOMAGGIES.fullmatch(unit):
        raise DataError(
            f"{path}: its pixels are in '{unit}' (BUNIT), nanomaggies expected. Multiply them by what one "
            f"{unit} is in nanomaggies (1 nanomaggy = 3.631e-6 Jy, zero point 22.5 mag AB), then set "
            "BUNIT = 'nanomaggy'"
        )
    found = tuple(hdu.header[f"NAXIS{i}"] for i in range(hdu.header["NAXIS"], 0, -1))
    if found != shape:
        raise _UnusableStampError(
            f"{path}: an image of shape {found}, {shape} expected (survey.bands, survey.pixels)"
        )
    return np.asarray(hdu.data, dtype=np.float32)
