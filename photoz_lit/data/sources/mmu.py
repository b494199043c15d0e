"""`data=mmu`: images of the Multimodal Universe (2024, arXiv 2412.02527), in HDF5 by HEALPix pixel.

`SAMPLE/healpix=N/001-of-001.hdf5` holds data sets with a row an object: `object_id`, `image_array` (or
`image_flux`; n, bands, y, x), `image_band` (n, bands; names such as des-g), `image_scale` (n, bands; arcsec a
pixel), perhaps `image_ivar`, `image_mask` or `bit_mask` (true where a pixel is good), and a column of each
quantity of the survey's catalogue. So write scripts/legacysurvey, scripts/hsc and scripts/jwst of
https://github.com/MultimodalUniverse/MultimodalUniverse. Pixels of no weight or bad ones become NaN.
"""

import glob
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sources.published import Published, PublishedSettings, reading
from photoz_lit.data.sources.settings import NANOMAGGIES, Plan, Survey, facts_of
from photoz_lit.errors import DataError
from photoz_lit.setting import setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from astropy.table import Table

    from photoz_lit.data.catalogue import TableRules

log = logging.getLogger(__name__)

KINDS = ("images",)
# AB zero points by the first part of bands' names: nanomaggies of the Legacy Surveys, counts of HSC's coadds.
ZERO_POINTS = {"des": NANOMAGGIES, "hsc": 27.0}
FLUX, GOOD = ("image_array", "image_flux"), ("image_ivar", "image_mask", "bit_mask")
SCALE_TOLERANCE = 0.01  # relative
WIDEST = 64  # values a row of a column
facts = partial(facts_of, of_survey=("bands", "pixels", "pixel_scale"))


@dataclass
class Settings(PublishedSettings):
    """The folder or pattern of HDF5 files; a table whose rows are joined to theirs by object_id, or none."""

    source: str = "mmu"
    images: str | None = setting(None, kind="path")


def check(settings: Settings, survey: Survey) -> None:
    """Ask for the images."""
    settings.need_path("images", "the folder of HDF5 files, e.g. data.images=legacysurvey/dr10_south_21")


def plan(settings: Settings, survey: Survey, target: Target, workers: int) -> Plan:
    """Join the files' columns with the table; pixels are read when they are asked for."""
    from astropy.table import vstack

    from photoz_lit.data.columns import find_column

    images, rules = str(settings.images), settings.rules(survey, target)
    parts = [Images(file, survey) for file in _files(images)]
    names = {name.partition("[")[0].lower() for name in rules.wanted}
    tables = [part.columns({*names, "object_id"}) for part in parts]
    table = vstack(tables, join_type="outer", metadata_conflicts="silent")
    if settings.path is not None:
        table = _joined(table, images, settings.path, rules)
    for ours in (target.column, "dered_petro_r") if settings.labelled else ():
        if find_column(table, name := rules.columns.get(ours, ours), images) is None:
            raise DataError(
                f"{settings.path or images}: no column '{name}' (data.columns.{ours}), and none in the files "
                f"of images: {', '.join(parts[0].names)}. Name a table with object_id, {target.column} and "
                "dered_petro_r by data.path"
            )
    units = {part.unit for part in parts}
    if settings.zero_point is None and not (len(units) == 1 and units <= ZERO_POINTS.keys()):
        raise DataError(
            f"{images}: bands of {' and '.join(sorted(units))}: not one unit of fluxes that is known. Type "
            "data.zero_point=..., the AB magnitude of one unit (22.5 for nanomaggies, 23.9 for microjansky)"
        )
    zero_point = ZERO_POINTS.get(units.pop(), NANOMAGGIES)
    published = Published(table, {}, parts, zero_point, bands_last=False)
    return published.plan(replace(settings, path=settings.path or images), survey, target)


def _files(images: str) -> list[Path]:
    """Return the files of a folder and below, or those of a pattern, sorted by name."""
    pattern = str(Path(glob.escape(images)) / "**" / "*") if Path(images).is_dir() else images
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
    if not (files := [path for path in found if path.suffix.lower() in (".hdf5", ".h5")]):
        raise DataError(
            f"{images}: no .hdf5 file there or below. Set data.images to a folder, with healpix=N/*.hdf5 in "
            f"it, or to a pattern (relative paths start at {Path.cwd()})"
        )
    return files


def _joined(table: "Table", images: str, path: str, rules: "TableRules") -> "Table":
    """Add the columns of a labels' table, which go before the files'; they are empty where it has no row."""
    from astropy.table import Table

    from photoz_lit.data.columns import find_column, identities
    from photoz_lit.data.formats import read_table

    labels, wanted = read_table(path, rules.wanted), rules.columns.get("object_id", "object_id")
    if (column := find_column(labels, wanted, path)) is None:
        raise DataError(
            f"{path}: no column '{wanted}' (data.columns.object_id), which the join needs. Its columns are: "
            f"{', '.join(labels.colnames)}"
        )
    ids = identities(table, "object_id", images)[0]
    mine, theirs = ids.astype(str).tolist(), identities(labels, column, path)[0].astype(str).tolist()
    place = {name: row for row, name in enumerate(theirs)}
    if len(place) < len(theirs):
        twice = next(name for row, name in enumerate(theirs) if place[name] != row)
        raise DataError(f"{path}: object_id {twice} stands in several rows: which is the galaxy's? Leave one")
    rows = np.array([place.get(name, -1) for name in mine])
    absent, n = rows < 0, len(set(rows[rows >= 0].tolist()))
    if n == 0:
        raise DataError(
            f"{path}: none of its object_id ({', '.join(theirs[:3])}, ...) is one of the {len(mine)} images "
            f"of {images} ({', '.join(mine[:3])}, ...). Check data.columns.object_id"
        )
    tell = log.warning if n < len(theirs) else log.info
    said = "%s: %d of %d rows have an image; %d of %d images have a row"
    tell(said, path, n, len(theirs), (~absent).sum(), len(mine))
    joined = Table(labels, masked=True, copy=False)[np.maximum(rows, 0)]
    for name in joined.colnames:
        joined[name].mask[absent] = True
    joined[column] = ids
    known = {name.lower() for name in joined.colnames} | {"object_id"}
    return Table([*joined.itercols(), *(c for c in table.itercols() if c.name.lower() not in known)])


