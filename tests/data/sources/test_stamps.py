import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from command import only, places, run_well

from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.sources import stamps
from photoz_lit.data.sources.settings import Plan
from photoz_lit.data.sources.stamp_files import find_files, folder_and_pattern
from photoz_lit.data.store import open_store
from photoz_lit.errors import DataError
from photoz_lit.target import Target

BANDS, PIXELS = "ugriz", 8


def cube(i: int) -> np.ndarray:
    """All pixels differ, so that a turned stamp or swapped bands are seen."""
    return (np.arange(5 * PIXELS**2).reshape(5, PIXELS, PIXELS) + 1000 * i + 1).astype(np.float32)


def write_bands(folder: Path, name: str, i: int, bands: str = BANDS, **header: str | float) -> None:
    for band in bands:
        path = folder / name.format(band=band)
        path.parent.mkdir(parents=True, exist_ok=True)
        fits.PrimaryHDU(cube(i)[BANDS.index(band)], fits.Header(header)).writeto(path)


def write_cube(path: Path, i: int, **header: str | float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(cube(i), fits.Header(header)).writeto(path)


def write_extensions(path: Path, i: int, names: list[str]) -> None:
    images = [fits.ImageHDU(plane, name=name) for plane, name in zip(cube(i), names, strict=False)]
    fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)


def write_table(path: Path, names: list[str]) -> Path:
    n = len(names)
    Table(
        {"object_id": names, "spec_z": np.linspace(0.1, 0.2, n), "dered_petro_r": np.linspace(16, 17, n)}
    ).write(path)
    return path


def planned(
    images: Path, path: Path | None = None, *, labelled: bool = False, pixels: int = PIXELS, **settings: Any
) -> Plan:
    table = None if path is None else str(path)
    own = stamps.Settings(images=str(images), path=table, labelled=labelled, **settings)
    return stamps.plan(own, SurveyConfig(pixels=pixels), Target(), 1)


def pixels_of(plan: Plan) -> np.ndarray:
    return np.concatenate(list(plan.chunks(0)))


def read(files: list[list[Path]], strict: bool = True, **how: Any) -> np.ndarray:
    reader = stamps.Reader(BANDS, PIXELS, how.get("extension"), how.get("by_unit", True))
    return reader.read_chunk(files, strict)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("{i}-{band}.fits", "{object_id}-{band}.fits"),
        ("{i}_{band}.fit", "{object_id}_{band}"),
        ("{i}.{band}.fits.gz", "{object_id}.{band}.fits.gz"),
        ("{i}/stamp-{band}.fits", "{object_id}/stamp-{band}.fits"),
        ("{i}/{i}_{band}.fits", "{object_id}/{object_id}_{band}.fits"),
        ("{i}/{band}.fits", "{object_id}/{band}.fits"),
        ("{band}/{i}.fits", "{band}/{object_id}.fits"),
    ],
)
def test_one_file_a_band_with_and_without_a_pattern(name: str, pattern: str, tmp_path: Path) -> None:
    for i in (10, 2, 1):
        write_bands(tmp_path, name.replace("{i}", str(i)), i)
    for given in (tmp_path / pattern, tmp_path):
        plan = planned(given)
        assert list(plan.catalogue["object_id"]) == [1, 2, 10]
        np.testing.assert_array_equal(pixels_of(plan), [cube(1), cube(2), cube(10)])


@pytest.mark.parametrize(
    ("images", "folder", "pattern"),
    [
        ("a", "a", None),
        ("a/{object_id}.fits", "a", "{object_id}.fits"),
        ("a/{object_id}/*-{band}", "a", "{object_id}/*-{band}"),
        ("a/b/{band}/{object_id}.fits", "a/b", "{band}/{object_id}.fits"),
        ("a/*/b/{object_id}.fits", "a", "*/b/{object_id}.fits"),
        ("{x}/{object_id}.fits", "{x}", "{object_id}.fits"),
        ("{x}", "{x}", None),
        ("a/one.fits", "a", "one.fits"),
        ("nowhere", "nowhere", None),
        ("nowhere/{object_id}.fits", "nowhere", "{object_id}.fits"),
    ],
)
def test_a_path_is_a_folder_and_perhaps_how_its_files_are_named(
    images: str, folder: str, pattern: str | None, tmp_path: Path
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "{x}").mkdir()
    (tmp_path / "a" / "one.fits").touch()
    assert folder_and_pattern(str(tmp_path / images)) == (tmp_path / folder, pattern)


