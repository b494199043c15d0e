import html
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.render import render_cutouts
from photoz_lit.data.store import FLAGS, Store, write_store
from photoz_lit.errors import DataError
from photoz_lit.grids import MagnitudeSlices
from photoz_lit.report.data_page import chosen, labels, read_rows, sample_rows, write_data_report
from photoz_lit.report.figures.data import colour_bands, colour_image, stretch_for

GALAXIES = draw_galaxies(24, seed=3, r_faint=17.77)
GALAXIES["dered_petro_r"] = GALAXIES["true_petro_r"]
COLUMNS = [name for name in GALAXIES.colnames if not name.startswith("true_")]


@pytest.fixture(scope="module")
def cutouts() -> NDArray[np.float32]:
    return render_cutouts(GALAXIES, seed=3, pixels=32)


def page(
    folder: Path,
    inputs: np.ndarray,
    table: Table | None = None,
    kind: str = "images",
    split: np.ndarray | None = None,
    bands: str = "ugriz",
    slices: MagnitudeSlices = MagnitudeSlices(12.5, 0.5, 11),  # noqa: B008
) -> str:
    table = GALAXIES[COLUMNS] if table is None else table
    store = write_store(
        folder,
        table,
        [inputs],
        shape=inputs.shape,
        dtype="float32",
        kind=kind,
        settings={},
        keep_faulty=True,
    )
    said = write_data_report(
        store, split=split, bands=bands, pixel_scale=0.396, slices=slices, name="Twenty <four>"
    )
    text = (folder / "data_report.html").read_text(encoding="utf-8")
    assert [html.escape(warning) for warning in said] == warnings_of(text)
    return text


def warnings_of(text: str) -> list[str]:
    return re.findall("<li>(.*?)</li>", text)


def cells(text: str, name: str) -> list[str]:
    row = re.search(rf"<tr><td>{re.escape(name)}</td>(.*?)</tr>", text)
    assert row, f"no row {name}"
    return re.findall("<td>(.*?)</td>", row[1])


def test_images_are_shown_and_nothing_is_fetched(tmp_path: Path, cutouts: NDArray[np.float32]) -> None:
    split = np.array(["train"] * 16 + ["val"] * 3 + ["test"] * 5)
    text = page(tmp_path / "s", cutouts, split=split)
    assert warnings_of(text) == []
    assert "Nothing looks wrong" in text
    assert "Twenty &lt;four&gt;" in text
    assert all(target.startswith(("data:", "#")) for target in re.findall('(?:src|href)="(.*?)"', text))
    assert re.findall("<h2>(.*?)</h2>", text) == ["Inputs", "Table"]
    assert re.findall("<h3>(.*?)</h3>", text) == [
        "Galaxies",
        "Band by band",
        "Brightness",
        "Noise and centring by band",
        "Counts",
        "Distributions",
        "Columns of the table",
    ]
    assert [cells(text, name) for name in ("all", "train", "val", "test")] == [["24"], ["16"], ["3"], ["5"]]
    assert cells(text, "spec_z")[0] == "0"
    assert cells(text, "spec_z")[3] == f"{np.median(GALAXIES['spec_z']):.5g}"
    assert len(cells(text, "u")) == 8
    assert (tmp_path / "s" / "contact_sheet.png").stat().st_size > 10_000
    assert {p.name for p in (tmp_path / "s").iterdir()} == {
        *("catalogue.fits", "contact_sheet.png", "data_report.html", "inputs.npy", "store.json")
    }


def test_faults_are_said_at_the_top(tmp_path: Path, cutouts: NDArray[np.float32]) -> None:
    table, images = GALAXIES[COLUMNS], cutouts[:, ::-1] * 1e-2
    table["dered_petro_r"][:3] = np.nan
    images[-2:] = np.nan
    text = page(tmp_path / "s", images, table)
    said = warnings_of(text)
    assert text.index("things look wrong") < text.index("<h2>")
    assert any("mag fainter than dered_petro_r" in w for w in said)
    assert any("are the bands in the order ugriz?" in w for w in said)
    assert "8% of the galaxies are flagged and cannot be used: see Counts." in said
    assert "Column dered_petro_r is empty or not finite in 3 of 22 galaxies." in said
    assert cells(text, html.escape(f"flagged: {FLAGS['pixels']}")) == ["2"]


