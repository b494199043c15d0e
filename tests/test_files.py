import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest

from photoz_lit.errors import DataError
from photoz_lit.files import beside, fingerprint, locked, read_arrays, read_json, write_arrays, write_json


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1.0, "y": float("nan")})
    with pytest.raises(UnicodeEncodeError), beside(path) as partial:
        partial.write_text("half \udc80", encoding="utf-8")
    assert read_json(path) == {"x": 1.0, "y": None}
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("read", [read_json, read_arrays])
def test_a_damaged_file_is_named(tmp_path: Path, read: object) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, {"x": np.arange(3)})
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match=r"a\.npz: cannot be read"):
        read(path)  # type: ignore[operator]


def change(path: Path) -> None:
    """Change a file in place, at another time."""
    path.write_text(path.read_text() + "x")


@pytest.mark.parametrize("given", ["s", "s/CUBE_*.npz", "s/CUBE_1.npz"])
def test_a_fingerprint_knows_every_file_behind_a_path(tmp_path: Path, given: str) -> None:
    folder = tmp_path / "s"
    (folder / "g").mkdir(parents=True)
    for name in ("CUBE_1.npz", "CUBE_2.npz", "g/1.fits"):
        (folder / name).write_text("one")
    path = tmp_path / given
    known = [fingerprint([path])]
    assert known == [fingerprint([path])]
    change(folder / "CUBE_1.npz")
    known.append(fingerprint([path]))
    if given != "s/CUBE_1.npz":
        (folder / "CUBE_3.npz").write_text("another")
        known.append(fingerprint([path]))
        (folder / "CUBE_2.npz").unlink()
        known.append(fingerprint([path]))
    if given == "s":
        (folder / "g" / "2.fits").write_text("deeper")
        known.append(fingerprint([path]))
    assert all(a != b for i, a in enumerate(known) for b in known[:i])


def test_a_path_that_looks_like_a_pattern_and_is_there_is_itself(tmp_path: Path) -> None:
    odd = tmp_path / "a[1].csv"
    odd.write_text("one")
    (tmp_path / "a1.csv").write_text("another")
    assert [entry[0] for entry in fingerprint([odd])] == [str(odd)]


def hold(folder: Path, seconds: float) -> None:
    with locked(folder):
        (folder / "held").touch()
        time.sleep(seconds)
        (folder / "held").unlink()


def test_a_lock_waits_for_another_process(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    other = multiprocessing.get_context("spawn").Process(target=hold, args=(folder, 0.3))
    other.start()
    while not (folder / "held").is_file():
        time.sleep(0.01)
    with locked(folder):
        assert not (folder / "held").exists()
    other.join()
