"""Small files of exactly the layout of the Multimodal Universe, and what is wrong with others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.table import Table
from command import run, run_well

from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.sources import mmu
from photoz_lit.errors import DataError
from photoz_lit.target import Target

SURVEY = SurveyConfig(name="legacy", bands="grz", pixels=12, pixel_scale=0.262)
IDS = [f"{brick:04d}p022-{i}" for brick in (421, 500) for i in range(6)]  # BRICKNAME-OBJID


def image(n: int, bands: str, size: int, seed: int = 0) -> np.ndarray:
    """Return images (n, bands, y, x) of noise, in which band and place can be told."""
    flux = np.random.default_rng(seed).normal(0, 0.1, (n, len(bands), size, size)).astype(np.float32)
    flux += np.arange(1, len(bands) + 1)[:, None, None] * 100
    flux[:, :, size // 2, size // 2] += 7
    return flux


def write(
    folder: Path, *, bands: str = "griz", survey: str = "des", scale: float = 0.262, size: int = 20
) -> Path:
    """Write two HEALPix pixels as scripts/legacysurvey/build_parent_sample.py does."""
    for pixel, ids in ((1001, IDS[:6]), (1002, IDS[6:])):
        path = folder / f"healpix={pixel}" / "001-of-001.hdf5"
        path.parent.mkdir(parents=True)
        (path.parent / "001-of-001.hdf5.lock").touch()
        n = len(ids)
        columns: dict[str, Any] = {
            "object_id": np.array(ids, "S16"),
            "RA": np.linspace(42, 43, n) + pixel - 1001,
            "DEC": np.linspace(2, 3, n),
            "EBV": np.full(n, 0.05, np.float32),
            "FLUX_R": np.full(n, 3.0, np.float32),
            "healpix": np.full(n, pixel),
            "image_array": image(n, bands, size, pixel),
            "image_ivar": np.full((n, len(bands), size, size), 100.0, np.float32),
            "bit_mask": np.ones((n, size, size), bool),
            "image_psf_fwhm": np.full((n, len(bands)), 1.2, np.float32),
            "image_scale": np.full((n, len(bands)), scale, np.float32),
            "image_model": np.zeros((n, size, size, 3), np.uint8),
            "object_mask": np.zeros((n, size, size), np.uint8),
            "catalog_RA": np.zeros((n, 20)),
        }
        with h5py.File(path, "w") as file:
            for name, values in columns.items():
                shape = (None, *np.shape(values)[1:])
                file.create_dataset(name, data=values, compression="gzip", chunks=True, maxshape=shape)
            file["image_band"] = np.array([[f"{survey}-{band}" for band in bands]] * n, "S5")
    return folder


def write_labels(path: Path, ids: list[Any] = IDS, **columns: Any) -> Path:
    """Write spectroscopic redshifts in another order than the images."""
    n = len(ids)
    own = {"object_id": ids, "spec_z": np.linspace(0.1, 0.3, n), "dered_petro_r": np.linspace(16, 17, n)}
    Table({**own, **columns})[::-1].write(path, overwrite=True)
    return path


def load(images: Path, survey: SurveyConfig = SURVEY, **settings: Any) -> tuple[Table, np.ndarray]:
    plan = mmu.plan(mmu.Settings(images=str(images), **settings), survey, Target(), 1)
    inspected = [plan.inspect(chunk) for chunk in plan.chunks(0)]
    plan.catalogue["bad"] = np.concatenate([one.bad for one in inspected])
    return plan.catalogue, np.concatenate([one.inputs for one in inspected])


def test_bands_by_name_the_middle_and_spec_z_by_object_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photoz_lit.data.sources.published.CHUNK_BYTES", 4 * 3 * 12 * 12 * 4)  # four rows
    images, labels = write(tmp_path / "dr10_south_21"), write_labels(tmp_path / "z.csv")
    for given in (images, images / "healpix=*" / "*.hdf5"):
        table, cutouts = load(given, path=str(labels))
        expected = np.concatenate([image(6, "griz", 20, pixel) for pixel in (1001, 1002)])
        np.testing.assert_array_equal(cutouts, expected[:, [0, 1, 3], 4:16, 4:16])
        assert (cutouts[:, :, 6, 6] - [107, 207, 407]).std() < 0.2
        assert table["object_id"].tolist() == IDS
        np.testing.assert_allclose(table["spec_z"], np.linspace(0.1, 0.3, 12))
        np.testing.assert_allclose(table["ebv"], 0.05)
        assert table["ra"][[0, 6]].tolist() == [42, 43]
        assert not table["bad"].any()
    table, cutouts = load(images, SurveyConfig(bands="zg", pixels=20, pixel_scale=0.262), path=str(labels))
    np.testing.assert_array_equal(cutouts, expected[:, [3, 0]])


def test_columns_of_the_files_serve_without_a_table(tmp_path: Path) -> None:
    images = write(tmp_path / "hsc", bands="grizy", survey="hsc", scale=0.168)
    for path in images.rglob("*.hdf5"):
        with h5py.File(path, "a") as file:
            del file["object_id"]
            file["object_id"] = 40000000000000000 + np.arange(6) + (path.parent.name == "healpix=1002") * 6
            file["z_spec"], file["r_cmodel_mag"] = np.full(6, 0.2), np.full(6, 17.0)
    survey = SurveyConfig(bands="grizy", pixels=12, pixel_scale=0.168)
    table, cutouts = load(
        images, survey, columns={"spec_z": "z_spec", "dered_petro_r": "r_cmodel_mag"}, zero_point=None
    )
    assert table["object_id"][6] == 40000000000000006
    expected = image(6, "grizy", 20, 1001)[0, :, 4:16, 4:16] * 10 ** (-0.4 * 4.5)  # AB zero point 27
    np.testing.assert_allclose(cutouts[0], expected, rtol=1e-5)
    with pytest.raises(DataError, match=r"no column 'spec_z' .*of images: DEC, EBV, .*z_spec.* by data.path"):
        load(images, survey)
    assert load(images, survey, labelled=False)[1].shape == (12, 5, 12, 12)


def test_pixels_without_weight_and_bad_ones_are_masked(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "a"), write_labels(tmp_path / "z.csv")
    with h5py.File(images / "healpix=1001" / "001-of-001.hdf5", "a") as file:
        file["image_ivar"][1, 0, 10, 10] = 0  # in g
        file["image_ivar"][2, 2, 10, 10] = 0  # in i, which the survey has not
        file["image_ivar"][3, 0, 0, 0] = 0  # outside the middle
        file["bit_mask"][4, 10, 10] = False
    table, cutouts = load(images, path=str(labels))
    assert np.flatnonzero(table["bad"]).tolist() == [1, 4]
    assert np.argwhere(np.isnan(cutouts[1])).tolist() == [[0, 6, 6]]
    assert np.isnan(cutouts[4]).sum() == 3  # a mask for all bands
    assert not load(images, path=str(labels), repair="interpolate")[0]["bad"].any()


def test_who_has_no_partner_is_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = write(tmp_path / "a")
    labels = write_labels(tmp_path / "z.csv", [*IDS[3:], "9999m000-1"])
    table, cutouts = load(images, path=str(labels))
    assert table["object_id"].tolist() == IDS[3:]
    assert len(cutouts) == 9
    assert "9 of 10 rows have an image; 9 of 12 images have a row" in caplog.text
    with pytest.raises(DataError, match="column spec_z has an empty cell in 3 of 12 rows"):
        load(images, path=str(labels), drop_invalid=False)


def change(**sets: Callable[[np.ndarray], Any] | None) -> Callable[[Path], None]:
    """Return what replaces data sets of both files; None takes one away."""

    def apply(folder: Path) -> None:
        for path in folder.rglob("*.hdf5"):
            with h5py.File(path, "a") as file:
                for name, new in sets.items():
                    values = file[name][:]
                    del file[name]
                    if new is not None:
                        file[name] = new(values)

    return apply


def cut_short(folder: Path) -> None:
    path = folder / "healpix=1002" / "001-of-001.hdf5"
    path.write_bytes(path.read_bytes()[:3000])


def emptied(folder: Path) -> None:
    for path in folder.rglob("*.hdf5"):
        path.unlink()


def swapped(names: np.ndarray) -> np.ndarray:
    names[4] = names[4][::-1]
    return names


WRONG: list[tuple[Callable[[Path], None], str]] = [
    *((change(**{n: None}), f"no data set {n}") for n in ("object_id", "image_band", "image_scale")),
    (
        change(image_array=None),
        "no data set image_array or image_flux, as data=mmu needs. It holds: DEC, EBV",
    ),
    (
        change(image_array=lambda a: a[:, 0]),
        r"image_array of shape \(6, 20, 20\), \(n, bands, at least 12, 12\)",
    ),
    (change(image_array=lambda a: a[:, :, :8, :8]), r"of shape \(6, 4, 8, 8\).*survey.pixels=12"),
    (change(image_array=lambda a: a[:0]), r"image_array of shape \(0, 4, 20, 20\)"),
    (change(object_id=lambda a: a[:5]), r"object_id of shape \(5,\) beside images of shape \(6, 4, 20, 20\)"),
    (change(image_ivar=lambda a: a[:5]), r"image_ivar of shape \(5, 4, 20, 20\) beside"),
    (change(bit_mask=lambda a: a[:, :10]), r"bit_mask of shape \(6, 10, 20\) beside"),
    (change(image_scale=lambda a: a[:, 0]), r"image_scale of shape \(6,\) beside"),
    (
        change(image_band=lambda a: np.char.replace(a, b"-z", b"-y")),
        "not one is called z of survey.bands=grz",
    ),
    (change(image_band=lambda a: np.char.replace(a, b"-z", b"-g")), "not one is called g, z of survey.bands"),
    (change(image_band=lambda a: np.full(a.shape, b"f090w")), "bands are f090w, .*not one is called g, r, z"),
    (change(image_band=swapped), "image_band of row 4 is .* of row 0"),
    (
        change(image_scale=lambda a: a / 0.262 * 0.168),
        "row 0 is 0.168 arcsec a pixel, survey.pixel_scale=0.262",
    ),
    (change(image_scale=lambda a: a * np.nan), "image_scale of row 0 is nan"),
    (change(image_band=lambda a: np.char.replace(a, b"des", b"sim")), "bands of sim: not one unit of fluxes"),
    (cut_short, "healpix=1002/001-of-001.hdf5: cannot be read, perhaps truncated"),
    (emptied, "no .hdf5 file there or below"),
]


@pytest.mark.parametrize(("spoil", "said"), WRONG, ids=[said[:40] for _, said in WRONG])
def test_what_is_wrong_with_files_is_named(spoil: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    images, labels = write(tmp_path / "a"), write_labels(tmp_path / "z.csv")
    spoil(images)
    with pytest.raises(DataError, match=said) as told:
        load(images, path=str(labels))
    assert str(told.value).startswith(str(images))


@pytest.mark.parametrize(
    ("ids", "columns", "said"),
    [
        (
            [i + 1 for i in range(12)],
            {},
            r"none of its object_id \(12, 11, 10, ...\) is one of the 12 images",
        ),
        ([*IDS[:11], IDS[0]], {}, f"object_id {IDS[0]} stands in several rows"),
        (IDS, {"object_id": "name"}, r"no column 'name' \(data.columns.object_id\)"),
        (IDS, {"spec_z": "zz"}, r"no column 'zz' \(data.columns.spec_z\), and none in the files"),
    ],
)
def test_what_is_wrong_with_the_table_is_named(
    ids: list[Any], columns: dict[str, str | None], said: str, tmp_path: Path
) -> None:
    labels = write_labels(tmp_path / "z.csv", ids)
    with pytest.raises(DataError, match=f"z.csv: {said}"):
        load(write(tmp_path / "a"), path=str(labels), columns=columns)


def test_from_the_command_line(tmp_path: Path) -> None:
    images, labels = write(tmp_path / "a"), write_labels(tmp_path / "z.csv")
    words = ["stage=prepare", "data=mmu", f"data.images={images}", "survey.bands=grz", "survey.pixels=12"]
    words += [f"data_dir={tmp_path / 'data'}", f"output_dir={tmp_path / 'runs'}", "logger=none"]
    assert "12 galaxies" in run_well(*words, f"data.path={labels}", "survey.pixel_scale=0.262").out
    assert "survey.pixel_scale=0.396" in run(*words, f"data.path={labels}").message
    assert "data.images is not set" in run("stage=prepare", "data=mmu").message
