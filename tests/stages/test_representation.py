import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.table import Table
from command import Finished, kill_when, only, places, probabilities, run, run_well, state, write_catalogue

LONG = (
    "training.representation.max_steps=600",
    "training.representation.check_every=20",
    "encoder.noise=1.0",
    "data.magnitude_errors=[mag_err_u,mag_err_g,mag_err_r,mag_err_i,mag_err_z]",
)


@pytest.mark.slow
def test_killed_training_goes_on_and_ends_as_if_it_had_not_been(
    catalogue_run: Finished, tmp_path: Path
) -> None:
    words = ("stage=representation", *catalogue_run.words[:-2], *LONG)
    kill_when("last.ckpt", tmp_path / "killed", *words, *places(tmp_path / "killed"))
    assert not list((tmp_path / "killed").rglob("done.json"))
    outcome = run_well(*words, *places(tmp_path / "killed"))
    assert "resuming from" in outcome.out
    run_well(*words, *places(tmp_path / "whole"))
    killed, whole = (only(tmp_path / name, "metrics.json").parent for name in ("killed", "whole"))
    assert (killed / "metrics.json").read_text() == (whole / "metrics.json").read_text()
    ours, theirs = (torch.load(f / "model.ckpt", weights_only=True)["state_dict"] for f in (killed, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.slow
def test_killed_training_on_images_ends_as_if_it_had_not_been(mock_run: Finished, tmp_path: Path) -> None:
    steps = ("training.representation.max_steps=60", "training.representation.check_every=3")
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        os.symlink(mock_run.folder / "data", tmp_path / name / "data")
    words = ("stage=representation", *mock_run.words[:-2], *steps)
    kill_when("last.ckpt", tmp_path / "killed", *words, *places(tmp_path / "killed"))
    assert "resuming from" in run_well(*words, *places(tmp_path / "killed")).out
    run_well(*words, *places(tmp_path / "whole"))
    killed, whole = (only(tmp_path / name / "runs", "metrics.json") for name in ("killed", "whole"))
    assert killed.read_text() == whole.read_text()


def test_finished_run_is_skipped_with_a_message_and_stays_as_it_is(catalogue_run: Finished) -> None:
    before = state(catalogue_run.folder)
    for words in (("stage=representation",), ("stage=classifier", "correction=full")):
        assert "is complete: skipped" in run_well(*words, *catalogue_run.words).out
    assert state(catalogue_run.folder) == before


def test_other_data_in_the_same_folder_are_told(catalogue_run: Finished, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = write_catalogue(tmp_path / "other", seed=5)  # same name, so the same folder
    words = [f"data.path={other}" if w.startswith("data.path=") else w for w in catalogue_run.words]
    before = state(catalogue_run.folder)
    outcome = run("stage=representation", *words)
    assert outcome.code == 2
    assert "was made from other data" in outcome.message
    assert "type run=NAME" in outcome.message
    assert state(catalogue_run.folder) == before


def test_checkpoint_holds_plain_containers_and_the_settings(catalogue_run: Finished) -> None:
    def plain(value: object) -> bool:
        if isinstance(value, dict):
            return type(value) is dict and all(plain(v) for v in value.values())
        if isinstance(value, list):
            return all(plain(v) for v in value)
        return value is None or type(value) in (str, int, float, bool)

    found = sorted(catalogue_run.folder.rglob("*.ckpt"))
    assert {path.name for path in found} == {"model.ckpt", "result.ckpt"}
    for path in found:
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint.keys() == {"state_dict", "settings"}
        assert plain(checkpoint["settings"])
        assert checkpoint["settings"]["encoder"]["hidden"] == [16, 16]
        assert all(torch.is_tensor(value) for value in checkpoint["state_dict"].values())


def test_run_folder_holds_results_metrics_and_no_remains(catalogue_run: Finished) -> None:
    for done in catalogue_run.folder.rglob("done.json"):
        folder = done.parent
        table = Table.read(folder / "photo_z.fits")
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["n"] == len(table) == 18
        for name in ("by_magnitude", "by_redshift"):
            rows = Table.read(folder / f"{name}.ecsv")
            assert rows["count"].sum() == 18
            for key in ("crps", "pit_cvm", "cde_loss", "coverage_68", "coverage_95"):
                average = np.average(rows[key], weights=rows["count"])
                assert key == "pit_cvm" or average == pytest.approx(metrics[key])
                assert np.isfinite(rows[f"{key}_err"]).all()
        of_n_of_z = {f"{of}_{what}" for of in ("stacked", "inferred") for what in ("tv", "mean_error")}
        trainz = json.loads((folder / "trainz.json").read_text()).keys()
        assert metrics.keys() == trainz | of_n_of_z | {"n_of_z_floor"}
        with h5py.File(folder / "pdf.hdf5") as file:
            np.testing.assert_allclose(probabilities(file).sum(axis=1), 1, rtol=1e-5)
            for name in ("priors/implicit_prior", "priors/training_prior"):
                slices = len(file["priors"].attrs["r_edges"]) - 1
                assert file[name].shape == (slices, file["data/pdfs"].shape[1])
                assert file[name][:].sum() == pytest.approx(1)
            assert ("pdf_outside" in table.colnames) == (folder.parent.name == "classifier")  # it extends
            np.testing.assert_array_equal(file["ancil/object_id"][:], table["object_id"])
    assert not [p for p in catalogue_run.folder.rglob("*") if "partial" in p.name]


def test_seeds_differ_and_a_seed_repeats(catalogue_run: Finished, tmp_path: Path) -> None:
    words = ("stage=representation", *catalogue_run.words[:-2])
    run_well(*words, *places(tmp_path))
    run_well(*words, *places(tmp_path), "seed=2")
    pdfs = []
    for folder in (catalogue_run.folder, tmp_path):
        for path in sorted(folder.rglob("representation/*/pdf.hdf5")):
            with h5py.File(path) as file:
                pdfs.append(probabilities(file))
    np.testing.assert_array_equal(pdfs[0], pdfs[1])
    assert (pdfs[1] != pdfs[2]).any()


def test_progress_is_quiet_where_there_is_no_terminal(catalogue_run: Finished, tmp_path: Path) -> None:
    outcome = run_well("stage=representation", *catalogue_run.words[:-2], *places(tmp_path))
    assert "\r" not in outcome.out
    assert "\x1b" not in outcome.out
