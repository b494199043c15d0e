import bz2
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from synthetic_frames import SHAPE, frame_header, write_frame

from photoz_lit.data.sdss.frames import (
    Field,
    find_frames,
    footprint,
    read_frame,
)
from photoz_lit.errors import DataError

FIELD = Field(94, 1, 12)


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    image = np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)
    return write_frame(tmp_path, FIELD, "r", image, frame_header(10, 0))


def test_name_of_a_file():
    assert Field(3918, 3, 213).filename("u") == "frame-u-003918-3-0213.fits.bz2"


def test_find_frames_below_in_both_forms(tmp_path: Path):
    below = tmp_path / "94" / "1"
    below.mkdir(parents=True)
    for name in (
        "frame-r-000094-1-0012.fits.bz2",
        "frame-r-000094-1-0012.fits",
        "frame-g-000094-1-0012.fits.bz2",
        "frame-z-000094-1-0012.fits.bz2",
        "frame-r-000094-1-0011.fits.bz2",
        "frame-r-000094-1-0013.fits.bz2.part",
        "frame-y-000094-1-0013.fits",
        "frame-r-94-1-13.fits",
    ):
        (below / name).touch()
    found = find_frames(tmp_path, "gr")
    assert list(found) == [Field(94, 1, 11), FIELD]
    assert found[FIELD] == {
        "g": below / "frame-g-000094-1-0012.fits.bz2",
        "r": below / "frame-r-000094-1-0012.fits",
    }


def test_find_no_frames(tmp_path: Path):
    with pytest.raises(DataError, match="no frames of bands g, r here or below"):
        find_frames(tmp_path, "gr")
    with pytest.raises(DataError, match="no such folder"):
        find_frames(tmp_path / "absent", "gr")


def test_read_frame_is_what_was_written(frame: Path):
    image, wcs = read_frame(frame)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32))
    np.testing.assert_allclose(wcs.pixel_to_world_values(SHAPE[1] // 2, SHAPE[0] // 2), (10, 0))
    plain = frame.with_suffix("")
    plain.write_bytes(bz2.decompress(frame.read_bytes()))
    np.testing.assert_array_equal(read_frame(plain)[0], image)


def test_footprint_needs_the_head_of_the_file_only(real_data: Path, tmp_path: Path):
    """The first of the compressed blocks, of 900 kB each, is enough."""
    name = "frame-r-003918-3-0213.fits.bz2"
    whole = real_data / "sdss_frames" / name
    (tmp_path / name).write_bytes(whole.read_bytes()[:400_000])
    wcs, shape = footprint(tmp_path / name)
    image, expected = read_frame(whole)
    assert shape == image.shape == (1489, 2048)
    np.testing.assert_array_equal(wcs.pixel_to_world_values(7, 9), expected.pixel_to_world_values(7, 9))
    with pytest.raises(DataError, match=f"{name}: truncated or corrupt"):
        read_frame(tmp_path / name)


@pytest.mark.parametrize("suffix", ["", ".bz2"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.9])
def test_truncated(frame: Path, suffix: str, share: float):
    content = frame.read_bytes() if suffix else bz2.decompress(frame.read_bytes())[: 2880 * 168]
    path = frame.with_name(f"cut.fits{suffix}")
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"cut.fits.*(truncated|no FITS file)"):
        read_frame(path)


def test_flipped_bytes(frame: Path):
    content = bytearray(frame.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 100] = bytes(100)
    frame.write_bytes(content)
    with pytest.raises(DataError, match="truncated or corrupt"):
        read_frame(frame)


@pytest.mark.parametrize(
    "content", [b"<html>404</html>" * 50, b"SIMPLE  =                    T" + b" " * 5000]
)
def test_no_fits_file(tmp_path: Path, content: bytes):
    path = tmp_path / "frame-r-000094-1-0012.fits"
    path.write_bytes(content)
    for read in (read_frame, footprint):
        with pytest.raises(DataError, match=r"frame-r-000094-1-0012\.fits"):
            read(path)


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("BUNIT", "DN", "BUNIT is 'DN'"),
        ("CTYPE1", "LINEAR", "sky coordinates"),
    ],
)
def test_other_headers(tmp_path: Path, keyword: str, value: str, reason: str):
    header = frame_header(10, 0)
    header[keyword] = value
    path = write_frame(tmp_path, FIELD, "r", np.zeros(SHAPE, np.float32), header)
    with pytest.raises(DataError, match=f"{path.name}.*{reason}"):
        read_frame(path)


def test_matrix_without_inverse(tmp_path: Path):
    path = write_frame(tmp_path, FIELD, "r", np.zeros(SHAPE, np.float32), frame_header(10, 0, scale=0.0))
    with pytest.raises(DataError, match=r"unusable sky coordinates.*singular"):
        footprint(path)


def test_spectrum_is_no_image(tmp_path: Path):
    path = tmp_path / "frame-r-000094-1-0012.fits"
    fits.PrimaryHDU(np.zeros(100, np.float32), frame_header(10, 0)).writeto(path)
    with pytest.raises(DataError, match="no image in the first HDU"):
        read_frame(path)


def test_absent_file(tmp_path: Path):
    with pytest.raises(DataError, match=r"absent.fits.*No such file"):
        read_frame(tmp_path / "absent.fits")
