"""A new part is one file, one YAML and one line in its folder's table of contents; nothing else."""

import json
import sys
from pathlib import Path

import pytest
from command import IMAGES, only, places, run, run_well

from photoz_lit.models.encoders import ENCODERS

ENCODER = """
from dataclasses import dataclass

import torch

from photoz_lit.models.encoders.layers import Encoder, ImageSettings, initialise


@dataclass
class ToySettings(ImageSettings):
    width: int = 4


class Toy(Encoder):
    Settings = ToySettings

    def __init__(self, n_columns, pixels, settings, generator=None):
        super().__init__(n_columns, pixels, settings, generator)
        self.n_features = settings.width
        self.layer = torch.nn.Linear(n_columns + 1, settings.width)
        initialise(self, 0.0, generator)

    def forward(self, image, ebv):
        return self.layer(torch.cat([image.mean((2, 3)), ebv[:, None]], dim=1))
"""


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of configurations of one's own, beside modules of one's own."""
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "conf"


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_an_encoder(conf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "toy_encoder.py", ENCODER)
    write(conf / "encoder" / "toy.yaml", "name: toy\nwidth: 3\n")
    monkeypatch.setitem(ENCODERS, "toy", "toy_encoder.Toy")
    words = ("--config-dir", str(conf), *IMAGES, "encoder=toy", *places(tmp_path))
    run_well("stage=representation", *words)
    run_well("stage=classifier", "correction=balanced", *words)
    metrics = json.loads(only(tmp_path / "runs", "classifier/*/metrics.json").read_text())
    assert metrics["n"] == 24
    outcome = run("stage=representation", *words, "+encoder.hidden=[3]")
    assert outcome.code == 2
    assert "encoder.hidden" in outcome.message
    assert "width" in outcome.message
    sys.modules.pop("toy_encoder")
