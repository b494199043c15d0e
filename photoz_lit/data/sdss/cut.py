"""Cutouts of galaxies from the survey's frames: one tangent grid a galaxy, the same in all bands.

Conventions
-----------
The catalogue position is at the middle of the stamp, index (pixels - 1) / 2 along both axes where pixels are
counted from the centre of the first: between the four middle pixels of an even stamp, as the simulated
survey draws them. Stamps are (y, x) as the frames are. By default y points where it does on the frame of the
reference band (r, or the first band where r is absent); `north_up` turns north up and east left. Both have
the parity of the survey's frames, which show the sky as seen from inside the sphere.

How the frames are resampled
----------------------------
`reproject` interpolates with cubic splines, which conserve surface brightness; the ratio of pixel areas
makes that flux. Two things make it fast. Over a stamp, the map from one tangent plane to another is linear to
1e-5 of a pixel (64 pixels at the edge of a frame), so that the frame's WCS is asked at five points a galaxy.
And the windows around many galaxies are laid on top of each other and interpolated in one call.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from astropy import units as u
from astropy.coordinates import offset_by, position_angle
from astropy.wcs import WCS
from astropy.wcs.wcsapi import BaseLowLevelWCS
from numpy.typing import ArrayLike, NDArray
from reproject import reproject_interp
from scipy.spatial import KDTree

from photoz_lit.data.sdss.frames import (
    PIXEL,
    Array,
    Field,
    Footprint,
    Frame,
    FrameName,
    Image,
    check_footprints,
    check_wcs,
    corners,
    read_footprints,
    read_frame,
    reference_band,
    separation,
)
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]

POSITION_TOLERANCE = 3.0  # pixels between the catalogue's rowc, colc and the frame's WCS
BAND_OFFSET = 20.0  # pixels; the frames of a field's bands start up to about ten rows apart
MARGIN = 12  # pixels around a window; the spline's ringing falls by 0.27 a pixel
GALAXIES_AT_ONCE = 64  # keeps the windows and coordinates of one call in some ten megabytes
FIELDS_IN_MEMORY = 6  # of 61 MB in five bands: this one, the next, those that complete this one
UNCUT_AT_ONCE = 1024  # galaxies that cannot be cut


class FieldPlan(NamedTuple):
    """The galaxies to be cut from one field, and the fields that complete those across its edge."""

    field: Field
    rows: Rows
    completing: list[tuple[Field, Rows]]


@dataclass(frozen=True)
class FieldCutouts:
    """The cutouts of the galaxies of one field.

    Attributes
    ----------
    field : Field or None
        None for galaxies that lie on no frame.
    rows : ndarray of int, shape (m,)
        Their rows in the arrays that the positions were given in.
    cutouts : ndarray of float32, shape (m, bands, pixels, pixels)
        Nanomaggies per pixel; zero where missing.
    missing_fraction : ndarray, shape (m,)
        Share of the stamp that no frame covers, in the band where it is largest.
    faults : list of str, length m
        Why a galaxy could not be cut; empty where it could.
    """

    field: Field | None
    rows: Rows
    cutouts: Image
    missing_fraction: Array
    faults: list[str]


# --- Cutting from one set of frames ---------------------------------------------------


def cut(
    frames: Mapping[str, Frame],
    ra: ArrayLike,
    dec: ArrayLike,
    *,
    pixels: int = 64,
    pixel_scale: float = PIXEL,
    north_up: bool = False,
    others: Sequence[Mapping[str, Frame]] = (),
) -> tuple[Image, Array]:
    """Cut galaxies out of the frames of one field.

    Parameters
    ----------
    frames : mapping of str to (image, WCS)
        Frame of each band, nanomaggies per pixel (`photoz_lit.data.sdss.frames.read_frame`).
    ra, dec : array-like, shape (m,)
        Positions of the galaxies, degrees.
    pixels : int
        Side of the stamps.
    pixel_scale : float
        Side of their pixels, arcsec. Much coarser pixels than the frames' are sampled, not averaged.
    north_up : bool
        North up and east left instead of the frame's own orientation.
    others : sequence of mappings
        Frames of the same bands of further fields, to complete what the first does not cover.

    Returns
    -------
    cutouts : ndarray of float32, shape (m, bands, pixels, pixels)
        Nanomaggies per pixel, bands in the order of `frames`; zero where missing.
    missing_fraction : ndarray, shape (m,)
        Share of the stamp that no frame covers, in the band where it is largest.
    """
    ra, dec = np.atleast_1d(np.asarray(ra, float)), np.atleast_1d(np.asarray(dec, float))
    wcs = None if north_up else frames[reference_band(list(frames))][1]
    grids = _make_grids(ra, dec, pixels, pixel_scale, wcs)
    cutouts, missing = _empty(grids, len(frames))
    for field in (frames, *others):
        _fill(cutouts, missing, [field[band] for band in frames], grids)
    return cutouts, _missing_fraction(missing)


def _missing_fraction(missing: Mask) -> Array:
    """Return the share of missing pixels, in the band where it is largest."""
    return np.asarray(missing.mean((2, 3)).max(1))


class _Grids(NamedTuple):
    """Tangent grids, one a galaxy: sky positions, degrees, of five points on each.

    These are the middle and the points half a stamp from it along x, -x, y, -y.
    """

    ra: Array  # (5, m)
    dec: Array
    pixels: int

    def select(self, rows: Rows) -> _Grids:
        """Return the grids of some galaxies."""
        return _Grids(self.ra[:, rows], self.dec[:, rows], self.pixels)


def _make_grids(ra: Array, dec: Array, pixels: int, pixel_scale: float, wcs: WCS | None) -> _Grids:
    """Lay tangent grids around positions, with the orientation and parity of a WCS, or else north up."""
    lon, lat = np.radians(ra), np.radians(dec)
    up, right = np.zeros_like(lon), np.full_like(lon, -np.pi / 2)
    if wcs is not None:
        x, y = wcs.world_to_pixel_values(ra, dec)
        above = np.radians(wcs.pixel_to_world_values(x, y + pixels / 2))
        up = position_angle(lon, lat, *above).to_value(u.rad)
        right = up + np.sign(np.linalg.det(wcs.pixel_scale_matrix)) * np.pi / 2
    reach = np.arctan(np.radians(pixels / 2 * pixel_scale / 3600))
    ends = [offset_by(lon, lat, angle, reach) for angle in (right, right + np.pi, up, up + np.pi)]
    return _Grids(
        np.stack([ra, *(end[0].degree for end in ends)]),
        np.stack([dec, *(end[1].degree for end in ends)]),
        pixels,
    )


def _empty(grids: _Grids, bands: int) -> tuple[Image, Mask]:
    """Return cutouts (m, bands, pixels, pixels) without light, and that all of their pixels are missing."""
    shape = (grids.ra.shape[1], bands, grids.pixels, grids.pixels)
    return np.zeros(shape, np.float32), np.ones(shape, bool)


def _fill(cutouts: Image, missing: Mask, frames: Sequence[Frame], grids: _Grids) -> None:
    """Fill what is missing in cutouts (m, bands, pixels, pixels) from frames of the same bands, in place."""
    for band, (image, wcs) in enumerate(frames):
        rows = np.flatnonzero(missing[:, band].any((1, 2)))
        stamps, absent = _resample(image, wcs, grids.select(rows))
        fill = missing[rows, band] & ~absent
        cutouts[rows, band] = np.where(fill, stamps, cutouts[rows, band])
        missing[rows, band] &= absent


def _resample(image: Image, wcs: WCS, grids: _Grids) -> tuple[Image, Mask]:
    """Interpolate a frame on grids: nanomaggies per pixel of the grids, and which are missing, (m, y, x)."""
    m, pixels = grids.ra.shape[1], grids.pixels
    stamps, missing = np.zeros((m, pixels, pixels), np.float32), np.ones((m, pixels, pixels), bool)
    points = np.stack(wcs.world_to_pixel_values(grids.ra, grids.dec))  # (2, 5, m)
    middle = points[:, 0]
    matrix = np.stack([points[:, 1] - points[:, 2], points[:, 3] - points[:, 4]], axis=1) / pixels
    reach = pixels / 2 * np.abs(matrix).sum(1)
    size = np.array(image.shape[::-1])[:, None]
    on_frame = ((middle + reach > -0.5) & (middle - reach < size - 0.5)).all(0)  # false for NaN
    rows = np.flatnonzero(on_frame)
    for start in range(0, len(rows), GALAXIES_AT_ONCE):
        some = rows[start : start + GALAXIES_AT_ONCE]
        stamps[some], missing[some] = _interpolate(image, middle[:, some], matrix[:, :, some], pixels)
    return stamps, missing


def _interpolate(image: Image, middle: Array, matrix: Array, pixels: int) -> tuple[Image, Mask]:
    """Interpolate a frame on linear grids.

    Parameters
    ----------
    image : ndarray, shape (rows, columns)
    middle : ndarray, shape (2, m)
        Frame's x and y at the middle of each stamp.
    matrix : ndarray, shape (2, 2, m)
        Steps along the frame's x and y for a step along the stamp's x and y.
    pixels : int

    Returns
    -------
    stamps, missing : ndarray, shape (m, pixels, pixels)
    """
    m, (height, width) = middle.shape[1], image.shape
    step = np.arange(pixels) - (pixels - 1) / 2
    x, y = (
        middle[i][:, None, None]
        + matrix[i, 0][:, None, None] * step
        + matrix[i, 1][:, None, None] * step[:, None]
        for i in (0, 1)
    )
    side = int(np.ceil(pixels * np.abs(matrix).sum(1).max())) + 2 * MARGIN
    left, bottom = np.floor(middle).astype(int) - side // 2
    # Beyond the edge of the frame its last pixels are repeated, so that the spline holds up to the edge.
    columns = (left[:, None] + np.arange(side)).clip(0, width - 1)
    lines = (bottom[:, None] + np.arange(side)).clip(0, height - 1)
    windows = image[lines[:, :, None], columns[:, None, :]]
    coordinates = _PixelTable(
        (x - left[:, None, None]).reshape(-1, pixels),
        (y - bottom[:, None, None] + side * np.arange(m)[:, None, None]).reshape(-1, pixels),
    )
    missing = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    if (bad := ~np.isfinite(windows)).any():
        windows[bad] = 0
        missing |= _at_pixels(bad.astype(np.float32), coordinates, "bilinear").reshape(x.shape) > 0
    area = np.abs(np.linalg.det(matrix.transpose(2, 0, 1)))[:, None, None]
    stamps = _at_pixels(windows, coordinates, "bicubic").reshape(x.shape) * area
    stamps[missing] = 0
    return stamps.astype(np.float32), missing


def _at_pixels(windows: Image, coordinates: _PixelTable, order: str) -> Array:
    """Interpolate windows (m, side, side) on top of each other at pixels of that pile."""
    side = windows.shape[-1]
    values: Array = reproject_interp(
        (windows.reshape(-1, side), _PILE),
        coordinates,
        shape_out=coordinates.x.shape,
        order=order,
        roundtrip_coords=False,
        return_footprint=False,
    )
    return values


class _PixelTable(BaseLowLevelWCS):  # type: ignore[misc]  # astropy has no types
    """A WCS for `reproject` whose "world" is the pixels of a pile of windows, looked up in a table."""

    pixel_n_dim = world_n_dim = 2
    world_axis_physical_types = (None, None)
    world_axis_units = ("pix", "pix")
    world_axis_object_components = (("x", 0, "value"), ("y", 0, "value"))
    world_axis_object_classes = {axis: (u.Quantity, (), {"unit": u.pix}) for axis in "xy"}  # noqa: RUF012

    def __init__(self, x: Array, y: Array) -> None:
        self.x, self.y = x, y

    def pixel_to_world_values(self, *pixel: Any) -> tuple[Array, Array]:
        """Return x and y in the pile of whole pixels of the stamps."""
        column, line = (np.asarray(axis).astype(int) for axis in pixel)
        return self.x[line, column], self.y[line, column]

    def world_to_pixel_values(self, *world: Any) -> tuple[Array, Array]:
        """Return x and y as they are: of the pile, pixels and world are the same."""
        return world[0], world[1]


_PILE = _PixelTable(np.empty((0, 0)), np.empty((0, 0)))


# --- Which field a galaxy is cut from -------------------------------------------------


def plan_fields(
    ra: ArrayLike,
    dec: ArrayLike,
    footprints: Mapping[Field, Footprint],
    *,
    pixels: int = 64,
    pixel_scale: float = PIXEL,
    rowc: ArrayLike | None = None,
    colc: ArrayLike | None = None,
    avoid: Sequence[Field] = (),
) -> tuple[list[FieldPlan], Rows]:
    """Decide which field each galaxy is cut from, and which others complete it.

    Parameters
    ----------
    ra, dec : array-like, shape (n,)
        Degrees.
    footprints : mapping of Field to (WCS, shape)
        See `read_footprints`.
    pixels, pixel_scale
        Side of the stamps, and of their pixels in arcsec.
    rowc, colc : array-like, shape (n,)
        The catalogue's pixel positions, where known: a field whose WCS agrees with them goes first.
    avoid : sequence of Field
        Fields to be used for galaxies on no other frame only.

    Returns
    -------
    plans : list of FieldPlan, in the order of fields
        A galaxy is cut from the field where it lies farthest from the edge. Others complete stamps that come
        close to it, the one that is near most of them first.
    off : ndarray of int
        Rows of galaxies that lie on no frame.

    Raises
    ------
    DataError
        A position is not a finite number.
    """
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    if not (fine := np.isfinite(ra) & np.isfinite(dec)).all():
        raise DataError(f"row {np.argmin(fine)}: ra and dec must be finite; {(~fine).sum()} rows are not")
    reach = pixels * pixel_scale / PIXEL / np.sqrt(2) + BAND_OFFSET
    fields = sorted(footprints)
    pairs = _covering(ra, dec, [footprints[field] for field in fields], reach)
    avoided = np.isin(pairs.field, [i for i, field in enumerate(fields) if field in avoid])
    disagrees = np.zeros(len(avoided), bool)
    if rowc is not None and colc is not None:
        catalogue = (np.asarray(values, float)[pairs.galaxy] for values in (colc, rowc))
        disagrees = _pixel_offset(pairs.x, pairs.y, *catalogue) > POSITION_TOLERANCE
    order = np.lexsort((-pairs.inside, disagrees, avoided, pairs.inside < 0, pairs.galaxy))
    galaxy, field, inside = pairs.galaxy[order], pairs.field[order], pairs.inside[order]
    first = np.flatnonzero(np.diff(galaxy, prepend=-1))
    best = np.repeat(first, np.diff(first, append=len(galaxy)))  # of each pair's galaxy
    is_best = best == np.arange(len(galaxy))
    use = (inside[best] >= 0) & (is_best | (inside[best] < reach) & ~avoided[order])

    plans = []
    by_home = np.flatnonzero(use)[np.argsort(field[best[use]], kind="stable")]
    for group in _split(by_home, field[best[by_home]]):
        further = group[~is_best[group]]
        further = further[np.argsort(field[further], kind="stable")]
        completing = [(fields[field[part[0]]], galaxy[part]) for part in _split(further, field[further])]
        completing.sort(key=lambda other: -len(other[1]))
        plans.append(FieldPlan(fields[field[best[group[0]]]], galaxy[group[is_best[group]]], completing))
    return plans, np.setdiff1d(np.arange(len(ra)), galaxy[is_best & use])


def _split(values: Rows, keys: Rows) -> list[Rows]:
    """Split values where their keys, which are sorted, change."""
    return np.split(values, np.flatnonzero(np.diff(keys)) + 1) if len(values) else []


class _Pairs(NamedTuple):
    """Galaxies and frames that are near each other."""

    galaxy: Rows
    field: Rows
    x: Array  # of the galaxy on the frame
    y: Array
    inside: Array  # pixels to the nearest edge, negative outside


def _covering(ra: Array, dec: Array, footprints: Sequence[Footprint], reach: float) -> _Pairs:
    """Find the galaxies on each frame and up to so many pixels beyond its edge."""
    tree = KDTree(_unit_vectors(ra, dec))
    nothing = np.empty(0)
    # An empty start, so that there is something to put together without any frame.
    found = [_Pairs(nothing.astype(np.intp), nothing.astype(np.intp), nothing, nothing, nothing)]
    for i, (wcs, shape) in enumerate(footprints):
        sky = wcs.pixel_to_world_values(*corners(shape))
        radius = separation((sky[0][:1], sky[1][:1]), sky).max() / 3600 + reach * PIXEL / 3600
        chord = 2 * np.sin(np.radians(radius) / 2)
        near = np.array(tree.query_ball_point(_unit_vectors(sky[0][0], sky[1][0]), chord), np.intp)
        x, y = wcs.world_to_pixel_values(ra[near], dec[near])
        inside = 0.5 + np.minimum.reduce([x, shape[1] - 1 - x, y, shape[0] - 1 - y])
        keep = inside > -reach
        found.append(_Pairs(near[keep], np.full(keep.sum(), i), x[keep], y[keep], inside[keep]))
    return _Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Array:
    """Return points on the unit sphere, shape (..., 3)."""
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def _pixel_offset(x: Array, y: Array, colc: Array, rowc: Array) -> Array:
    """Return by how many pixels positions differ from the catalogue's; NaN where it has none.

    The survey counts pixels from the corner of the first, a WCS here from its centre.
    """
    return np.asarray(np.hypot(x - (colc - 0.5), y - (rowc - 0.5)))


# --- Field by field -------------------------------------------------------------------


def cut_fields(
    ra: ArrayLike,
    dec: ArrayLike,
    index: Mapping[Field, Mapping[str, Path]],
    bands: Sequence[str],
    *,
    pixels: int = 64,
    pixel_scale: float = PIXEL,
    north_up: bool = False,
    rowc: ArrayLike | None = None,
    colc: ArrayLike | None = None,
    max_workers: int = 2,
) -> Iterator[FieldCutouts]:
    """Cut galaxies field by field, in the order of fields; the memory does not grow with their number.

    Parameters
    ----------
    ra, dec : array-like, shape (n,)
        Degrees. To go on after a break, pass the remaining galaxies only.
    index : mapping of Field to files by band
        See `photoz_lit.data.sdss.frames.find_frames`.
    bands : sequence of str
        Bands of the cutouts, in their order.
    pixels, pixel_scale, north_up
        See `cut`.
    rowc, colc : array-like, shape (n,)
        The catalogue's pixel positions in band r, or the first band where r is absent; NaN where unknown.
        They belong to the catalogue's own field, which must be among the frames: a galaxy that no WCS brings
        within 3 pixels of them is not cut. The WCS of frames across RA 0 can be wrong by 100-180 pixels.
    max_workers : int
        Threads that read frames ahead.

    Yields
    ------
    FieldCutouts
        Every galaxy is in one of them; first those that lie on no frame. One that cannot be cut has a fault.

    Raises
    ------
    DataError
        A position is not a finite number.
    """
    ra, dec = np.asarray(ra, float), np.asarray(dec, float)
    footprints = read_footprints(index, bands, max_workers=max_workers)
    wrong = check_footprints(footprints)
    plans, off = plan_fields(
        ra,
        dec,
        footprints,
        pixels=pixels,
        pixel_scale=pixel_scale,
        rowc=rowc,
        colc=colc,
        avoid=list(wrong),
    )
    shape = (len(bands), pixels, pixels)
    yield from uncut(None, off, shape, "on none of the frames")

    pool = ThreadPoolExecutor(max_workers)
    try:
        reader = _FrameReader(index, bands, pool)
        for i, plan in enumerate(plans):
            reader.request([upcoming.field for upcoming in plans[i : i + 2] if upcoming.field not in wrong])
            try:
                if plan.field in wrong:
                    raise DataError(f"{plan.field}: {wrong[plan.field]}")
                frames = reader.frames(plan.field)
            except DataError as error:
                yield from uncut(plan.field, plan.rows, shape, str(error))
                continue
            wcs = frames[reference_band(bands)][1]
            rows = plan.rows
            grids = _make_grids(ra[rows], dec[rows], pixels, pixel_scale, None if north_up else wcs)
            cutouts, missing = _cut_plan(plan, frames, reader, grids)
            faults = [""] * len(rows)
            if rowc is not None and colc is not None:
                pixel = wcs.world_to_pixel_values(ra[rows], dec[rows])
                faults = _check_pixels(*pixel, *(np.asarray(values, float)[rows] for values in (colc, rowc)))
            bad = np.array([fault != "" for fault in faults])
            cutouts[bad], missing[bad] = 0, True
            yield FieldCutouts(plan.field, rows, cutouts, _missing_fraction(missing), faults)
    finally:
        pool.shutdown(cancel_futures=True)


def uncut(field: Field | None, rows: Rows, shape: tuple[int, int, int], fault: str) -> Iterator[FieldCutouts]:
    """Yield galaxies that cannot be cut, with the reason; some at a time, since they take memory."""
    for start in range(0, len(rows), UNCUT_AT_ONCE):
        some = rows[start : start + UNCUT_AT_ONCE]
        n = len(some)
        yield FieldCutouts(field, some, np.zeros((n, *shape), np.float32), np.ones(n), [fault] * n)


def _cut_plan(
    plan: FieldPlan, frames: Mapping[str, Frame], reader: _FrameReader, grids: _Grids
) -> tuple[Image, Mask]:
    """Cut the galaxies of a field and complete those across its edge, reading only fields that are needed."""
    cutouts, missing = _empty(grids, len(frames))
    _fill(cutouts, missing, list(frames.values()), grids)
    for field, rows in plan.completing:
        some = np.searchsorted(plan.rows, rows)
        some = some[missing[some].any((1, 2, 3))]
        if len(some) == 0:
            continue
        try:
            others = list(reader.frames(field).values())
        except DataError as error:
            log.warning("%d cutouts of %s are not completed: %s", len(some), plan.field, error)
            continue
        part, absent = cutouts[some], missing[some]
        _fill(part, absent, others, grids.select(some))
        cutouts[some], missing[some] = part, absent
    return cutouts, missing


def _check_pixels(x: Array, y: Array, colc: Array, rowc: Array) -> list[str]:
    """Compare positions on a frame with the catalogue's and return what is wrong; empty where nothing is."""
    return [
        f"the frame's WCS puts it {offset:.1f} pixels from the catalogue's rowc, colc"
        if offset > POSITION_TOLERANCE
        else ""
        for offset in _pixel_offset(x, y, colc, rowc)
    ]


