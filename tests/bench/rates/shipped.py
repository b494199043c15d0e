"""The package, in turns: the only file of the benchmark that calls more of it than its command line."""

import sys
from collections.abc import Callable

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from photoz_lit.config import TrainerConfig
from rates.turns import Turns

MANY = 1_000_000  # galaxies that an encoder is told to expect: what can be compiled for them is


def training(*words: str) -> None:
    """Run a training as it is typed; a unit is a step of the optimiser, whatever calls it."""
    from photoz_lit import __main__

    turns, batch = Turns(), int(next(w for w in words if ".representation.batch_size=" in w).split("=")[1])
    wanted, done = turns.wait(), 0

    def after_step(*_: object) -> None:
        nonlocal wanted, done
        done += 1
        if done == wanted:
            turns.tell(done * batch)
            wanted, done = turns.wait(), 0

    register_optimizer_step_post_hook(after_step)
    sys.argv = ["photoz_lit", *words]
    __main__.main()


def encoder(name: str, path: str, n: str) -> Callable[[], float]:
    """Encode n cutouts in memory, as classifiers and predictions of many galaxies do it."""
    from photoz_lit.compiled import for_inference
    from photoz_lit.device import BATCH, device_of, prepare
    from photoz_lit.embeddings import embed, network_inputs
    from photoz_lit.models.encoders import build_encoder, encoder_class

    trainer = TrainerConfig()
    prepare(trainer)
    device, settings = device_of(trainer), encoder_class(name).Settings(name)
    inputs, cutouts = encoder_class(name).inputs(settings, "images", False), cutouts_of(path, int(n))
    shape = tuple(network_inputs(inputs, torch.from_numpy(cutouts[:1]).to(device), 0).shape[1:])
    net = build_encoder(name, shape[0], cutouts.shape[2], settings).to(device).eval()
    encode = for_inference(net, shape, trainer, MANY)
    ebv = torch.full((BATCH,), 0.05, device=device)

    @torch.inference_mode()
    def once() -> float:
        for start in range(0, len(cutouts), BATCH):
            x = torch.from_numpy(cutouts[start : start + BATCH]).to(device)
            embed(encode, inputs, x, ebv[: len(x)], 0, trainer).cpu()
        return len(cutouts)

    return once


def reading(path: str, batch: str) -> Callable[[], float]:
    """Give training batches of an array on disk, turned and stretched, on the device."""
    from photoz_lit.data.batches import Galaxies, Stream, loader
    from photoz_lit.data.transforms import ImageInputs
    from photoz_lit.device import device_of

    array, inputs, device = np.load(path, mmap_mode="r"), ImageInputs(), device_of(TrainerConfig())
    galaxies = Galaxies(array, {"ebv": np.zeros(len(array), np.float32)}, np.arange(len(array)))
    galaxies = galaxies.on(device) if device.type == "cuda" else galaxies
    stream = Stream(len(array), int(batch), 10**9, 1, inputs.n_views)
    batches = iter(loader(galaxies, stream, 0))

    def step() -> float:
        read = next(batches)
        made = inputs(read["inputs"].to(device), read["view"].to(device))
        return len(made.contiguous(memory_format=torch.channels_last))

    return step


def cutouts_of(path: str, n: int) -> np.ndarray:
    """Return the first n cutouts of an array on disk, again and again if it has fewer."""
    array = np.load(path, mmap_mode="r")
    return np.concatenate([array] * -(-n // len(array)))[:n] if n > len(array) else np.array(array[:n])


PIECES = {f.__name__: f for f in (encoder, reading)}

if __name__ == "__main__":
    if sys.argv[1] == "training":
        training(*sys.argv[2:])
    else:
        turns = Turns()
        turns.serve(PIECES[sys.argv[1]](*sys.argv[2:]))
