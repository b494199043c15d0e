from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.table import Table
from command import cutouts, write_arrays

from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.sources import arrays
from photoz_lit.data.sources.arrays import ArrayFile
from photoz_lit.data.sources.settings import Plan
from photoz_lit.errors import DataError
from photoz_lit.target import Target

IMAGES = cutouts(30, 4)


def write(folder: Path, name: str, **more: np.ndarray) -> Path:
    path = folder / name
    match path.suffix:
        case ".npy":
            np.save(path, IMAGES)
        case ".npz":
            np.savez(path, images=IMAGES, **more)
        case _:
            with h5py.File(path, "w") as file:
                file["images"] = IMAGES
                file.create_group("notes")
                for key, value in more.items():
                    file[key] = value
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.hdf5"])
def test_cutouts_of_every_kind_are_read_by_rows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photoz_lit.data.sources.arrays.CHUNK", 4)
    read = ArrayFile(write(tmp_path, name))
    rows = np.array([0, 3, 4, 5, 11, 20, 29])
    chunks = list(read.chunks(rows))
    assert [len(chunk) for chunk in chunks] == [4, 3]
    np.testing.assert_array_equal(np.concatenate(chunks), IMAGES[rows])
    read.check((5, 4, 4), "", 30, tmp_path / "t.csv")


def test_npy_is_mapped_and_not_read(tmp_path: Path) -> None:
    assert isinstance(ArrayFile(write(tmp_path, "a.npy")).array, np.memmap)


@pytest.mark.parametrize("name", ["a.npz", "a.h5"])
def test_one_of_several_arrays_is_named_by_its_key(name: str, tmp_path: Path) -> None:
    path = write(tmp_path, name, other=2 * IMAGES)
    np.testing.assert_array_equal(ArrayFile(path, "other").array[:], 2 * IMAGES)
    for key in (None, "third"):
        with pytest.raises(DataError, match=rf"data.images_key={key} names no array. Arrays: images, other"):
            ArrayFile(path, key)


def test_unknown_kind_of_cutouts(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    with pytest.raises(DataError, match=r"unknown kind of array '.jpg'. Known: .npy"):
        ArrayFile(tmp_path / "a.jpg")


def test_rows_of_the_table_keep_their_cutouts(tmp_path: Path) -> None:
    write_arrays(tmp_path, n=10)
    lines = (tmp_path / "table.csv").read_text().splitlines()
    lines[4] = lines[4].replace(lines[4].split(",")[0], "-1")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    plan = planned(tmp_path, drop_invalid=True)
    assert len(plan.catalogue) == 9
    read = np.concatenate(list(plan.chunks(0)))
    np.testing.assert_array_equal(read, np.delete(np.load(tmp_path / "cutouts.npy"), 3, axis=0))


def planned(folder: Path, images: str = "cutouts.npy", **settings: Any) -> Plan:
    own = arrays.Settings(path=str(folder / "table.csv"), images=str(folder / images), **settings)
    return arrays.plan(own, SurveyConfig(pixels=12), Target(), 1)


def test_cutouts_to_predict_for_are_used_where_they_lie(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_arrays(tmp_path, n=10)
    path = tmp_path / "cutouts.npy"
    assert planned(tmp_path, labelled=False).array == path
    assert planned(tmp_path).array is None
    caplog.set_level("INFO")
    for settings in ({"zero_point": 30.0}, {"repair": "interpolate"}):
        assert planned(tmp_path, labelled=False, **settings).array is None
    np.save(tmp_path / "double.npy", np.load(path).astype(np.float64))
    np.savez(tmp_path / "zip.npz", np.load(path))
    for name in ("double.npy", "zip.npz"):
        assert planned(tmp_path, name, labelled=False).array is None
    reasons = [record.message.partition("copied, ")[2] for record in caplog.records]
    assert [reason for reason in reasons if reason] == [
        *["being changed by data.zero_point or data.repair"] * 2,
        "being of type float64, or not in C order",
        "being not .npy",
    ]


@pytest.mark.parametrize("columns", [None, ["object_id"], ["dered_petro_r", "ra", "dec"]])
def test_every_cutout_is_predicted_for_whatever_its_table_knows(
    columns: list[str] | None, tmp_path: Path
) -> None:
    np.save(tmp_path / "cutouts.npy", cutouts(10, 12))
    settings: dict[str, Any] = {"labelled": False, "images": str(tmp_path / "cutouts.npy")}
    if columns is not None:
        Table({name: np.arange(10, 20) for name in columns}).write(tmp_path / "t.csv")
        settings["path"] = str(tmp_path / "t.csv")
    own = arrays.Settings(**settings)
    arrays.check(own, SurveyConfig())
    plan = arrays.plan(own, SurveyConfig(pixels=12), Target(), 1)
    assert len(plan.catalogue) == len(set(plan.catalogue["object_id"])) == 10
    assert plan.shape == (10, 5, 12, 12)


def test_a_header_that_is_no_header_is_damage(tmp_path: Path) -> None:
    path = write(tmp_path, "a.npy")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"'descr'", b"'desc('", 1).replace(b"}", b"(", 1))
    with pytest.raises(DataError, match=r"a\.npy: cannot be read as an array"):
        ArrayFile(path)


def test_damage_in_the_middle_of_hdf5_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", data=IMAGES, compression="gzip", chunks=(5, *IMAGES.shape[1:]))
        place = images.id.get_chunk_info(3)
    with path.open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    with pytest.raises(DataError, match=r"a\.h5: rows 0 to 29 cannot be read"):
        list(ArrayFile(path).chunks(np.arange(30)))