@pytest.mark.parametrize("images", ["{object_id}-{band}.fits", "{object_id}-{band}", "*-{band}.fits", ""])
def test_files_of_a_pattern_are_facts(images: str, tmp_path: Path) -> None:
    folder = tmp_path / "stamps [1]"
    write_bands(folder, "x-{band}.fits", 0)
    settings = stamps.Settings(images=str(folder / images))

    def facts() -> dict[str, Any]:
        return stamps.facts(settings, SurveyConfig(), Target())

    seen = [facts()]
    write_bands(folder, "y-{band}.fits", 0)
    seen.append(facts())
    (folder / "y-g.fits").unlink()
    seen.append(facts())
    (folder / "x-g.fits").write_bytes((folder / "x-r.fits").read_bytes()[:-1])
    seen.append(facts())
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])
    (folder / "runs").mkdir()
    (folder / "runs" / "metrics.json").touch()
    assert (facts() == seen[-1]) == (images != "")


@pytest.mark.parametrize("folder", ["stämps", "a b, c=d", "{x} [1]", "~bob's", "*"])
def test_names_of_files_are_taken_as_they_are_typed(folder: str, tmp_path: Path) -> None:
    write_bands(tmp_path / folder, "7/img-{band}.fits", 7)
    words = ("stage=prepare", "data=stamps", "data.labelled=false", f"survey.pixels={PIXELS}")
    images = tmp_path / folder / "{object_id}" / "*-{band}.fits"
    run_well(*words, f"data.images={images}", *places(tmp_path))
    store = open_store(only(tmp_path / "data", "store.json").parent)
    np.testing.assert_array_equal(store.catalogue["object_id"], [7])


def test_one_file_a_galaxy_as_cube_or_extensions(tmp_path: Path) -> None:
    write_cube(tmp_path / "a.fits", 0)
    write_extensions(tmp_path / "b.fits", 1, ["SDSS-U", "SDSS-G", "SDSS-R", "SDSS-I", "SDSS-Z"])
    write_extensions(tmp_path / "c.fits", 2, [])  # no images: cannot be used
    fits.HDUList([fits.PrimaryHDU(cube(3)[0]), *map(fits.ImageHDU, cube(3)[1:])]).writeto(tmp_path / "d.fits")
    images = pixels_of(planned(tmp_path))
    np.testing.assert_array_equal(images[[0, 1, 3]], [cube(0), cube(1), cube(3)])
    assert np.isnan(images[2]).all()


def test_bands_named_in_the_file_come_in_the_surveys_order(tmp_path: Path) -> None:
    write_cube(tmp_path / "a.fits", 0, BANDS="zirgu")
    images = [fits.ImageHDU(cube(1)[BANDS.index(b)], name=b) for b in "zgriu"]
    weight = fits.ImageHDU(np.ones((3, 3)), name="weight")
    fits.HDUList([fits.PrimaryHDU(), weight, *images]).writeto(tmp_path / "b.fits")
    np.testing.assert_array_equal(pixels_of(planned(tmp_path)), [cube(0)[::-1], cube(1)])
    write_cube(tmp_path / "c.fits", 0, BANDS="grizy")
    with pytest.raises(DataError, match=r"c.fits: its header says BANDS=grizy: no u of survey.bands=ugriz"):
        read([[tmp_path / "c.fits"]])


def test_rows_of_a_table_find_their_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(4):
        write_cube(tmp_path / "images" / f"{i}.fits", i)
    path = write_table(tmp_path / "t.csv", ["3", "0", "2"])
    with caplog.at_level("INFO"):
        plan = planned(tmp_path / "images", path, labelled=True)
    assert list(np.asarray(plan.catalogue["object_id"]).astype(str)) == ["3", "0", "2"]
    np.testing.assert_array_equal(pixels_of(plan), [cube(3), cube(0), cube(2)])
    assert "1 of 4 stamps have no row" in caplog.text
    with pytest.raises(DataError, match=r"1 of 4 stamps have no row in .*t.csv: 1\. Add rows, leave"):
        planned(tmp_path / "images", path)  # to predict: no stamp is left without an estimate unsaid
    assert len(planned(tmp_path / "images", path, drop_invalid=True).catalogue) == 3


