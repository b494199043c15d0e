"""Cutouts of galaxies from the survey's frames: one tangent grid a galaxy, the same in all bands.

The catalogue position is at the middle of the stamp: between the four middle pixels of an even one, as the
simulated survey draws them. Stamps are (y, x) as the frames are, and have their parity, which shows the sky
as seen from inside the sphere.

Frames are interpolated with cubic splines, which conserve surface brightness; the ratio of pixel areas makes
that flux. Over a stamp, the map from one tangent plane to another is linear to 1e-5 of a pixel (64 pixels at
the edge of a frame), so that the frame's WCS is asked at five points a galaxy.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import angular_separation, offset_by, position_angle
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from photoz_lit.data.sdss.fields import (
    POSITION_TOLERANCE,
    FieldPlan,
    Positions,
    Rows,
    Stamps,
    check_footprints,
    check_wcs,
    plan_fields,
    read_footprints,
)
from photoz_lit.data.sdss.frames import Array, Field, Footprint, Frame, Image, Index, read_frame
from photoz_lit.errors import DataError

log = logging.getLogger(__name__)

Mask = NDArray[np.bool_]

MARGIN = 12  # pixels around a stamp's place on the frame; the spline's ringing falls by 0.27 a pixel
FIELDS_IN_MEMORY = 6  # of 61 MB in five bands: this one, the next, those that complete this one
UNCUT_AT_ONCE = 1024  # galaxies that cannot be cut
NAMED = 3  # frames that are named to a galaxy on none of them


@dataclass(frozen=True)
class FieldCutouts:
    """The cutouts of m galaxies of one field."""

    field: Field | None  # None for galaxies that lie on no frame
    rows: Rows  # among the positions that were given
    cutouts: Image  # (m, bands, pixels, pixels), nanomaggies per pixel; zero where missing
    missing_fraction: Array  # share of the stamp that no frame covers, in the band where it is largest
    faults: list[str]  # why a galaxy could not be cut; empty where it could
    incomplete: list[str]  # why a neighbouring field could not fill what is missing; empty where none could


def lay_grids(ra: Array, dec: Array, stamps: Stamps, wcs: WCS) -> Array:
    """Lay tangent grids around positions (m,), with the orientation and parity of a WCS unless north is up.

    Returns ra and dec, degrees, of five points on each, (2, 5, m): the middle, and half a stamp from it along
    x, -x, y, -y.
    """
    lon, lat = np.radians(ra), np.radians(dec)
    up, right = np.zeros_like(lon), np.full_like(lon, -np.pi / 2)
    if not stamps.north_up:
        x, y = wcs.world_to_pixel_values(ra, dec)
        above = np.radians(wcs.pixel_to_world_values(x, y + stamps.pixels / 2))
        up = position_angle(lon, lat, *above).to_value(u.rad)
        right = up + np.sign(np.linalg.det(wcs.pixel_scale_matrix)) * np.pi / 2
    reach = np.arctan(np.radians(stamps.pixels / 2 * stamps.pixel_scale / 3600))
    ends = [offset_by(lon, lat, angle, reach) for angle in (right, right + np.pi, up, up + np.pi)]
    return np.stack([(ra, dec), *((end[0].degree, end[1].degree) for end in ends)], axis=1)


def fill(cutouts: Image, missing: Mask, frames: Sequence[Frame], grids: Array) -> None:
    """Fill what is missing in cutouts (m, bands, pixels, pixels) from frames of the same bands, in place."""
    pixels = cutouts.shape[-1]
    step = np.arange(pixels) - (pixels - 1) / 2
    for band, (image, wcs) in enumerate(frames):
        points = np.stack(wcs.world_to_pixel_values(*grids))  # (2, 5, m)
        # Steps along the frame's x and y for a step along the stamp's x and y.
        matrices = np.stack([points[:, 1] - points[:, 2], points[:, 3] - points[:, 4]], axis=1) / pixels
        for i in np.flatnonzero(missing[:, band].any((1, 2))):
            middle, matrix = points[:, 0, i], matrices[:, :, i]
            x, y = (middle[k] + matrix[k, 0] * step + matrix[k, 1] * step[:, None] for k in (0, 1))
            light, absent = _interpolate(image, x, y)
            if absent.all():
                continue
            new = missing[i, band] & ~absent
            cutouts[i, band][new] = light[new] * np.abs(np.linalg.det(matrix))
            missing[i, band] &= absent


def _interpolate(image: Image, x: Array, y: Array) -> tuple[Image, Mask]:
    """Interpolate a frame at pixels (rows, columns) of a stamp; say which it does not have."""
    height, width = image.shape
    absent = ~((x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5))  # true for NaN
    if absent.all():
        return np.zeros(x.shape, np.float32), absent
    left, bottom = (int(np.floor(at.min())) - MARGIN for at in (x, y))
    right, top = (int(np.ceil(at.max())) + MARGIN + 1 for at in (x, y))
    # Beyond the edge of the frame its last pixels are repeated, so that the spline holds up to the edge.
    window = image[
        np.arange(bottom, top).clip(0, height - 1)[:, None], np.arange(left, right).clip(0, width - 1)
    ]
    at = (y - bottom, x - left)
    if (bad := ~np.isfinite(window)).any():
        window[bad] = 0
        absent |= map_coordinates(bad.astype(np.float32), at, order=1) > 0
    return map_coordinates(window, at, order=3, mode="mirror"), absent


def cut_fields(galaxies: Positions, index: Index, stamps: Stamps, workers: int = 2) -> Iterator[FieldCutouts]:
    """Cut galaxies field by field, in the order of fields; the memory does not grow with their number.

    Galaxies of a field that lacks a band, or whose frames cannot be used, are cut from another that shows
    them, if there is one. A galaxy that no WCS brings within 3 pixels of where the catalogue has it is not
    cut: the WCS of frames across RA 0 can be wrong by 100-180 pixels. The catalogue's own field must be among
    the frames. Every galaxy is in one of what is yielded; one that cannot be cut has a fault.
    """
    rows = np.arange(len(galaxies.ra))
    pool = ThreadPoolExecutor(workers)
    try:
        footprints = read_footprints(index, stamps, pool)
        faults = check_footprints(footprints)
        for field, files in index.items():
            if absent := [band for band in stamps.bands if band not in files]:
                name = field.filename(absent[0])
                faults[field] = f"{field}: no frame of band {absent[0]} in the folder ({name})"
        reader = _FrameReader(index, stamps, faults, pool)
        while len(rows):
            avoid, again = set(faults), [np.empty(0, np.intp)]
            rest = Positions(*(values[rows] for values in galaxies))
            plans, off = plan_fields(rest, footprints, stamps.reach, avoid)
            yield from uncut(None, rows[off], stamps, _elsewhere(footprints, rest, off))
            for i, plan in enumerate(plans):
                reader.request([upcoming.field for upcoming in plans[i : i + 2]])
                mine = rows[plan.rows]
                frames = reader.frames(plan.field)
                if frames is not None:
                    yield _cut_plan(plan, mine, galaxies, frames, reader)
                elif plan.field in avoid:  # there is no other
                    yield from uncut(plan.field, mine, stamps, faults[plan.field])
                else:
                    again.append(mine)
            rows = np.concatenate(again)
    finally:
        pool.shutdown(cancel_futures=True)


def _elsewhere(footprints: Mapping[Field, Footprint], galaxies: Positions, rows: Rows) -> str:
    """Say which frames are nearest to the first of galaxies that are on none."""
    apart = {}
    for field, (wcs, shape) in footprints.items() if len(rows) else ():
        ra, dec = (float(axis) for axis in wcs.pixel_to_world_values(shape[1] / 2, shape[0] / 2))
        here = np.radians((galaxies.ra[rows[0]], galaxies.dec[rows[0]]))
        distance = np.degrees(angular_separation(*here, *np.radians((ra, dec))))
        apart[field] = float(distance), f"{field}, {distance:.2f} deg away at {ra:.3f} {dec:+.3f}"
    nearest = "; ".join(words for _, words in sorted(apart.values())[:NAMED])
    return f"on none of the frames: bring those that show it; the nearest here are {nearest or 'unreadable'}"


def uncut(field: Field | None, rows: Rows, stamps: Stamps, fault: str) -> Iterator[FieldCutouts]:
    """Yield galaxies that cannot be cut, with the reason; some at a time, since they take memory."""
    for start in range(0, len(rows), UNCUT_AT_ONCE):
        n = len(some := rows[start : start + UNCUT_AT_ONCE])
        nothing = np.zeros((n, *stamps.shape), np.float32)
        yield FieldCutouts(field, some, nothing, np.ones(n), [fault] * n, [""] * n)


def _cut_plan(
    plan: FieldPlan, rows: Rows, galaxies: Positions, frames: list[Frame], reader: "_FrameReader"
) -> FieldCutouts:
    """Cut the galaxies of a field and complete those across its edge, reading only fields that are needed."""
    stamps = reader.stamps
    wcs = frames[stamps.bands.index(stamps.reference)][1]
    grids = lay_grids(galaxies.ra[rows], galaxies.dec[rows], stamps, wcs)
    cutouts = np.zeros((len(rows), *stamps.shape), np.float32)
    missing, incomplete = np.ones(cutouts.shape, bool), [""] * len(rows)
    fill(cutouts, missing, frames, grids)
    for field, theirs in plan.completing:
        some = np.searchsorted(plan.rows, theirs)
        some = some[missing[some].any((1, 2, 3))]
        if len(some) == 0:
            continue
        if (others := reader.frames(field)) is None:
            for i in some:
                incomplete[i] = reader.faults[field]
            continue
        part, absent = cutouts[some], missing[some]
        fill(part, absent, others, grids[:, :, some])
        cutouts[some], missing[some] = part, absent
    wrong = plan.offset > POSITION_TOLERANCE
    words = "the frame's WCS puts it {:.1f} pixels from the catalogue's rowc, colc"
    faults = [words.format(off) if bad else "" for off, bad in zip(plan.offset, wrong, strict=True)]
    cutouts[wrong], missing[wrong] = 0, True
    return FieldCutouts(plan.field, rows, cutouts, missing.mean((2, 3)).max(1), faults, incomplete)


class _FrameReader:
    """Reads the frames of fields in threads, and keeps the latest fields; notes those that cannot be used."""

    def __init__(self, index: Index, stamps: Stamps, faults: dict[Field, str], pool: Executor) -> None:
        self.index, self.stamps, self.faults, self.pool = index, stamps, faults, pool
        self.latest: OrderedDict[Field, dict[str, Future[Frame]]] = OrderedDict()

    def request(self, fields: Sequence[Field]) -> None:
        """Start to read fields, unless they are here, and let go of those not asked for the longest."""
        for field in (field for field in fields if field not in self.faults):
            if field not in self.latest:
                files, bands = self.index[field], self.stamps.bands
                self.latest[field] = {band: self.pool.submit(read_frame, files[band]) for band in bands}
            self.latest.move_to_end(field)
        while len(self.latest) > FIELDS_IN_MEMORY:
            for future in self.latest.popitem(last=False)[1].values():
                future.cancel()

    def frames(self, field: Field) -> list[Frame] | None:
        """Return the frames of a field in the order of bands; None, and a fault, where they are no use."""
        self.request([field])
        if field in self.faults:
            return None
        frames: dict[str, Frame] = {}
        try:
            for band, future in self.latest[field].items():
                frames[band] = future.result()
            reference = frames[self.stamps.reference][1]
            for band, (image, wcs) in frames.items():
                if fault := check_wcs(wcs, image.shape, reference):
                    raise DataError(f"{self.index[field][band]}: {fault}")
        except DataError as error:
            self.faults[field] = f"{field}: band {band} cannot be used: {error}"
            log.warning("%s", self.faults[field])
            return None
        return list(frames.values())
