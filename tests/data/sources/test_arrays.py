from pathlib import Path

import h5py
import numpy as np
import pytest
from command import cutouts, write_arrays

from photoz_lit.data.catalogue import TableRules
from photoz_lit.data.sources import arrays
from photoz_lit.data.sources.arrays import ArrayFile
from photoz_lit.errors import DataError

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
    table, read, rows = arrays.load(
        tmp_path / "table.csv",
        tmp_path / "cutouts.npy",
        None,
        TableRules(columns={}, z_range=(0.0, 0.4), drop_invalid=True),
        n_bands=5,
        pixels=12,
    )
    assert rows.tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert len(table) == 9
    assert np.concatenate(list(read.chunks(rows))).shape == (9, 5, 12, 12)


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
