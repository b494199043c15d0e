"""Checkpoints: weights and settings of a network in one file, loaded without unpickling code."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
