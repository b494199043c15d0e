import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from command import (
    BANDS,
    IMAGES,
    Finished,
    begin,
    catalogue_words,
    magnitude_table,
    only,
    parsed,
    places,
    probabilities,
    run,
    run_well,
    state,
)
from numpy.typing import NDArray

from photoz_lit import inference
from photoz_lit.data.dust import ebv_at
from photoz_lit.data.sources import arrays, catalogue, pasquet, sdss, stamps, store
from photoz_lit.data.store import ESTIMATED, open_store, write_store
from photoz_lit.models.encoders.fast import Fast
from photoz_lit.results import Results
from photoz_lit.stages import predict
from photoz_lit.stages.predict import inherited

PIXELS = 24
CPU = ("trainer.accelerator=cpu",)


@pytest.fixture(scope="module")
def trained(mock_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return two classifiers on one representation of simulated cutouts."""
    copied = mock_run.copy(tmp_path_factory.mktemp("trained"))
    for correction in ("full", "unshifted"):
        run_well("stage=classifier", f"correction={correction}", *copied.words)
    return copied


def model_of(finished: Finished, name: str = "full") -> Path:
    """Return the run folder of a correction."""
    return only(finished.folder / "runs", f"classifier/correction={name},*")


def galaxies(n: int = 40, seed: int = 3) -> tuple[Table, NDArray[np.float32]]:
    """Draw a table without spec_z, and cutouts (n, 5, PIXELS, PIXELS)."""
    rng = np.random.default_rng(seed)
    table = Table({"object_id": np.arange(n) + 1000, "dered_petro_r": rng.uniform(16.5, 17.0, n)})
    table["ebv"] = rng.uniform(0, 0.1, n)
    images = rng.normal(0, 0.1, (n, 5, PIXELS, PIXELS)).astype(np.float32)
    images[:, :, 10:14, 10:14] += rng.uniform(1, 20, (n, 5, 1, 1))
    return table, images


def write_target(folder: Path, table: Table, images: NDArray[np.float32]) -> tuple[str, ...]:
    """Write a store and return the words that read it."""
    write_store(
        folder,
        table,
        [images],
        shape=images.shape,
        dtype="float32",
        kind="images",
        settings={},
        keep_faulty=True,
    )
    return ("data=store", f"data.path={folder}")


def estimated(model: Path | str, place: Path, *words: str) -> Path:
    """Run `stage=predict` and return the folder of its results."""
    run_well("stage=predict", f"model={model}", *CPU, *words, *places(place))
    return only(place / "runs", "predict/*/*/done.json").parent


def read(folder: Path) -> tuple[Table, NDArray[np.float32]]:
    """Return the table, and p(z)."""
    with h5py.File(folder / "pdf.hdf5") as file:
        table = Table.read(folder / "photo_z.fits", mask_invalid=False, character_as_bytes=False)
        return table, probabilities(file)


def content(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "photo_z.fits").read_bytes(), (folder / "pdf.hdf5").read_bytes()


def test_it_takes_as_many_threads_as_are_typed(trained: Finished, tmp_path: Path) -> None:
    words = ("stage=predict", f"model={model_of(trained)}", *CPU, "trainer.threads=1", "data.n_galaxies=10")
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        predict.run(parsed(*words, *places(tmp_path)))  # PyTorch is imported there, too late for __main__
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(usual)


def test_simulated_galaxies_get_estimates(trained: Finished, tmp_path: Path) -> None:
    folder = estimated(model_of(trained), tmp_path, "data.n_galaxies=20", "data.mock_seed=1")
    table, pdf = read(folder)
    assert folder.parent.name == model_of(trained).name
    assert len(table) == 20
    usable = np.isfinite(table["photo_z"])
    assert usable.sum() > 10
    np.testing.assert_allclose(pdf[usable].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(table["photo_z"], table["photo_z_mode"])
    for name in ("photo_z_mean", "photo_z_median", "photo_z_lower", "photo_z_upper", "distance"):
        assert np.isfinite(table[name][usable]).all(), name
    done = json.loads((folder / "done.json").read_text())
    assert done["estimated"] == usable.sum()
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.yaml",
        "done.json",
        "frozen.json",
        "origin.json",
        "pdf.hdf5",
        "photo_z.fits",
    ]


def test_another_format_of_finished_estimates_is_made_without_estimating(
    trained: Finished, tmp_path: Path
) -> None:
    words = ("data.n_galaxies=20", "data.mock_seed=1")
    folder = estimated(model_of(trained), tmp_path, *words)
    made = (folder / "done.json").stat().st_mtime_ns
    again = estimated(model_of(trained), tmp_path, *words, "format=parquet")
    assert again == folder
    assert (folder / "done.json").stat().st_mtime_ns == made
    rows = pq.read_table(folder / "photo_z.parquet")
    np.testing.assert_array_equal(rows["photoz_lit_z_mode"], read(folder)[0]["photo_z_mode"])


def test_test_galaxies_get_the_estimates_of_the_run_itself(trained: Finished, tmp_path: Path) -> None:
    model = model_of(trained)
    store = only(trained.folder / "data", "store.json").parent
    table, pdf = read(estimated(model, tmp_path, "data=store", f"data.path={store}"))
    own_table, own = read(model)
    with h5py.File(model / "pdf.hdf5") as ours, h5py.File(only(tmp_path, "pdf.hdf5")) as theirs:
        for name in ("meta/bins", "priors/implicit_prior", "priors/training_prior"):
            np.testing.assert_array_equal(ours[name][:], theirs[name][:])
    row_of = {i: row for row, i in enumerate(table["object_id"])}
    rows = np.array([row_of[i] for i in own_table["object_id"]])
    usable = table["flag"][rows] == "good"
    assert usable.sum() > 15
    np.testing.assert_allclose(pdf[rows[usable]], own[usable], rtol=0, atol=2e-5)
    np.testing.assert_allclose(
        table["photo_z_mean"][rows[usable]], own_table["photo_z_mean"][usable], rtol=0, atol=1e-5
    )


def test_spec_z_changes_nothing(trained: Finished, tmp_path: Path) -> None:
    table, images = galaxies()
    results = {}
    for name, spec_z in (
        ("with", np.linspace(0, 0.3, 40)),
        ("permuted", np.linspace(0.3, 0, 40)),
        ("none", None),
    ):
        known = table.copy()
        if spec_z is not None:
            known["spec_z"] = spec_z
        words = write_target(tmp_path / name / "target", known, images)
        folder = estimated(model_of(trained), tmp_path / name, *words)
        results[name] = read(folder)[0], (folder / "pdf.hdf5").read_bytes()
    np.testing.assert_array_equal(results["permuted"][0]["spec_z"], np.linspace(0.3, 0, 40))
    for name in ("permuted", "none"):
        assert results[name][1] == results["with"][1]
        for column in results["none"][0].colnames:
            np.testing.assert_array_equal(results[name][0][column], results["with"][0][column], column)
    assert "spec_z" not in results["none"][0].colnames


def test_galaxies_that_cannot_be_used_are_flagged(
    trained: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "CHUNK", 5)
    table, images = galaxies()
    clean, clean_pdf = read(
        estimated(model_of(trained), tmp_path / "clean", *write_target(tmp_path / "a", table, images))
    )
    images[3, 0, 0, 0] = np.nan
    images[4] = np.inf
    table["dered_petro_r"][5:8] = 30.0, 10.0, np.nan
    table["flag"] = np.full(40, "", "U8")
    table["flag"][8:20] = "edge"  # a whole chunk, and more
    words = write_target(tmp_path / "b", table, images)
    place = tmp_path / "flagged"
    outcome = run_well("stage=predict", f"model={model_of(trained)}", *CPU, *words, *places(place))
    folder = only(place, "done.json").parent
    flagged, pdf = read(folder)
    assert list(flagged["flag"][3:5]) == ["pixels", "pixels"]
    assert set(flagged["flag"][5:7]) <= {"r_range", "far"}
    assert flagged["flag"][8] == "edge"
    usable = np.isin(flagged["flag"], ESTIMATED)
    assert usable.sum() == 40 - 14
    assert np.isnan(pdf[~usable]).all()
    for name in ("photo_z", "photo_z_median", "distance"):
        assert np.isnan(flagged[name][~usable]).all()
        np.testing.assert_allclose(flagged[name][usable], clean[name][usable], rtol=1e-4)
    np.testing.assert_allclose(pdf[usable], clean_pdf[usable], rtol=0, atol=2e-5)
    counts = json.loads((folder / "done.json").read_text())["flagged"]
    assert (counts["edge"], counts["pixels"]) == (12, 2)
    assert "26 of 40 galaxies have a photo_z (flagged: edge 12, " in outcome.out


def test_r_is_not_needed(trained: Finished, tmp_path: Path) -> None:
    table, images = galaxies()
    table.remove_column("dered_petro_r")
    words = write_target(tmp_path / "target", table, images)
    outcome = run_well("stage=predict", f"model={model_of(trained)}", *CPU, *words, *places(tmp_path))
    assert "no column dered_petro_r" in outcome.out
    assert "40 of 40 galaxies have a photo_z" in outcome.out


def test_galaxies_unlike_any_in_training_are_far(trained: Finished, tmp_path: Path) -> None:
    table, images = galaxies()
    store = open_store(only(trained.folder / "data", "store.json").parent)
    images[:20] = store.inputs[:20]
    images[20:] *= 1000
    words = write_target(tmp_path / "target", table, images)
    found, _ = read(estimated(model_of(trained), tmp_path, *words))
    assert not (found["flag"][:20] == "far").all()
    assert (found["flag"][20:] == "far").all()
    assert found["distance"][:20].max() < found["distance"][20:].min()


@pytest.mark.parametrize("stop_after", [0, 1, 3])
def test_interrupted_prediction_ends_with_the_same_bytes(
    stop_after: int, trained: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = write_target(tmp_path / "target", *galaxies())
    monkeypatch.setattr(inference, "CHUNK", 11)
    whole = estimated(model_of(trained), tmp_path / "whole", *words)
    append, calls = Results.append, 0

    def once_too_often(self: Results, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise KeyboardInterrupt
        append(self, *args)

    place = tmp_path / "again"
    with monkeypatch.context() as patched:
        patched.setattr(Results, "append", once_too_often)
        command = ("stage=predict", f"model={model_of(trained)}", *CPU, *words)
        assert run(*command, *places(place)).code == 130
    assert not list(place.rglob("done.json"))
    outcome = run_well(*command, *places(place))
    assert (f"going on at galaxy {11 * stop_after} of 40" in outcome.out) == (stop_after > 0)
    folder = only(place, "done.json").parent
    assert content(folder) == content(whole)
    done = [json.loads((f / "done.json").read_text())["flagged"] for f in (folder, whole)]
    assert done[0] == done[1]
    assert not list(folder.glob("*partial*"))


def test_finished_prediction_is_skipped_and_changed_models_are_refused(
    trained: Finished, tmp_path: Path
) -> None:
    own = trained.copy(tmp_path)
    words = write_target(tmp_path / "target", *galaxies())
    model = model_of(own)
    command = ("stage=predict", f"model={model}", *CPU, *words, *places(tmp_path))
    run_well(*command)
    before = state(tmp_path)
    assert "is complete: skipped" in run_well(*command).out
    assert state(tmp_path) == before
    assert "another estimate" in run(*command, "estimate=mean").message
    checkpoint = torch.load(model / "model.ckpt", weights_only=True)
    checkpoint["state_dict"]["head.redshift.bias"] += 1
    torch.save(checkpoint, model / "model.ckpt")
    outcome = run(*command)
    assert outcome.code == 2
    assert "was made from another model than there is now" in outcome.message


def test_ensemble_is_the_mean_of_its_members(
    trained: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = write_target(tmp_path / "target", *galaxies())
    members = [estimated(model_of(trained, name), tmp_path / name, *words) for name in ("full", "unshifted")]
    calls, forward = [], Fast.forward

    def counted(self: Fast, image: torch.Tensor, ebv: torch.Tensor) -> torch.Tensor:
        calls.append(len(image))
        return forward(self, image, ebv)

    monkeypatch.setattr(Fast, "forward", counted)
    pattern = trained.folder / "runs" / "*" / "classifier" / "correction=*"
    folder = estimated(pattern, tmp_path / "both", *words)
    assert folder.parent.name.startswith("ensemble-")
    assert calls == [40]  # one representation, one batch
    pdfs = [read(member)[1] for member in members]
    np.testing.assert_allclose(read(folder)[1], np.mean(pdfs, axis=0), rtol=0, atol=1e-6)
    assert not np.allclose(pdfs[0], pdfs[1])


def test_members_with_other_bins_are_no_ensemble(trained: Finished, tmp_path: Path) -> None:
    words = write_target(tmp_path / "target", *galaxies())
    pattern = trained.folder / "runs" / "*" / "*" / "*"
    outcome = run("stage=predict", f"model={pattern}", *CPU, *words, *places(tmp_path))
    assert outcome.code == 2
    assert "differ in bins of p(z).extend_left: 10 -> 0" in outcome.message.replace("bins of p(z)extend", "")


def test_symmetries_are_averaged(tmp_path: Path) -> None:
    words = ("encoder=net_s1", "training.representation.max_steps=2", *IMAGES, *places(tmp_path))
    run_well("stage=representation", *words)
    model = only(tmp_path / "runs", "representation/*")
    table, images = galaxies()
    table, images = table[:10], images[:10]
    images[:, :, 3:6, 2] += 5  # so that turning changes something
    results = {}
    for name, turned in (("as is", images), ("turned", images.swapaxes(2, 3)[..., ::-1].copy())):
        for n in (1, 8):
            place = tmp_path / f"{name} {n}"
            words = write_target(place / "target", table, turned)
            folder = estimated(model, place, *words, f"predict.symmetries={n}")
            assert folder.parent.name.endswith(",symmetries=8") == (n == 8)
            results[name, n] = read(folder)[1]
    np.testing.assert_allclose(results["as is", 8], results["turned", 8], rtol=0, atol=1e-5)
    assert np.abs(results["as is", 1] - results["turned", 1]).max() > 1e-5
    np.testing.assert_allclose(results["as is", 8].sum(axis=1), 1, rtol=1e-5)


def test_run_folder_alone_is_enough(trained: Finished, tmp_path: Path) -> None:
    words = write_target(tmp_path / "target", *galaxies())
    here = estimated(model_of(trained), tmp_path / "here", *words)
    moved = tmp_path / "elsewhere" / model_of(trained).name
    shutil.copytree(model_of(trained), moved)
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path / "elsewhere")
        assert content(estimated(moved.name, tmp_path / "there", *words)) == content(here)


def test_run_without_reference_gives_no_distances(trained: Finished, tmp_path: Path) -> None:
    words = write_target(tmp_path / "target", *galaxies())
    model = tmp_path / "old"
    shutil.copytree(model_of(trained), model)
    (model / "reference.npz").unlink()
    outcome = run_well("stage=predict", f"model={model}", *CPU, *words, *places(tmp_path))
    assert "has no reference.npz" in outcome.out
    table, _ = read(only(tmp_path, "predict/*/*/done.json").parent)
    assert np.isnan(table["distance"]).all()
    assert (table["flag"] != "far").all()
    assert np.isfinite(table["photo_z"]).all()


def test_folder_of_stamps_without_any_table(trained: Finished, tmp_path: Path) -> None:
    _, images = galaxies(6)
    images = images.astype(np.float16).astype(np.float32)  # as a store of stamps keeps them
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    for i, image in enumerate(images):
        for band, plane in zip(BANDS, image, strict=True):
            fits.PrimaryHDU(plane).writeto(stamps / f"galaxy{i}-{band}.fits")
    words = ("data=stamps", f"data.images={stamps}")
    table, pdf = read(estimated(model_of(trained), tmp_path, *words))
    assert [str(i) for i in table["object_id"]] == [f"galaxy{i}" for i in range(6)]
    bare = Table({"object_id": np.arange(6), "ebv": np.zeros(6)})
    store = write_target(tmp_path / "target", bare, images)
    _, expected = read(estimated(model_of(trained), tmp_path / "store", *store))
    np.testing.assert_allclose(pdf, expected, rtol=0, atol=1e-4)


def test_catalogue_without_spec_z(catalogue_run: Finished, tmp_path: Path) -> None:
    table = magnitude_table(50, seed=9)
    table.remove_column("spec_z")
    table["mag_g"][7] = -9999.0
    table.write(tmp_path / "new.csv")
    words = ("data=catalogue", "encoder=mlp", f"data.path={tmp_path / 'new.csv'}", "predict.symmetries=8")
    model = model_of(catalogue_run)
    outcome = run_well("stage=predict", f"model={model}", *CPU, *words, *places(tmp_path))
    assert "encoder=mlp does not see them, one view is used" in outcome.out
    found, pdf = read(only(tmp_path, "predict/*/*/done.json").parent)
    assert found["flag"][7] == "table"
    usable = found["flag"] == "good"
    assert usable.sum() >= 45
    np.testing.assert_allclose(pdf[usable].sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(found["dered_petro_r"], table["mag_r"])


def test_galaxies_of_the_training_are_told(tmp_path: Path) -> None:
    table = magnitude_table()
    table["object_id"] = np.arange(len(table)) + 500
    table.write(tmp_path / "own.csv")
    words = (*catalogue_words(tmp_path / "own.csv"), *places(tmp_path))
    run_well("stage=representation", *words)
    run_well("stage=classifier", "correction=unshifted", *words)
    split = Table.read(only(tmp_path / "runs", "representation/*/split.fits"))["split"].astype(str)
    table.remove_column("spec_z")
    for name, shift, told in (("same", 0, int((split == "train").sum())), ("others", 10**6, 0)):
        table["object_id"] += shift
        table[::-1].write(tmp_path / f"{name}.csv")
        galaxies = ("data=catalogue", f"data.path={tmp_path / name}.csv", *places(tmp_path))
        said = run_well(
            "stage=predict", f"model={model_of(Finished(tmp_path, ()), 'unshifted')}", *CPU, *galaxies
        )
        assert (f"{told} of {len(table)} galaxies are, by object_id" in said.out) == bool(told), said.out


def test_catalogue_of_other_columns_is_refused(catalogue_run: Finished, tmp_path: Path) -> None:
    magnitude_table(20).write(tmp_path / "new.csv")
    words = ("data=catalogue", "encoder=mlp", f"data.path={tmp_path / 'new.csv'}")
    model = model_of(catalogue_run)
    names = f"data.magnitudes=[{','.join(f'mag_{b}' for b in BANDS[1:])}]"
    outcome = run("stage=predict", f"model={model}", *CPU, *words, names, *places(tmp_path))
    assert "was trained on features of shape (10,)" in outcome.message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("model=runs/nothing,seed=1",), "runs/nothing,seed=1: no finished run is there"),
        (("model=runs/*/nothing*",), "stage=classifier correction=full"),
        ((), "model is not set"),
    ],
)
def test_absent_model_is_named(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    outcome = run("stage=predict", *words, *CPU, *places(tmp_path))
    assert outcome.code == 2
    assert message in outcome.message


def _damage(model: Path) -> None:
    (model / "model.ckpt").write_bytes((model / "model.ckpt").read_bytes()[:1000])


def _diverge(model: Path) -> None:
    arrays = dict(np.load(model / "reference.npz"))
    arrays["train"][0] = np.nan
    np.savez(model / "reference.npz", allow_pickle=False, **arrays)


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        (_damage, (), "model.ckpt: cannot be loaded as a checkpoint"),
        (lambda m: (m / "done.json").unlink(), (), "no finished run is there"),
        (lambda m: (m / "pdf.hdf5").unlink(), (), "bring the whole run folder"),
        (_diverge, (), "its training diverged"),
        (lambda m: (m / "reference.npz").write_bytes(b"PK"), (), "reference.npz: cannot be read"),
        (
            lambda m: None,
            ("survey.pixels=32",),
            "trained for another survey than you typed (survey.pixels: 24 -> 32)",
        ),
        (
            lambda m: None,
            ("data=catalogue", "encoder=mlp", f"data.path={__file__}"),
            "reads images (encoder=fast) but data=catalogue has features",
        ),
    ],
)
def test_models_and_settings_that_do_not_fit(
    change: Callable[[Path], object], words: tuple[str, ...], message: str, trained: Finished, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_of(trained), model)
    change(model)
    target = write_target(tmp_path / "target", *galaxies())
    words = words if "data=catalogue" in words else (*target, *words)
    outcome = run("stage=predict", f"model={model}", *CPU, *words, *places(tmp_path))
    assert message in outcome.message


def test_cutouts_of_another_size_are_refused(trained: Finished, tmp_path: Path) -> None:
    table, images = galaxies()
    words = write_target(tmp_path / "target", table, images[..., 4:-4, 4:-4])
    outcome = run("stage=predict", f"model={model_of(trained)}", *CPU, *words, *places(tmp_path))
    assert outcome.code == 2
    assert "images of shape (5, 24, 24)" in outcome.message
    assert "have (5, 16, 16)" in outcome.message


def write_cutouts(folder: Path, table: Table | None, images: NDArray[np.float32]) -> tuple[str, ...]:
    """Write an array of cutouts, perhaps a table beside it, and return the words that read them."""
    np.save(folder / "cutouts.npy", images)
    words = ("data=arrays", f"data.images={folder / 'cutouts.npy'}")
    if table is None:
        return words
    table.write(folder / "table.fits", overwrite=True)
    return (*words, f"data.path={folder / 'table.fits'}")


def test_cutouts_without_any_table(trained: Finished, tmp_path: Path) -> None:
    _, images = galaxies(6)
    outcome = run_well(
        "stage=predict",
        f"model={model_of(trained)}",
        *CPU,
        *write_cutouts(tmp_path, None, images),
        *places(tmp_path),
    )
    assert "6 of 6 galaxies have a photo_z" in outcome.out
    assert "E(B-V) is not known for 6 of 6 galaxies" in outcome.out
    assert "data.columns.ebv" in outcome.out
    folder = only(tmp_path / "runs", "predict/*/*/done.json").parent
    table, _ = read(folder)
    assert table["object_id"].tolist() == list(range(6))
    assert set(table["flag"]) <= {"ebv", "far"}
    assert np.isnan(table["ebv"]).all()
    assert table.meta["N_NO_EBV"] == 6


def _owners(table: Table) -> None:
    table.rename_columns(["object_id", "dered_petro_r", "ebv"], ["OBJID", "RMAG", "REDDENING"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_owners, ("OBJID, RMAG, REDDENING", "data.columns.object_id")),
        (lambda t: t.remove_rows([0, 1]), ("6 rows for 4 rows",)),
    ],
)
def test_table_that_does_not_belong_to_the_cutouts_stops(
    change: Callable[[Table], object], said: tuple[str, ...], trained: Finished, tmp_path: Path
) -> None:
    table, images = galaxies(6)
    change(table)
    words = write_cutouts(tmp_path, table, images)
    message = run("stage=predict", f"model={model_of(trained)}", *CPU, *words, *places(tmp_path)).message
    assert all(part in message for part in said)


def test_what_is_not_needed_costs_no_galaxy(trained: Finished, tmp_path: Path) -> None:
    table, images = galaxies(6)
    table["ra"], table["dec"] = np.linspace(0, 5, 6), 0.0
    clean, _ = read(estimated(model_of(trained), tmp_path / "a", *write_cutouts(tmp_path, table, images)))
    table["ra"][1] = np.nan
    table["dered_petro_r"][2] = -9999
    table["ebv"] = np.ma.masked_array(table["ebv"], np.arange(6) == 3)
    place = tmp_path / "b"
    place.mkdir()
    outcome = run_well(
        *("stage=predict", f"model={model_of(trained)}", *CPU, *write_cutouts(place, table, images)),
        *places(place),
    )
    assert "6 of 6 galaxies have a photo_z" in outcome.out
    found, _ = read(only(place / "runs", "predict/*/*/done.json").parent)
    same = np.arange(6) != 3
    np.testing.assert_array_equal(found["photo_z_mean"][same], clean["photo_z_mean"][same])
    np.testing.assert_array_equal(found["flag"][same], clean["flag"][same])
    assert found["flag"][3] in ("good", "far")  # its E(B-V) is looked up
    assert found["ebv"][3] == pytest.approx(ebv_at(3.0, 0.0)[0])
    assert "E(B-V) of 1 galaxies is that of the SFD map" in outcome.out
    assert found.meta["N_MAPEBV"] == 1
    assert np.isnan(found["ra"][1])
    none = estimated(
        model_of(trained), tmp_path / "c", *write_cutouts(place, table, images), "data.ebv_maps=none"
    )
    assert read(none)[0]["flag"][3] in ("ebv", "far")
    assert np.isnan(read(none)[0]["ebv"][3])


def test_fluxes_in_other_units_are_a_warning(trained: Finished, tmp_path: Path) -> None:
    table, _ = galaxies()
    store = open_store(only(trained.folder / "data", "store.json").parent)
    words = write_cutouts(tmp_path, table, store.inputs[:40].astype(np.float32) * 1000)
    out = run_well("stage=predict", f"model={model_of(trained)}", *CPU, *words, *places(tmp_path)).out
    assert "times the flux of those that the model was trained on" in out
    assert "data.zero_point" in out
    assert "40 of 40 galaxies are far from those that the model was trained on" in out


@pytest.mark.parametrize(
    ("given", "own", "typed", "expected"),
    [
        (arrays.Settings(), arrays.Settings(zero_point=30.0), set(), {"zero_point": 30.0}),
        (stamps.Settings(), arrays.Settings(zero_point=30.0), set(), {"zero_point": 30.0}),
        (arrays.Settings(), arrays.Settings(zero_point=30.0), {"data.zero_point"}, {}),
        (pasquet.Settings(), arrays.Settings(zero_point=30.0), set(), {}),
        (arrays.Settings(), sdss.Settings(), set(), {}),
        (store.Settings(), arrays.Settings(zero_point=30.0), set(), {}),
        (catalogue.Settings(), catalogue.Settings(magnitudes=["a"]), set(), {"magnitudes": ["a"]}),
        (
            arrays.Settings(path="a.csv", columns={"ebv": "B"}),
            stamps.Settings(columns={"ebv": "A", "object_id": "ID", "spec_z": "Z", "ra": "ra"}),
            set(),
            {"columns": {"ebv": "B", "object_id": "ID"}},
        ),
        (
            arrays.Settings(path="a.csv"),
            arrays.Settings(columns={"ebv": "A"}),
            {"data.columns.ebv"},
            {},
        ),
        (arrays.Settings(), arrays.Settings(columns={"ebv": "A"}), set(), {}),
    ],
)
def test_names_and_units_are_the_models_where_nothing_else_is_typed(
    given: Any, own: Any, typed: set[str], expected: dict[str, Any]
) -> None:
    found = inherited(given, own, typed, "spec_z")
    assert {key: value for key, value in found.items() if value} == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("model=nothing",), "model="),
        (("data=stamps", "data.images=nothing"), "data.images="),
        (("data=arrays", "data.images=nothing.npy"), "data.images="),
        (("predict.prior=nothing.csv",), "predict.prior="),
        (("predict.symmetries=9",), "predict.symmetries="),
    ],
)
def test_wrong_argument_is_told_before_torch_is_imported(
    words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "done.json").write_text("{}")
    typed = ["photoz_lit", "stage=predict", f"model={tmp_path / 'model'}"]
    typed = [word for word in typed if not words[0].startswith(word.partition("=")[0] + "=")] + list(words)
    program = f"""
import sys
from photoz_lit.__main__ import main
sys.argv = {typed!r}
try:
    main()
finally:
    print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.strip() == "False"


def _peak(pid: int) -> int:
    """Most memory that a process has held so far, kB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1])
    return 0


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is read from /proc")
def test_many_galaxies_in_flat_memory_and_through_a_kill(trained: Finished, tmp_path: Path) -> None:
    table, images = galaxies(2000)
    n = 60_000
    many = Table({"object_id": np.arange(n), "ebv": np.tile(table["ebv"], n // 2000)})
    write_store(
        tmp_path / "target",
        many,
        (images for _ in range(n // 2000)),
        shape=(n, *images.shape[1:]),
        dtype="float16",
        kind="images",
        settings={},
    )
    words = ("data=store", f"data.path={tmp_path / 'target'}")
    command = ("stage=predict", f"model={model_of(trained)}", *CPU, *words)

    def watched(place: Path, until: int) -> list[int]:
        """Run; kill the process once so many galaxies are done; return its memory from the first ones on."""
        process, memory, rows = begin(*command, *places(place)), [], 0
        while process.poll() is None and rows < until:
            time.sleep(0.05)
            files = list(place.rglob("progress.json"))
            now = json.loads(files[0].read_text())["rows"] if files else 0
            rows = max(rows, now)
            if rows:
                memory.append(_peak(process.pid))
        if process.poll() is None and until <= n:
            os.kill(process.pid, signal.SIGKILL)
        _, err = process.communicate(timeout=300)
        assert until <= n or err == ""
        return memory

    watched(tmp_path / "killed", n // 2)
    assert not list((tmp_path / "killed").rglob("done.json"))
    watched(tmp_path / "killed", n + 1)
    memory = watched(tmp_path / "whole", n + 1)[5:-5]
    killed, whole = (only(tmp_path / name, "done.json").parent for name in ("killed", "whole"))
    assert content(killed) == content(whole)
    assert len(memory) > 20
    # Buffers of a batch come and go, a few MB; whoever kept what is written would grow by half of it.
    written = sum(p.stat().st_size for p in whole.rglob("*") if p.is_file()) / 1024  # kB
    assert memory[-1] - memory[len(memory) // 2] < written / 4, memory
