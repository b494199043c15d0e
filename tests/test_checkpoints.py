from pathlib import Path
from unittest import mock

import pytest
import torch

from photoz_lit.checkpoints import load_checkpoint, load_weights, save_checkpoint
from photoz_lit.errors import DataError


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
