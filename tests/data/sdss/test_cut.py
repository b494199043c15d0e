import bz2
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter
from synthetic_frames import SHAPE, draw_stars, frame_header, frame_wcs, write_frame

from photoz_lit.data.sdss.cut import FieldCutouts, cut_fields, fill, lay_grids
from photoz_lit.data.sdss.fields import PIXEL, Positions, Stamps
from photoz_lit.data.sdss.frames import Field, Frame, find_frames, footprint, read_frame

FIELD = Field(94, 1, 12)
BANDS = "ugriz"
MIDDLE = 31.5  # of 64 pixels


def cut(
    frames: dict[str, Frame], ra: NDArray, dec: NDArray, **settings: Any
) -> tuple[NDArray[np.float32], NDArray]:
    """Cut galaxies from the frames of one field; return their stamps and which part of each is missing."""
    stamps = Stamps("".join(frames), **settings)
    stamped = np.zeros((len(ra), *stamps.shape), np.float32)
    missing = np.ones(stamped.shape, bool)
    reference = frames["r" if "r" in frames else stamps.bands[0]][1]
    fill(stamped, missing, list(frames.values()), lay_grids(ra, dec, stamps, reference))
    return stamped, missing.mean((2, 3)).max(1)


def walk(
    ra: Any,
    dec: Any,
    index: dict[Field, dict[str, Path]],
    bands: str,
    pixels: int = 64,
    workers: int = 2,
    **at: Any,
) -> Iterator[FieldCutouts]:
    return cut_fields(Positions.of(ra, dec, **at), index, Stamps(bands, pixels), workers)


def centroid(image: NDArray, x: float = MIDDLE, y: float = MIDDLE, sigma: float = 2.5) -> tuple[float, float]:
    """Return the centroid under a Gaussian window that follows the light."""
    lines, columns = np.indices(image.shape)
    for _ in range(30):
        weight = np.clip(image, 0, None) * np.exp(-((columns - x) ** 2 + (lines - y) ** 2) / (2 * sigma**2))
        x, y = (weight * columns).sum() / weight.sum(), (weight * lines).sum() / weight.sum()
    return x, y


def aperture(image: NDArray, x: float, y: float, radius: float = 7.0) -> float:
    """Return the flux in a circle; each pixel is divided into 25."""
    fine = (np.arange(5) - 2) / 5
    left, bottom = max(int(x - radius - 2), 0), max(int(y - radius - 2), 0)
    part = image[bottom : int(y + radius + 3), left : int(x + radius + 3)]
    lines, columns = np.indices(part.shape)[:, :, :, None, None]
    inside = np.hypot(columns + left + fine - x, lines + bottom + fine[:, None] - y) < radius
    return float((part * inside.mean((2, 3))).sum())


@cache
def real_field(folder: Path, field: Field) -> dict[str, Frame]:
    return {band: read_frame(path) for band, path in find_frames(folder, BANDS)[field].items()}


@cache
def real_objects(folder: Path) -> tuple[dict[str, Frame], NDArray, NDArray]:
    """Return a field and the positions of its galaxies and stars."""
    frames = real_field(folder, Field(3918, 3, 213))
    lists = [np.loadtxt(folder / f"003918-3-0213_{kind}.csv", delimiter=",") for kind in ("gals", "stars")]
    ra, dec = frames["r"][1].pixel_to_world_values(*np.concatenate(lists).T)
    return frames, ra, dec


def isolated(x: NDArray, y: NDArray) -> NDArray:
    """Return which objects have no other within 20 pixels."""
    apart = np.hypot(x - x[:, None], y - y[:, None])
    np.fill_diagonal(apart, np.inf)
    return np.asarray(apart.min(1) > 20)


# --- Against the library's plain use and against the truth ----------------------------


