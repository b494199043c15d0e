"""Published data sets come in as they are, from any row on, in flat memory."""

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from command import PEAK
from data.sources.layouts import (
    cubes,
    python2_pickle,
    sdss_labels,
    write_cfhtls,
    write_galaxies_ml,
    write_npy_folder,
    write_pasquet,
)
from numpy.typing import NDArray

from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.catalogue import TableRules, standard_table
from photoz_lit.data.sources import SOURCES
from photoz_lit.data.sources.published import Published
from photoz_lit.errors import DataError

WRITERS: dict[str, tuple[Callable[[Path], Path], int]] = {
    "pasquet": (write_pasquet, 12),
    "npy_folder": (write_npy_folder, 12),
    "cfhtls": (write_cfhtls, 12),
    "galaxies_ml": (write_galaxies_ml, 16),
}


class Reader:
    """A layout opened for a survey of so many bands and pixels."""

    def __init__(self, published: Published, n_bands: int, pixels: int) -> None:
        survey = SurveyConfig(bands="ugrizy"[:n_bands], pixels=pixels)
        self.table, self.columns, self.published = published.table, published.columns, published
        self.last = published.bands_are_last(survey)
        self.shape = (len(published.table), n_bands, pixels, pixels)

    def chunks(self, rows: NDArray[np.int64]) -> Iterator[NDArray[np.float32]]:
        scale = np.float32(10 ** (-0.4 * (self.published.zero_point - 22.5)))
        return (chunk * scale for chunk in self.published.chunks(rows, self.last))


def open_layout(layout: str, path: Path, n_bands: int, pixels: int) -> Reader:
    return Reader(SOURCES[layout].read(path), n_bands, pixels)