def test_a_row_without_stamp_is_an_error_left_out_or_flagged(tmp_path: Path) -> None:
    for i in (0, 2):
        write_bands(tmp_path / "images", f"g{i}-{{band}}.fits", i)
    write_bands(tmp_path / "images", "g1-{band}.fits", 1, bands="ugr")
    path = write_table(tmp_path / "t.csv", ["g0", "g1", "g2", "g3"])

    with pytest.raises(DataError, match=r"no stamp in all bands for 2 of 4 rows of .*object_id g1, g3\."):
        planned(tmp_path / "images", path, labelled=True)
    plan = planned(tmp_path / "images", path, labelled=True, drop_invalid=True)
    assert list(plan.catalogue["object_id"]) == ["g0", "g2"]
    np.testing.assert_array_equal(pixels_of(plan), [cube(0), cube(2)])
    plan = planned(tmp_path / "images", path)
    assert list(plan.catalogue["flag"]) == ["", "frame", "", "frame"]
    store = plan.write(tmp_path / "store", {}, lambda n, total: None)
    assert list(store.flags) == ["", "frame", "", "frame"]
    np.testing.assert_array_equal(store.inputs[2], cube(2).astype(np.float16))


def test_no_row_fits_any_file(tmp_path: Path) -> None:
    write_cube(tmp_path / "images" / "a.fits", 0)
    path = write_table(tmp_path / "t.csv", ["x"])
    with pytest.raises(DataError, match=r"1 of 1 rows .*its stamps are called a\. Check data\.columns"):
        planned(tmp_path / "images", path)


def test_table_needs_object_id_and_labelled_stamps_a_table(tmp_path: Path) -> None:
    write_cube(tmp_path / "images" / "a.fits", 0)
    path = tmp_path / "t.csv"
    Table({"name": ["a"], "spec_z": [0.1], "dered_petro_r": [16.0]}).write(path)
    with pytest.raises(DataError, match=r"no column 'object_id'.*columns are: name, spec_z"):
        planned(tmp_path / "images", path, labelled=True)
    named = planned(tmp_path / "images", path, labelled=True, columns={"object_id": "name"})
    assert len(named.catalogue) == 1
    with pytest.raises(DataError, match=r"data\.path, or type data\.labelled=false"):
        planned(tmp_path / "images", labelled=True)


def test_positions_come_from_the_headers_where_all_have_them(tmp_path: Path) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "DEC--TAN", "RA---TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (12.7, 150.05), (4.5, 4.5), (1e-4, 1e-4)
    write_cube(tmp_path / "a.fits", 0, **wcs.to_header())
    (tmp_path / "b.fits").write_bytes((tmp_path / "a.fits").read_bytes()[:3000])
    plan = planned(tmp_path)
    table = plan.catalogue
    assert (table["ra"][0], table["dec"][0]) == pytest.approx((150.05, 12.7), abs=1e-9)
    assert list(table["flag"]) == ["", "frame"]
    assert np.isnan(pixels_of(plan)[1]).all()
    write_cube(tmp_path / "c.fits", 2)
    assert "ra" not in planned(tmp_path).catalogue.colnames


UNITS = {
    **dict.fromkeys(("nanomaggy", "nmgy", "nMgy", "nanomaggies", "1 nanomaggy", "nmgy/pixel", " "), 1.0),
    **{"nJy": 1e-9, "njy/pix": 1e-9, "uJy": 1e-6, "microJy": 1e-6, "mJy": 1e-3, "Jy": 1.0, "jansky": 1.0},
    "maggy": 1e9,
}


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("split", [False, True])
def test_units_of_the_header_are_converted(unit: str, split: bool, tmp_path: Path) -> None:
    write = write_bands if split else write_cube
    write(*((tmp_path, "a-{band}.fits") if split else (tmp_path / "a.fits",)), 0, BUNIT=unit)
    nanomaggies = UNITS[unit] / 3.6307805e-6 if "j" in unit.lower() else UNITS[unit]
    np.testing.assert_allclose(pixels_of(planned(tmp_path))[0], cube(0) * nanomaggies, rtol=1e-5)


