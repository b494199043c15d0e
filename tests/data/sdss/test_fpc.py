"""Corrected frames of old releases, written as the survey wrote them."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from command import run_well
from numpy.typing import NDArray
from synthetic_frames import BANDS, FIELDS, SHAPE, draw_stars, frame_header, frame_wcs, write_frame

from photoz_lit.data.sdss.frames import Field, find_frames, footprint, read_frame
from photoz_lit.data.store import open_store
from photoz_lit.errors import DataError

FIELD = Field(2830, 6, 398)
SKY, FLUX20 = 131.25, 2117.5  # counts
CALIBRATION = {"SOFTBIAS": 1000, "SKY": SKY, "FLUX0": 0.0, "FLUX20": FLUX20}


def write_fpc(
    folder: Path, field: Field, band: str, light: NDArray, header: fits.Header, suffix: str = ".gz"
) -> Path:
    """Write nanomaggies as counts, 16 bits without sign, in a gzip; no HDU follows."""
    counts = np.round(light * FLUX20 / 10 + 1000 + SKY).astype(np.uint16)
    plain = folder / f"fpC-{field.run:06d}-{band}{field.camcol}-{field.field:04d}.fit"
    own = header.copy()
    own.remove("BUNIT", ignore_missing=True)
    own["BUNITS"], own["EXPTIME"] = "ADUs", "53.907456"
    fits.PrimaryHDU(counts, own).writeto(plain)
    path = plain.with_name(plain.name + suffix)
    content = plain.read_bytes()
    assert b"BITPIX  =                   16" in content
    assert b"BZERO   =                32768" in content
    plain.unlink()
    path.write_bytes(gzip.compress(content) if suffix else content)
    return path


def old_header(**cards: object) -> fits.Header:
    header = frame_header(10, 0)
    header.update({**CALIBRATION, **cards})
    for key in [key for key, value in cards.items() if value is None]:
        del header[key]
    return header


@pytest.fixture
def light() -> NDArray:
    """Fluxes from below the sky to what is saturated, nanomaggies."""
    light = np.random.default_rng(1).normal(0, 0.05, SHAPE)
    light[10, 20] = (65535 - 1000 - SKY) * 10 / FLUX20
    return light


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_counts_become_nanomaggies(suffix: str, tmp_path: Path, light: NDArray) -> None:
    path = write_fpc(tmp_path, FIELD, "r", light, old_header(), suffix)
    assert find_frames(tmp_path, "gr") == {FIELD: {"r": path}}
    image, wcs = read_frame(path)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, light, atol=0.51 * 10 / FLUX20)  # half a count
    np.testing.assert_allclose(wcs.pixel_to_world_values(SHAPE[1] // 2, SHAPE[0] // 2), (10, 0))
    assert footprint(path)[1] == SHAPE


def test_a_calibrated_frame_goes_before_that_of_an_old_release(
    tmp_path: Path, light: NDArray, caplog: pytest.LogCaptureFixture
) -> None:
    old = write_fpc(tmp_path, FIELD, "g", light, old_header())
    write_fpc(tmp_path, FIELD, "r", light, old_header(), "")
    new = write_frame(tmp_path, FIELD, "r", light.astype(np.float32), frame_header(10, 0))
    with caplog.at_level("INFO"):
        assert find_frames(tmp_path, "gr") == {FIELD: {"g": old, "r": new}}
    assert "1 fields in frames of an old release, of preliminary calibration" in caplog.text


@pytest.mark.parametrize(
    ("cards", "said"),
    [
        *(({key: None}, f"its header has no {key}, without which") for key in ("SOFTBIAS", "SKY", "FLUX20")),
        (
            {"SKY": None, "FLUX20": None},
            "no SKY, FLUX20, without which its counts are no fluxes. Take the frame",
        ),
        ({"FLUX20": "unknown"}, "its header has no FLUX20"),
        ({"FLUX20": 0.0}, "FLUX20=0 are no calibration"),
        ({"FLUX20": -5.0}, "FLUX20=-5 are no calibration"),
        (
            {"CTYPE1": "DEC--TAN", "CTYPE2": "RA---TAN"},
            r"unusable sky coordinates .*expected RA---TAN, DEC--TAN",
        ),
    ],
)
def test_headers_that_do_not_calibrate(
    cards: dict[str, object], said: str, tmp_path: Path, light: NDArray
) -> None:
    path = write_fpc(tmp_path, FIELD, "r", light, old_header(**cards))
    for read in (read_frame, footprint):
        with pytest.raises(DataError, match=f"{path.name}: .*{said}"):
            read(path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.9])
def test_truncated(suffix: str, share: float, tmp_path: Path, light: NDArray) -> None:
    path = write_fpc(tmp_path, FIELD, "r", light, old_header(), suffix)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(DataError, match=rf"{path.name}: (truncated or corrupt|no FITS file)"):
        read_frame(path)


def test_flipped_bytes(tmp_path: Path, light: NDArray) -> None:
    path = write_fpc(tmp_path, FIELD, "g", light, old_header())
    content = bytearray(path.read_bytes())
    content[50_000:50_100] = bytes(100)
    path.write_bytes(content)
    with pytest.raises(DataError, match="truncated or corrupt"):
        read_frame(path)


def test_galaxies_are_cut_from_them(tmp_path: Path) -> None:
    """The same stamps from calibrated frames and from those of an old release, up to half a count."""
    field, centre = FIELDS[0], (150.0, 2.0)
    wcs = frame_wcs(*centre)
    ra, dec = wcs.pixel_to_world_values(np.array([100.0, 200.0]), np.array([120.0, 180.0]))
    for folder in ("new", "old"):
        (tmp_path / folder).mkdir()
    for i, band in enumerate(BANDS):
        light = draw_stars(wcs, ra, dec, flux=50.0 * (i + 1)) + 0.001
        write_frame(tmp_path / "new", field, band, light, frame_header(*centre))
        header = frame_header(*centre)
        header.update(CALIBRATION)
        write_fpc(tmp_path / "old", field, band, light, header)
    Table({"object_id": [1, 2], "ra": ra, "dec": dec}).write(tmp_path / "galaxies.csv")
    stamps = []
    for folder in ("new", "old"):
        words = ["stage=prepare", "data=sdss", f"data.images={tmp_path / folder}", "survey.pixels=24"]
        words += [f"data.path={tmp_path / 'galaxies.csv'}", "data.labelled=false", "logger=none"]
        run_well(*words, f"data_dir={tmp_path / f'data_{folder}'}", f"output_dir={tmp_path / 'runs'}")
        store = open_store(next((tmp_path / f"data_{folder}").glob("*/store.json")).parent)
        assert (store.flags == "").all()
        stamps.append(np.asarray(store.inputs, float))
    np.testing.assert_allclose(stamps[1], stamps[0], atol=0.01)
    assert stamps[0].max() > 5
