"""`data=npy_folder`: one `.npy` an object and a table, as the programme of Lin et al. 2022 reads SDSS.

A folder of::

    label               pickle; or label.pkl, labels, labels.pkl, label.npz, labels.npz, the only *.pkl there
    train.npy           objects of each split: rows of the table, or its keys; optional
    val.npy
    test.npy
    data/0.py.npy       cutouts (y, x, bands) or (bands, y, x), named by number; `.npy` alone will do, and so
    data/1.py.npy       will any other subfolder, several of them, or the folder itself

The table is a dict or `.npz` of columns or a structured array, whose row i is object i, or a dict from an
object's name to a dict of its numbers. Fields: z, EBV, dered_petro_r, ... Cutouts are in nanomaggies. With
split files, only the objects that they name are used, and the table has a column `split`. Where it has no
column `object_id`, that is an object's number or name.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sources import pasquet, published
from photoz_lit.data.sources.published import Published, PublishedSettings, reading, table_of
from photoz_lit.errors import DataError

if TYPE_CHECKING:
    from astropy.table import Table

KINDS, check, facts = published.KINDS, published.check, published.facts
SPLITS = ("train", "val", "test")
LABELS = ("label", "label.pkl", "labels", "labels.pkl", "label.npz", "labels.npz")


@dataclass
class Settings(PublishedSettings):
    """The folder."""

    source: str = "npy_folder"


def read(path: Path) -> Published:
    """Open a folder."""
    if not path.is_dir():
        raise DataError(f"{path}: no such folder. Check data.path (relative paths start at {Path.cwd()})")
    known = [path / name for name in LABELS if (path / name).is_file()]
    if len(found := known[:1] or list(path.glob("*.pkl"))) != 1:
        what = f"{len(found)} pickles" if found else "no table of labels"
        raise DataError(
            f"{path}: {what} in it, one of {', '.join(LABELS)} expected, as data=npy_folder needs"
        )
    labels = found[0]
    table, names = _labels(labels)
    split = _splits(path, labels, names)
    if split is not None:
        table["split"] = split
        keep = np.flatnonzero(split != "")
        table, names = table[keep], [names[i] for i in keep]
        if not names:
            raise DataError(f"{path}: train.npy, val.npy and test.npy name no objects")
    if "object_id" not in table.colnames:
        numbered = all(re.fullmatch(r"0|-?[1-9]\d{0,17}", name) for name in names)
        table["object_id"] = np.array(names).astype(np.int64 if numbered else str)
    cutouts = NpyFiles(path, _cutout_files(path, names, labels))
    return Published(table, {**pasquet.COLUMNS, "split": ("split",)}, [cutouts])


plan = published.planner(read)


class NpyFiles:
    """Cutouts in a `.npy` each; the first one tells the shape of all."""

    def __init__(self, path: Path, files: Sequence[str]) -> None:
        self.path, self.files, self.rows = path, files, len(files)
        first = _load(Path(files[0]))
        self.cutout, self.dtype = first.shape, first.dtype

    def read(self, spans: Sequence[tuple[int, int]]) -> Iterator[NDArray[Any]]:
        """Yield the cutouts of ascending row ranges [low, high), as the files hold them."""
        for low, high in spans:
            rows = np.empty((high - low, *self.cutout), self.dtype)
            for i, name in enumerate(self.files[low:high]):
                cutout = _load(Path(name))
                if cutout.shape != self.cutout or cutout.dtype.kind not in "fiu":
                    raise DataError(
                        f"{name}: a cutout of shape {cutout.shape} and type {cutout.dtype}, those before "
                        f"it are {self.cutout} and {self.dtype}"
                    )
                rows[i] = cutout
            yield rows


def _load(path: Path) -> NDArray[Any]:
    """Read one `.npy`, which may hold no Python objects."""
    with reading(path), path.open("rb") as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def _labels(path: Path) -> tuple["Table", list[str]]:
    """Read the table of labels, and what its objects are called."""
    from photoz_lit.data.unpickle import read_pickle

    if path.suffix == ".npz":
        labels: Any = {name: published.read_array(path, name) for name in published.array_names(path)}
    else:
        labels = read_pickle(path)
    names = None
    with reading(path):
        if isinstance(labels, np.ndarray) and labels.dtype.names is not None and labels.ndim == 1:
            labels = {name: labels[name] for name in labels.dtype.names}
        if not isinstance(labels, dict):
            raise DataError(
                f"{path}: a {type(labels).__name__}, where a dict of columns, a structured array or a dict "
                "of objects is expected"
            )
        if labels and all(isinstance(entry, dict) for entry in labels.values()):
            names, fields = [_text(key) for key in labels], list(next(iter(labels.values())))
            for name, entry in labels.items():
                if set(entry) != set(fields):
                    has = sorted(map(str, entry))
                    raise DataError(f"{path}: object {name} has fields {has}, the first one {fields}")
            labels = {field: [entry[field] for entry in labels.values()] for field in fields}
        columns = {_text(name): np.asarray(values) for name, values in labels.items()}
    lengths = {name: values.shape[:1] for name, values in columns.items()}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        told = ", ".join(f"{name} {shape[0] if shape else 'one value'}" for name, shape in lengths.items())
        raise DataError(f"{path}: columns of unequal lengths: {told}")
    for name, values in columns.items():
        if values.dtype.hasobject:
            raise DataError(f"{path}: column {name} mixes kinds of values: numbers or text are needed")
    with reading(path):
        table = table_of(columns)
    if len(table) == 0:
        raise DataError(f"{path}: the table of labels has no rows")
    return table, names or [str(i) for i in range(len(table))]


def _text(name: Any) -> str:
    return name.decode("latin1") if isinstance(name, bytes) else str(name)


def _splits(path: Path, labels: Path, names: Sequence[str]) -> NDArray[np.str_] | None:
    """Return the split of each object by the files train.npy, val.npy, test.npy; empty text for none."""
    files = [path / f"{name}.npy" for name in SPLITS if (path / f"{name}.npy").is_file()]
    place = {name: i for i, name in enumerate(names)}
    split = np.full(len(names), "", dtype="<U5")
    for file in files:
        ids = _load(file)
        if ids.dtype.kind not in "iuSU" or ids.ndim != 1:
            raise DataError(
                f"{file}: {ids.dtype} of shape {ids.shape}, a list of objects' numbers or names expected"
            )
        told = [_text(name) for name in ids.tolist()]
        if lost := [name for name in told if name not in place]:
            raise DataError(f"{file}: {len(lost)} objects are not in {labels.name}, first {lost[0]}")
        rows = np.array([place[name] for name in told], dtype=np.int64)
        twice = rows[(split[rows] != "") & (split[rows] != file.stem)]
        if twice.size:
            raise DataError(
                f"{file}: {twice.size} objects are in {split[twice[0]]}.npy too, first {names[twice[0]]}: "
                "an object belongs to one split"
            )
        split[rows] = file.stem
    return split if files else None


def _cutout_files(path: Path, names: Sequence[str], labels: Path) -> list[str]:
    """Find the file of each object, in the folder or in folders within it."""
    wanted, found = set(names), dict[str, str]()
    for folder in [path, *sorted(p for p in path.iterdir() if p.is_dir())]:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = entry.name.removesuffix(".npy").removesuffix(".py")
                if not entry.name.endswith(".npy") or name not in wanted:
                    continue
                if name in found:
                    raise DataError(f"{entry.path}: a second cutout of object {name} beside {found[name]}")
                found[name] = entry.path
    if lost := [name for name in names if name not in found]:
        raise DataError(
            f"{path}: no cutout of {len(lost)} of {len(names)} objects of {labels.name}, first {lost[0]}: "
            "add the files, or take their numbers out of train.npy, val.npy and test.npy"
        )
    return [found[name] for name in names]