@pytest.fixture(params=sorted(WRITERS))
def reader(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reader:
    """Each layout, read five rows at a time."""
    write, pixels = WRITERS[request.param]
    monkeypatch.setattr("photoz_lit.data.sources.published.CHUNK_BYTES", 5 * 5 * pixels**2 * 4 + 3)
    return open_layout(request.param, write(tmp_path), 5, pixels)


def everything(reader: Reader, rows: NDArray[np.int64] | None = None) -> NDArray[np.float32]:
    rows = np.arange(len(reader.table)) if rows is None else rows
    return np.concatenate([np.empty((0, *reader.shape[1:]), np.float32), *reader.chunks(rows)])


def ours(cutouts: NDArray[Any]) -> NDArray[Any]:
    """Turn (n, y, x, bands) into (n, bands, y, x)."""
    return np.moveaxis(cutouts, -1, 1)


def test_chunks_are_small_contiguous_and_float32(reader: Reader) -> None:
    chunks = list(reader.chunks(np.arange(reader.shape[0])))
    assert sum(len(chunk) for chunk in chunks) == reader.shape[0] == len(reader.table)
    for chunk in chunks:
        assert 1 <= len(chunk) <= 5
        assert chunk.shape[1:] == reader.shape[1:]
        assert chunk.dtype == np.float32
        assert chunk.flags.c_contiguous


def test_going_on_from_any_row_gives_the_same_cutouts(reader: Reader) -> None:
    whole = everything(reader)
    for start in range(reader.shape[0] + 1):
        np.testing.assert_array_equal(everything(reader, np.arange(start, reader.shape[0])), whole[start:])


def test_rows_with_gaps_are_picked(reader: Reader) -> None:
    rows = np.flatnonzero(np.random.default_rng(1).random(reader.shape[0]) < 0.3)
    np.testing.assert_array_equal(everything(reader, rows), everything(reader)[rows])


def test_the_tables_become_the_project_s_own(reader: Reader) -> None:
    table, rows = standard_table(
        reader.table, "labels", TableRules(columns=reader.columns, z_range=(0.0, 4.0))
    )
    assert len(rows) == len(reader.table)
    assert (table["spec_z"] > 0).all()
    assert ((table["dered_petro_r"] > 13) & (table["dered_petro_r"] < 26)).all()


@pytest.mark.parametrize("compressed", [False, True])
def test_pasquet(compressed: bool, tmp_path: Path) -> None:
    reader = open_layout("pasquet", write_pasquet(tmp_path, compressed=compressed), 5, 12)
    assert reader.columns == {
        "spec_z": "z",
        "dered_petro_r": "dered_petro_r",
        "ebv": "EBV",
        "ra": "ra",
        "dec": "dec",
    }
    np.testing.assert_array_equal(everything(reader), ours(cubes(40, 12)))
    labels = sdss_labels(40)
    assert reader.table.colnames == list(labels.dtype.names or ())
    np.testing.assert_array_equal(reader.table["z"], labels["z"])


def test_pasquet_finds_columns_by_other_names(tmp_path: Path) -> None:
    labels = np.zeros(6, [("Z", "<f4"), ("ebv", "<f4"), ("dered_petro_mag", "<f4", 5), ("specObjID", "<i8")])
    labels["dered_petro_mag"] = np.arange(5) + 15
    np.savez(tmp_path / "a.npz", cube=cubes(6, 8), labels=labels)
    reader = open_layout("pasquet", tmp_path / "a.npz", 5, 8)
    assert reader.columns == {
        "spec_z": "Z",
        "dered_petro_r": "dered_petro_mag_2",
        "ebv": "ebv",
        "object_id": "specObjID",
    }
    np.testing.assert_array_equal(reader.table["dered_petro_mag_2"], 17)


def test_pasquet_s_example_has_arrays_for_columns(tmp_path: Path) -> None:
    z = np.linspace(0, 0.3, 6)
    np.savez(tmp_path / "a.npz", data=cubes(6, 8), z=z[:, None], ebv=z / 9, classes=np.arange(180))
    reader = open_layout("pasquet", tmp_path / "a.npz", 5, 8)
    assert reader.table.colnames == ["z", "ebv"]
    np.testing.assert_array_equal(reader.table["z"], z)
    np.testing.assert_array_equal(everything(reader), ours(cubes(6, 8)))


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<i2", "<f2"])
def test_cubes_of_any_number_type_are_read(dtype: str, tmp_path: Path) -> None:
    cube = cubes(7, 8).astype(dtype)
    cube[0, 0, 0, 0] = 3 if dtype == "<i2" else np.nan
    np.savez(tmp_path / "a.npz", cube=cube, labels=sdss_labels(7))
    read = everything(open_layout("pasquet", tmp_path / "a.npz", 5, 8))
    np.testing.assert_array_equal(read, ours(cube).astype(np.float32))


@pytest.mark.parametrize("pixels", [5, 8])
def test_the_order_of_axes_is_told_from_the_shape(pixels: int, tmp_path: Path) -> None:
    first = np.ascontiguousarray(ours(cubes(7, pixels)))
    np.savez(tmp_path / "a.npz", cube=first, labels=sdss_labels(7))
    read = everything(open_layout("pasquet", tmp_path / "a.npz", 5, pixels))
    # as many bands as pixels: the layout's own order, bands last
    np.testing.assert_array_equal(read, ours(first) if pixels == 5 else first)


@pytest.mark.parametrize("python2", [False, True])
def test_npy_folder(python2: bool, tmp_path: Path) -> None:
    folder = write_npy_folder(tmp_path, python2=python2)
    reader = open_layout("npy_folder", folder, 5, 12)
    rows = np.asarray(reader.table["object_id"])
    assert reader.shape == (38, 5, 12, 12)
    np.testing.assert_array_equal(everything(reader), ours(cubes(40, 12))[rows])
    np.testing.assert_array_equal(reader.table["z"], sdss_labels(40)["z"][rows])
    for name in ("train", "val", "test"):
        members = np.load(folder / f"{name}.npy")
        np.testing.assert_array_equal(rows[reader.table["split"] == name], np.sort(members))
    assert reader.columns["split"] == "split"
    assert reader.columns["spec_z"] == "z"


def objects(n: int) -> dict[str, dict[str, float]]:
    labels = sdss_labels(n)
    return {
        f"gal{i}": {"z": float(row["z"]), "r": float(row["dered_petro_r"])} for i, row in enumerate(labels)
    }


def test_npy_folder_of_named_objects_without_splits(tmp_path: Path) -> None:
    (tmp_path / "labels.pkl").write_bytes(pickle.dumps(objects(6)))
    for i, cube in enumerate(cubes(6, 8)):
        np.save(tmp_path / f"gal{i}.npy", np.moveaxis(cube, -1, 0))
    reader = open_layout("npy_folder", tmp_path, 5, 8)
    assert reader.table.colnames == ["z", "r", "object_id"]
    assert list(reader.table["object_id"]) == [f"gal{i}" for i in range(6)]
    np.testing.assert_array_equal(reader.table["z"], sdss_labels(6)["z"])
    np.testing.assert_array_equal(everything(reader), ours(cubes(6, 8)))


def test_npy_folder_with_splits_of_named_objects(tmp_path: Path) -> None:
    (tmp_path / "any.pkl").write_bytes(pickle.dumps(objects(6)))
    for i, cube in enumerate(cubes(6, 8)):
        np.save(tmp_path / f"gal{i}.npy", cube)
    np.save(tmp_path / "test.npy", np.array(["gal4", "gal1"]))
    np.save(tmp_path / "train.npy", np.array([b"gal0"]))
    reader = open_layout("npy_folder", tmp_path, 5, 8)
    assert list(reader.table["object_id"]) == ["gal0", "gal1", "gal4"]
    assert list(reader.table["split"]) == ["train", "test", "test"]
    np.testing.assert_array_equal(everything(reader), ours(cubes(6, 8))[[0, 1, 4]])


def test_npy_folder_with_an_npz_of_columns_and_several_subfolders(tmp_path: Path) -> None:
    labels = sdss_labels(4)
    np.savez(tmp_path / "label.npz", **{name: labels[name] for name in ("z", "dered_petro_r", "EBV")})
    for i, cube in enumerate(cubes(4, 8)):
        folder = tmp_path / f"sdss_img0{i // 2}"
        folder.mkdir(exist_ok=True)
        np.save(folder / f"{i}.py.npy", cube)
    reader = open_layout("npy_folder", tmp_path, 5, 8)
    assert list(reader.table["object_id"]) == [0, 1, 2, 3]
    np.testing.assert_array_equal(everything(reader), ours(cubes(4, 8)))


def test_cfhtls(tmp_path: Path) -> None:
    reader = open_layout("cfhtls", write_cfhtls(tmp_path), 5, 12)
    # the zero point of the stacks is 30: a thousandth of a count is a nanomaggy
    truth = ours(np.concatenate([cubes(14, 12, 0), cubes(14, 12, 1), cubes(7, 12, 2)]))
    np.testing.assert_allclose(everything(reader), truth, rtol=3e-7)
    assert reader.columns == {"spec_z": "ZSPEC", "dered_petro_r": "R", "ebv": "EBV"}
    stems = ["CUBE_WD_ZHQ_0001"] * 14 + ["CUBE_WD_ZHQ_0002"] * 14 + ["CUBE_WD_ZLR_0001"] * 7
    assert list(reader.table["subset"]) == stems
    assert list(reader.table["resolution"]) == ["high"] * 28 + ["low"] * 7
    assert list(reader.table["FIELD"]) == ["W1"] * 14 + ["D2"] * 14 + ["W1"] * 7
    assert {"zphot", "Rerr", "I", "Ierr", "ZFLAG"} <= set(reader.table.colnames)
    with np.load(tmp_path / "cfhtls" / "CUBE_WD_ZLR_0001.npz") as low:
        np.testing.assert_array_equal(reader.table["I"][28:], low["info"]["Ip_2"])
        np.testing.assert_array_equal(reader.table["Rerr"][28:], low["info"]["ERRR"])


def test_cfhtls_by_pattern_or_single_file(tmp_path: Path) -> None:
    folder = write_cfhtls(tmp_path)
    assert open_layout("cfhtls", folder / "CUBE_WD_ZHQ_*.npz", 5, 12).shape[0] == 28
    low = open_layout("cfhtls", folder / "CUBE_WD_ZLR_0001.npz", 5, 12)
    assert set(low.table["resolution"]) == {"low"}


def test_galaxies_ml(tmp_path: Path) -> None:
    folder = write_galaxies_ml(tmp_path)
    reader = open_layout("galaxies_ml", folder, 5, 16)
    splits = ["test"] * 10 + ["train"] * 30 + ["val"] * 10  # by the names of the files
    assert list(reader.table["split"]) == splits
    truth = ours(np.concatenate([cubes(10, 16, 2), cubes(30, 16, 0), cubes(10, 16, 1)]))
    np.testing.assert_allclose(everything(reader), truth * 10**-1.8, rtol=1e-6)
    assert reader.columns == {
        "spec_z": "specz_redshift",
        "dered_petro_r": "r_cmodel_mag",
        "object_id": "object_id",
        "ra": "ra",
        "dec": "dec",
        "split": "split",
    }
    assert reader.table["object_id"].dtype == np.int64
    assert reader.table["specz_name"][0] == "ZCOSMOS-0"


def test_galaxies_ml_of_one_file_has_no_splits(tmp_path: Path) -> None:
    path = write_galaxies_ml(tmp_path) / "5x16x16_training_with_morphology.hdf5"
    reader = open_layout("galaxies_ml", path, 5, 16)
    assert reader.shape == (30, 5, 16, 16)
    assert "split" not in reader.table.colnames


@pytest.mark.parametrize("layout", sorted(WRITERS))
def test_other_shapes_name_the_settings(layout: str, tmp_path: Path) -> None:
    write, pixels = WRITERS[layout]
    path = write(tmp_path)
    for bands, side in ((4, pixels), (5, 64)):
        with pytest.raises(DataError, match=r"cutouts of shape .* expected .*survey.bands, survey.pixels="):
            open_layout(layout, path, bands, side)


@pytest.mark.parametrize("layout", sorted(WRITERS))
def test_absent_data_is_named(layout: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent: no .*data\.path.*relative paths start at"):
        open_layout(layout, tmp_path / "absent", 5, 12)


@pytest.mark.parametrize("compressed", [False, True])
def test_truncated_npz(compressed: bool, tmp_path: Path) -> None:
    path = write_pasquet(tmp_path, compressed=compressed)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(
        DataError, match=r"sdss_vagc.npz: cannot be read, perhaps truncated: File is not a zip"
    ):
        open_layout("pasquet", path, 5, 12)


@pytest.mark.parametrize("compressed", [False, True])
def test_npz_with_a_damaged_middle(compressed: bool, tmp_path: Path) -> None:
    """A compressed member carries its own check; a stored one is known to be short."""
    path = write_pasquet(tmp_path, compressed=compressed)
    reader = open_layout("pasquet", path, 5, 12)
    content = bytearray(path.read_bytes())
    if compressed:
        content[5000:5400] = bytes(400)
    else:
        content = content[:20000]
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"sdss_vagc.npz: cannot be read, perhaps truncated"):
        everything(reader)


def labels_of_objects() -> NDArray[Any]:
    labels = np.zeros(6, [("z", "<f8"), ("name", object)])
    return labels


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        ({"labels": sdss_labels(6)}, "no array 'cube' in it"),
        ({"cube": cubes(6, 8)}, "no array 'labels' in it"),
        ({"cube": cubes(6, 8), "labels": sdss_labels(5)}, "6 cutouts for 5 rows of labels"),
        ({"cube": cubes(6, 8)[0], "labels": sdss_labels(6)}, "four axes"),
        ({"cube": np.asfortranarray(cubes(6, 8)), "labels": sdss_labels(6)}, "in Fortran order: four axes"),
        ({"cube": cubes(6, 8).astype(object), "labels": sdss_labels(6)}, "type object: four axes"),
        ({"cube": cubes(6, 8).astype("S4"), "labels": sdss_labels(6)}, r"type \|S4, numbers expected"),
        ({"cube": cubes(6, 8), "labels": np.zeros((6, 3))}, "a structured array of named fields"),
        ({"cube": cubes(6, 8), "labels": labels_of_objects()}, "holds Python objects"),
        ({"cube": cubes(6, 8)[:0], "labels": sdss_labels(6)[:0]}, "no cutouts in it"),
    ],
)
def test_bad_npz(arrays: dict[str, NDArray[Any]], told: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a.npz: .*{told}"):
        open_layout("pasquet", tmp_path / "a.npz", 5, 8)


def test_a_member_shorter_than_its_shape(tmp_path: Path) -> None:
    path = write_pasquet(tmp_path, n=6, pixels=8)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content[:-100] if name == "cube.npy" else content)
    with pytest.raises(DataError, match="'cube' is truncated"):
        open_layout("pasquet", path, 5, 8)


