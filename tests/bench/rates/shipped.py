"""The package, in turns: the only file of the benchmark that calls more of it than its command line."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from photoz_lit.config import TrainerConfig
from rates.turns import Turns


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


def inference(model: str, path: str, n: str) -> Callable[[], float]:
    """Give p(z) of n cutouts in memory."""
    from photoz_lit.inference import Predictor, open_model

    cutouts = cutouts_of(path, int(n))
    predictor = Predictor([open_model(Path(model))], "images", cutouts.shape[1:], trainer=TrainerConfig())
    ebv, r = np.full(len(cutouts), 0.05), np.full(len(cutouts), 17.0)

    def once() -> float:
        predictor(cutouts, ebv, r)
        return len(cutouts)

    return once


def encoder(name: str, path: str, n: str) -> Callable[[], float]:
    """Encode n cutouts in memory, with nothing before or after it."""
    from photoz_lit.device import BATCH, autocast, device_of
    from photoz_lit.models.encoders import build_encoder, encoder_class

    trainer, cutouts = TrainerConfig(), torch.from_numpy(cutouts_of(path, int(n)))
    settings, device = encoder_class(name).Settings(name), device_of(trainer)
    inputs = encoder_class(name).inputs(settings, "images", False)
    cutouts, columns = cutouts.to(device), inputs(cutouts[:2].float(), None).shape[1]
    net = build_encoder(name, columns, cutouts.shape[2], settings).to(device).eval()
    ebv = torch.full((len(cutouts),), 0.05, device=device)

    @torch.inference_mode()
    def once() -> float:
        for x, dust in zip(cutouts.split(BATCH), ebv.split(BATCH), strict=True):
            made = inputs(x, None)
            if made.ndim == 4:
                made = made.contiguous(memory_format=torch.channels_last)
            with autocast(trainer):
                net(made, dust).float().cpu()
        return len(cutouts)

    return once


def reading(path: str, batch: str) -> Callable[[], float]:
    """Give training batches of an array on disk, turned and stretched, on the device."""
    from photoz_lit.data.datamodule import Galaxies, GalaxyData, Stream

    from photoz_lit.data.transforms import ImageInputs
    from photoz_lit.device import device_of

    array = np.load(path, mmap_mode="r")
    rows, inputs, device = np.arange(len(array)), ImageInputs(), device_of(TrainerConfig())
    columns = {"ebv": np.zeros(len(rows), np.float32)}
    train, val = Galaxies(array, columns, rows), Galaxies(array, columns, rows[:1])
    data = GalaxyData(train, val, stream=Stream(len(rows), int(batch), 10**9, 1, inputs.n_views))
    data.trainer = None
    stream = iter(data.train_dataloader())

    def step() -> float:
        read = next(stream)
        made = inputs(read["inputs"].to(device), read["view"].to(device))
        return len(made.contiguous(memory_format=torch.channels_last))

    return step


def cutouts_of(path: str, n: int) -> np.ndarray:
    """Return the first n cutouts of an array on disk, again and again if it has fewer."""
    array = np.load(path, mmap_mode="r")
    return np.concatenate([array] * -(-n // len(array)))[:n] if n > len(array) else np.array(array[:n])


PIECES = {f.__name__: f for f in (inference, encoder, reading)}

if __name__ == "__main__":
    if sys.argv[1] == "training":
        training(*sys.argv[2:])
    else:
        turns = Turns()
        turns.serve(PIECES[sys.argv[1]](*sys.argv[2:]))
