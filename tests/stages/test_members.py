"""Ensembles within one run, and `correction=best`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.table import Table
from command import Finished, only, places, probabilities, run_well

from photoz_lit.fitting import Fitted, Task
from photoz_lit.models.heads import AnyHead
from photoz_lit.plain_training import Fitting, alone
from photoz_lit.stages import classifier


def pdf_of(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    with h5py.File(folder / "pdf.hdf5") as file:
        return file["ancil/object_id"][:], probabilities(file)


def test_ensemble_is_the_mean_of_its_folds(catalogue_run: Finished, tmp_path: Path) -> None:
    words = ["stage=classifier", "correction.subset.threshold=1", "trainer.precision=32-true"]
    apart, joint = tmp_path / "apart", tmp_path / "joint"
    run_well("-m", "correction=full", "correction.subset.fold=1,2", *words, *catalogue_run.copy(apart).words)
    run_well("correction=ensemble", "correction.members=2", *words, *catalogue_run.copy(joint).words)
    for path in (results := sorted((joint / "runs").glob("*/representation/*/step2-*/result.ckpt"))):
        ours, theirs = (
            torch.load(place / path.relative_to(joint), weights_only=True)["state_dict"]
            for place in (joint, apart)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert len(results) == 3  # one was there before
    folders = sorted((apart / "runs").glob("*/classifier/correction=full,*"))
    first = next(f for f in folders if "fold=" not in f.name)  # fold=1 is the default and names no folder
    other = next(f for f in folders if "fold=2" in f.name)
    single = pdf_of(first)[1]
    assert not np.allclose(single, pdf_of(other)[1], atol=1e-6)
    ensemble = only(joint / "runs", "classifier/correction=ensemble,*")
    # Fold 1 is the first member; the second starts from other weights than a run of its own.
    assert (ensemble / "step3-0").is_dir()
    assert (ensemble / "step3-1").is_dir()
    _, mean = pdf_of(ensemble)
    second = 2 * mean - single
    assert second.min() > -1e-6
    np.testing.assert_allclose(second.sum(axis=1), 1, atol=1e-4)


def test_heads_behind_a_hidden_layer_are_fitted_together_to_what_each_would_be(
    catalogue_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = classifier.fit_step3

    def compared(tasks: Sequence[Task], heads: Sequence[AnyHead]) -> Fitting[list[Fitted]]:
        found = yield from together(tasks, heads)
        for task, head, ours in zip(tasks, heads, found, strict=True):
            (theirs,) = alone(together([replace(task, folder=tmp_path / "alone")], [head]))
            for key, values in theirs.head.state_dict().items():
                torch.testing.assert_close(ours.head.state_dict()[key], values, rtol=1e-3, atol=1e-4)
        return found

    monkeypatch.setattr(classifier, "fit_step3", compared)
    words = ("correction.members=3", "training.hidden.max_steps=60", "trainer.precision=32-true")
    run_well("stage=classifier", "correction=best", *words, *catalogue_run.copy(tmp_path).words)
    assert len(list((tmp_path / "alone").glob("step3-*/result.ckpt"))) == 3


@pytest.mark.parametrize("correction", ["best", "harmonic_ensemble"])
def test_another_process_predicts_what_was_tested(
    correction: str, catalogue_run: Finished, tmp_path: Path
) -> None:
    copied = catalogue_run.copy(tmp_path)
    words = ("correction.members=2", "estimate=median", "training.hidden.max_steps=60")
    run_well("stage=classifier", f"correction={correction}", *words, *copied.words)
    folder = only(tmp_path / "runs", f"classifier/correction={correction},*")
    store = only(tmp_path / "data", "store.json").parent
    run_well("stage=predict", f"model={folder}", "data=store", f"data.path={store}", *places(tmp_path))
    ids, tested = pdf_of(folder)
    place = only(tmp_path, "predict/*/*/pdf.hdf5").parent
    all_ids, again = pdf_of(place)
    row_of = {i: row for row, i in enumerate(all_ids)}
    rows = [row_of[i] for i in ids]
    again = again[rows]
    known = np.isfinite(again).all(axis=1)
    assert known.sum() > 5
    np.testing.assert_allclose(again[known], tested[known], atol=2e-5)
    own, theirs = (Table.read(f / "photo_z.fits", mask_invalid=False) for f in (folder, place))
    assert own.colnames == theirs.colnames
    names = [name for name in own.colnames if name.startswith("photo_z") and name != "photo_z_mode"]
    assert ("photo_z_individual" in names) == ("photo_z_individual_err" in names) == (correction == "best")
    for name in names:
        assert np.isfinite(own[name][known]).sum() > 5, name
        np.testing.assert_allclose(theirs[name][rows][known], own[name][known], atol=1e-4, err_msg=name)
