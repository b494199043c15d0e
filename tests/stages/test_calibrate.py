import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from command import Finished, magnitude_table, only, run, run_well, state
from omegaconf import OmegaConf

from photoz_lit import __version__
from photoz_lit.correction.calibration.sample import Sample
from photoz_lit.data.sampling import balanced_subset
from photoz_lit.data.splits import object_names
from photoz_lit.files import digest, read_json
from photoz_lit.inference import open_model
from photoz_lit.stages.calibrate import columns, fitted_on, read_estimates, sample_of, training_estimates
from photoz_lit.stages.prepare import prepare, splits


def model_of(finished: Finished) -> Path:
    """Return the run folder of `full`."""
    return only(finished.folder / "runs", "classifier/correction=full,*")


def calibrated(finished: Finished, *words: str, model: Path | None = None) -> Path:
    """Calibrate with these words and return the run folder."""
    before = set((finished.folder / "runs").rglob("calibrate/*/*/done.json"))
    run_well("stage=calibrate", f"model={model or model_of(finished)}", *words, *finished.words)
    (made,) = set((finished.folder / "runs").rglob("calibrate/*/*/done.json")) - before
    return made.parent


@pytest.fixture
def finished(catalogue_run: Finished, tmp_path: Path) -> Finished:
    return catalogue_run.copy(tmp_path)


@pytest.mark.parametrize("target", ["auto", "training", "photo", "deconvolved"])
def test_calibrated_photo_z_stand_beside_the_others(finished: Finished, target: str) -> None:
    folder = calibrated(finished, f"calibration.target={target}")
    before = Table.read(model_of(finished) / "photo_z.fits")
    after = Table.read(folder / "photo_z.fits")
    assert after.colnames == [*before.colnames, "photo_z_calibrated"]
    for name in before.colnames:
        np.testing.assert_array_equal(after[name], before[name])
    assert np.isfinite(after["photo_z_calibrated"]).all()
    assert np.any(after["photo_z_calibrated"] != after["photo_z"])
    done = read_json(folder / "done.json")
    assert done["stage"] == "calibrate"
    assert (done["version"], done["model"]) == (__version__, str(model_of(finished).resolve()))
    assert (done["target"], done["sample"]) == (target, "held_out")
    assert read_json(folder / "origin.json")["model"] == digest(model_of(finished) / "model.ckpt")
    made_with = OmegaConf.load(folder / "config.yaml")
    assert (made_with.stage.name, made_with.calibration.target) == ("calibrate", target)
    assert made_with.correction.name == "full"
    assert done["expected"] == (target if target != "auto" else "training")  # too few to tell
    assert (done["iterations"] > 0) == (target == "deconvolved")
    assert set(done["shift"]) == {"chi_square", "degrees", "p_value"}
    for name in ("metrics", "metrics_before"):
        assert read_json(folder / f"{name}.json")["n"] == len(after)
    assert (folder / "residuals.png").stat().st_size > 1000


@pytest.mark.parametrize("target", ["training", "deconvolved"])
def test_permuted_spec_z_of_the_target_changes_nothing(finished: Finished, target: str) -> None:
    folder = calibrated(finished, f"calibration.target={target}")
    first = np.array(Table.read(folder / "photo_z.fits")["photo_z_calibrated"])
    path = model_of(finished) / "photo_z.fits"
    table = Table.read(path)
    shuffled = np.random.default_rng(0).permutation(np.asarray(table["spec_z"]))
    assert np.any(shuffled != table["spec_z"])
    table["spec_z"] = shuffled
    table.write(path, overwrite=True)
    shutil.rmtree(folder.parent)
    again = Table.read(calibrated(finished, f"calibration.target={target}") / "photo_z.fits")
    np.testing.assert_array_equal(again["spec_z"], shuffled)
    np.testing.assert_array_equal(again["photo_z_calibrated"], first)


def test_no_test_galaxy_is_measured_on(finished: Finished) -> None:
    model = open_model(model_of(finished))
    store = prepare(model.config)
    split = splits(store, model.config)
    above = finished.folder / "above"
    above.mkdir()
    estimates = training_estimates(model.config, model, store, "mode", 1, above)
    np.testing.assert_array_equal(np.isfinite(estimates), split != "test")
    n = {name: int((split == name).sum()) for name in ("train", "val")}

    def sample(name: str) -> Sample:
        model.config.calibration.sample = name
        return sample_of(model.config, store, estimates)

    assert len(sample("val")) == n["val"]
    assert len(sample("all")) == n["train"] + n["val"]
    held_out = sample("held_out")
    assert held_out.weights.sum() == pytest.approx(n["train"] + n["val"])