def test_labels_that_are_a_hostile_pickle_are_refused(tmp_path: Path) -> None:
    folder = write_npy_folder(tmp_path)
    (folder / "label").write_bytes(f"cos\nsystem\n(Vtouch {tmp_path / 'ran'}\ntR.".encode())
    with pytest.raises(DataError, match=r"sdss/label: refused: the pickle names os\.system"):
        open_layout("npy_folder", folder, 5, 12)
    assert not (tmp_path / "ran").exists()


class Touch:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return self.path.touch, ()


@pytest.mark.parametrize("name", ["train.npy", "data/0.py.npy", "data/7.py.npy"])
@pytest.mark.parametrize("bare", [False, True])
def test_npy_files_of_objects_are_refused(name: str, bare: bool, tmp_path: Path) -> None:
    folder = write_npy_folder(tmp_path)
    np.save(folder / "train.npy", np.array([0, 7]))
    for other in ("val.npy", "test.npy"):
        (folder / other).unlink()
    touch = Touch(tmp_path / "ran")
    if bare:
        (folder / name).write_bytes(pickle.dumps(touch))
    else:
        np.save(folder / name, np.array([touch, None], dtype=object), allow_pickle=True)
    told = "perhaps truncated: the magic string" if bare else "holds Python objects"
    with pytest.raises(DataError, match=rf"{Path(name).name}: .*{told}"):
        everything(open_layout("npy_folder", folder, 5, 12))
    assert not (tmp_path / "ran").exists()


