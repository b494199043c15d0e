"""Switches that replace the labels, or scale the outputs, of Steps 1 and 2."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from command import Finished, only, places, run, run_well

from photoz_lit.config import Config, CorrectionConfig
from photoz_lit.correction.rescaling import tau_normalised
from photoz_lit.data.datamodule import Galaxies
from photoz_lit.models.heads import Head, mixture
from photoz_lit.stages.classifier import ordinal_table, rescaled, step2_prior

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
        return file["pdf"][:], {k: v for k, v in weights.items() if "head" in k}, file["train_n_of_z"][:]


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
            row_of = {i: row for row, i in enumerate(file["object_id"][:])}
            again = file["pdf"][:][[row_of[i] for i in own["object_id"][:]]]
            known = np.isfinite(again).all(axis=1)  # others are brighter or fainter than any in training
            assert known.sum() > 5
            np.testing.assert_allclose(again[known], own["pdf"][:][known], atol=2e-5)


def test_corrections_of_other_labels_have_a_step_2_of_their_own(
    catalogue_run: Finished, tmp_path: Path
) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("-m", "stage=classifier", "correction=sord", "correction.label_width=1,2", *copied.words)
    assert len(list(tmp_path.rglob("representation/*/step2-*"))) == 3  # with that of `full`
    done = [json.loads(p.read_text()) for p in tmp_path.rglob("classifier/correction=sord*/done.json")]
    assert sorted(d["label"] for d in done) == ["sord", "sord · label_width=2"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["correction=full", "correction.loss=nearest", "correction.fine_tune=false"],
            "correction.fine_tune=true",
        ),
        (["correction=sord", "correction.label_width=0"], "correction.label_width=1, in bins"),
        (["correction=clap", "correction.label_width=1"], "the width of softened labels"),
        (["correction=clap", "correction.loss=neares"], "Did you mean correction.loss=nearest"),
        (["correction=tau_norm", "correction.rescale=none"], "changes nothing"),
        (["correction=tau_norm", "correction.balance=true"], "something to fit on the balanced subset"),
        (["correction=full", "correction.rescale=tau"], "Step 3 puts new ones in their place"),
        (["correction=none", "correction.rescale=tau"], "no longer none"),
    ],
    ids=str,
)
def test_switches_that_do_not_fit(words: list[str], said: str, tmp_path: Path) -> None:
    assert said in run("stage=classifier", *words, *places(tmp_path)).message


def settings(**switches: object) -> Config:
    """Settings of six bins and three outputs."""
    config = Config(correction=CorrectionConfig(**switches))  # type: ignore[arg-type]
    config.survey.n_bins, config.survey.n_slices = 6, 5
    return config


def galaxies(n: int, seed: int) -> Galaxies:
    """Draw embeddings (2, n, 4), of which view 0 counts, with cells."""
    rng = np.random.default_rng(seed)
    inputs = np.stack([rng.normal(size=(n, 4)), np.full((n, 4), np.nan)]).astype(np.float32)
    return Galaxies(inputs, {"cell": rng.integers(0, 30, n)}, np.arange(n), views_first=True)


@pytest.mark.parametrize("rescale", ["tau", "learnt"])
def test_rescaled_heads_keep_the_direction_of_every_bin(rescale: str) -> None:
    head = Head(4, 3, 6, True, torch.Generator().manual_seed(1))
    with torch.no_grad():
        head.redshift.bias.normal_(generator=torch.Generator().manual_seed(2))
    before = {k: v.clone() for k, v in head.state_dict().items()}
    after = rescaled(settings(name="tau_norm", rescale=rescale), head, [galaxies(80, 3), galaxies(60, 4)])
    for key, values in head.state_dict().items():
        assert torch.equal(values, before[key]), key  # others share this head
    old, new = before["redshift.weight"], after.redshift.weight.detach()
    length = new.norm(dim=1) / old.norm(dim=1)
    sign = torch.sign((new * old).sum(dim=1, keepdim=True))
    torch.testing.assert_close(new, sign * length[:, None] * old)
    assert length.std() > 0.01
    kept = torch.zeros(18) if rescale == "tau" else before["redshift.bias"]
    assert torch.equal(after.redshift.bias, kept)


def test_tau_norm_is_that_of_the_best_likelihood() -> None:
    """Validation galaxies drawn from a head of equal norms; its lengths are wrong before."""
    true = Head(4, 1, 6, False, torch.Generator().manual_seed(1))
    with torch.no_grad():
        true.redshift.weight.normal_(generator=torch.Generator().manual_seed(5))
        true.redshift.weight.div_(true.redshift.weight.norm(dim=1, keepdim=True))
        true.redshift.bias.zero_()
    val = galaxies(4000, 6)
    p = mixture(*true(torch.from_numpy(val.inputs[0]))).detach().numpy()
    u = np.random.default_rng(7).uniform(size=(len(p), 1))
    val.columns["cell"] = (p.cumsum(axis=1) < u).sum(axis=1)
    wrong = Head(4, 1, 6, False)
    with torch.no_grad():
        lengths = torch.tensor([0.2, 0.5, 1.0, 1.0, 2.0, 4.0])
        wrong.redshift.weight.copy_(true.redshift.weight * lengths[:, None])
    found = rescaled(settings(name="tau_norm", rescale="tau"), wrong, [galaxies(5, 8), val])
    expected = tau_normalised(wrong.redshift.weight.detach().numpy(), 1.0)
    np.testing.assert_allclose(found.redshift.weight.detach().numpy(), expected, atol=1e-6)


def test_implicit_prior_of_step_2_is_the_mean_label() -> None:
    rows = np.arange(4)
    columns = {"cell": rows, "z_bin": np.array([0, 0, 0, 5])}
    part = Galaxies(np.zeros((1, 4, 2)), columns, rows, views_first=True)
    assert step2_prior(settings(), part) == pytest.approx([0.75, 0, 0, 0, 0, 0.25])
    sord = settings(name="sord", fine_tune=True, loss="sord", label_width=1.0)
    table = ordinal_table(sord)
    np.testing.assert_allclose(table[2, 1] / table[2, 2], np.exp(-0.5))  # a standard deviation of one bin
    np.testing.assert_allclose(step2_prior(sord, part), 0.75 * table[0] + 0.25 * table[5])
    softmax = settings(name="balanced_softmax", fine_tune=True, loss="balanced_softmax")
    assert step2_prior(softmax, part) == pytest.approx(np.full(6, 1 / 6))
    columns["weight"] = np.array([1, 1, 1, 9.0])
    assert step2_prior(settings(), part) == pytest.approx([0.25, 0, 0, 0, 0, 0.75])
    columns["label"] = np.eye(6)[[1, 1, 1, 2]]
    nearest = settings(name="clap", fine_tune=True, loss="nearest")
    assert step2_prior(nearest, part) == pytest.approx([0, 0.25, 0.75, 0, 0, 0])