def test_estimates_of_training_galaxies_are_made_as_the_tests_were(finished: Finished) -> None:
    # The same network on the same kind of input: test galaxies would get what the run gave them.
    model = open_model(model_of(finished))
    store = prepare(model.config)
    _, photo_z, _ = columns(read_estimates(model, None)[1], model.config.target)
    above = finished.folder / "above"
    above.mkdir()
    split = splits(store, model.config)
    swapped = np.where(split == "test", "train", "test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("photoz_lit.stages.calibrate.splits", lambda *_: swapped)
        estimates = training_estimates(model.config, model, store, "mode", 1, above)
    np.testing.assert_allclose(estimates[split == "test"], photo_z)


def test_fitted_on_is_the_balanced_subset(finished: Finished) -> None:
    own = open_model(model_of(finished)).config
    store = prepare(own)
    split = splits(store, own)
    spec_z, r = (np.asarray(store.catalogue[n], dtype=np.float64) for n in ("spec_z", "dered_petro_r"))
    assert own.correction.subset is not None
    own.correction.subset.threshold = 1
    fitted = fitted_on(own, store, spec_z, r, split)
    train = split == "train"
    s = own.survey
    cells, names = (s.grid(), s.slices()), object_names(store.catalogue[train])
    chosen = balanced_subset(spec_z[train], r[train], *cells, 1, own.correction.subset.fold, own.seed, names)
    np.testing.assert_array_equal(np.flatnonzero(fitted), np.flatnonzero(train)[chosen])
    assert fitted.sum() < train.sum()
    own.correction.subset = None
    np.testing.assert_array_equal(fitted_on(own, store, spec_z, r, split), train)


def test_results_of_predict_are_calibrated(finished: Finished) -> None:
    table = magnitude_table(30, seed=5)
    del table["spec_z"]
    table["mag_r"][3] = np.nan
    path = finished.folder / "others.csv"
    table.write(path)
    words = [w for w in finished.words if not w.startswith(("data", "encoder"))]
    places = [w for w in finished.words if w.startswith("data_dir")]
    run_well(
        "stage=predict",
        f"model={model_of(finished)}",
        "data=catalogue",
        f"data.path={path}",
        "data.drop_invalid=true",
        *words,
        *places,
    )
    predicted = only(finished.folder / "runs", "predict/*/*/done.json").parent
    folder = calibrated(finished, f"calibration.galaxies={predicted}", "calibration.target=deconvolved")
    after = Table.read(folder / "photo_z.fits")
    good = np.isfinite(np.ma.filled(after["photo_z"], np.nan))
    assert good.sum() >= 25
    np.testing.assert_array_equal(np.isfinite(np.ma.filled(after["photo_z_calibrated"], np.nan)), good)
    assert not (folder / "metrics.json").exists()  # no spec_z is known


def test_a_failure_leaves_no_folder_of_results(finished: Finished) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("photoz_lit.stages.calibrate.sample_of", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run("stage=calibrate", f"model={model_of(finished)}", *finished.words)
    assert not list((finished.folder / "runs").rglob("target=*"))
    calibrated(finished)


def test_a_complete_calibration_is_left_alone(finished: Finished) -> None:
    folder = calibrated(finished)
    before = state(folder)
    run_well("stage=calibrate", f"model={model_of(finished)}", *finished.words)
    assert state(folder) == before


@pytest.mark.slow
def test_settings_have_folders_of_their_own(finished: Finished) -> None:
    names = [
        calibrated(finished, *words).name
        for words in (
            (),
            ("calibration.sample=val",),
            ("calibration.paper=true",),
        )
    ]
    assert names == [
        "target=auto",
        "target=auto,sample=val",
        "target=auto,paper",
    ]


# What a user can mend


def test_several_models_are_refused(finished: Finished) -> None:
    copy = model_of(finished).with_name("correction=full,seed=2")
    shutil.copytree(model_of(finished), copy)
    outcome = run("stage=calibrate", f"model={copy.parent}/*", *finished.words)
    assert "one run at a time" in outcome.message


def test_other_training_data_is_refused(finished: Finished) -> None:
    path = model_of(finished) / "origin.json"
    path.write_text(path.read_text().replace("catalogue-", "catalogue-0"))
    outcome = run("stage=calibrate", f"model={model_of(finished)}", *finished.words)
    assert "was trained on catalogue-0" in outcome.message


def test_estimates_of_another_model_are_refused(finished: Finished) -> None:
    outcome = run(
        "stage=calibrate", f"model={model_of(finished)}", "calibration.galaxies=nowhere", *finished.words
    )
    assert "no finished results of stage=predict" in outcome.message
    other = only(finished.folder / "runs", "representation/*/done.json").parent
    outcome = run(
        "stage=calibrate", f"model={model_of(finished)}", f"calibration.galaxies={other}", *finished.words
    )
    assert "name the model that made them" in outcome.message


def test_a_table_without_r_is_refused(finished: Finished) -> None:
    path = model_of(finished) / "photo_z.fits"
    table = Table.read(path)
    del table["dered_petro_r"]
    table.write(path, overwrite=True)
    outcome = run("stage=calibrate", f"model={model_of(finished)}", *finished.words)
    assert "has no dered_petro_r" in outcome.message