@pytest.mark.parametrize("unit", ["nJy", "adu", "counts", "electron/s", "mmgy", "MJy/sr", "nanomaggy"])
def test_the_setting_decides_against_the_header(unit: str, tmp_path: Path) -> None:
    write_cube(tmp_path / "a.fits", 0, BUNIT=unit)
    plan = planned(tmp_path, zero_point=31.4)
    inputs = plan.inspect(pixels_of(plan)).inputs
    np.testing.assert_allclose(inputs[0], cube(0) * 10 ** (-0.4 * (31.4 - 22.5)), rtol=1e-5)


@pytest.mark.parametrize("unit", ["adu", "counts", "electron/s", "mmgy", "MJy", "MJy/sr", "mag"])
def test_a_unit_that_is_no_flux_is_an_error_even_for_galaxies_to_predict(unit: str, tmp_path: Path) -> None:
    write_bands(tmp_path, "a-{band}.fits", 0, BUNIT=unit)
    files = [[tmp_path / f"a-{band}.fits" for band in BANDS]]
    with pytest.raises(DataError, match=rf"a-u.fits: its pixels are in '{unit}' .*data.zero_point"):
        read(files, strict=False)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        *[
            (name, {})
            for name in ("WHT", "weight", "IVAR", "invvar", "MASK", "VAR", "ERR", "BKG", "EXP", "DQ")
        ],
        *[("", {"IMTYPE": kind}) for kind in ("invvar", "weight", "mask")],
    ],
)
@pytest.mark.parametrize("layout", ["bands", "extensions", "cube"])
def test_planes_beside_the_image_are_never_taken_for_it(
    name: str, header: dict[str, str], layout: str, tmp_path: Path
) -> None:
    def beside(plane: np.ndarray, band: str = "") -> fits.ImageHDU:
        called = f"{name}_{band}".strip("_")
        return fits.ImageHDU(np.ones_like(plane), fits.Header(header), name=called)

    match layout:
        case "bands":
            for band, plane in zip(BANDS, cube(0), strict=True):
                hdus = [fits.PrimaryHDU(), beside(plane), fits.ImageHDU(plane, name="SCI")]
                fits.HDUList(hdus).writeto(tmp_path / f"a_{band}.fits")
        case "extensions":
            hdus = [fits.PrimaryHDU()]
            for band, plane in zip(BANDS, cube(0), strict=True):
                hdus += [beside(plane, band), fits.ImageHDU(plane, name=f"SCI_{band}")]
            fits.HDUList(hdus).writeto(tmp_path / "a.fits")
        case "cube":
            hdus = [fits.PrimaryHDU(), beside(cube(0)), fits.ImageHDU(cube(0), name="IMAGE")]
            fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(pixels_of(planned(tmp_path)), [cube(0)])


def test_one_of_several_images_is_chosen_by_its_name_or_number(tmp_path: Path) -> None:
    hdus = [fits.PrimaryHDU()]
    for i, epoch in enumerate(("FIRST", "SECOND")):
        hdus += [fits.ImageHDU(cube(i)[BANDS.index(b)], name=f"{epoch}_{b}") for b in BANDS]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match=r"2 images of band u \(FIRST_U, SECOND_U\): .*data.images_key"):
        planned(tmp_path)
    np.testing.assert_array_equal(pixels_of(planned(tmp_path, images_key="second_{band}")), [cube(1)])
    with pytest.raises(DataError, match=r"no image that is called third_u .*one of: FIRST_U, "):
        planned(tmp_path, images_key="third_{band}")
    (tmp_path / "a.fits").unlink()
    fits.HDUList([fits.PrimaryHDU(cube(0)), fits.ImageHDU(cube(1), name="W")]).writeto(tmp_path / "a.fits")
    with pytest.raises(DataError, match=r"2 images \(PRIMARY, W\): say which is meant by data.images_key"):
        planned(tmp_path)
    for key, i in (("0", 0), ("primary", 0), ("1", 1), ("w", 1)):
        np.testing.assert_array_equal(pixels_of(planned(tmp_path, images_key=key)), [cube(i)])


def test_files_of_weights_are_no_galaxies(tmp_path: Path) -> None:
    write_cube(tmp_path / "a.fits", 0)
    write_cube(tmp_path / "a.weight.fits", 1)
    write_cube(tmp_path / "mask" / "a.fits", 1)
    assert list(planned(tmp_path).catalogue["object_id"]) == ["a"]


