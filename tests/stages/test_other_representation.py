"""`representation=FOLDER`: heads on the frozen encoder of another run, fitted to other galaxies."""

import json
import shutil
from pathlib import Path

import h5py
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
    probabilities,
    run,
    run_well,
    state,
)

from photoz_lit import metrics
from photoz_lit.checkpoints import open_weights
from photoz_lit.config.folders import PRETRAINED

COARSE = ("survey.n_bins=10", "survey.extend_left=5", "survey.extend_right=5")


def theirs(finished: Finished) -> Path:
    return next((finished.folder / "runs").glob("*/representation/*/done.json")).parent


def words_of(finished: Finished, folder: Path) -> tuple[str, ...]:
    """Words that fit heads to a table of other galaxies."""
    folder.mkdir(exist_ok=True)
    magnitude_table(80, seed=3).write(folder / "real.csv", overwrite=True)
    words = catalogue_words(folder / "real.csv")
    own = [word for word in words if not word.startswith("encoder.")]
    return (*own, *COARSE, f"representation={theirs(finished)}", *places(folder))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    return content


def test_heads_are_fitted_on_the_frozen_encoder_of_another_run(
    catalogue_run: Finished, tmp_path: Path
) -> None:
    words, before = words_of(catalogue_run, tmp_path), state(catalogue_run.folder)
    run_well("-m", "stage=classifier", "correction=none,full", *words)
    assert state(catalogue_run.folder) == before
    own = only(tmp_path / "runs", "representation/*/done.json").parent
    assert "representation=head_multi" in (own / "settings.txt").read_text()
    folders = [only(tmp_path / "runs", f"classifier/correction={c},*") for c in ("none", "full")]
    encoder = {k: v for k, v in weights(theirs(catalogue_run)).items() if k.startswith("encoder.")}
    for folder in (own, *folders):
        for key, value in encoder.items():
            assert torch.equal(weights(folder)[key], value), key
        assert json.loads((folder / "origin.json").read_text())["encoder"]
    assert len(list(tmp_path.rglob("embeddings-*"))) == 1
    # `none` is a first head of this run's own labels, gate included.
    pdfs = []
    for folder in (own, folders[0]):
        with h5py.File(folder / "pdf.hdf5") as file:
            pdfs.append(probabilities(file))
    np.testing.assert_array_equal(*pdfs)
    assert pdfs[0].shape[1] == 10
    assert not torch.equal(
        weights(own)["head.gate.weight"], weights(theirs(catalogue_run))["head.gate.weight"]
    )
    made = state(tmp_path)
    assert run_well("stage=classifier", "correction=full", *words).out.count("is complete: skipped") == 1
    assert state(tmp_path) == made


def test_the_run_folder_alone_predicts_what_was_tested(catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path / "theirs")
    run_well("stage=classifier", "correction=full", *words_of(copied, tmp_path / "own"))
    shutil.rmtree(copied.folder)
    made = only(tmp_path / "own" / "runs", "classifier/correction=full,*")
    folder = Path(shutil.move(made, tmp_path / made.name))
    shutil.rmtree(tmp_path / "own" / "runs")
    place = ("data=catalogue", f"data.path={tmp_path / 'own' / 'real.csv'}", *places(tmp_path))
    run_well("stage=predict", f"model={folder}", *place)
    tested = Table.read(folder / "photo_z.fits")
    again = Table.read(only(tmp_path / "runs", "predict/*/*/photo_z.fits"))
    photo_z = np.ma.filled(again["photo_z"], np.nan)[np.asarray(tested["object_id"])]
    known = np.isfinite(photo_z)
    assert known.sum() > 5
    np.testing.assert_allclose(photo_z[known], tested["photo_z"][known], atol=1e-4)


def test_images_take_the_encoder_of_images(mock_run: Finished, tmp_path: Path) -> None:
    words = (*mock_run.words[:-2], "data.mock_seed=9", *COARSE, *places(tmp_path))
    run_well(
        "stage=classifier", "correction=none", "head=single", f"representation={theirs(mock_run)}", *words
    )
    with h5py.File(only(tmp_path / "runs", "classifier/*/pdf.hdf5")) as file:
        np.testing.assert_allclose(probabilities(file).sum(axis=1), 1, rtol=1e-5)


def test_another_encoder_behind_the_same_name_is_another_run(catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path / "theirs")
    words = ("stage=classifier", "correction=none", *words_of(copied, tmp_path / "own"))
    run_well(*words)
    model = theirs(copied) / "model.ckpt"
    content = torch.load(model, weights_only=True)
    content["state_dict"]["encoder.layers.0.bias"] += 0.01
    torch.save(content, model)
    assert "was made from another encoder than there is now" in run(*words).message


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("encoder.hidden=[8]", "the encoder is that of representation="),
        ("survey.bands=griz", "was trained with survey.bands=ugriz but here it is griz"),
        ("data.magnitude_errors=[mag_err_u]", "reads 0 errors of magnitudes but"),
        ("data.magnitudes=[mag_g,mag_r]", "cannot read inputs of shape (2, 2)"),
    ],
)
def test_what_does_not_fit_is_refused(word: str, said: str, catalogue_run: Finished, tmp_path: Path) -> None:
    assert said in run("stage=classifier", *words_of(catalogue_run, tmp_path), word).message


