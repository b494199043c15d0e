"""Which FITS files of a folder belong to which galaxy and band, by their names."""

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (".fits", ".fits.gz", ".fits.fz", ".fit")
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
# Words of names for what lies beside an image.
AUXILIARY = re.compile(
    r"(wht|wgt|weight|(inv|i)var|invvariance|variance|var|std|stddev|sigma|rms|err|error|unc|uncert|uncertainty|"
    r"noise|mask|msk|dq|quality|flag|bad|bpm|bkg|bkgd|back|background|sky|exp|exptime|exposure|expmap|nexp|"
    r"cov|coverage|con|ctx|seg|segm|segmap|segmentation|psf|model|resid|residual|chi2?)(map)?s?\d*"
)
_SUFFIX = r"(?i:\.fits\.gz|\.fits\.fz|\.fits|\.fit)"


def folder_and_pattern(images: str) -> tuple[Path, str | None]:
    """Split a path before a file, or the first name with `{` or `*` that is not there as it is spelt."""
    path = Path(images)
    for place in (*reversed(path.parents), path):
        if place.is_file() or (set("{*") & set(place.name) and not place.exists()):
            return place.parent, path.relative_to(place.parent).as_posix()
    return path, None


def find_files(images: Path, pattern: str | None, bands: str) -> dict[str, list[Path]]:
    """Return the files of each galaxy in a folder and its subfolders, in natural order of the names.

    A galaxy has one file, one a band in the order of the bands, or none at all where a band is lacking. The
    pattern is found out where none is given; without `{band}` in it a file holds all bands.
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
        images_only = [name for name in names if not is_auxiliary(re.sub(_SUFFIX + "$", "", name))]
        if images_only and len(images_only) < len(names):
            log.info("%s: %d files are weights, masks and the like", images, len(names) - len(images_only))
            names = images_only
        pattern = _guess_pattern(names, bands, images)
        log.info("%s: files are taken to be named %s", images, pattern)
    found = _grouped(names, pattern, bands)
    if not found:
        raise DataError(
            f"{images}: none of its {len(names)} files, such as {names[0]}, is named like {pattern}: type "
            f"how they are, e.g. data.images='{images}/{{object_id}}/stamp-{{band}}.fits'"
        )
    for name, own in found.items():
        for band, several in own.items():
            if len(several) > 1:
                of_band = f" in band {band}" if band else ""
                raise DataError(
                    f"{images}: galaxy {name} has {len(several)} files{of_band}, "
                    f"{' and '.join(several[:2])}: say which are meant, e.g. "
                    f"data.images='{images}/{{object_id}}/stamp-{{band}}.fits'"
                )
    wanted = list(bands) if "{band}" in pattern else [""]
    if lacking := {name: "".join(own) for name, own in found.items() if len(own) < len(wanted)}:
        name, there = next(iter(lacking.items()))
        log.warning("%s: %d of %d galaxies lack a band", images, len(lacking), len(found))
        log.warning("such as %s, which has only %s of survey.bands=%s", name, there, bands)
    return {
        name: [] if name in lacking else [images / found[name][band][0] for band in wanted]
        for name in sorted(found, key=_natural)
    }


def is_auxiliary(name: str) -> bool:
    """Whether a name says weight, mask, variance, ..."""
    return any(AUXILIARY.fullmatch(word) for word in re.split(r"[^a-z0-9]+", name.lower()))


def _natural(name: str) -> list[str | int]:
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
            "If the last letter of the names is no band, say how they are named, e.g. "
            f"data.images='{images}/{{object_id}}.fits'"
        )
    flat, nested = CUBE_PATTERNS
    return flat if _grouped(names, flat, bands) else nested


def _grouped(names: Sequence[str], pattern: str, bands: str) -> Mapping[str, dict[str, list[str]]]:
    """Group the names that fit a pattern by object_id and band (empty where a file holds all)."""
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
    fits_name = re.compile(expression + ("" if pattern.lower().endswith(SUFFIXES) else _SUFFIX))
    # A pattern without {object_id} names one galaxy.
    stem = re.sub(_SUFFIX + "$", "", pattern).replace("{band}", "").strip("-_./* ") or "stamp"
    found: dict[str, dict[str, list[str]]] = {}
    for name in names:
        if match := fits_name.fullmatch(name):
            groups = match.groupdict()
            own = found.setdefault(groups.get("object_id", stem), {})
            own.setdefault(groups.get("band", ""), []).append(name)
    return found
