"""Files as all parts write, lock and recognise them.

Whatever is written lies beside its place first, under a name of its own process, and is renamed when it is
whole: no reader ever sees half a file, and two writers do not harm each other.
"""

import glob
import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from astropy.table import Table


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Give a path beside a file's place to write to, of the same suffix; put it in its place on leaving.

    After an error nothing is left beside, and what was there before stays.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; numbers that are not finite become null."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in content.items()}
    with beside(path) as partial:
        partial.write_text(json.dumps(clean, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read JSON; DataError where the file is absent or truncated."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): delete its folder and run again") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds no JSON object: delete its folder and run again")
    return content


def write_arrays(path: Path, arrays: Mapping[str, ArrayLike]) -> None:
    """Write arrays by name (.npz, without pickles)."""
    with beside(path) as partial:
        np.savez(partial, allow_pickle=False, **{name: np.asarray(values) for name, values in arrays.items()})


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read arrays by name; DataError where the file is absent or truncated."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # a damaged archive fails in many ways
        raise DataError(f"{path}: cannot be read ({error}): delete its folder and run again") from error


def write_table(path: Path, table: "Table") -> None:
    """Write a table in the format of its suffix."""
    with beside(path) as partial:
        table.write(partial, overwrite=True)


def reserve(path: Path, size: int) -> None:
    """Lengthen a file with zeros to a size at least; a full disk is an error here, and not a crash later."""
    with path.open("r+b") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
        file.truncate(max(size, path.stat().st_size))


def link(file: Path, folder: Path) -> None:
    """Put a finished file into another folder too: a second name for it, or a copy between file systems."""
    place = folder / file.name
    if place.exists() and place.samefile(file):
        return  # to rename one name of a file to another does nothing, by POSIX
    with beside(place) as partial:
        try:
            os.link(file, partial)
        except OSError:
            shutil.copyfile(file, partial)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other process works in a folder, which is made if it is not there.

    The lock is a file `lock` in it; the system lifts it when the process ends, however it ends.
    """
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process works on %s: waiting for it", folder.name)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_of(facts: Any) -> str:
    """Return twelve letters that stand for plain facts: names of folders end in them."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def fingerprint(paths: Iterable[Path | str]) -> list[list[Any]]:
    """Return name, size and time of each file behind paths: files, folders with all in them, or patterns.

    What was made from files is made again when one of them is another, is gone or has come.
    """
    facts: list[list[Any]] = []
    for path in sorted({found for given in paths for found in _behind(Path(given).expanduser().absolute())}):
        try:
            stat = path.stat()
        except FileNotFoundError:
            facts.append([str(path)])
        else:
            facts.append([str(path), stat.st_size, stat.st_mtime_ns])
    return facts


def _behind(path: Path) -> Iterator[Path]:
    """Yield the files of a path; a path that is neither file, folder nor pattern stands for itself."""
    if path.is_dir():
        for folder, _, names in os.walk(path, followlinks=True):
            yield from (Path(folder) / name for name in names)
        return
    found = [] if path.exists() else [Path(name) for name in glob.glob(str(path))]
    part_of = re.fullmatch(r"(.+)\[[^\[\]]+\]", str(path))
    if found:
        yield from (match for match in found if match.is_file())
    elif part_of and not path.exists():  # one table of a file, such as galaxies.fits[2]
        yield Path(part_of[1])
    else:
        yield path
