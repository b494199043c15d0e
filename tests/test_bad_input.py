"""Each bad input: one message, exit code 1 or 2, nothing damaged."""

import contextlib
import errno
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from astropy.table import Table
from command import (
    QUICK,
    Finished,
    catalogue_words,
    magnitude_table,
    only,
    places,
    run,
    run_well,
    state,
    write_arrays,
    write_catalogue,
)


def prepare(path: Path, folder: Path, *words: str) -> str:
    """Prepare a table that cannot be used: the message; no store may be left that says it is complete."""
    outcome = run("stage=prepare", *catalogue_words(path), *places(folder), *words)
    assert not list(folder.rglob("store.json"))
    assert not (folder / "runs").exists()
    return outcome.message


def prepare_arrays(
    folder: Path, spoil: Callable[[Path], object], *more: str, images: str = "cutouts.npy"
) -> str:
    words = [word.replace("cutouts.npy", images) for word in write_arrays(folder)]
    spoil(folder)
    outcome = run("stage=prepare", *QUICK, *words, *places(folder), *more)
    assert not list(folder.rglob("store.json"))
    return outcome.message


@pytest.mark.parametrize("name", ["inputs.npy", "store.json", "catalogue.fits"])
def test_truncated_store(name: str, catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    path = only(tmp_path / "data", name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = state(tmp_path)
    outcome = run("stage=classifier", "correction=none", *copied.words)
    assert outcome.code == 1
    assert "truncated" in outcome.message
    assert "stage=prepare" in outcome.message
    after = state(tmp_path)
    assert {key: after[key] for key in before} == before


def test_nan_image(tmp_path: Path) -> None:
    def spoil(folder: Path) -> None:
        images = np.load(folder / "cutouts.npy")
        images[7, 2, 3, 3] = np.nan
        np.save(folder / "cutouts.npy", images)

    message = prepare_arrays(tmp_path, spoil)
    assert "first in row 7" in message
    assert "NaN" in message


def spoilt(folder: Path, row: int, column: str, value: str) -> Path:
    """Write a table of 90 galaxies with one spoilt cell."""
    path = write_catalogue(folder)
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[row + 1][lines[0].index(column)] = value
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("spec_z", "-0.01", "spec_z is negative"),
        ("mag_g", "", "column mag_g has an empty cell"),
        ("mag_i", "-9999", "column mag_i is no magnitude but a filler (such as -999): no value, in 1 of"),
        (
            "mag_i",
            "99",
            "column mag_i is no magnitude but 99: not detected (its error is then the limit), in 1",
        ),
        ("mag_i", "-99", "column mag_i is no magnitude but -99: not observed, in 1 of"),
        ("mag_i", "50", "column mag_i is no magnitude (above 0, up to 40; others: data=embeddings)"),
        ("spec_z", "far", "column spec_z holds text where numbers are needed: 'far' in row 11"),
    ],
)
def test_cell_that_cannot_be_used(column: str, value: str, said: str, tmp_path: Path) -> None:
    path = spoilt(tmp_path, 11, column, value)
    message = prepare(path, tmp_path)
    assert said in message
    assert "galaxies.csv" in message
    assert "text" in said or "1 of 90 rows (counted from 0): 11" in message
    if column == "spec_z" and "text" not in said:
        words = ("stage=prepare", *catalogue_words(path), *places(tmp_path), "data.drop_invalid=true")
        assert "89 galaxies" in run_well(*words).out


@pytest.mark.parametrize("column", ["spec_z", "mag_r", "mag_u"])
def test_missing_column(column: str, tmp_path: Path) -> None:
    table = magnitude_table()
    table.remove_column(column)
    table.write(tmp_path / "galaxies.csv")
    message = prepare(tmp_path / "galaxies.csv", tmp_path)
    assert f"no column '{column}'" in message
    assert "mag_err_g" in message


@pytest.mark.parametrize("name", ["galaxies.csv", "galaxies.fits", "galaxies.ecsv", "galaxies.hdf5"])
def test_rubbish_for_a_table(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(5000))
    assert name in prepare(tmp_path / name, tmp_path)


def test_truncated_fits_table(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path, "galaxies.fits")
    path.write_bytes(path.read_bytes()[:-2880])
    assert "galaxies.fits: cannot be read as .fits" in prepare(path, tmp_path)


def test_table_that_is_not_there_or_of_an_unknown_kind(tmp_path: Path) -> None:
    assert "no such file" in prepare(tmp_path / "no.csv", tmp_path)
    assert "unknown kind of table '.doc'" in prepare(tmp_path / "galaxies.doc", tmp_path)


