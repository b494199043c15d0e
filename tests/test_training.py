import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch

from photoz_lit import training
from photoz_lit.config import LoggerConfig, TrainerConfig, TrainingConfig
from photoz_lit.data.datamodule import Galaxies, GalaxyData, Stream
from photoz_lit.data.transforms import CatalogueInputs
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.models.encoders import build_encoder
from photoz_lit.models.encoders.settings import MLPSettings
from photoz_lit.models.heads import Head, PhotozNet
from photoz_lit.models.module import PhotozModule
from photoz_lit.training import (
    autocast,
    device_of,
    load_checkpoint,
    load_weights,
    precision_of,
    save_checkpoint,
    train,
    use_threads,
)


def test_checkpoint_comes_back_and_leaves_no_remains(tmp_path: Path) -> None:
    content = {"state_dict": {"a": torch.arange(3.0)}, "settings": {"seed": 1}}
    save_checkpoint(tmp_path / "a.ckpt", content)
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert loaded["settings"] == {"seed": 1}
    assert torch.equal(loaded["state_dict"]["a"], torch.arange(3.0))
    assert [path.name for path in tmp_path.iterdir()] == ["a.ckpt"]
    with mock.patch("os.getpid", return_value=123456789):  # another process writes the same bytes
        save_checkpoint(tmp_path / "b.ckpt", content)
    assert (tmp_path / "a.ckpt").read_bytes() == (tmp_path / "b.ckpt").read_bytes()


def test_absent_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.ckpt: cannot be loaded as a checkpoint"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1], {"weights": 1, "settings": {}}])
def test_file_of_another_program_is_no_checkpoint(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(DataError, match="is no checkpoint of photoz_lit"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize("weights", [{"weight": torch.zeros(2, 2)}, {"other": torch.zeros(1)}, 3])
def test_weights_of_another_network_are_refused(weights: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="weights of another network"):
        load_weights(torch.nn.Linear(3, 2), weights, tmp_path / "a.ckpt")  # type: ignore[arg-type]


def test_hardware_that_is_asked_for_is_used_or_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(TrainerConfig(accelerator="auto")).type == "cpu"
    with pytest.raises(ConfigError, match=r"no GPU is found: type trainer\.accelerator=auto"):
        device_of(TrainerConfig(accelerator="gpu"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_of(TrainerConfig(accelerator="auto")).type == "cuda"
    assert device_of(TrainerConfig(accelerator="cpu")).type == "cpu"


@pytest.mark.parametrize("has_bf16", [True, False])
def test_precision_follows_the_hardware_or_the_settings(
    has_bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_bf16)
    auto = TrainerConfig(accelerator="cpu")
    assert precision_of(auto) == ("bf16-mixed" if has_bf16 else "32-true")
    with autocast(auto):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if has_bf16 else torch.float32)
    assert precision_of(TrainerConfig(accelerator="cpu", precision="32-true")) == "32-true"


def test_threads_are_as_many_as_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        use_threads(2)
        assert torch.get_num_threads() == 2
        use_threads(None)
        assert torch.get_num_threads() == 2
    finally:
        training.use_threads(before)


def train_tiny(folder: Path, steps: int = 4, check_every: int = 2, wrong: int = 0) -> dict[str, Any]:
    """Train a small network on random magnitudes; labels of validation are wrong by so many bins."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    columns = {"ebv": np.zeros(30, "f4"), "z_bin": np.arange(30) % 6, "r_slice": np.arange(30) % 3}
    galaxies = Galaxies(rng.normal(18, 1, (30, 2, 2)).astype("f4"), columns, np.arange(30))
    val = replace(galaxies, columns=columns | {"z_bin": (columns["z_bin"] + wrong) % 6})
    length = TrainingConfig(max_steps=steps, check_every=check_every, batch_size=8, lr=0.1)
    encoder = build_encoder("mlp", 5, 0, MLPSettings(hidden=[8]))
    net = PhotozNet(encoder, Head(8, 2, 6))
    member = torch.tensor([[True, False], [True, True], [False, True]])
    return train(
        PhotozModule(net, member, length, 1, CatalogueInputs()),
        GalaxyData(galaxies, val, stream=Stream(30, 8, check_every, 1, 1)),
        folder,
        training=length,
        trainer=TrainerConfig(accelerator="cpu", precision="32-true"),
        logger=LoggerConfig(name="none"),
        name="tiny",
    )


@pytest.fixture
def quiet() -> Iterator[None]:
    """Lightning as commands run it."""
    with warnings.catch_warnings():
        training.quieten()
        yield


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("tasks", ["1", "4"])
def test_one_device_is_one_device_whatever_a_batch_system_counts(
    tasks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("JOB_ID", "PROCID", "LOCALID", "NODEID", "NTASKS_PER_NODE")
    slurm = dict.fromkeys(names, "0") | {"JOB_NAME": "x", "NTASKS": tasks, "NODELIST": "n1"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert train_tiny(tmp_path)["state_dict"]


@pytest.mark.usefixtures("quiet")
def test_a_log_says_how_long_the_whole_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("photoz_lit.progress.LOG_EVERY", 0.0)
    with caplog.at_level("INFO"):
        train_tiny(tmp_path)
    said = [message for message in caplog.messages if "left" in message]
    assert [message.partition(",")[0] for message in said] == [f"{i} of 4 steps" for i in (1, 2, 3, 4)]
    assert said[-1].endswith(", 0:00:00 left")


@pytest.mark.usefixtures("quiet")
def test_an_interrupted_training_goes_on_from_its_last_checkpoint_and_ends_with_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = train_tiny(tmp_path / "end", 40, 40, wrong=1)["state_dict"]
    whole = train_tiny(tmp_path / "whole", 40, 2, wrong=1)["state_dict"]  # validation gets worse

    def stop(module: PhotozModule, *_: object) -> None:
        if module.global_step == 21:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(PhotozModule, "on_train_batch_start", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            train_tiny(tmp_path / "resumed", 40, 2, wrong=1)
    assert torch.load(tmp_path / "resumed" / "last.ckpt", weights_only=True)["global_step"] == 20
    resumed = train_tiny(tmp_path / "resumed", 40, 2, wrong=1)["state_dict"]
    for key, values in whole.items():
        assert torch.equal(resumed[key], values), key
    assert not all(torch.equal(end[key], values) for key, values in whole.items())


@pytest.mark.parametrize(("name", "offline"), [("wandb", True), ("wandb_online", False)])
def test_one_logger_keeps_runs_of_wandb_and_one_sends_them(
    name: str, offline: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "WandbLogger", dict)
    assert training._logger(LoggerConfig(name), tmp_path, "tiny", None)["offline"] is offline  # type: ignore[index]