@pytest.mark.parametrize("fault", ["shape", "truncated", "gzip", "text", "images"])
def test_a_stamp_that_cannot_be_used_is_named_or_given_as_nan(
    fault: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_cube(tmp_path / "a.fits", 0)
    path = tmp_path / ("b.fits.gz" if fault == "gzip" else "b.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    match fault:
        case "shape":
            fits.PrimaryHDU(cube(1)[:, :, :-1]).writeto(path)
        case "truncated":
            path.write_bytes(whole[:4000])
        case "gzip":
            path.write_bytes(gzip.compress(whole)[:-300])
        case "text":
            path.write_text("not a picture")
        case "images":
            write_extensions(path, 1, ["u", "g", "r", "i"])
    files = [[tmp_path / "a.fits"], [path]]
    words = {
        "shape": r"an image of shape \(5, 8, 7\), \(5, 8, 8\) expected \(survey.bands, survey.pixels\)",
        "images": r"b.fits: 4 images \(U, G, R, I\); a cube of shape \(5, 8, 8\) or one extension",
    }
    with pytest.raises(DataError, match=words.get(fault, r"b.fits.*cannot be read, perhaps truncated")):
        read(files)
    images = read(files, strict=False)
    np.testing.assert_array_equal(images[0], cube(0))
    assert np.isnan(images[1]).all()
    assert "1 stamps cannot be used: flagged" in caplog.text


def test_a_wrong_setting_is_an_error_even_for_galaxies_to_predict(tmp_path: Path) -> None:
    for i in range(3):
        write_cube(tmp_path / f"{i}.fits", i)
    with pytest.raises(DataError, match=r"0.fits: an image of shape \(5, 8, 8\), \(5, 9, 9\) expected"):
        planned(tmp_path, pixels=9)


def test_folders_and_patterns_that_do_not_fit(tmp_path: Path) -> None:
    def find(pattern: str | None, folder: Path = tmp_path) -> dict[str, list[Path]]:
        return find_files(folder, pattern, BANDS)

    with pytest.raises(DataError, match=r"nowhere: no such folder. Check data.images"):
        find(None, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no .fits, .fits.gz, .fits.fz, .fit files"):
        find(None)
    write_bands(tmp_path, "a/x-{band}.fits", 0)
    write_bands(tmp_path, "a/y-{band}.fits", 0)
    with pytest.raises(DataError, match=r"galaxy a has 2 files in band g, a/x-g.fits and a/y-g.fits"):
        find(None)
    with pytest.raises(
        DataError, match=r"none of its 10 files, such as a/x-g.fits, is named like {object_id}.fits: type"
    ):
        find("{object_id}.fits")
    assert list(find("{object_id}/y-{band}.fits")) == ["a"]
    assert list(find("*/{object_id}-{band}.fits")) == ["x", "y"]
    shutil.rmtree(tmp_path / "a")
    write_bands(tmp_path, "x-{band}.fits", 0, bands="gr")
    with pytest.raises(DataError, match=r"no galaxy has all of survey.bands=ugriz, x has only gr"):
        find(None)


def test_a_real_stamp_enters_as_it_is(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sdss_stamp"
    plan = planned(folder / "stamp-{band}.fits", pixels=64)
    table = plan.catalogue
    planes = [fits.getdata(folder / f"stamp-{band}.fits") for band in "ugriz"]
    (image,) = pixels_of(plan)
    np.testing.assert_array_equal(image, np.stack(planes).astype(np.float32))
    assert list(table["object_id"]) == ["stamp"]
    assert float(table["ra"][0]) == pytest.approx(150.05477, abs=1.5e-4)  # of the galaxy, to one pixel
    assert float(table["dec"][0]) == pytest.approx(12.70730, abs=1.5e-4)


def test_beside_stamps_of_another_shape_the_real_one_is_found(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sdss_stamp"
    plan = planned(folder / "{object_id}-{band}", pixels=64)
    assert list(plan.catalogue["object_id"]) == ["psf", "stamp"]
    images = pixels_of(plan)
    assert np.isnan(images[0]).all()
    assert np.isfinite(images[1]).all()
    with pytest.raises(DataError, match=r"psf-u.fits: an image of shape \(51, 51\), \(64, 64\) expected"):
        stamps.Reader("ugriz", 64, None, True).read([folder / f"psf-{band}.fits" for band in "ugriz"])
    path = write_table(tmp_path / "t.csv", ["stamp"])
    assert len(pixels_of(planned(folder, path, labelled=True, pixels=64))) == 1