def test_tables_of_different_columns(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path)
    test = magnitude_table(20, seed=1)
    test["ra"], test["dec"] = np.linspace(0, 9, 20), 0.0
    test.write(tmp_path / "test.csv")
    message = prepare(path, tmp_path, f"data.test_path={tmp_path / 'test.csv'}")
    assert "only one of them has dec, ra" in message


@pytest.mark.parametrize(
    ("name", "spoil", "said"),
    [
        ("truncated npy", lambda path: path.write_bytes(path.read_bytes()[:5000]), "cannot be read"),
        ("empty npy", lambda path: path.write_bytes(b""), "cannot be read"),
        ("rubbish", lambda path: path.write_bytes(bytes(range(250)) * 20), "cannot be read"),
        ("too few", lambda path: np.save(path, np.load(path)[:-1]), "39 rows for 40 rows of"),
        ("other pixels", lambda path: np.save(path, np.load(path)[..., :-1]), "(40, 5, 12, 11)"),
        ("other bands", lambda path: np.save(path, np.load(path)[:, :4]), "(40, 4, 12, 12)"),
        ("text", lambda path: np.save(path, np.load(path).astype("U9")), "numbers expected"),
        ("objects", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "cannot be read"),
        ("absent", lambda path: path.unlink(), "no such file"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_cutouts_that_cannot_be_used(
    name: str, spoil: Callable[[Path], object], said: str, tmp_path: Path
) -> None:
    message = prepare_arrays(tmp_path, lambda folder: spoil(folder / "cutouts.npy"))
    assert "cutouts.npy" in message
    assert said in message


def test_truncated_npz(tmp_path: Path) -> None:
    def spoil(folder: Path) -> None:
        np.savez_compressed(folder / "cutouts.npz", np.load(folder / "cutouts.npy"))
        content = (folder / "cutouts.npz").read_bytes()
        (folder / "cutouts.npz").write_bytes(content[: len(content) // 2])

    assert "cutouts.npz: cannot be read" in prepare_arrays(tmp_path, spoil, images="cutouts.npz")


@pytest.mark.parametrize("kind", ["rubbish", "truncated", "empty", "of another encoder", "no checkpoint"])
def test_wrong_checkpoint(kind: str, catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    path = only(tmp_path / "runs", "representation/*/model.ckpt")
    content = torch.load(path, weights_only=True)
    match kind:
        case "rubbish":
            path.write_bytes(np.random.default_rng(0).bytes(3000))
        case "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        case "empty":
            path.write_bytes(b"")
        case "of another encoder":
            state_dict = {f"encoder.other.{k}": v for k, v in content["state_dict"].items()}
            torch.save({**content, "state_dict": state_dict}, path)
        case _:
            torch.save({"weights": content["state_dict"]}, path)
    before = state(tmp_path)
    outcome = run("stage=classifier", "correction=balanced", *copied.words)
    assert outcome.code == 1
    assert str(path) in outcome.message
    assert "train again" in outcome.message
    after = state(tmp_path)
    assert {key: after[key] for key in before} == before


class Malice:
    """Unpickling makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
@pytest.mark.parametrize("where", ["model.ckpt", "training/last.ckpt", "filled.npy"])
def test_malicious_pickle_is_refused_and_not_run(
    where: str, how: str, catalogue_run: Finished, tmp_path: Path
) -> None:
    copied = catalogue_run.copy(tmp_path)
    bait = {"state_dict": Malice(tmp_path / "pwned"), "settings": {}}
    if where == "training/last.ckpt":
        path = only(tmp_path / "runs", "training/result.ckpt").with_name("last.ckpt")
        path.with_name("result.ckpt").unlink()
        (path.parent.parent / "done.json").unlink()
        words = ("stage=representation", *copied.words)
    else:
        path = only(tmp_path / "runs", where if where == "filled.npy" else f"representation/*/{where}")
        words = ("stage=classifier", "correction=none", *copied.words)
    if how == "torch":
        torch.save(bait, path)
    else:
        path.write_bytes(pickle.dumps(bait))
    outcome = run(*words)
    assert not (tmp_path / "pwned").exists()
    assert outcome.code == 1
    assert str(path.parent) in outcome.message
    with contextlib.suppress(TypeError):
        pickle.loads(pickle.dumps(bait))
    assert (tmp_path / "pwned").exists()  # the bait is real


@pytest.mark.parametrize("name", ["config.yaml", "done.json"])
def test_damaged_facts_of_a_run(name: str, catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    path = only(tmp_path / "runs", f"representation/*/{name}")
    path.write_text("]: {")
    outcome = run("stage=classifier", "correction=none", *copied.words)
    assert outcome.code == 1
    assert name in outcome.message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 300 kB, where that is permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here; a test beside this one simulates it")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_full_disk_while_a_store_is_written(small_disk: Path, tmp_path: Path) -> None:
    words = write_arrays(tmp_path, n=400)
    places_there = (f"output_dir={tmp_path / 'runs'}", f"data_dir={small_disk}")
    outcome = run("stage=prepare", *QUICK, *words, *places_there)
    assert outcome.code == 1
    assert "No space left on device" in outcome.message
    assert not list(small_disk.rglob("store.json"))


def test_full_disk_while_a_run_is_written(small_disk: Path, catalogue_run: Finished) -> None:
    words = (*catalogue_run.words[:-2], f"output_dir={small_disk}", catalogue_run.words[-1])
    (small_disk / "filler").write_bytes(b"0" * 250_000)
    outcome = run("stage=representation", *words)
    assert outcome.code == 1
    assert "No space left on device" in outcome.message
    assert not list(small_disk.rglob("done.json"))
    (small_disk / "filler").unlink()


@pytest.mark.parametrize("what", ["store", "results", "checkpoint"])
def test_full_disk_as_simulated(
    what: str, catalogue_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    place = {
        "store": "photoz_lit.data.store.os.fsync",
        "results": "photoz_lit.results.reserve",
        "checkpoint": "photoz_lit.checkpoints.torch.save",
    }[what]
    words = (*catalogue_run.words[:-2], *places(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(place, full)
        outcome = run("stage=representation", *words)
    assert outcome.code == 1
    assert "No space left on device" in outcome.message
    assert not list(tmp_path.rglob("done.json"))
    run_well("stage=representation", *words)
    whole = only(catalogue_run.folder / "runs", "representation/*/metrics.json").read_text()
    assert only(tmp_path / "runs", "metrics.json").read_text() == whole


@pytest.mark.parametrize("key", ["output_dir", "data_dir"])
def test_folder_that_cannot_be_written(key: str, tmp_path: Path) -> None:
    path = write_catalogue(tmp_path)
    (tmp_path / "file").write_text("no folder")
    outcome = run(
        "stage=representation",
        *catalogue_words(path),
        *(word for word in places(tmp_path) if not word.startswith(key)),
        f"{key}={tmp_path / 'file' / 'x'}",
    )
    assert outcome.code == 1
    assert str(tmp_path / "file") in outcome.message
    assert (tmp_path / "file").read_text() == "no folder"


def test_disk_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir

    def refuse(self: Path, *args: Any, **options: Any) -> None:
        if not self.is_relative_to(tmp_path):
            return mkdir(self, *args, **options)
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    path = write_catalogue(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        outcome = run("stage=representation", *catalogue_words(path), *places(tmp_path))
    assert outcome.code == 1
    assert "Read-only file system" in outcome.message
    assert str(tmp_path) in outcome.message


def test_one_galaxy_classes_train_and_are_corrected(tmp_path: Path) -> None:
    table = magnitude_table(60, seed=2)
    r = np.asarray(table["mag_r"])
    table = table[(r > 15.6) | (np.arange(60) % 9 == 0)]  # bright slices and outputs almost without galaxies
    table["mag_r"][0] = 13.1
    table.write(tmp_path / "galaxies.csv")
    words = (*catalogue_words(tmp_path / "galaxies.csv"), *places(tmp_path), "data.test_fraction=0.1")
    run_well("stage=representation", *words)
    for correction in ("full", "hard", "skip_balanced"):
        run_well("stage=classifier", f"correction={correction}", "correction.subset.threshold=1", *words)
        found = only(tmp_path / "runs", f"correction={correction}*/photo_z.fits")
        assert np.isfinite(Table.read(found)["photo_z_mode"]).all()


def test_output_without_any_galaxy_trains_and_is_corrected(tmp_path: Path) -> None:
    table = magnitude_table(60, seed=3)
    table["mag_r"] = np.random.default_rng(0).uniform(16.6, 16.9, 60)  # one slice of eleven
    table.write(tmp_path / "galaxies.csv")
    words = (*catalogue_words(tmp_path / "galaxies.csv"), *places(tmp_path))
    run_well("stage=representation", *words)
    run_well("stage=classifier", "correction=full", *words)
    found = only(tmp_path / "runs", "correction=full*/photo_z.fits")
    assert np.isfinite(Table.read(found)["photo_z_mean"]).all()


def test_too_few_galaxies_for_the_splits(tmp_path: Path) -> None:
    magnitude_table(4).write(tmp_path / "galaxies.csv")
    outcome = run("stage=representation", *catalogue_words(tmp_path / "galaxies.csv"), *places(tmp_path))
    assert outcome.code == 1
    assert "the val split is empty with 4 galaxies" in outcome.message