class Images:
    """The images of one file, cut to the survey's pixels around their middle, bands by name in its order.

    Where of image and survey one has an odd and one an even number of pixels, the middle is half a pixel off.
    """

    def __init__(self, path: Path, survey: Survey) -> None:
        import h5py

        self.path, side = path, survey.pixels
        with reading(path), h5py.File(path) as file:
            self.names = list(file)
            sets = {name: self._named(file, name) for name in ("object_id", "image_band", "image_scale")}
            flux = self._named(file, *FLUX)
            self.flux, shape = flux.name, flux.shape
            if len(shape) != 4 or 0 in shape or min(shape[2:]) < side:
                raise DataError(
                    f"{path}: {flux.name[1:]} of shape {shape}, (n, bands, at least {side}, {side}) expected "
                    f"(survey.pixels={side})"
                )
            shapes = {"object_id": [shape[:1]], "image_band": [shape[:2]], "image_scale": [shape[:2]]}
            for name, one in (sets | {name: file[name] for name in GOOD if name in file}).items():
                if one.shape not in shapes.get(name, [shape, (shape[0], *shape[2:])]):
                    raise DataError(f"{path}: {name} of shape {one.shape} beside images of shape {shape}")
            self.rows, self.dtype = shape[0], np.dtype(np.float32)
            self.cutout: tuple[int, ...] = (len(survey.bands), side, side)
            self.middle = tuple(slice((n - side) // 2, (n + side) // 2) for n in shape[2:])
            self._find_bands(sets["image_band"][:], survey.bands)
            scale, wanted = sets["image_scale"][:][:, self.order], survey.pixel_scale
            if (wrong := ~(np.abs(scale / wanted - 1) < SCALE_TOLERANCE).all(axis=1)).any():
                raise DataError(
                    f"{path}: image_scale of row {wrong.argmax()} is {scale[wrong][0, 0]:g} arcsec a pixel, "
                    f"survey.pixel_scale={wanted:g}: set it, and what else is that survey's (conf/survey)"
                )

    def _named(self, file: Any, *names: str) -> Any:
        """Return the first data set that is there of some names."""
        if not (found := [file[name] for name in names if name in file]):
            said = f"{self.path}: no data set {' or '.join(names)}, as data=mmu needs"
            raise DataError(f"{said}. It holds: {', '.join(self.names)}")
        return found[0]

    def _find_bands(self, names: NDArray[Any], bands: str) -> None:
        """Find the survey's bands, by the last part of their names, which are those of all rows."""
        own = [name.decode() if isinstance(name, bytes) else str(name) for name in names[0]]
        if (other := (names != names[0]).any(axis=1)).any():
            row = int(other.argmax())
            raise DataError(f"{self.path}: image_band of row {row} is {names[row]}, of row 0 {names[0]}")
        letters = [re.split(r"[-_. ]", name.strip("\0 ").lower())[-1] for name in own]
        if absent := [band for band in bands if letters.count(band.lower()) != 1]:
            raise DataError(
                f"{self.path}: its bands are {', '.join(own)}: not one is called {', '.join(absent)} of "
                f"survey.bands={bands}. Type those that it has, e.g. survey.bands={''.join(letters)}"
            )
        self.order = [letters.index(band.lower()) for band in bands]
        self.unit = re.split(r"[-_. ]", own[0].lower())[0]

    def columns(self, names: set[str]) -> "Table":
        """Read the columns of some names, without capitals."""
        import h5py
        from astropy.table import Table

        table = Table()
        with reading(self.path), h5py.File(self.path) as file:
            for name, item in file.items():
                shape = getattr(item, "shape", ())
                if name.lower() in names and shape[:1] == (self.rows,) and np.prod(shape[1:]) <= WIDEST:
                    table[name] = item[:]
        return table

    def read(self, spans: Sequence[tuple[int, int]]) -> Iterator[NDArray[Any]]:
        """Yield the cutouts of ascending row ranges [low, high), NaN where a pixel is bad."""
        import h5py

        with reading(self.path), h5py.File(self.path) as file:
            for low, high in spans:
                rows = slice(low, high)
                cutouts = file[self.flux][(rows, slice(None), *self.middle)].astype(np.float32)[:, self.order]
                for name in (name for name in GOOD if name in file):
                    if file[name].ndim == 4:
                        good = file[name][(rows, slice(None), *self.middle)][:, self.order] > 0
                    else:
                        good = file[name][(rows, *self.middle)][:, None] > 0
                    cutouts[~np.broadcast_to(good, cutouts.shape)] = np.nan
                yield cutouts
