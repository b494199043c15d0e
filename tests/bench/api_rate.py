"""How much of the encoders' own rate is left to three lines of Python.

    python tests/bench/api_rate.py [--model sdss_main] [--galaxies 10000] [--threads 2] [--rounds 5]

Cutouts of noisy Gaussians, in memory. The encoders' rate is that of all members' embeddings of the same
batches, each as if it were alone; `predict` measures a cutout once for all members that read the same, and
adds checks of pixels, heads, finishing, estimates and distances. Both run in turn; medians are compared.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import photoz_lit
from photoz_lit.device import BATCH
from photoz_lit.embeddings import embed

PIXELS = 64


def drawn(n: int) -> NDArray[np.float32]:
    """Draw cutouts (n, 5, 64, 64), nanomaggies."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:PIXELS, :PIXELS].astype(np.float32) - (PIXELS - 1) / 2
    cutouts = rng.standard_normal((n, 5, PIXELS, PIXELS), dtype=np.float32) * np.float32(0.02)
    for i, (peak, width) in enumerate(rng.uniform([0.3, 2], [3, 5], (n, 2)).astype(np.float32)):
        cutouts[i] += peak * np.exp(-(x**2 + y**2) / (2 * width**2))
    return cutouts


def seconds(work: Callable[[], Any], clock: Callable[[], float]) -> float:
    """Return how long a piece of work takes."""
    began = clock()
    work()
    return clock() - began


def rates(
    model: photoz_lit.Model, n: int, rounds: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Return galaxies a second of `predict` and of the members' encoders one after the other."""
    cutouts, ebv, r = drawn(n), np.full(n, 0.05), np.full(n, 17.0)
    predictor = model._predictor("images", cutouts.shape[1:])

    @torch.inference_mode()
    def encode() -> None:
        for start in range(0, n, BATCH):
            raw, dust = (torch.from_numpy(v[start : start + BATCH]) for v in (cutouts, ebv.astype("f4")))
            for branch in predictor.branches:
                embed(branch.encoder, branch.inputs, raw, dust, 0, predictor.trainer)

    def predict() -> None:
        model.predict(cutouts, ebv, r)

    encode(), predict()  # what is imported or made once
    taken = [(seconds(predict, clock), seconds(encode, clock)) for _ in range(rounds)]
    of_predict, of_encoders = n / np.median(taken, axis=0)
    return float(of_predict), float(of_encoders)


def main() -> None:
    """Print both rates and their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sdss_main")
    parser.add_argument("--galaxies", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    typed = parser.parse_args()
    torch.set_num_threads(typed.threads)
    predict, encoders = rates(photoz_lit.load(typed.model), typed.galaxies, typed.rounds)
    print(f"predict {predict:.0f} a second, encoders {encoders:.0f}: {predict / encoders:.2f}")


if __name__ == "__main__":
    main()
