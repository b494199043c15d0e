import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.table import Table
from command import (
    Finished,
    catalogue_words,
    kill_when,
    magnitude_table,
    only,
    places,
    probabilities,
    run,
    run_well,
    state,
)
from omegaconf import OmegaConf

CORRECTIONS = ("none", "balanced", "hard", "unshifted", "skip_balanced", "full")


ALTERNATIVES = (
    *("balanced_softmax", "crps_loss", "lds", "dense_weight", "trend"),
    *("logit_adjustment", "prior_swap", "temperature", "pit", "full_pit"),
)


@pytest.mark.slow
def test_alternatives_run_and_predict_what_they_tested(catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("-m", "stage=classifier", f"correction={','.join(ALTERNATIVES)}", *copied.words)
    run_well("stage=classifier", "correction=none", *copied.words)
    pdfs = {}
    for correction in (*ALTERNATIVES, "none"):
        folder = only(tmp_path / "runs", f"classifier/correction={correction},*")
        with h5py.File(folder / "pdf.hdf5") as file:
            pdfs[correction] = probabilities(file)
            ids, prior = file["ancil/object_id"][:], file["priors/implicit_prior"][:]
        np.testing.assert_allclose(pdfs[correction].sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(prior.sum(), 1, rtol=1e-5)
    for correction in ALTERNATIVES[:5]:  # a few validation galaxies may ask for no finishing
        if pdfs[correction].shape == pdfs["none"].shape:
            assert not np.allclose(pdfs[correction], pdfs["none"], atol=1e-6), correction
    # Another process, with nothing but the run folder, finishes p(z) in the same way.
    folder = only(tmp_path / "runs", "classifier/correction=full_pit,*")
    store = only(tmp_path / "data", "store.json").parent
    run_well("stage=predict", f"model={folder}", "data=store", f"data.path={store}", *places(tmp_path))
    with h5py.File(only(tmp_path, "predict/*/*/pdf.hdf5")) as file:
        place = {i: row for row, i in enumerate(file["ancil/object_id"][:])}
        again = probabilities(file)[[place[i] for i in ids]]
    known = np.isfinite(again).all(axis=1)  # others are brighter or fainter than any in training
    assert known.sum() > 5
    np.testing.assert_allclose(again[known], pdfs["full_pit"][known], atol=2e-5)


def test_sweep_shares_one_representation_one_set_of_embeddings_and_one_step_2(
    mock_run: Finished, tmp_path: Path
) -> None:
    copied = mock_run.copy(tmp_path)
    trained = state(only(tmp_path / "runs", "training"))
    prepared = state(tmp_path / "data")
    words = ("-m", "stage=classifier", f"correction={','.join(CORRECTIONS)}", "seed=1", *copied.words)
    run_well(*words)
    assert state(only(tmp_path / "runs", "training")) == trained
    assert state(tmp_path / "data") == prepared
    assert len(list(tmp_path.rglob("representation/*/step2-*"))) == 1
    assert len(list(tmp_path.rglob("representation/*/embeddings-*"))) == 1
    done = [json.loads(p.read_text()) for p in tmp_path.rglob("classifier/*/done.json")]
    assert sorted(d["label"] for d in done) == sorted(CORRECTIONS)
    for correction in CORRECTIONS:
        folder = only(tmp_path / "runs", f"classifier/correction={correction},*")
        with h5py.File(folder / "pdf.hdf5") as file:
            extended = correction not in ("none", "balanced")
            assert file["data/pdfs"].shape == (24, 40 if extended else 20)
            np.testing.assert_allclose(probabilities(file).sum(axis=1), 1, rtol=1e-5)
        assert (folder / "counts.npz").is_file() == (correction not in ("none", "skip_balanced"))
        assert (folder / "labels.npz").is_file() == extended
    assert not [p for p in tmp_path.rglob("*") if "partial" in p.name]
    before = state(tmp_path)
    outcome = run_well(*words)
    assert outcome.out.count("is complete: skipped") == len(CORRECTIONS)
    assert state(tmp_path) == before


def test_none_is_step_1_itself(catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("stage=classifier", "correction=none", *copied.words)
    pdfs = []
    for pattern in ("representation/*/pdf.hdf5", "classifier/correction=none*/pdf.hdf5"):
        with h5py.File(only(tmp_path / "runs", pattern)) as file:
            pdfs.append(probabilities(file))
    np.testing.assert_array_equal(*pdfs)


def test_encoder_and_gate_are_bit_identical_after_training(catalogue_run: Finished) -> None:
    before, after = (
        torch.load(only(catalogue_run.folder / "runs", f"{stage}/*/model.ckpt"), weights_only=True)[
            "state_dict"
        ]
        for stage in ("representation", "classifier")
    )
    frozen = [key for key in before if key.startswith(("encoder.", "head.gate"))]
    assert any(key.startswith("head.gate") for key in frozen)
    for key in frozen:
        assert torch.equal(before[key], after[key]), key
    assert before.keys() == after.keys()
    assert before["head.redshift.weight"].shape != after["head.redshift.weight"].shape


def test_step_2_moves_the_redshift_outputs_only(catalogue_run: Finished) -> None:
    before = torch.load(only(catalogue_run.folder / "runs", "representation/*/model.ckpt"), weights_only=True)
    after = torch.load(only(catalogue_run.folder / "runs", "step2-*/result.ckpt"), weights_only=True)
    head = {k.removeprefix("net."): v for k, v in after["state_dict"].items() if k.startswith("net.head")}
    moved = {key for key, value in head.items() if not torch.equal(value, before["state_dict"][key])}
    assert moved == {"head.redshift.weight", "head.redshift.bias"}


def test_other_threshold_is_another_run_and_another_step_2(catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("stage=classifier", "correction=full", "correction.subset.threshold=3", *copied.words)
    assert len(list(tmp_path.rglob("classifier/*/done.json"))) == 2
    assert len(list(tmp_path.rglob("representation/*/step2-*"))) == 2
    assert len(list(tmp_path.rglob("representation/*/done.json"))) == 1


@pytest.mark.parametrize(
    "switch", ["step3.shift=centre_of_mass", "step3.strength=0.5", "step3.extend=false", "subset.fold=2"]
)
def test_switches_can_be_changed(switch: str, catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("stage=classifier", "correction=full", f"correction.{switch}", *copied.words)
    assert len(list(tmp_path.rglob("classifier/*/done.json"))) == 2


def test_single_head_is_corrected_too(catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("stage=representation", "head=single", *copied.words)
    run_well("stage=classifier", "correction=full", "head=single", *copied.words)
    folder = only(tmp_path / "runs", "classifier/correction=full,head=single*")
    assert json.loads((folder / "done.json").read_text())["label"] == "full"


def estimates(folder: Path) -> list[np.ndarray]:
    found = []
    for stage in ("representation", "classifier"):
        table = Table.read(only(folder / "runs", f"{stage}/*/photo_z.fits"))
        found += [np.asarray(table[n]) for n in table.colnames if n.startswith("photo_z")]
        with h5py.File(only(folder / "runs", f"{stage}/*/pdf.hdf5")) as file:
            found.append(probabilities(file))
    return found


def test_no_spec_z_of_the_test_split_leaks_into_estimates(tmp_path: Path) -> None:
    test = magnitude_table(30, seed=1)
    results = {}
    for name in ("true", "permuted", "shifted"):
        folder = tmp_path / name
        folder.mkdir()
        magnitude_table(80).write(tmp_path / "train.csv", overwrite=True)
        if name == "permuted":
            test["spec_z"] = np.random.default_rng(0).permutation(test["spec_z"])
        if name == "shifted":
            test["spec_z"] = 0.001
        test.write(folder / "test.csv")
        words = (
            *catalogue_words(tmp_path / "train.csv"),
            f"data.test_path={folder / 'test.csv'}",
            *places(folder),
        )
        run_well("stage=representation", *words)
        run_well("stage=classifier", "correction=full", *words)
        results[name] = estimates(folder)
    for name in ("permuted", "shifted"):
        for ours, theirs in zip(results["true"], results[name], strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("step", "begun"), [("step2", "counts.npz"), ("step3", "step3")])
def test_killed_classifier_ends_as_if_it_had_not_been(
    step: str, begun: str, catalogue_run: Finished, tmp_path: Path
) -> None:
    steps = f"training.{step}.max_steps=1500"
    words = ("stage=classifier", "correction=full", "correction.subset.threshold=4", steps)
    killed, whole = catalogue_run.copy(tmp_path / "killed"), catalogue_run.copy(tmp_path / "whole")
    kill_when(f"*threshold=4*/{begun}", killed.folder, *words, *killed.words)
    run_well(*words, *killed.words)
    run_well(*words, *whole.words)
    texts = [
        max(f.folder.rglob("classifier/*/metrics.json"), key=lambda p: p.stat().st_mtime).read_text()
        for f in (killed, whole)
    ]
    assert texts[0] == texts[1]


def test_sweep_over_seeds_without_a_representation_goes_on(catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    outcome = run("-m", "stage=classifier", "correction=none", "seed=7,1", *copied.words)
    assert outcome.code == 2
    assert "no finished representation" in outcome.err
    assert "seed=7" in outcome.err.splitlines()[-1]
    assert only(tmp_path / "runs", "classifier/correction=none*/done.json").is_file()


def test_missing_representation_is_fitted_when_asked_for(catalogue_run: Finished, tmp_path: Path) -> None:
    words = ("stage=classifier", "correction=full", "fit_missing=true", *catalogue_run.words[:-2])
    run_well(*words, *places(tmp_path))
    for stage in ("representation", "classifier"):
        ours, theirs = (only(f / "runs", f"{stage}/*/pdf.hdf5") for f in (tmp_path, catalogue_run.folder))
        assert ours.parent.name == theirs.parent.name
        with h5py.File(ours) as one, h5py.File(theirs) as other:
            np.testing.assert_array_equal(probabilities(one), probabilities(other))
    saved = OmegaConf.load(only(tmp_path / "runs", "representation/*/config.yaml"))
    assert (saved.stage.name, saved.correction.name, saved.correction.step3) == (
        "representation",
        "none",
        None,
    )
    before = state(tmp_path)
    outcome = run_well(*words, *places(tmp_path))
    assert outcome.out.count("is complete: skipped") == 1
    run_well("stage=representation", *catalogue_run.words[:-2], *places(tmp_path))
    assert state(tmp_path) == before


@pytest.mark.slow
def test_an_estimate_of_one_correction_is_not_that_of_others(catalogue_run: Finished, tmp_path: Path) -> None:
    words = ("-m", "stage=classifier", "correction=best,none", "fit_missing=true", *catalogue_run.words[:-2])
    run_well(*words, *places(tmp_path))
    folders = {"best": "classifier/correction=best,*", "none": "classifier/correction=none,*"}
    folders["representation"] = "representation/head=multi,*"
    found = {
        name: json.loads(only(tmp_path / "runs", f"{pattern}/survey.json").read_text())["estimate"]
        for name, pattern in folders.items()
    }
    assert found == {"best": "median", "none": "mode", "representation": "mode"}
    for name in ("best", "none"):  # those who use a model use its own
        outcome = run_well(
            "stage=calibrate",
            f"model={only(tmp_path / 'runs', folders[name])}",
            *words[4:],
            *places(tmp_path),
        )
        assert "galaxies calibrated" in outcome.out
        made = only(tmp_path / "runs", f"calibrate/correction={name},*/*/survey.json")
        assert json.loads(made.read_text())["estimate"] == found[name]


def test_classifier_of_another_representation_is_refused(catalogue_run: Finished, tmp_path: Path) -> None:
    own = catalogue_run.copy(tmp_path / "own")
    model = next((own.folder / "runs").glob("*/representation/*/model.ckpt"))
    content = torch.load(model, weights_only=True)
    content["state_dict"] = {
        k: v + 0.01 if v.is_floating_point() else v for k, v in content["state_dict"].items()
    }
    torch.save(content, model)
    outcome = run("stage=classifier", "correction=full", *own.words)
    assert outcome.code == 2
    assert "was made from another representation than there is now" in outcome.message


@pytest.mark.parametrize("correction", ["full", "best"])
def test_settings_of_results_alone_fit_nothing_again(
    correction: str, catalogue_run: Finished, tmp_path: Path
) -> None:
    copied = catalogue_run.copy(tmp_path)
    words = ("stage=classifier", f"correction={correction}", "correction.members=1", *copied.words)
    words += ("training.hidden.max_steps=60",)
    run_well(*words)
    folder = only(tmp_path / "runs", f"classifier/correction={correction},*/done.json").parent
    before = {k: v for k, v in state(tmp_path).items() if k.endswith((".ckpt", ".npz", "embeddings.npy"))}
    first = Table.read(folder / "photo_z.fits", mask_invalid=False)
    words = (*words, "estimate=mean", "survey.outlier_cut=0.1")
    assert "its results are written again" in run_well(*words).out
    after = state(tmp_path)
    assert {key: after[key] for key in before} == before
    table = Table.read(folder / "photo_z.fits", mask_invalid=False)
    np.testing.assert_array_equal(table["photo_z"], table["photo_z_mean"])
    assert table.colnames == first.colnames
    for name in set(table.colnames) - {"flag", "photo_z", "photo_z_lower", "photo_z_upper"}:
        np.testing.assert_allclose(table[name], first[name], rtol=1e-5, err_msg=name)
    assert "is complete: skipped" in run_well(*words).out