@pytest.mark.parametrize("north_up", [False, True])
@pytest.mark.parametrize(("pixels", "pixel_scale"), [(64, 0.396), (41, 0.5), (200, 0.3)])
def test_same_as_with_a_wcs_a_galaxy_on_a_whole_frame(north_up: bool, pixels: int, pixel_scale: float):
    """Windows and linear maps give what a WCS a galaxy gives, at the edge of a frame of the survey."""
    shape = (700, 600)
    # The reference pixel far away: the stamps lie as at the edge of a frame of the survey.
    header = frame_header(150.0, 35.0, shape=shape)
    header["CRPIX1"] -= 900
    header.rename_keyword("RADECSYS", "RADESYS")
    wcs = WCS(header, fix=False)
    image = np.random.default_rng(2).standard_normal(shape).astype(np.float32)
    x, y = np.array([200.3, 310.0, 420.2]), np.array([250.0, 350.7, 400.4])
    ra, dec = wcs.pixel_to_world_values(x, y)
    stamps, missing = cut(
        {"r": (image, wcs)}, ra, dec, pixels=pixels, pixel_scale=pixel_scale, north_up=north_up
    )
    assert (missing == 0).all()
    for i in range(3):
        grid = WCS(naxis=2)
        grid.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        grid.wcs.crval = ra[i], dec[i]
        grid.wcs.crpix = [(pixels + 1) / 2] * 2
        # The direction of y on the frame, on the sky at the galaxy.
        above = wcs.pixel_to_world_values(x[i], y[i] + 1)
        east, north = (above[0] - ra[i]) * np.cos(np.radians(dec[i])), above[1] - dec[i]
        angle = 0.0 if north_up else np.arctan2(east, north)
        turn = np.array([[-np.cos(angle), np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        grid.wcs.cd = pixel_scale / 3600 * turn
        window = Cutout2D(image, (x[i], y[i]), int(1.5 * pixels) + 30, wcs=wcs, mode="trim")
        y_grid, x_grid = np.indices((pixels, pixels))
        sky = grid.pixel_to_world_values(x_grid, y_grid)
        plain = map_coordinates(window.data, window.wcs.world_to_pixel_values(*sky)[::-1], order=3)
        plain *= (pixel_scale / PIXEL) ** 2
        np.testing.assert_allclose(stamps[i, 0], plain, atol=3e-4)


@pytest.mark.parametrize("north_up", [False, True])
@pytest.mark.parametrize("pixels", [64, 33])
@pytest.mark.parametrize("pixel_scale", [0.25, 0.396, 0.6])
def test_star_is_in_the_middle_with_all_its_light(north_up: bool, pixels: int, pixel_scale: float):
    frames = {}
    ra, dec = np.array([10.004, 9.998]), np.array([0.003, -0.004])
    for band, shift in zip("gr", (0.0, 0.001), strict=True):
        wcs = frame_wcs(10 + shift, -shift)
        frames[band] = draw_stars(wcs, ra, dec), wcs
    stamps, missing = cut(frames, ra, dec, pixels=pixels, pixel_scale=pixel_scale, north_up=north_up)
    assert stamps.shape == (2, 2, pixels, pixels)
    assert stamps.dtype == np.float32
    assert (missing == 0).all()
    for star in stamps.reshape(4, pixels, pixels):
        middle = (pixels - 1) / 2
        np.testing.assert_allclose(centroid(star, middle, middle), middle, atol=0.01)
        reach = int(6 / pixel_scale)
        half = slice(pixels // 2 - min(reach, pixels // 2), pixels // 2 + reach)
        np.testing.assert_allclose(star[half, half].sum(), 100, rtol=0.005)


def test_orientation():
    """A neighbour to the north-east lies up and left with `north_up`, and as on the frame without."""
    wcs = frame_wcs(10, 0, angle=30.0)
    ra, dec = np.array([10.0, 10 + 6 / 3600]), np.array([0.0, 4 / 3600])
    frames = {"r": (draw_stars(wcs, ra, dec), wcs)}
    north_up, _ = cut(frames, ra[:1], dec[:1], north_up=True)
    x, y = centroid(north_up[0, 0], MIDDLE - 15, MIDDLE + 10)
    np.testing.assert_allclose((x, y), (MIDDLE - 6 / PIXEL, MIDDLE + 4 / PIXEL), atol=0.02)
    own, _ = cut(frames, ra[:1], dec[:1])
    offset = np.diff(wcs.world_to_pixel_values(ra, dec))[:, 0]
    np.testing.assert_allclose(centroid(own[0, 0], *(MIDDLE + offset)), MIDDLE + offset, atol=0.02)


def test_off_frame_and_not_finite():
    wcs = frame_wcs(10, 0)
    image = np.ones(SHAPE, np.float32)
    image[150, 200] = np.nan
    x = np.array([200.0, -0.5, 100.0, -500.0])
    ra, dec = wcs.pixel_to_world_values(x, np.array([150.0, 150.0, 150.0, 150.0]))
    ra[3], dec[3] = 190.0, 0.0  # on the other side of the sky
    stamps, missing = cut({"r": (image, wcs)}, ra, dec)
    assert np.isfinite(stamps).all()
    assert 0 < missing[0] < 0.01
    assert missing[1] == pytest.approx(0.5, abs=0.01)
    assert missing[2] == 0
    assert missing[3] == 1
    assert (stamps[3] == 0).all()
    np.testing.assert_allclose(stamps[1, 0, :, 33:], 1, rtol=1e-3)
    assert (stamps[1, 0, :, :31] == 0).all()


# --- Several fields -------------------------------------------------------------------


def write_survey(folder: Path, ra: float = 10.0, dec: float = 0.0) -> tuple[NDArray, NDArray]:
    """Write two overlapping fields in bands g and r full of stars; return the positions of the stars."""
    step = 280 * PIXEL / 3600  # 20 rows of overlap; the rows go east
    rng = np.random.default_rng(3)
    star_ra = ra + rng.uniform(-140, 400, 150) * PIXEL / 3600 / np.cos(np.radians(dec))
    star_dec = dec + rng.uniform(-190, 190, 150) * PIXEL / 3600
    for i in (0, 1):
        for band, shift in (("g", 2e-4), ("r", 0.0)):
            place = (ra + i * step / np.cos(np.radians(dec)) + shift, dec)
            image = draw_stars(frame_wcs(*place, angle=90.0), star_ra, star_dec)
            field = FIELD._replace(field=12 + i)
            write_frame(folder, field, band, image, frame_header(*place, angle=90.0))
    return star_ra % 360, star_dec


@pytest.mark.parametrize("ra", [10.0, 0.0, 359.99])
def test_walk_completes_across_fields(tmp_path: Path, ra: float):
    """Stars that lie at the seam are whole, also where RA wraps."""
    star_ra, star_dec = write_survey(tmp_path, ra)
    index = find_frames(tmp_path, "gr")
    parts = list(walk(star_ra, star_dec, index, "gr", pixels=32))
    assert [part.field for part in parts] == [FIELD, FIELD._replace(field=13)]
    assert sorted(np.concatenate([part.rows for part in parts])) == list(range(150))
    completed = 0
    for part in parts:
        assert part.cutouts.shape == (len(part.rows), 2, 32, 32)
        assert part.faults == [""] * len(part.rows)
        x, y = footprint(index[part.field]["r"])[0].world_to_pixel_values(
            star_ra[part.rows], star_dec[part.rows]
        )
        seam = y > 284 if part.field == FIELD else y < 15
        seam &= (x > 20) & (x < 379)
        whole = draw_around(star_ra, star_dec, part.rows[seam])
        assert (part.missing_fraction[seam] == 0).all()
        np.testing.assert_allclose(part.cutouts[seam, 1], whole, atol=0.05)
        completed += seam.sum()
    assert completed >= 3


def draw_around(ra: NDArray, dec: NDArray, rows: NDArray) -> NDArray:
    """Draw all stars on stamps of 32 pixels with y to the east, from frames centred on each."""
    stamps = [np.empty((0, 32, 32))]
    for i in rows:
        wcs = frame_wcs(ra[i], dec[i], angle=90.0)
        wcs.wcs.crpix = 200.5, 150.5
        stamps.append(draw_stars(wcs, ra, dec)[None, 134:166, 184:216])
    return np.concatenate(stamps)


def test_walk_from_where_it_was_left_gives_the_same(tmp_path: Path):
    ra, dec = write_survey(tmp_path)
    index = find_frames(tmp_path, "gr")
    first, second = walk(ra, dec, index, "gr", pixels=32)
    rest = np.setdiff1d(np.arange(len(ra)), first.rows)
    (again,) = walk(ra[rest], dec[rest], index, "gr", pixels=32, workers=1)
    np.testing.assert_array_equal(rest[again.rows], second.rows)
    np.testing.assert_array_equal(again.cutouts, second.cutouts)


def test_walk_may_be_left(tmp_path: Path):
    ra, dec = write_survey(tmp_path)
    walking = walk(ra, dec, find_frames(tmp_path, "gr"), "gr", pixels=32)
    assert next(walking).field == FIELD
    walking.close()


@pytest.mark.parametrize("fault", ["broken", "absent"])
def test_a_field_without_a_band_gives_way_to_one_that_shows_the_galaxy_too(tmp_path: Path, fault: str):
    """Those in the overlap are cut from the complete field; the others have the reason."""
    ra, dec = write_survey(tmp_path)
    frame, other = tmp_path / FIELD.filename("g"), FIELD._replace(field=13)
    index = find_frames(tmp_path, "gr")
    (before,) = [part for part in walk(ra, dec, index, "gr", pixels=32) if part.field == FIELD]
    x, y = footprint(index[other]["r"])[0].world_to_pixel_values(ra, dec)
    overlap = np.intersect1d(before.rows, np.flatnonzero((y > -0.5) & (x > -0.5) & (x < 399.5)))
    assert 2 <= len(overlap) < len(before.rows)
    if fault == "broken":
        frame.write_bytes(frame.read_bytes()[:20_000])
    else:
        frame.unlink()
    parts = list(walk(ra, dec, find_frames(tmp_path, "gr"), "gr", pixels=32))
    (bad,) = [part for part in parts if part.field == FIELD]
    reason = "band g cannot be used" if fault == "broken" else "no frame of band g"
    assert all(reason in why and frame.name in why for why in bad.faults)
    assert (bad.cutouts == 0).all()
    assert (bad.missing_fraction == 1).all()
    good = [part for part in parts if part.field == other]
    assert {why for part in good for why in part.faults} == {""}
    assert sorted(np.concatenate([part.rows for part in good if len(part.rows)])) == sorted(
        set(range(150)) - set(bad.rows)
    )
    assert np.isin(overlap, np.concatenate([part.rows for part in good])).all()
    for part in good:  # those across the edge tell what they would need
        for missing, incomplete in zip(part.missing_fraction, part.incomplete, strict=True):
            assert missing > 0 or incomplete == ""
        assert any(reason in why for why in part.incomplete)


def test_a_galaxy_of_a_field_without_a_band_is_not_compared_with_its_pixels_there(tmp_path: Path):
    """The other field has it at other rows, which says nothing of its WCS."""
    ra, dec = write_survey(tmp_path)
    index = find_frames(tmp_path, "gr")
    x, y = footprint(index[FIELD]["r"])[0].world_to_pixel_values(ra, dec)
    (row,) = np.flatnonzero((y > 284) & (y < 299) & (x > 20) & (x < 380))[:1]
    del index[FIELD]["g"]
    (part,) = walk(ra[[row]], dec[[row]], index, "gr", rowc=y[[row]] + 0.5, colc=x[[row]] + 0.5)
    assert part.field == FIELD._replace(field=13)
    assert part.faults == [""]


def test_galaxies_on_no_frame(tmp_path: Path):
    write_survey(tmp_path)
    ra, dec = np.array([50.0, 10.0, 10.0]), np.array([0.0, 0.0, 60.0])
    off, on = walk(ra, dec, find_frames(tmp_path, "gr"), "gr", pixels=32)
    assert off.field is None
    assert off.rows.tolist() == [0, 2]
    assert all(fault.startswith("on none of the frames: bring ") for fault in off.faults)
    assert on.rows.tolist() == [1]


@pytest.mark.parametrize("ra", [0.0, 40.0])
def test_catalogue_pixels_give_wrong_wcs_away(tmp_path: Path, ra: float):
    """The stars' pixels as a catalogue has them; then the frames' WCS is shifted by 150 pixels."""
    star_ra, star_dec = write_survey(tmp_path, ra)
    index = find_frames(tmp_path, "gr")
    on = np.concatenate([part.rows for part in walk(star_ra, star_dec, index, "gr")])
    star_ra, star_dec = star_ra[on], star_dec[on]
    wcs = footprint(index[FIELD]["r"])[0]
    x, y = wcs.world_to_pixel_values(star_ra, star_dec)
    here = (y < 280) & (x < 240)
    star_ra, star_dec, rowc, colc = star_ra[here], star_dec[here], y[here] + 0.5, x[here] + 0.5
    colc[0] += 4
    rowc[1] = np.nan  # unknown: not compared
    (part,) = walk(star_ra, star_dec, index, "gr", rowc=rowc, colc=colc)
    assert "4.0 pixels from the catalogue's rowc, colc" in part.faults[0]
    assert set(part.faults[1:]) == {""}
    assert (part.cutouts[0] == 0).all()

    for band, path in index[FIELD].items():
        image, _ = read_frame(path)
        header = frame_header(ra, 150 * PIXEL / 3600, angle=90.0)
        write_frame(tmp_path, FIELD, band, image, header)
    index = {FIELD: index[FIELD]}
    for part in walk(star_ra, star_dec, index, "gr", rowc=rowc, colc=colc):
        compared = part.rows != 1
        assert all(np.array(part.faults)[compared])
        if part.field == FIELD:
            assert "150.0 pixels" in part.faults[-1]


def test_band_that_lies_elsewhere(tmp_path: Path):
    ra, dec = write_survey(tmp_path)
    image, _ = read_frame(tmp_path / "frame-g-000094-1-0012.fits.bz2")
    write_frame(tmp_path, FIELD, "g", image, frame_header(10 + 100 * PIXEL / 3600, 0, angle=90.0))
    parts = walk(ra, dec, find_frames(tmp_path, "gr"), "gr", pixels=32)
    (bad,) = [part for part in parts if part.field == FIELD]
    assert all("band g cannot be used" in fault and "100 pixels from" in fault for fault in bad.faults)


def test_wcs_of_another_scale_is_used_for_nothing(tmp_path: Path):
    write_frame(tmp_path, FIELD, "r", np.zeros(SHAPE, np.float32), frame_header(10, 0, scale=0.42))
    (part,) = walk([10.0], [0.0], find_frames(tmp_path, "r"), "r")
    assert "run 94 camcol 1 field 12: the WCS has pixels of 0.42" in part.faults[0]


# --- The survey's frames --------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("north_up", [False, True])
def test_real_objects_are_centred_aligned_and_whole(real_data: Path, north_up: bool):
    frames, ra, dec = real_objects(real_data / "sdss_frames")
    stamps, missing = cut(frames, ra, dec, north_up=north_up)
    assert stamps[missing == 0].any((2, 3)).all()
    image, wcs = frames["r"]
    x, y = wcs.world_to_pixel_values(ra, dec)
    inside = np.minimum.reduce([x, 2047 - x, y, 1488 - y]) > 60
    assert (missing[inside] == 0).all()
    # Saturated pixels have no centroid, and spoil those of the neighbours.
    rows = np.flatnonzero(isolated(x, y) & (missing == 0) & (stamps[:, 2].max((1, 2)) < 20))
    for number, (image, wcs) in enumerate(frames.values()):
        x, y = wcs.world_to_pixel_values(ra[rows], dec[rows])
        on_frame = np.array([aperture(image, *at) for at in zip(x, y, strict=True)])
        noise = 1.48 * np.median(np.abs(image[::5, ::5])) * np.sqrt(np.pi * 7**2)
        bright = on_frame > 30 * noise
        assert bright.sum() >= 5
        on_stamp = [aperture(stamp[number], MIDDLE, MIDDLE) for stamp in stamps[rows[bright]]]
        np.testing.assert_allclose(on_stamp, on_frame[bright], rtol=0.01)
        places = np.array([[centroid(stamp[i]) for i in (number, 2)] for stamp in stamps[rows[bright]]])
        assert np.abs(places[:, 1] - MIDDLE).max() < 1
        offsets = places[:, 0] - places[:, 1]
        np.testing.assert_allclose(np.median(offsets, axis=0), 0, atol=0.1)
        assert np.median(np.hypot(*offsets.T)) < 0.2


@pytest.mark.slow
def test_other_real_field(real_data: Path):
    """A field without a list of objects: its brighter peaks in r."""
    frames = real_field(real_data / "sdss_frames", Field(1035, 6, 17))
    image, wcs = frames["r"]
    smooth = gaussian_filter(image, 1.5)
    peaks = (smooth == maximum_filter(smooth, 41)) & (smooth > 0.4) & (maximum_filter(image, 41) < 20)
    y, x = np.nonzero(peaks[60:-60, 60:-60])
    ra, dec = wcs.pixel_to_world_values(x + 60, y + 60)
    assert len(ra) > 20
    stamps, missing = cut(frames, ra, dec)
    assert (missing == 0).all()
    places = np.array([[centroid(stamp[i]) for i in (1, 2, 3, 4)] for stamp in stamps])
    assert np.abs(places[:, 1] - MIDDLE).max() < 1
    np.testing.assert_allclose(np.median(places, axis=0) - np.median(places[:, 1], axis=0), 0, atol=0.2)
    on_frame = [aperture(image, *at) for at in zip(x + 60, y + 60, strict=True)]
    np.testing.assert_allclose([aperture(stamp[2], MIDDLE, MIDDLE) for stamp in stamps], on_frame, rtol=0.01)


def test_photoobj_fluxes_and_positions(real_data: Path):
    """The cutouts' u band against the survey's own photometry."""
    folder = real_data / "sdss_photoobj"
    with fits.open(folder / "photoObj-003900-6-0269.fits") as file:
        table = file[1].data
        columns = ("RA", "DEC", "OBJC_TYPE", "NCHILD", "MODE", "PETROTHETA", "PETROFLUX")
        columns += ("PETROFLUX_IVAR", "PSFFLUX")
        objects = {name: np.array(table[name]) for name in columns}
    frames = {"u": read_frame(folder / "frame-u-003900-6-0269.fits.bz2")}
    alone = (objects["NCHILD"] == 0) & (objects["MODE"] == 1)
    stars = alone & (objects["OBJC_TYPE"] == 6) & (objects["PSFFLUX"][:, 0] > 20)
    significant = objects["PETROFLUX"][:, 0] * np.sqrt(objects["PETROFLUX_IVAR"][:, 0]) > 6
    radius = objects["PETROTHETA"][:, 2] / PIXEL
    galaxies = alone & (objects["OBJC_TYPE"] == 3) & significant & (radius > 8) & (radius < 15)
    for kind, flux, size in ((stars, "PSFFLUX", 10 + 0 * radius), (galaxies, "PETROFLUX", 2 * radius)):
        stamps, missing = cut(frames, objects["RA"][kind], objects["DEC"][kind], pixels=96)
        stamps, rows = stamps[missing == 0, 0], np.flatnonzero(kind)[missing == 0]
        assert len(rows) >= 3
        measured = [aperture(stamp, 47.5, 47.5, size[row]) for stamp, row in zip(stamps, rows, strict=True)]
        assert np.median(measured / objects[flux][rows, 0]) == pytest.approx(1, abs=0.05)
        assert np.max([np.abs(np.subtract(centroid(stamp, 47.5, 47.5), 47.5)) for stamp in stamps]) < 1


def test_photoobj_pixels_agree_with_the_frame(real_data: Path):
    folder = real_data / "sdss_photoobj"
    with fits.open(folder / "photoObj-003900-6-0269.fits") as file:
        table = file[1].data[:200]
        ra, dec, rowc, colc = (np.array(table[name], float) for name in ("RA", "DEC", "ROWC", "COLC"))
        stars = np.array((table["OBJC_TYPE"] == 6) & (table["MODE"] == 1) & (table["PSFFLUX"][:, 0] > 2))
    (part,) = walk(
        ra[stars],
        dec[stars],
        find_frames(folder, "u"),
        "u",
        rowc=rowc[stars, 0],
        colc=colc[stars, 0],
    )
    assert len(part.rows) > 10
    assert set(part.faults) == {""}


def test_stamp_of_the_survey_has_its_galaxy_in_the_middle(real_data: Path):
    """A cutout made elsewhere, by whole pixels, has the same middle and the frames' parity."""
    image, wcs = read_frame(real_data / "sdss_stamp" / "stamp-r.fits")
    assert image.shape == (64, 64)
    np.testing.assert_allclose(centroid(image), MIDDLE, atol=0.5)
    frame = footprint(real_data / "sdss_frames" / "frame-r-003918-3-0213.fits.bz2")[0]
    parities = [np.sign(np.linalg.det(each.pixel_scale_matrix)) for each in (wcs, frame, frame_wcs(10, 0))]
    assert parities == [-1, -1, -1]


@pytest.mark.slow
@pytest.mark.parametrize("a_field", [20, 372])
def test_throughput_from_decompressed_frames(real_data: Path, tmp_path: Path, a_field: int):
    """At least 40 galaxies a second of processor time, reading included."""
    for path in (real_data / "sdss_frames").glob("*.bz2"):
        (tmp_path / path.stem).write_bytes(bz2.decompress(path.read_bytes()))
    index = find_frames(tmp_path, BANDS)
    x, y = np.loadtxt(real_data / "sdss_frames" / "003918-3-0213_gals.csv", delimiter=",")[:a_field].T
    sky = [footprint(files["r"])[0].pixel_to_world_values(x, y) for files in index.values()]
    ra, dec = np.concatenate(sky, axis=1)
    start = time.process_time()
    parts = list(walk(ra, dec, index, BANDS, workers=1))
    rate = len(ra) / (time.process_time() - start)
    assert sum(len(part.rows) for part in parts) == 2 * a_field
    assert rate > 40