def test_bad_npy_folders(tmp_path: Path) -> None:
    folder = write_npy_folder(tmp_path)
    good = {name: (folder / name).read_bytes() for name in ("label", "train.npy", "val.npy", "data/3.py.npy")}
    test = np.load(folder / "test.npy")

    def refused(told: str) -> None:
        with pytest.raises(DataError, match=told):
            everything(open_layout("npy_folder", folder, 5, 12))
        for name, content in good.items():
            (folder / name).write_bytes(content)

    np.save(folder / "val.npy", test[:2])
    refused(rf"test.npy: 2 objects are in val.npy too, first {test[0]}")
    np.save(folder / "train.npy", np.array([0, 40]))
    refused("train.npy: 1 objects are not in label, first 40")
    np.save(folder / "train.npy", np.array([0.5]))
    refused("train.npy: float64 of shape .1,., a list of objects' numbers or names expected")
    for name in ("train", "val", "test"):
        np.save(folder / f"{name}.npy", np.empty(0, int))
    refused("train.npy, val.npy and test.npy name no objects")
    np.save(folder / "test.npy", test)
    np.save(folder / "train.npy", np.array([3]))
    np.save(folder / "data" / "3.py.npy", np.zeros((12, 12, 4)))
    refused(r"3.py.npy: a cutout of shape \(12, 12, 4\) and type float64, those before it are \(12, 12, 5\)")
    (folder / "data" / "3.py.npy").unlink()
    np.save(folder / "train.npy", np.array([3]))
    refused(
        "no cutout of 1 of .* objects of label, first 3: add the files, or take their numbers out of train"
    )
    np.save(folder / "3.npy", np.zeros((12, 12, 5)))
    np.save(folder / "train.npy", np.array([3]))
    refused("3.py.npy: a second cutout of object 3 beside")
    (folder / "3.npy").unlink()
    (folder / "label").write_bytes(python2_pickle({"z": np.zeros(40), "EBV": np.zeros(39)}))
    refused("label: columns of unequal lengths: z 40, EBV 39")
    (folder / "label").write_bytes(pickle.dumps([1, 2]))
    refused("label: a list, where a dict of columns")
    (folder / "label").write_bytes(pickle.dumps({"z": [0.1, None]}))
    refused("label: column z mixes kinds of values")
    (folder / "label").write_bytes(pickle.dumps({"a": {"z": 1.0}, "b": {"r": 1.0}}))
    refused(r"label: object b has fields \['r'\], the first one \['z'\]")
    (folder / "label").write_bytes(pickle.dumps({}))
    refused("label: ")
    (folder / "label").unlink()
    refused("no table of labels in it, one of label, label.pkl")
    everything(open_layout("npy_folder", folder, 5, 12))