def test_galaxies_to_predict_have_no_labels(tmp_path: Path, cutouts: NDArray[np.float32]) -> None:
    table = Table({"object_id": [f"n{i}" for i in range(24)], "ebv": np.zeros(24)})
    text = page(tmp_path / "s", cutouts[:, 1:4], table, bands="gri")
    assert warnings_of(text) == []
    assert "From low to high spec_z" not in text
    assert "cutouts − table" not in text


@pytest.mark.parametrize(("r_min", "n", "fault"), [(12.5, 0, False), (20.0, 24, True), (5.0, 24, True)])
def test_galaxies_beyond_the_slices_are_counted(
    tmp_path: Path, cutouts: NDArray[np.float32], r_min: float, n: int, fault: bool, without_drawing: None
) -> None:
    text = page(tmp_path / "s", cutouts, slices=MagnitudeSlices(r_min, 0.5, 11))
    assert f'<div class="values">{n} of 24</div>' in text
    said = f"{n} of 24 galaxies lie outside the slices (survey.r_min, survey.r_width, survey.n_slices)"
    assert any(warning.startswith(said) for warning in warnings_of(text)) == fault


def test_one_galaxy_of_a_hundred_may_lie_beyond_the_slices(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(100, 3))
    table = Table({"object_id": np.arange(100), "dered_petro_r": np.r_[np.full(99, 15.0), 19.0]})
    text = page(tmp_path / "s", vectors, table, kind="vectors")
    assert '<div class="values">1 of 100</div>' in text
    assert not [warning for warning in warnings_of(text) if "slices" in warning]


def test_all_flagged(tmp_path: Path, cutouts: NDArray[np.float32]) -> None:
    text = page(tmp_path / "s", np.full_like(cutouts, np.nan))
    assert warnings_of(text) == ["100% of the galaxies are flagged and cannot be used: see Counts."]
    assert not (tmp_path / "s" / "contact_sheet.png").exists()


def test_vectors_and_features_are_described_by_numbers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(24, 6))
    vectors[:, 2] = 1.0
    text = page(tmp_path / "v", vectors, kind="vectors")
    assert warnings_of(text) == ["1 of the 6 numbers of a vector are the same for all galaxies."]
    assert cells(text, "mean")[-1] == "1"
    features = np.stack([np.arange(24)[:, None] + [0, 100], np.full((24, 2), 0.1)], axis=1)
    text = page(tmp_path / "f", features, kind="features")
    assert cells(text, "magnitude 2") == ["0", "100", "100.23", "111.5", "122.77", "123"]
    assert cells(text, "error 1")[3] == "0.1"


def test_another_number_of_bands_is_an_error(tmp_path: Path, cutouts: NDArray[np.float32]) -> None:
    with pytest.raises(DataError, match=r"cutouts of 5 bands, but 3 are named: gri"):
        page(tmp_path / "s", cutouts, bands="gri")


# Which galaxies are shown, and how


def plain_store(folder: Path, n: int, **columns: object) -> Store:
    """Write a store whose galaxies are constant images of their row's number plus one."""
    table = Table({"object_id": [f"g{i}" for i in range(n)], **columns})
    shape = (n, 5, 16, 16)
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
    store = plain_store(tmp_path / "s", 40, flag=["pixels"] * 20 + [""] * 20)
    assert sample_rows(store, 3).tolist() == [20, 29, 39]
    np.testing.assert_array_equal(read_rows(store, np.array([5, 2]))[:, 0, 0, 0], [6, 3])


def test_galaxies_are_shown_by_redshift_or_else_by_magnitude(tmp_path: Path) -> None:
    z, r = [0.3, 0.1, 0.2, np.nan], [17.0, 16.0, 15.0, 14.0]
    rows = np.arange(4)
    store = plain_store(tmp_path / "z", 4, spec_z=z, dered_petro_r=r)
    assert chosen(store, rows, 3).tolist() == [1, 0, 3]
    assert labels(store, rows[2:]) == ["z = 0.200  r = 15.00", "r = 14.00"]
    store = plain_store(tmp_path / "r", 4, dered_petro_r=r)
    assert chosen(store, rows).tolist() == [3, 2, 1, 0]
    store = plain_store(tmp_path / "n", 4)
    assert labels(store, rows[:1]) == ["g0"]
