"""Where fields lie on the sky, whether their WCS can be right, and which field each galaxy is cut from."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.coordinates import angular_separation
from astropy.wcs import WCS
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from photoz_lit.data.sdss.frames import Array, Field, Footprint, Index, footprint
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

Rows = NDArray[np.intp]

PIXEL = 0.396  # arcsec
SCALE_TOLERANCE = 0.02  # relative
ROUND_TRIP = 0.01  # arcsec
FIELD_STEP = 1361  # rows from a field to the next of the same run and camera column
# Pixels by which a frame across RA 0 may lie off its neighbours' line. The archive's fault is 100-180 pixels;
# frames much further off are simply elsewhere.
MISPLACED = (50.0, 500.0)
POSITION_TOLERANCE = 3.0  # pixels between the catalogue's rowc, colc and a frame's WCS
BAND_OFFSET = 20.0  # pixels; the frames of a field's bands start up to about ten rows apart


@dataclass(frozen=True)
class Stamps:
    """How galaxies are cut: north up and east left, or along the rows and columns of the frame."""

    bands: str  # one letter each
    pixels: int = 64  # side of a stamp
    pixel_scale: float = PIXEL  # arcsec; much coarser pixels than the frames' are sampled, not averaged
    north_up: bool = False

    @property
    def reference(self) -> str:
        """The band that gives the stamps their orientation and the catalogue's pixels their meaning."""
        return "r" if "r" in self.bands else self.bands[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a galaxy's cutout."""
        return len(self.bands), self.pixels, self.pixels

    @property
    def reach(self) -> float:
        """How far a turned stamp reaches from its middle, with what bands may lie apart, frame pixels."""
        return self.pixels * self.pixel_scale / PIXEL / 2**0.5 + BAND_OFFSET


class Positions(NamedTuple):
    """Where galaxies are, (n,): on the sky, and on the reference band's frame of their own field."""

    ra: Array  # deg
    dec: Array
    x: Array  # pixels from the middle of the first, NaN where the catalogue has none
    y: Array

    @classmethod
    def of(
        cls, ra: ArrayLike, dec: ArrayLike, rowc: ArrayLike = np.nan, colc: ArrayLike = np.nan
    ) -> Positions:
        """Put together what the catalogue says; it counts pixels from the corner of the first."""
        sky = (np.asarray(values, float) for values in (ra, dec))
        return cls(*np.broadcast_arrays(*sky, *(np.subtract(values, 0.5) for values in (colc, rowc))))


def read_footprints(index: Index, stamps: Stamps, pool: Executor) -> dict[Field, Footprint]:
    """Read where fields lie, by the reference band or the next that can be read; leave out those without."""

    def read(files: Mapping[str, Path]) -> Footprint | None:
        for band in sorted(stamps.bands, key=lambda band: band != stamps.reference):
            if band not in files:
                continue
            try:
                return footprint(files[band])
            except DataError as error:
                log.warning("%s", error)
        return None

    found = zip(index, pool.map(read, index.values()), strict=True)
    return {field: place for field, place in found if place is not None}


def check_footprints(footprints: Mapping[Field, Footprint]) -> dict[Field, str]:
    """Say what is wrong with fields whose WCS cannot be right, by itself or by its neighbours across RA 0."""
    return {
        field: f"{field}: {fault}"
        for field, place in footprints.items()
        if (fault := check_wcs(*place) or _misplaced(field, footprints))
    }


def check_wcs(wcs: WCS, shape: tuple[int, int], reference: WCS | None = None) -> str:
    """Say what is wrong with a frame's WCS: scale, way to the sky and back, place by the reference band's."""
    x, y = _corners(shape)
    ra, dec = wcs.pixel_to_world_values(x, y)
    scales = [_separation((ra, dec), wcs.pixel_to_world_values(*end)) for end in ((x + 1, y), (x, y + 1))]
    if not (np.abs(np.array(scales) / PIXEL - 1) < SCALE_TOLERANCE).all():
        return f"the WCS has pixels of {np.min(scales):.4f} to {np.max(scales):.4f} arcsec, not {PIXEL}"
    back = wcs.pixel_to_world_values(*wcs.world_to_pixel_values(ra % 360, dec))
    if not (_separation((ra, dec), back) < ROUND_TRIP).all():
        return f"the WCS does not lead from the sky back to the same position within {ROUND_TRIP} arcsec"
    if reference is not None and not (off := _distance(wcs, reference, shape)) < BAND_OFFSET:
        return f"the WCS lies {off:.0f} pixels from the reference band's"
    return ""


def _corners(shape: tuple[int, int]) -> tuple[Array, Array]:
    """Return x and y of a frame's middle and corners."""
    top, right = shape[0] - 1, shape[1] - 1
    return np.array([right / 2, 0, right, 0, right]), np.array([top / 2, 0, 0, top, top])


def _separation(first: tuple[Array, Array], second: tuple[Array, Array]) -> Array:
    """Return the angle between positions in degrees, arcsec; RA counts modulo 360."""
    angle = angular_separation(*np.radians(first), *np.radians(second))
    return np.asarray(np.degrees(angle) * 3600)


def _distance(wcs: WCS, reference: WCS, shape: tuple[int, int], rows: int = 0) -> float:
    """Return how far the middle of a frame lies from where a reference so many rows on has it, pixels."""
    x, y = (axis[:1] for axis in _corners(shape))
    at = reference.world_to_pixel_values(*wcs.pixel_to_world_values(x, y))
    return float(np.hypot(at[0] - x, at[1] - y + rows)[0])


def _spans_zero(wcs: WCS, shape: tuple[int, int]) -> bool:
    return bool(np.ptp(wcs.pixel_to_world_values(*_corners(shape))[0] % 360) > 180)


def _misplaced(field: Field, footprints: Mapping[Field, Footprint]) -> str:
    """Compare the WCS of a frame across RA 0 with where the fields before and after it place it."""
    wcs, shape = footprints[field]
    if not _spans_zero(wcs, shape):
        return ""
    for step in (-1, 1):
        neighbour = field._replace(field=field.field + step)
        if neighbour not in footprints or _spans_zero(*footprints[neighbour]):
            continue
        off = _distance(wcs, footprints[neighbour][0], shape, step * FIELD_STEP)
        if MISPLACED[0] < off < MISPLACED[1]:
            return f"the WCS, across RA 0, lies {off:.0f} pixels from where that of {neighbour} places it"
    return ""


class FieldPlan(NamedTuple):
    """The galaxies to be cut from one field, and the fields that complete those across its edge."""

    field: Field
    rows: Rows
    offset: Array  # pixels between the field's WCS and the catalogue; NaN where there is nothing to compare
    completing: list[tuple[Field, Rows]]


def plan_fields(
    galaxies: Positions, footprints: Mapping[Field, Footprint], reach: float, avoid: Container[Field] = ()
) -> tuple[list[FieldPlan], Rows]:
    """Plan by field, in order, what is cut from it; return the rows of galaxies on no frame too.

    A galaxy is cut from the field where it lies farthest from the edge; one whose WCS agrees with the
    catalogue's pixels goes first, and those to avoid serve only galaxies on no other. Where the galaxy's own
    field is avoided, its pixels say nothing of others. Where a stamp's reach (pixels) comes close to the
    edge, other fields complete it, those first that are near most stamps.
    """
    if not (fine := np.isfinite(galaxies.ra) & np.isfinite(galaxies.dec)).all():
        raise DataError(f"row {np.argmin(fine)}: ra and dec must be finite; {(~fine).sum()} rows are not")
    fields = sorted(footprints)
    pairs = _covering(galaxies, [footprints[field] for field in fields], reach)
    avoided = np.isin(pairs.field, [i for i, field in enumerate(fields) if field in avoid])
    offset = np.hypot(pairs.x - galaxies.x[pairs.galaxy], pairs.y - galaxies.y[pairs.galaxy])
    own_is_avoided = np.isin(pairs.galaxy, pairs.galaxy[avoided & (offset <= POSITION_TOLERANCE)])
    offset[own_is_avoided & ~avoided] = np.nan
    order = np.lexsort((-pairs.inside, offset > POSITION_TOLERANCE, avoided, pairs.inside < 0, pairs.galaxy))
    galaxy, field, inside = pairs.galaxy[order], pairs.field[order], pairs.inside[order]
    first = np.flatnonzero(np.diff(galaxy, prepend=-1))
    best = np.repeat(first, np.diff(first, append=len(galaxy)))  # of each pair's galaxy
    is_best = best == np.arange(len(galaxy))
    use = (inside[best] >= 0) & (is_best | (inside[best] < reach))

    plans = []
    by_home = np.flatnonzero(use)[np.argsort(field[best[use]], kind="stable")]
    for group in _split(by_home, field[best[by_home]]):
        home, further = group[is_best[group]], group[~is_best[group]]
        further = further[np.argsort(field[further], kind="stable")]
        completing = [(fields[field[part[0]]], galaxy[part]) for part in _split(further, field[further])]
        completing.sort(key=lambda other: -len(other[1]))
        plans.append(FieldPlan(fields[field[home[0]]], galaxy[home], offset[order][home], completing))
    return plans, np.setdiff1d(np.arange(len(fine)), galaxy[is_best & use])


def _split(values: Rows, keys: Rows) -> list[Rows]:
    return np.split(values, np.flatnonzero(np.diff(keys)) + 1) if len(values) else []


class _Pairs(NamedTuple):
    galaxy: Rows
    field: Rows
    x: Array  # of the galaxy on the frame
    y: Array
    inside: Array  # pixels to the nearest edge, negative outside


def _covering(galaxies: Positions, footprints: Sequence[Footprint], reach: float) -> _Pairs:
    """Find the galaxies on each frame and up to so many pixels beyond its edge."""
    tree = KDTree(_unit_vectors(galaxies.ra, galaxies.dec))
    nothing, none = np.empty(0), np.empty(0, np.intp)
    found = [_Pairs(none, none, nothing, nothing, nothing)]  # something to put together without any frame
    for i, (wcs, shape) in enumerate(footprints):
        sky = wcs.pixel_to_world_values(*_corners(shape))
        radius = _separation((sky[0][:1], sky[1][:1]), sky).max() / 3600 + reach * PIXEL / 3600
        chord = 2 * np.sin(np.radians(radius) / 2)
        near = np.array(tree.query_ball_point(_unit_vectors(sky[0][0], sky[1][0]), chord), np.intp)
        x, y = wcs.world_to_pixel_values(galaxies.ra[near], galaxies.dec[near])
        inside = 0.5 + np.minimum.reduce([x, shape[1] - 1 - x, y, shape[0] - 1 - y])
        keep = inside > -reach
        found.append(_Pairs(near[keep], np.full(keep.sum(), i), x[keep], y[keep], inside[keep]))
    return _Pairs(*(np.concatenate(column) for column in zip(*found, strict=True)))


def _unit_vectors(ra: ArrayLike, dec: ArrayLike) -> Array:
    lon, lat = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)
