"""The folder of losses: each one's settings, and a new one from outside."""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from command import Finished, probabilities, run, run_well

from photoz_lit.correction.losses import LOSSES, loss_module

TOY = """
from dataclasses import dataclass

from photoz_lit.correction.losses import cross_entropy
from photoz_lit.errors import ConfigError


@dataclass
class Settings(cross_entropy.Settings):
    name: str = "toy"
    confidence: float = 0.5

    def check(self, weights):
        if not 0 < self.confidence <= 1:
            raise ConfigError(f"correction.step2.loss.confidence={self.confidence} must be in (0, 1]")


class Loss(cross_entropy.Loss):
    def __call__(self, logits, batch):
        return super().__call__((self.settings.confidence * logits[0], logits[1]), batch)
"""
CORRECTION = """
name: my_own
step2: {loss: {name: toy, confidence: 0.25}}
"""


@pytest.mark.parametrize("name", LOSSES)
def test_settings_have_the_name_of_their_loss_and_defaults_that_work(name: str) -> None:
    module = loss_module(name)
    settings = module.Settings()
    assert settings.name == name
    settings.check("none")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One module, one YAML, one line in the table of contents: nothing else knows of the new loss."""
    (tmp_path / "toy_loss.py").write_text(textwrap.dedent(TOY))
    (tmp_path / "conf" / "correction").mkdir(parents=True)
    (tmp_path / "conf" / "correction" / "my_own.yaml").write_text(CORRECTION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(LOSSES, "toy", "toy_loss")
    yield tmp_path / "conf"
    sys.modules.pop("toy_loss", None)


def test_a_loss_from_outside_is_fitted_tested_and_told_apart(
    toy: Path, catalogue_run: Finished, tmp_path: Path
) -> None:
    copied = catalogue_run.copy(tmp_path / "own")
    words = (f"--config-dir={toy}", "stage=classifier", "correction=my_own", *copied.words)
    run_well(*words)
    run_well(*words, "correction.step2.loss.confidence=1")
    folders = sorted((copied.folder / "runs").glob("*/classifier/correction=my_own,*"))
    assert len(folders) == 2
    assert len(list(copied.folder.rglob("representation/*/step2-*"))) == 3  # with that of `full`
    pdfs = []
    for folder in folders:
        with h5py.File(folder / "pdf.hdf5") as file:
            pdfs.append(probabilities(file))
    assert not np.allclose(*pdfs, atol=1e-6)
    assert "is complete: skipped" in run_well(*words).out


def test_its_settings_are_checked_like_ours(toy: Path) -> None:
    words = (f"--config-dir={toy}", "stage=classifier", "correction=my_own")
    assert "must be in (0, 1]" in run(*words, "correction.step2.loss.confidence=2").message
    assert (
        "Did you mean correction.step2.loss.confidence"
        in run(*words, "correction.step2.loss.confidenc=1").message
    )
