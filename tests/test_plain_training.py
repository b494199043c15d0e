"""Heads trained by the plain loop and by Lightning."""

import copy
import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from photoz_lit import plain_training
from photoz_lit.config import Config, LoggerConfig, TrainerConfig, TrainingConfig
from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.batches import Galaxies, Stream
from photoz_lit.errors import DataError
from photoz_lit.models.encoders.precomputed import Precomputed
from photoz_lit.models.heads import AnyHead, Head, HiddenHead, PhotozNet
from photoz_lit.models.module import PhotozModule
from photoz_lit.models.objective import LossFunction, SoftLabels, hard_labels
from photoz_lit.network import membership
from photoz_lit.plain_training import BLOCK, Fit, Fitting, alone, held, train_heads, trained
from photoz_lit.training import GalaxyData, train

N_BINS, N_FEATURES, N_VIEWS = 6, 5, 3
RNG = np.random.default_rng(4)
VECTORS = RNG.normal(size=(N_VIEWS, 50, N_FEATURES)).astype(np.float32)
ROWS = np.split(RNG.permutation(50), [29])


def settings(head: str = "multi", **trainer: object) -> Config:
    """Settings of three slices of r, and two outputs, or one."""
    trainer = {"accelerator": "cpu", "precision": "32-true", "progress": False} | trainer
    survey = SurveyConfig(n_bins=N_BINS, n_slices=3)
    given = {"survey": survey, "head": head, "logger": LoggerConfig("csv"), "seed": 7}
    return Config(**given, trainer=TrainerConfig(**trainer))  # type: ignore[arg-type]


def galaxies() -> list[Galaxies]:
    """Galaxies to train on, and to validate with, of random labels."""
    n = len(VECTORS[0])
    columns = {"z_bin": np.arange(n) % N_BINS, "r_slice": np.arange(n) % 3, "cell": np.arange(n) % 4}
    return [Galaxies(VECTORS, {k: v[rows] for k, v in columns.items()}, rows) for rows in ROWS]


def head_of(kind: str) -> AnyHead:
    generator = torch.Generator().manual_seed(1)
    if kind == "hidden":
        head = HiddenHead(N_FEATURES, N_BINS, 8, generator)
        return head.start_from(torch.from_numpy(VECTORS[0]), torch.full((N_BINS,), 1 / N_BINS))
    return Head(N_FEATURES, 2, N_BINS, generator)


def loss_of(kind: str) -> LossFunction:
    labels = torch.softmax(torch.randn(4, 1 if kind == "hidden" else 2, N_BINS), dim=-1)
    return hard_labels if kind == "hard" else SoftLabels(labels)


def train_head(*fit: Any) -> AnyHead:
    """Train a head alone."""
    train_heads([Fit(*fit)])
    return trained([Fit(*fit)])[0]


def by_lightning(
    config: Config, head: AnyHead, loss: LossFunction, training: TrainingConfig, folder: Path
) -> AnyHead:
    """Train the redshift outputs with Lightning, on the same galaxies: each with its views side by side."""

    def in_view(x: Tensor, view: Tensor, unit: Tensor | None) -> Tensor:
        return x[torch.arange(len(x)), view]

    train_on, val = (
        replace(g, inputs=np.swapaxes(VECTORS, 0, 1), columns=g.columns | {"ebv": np.zeros(len(g), "f4")})
        for g in galaxies()
    )
    net = PhotozNet(Precomputed(N_FEATURES), head, "redshift_outputs")
    covers = torch.from_numpy(membership(config))
    module = PhotozModule(net, covers, training, 7, in_view, loss_function=loss)  # type: ignore[arg-type]
    stream = Stream(len(train_on), training.batch_size, training.check_every, 7, N_VIEWS)
    train(
        module,
        GalaxyData(train_on, val, stream=stream),
        folder,
        training=training,
        trainer=config.trainer,
        logger=config.logger,
        name="",
    )
    best = torch.load(folder / "result.ckpt", weights_only=True)["state_dict"]
    head.load_state_dict({k.removeprefix("net.head."): v for k, v in best.items() if "net.head." in k})
    return head


def losses(folder: Path) -> NDArray[np.float64]:
    """Rows of training and validation loss at the checks, in order."""
    with next(folder.rglob("metrics.csv")).open() as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(r[k]) for r in rows if r[k]] for k in ("train_loss", "val_loss")])


@pytest.mark.parametrize("schedule", ["one_cycle", "halfway_drop", "constant"])
@pytest.mark.parametrize("kind", ["soft", "hard", "hidden"])
def test_the_loop_trains_as_lightning_does(kind: str, schedule: str, tmp_path: Path) -> None:
    training = TrainingConfig(40, 10, 8, 0.05, 0.01, schedule)
    config, head, loss = settings("single" if kind == "hidden" else "multi"), head_of(kind), loss_of(kind)
    for part in head.modules():
        if isinstance(part, Head) and part.gate is not None:
            part.gate.requires_grad_(False)
    start = copy.deepcopy(head.state_dict())
    theirs = by_lightning(config, copy.deepcopy(head), loss, training, tmp_path / "lightning")
    ours = train_head(config, head, loss, training, galaxies(), tmp_path / "plain")
    for key, values in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], values, rtol=1e-4, atol=1e-6, msg=key)
        frozen = key.startswith("gate") or key in ("mean", "scale")
        assert torch.equal(values, start[key]) == frozen, key
    np.testing.assert_allclose(losses(tmp_path / "plain"), losses(tmp_path / "lightning"), rtol=1e-5)
    found = torch.load(tmp_path / "plain" / "result.ckpt", weights_only=True)
    assert {"net.head." + key for key in ours.state_dict()} == found["state_dict"].keys()


