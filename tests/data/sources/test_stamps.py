import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS

from photoz_lit.data.catalogue import TableRules
from photoz_lit.data.sources import stamps
from photoz_lit.data.store import write_store
from photoz_lit.errors import DataError

BANDS, PIXELS = "ugriz", 8
UNLABELLED = TableRules({}, (0.0, 0.4), labelled=False)
LABELLED = TableRules({}, (0.0, 0.4))


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


def read(files: list[list[Path]], strict: bool = True) -> np.ndarray:
    return np.concatenate(list(stamps.chunks(files, BANDS, PIXELS, strict)))


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
    for given in (pattern, None):
        table, files = stamps.load(tmp_path, given, None, UNLABELLED, BANDS, PIXELS)
        assert list(table["object_id"]) == [1, 2, 10]
        np.testing.assert_array_equal(read(files), [cube(1), cube(2), cube(10)])


def test_one_file_a_galaxy_as_cube_or_extensions(tmp_path: Path) -> None:
    write_cube(tmp_path / "a.fits", 0)
    write_extensions(tmp_path / "b.fits", 1, ["SDSS-U", "SDSS-G", "SDSS-R", "SDSS-I", "SDSS-Z"])
    write_extensions(tmp_path / "c.fits", 2, [])  # no images: cannot be used
    fits.HDUList([fits.PrimaryHDU(cube(3)[0]), *map(fits.ImageHDU, cube(3)[1:])]).writeto(tmp_path / "d.fits")
    _, files = stamps.load(tmp_path, None, None, UNLABELLED, BANDS, PIXELS)
    images = read(files, strict=False)
    np.testing.assert_array_equal(images[[0, 1, 3]], [cube(0), cube(1), cube(3)])
    assert np.isnan(images[2]).all()


def test_bands_named_in_the_file_come_in_the_surveys_order(tmp_path: Path) -> None:
    write_cube(tmp_path / "a.fits", 0, BANDS="zirgu")
    images = [fits.ImageHDU(cube(1)[BANDS.index(b)], name=b) for b in "zgriu"]
    weight = fits.ImageHDU(np.ones((3, 3)), name="weight")
    fits.HDUList([fits.PrimaryHDU(), weight, *images]).writeto(tmp_path / "b.fits")
    _, files = stamps.load(tmp_path, None, None, UNLABELLED, BANDS, PIXELS)
    np.testing.assert_array_equal(read(files), [cube(0)[::-1], cube(1)])
    write_cube(tmp_path / "c.fits", 0, BANDS="grizy")
    with pytest.raises(DataError, match=r"c.fits: its header says BANDS=grizy: no u of survey.bands=ugriz"):
        read([[tmp_path / "c.fits"]])


def test_rows_of_a_table_find_their_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(4):
        write_cube(tmp_path / "images" / f"{i}.fits", i)
    path = write_table(tmp_path / "t.csv", ["3", "0", "2"])
    with caplog.at_level("INFO"):
        table, files = stamps.load(tmp_path / "images", None, path, LABELLED, BANDS, PIXELS)
    assert list(np.asarray(table["object_id"]).astype(str)) == ["3", "0", "2"]
    np.testing.assert_array_equal(read(files), [cube(3), cube(0), cube(2)])
    assert "1 of 4 stamps have no row" in caplog.text


def test_a_row_without_stamp_is_an_error_left_out_or_flagged(tmp_path: Path) -> None:
    for i in (0, 2):
        write_bands(tmp_path / "images", f"g{i}-{{band}}.fits", i)
    write_bands(tmp_path / "images", "g1-{band}.fits", 1, bands="ugr")
    path = write_table(tmp_path / "t.csv", ["g0", "g1", "g2", "g3"])

    def load(rules: TableRules) -> tuple[Table, list[list[Path]]]:
        return stamps.load(tmp_path / "images", None, path, rules, BANDS, PIXELS)

    with pytest.raises(DataError, match=r"no stamp in all bands for 2 of 4 rows of .*object_id g1, g3\."):
        load(LABELLED)
    table, files = load(TableRules({}, (0.0, 0.4), drop_invalid=True))
    assert list(table["object_id"]) == ["g0", "g2"]
    np.testing.assert_array_equal(read(files), [cube(0), cube(2)])
    table, files = load(UNLABELLED)
    assert list(table["flag"]) == ["", "frame", "", "frame"]
    store = write_store(
        tmp_path / "store",
        table,
        stamps.chunks(files, BANDS, PIXELS, strict=False),
        shape=(4, 5, PIXELS, PIXELS),
        dtype="float32",
        kind="images",
        settings={},
        keep_faulty=True,
    )
    assert list(store.flags) == ["", "frame", "", "frame"]
    np.testing.assert_array_equal(store.inputs[2], cube(2))


def test_no_row_fits_any_file(tmp_path: Path) -> None:
    write_cube(tmp_path / "images" / "a.fits", 0)
    path = write_table(tmp_path / "t.csv", ["x"])
    with pytest.raises(DataError, match=r"1 of 1 rows .*its stamps are called a\. Check data\.columns"):
        stamps.load(tmp_path / "images", None, path, UNLABELLED, BANDS, PIXELS)


