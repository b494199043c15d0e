import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from command import (
    IMAGES,
    QUICK,
    Finished,
    begin,
    catalogue_words,
    cutouts,
    magnitude_table,
    only,
    places,
    run,
    run_well,
    state,
    write_arrays,
    write_catalogue,
)

from photoz_lit.config import Config
from photoz_lit.data.sources.mock import Settings
from photoz_lit.data.store import Store, open_store
from photoz_lit.stages.prepare import splits, training_labels


def test_prepared_data_are_used_again(mock_run: Finished) -> None:
    run_well("stage=prepare", *mock_run.words)
    assert only(mock_run.folder, "data_report.html").is_file()
    before = state(mock_run.folder)
    outcome = run_well("stage=prepare", *mock_run.words)
    assert "preparing" not in outcome.out
    assert "120 galaxies (84 train, 12 val, 24 test), images of shape (120, 5, 24, 24)" in outcome.out
    assert state(mock_run.folder) == before


def test_changed_table_is_prepared_again(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path)
    run_well("stage=prepare", *catalogue_words(path), *places(tmp_path))
    write_catalogue(tmp_path, n=70)
    outcome = run_well("stage=prepare", *catalogue_words(path), *places(tmp_path))
    assert "70 galaxies" in outcome.out


@pytest.mark.slow
def test_arrays_and_their_test_arrays(tmp_path: Path) -> None:
    words = write_arrays(tmp_path)
    (tmp_path / "test").mkdir()
    write_arrays(tmp_path / "test", n=15)
    np.save(tmp_path / "test" / "cutouts.npy", cutouts(15, 12, seed=9))
    table = (tmp_path / "test" / "table.csv").read_text().replace("0.05\n", "0.06\n")
    (tmp_path / "test" / "table.csv").write_text(table)
    more = (
        f"data.test_path={tmp_path / 'test' / 'table.csv'}",
        f"data.test_images={tmp_path / 'test' / 'cutouts.npy'}",
    )
    outcome = run_well("stage=prepare", *QUICK, *words, *more, *places(tmp_path))
    assert "15 test" in outcome.out
    store = open_store(only(tmp_path / "data", "store.json").parent)
    np.testing.assert_array_equal(
        store.inputs, np.concatenate([cutouts(), cutouts(15, 12, seed=9)]).astype(np.float16)
    )


def test_files_behind_a_folder_make_another_store(tmp_path: Path) -> None:
    images = tmp_path / "stamps"
    images.mkdir()
    write_arrays(tmp_path, n=20)
    words = [*QUICK, "survey.pixels=12", "data=stamps", f"data.images={images}", *places(tmp_path)]
    words += ["data.labelled=false", "stage=prepare"]

    def write(seed: int) -> None:
        for i, cube in enumerate(cutouts(4, 12, seed)):
            fits.writeto(images / f"{i}.fits", cube, overwrite=True)

    write(0)
    run_well(*words)
    write(1)
    run_well(*words)
    stores = [open_store(path.parent) for path in (tmp_path / "data").rglob("store.json")]
    assert len(stores) == 2
    assert (np.asarray(stores[0].inputs) != np.asarray(stores[1].inputs)).any()


SURVEY = [
    *(w for w in IMAGES if not w.startswith(("data.n_galaxies", "trainer.threads", "survey.pixels"))),
    *("data.n_galaxies=400", "survey.pixels=32"),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    run_well("stage=prepare", *SURVEY, "trainer.threads=1", *places(folder))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_preparation_goes_on_to_the_same_bytes(
    workers: int, mock_run: Finished, whole: Path, tmp_path: Path
) -> None:
    process = begin("stage=prepare", *SURVEY, f"trainer.threads={workers}", *places(tmp_path))
    until = time.monotonic() + 600
    while sum(p.stat().st_size for p in tmp_path.rglob("*.partial/inputs.npy")) < 1_000_000:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=300)  # its workers hold these pipes: they must have ended too
    outcome = run_well("stage=prepare", *SURVEY, *places(tmp_path))
    assert "going on at galaxy" in outcome.out
    for name in ("inputs.npy", "catalogue.fits"):
        assert only(tmp_path, name).read_bytes() == only(whole, name).read_bytes()


