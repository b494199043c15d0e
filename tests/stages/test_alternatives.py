"""Switches that replace the labels, or scale the outputs, of Steps 1 and 2."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from command import Finished, only, places, probabilities, run_well

OUTPUTS = {"head.redshift.weight", "head.redshift.bias"}
MOVES = {  # so few validation galaxies may ask for tau = 0
    "sord": OUTPUTS,
    "clap": OUTPUTS,
    "tau_norm": {"head.redshift.bias"},
    "learnt_scales": {"head.redshift.weight"},
    "local_pit": set(),
}


def of_run(folder: Path) -> tuple[np.ndarray, dict[str, torch.Tensor], np.ndarray]:
    """Return p(z), the head and the implicit prior of a run."""
    weights = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    with h5py.File(folder / "pdf.hdf5") as file:
        return (
            probabilities(file),
            {k: v for k, v in weights.items() if "head" in k},
            file["priors/implicit_prior"][:],
        )


@pytest.mark.slow
def test_switches_reach_the_head_and_predict_gives_what_was_tested(
    catalogue_run: Finished, tmp_path: Path
) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("-m", "stage=classifier", f"correction=none,{','.join(MOVES)}", *copied.words)
    folders = {n: only(tmp_path / "runs", f"classifier/correction={n},*") for n in (*MOVES, "none")}
    pdf, head, _ = of_run(folders["none"])
    for name in MOVES:
        its_pdf, its_head, prior = of_run(folders[name])
        np.testing.assert_allclose(prior.sum(), 1, rtol=1e-5)
        assert not np.allclose(its_pdf, pdf, atol=1e-6), name
        moved = {key for key, values in head.items() if not torch.equal(values, its_head[key])}
        assert MOVES[name] <= moved <= (OUTPUTS if MOVES[name] else set()), name
    store = only(tmp_path / "data", "store.json").parent
    for name in MOVES:
        place = tmp_path / name
        words = ("data=store", f"data.path={store}", *places(place))
        run_well("stage=predict", f"model={folders[name]}", *words)
        with (
            h5py.File(folders[name] / "pdf.hdf5") as own,
            h5py.File(only(place, "pdf.hdf5")) as file,
        ):
            row_of = {i: row for row, i in enumerate(file["ancil/object_id"][:])}
            again = probabilities(file)[[row_of[i] for i in own["ancil/object_id"][:]]]
            known = np.isfinite(again).all(axis=1)  # others are brighter or fainter than any in training
            assert known.sum() > 5
            np.testing.assert_allclose(again[known], probabilities(own)[known], atol=2e-5)


def test_corrections_of_other_labels_have_a_step_2_of_their_own(
    catalogue_run: Finished, tmp_path: Path
) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("-m", "stage=classifier", "correction=sord", "correction.step2.loss.width=1,2", *copied.words)
    assert len(list(tmp_path.rglob("representation/*/step2-*"))) == 3  # with that of `full`
    done = [json.loads(p.read_text()) for p in tmp_path.rglob("classifier/correction=sord*/done.json")]
    assert sorted(d["label"] for d in done) == ["sord", "sord · step2.loss.width=2.0"]