class _FrameReader:
    """Reads the frames of fields in threads, and keeps the latest fields."""

    def __init__(
        self, index: Mapping[Field, Mapping[str, Path]], bands: Sequence[str], pool: ThreadPoolExecutor
    ) -> None:
        self.index, self.bands, self.pool = index, bands, pool
        self.latest: OrderedDict[Field, dict[str, Future[Frame]]] = OrderedDict()

    def request(self, fields: Sequence[Field]) -> None:
        """Start to read fields, unless they are here, and let go of those not asked for the longest."""
        for field in fields:
            if field not in self.latest and not self.absent(field):
                files = self.index[field]
                self.latest[field] = {band: self.pool.submit(read_frame, files[band]) for band in self.bands}
            if field in self.latest:
                self.latest.move_to_end(field)
        while len(self.latest) > FIELDS_IN_MEMORY:
            for future in self.latest.popitem(last=False)[1].values():
                future.cancel()

    def absent(self, field: Field) -> list[str]:
        """Return the bands of which a field has no frame."""
        return [band for band in self.bands if band not in self.index[field]]

    def frames(self, field: Field) -> dict[str, Frame]:
        """Return the frames of a field by band, when they are read.

        Raises
        ------
        DataError
            A band is missing or unreadable, or its WCS cannot be right.
        """
        if absent := self.absent(field):
            name = FrameName(absent[0], *field).filename()
            raise DataError(f"{field}: no frame of band {absent[0]} in the folder ({name})")
        self.request([field])
        frames = {}
        for band, future in self.latest[field].items():
            try:
                frames[band] = future.result()
            except DataError as error:
                raise DataError(f"{field}: band {band} cannot be used: {error}") from error
        reference = frames[reference_band(self.bands)][1]
        for band, (image, wcs) in frames.items():
            if fault := check_wcs(wcs, image.shape) or _check_offset(wcs, reference, image.shape):
                raise DataError(f"{field}: band {band} cannot be used: {self.index[field][band]}: {fault}")
        return frames


def _check_offset(wcs: WCS, reference: WCS, shape: tuple[int, int]) -> str:
    """Return what is wrong where a band's frame lies too far from that of the reference band, or nothing."""
    x, y = (axis[:1] for axis in corners(shape))
    at = reference.world_to_pixel_values(*wcs.pixel_to_world_values(x, y))
    offset = float(np.hypot(at[0] - x, at[1] - y)[0])
    return "" if offset < BAND_OFFSET else f"the WCS lies {offset:.0f} pixels from the reference band's"