def test_bad_cfhtls_files(tmp_path: Path) -> None:
    folder = write_cfhtls(tmp_path)
    path = folder / "CUBE_WD_ZHQ_0002.npz"
    with np.load(path) as arrays:
        cube, info = arrays["cube"], arrays["info"]
    bad: list[tuple[dict[str, NDArray[Any]], str]] = [
        ({"cube": cube}, "no array info in it"),
        ({"cube": cube, "info": info[:3]}, "14 cutouts for 3 rows of 'info'"),
        ({"cube": cube, "info": info[["ZSPEC", "R"]]}, "'info' has no EBV. Its fields: ZSPEC, R"),
        ({"cube": np.ascontiguousarray(ours(cube)), "info": info}, "the order of axes is not that of"),
        ({"cube": cube[:, :8, :8], "info": info}, r"cutouts of shape \(8, 8, 5\)"),
    ]
    for arrays, told in bad:
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=rf"ZHQ_0002.npz: .*{told}"):
            open_layout("cfhtls", folder, 5, 12)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=r"empty: no .npz file there"):
        open_layout("cfhtls", empty, 5, 12)


def test_bad_galaxies_ml_files(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    image = np.ascontiguousarray(ours(cubes(6, 8)))
    for content, told in (
        ({"images": image}, "no data set 'image' with four axes, .* It holds: images"),
        ({"image": image[0]}, "no data set 'image' with four axes"),
        ({"image": image, "specz_redshift": np.zeros(5)}, "no column 'specz_redshift' of 6 rows"),
    ):
        with h5py.File(path, "w") as file:
            for name, values in content.items():
                file[name] = values
        with pytest.raises(DataError, match=rf"a.hdf5: {told}"):
            open_layout("galaxies_ml", path, 5, 8)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match=r"a.hdf5: cannot be read, perhaps truncated"):
        open_layout("galaxies_ml", path, 5, 8)


