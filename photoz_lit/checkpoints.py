"""Weights and settings of a network in one file, loaded without unpickling code.

A run folder has a checkpoint of torch's, `model.ckpt`; what is exported has the same as `model.safetensors`.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photoz_lit.config.folders import weights_file
from photoz_lit.errors import DataError
from photoz_lit.files import beside


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint without unpickling code; DataError where the file is none of ours, or not whole."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for files that are not its own
        raise DataError(
            f"{path}: cannot be loaded as a checkpoint ({type(error).__name__}): "
            "delete its folder and train again"
        ) from error
    if not isinstance(checkpoint, dict) or not {"state_dict", "settings"} <= checkpoint.keys():
        raise DataError(f"{path}: is no checkpoint of photoz_lit: delete its folder and train again")
    return checkpoint


def open_weights(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file that holds a folder's network, and its `state_dict` and `settings`."""
    path = weights_file(folder)
    if path.suffix == ".ckpt":
        return path, load_checkpoint(path)
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            settings = json.loads(file.metadata()["settings"])
            return path, {"state_dict": {k: file.get_tensor(k) for k in file.keys()}, "settings": settings}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be loaded ({error}): export the model again") from error


def save_exported(folder: Path, state_dict: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """Write `model.safetensors`; the settings are in its header."""
    from safetensors.torch import save

    plain = {name: values.contiguous() for name, values in state_dict.items()}
    with beside(folder / "model.safetensors") as partial:
        partial.write_bytes(save(plain, {"settings": json.dumps(settings)}))


def load_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Load weights into the network that they belong to; DataError where they are another network's."""
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: weights of another network: delete its folder, train again") from error


def save_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and rename it; the same content gives the same bytes."""
    with beside(path) as partial, partial.open("wb") as file:  # a path would be written into it
        torch.save(content, file)
