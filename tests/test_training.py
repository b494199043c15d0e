from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import QUICK, begin

from photoz_lit.config import LoggerConfig, TrainerConfig, TrainingConfig
from photoz_lit.data.batches import Galaxies, Stream
from photoz_lit.data.transforms import CatalogueInputs
from photoz_lit.models.encoders import build_encoder
from photoz_lit.models.encoders.settings import MLPSettings
from photoz_lit.models.heads import Head, PhotozNet
from photoz_lit.models.module import PhotozModule
from photoz_lit.training import BLOCK, GalaxyData, train


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


@pytest.mark.parametrize("tasks", ["1", "4"])
def test_one_device_is_one_device_whatever_a_batch_system_counts(
    tasks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("JOB_ID", "PROCID", "LOCALID", "NODEID", "NTASKS_PER_NODE")
    slurm = dict.fromkeys(names, "0") | {"JOB_NAME": "x", "NTASKS": tasks, "NODELIST": "n1"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert train_tiny(tmp_path)["state_dict"]


def test_a_log_says_how_long_the_whole_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("photoz_lit.progress.LOG_EVERY", 0.0)
    with caplog.at_level("INFO"):
        train_tiny(tmp_path)
    said = [message for message in caplog.messages if "left" in message]
    assert [message.partition(",")[0] for message in said] == [f"{i} of 4 steps" for i in (2, 4)]
    assert said[-1].endswith(", 0:00:00 left")


def test_an_interrupted_training_goes_on_from_its_last_checkpoint_and_ends_with_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = train_tiny(tmp_path / "end", 40, 40, wrong=1)["state_dict"]
    whole = train_tiny(tmp_path / "whole", 40, 2, wrong=1)["state_dict"]  # validation gets worse

    def stop(module: PhotozModule, *_: object) -> None:
        if module.global_step == 21:
            raise RuntimeError("power cut")

    with monkeypatch.context() as patched:
        patched.setattr(PhotozModule, "begin_step", stop)
        with pytest.raises(RuntimeError, match="power cut"):
            train_tiny(tmp_path / "resumed", 40, 2, wrong=1)
    assert torch.load(tmp_path / "resumed" / "last.ckpt", weights_only=True)["global_step"] == 20
    resumed = train_tiny(tmp_path / "resumed", 40, 2, wrong=1)["state_dict"]
    for key, values in whole.items():
        assert torch.equal(resumed[key], values), key
    assert not all(torch.equal(end[key], values) for key, values in whole.items())


@pytest.mark.slow
def test_two_devices_train_as_one_does_with_the_same_batches(tmp_path: Path) -> None:
    words = (*QUICK, "stage=representation", "encoder=net_s2", "trainer.precision=32-true", "logger=csv")
    losses = []
    for devices in (1, 2):
        place = f"output_dir={tmp_path / str(devices)}", f"data_dir={tmp_path / 'data'}"
        process = begin(*words, f"trainer.devices={devices}", *place)
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, out + err
        (log,) = (tmp_path / str(devices)).rglob("metrics.csv")
        losses.append(np.genfromtxt(log, delimiter=",", skip_header=1))
        assert len(list((tmp_path / str(devices)).rglob("photo_z.fits"))) == 1
    assert np.isfinite(losses[0]).sum() == 8  # of two epochs a step, and a loss of each kind
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)


def galaxy_data() -> GalaxyData:
    columns, inputs = {"number": np.arange(50)}, np.zeros((50, 2, 3), "f4")
    galaxies = Galaxies(inputs, columns, np.arange(50))
    return GalaxyData(galaxies, replace(galaxies, rows=np.arange(9)), stream=Stream(50, 8, 10, 3, 8))


def test_data_module_gives_the_stream_in_blocks_and_the_validation_split() -> None:
    data = galaxy_data()
    train = list(data.train_dataloader())
    assert [b["number"].shape for b in train] == [(10, 8)]
    assert train[0]["number"].tolist() == [m.tolist() for m, _ in data.stream]
    assert [b["number"].tolist() for b in data.val_dataloader()] == [list(range(9))]


@pytest.mark.parametrize(("room", "steps"), [(1e9, 10), (8 * 24 * 7, 5), (8 * 24, 1), (1, 1)])
def test_blocks_divide_an_epoch_and_fit_in_their_room(
    room: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BLOCK, "cpu", room)  # of 8 galaxies of 24 bytes
    assert {b["number"].shape for b in galaxy_data().train_dataloader()} == {(steps, 8)}