def drawn_store(tmp_path: Path, n: int = 4000) -> Store:
    rng = np.random.default_rng(2)
    catalogue = Table({"object_id": np.arange(n), "spec_z": rng.uniform(0, 0.4, n)})
    return Store(tmp_path, catalogue, np.zeros((n, 1)), "vectors")


def test_label_errors_reach_training_galaxies_and_never_those_of_the_test_split(tmp_path: Path) -> None:
    store = drawn_store(tmp_path)
    true, config = np.asarray(store.catalogue["spec_z"]), Config(data=Settings(label_error=0.05))
    split = splits(store, config)
    told = training_labels(store, config, split)
    np.testing.assert_array_equal(told[split == "test"], true[split == "test"])
    assert 0 <= told.min() < told.max() <= 0.4
    at_ends = np.count_nonzero((told < 0.01) | (told > 0.39)) / len(told)
    assert at_ends < 0.06  # of 0.05 without errors: they do not pile up there
    for name in ("train", "val"):
        error = (told - true)[(split == name) & (true > 0.15) & (true < 0.25)]
        assert np.std(error) == pytest.approx(0.05, rel=3 / np.sqrt(2 * error.size))
        assert np.mean(error) == pytest.approx(0, abs=3 * 0.05 / np.sqrt(error.size))
    np.testing.assert_array_equal(told, training_labels(store, config, split))
    other = training_labels(store, replace(config, seed=2), split)
    assert not np.isin(other[split == "train"], told).all()
    np.testing.assert_array_equal(training_labels(store, Config(), split), true)


@pytest.mark.slow
def test_semi_real_survey_keeps_the_copies_of_a_galaxy_together(tmp_path: Path) -> None:
    path = tmp_path / "real.csv"
    table = magnitude_table(40)
    table.rename_column("mag_u", "u")
    table["mag_z"][3] = np.nan
    table.write(path)
    words = [
        *IMAGES,
        "data=semi_real",
        f"data.path={path}",
        "data.magnitudes=[u,mag_g,mag_r,mag_i,mag_z]",
    ]
    stopped = run("stage=prepare", *words, *places(tmp_path))
    assert "column mag_z has an empty cell in 1 of 40 rows" in stopped.message
    outcome = run_well("stage=prepare", "data.drop_invalid=true", *words, *places(tmp_path))
    assert "120 galaxies" in outcome.out
    store = open_store(only(tmp_path / "data", "store.json").parent)
    ids, rows = np.unique(store.catalogue["object_id"], return_inverse=True)
    assert len(ids) == 39
    split = splits(store, Config(data=Settings()))
    for i in range(len(ids)):
        copies = np.flatnonzero(rows == i)
        assert len(set(split[copies])) == 1
        assert len(set(store.catalogue["mag_g"][copies])) == 1
        assert len({store.inputs[row].tobytes() for row in copies}) == len(copies) >= 3
    np.testing.assert_allclose(np.unique(store.catalogue["mag_u"]), np.sort(np.delete(table["u"], 3)))
    np.testing.assert_array_equal(store.catalogue["dered_petro_r"], store.catalogue["mag_r"])


def test_semi_real_survey_names_what_its_table_lacks(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path)
    words = [*IMAGES, "data=semi_real", f"data.path={path}", *places(tmp_path)]
    for word, said in (
        ("data.magnitudes=[mag_u,mag_g]", "name those of u, g, r, i and z"),
        ("data.magnitudes=[mag_u,mag_g,r,mag_i,mag_z]", "no column 'r' (set by data.magnitudes)"),
        ("data.columns.spec_z=redshift", "no column 'redshift' (set by data.columns.spec_z)"),
        ("survey.z_max=0.2", "spec_z is outside the survey's 0.0001-0.2"),
    ):
        assert said in run("stage=prepare", word, *words).message
