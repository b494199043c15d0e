from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from synthetic_frames import SHAPE, frame_header, frame_wcs, write_frame

from photoz_lit.data.sdss.fields import (
    Positions,
    Stamps,
    check_footprints,
    check_wcs,
    plan_fields,
    read_footprints,
)
from photoz_lit.data.sdss.frames import Field, find_frames
from photoz_lit.errors import DataError

FIELD = Field(94, 1, 12)
REACH = Stamps("r").reach


def test_footprints_from_another_band_where_the_first_is_unreadable(tmp_path: Path, caplog):
    image = np.zeros(SHAPE, np.float32)
    write_frame(tmp_path, FIELD, "g", image, frame_header(10, 0))
    write_frame(tmp_path, FIELD, "r", image, frame_header(11, 0)).write_bytes(b"broken")
    write_frame(tmp_path, Field(94, 1, 13), "r", image, frame_header(12, 0)).write_bytes(b"broken")
    with ThreadPoolExecutor(1) as pool:
        found = read_footprints(find_frames(tmp_path, "gr"), Stamps("gr"), pool)
    assert list(found) == [FIELD]
    assert found[FIELD][0].wcs.crval[0] == 10
    assert "frame-r-000094-1-0013" in caplog.text


@pytest.mark.parametrize("ra", [0.0, 0.005, 359.99, 180.0])
def test_sound_wcs_passes_on_both_sides_of_zero(ra: float):
    assert check_wcs(frame_wcs(ra, 0.5), SHAPE) == ""


def test_real_frames_pass(real_data: Path):
    found = find_frames(real_data, "ugriz")
    assert len(found) == 3
    with ThreadPoolExecutor(2) as pool:
        footprints = read_footprints(found, Stamps("ugriz"), pool)
    assert footprints.keys() == found.keys()
    assert check_footprints(footprints) == {}


def test_scale_of_another_telescope():
    assert "0.41" in check_wcs(frame_wcs(10, 0, scale=0.41), SHAPE)


def test_frame_across_zero_off_its_neighbours_line():
    """Three fields along a line across RA 0; the middle one, shifted by 150 pixels, is found."""
    shape = (1489, 2048)
    step = 1361 * 0.396 / 3600
    places = {
        Field(94, 1, 12 + i): (frame_wcs(i * step, 0, angle=90.0, shape=shape), shape) for i in (-1, 0, 1)
    }
    assert check_footprints(places) == {}
    shift = 150 * 0.396 / 3600
    places[FIELD] = (frame_wcs(shift, 0, angle=90.0, shape=shape), shape)
    faults = check_footprints(places)
    assert list(faults) == [FIELD]
    assert "150 pixels from where that of run 94 camcol 1 field 11" in faults[FIELD]


def test_plan_takes_the_field_where_the_galaxy_is_farthest_from_the_edge():
    """Every choice against a search by hand over fields on both sides of RA 0."""
    rng = np.random.default_rng(4)
    centres = {Field(1, 1, i): (rng.uniform(-0.1, 0.1), rng.uniform(50.0, 50.1)) for i in range(12)}
    places = {
        field: (frame_wcs(*centre, angle=rng.uniform(0, 360)), SHAPE) for field, centre in centres.items()
    }
    ra, dec = rng.uniform(-0.15, 0.15, 500) % 360, rng.uniform(49.97, 50.13, 500)
    plans, off = plan_fields(Positions.of(ra, dec), places, REACH)
    assert sorted(np.concatenate([off, *(plan.rows for plan in plans)])) == list(range(500))
    inside = {}
    for field, (wcs, _) in places.items():
        x, y = wcs.world_to_pixel_values(ra, dec)
        inside[field] = np.minimum.reduce([x + 0.5, SHAPE[1] - 0.5 - x, y + 0.5, SHAPE[0] - 0.5 - y])
    best = np.max(list(inside.values()), axis=0)
    assert (best[off] < 0).all()
    assert 20 < len(off) < 480
    for plan in plans:
        np.testing.assert_array_equal(inside[plan.field][plan.rows], best[plan.rows])
        others = dict(plan.completing)
        assert plan.field not in others
        for row in plan.rows[best[plan.rows] < 40]:
            for field in places:
                if field != plan.field and inside[field][row] > -40:
                    assert row in others[field]


def test_plan_believes_the_catalogue_pixels():
    """The same place on two fields: the one whose pixels the catalogue has, although nearer to its edge."""
    fields = {Field(1, 1, 1): (frame_wcs(10, 0), SHAPE), Field(1, 1, 2): (frame_wcs(10.01, 0), SHAPE)}
    x, y = fields[Field(1, 1, 2)][0].world_to_pixel_values([10.0], [0.0])
    assert plan_fields(Positions.of([10.0], [0.0]), fields, REACH)[0][0].field == Field(1, 1, 1)
    plans, _ = plan_fields(Positions.of([10.0], [0.0], rowc=y + 0.5, colc=x + 0.5), fields, REACH)
    assert [plan.field for plan in plans] == [Field(1, 1, 2)]


def test_plan_avoids_a_field_where_it_can():
    fields = {Field(1, 1, 1): (frame_wcs(10, 0), SHAPE), Field(1, 1, 2): (frame_wcs(10.01, 0), SHAPE)}
    (plan,), _ = plan_fields(Positions.of([10.0], [0.0]), fields, REACH, [Field(1, 1, 1)])
    assert plan.field == Field(1, 1, 2)
    assert plan.completing == []
    (plan,), _ = plan_fields(
        Positions.of([10.0], [0.0]), {Field(1, 1, 1): fields[Field(1, 1, 1)]}, REACH, [Field(1, 1, 1)]
    )
    assert plan.field == Field(1, 1, 1)


def test_plan_without_frames_or_galaxies():
    plans, off = plan_fields(Positions.of([10.0], [0.0]), {}, REACH)
    assert plans == []
    assert off.tolist() == [0]
    plans, off = plan_fields(Positions.of([], []), {FIELD: (frame_wcs(10, 0), SHAPE)}, REACH)
    assert plans == []
    assert len(off) == 0


def test_position_that_is_no_number():
    with pytest.raises(DataError, match="row 1: ra and dec must be finite; 1 rows are not"):
        plan_fields(Positions.of([10.0, np.nan], [0.0, 0.0]), {}, REACH)