MEASURE = f"""
import sys
import numpy as np
from pathlib import Path
from photoz_lit.data.sources import pasquet
reader = pasquet.read(Path(sys.argv[1]))
n, total = len(reader.table), 0
for chunk in reader.chunks(np.arange(n), True):
    total += len(chunk)
    assert chunk[0, 0, 0, 0] == total - len(chunk)
assert total == n
print({PEAK})
"""


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_two_gigabytes_are_read_in_flat_memory(compressed: bool, tmp_path: Path) -> None:
    n, step = 26_000, 1000
    path = tmp_path / "sdss_vagc.npz"
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, 64, 64, 5)}
    cube = np.zeros((step, 64, 64, 5), np.float32)
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind, compresslevel=1) as archive:
        with archive.open("cube.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, n, step):
                cube[:, 0, 0, 0] = np.arange(start, start + step)
                file.write(cube.tobytes())
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array(file, sdss_labels(n))
    try:
        told = subprocess.run(
            [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
        )
    finally:
        path.unlink()
    peak = float(told.stdout)
    print(f"peak memory for 2.1 GB, {'deflated' if compressed else 'stored'}: {peak:.2f} GiB")
    assert peak < 0.8


def test_labels_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "sdss_vagc.npz"
    facts = {"descr": [("z", "<f8")], "fortran_order": False, "shape": (1 << 45,)}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("cube.npy", "w") as file:
            np.save(file, np.zeros((3, 12, 12, 5), np.float32))
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array_header_1_0(file, facts)
    with pytest.raises(DataError, match=r"sdss_vagc.npz: cannot be read.*Unable to allocate"):
        open_layout("pasquet", path, 5, 12)
