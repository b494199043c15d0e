from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from photoz_lit.data.store import Store, write_store
from photoz_lit.report import contact_sheet
from photoz_lit.report.figures.data import colour_bands, colour_image, stretch_for

PIXELS = 16


def write(folder: Path, n: int, **columns: object) -> Store:
    """Write a store whose galaxies are constant images of their row's number plus one."""
    table = Table({"object_id": [f"g{i}" for i in range(n)], **columns})
    shape = (n, 5, PIXELS, PIXELS)
    inputs = np.ones(shape, np.float32) * (1 + np.arange(n))[:, None, None, None]
    return write_store(folder, table, [inputs], shape=shape, dtype="float32", kind="images", settings={})


@pytest.mark.parametrize(
    ("bands", "shown"), [("ugriz", "irg"), ("grizy", "irg"), ("izyJ", "Jyz"), ("gz", "zgg"), ("r", "rrr")]
)
def test_bands_of_colour_images(bands: str, shown: str) -> None:
    assert "".join(bands[i] for i in colour_bands(bands)) == shown


def test_a_red_galaxy_looks_red_and_zeros_are_black() -> None:
    stamp = np.zeros((5, 4, 4), np.float32)
    stamp[3, 1, 2] = 5.0
    image = colour_image(stamp, "ugriz")
    assert image[1, 2].argmax() == 0
    assert image[0, 0].tolist() == [0, 0, 0]


def test_stretch_follows_the_noise_so_that_units_do_not_darken_the_sheet() -> None:
    stamp = np.random.default_rng(0).normal(1, 1, (5, 4, 4)).astype(np.float32)
    bright, faint = (colour_image(f * stamp, "ugriz", stretch_for(f * 0.1)) for f in (1.0, 1e-3))
    np.testing.assert_allclose(bright.astype(int), faint.astype(int), atol=1)


def test_rows_are_spread_over_the_usable_galaxies(tmp_path: Path) -> None:
    store = write(tmp_path / "s", 40, flag=["pixels"] * 20 + [""] * 20)
    assert contact_sheet.sample_rows(store, 3).tolist() == [20, 29, 39]
    np.testing.assert_array_equal(contact_sheet.read_rows(store, np.array([5, 2]))[:, 0, 0, 0], [6, 3])


def test_galaxies_are_shown_by_redshift_or_else_by_magnitude(tmp_path: Path) -> None:
    z, r = [0.3, 0.1, 0.2, np.nan], [17.0, 16.0, 15.0, 14.0]
    rows = np.arange(4)
    store = write(tmp_path / "z", 4, spec_z=z, dered_petro_r=r)
    assert contact_sheet.chosen(store, rows, 3).tolist() == [1, 0, 3]
    assert contact_sheet.labels(store, rows[2:]) == ["z = 0.200  r = 15.00", "r = 14.00"]
    store = write(tmp_path / "r", 4, dered_petro_r=r)
    assert contact_sheet.chosen(store, rows).tolist() == [3, 2, 1, 0]
    store = write(tmp_path / "n", 4)
    assert contact_sheet.labels(store, rows[:1]) == ["g0"]
