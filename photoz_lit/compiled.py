"""Eager or compiled: whichever is faster for an encoder on this machine, by a short trial, remembered.

Compiling takes a minute or two. Where a training or a prediction is too short to win that back, nothing is
tried. What a trial found is kept in the user's cache, by encoder, shape, precision, device and PyTorch.
"""

import copy
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from photoz_lit.config import TrainerConfig
from photoz_lit.device import BATCH, autocast, device_of, precision_of
from photoz_lit.errors import DataError
from photoz_lit.files import digest_of, read_json, write_json
from photoz_lit.models.encoders.layers import Encoder

Encode = Callable[[Tensor, Tensor], Tensor]

COST = 90.0  # s that compiling takes, until a trial has told
MOST_GAIN = {"cpu": 0.25, "cuda": 0.6}  # of the time; a shorter work than this would save is not tried
ROUNDS = 3
LEAST_CALLS = 50 * ROUNDS  # that are worth a trial of the encoder as it is
CPU_IMAGES = 64  # that a CPU encodes at once
# CUDA graphs spare small kernels their launches; what they return is overwritten at the next call.
MODES = {("cuda", True): "reduce-overhead"}

log = logging.getLogger(__name__)


def faster(
    encoder: Encoder, shape: tuple[int, ...], trainer: TrainerConfig, *, calls: int, training: bool
) -> Encode | None:
    """Return what `torch.compile` makes of an encoder where so many calls on a shape gain by it, else None.

    Inputs of another shape go to the encoder as it is: nothing is compiled twice. `trainer.compile` decides
    without a trial where it is true or false.
    """
    wanted = calls >= LEAST_CALLS if trainer.compile is None else trainer.compile
    if not wanted or next(encoder.parameters(), None) is None:
        return None
    device = device_of(trainer)
    if trainer.compile is None:
        key = _key(encoder, shape, trainer, training)
        known = _remembered().get(key)
        if known is None:
            known = _try(encoder.to(device), shape, trainer, calls, training)
            if known is not None:
                _remember(key, known)
        if known is None or calls * (known["eager"] - known["compiled"]) <= known["cost"]:
            return None
    return _compiled(encoder, shape, device.type, training)


def for_inference(encoder: Encoder, shape: tuple[int, ...], trainer: TrainerConfig, n: int) -> Encode:
    """Return what encodes n galaxies, each of a shape, in evaluation mode, as fast as this machine can.

    The encoder stays as it is: where bfloat16 is computed in, a copy of it has weights of that.
    """
    if precision_of(trainer) == "bf16-mixed":
        encoder = copy.deepcopy(encoder)
        for layer in encoder.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):  # what autocast would turn again for each batch
                layer.bfloat16()
    size = piece(len(shape) + 1, trainer)
    return faster(encoder, (size, *shape), trainer, calls=n // size, training=False) or encoder


def piece(n_axes: int, trainer: TrainerConfig) -> int:
    """Return how many galaxies are encoded at once: images fill the cache of a processor soon."""
    return CPU_IMAGES if n_axes == 4 and device_of(trainer).type == "cpu" else BATCH


def _compiled(encoder: Encoder, shape: tuple[int, ...], device: str, training: bool) -> Encode:
    compiled = torch.compile(encoder.forward, dynamic=False, mode=MODES.get((device, training)))

    def encode(x: Tensor, ebv: Tensor) -> Tensor:
        same = x.shape == shape and encoder.training == training
        found: Tensor = compiled(x, ebv) if same else encoder(x, ebv)
        return found

    return encode


def _try(
    encoder: Encoder, shape: tuple[int, ...], trainer: TrainerConfig, calls: int, training: bool
) -> dict[str, float] | None:
    """Return seconds of a call, eager and compiled, and what compiling took; None where it cannot pay."""
    device = device_of(trainer)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=rng).to(device)
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    ebv = torch.rand(shape[0], generator=rng).to(device)

    def seconds(encode: Encode, rounds: int) -> float:
        taken = []
        for _ in range(rounds):
            encoder.zero_grad()  # a gradient may lie in memory that the next call of a CUDA graph takes
            began = time.perf_counter()
            with torch.set_grad_enabled(training), autocast(trainer):
                out = encode(x, ebv)
                if training:
                    out.float().square().mean().backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - began)
        return min(taken)

    was = encoder.training
    encoder.train(training)
    try:
        enough = 2 * COST / (calls * MOST_GAIN[device.type])
        if seconds(encoder, 1) < enough or (eager := seconds(encoder, ROUNDS)) < enough:
            return None
        encode, began = _compiled(encoder, shape, device.type, training), time.perf_counter()
        try:
            seconds(encode, 2)
            cost = time.perf_counter() - began
            compiled = seconds(encode, ROUNDS)
        except Exception as error:  # compilers fail in many ways
            log.info("the encoder cannot be compiled here (%s)", type(error).__name__)
            cost = compiled = 1e9
    finally:
        encoder.train(was)
        encoder.zero_grad()
    said = "a trial: %.3g s eager, %.3g s compiled for %d galaxies, after %.0f s of compiling"
    log.info(said, eager, compiled, shape[0], cost)
    return {"eager": eager, "compiled": compiled, "cost": cost}


def _key(encoder: Encoder, shape: tuple[int, ...], trainer: TrainerConfig, training: bool) -> str:
    """Return a name for what a trial depends on."""
    device = device_of(trainer)
    name = torch.cuda.get_device_name() if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    weights = [[key, list(values.shape)] for key, values in encoder.state_dict().items()]
    facts: list[Any] = [type(encoder).__name__, weights, list(shape), precision_of(trainer), training]
    return digest_of([*facts, name, torch.get_num_threads(), torch.__version__])


def _file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "photoz_lit" / "trials.json"


def _remembered() -> dict[str, Any]:
    try:
        return read_json(_file())
    except DataError:
        return {}


def _remember(key: str, found: dict[str, float]) -> None:
    try:
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_json(_file(), {**_remembered(), key: found})
    except OSError as error:  # the next training tries again
        log.info("what the trial found cannot be kept: %s", error)