def test_batches_may_be_larger_than_what_is_gathered_together(tmp_path: Path) -> None:
    training = TrainingConfig(2, 1, BLOCK + 5, 0.05)
    ours = train_head(settings(), head_of("hard"), hard_labels, training, galaxies(), tmp_path / "plain")
    theirs = by_lightning(settings(), head_of("hard"), hard_labels, training, tmp_path / "lightning")
    torch.testing.assert_close(ours.redshift.weight, theirs.redshift.weight, rtol=1e-4, atol=1e-6)


def test_a_training_that_is_finished_is_not_repeated_and_one_that_is_not_starts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = TrainingConfig(20, 5, 8, 0.05)
    whole = train_head(settings(), head_of("hard"), hard_labels, training, galaxies(), tmp_path / "whole")
    asked = []

    def cut(logits: tuple[Tensor, Tensor | None], batch: dict[str, Tensor]) -> Tensor:
        asked.append(len(batch["z_bin"]))
        if len(asked) > 15:
            raise KeyboardInterrupt
        return hard_labels(logits, batch)

    with pytest.raises(KeyboardInterrupt):
        train_head(settings(), head_of("hard"), cut, training, galaxies(), tmp_path / "cut")
    again = train_head(settings(), head_of("hard"), hard_labels, training, galaxies(), tmp_path / "cut")
    assert torch.equal(again.redshift.weight, whole.redshift.weight)
    done = train_head(settings(), head_of("hard"), cut, training, galaxies(), tmp_path / "cut")
    assert torch.equal(done.redshift.weight, whole.redshift.weight)


def test_a_training_that_diverges_stops(tmp_path: Path) -> None:
    def broken(logits: tuple[Tensor, Tensor | None], batch: dict[str, Tensor]) -> Tensor:
        return hard_labels(logits, batch) * torch.inf

    with pytest.raises(DataError, match=r"nan at step 5: training has diverged. Lower its learning rate"):
        train_head(settings(), head_of("hard"), broken, TrainingConfig(20, 5, 8), galaxies(), tmp_path)
    assert not (tmp_path / "result.ckpt").exists()


def test_steps_are_left_when_a_training_fails(tmp_path: Path) -> None:
    left: list[bool] = []

    def steps() -> Fitting[int]:
        try:
            heads = yield [fit]
            assert heads == [fit.head]
            return 7
        finally:
            left.append(True)

    fit = Fit(settings(), head_of("hard"), hard_labels, TrainingConfig(4, 2, 8), galaxies(), tmp_path)
    assert alone(steps()) == 7
    (tmp_path / "result.ckpt").write_bytes(b"no weights")
    try:
        alone(steps())
    except DataError:
        assert left == [True, True]
    else:
        pytest.fail("damaged weights were read")


@pytest.mark.parametrize("finished", [(), (1,)])
@pytest.mark.parametrize("kind", ["soft", "hard", "hidden"])
def test_heads_that_are_trained_together_are_those_of_one_after_the_other(
    kind: str, finished: tuple[int, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain_training, "BLOCK", 60)  # of several that are read, and validated with
    monkeypatch.setattr(plain_training, "VAL_BATCH", 8)
    training = TrainingConfig(40, 10, 8, 0.05, 0.01, "one_cycle")
    config, fits = settings("single" if kind == "hidden" else "multi"), []
    for i, kept in enumerate((29, 24, 27)):
        head, of_val = head_of(kind), galaxies()[1]
        if isinstance(head, HiddenHead):
            head.start_from(torch.from_numpy(VECTORS[0] + i), torch.full((N_BINS,), 1 / N_BINS))
        with torch.no_grad():
            head.redshift.weight += 0.1 * i
        of_train = galaxies()[0]
        columns = {name: column[:kept] for name, column in of_train.columns.items()}
        own = [replace(of_train, columns=columns, rows=of_train.rows[:kept]), of_val]
        fits.append(Fit(config, head, loss_of(kind), training, own, tmp_path / f"step3-{i}"))
    apart = [
        replace(fit, head=copy.deepcopy(fit.head), folder=tmp_path / f"alone-{i}")
        for i, fit in enumerate(fits)
    ]
    for fit in apart:
        train_heads([fit])
    of_one = trained(apart)
    for i in finished:
        shutil.copytree(apart[i].folder, fits[i].folder)
    train_heads(fits)
    for ours, theirs, fit, other in zip(trained(fits), of_one, fits, apart, strict=True):
        for key, values in theirs.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[key], values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses(fit.folder), losses(other.folder), rtol=1e-5)
    gate = [head.gate.weight for head in of_one if isinstance(head, Head) and head.gate is not None]
    assert all(torch.equal(weight, head_of(kind).gate.weight) for weight in gate)
    assert not torch.allclose(of_one[0].redshift.weight, of_one[1].redshift.weight, atol=1e-3)


def test_a_device_holds_the_rows_that_are_asked_for_view_by_view() -> None:
    rows = np.array([40, 3, 17])
    found = held(VECTORS.astype(np.float16), rows, torch.device("cpu"))
    assert found.dtype == torch.float16
    np.testing.assert_array_equal(found.numpy(), VECTORS.astype(np.float16)[:, rows])
