"""Where networks run: the device, the precision, the threads; no Lightning, which takes seconds to import."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch

from photoz_lit.config import TrainerConfig
from photoz_lit.errors import ConfigError

BATCH = 512  # galaxies at a time where nothing is trained
ALONE = 2**24  # multiplications of a step that a second thread of the CPU does not speed up
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def prepare(trainer: TrainerConfig) -> None:
    """Make this process ready to compute: threads of the CPU, memory, what a GPU may do."""
    if trainer.threads is not None:
        torch.set_num_threads(trainer.threads)
    keep_memory()
    if torch.cuda.is_available():
        torch.backends.cudnn.benchmark = True  # batches have one size
        # Where bfloat16 is not asked for. Products of matrices, distances among them, stay float32.
        torch.backends.cudnn.allow_tf32 = True


@contextmanager
def threads_for(multiplications: int) -> Iterator[None]:
    """Let one thread of the CPU do small steps: another wakes when much of its share could be done."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1 if multiplications < ALONE else usual)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


@cache
def keep_memory() -> None:
    """Keep memory that was freed for what comes next (glibc alone).

    Else each large tensor is mapped afresh, and zeroing its pages costs a third of a step on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):
        return
    mallopt(M_MMAP_THRESHOLD, 1 << 30)
    mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


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