def test_images_cannot_be_read_by_an_encoder_of_magnitudes(
    catalogue_run: Finished, mock_run: Finished, tmp_path: Path
) -> None:
    words = words_of(catalogue_run, tmp_path)
    message = run("stage=classifier", *words, f"representation={theirs(mock_run)}", "seed=2").message
    assert "typed twice" in message
    words = tuple(word for word in words if not word.startswith(("representation=", "encoder=")))
    message = run("stage=classifier", *words, f"representation={theirs(mock_run)}").message
    assert "reads images but data=catalogue has features" in message


def test_a_folder_of_something_else_is_refused(catalogue_run: Finished, tmp_path: Path) -> None:
    words = [word for word in words_of(catalogue_run, tmp_path) if not word.startswith("representation=")]
    classifier = next((catalogue_run.folder / "runs").glob("*/classifier/*"))
    for folder, said in (
        (tmp_path / "nothing", "no such folder"),
        (tmp_path, "no finished run is there"),
        (classifier, "that is a run of stage=classifier"),
    ):
        assert said in run("stage=classifier", f"representation={folder}", *words).message


@pytest.fixture(scope="module")
def few_words(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Words that fit heads to few galaxies on the package's model of magnitudes."""
    folder = tmp_path_factory.mktemp("few")
    magnitude_table(60, seed=5).write(folder / "real.csv")
    own = [w for w in catalogue_words(folder / "real.csv") if not w.startswith(("encoder", "experiment"))]
    steps = ("training.representation.max_steps=4", "training.representation.check_every=4", "n_bootstrap=5")
    heads = ("training.hidden.max_steps=4", "training.hidden.check_every=4")
    return ("experiment=few_spectra", *own, *steps, *heads, "survey.n_bins=30")


def test_the_packages_model_is_taken_by_its_name(few_words: tuple[str, ...], tmp_path: Path) -> None:
    run_well(*few_words, *places(tmp_path))
    folder = only(tmp_path / "runs", "classifier/correction=few,*")
    theirs = PRETRAINED / "sdss_main_magnitudes" / "1"
    _, packaged = open_weights(theirs)
    for key, value in packaged["state_dict"].items():
        if key.startswith("encoder."):
            assert torch.equal(weights(folder)[key], value), key
    with np.load(folder / "finishing.npz") as arrays:
        assert 0 <= arrays["0.borrowed.share"] <= 1
    data = [word for word in few_words if word.startswith("data")]
    run_well("stage=predict", f"model={folder}", *data, *places(tmp_path))
    tested = Table.read(folder / "photo_z.fits")
    again = Table.read(only(tmp_path / "runs", "predict/*/*/photo_z.fits"))
    np.testing.assert_allclose(again["photo_z"][tested["object_id"]], tested["photo_z"], atol=1e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["representation=sdss_main"], "sdss_main is of cutouts and sdss_main_magnitudes of magnitudes"),
        (["representation=sdss"], "no such folder. Name the folder"),
        (["representation=sdss"], "one that comes with the package: sdss_main, sdss_main_magnitudes"),
        (
            ["representation=null", "encoder.noise=0"],
            "has none: type representation=sdss_main or sdss_main_magnitudes",
        ),
    ],
)
def test_a_name_that_does_not_fit_is_told_those_that_do(
    words: list[str], said: str, few_words: tuple[str, ...], tmp_path: Path
) -> None:
    assert said in run(*few_words, *words, *places(tmp_path)).message


@pytest.mark.slow
def test_cutouts_take_the_packages_model_of_cutouts(tmp_path: Path) -> None:
    words = (*QUICK, "data.n_galaxies=60", "data.mock_seed=9", "logger=none", "survey.n_bins=30")
    steps = ("training.hidden.max_steps=4", "training.hidden.check_every=4")
    own = ("stage=classifier", "correction=few", "representation=sdss_main", "survey.pixels=64")
    run_well(*own, *words, *steps, *places(tmp_path))
    table = Table.read(only(tmp_path / "runs", "classifier/*/photo_z.fits"))
    with np.load(only(tmp_path / "runs", "classifier/*/finishing.npz")) as arrays:
        assert arrays["0.borrowed.share"] > 0.5
    dz = metrics.residual(np.asarray(table["spec_z"]), np.asarray(table["photo_z"]))
    assert np.median(abs(dz)) < 0.03
