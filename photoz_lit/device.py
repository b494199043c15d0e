"""Where networks run: the device, the precision, the threads; no Lightning, which takes seconds to import."""

from typing import Literal

import torch

from photoz_lit.config import TrainerConfig
from photoz_lit.errors import ConfigError

BATCH = 512  # galaxies at a time where nothing is trained


def use_threads(n: int | None) -> None:
    """Use so many CPU threads in this process; None leaves the choice to torch."""
    if n is not None:
        torch.set_num_threads(n)


def device_of(trainer: TrainerConfig) -> torch.device:
    """Return the device that Lightning would train on."""
    if trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if trainer.accelerator in ("gpu", "cuda"):
        raise ConfigError(
            f"trainer.accelerator={trainer.accelerator} but no GPU is found: type trainer.accelerator=auto"
        )
    return torch.device("cpu")


def precision_of(trainer: TrainerConfig) -> Literal["bf16-mixed", "32-true"]:
    """Return bf16-mixed where the hardware computes in it, else 32-true."""
    if trainer.precision != "auto":
        return "bf16-mixed" if trainer.precision == "bf16-mixed" else "32-true"
    if device_of(trainer).type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() else "32-true"


def autocast(trainer: TrainerConfig) -> torch.autocast:
    """Return the autocast context that matches `precision_of`, for inference outside Lightning."""
    enabled = precision_of(trainer) == "bf16-mixed"
    return torch.autocast(device_of(trainer).type, dtype=torch.bfloat16, enabled=enabled)