def test_table_needs_object_id_and_labelled_stamps_a_table(tmp_path: Path) -> None:
    write_cube(tmp_path / "images" / "a.fits", 0)
    path = tmp_path / "t.csv"
    Table({"name": ["a"], "spec_z": [0.1], "dered_petro_r": [16.0]}).write(path)
    with pytest.raises(DataError, match=r"no column 'object_id'.*columns are: name, spec_z"):
        stamps.load(tmp_path / "images", None, path, LABELLED, BANDS, PIXELS)
    rules = TableRules({"object_id": "name"}, (0.0, 0.4))
    assert len(stamps.load(tmp_path / "images", None, path, rules, BANDS, PIXELS)[0]) == 1
    with pytest.raises(DataError, match=r"data\.path, or type data\.labelled=false"):
        stamps.load(tmp_path / "images", None, None, LABELLED, BANDS, PIXELS)


def test_positions_come_from_the_headers_where_all_have_them(tmp_path: Path) -> None:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "DEC--TAN", "RA---TAN"
    wcs.wcs.crval, wcs.wcs.crpix, wcs.wcs.cdelt = (12.7, 150.05), (4.5, 4.5), (1e-4, 1e-4)
    write_cube(tmp_path / "a.fits", 0, **wcs.to_header())
    (tmp_path / "b.fits").write_bytes((tmp_path / "a.fits").read_bytes()[:3000])
    table, files = stamps.load(tmp_path, None, None, UNLABELLED, BANDS, PIXELS)
    assert (table["ra"][0], table["dec"][0]) == pytest.approx((150.05, 12.7), abs=1e-9)
    assert list(table["flag"]) == ["", "frame"]
    assert files[1] == []
    write_cube(tmp_path / "c.fits", 2)
    assert "ra" not in stamps.load(tmp_path, None, None, UNLABELLED, BANDS, PIXELS)[0].colnames


@pytest.mark.parametrize(
    "unit", ["nanomaggy", "nmgy", "nMgy", "nanomaggies", "1 nanomaggy", "nmgy/pixel", " "]
)
def test_nanomaggies_by_any_name(unit: str, tmp_path: Path) -> None:
    write_cube(tmp_path / "a.fits", 0, BUNIT=unit)
    np.testing.assert_array_equal(read([[tmp_path / "a.fits"]]), [cube(0)])


@pytest.mark.parametrize("unit", ["adu", "counts", "electron/s", "mJy", "maggy", "mmgy"])
def test_another_unit_is_an_error_even_for_galaxies_to_predict(unit: str, tmp_path: Path) -> None:
    write_bands(tmp_path, "a-{band}.fits", 0, BUNIT=unit)
    files = [[tmp_path / f"a-{band}.fits" for band in BANDS]]
    with pytest.raises(DataError, match=rf"a-u.fits: its pixels are in '{unit}'.*3.631e-6 Jy"):
        read(files, strict=False)


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
        stamps.load(tmp_path, None, None, UNLABELLED, BANDS, 9)


def test_folders_and_patterns_that_do_not_fit(tmp_path: Path) -> None:
    def find(pattern: str | None, folder: Path = tmp_path) -> dict[str, list[Path]]:
        return stamps.find_files(folder, pattern, BANDS)

    with pytest.raises(DataError, match=r"nowhere: no such folder. Check data.images"):
        find(None, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no .fits, .fits.gz, .fit files"):
        find(None)
    write_bands(tmp_path, "a/x-{band}.fits", 0)
    write_bands(tmp_path, "a/y-{band}.fits", 0)
    with pytest.raises(DataError, match=r"galaxy a has 2 files in band g, a/x-g.fits and a/y-g.fits"):
        find(None)
    with pytest.raises(
        DataError, match=r"none of its 10 files, such as a/x-g.fits, is named like data.pattern"
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
    table, files = stamps.load(folder, "stamp-{band}.fits", None, UNLABELLED, "ugriz", 64)
    planes = [fits.getdata(folder / f"stamp-{band}.fits") for band in "ugriz"]
    (image,) = np.concatenate(list(stamps.chunks(files, "ugriz", 64, True)))
    np.testing.assert_array_equal(image, np.stack(planes).astype(np.float32))
    assert list(table["object_id"]) == ["stamp"]
    assert float(table["ra"][0]) == pytest.approx(150.05477, abs=1.5e-4)  # of the galaxy, to one pixel
    assert float(table["dec"][0]) == pytest.approx(12.70730, abs=1.5e-4)


def test_beside_stamps_of_another_shape_the_real_one_is_found(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sdss_stamp"
    table, files = stamps.load(folder, None, None, UNLABELLED, "ugriz", 64)
    assert list(table["object_id"]) == ["psf", "stamp"]
    images = np.concatenate(list(stamps.chunks(files, "ugriz", 64, False)))
    assert np.isnan(images[0]).all()
    assert np.isfinite(images[1]).all()
    with pytest.raises(DataError, match=r"psf-u.fits: an image of shape \(51, 51\), \(64, 64\) expected"):
        list(stamps.chunks(files, "ugriz", 64, True))
    path = write_table(tmp_path / "t.csv", ["stamp"])
    _, files = stamps.load(folder, None, path, LABELLED, "ugriz", 64)
    assert len(list(stamps.chunks(files, "ugriz", 64, True))) == 1
