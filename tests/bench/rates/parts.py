"""The parts of the benchmark: each returns rows. What is compared takes turns, round by round."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from rates import plain
from rates.ground import Ground, half_type, on_gpu
from rates.table import Row
from rates.turns import Runner, Taken, alternate, command, program

PAPER = (
    *("training.representation.max_steps=120000", "training.representation.check_every=120000"),
    *("training.representation.lr=1e-4", "training.representation.weight_decay=0"),
    *("training.representation.schedule=halfway_drop", "stage=representation", "head=single"),
)
SWEEP = "none,balanced,hard,unshifted,skip_balanced,full,sord,lds,temperature,best"
THRESHOLDS = count(30)  # each once: a finished correction is not repeated
BATCHES = {"net_p": 128, "fast": 256}
# Of training on cutouts, on columns that are measured, and of inference; and how many turns on a GPU have.
UNITS = {"net_p": (1, 0, 1), "fast": (2, 100, 4)}
GPU_TIMES = 50
GOALS = {"net_p": (2.8, 2.9), "fast": (2.2, 1.8)}
SHARES = (0.45, 0.65)  # of the peak


def flops() -> tuple[float, float]:
    """Return floating-point operations a galaxy of Net_P: of a training step, and of inference."""
    net, x = plain.NetP(), torch.randn(2, 5, 64, 64)
    found = []
    for train in (True, False):
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(train):
            out = net(x, torch.zeros(2)).sum()
            if train:
                out.backward()
        found.append(counter.get_total_flops() / len(x))
    return found[0], found[1]


def encoder(g: Ground) -> Iterator[Row]:
    """Training step and inference as shipped, against plain ports and the peak of matrix products."""
    peak = Runner("rates.plain", "gemm", half_type(), "8192" if on_gpu() else "2048", warm=2)
    with peak:
        for name in ("fast",) if g.quick else ("net_p", "fast"):
            yield from one_encoder(g, name, peak)


def one_encoder(g: Ground, name: str, peak: Runner) -> Iterator[Row]:
    """Return the rows of one encoder."""
    path, batch, times = str(g.cutouts), str(BATCHES[name]), GPU_TIMES if on_gpu() else 1
    slow, quickly, several = (n * times for n in UNITS[name])
    words = (*g.words, *PAPER, f"encoder={name}", f"training.representation.batch_size={batch}")
    many = quickly or slow
    with ExitStack() as stack:

        def runner(*of: str, warm: int = 1) -> Runner:
            return stack.enter_context(Runner(*of, warm=warm, log=g.folder / f"{of[1]}.log"))

        ours = runner("rates.shipped", "training", *words, warm=8 * many)
        theirs = runner("rates.plain", "training", name, path, batch)
        third = runner("rates.plain", "training", name, path, batch, "columns") if quickly else peak
        turns = [partial(ours.turn, many), partial(theirs.turn, slow), partial(third.turn, quickly or 3)]
        trained, plainly, other = alternate(g.rounds, *turns)
        said = (g.folder / "training.log").read_text()
        print("\n".join(line for line in said.splitlines() if "compil" in line), end="")
        idle = ours.turn(many, "profile") if on_gpu() else None
    yield Row(
        *("encoder", f"`{name}`, training from cutouts", "galaxies/s", g.rates(trained), "plain port"),
        *(g.rates(plainly), GOALS[name][0]),
    )
    if quickly:
        row = ("encoder", f"`{name}`, training on measured columns", "galaxies/s", g.rates(trained))
        yield Row(*row, "the same", g.rates(other))
    if idle:
        row = ("encoder", f"`{name}`, training: device idle", "of the time", [1 - idle.busy / idle.wall])
        yield Row(*row, goal=0.05, at_most=True)
    n = str(256 if name == "net_p" and not on_gpu() else 1024 * times)
    with ExitStack() as stack:
        ours = stack.enter_context(Runner("rates.shipped", "encoder", name, path, n))
        theirs = stack.enter_context(Runner("rates.plain", "inference", name, path, "128"))
        turns = [ours.turn, partial(theirs.turn, several), partial(peak.turn, 3)]
        given, plainly, top = alternate(g.rounds, *turns)
    row = ("encoder", f"`{name}`, embeddings of cutouts", "galaxies/s", g.rates(given), "plain port")
    yield Row(*row, g.rates(plainly), GOALS[name][1])
    if name == "net_p":
        best = max(map(max, (g.rates(other), g.rates(top))))
        shares = zip(("training", "embeddings"), flops(), (trained, given), SHARES, strict=True)
        for what, cost, taken, goal in shares:
            rates, goal = [cost * r for r in g.rates(taken)], 0.35 if on_gpu() else goal
            row = ("encoder", f"`net_p`, {what}", "flop/s", rates, f"{half_type()} products")
            yield Row(*row, [best] * len(rates), goal)


def bandwidth(g: Ground) -> Iterator[Row]:
    """Memory's own rate, which bounds what is not matrix products."""
    with Runner("rates.plain", "copy", str(2**30)) as runner:
        (taken,) = alternate(g.rounds, partial(runner.turn, 3 * (GPU_TIMES if on_gpu() else 1)))
    yield Row("encoder", "copies in memory, read and written", "B/s", g.rates(taken))


def reading(g: Ground) -> Iterator[Row]:
    """From a store to batches, turned and stretched, against a `.npy` a galaxy."""
    array, folder = np.load(g.cutouts, mmap_mode="r"), g.folder / "each"
    folder.mkdir()
    for i in range(1024):
        np.save(folder / f"{i:04d}.npy", array[i % len(array)].astype(np.float32))
    with (
        Runner("rates.shipped", "reading", str(g.cutouts), "256", warm=8) as ours,
        Runner("rates.plain", "reading", str(folder), "256") as theirs,
    ):
        a, b = alternate(g.rounds, partial(ours.turn, 20), partial(theirs.turn, 2))
    row = ("reading", "store to batch, turned, stretched", "galaxies/s", g.rates(a), "a `.npy` a galaxy")
    yield Row(*row, g.rates(b), 20)


def further(g: Ground) -> Callable[[], Taken]:
    """Return a command that fits another correction each time: Steps 2 and 3 on embeddings that are there."""
    assert g.model.is_dir()  # with its representation and embeddings
    full = ("stage=classifier", "correction=full", *g.fast)
    return lambda: command(*full, f"correction.subset.threshold={next(THRESHOLDS)}")


def heads(g: Ground) -> Iterator[Row]:
    """A whole correction on cached embeddings, against steps in which the encoder runs again."""
    steps, again = 700, further(g)  # of Steps 2 and 3 in the demo
    names = ("fast",) if g.quick else ("fast", "net_p")
    with ExitStack() as stack:
        runners = [Runner("rates.plain", "heads", n, str(g.cutouts), "256") for n in names]
        turns = [partial(stack.enter_context(runner).turn, 1) for runner in runners]
        ours, *theirs = alternate(min(g.rounds, 3), again, *turns)
    for name, taken in zip(names, theirs, strict=True):
        others = [steps / s for s in g.seconds(ours)]
        what = f"Steps 2 and 3 on embeddings, start-up included (`{name}`)"
        yield Row("heads", what, "steps/s", others, "encoder in each step", g.rates(taken))


def start(g: Ground) -> Iterator[Row]:
    """Seconds until something is there."""
    runs = count()

    def ten() -> Taken:
        return command("-m", "stage=classifier", f"correction={SWEEP}", *g.anew(f"ten{next(runs)}"))

    what: dict[str, tuple[Callable[[], Taken], float | None]] = {
        "`import photoz_lit`": (partial(program, sys.executable, "-c", "import photoz_lit"), None),
        "`--help`": (partial(command, "--help"), None),
        "a finished command again": (partial(command, "stage=representation", *g.fast), None),
    }
    if not g.quick:
        what |= {"a further correction": (further(g), 5), "ten corrections in a sweep": (ten, 20)}
    taken = alternate(min(g.rounds, 3), *(turn for turn, _ in what.values()))
    for (name, (_, goal)), each in zip(what.items(), taken, strict=True):
        yield Row("start", name, "s", g.seconds(each), goal=goal, at_most=True)


def mock(g: Ground) -> Iterator[Row]:
    """The simulated survey, measuring included, on one core, against GalSim's bulge and disc."""
    few, many, runs = (32, 160, count()) if g.quick else (128, 1152, count())

    def draw(n: int) -> Taken:
        place = f"data_dir={g.folder / f'mock{next(runs)}'}"
        words = ("stage=prepare", "data=mock", f"data.n_galaxies={n}", place)
        return command(*words, "trainer.threads=1", "trainer.progress=false", done=n)

    with ExitStack() as stack:
        turns = [partial(draw, few), partial(draw, many)]
        if find_spec("galsim"):
            turns.append(partial(stack.enter_context(Runner("rates.plain", "galsim")).turn, 20))
        small, large, *other = alternate(min(g.rounds, 3), *turns)
    row = ("mock", "simulated survey, one core", "galaxies/s", g.slopes(small, large))
    yield Row(*row, "GalSim" if other else "(GalSim is not installed)", *map(g.rates, other))


def predict(g: Ground) -> Iterator[Row]:
    """`stage=predict` from a store to files, against the encoder alone; memory at two sizes."""
    few, many = min(4096, g.galaxies // 4), g.galaxies
    model, runs, rounds = g.model, count(), 1 if many > 500_000 else min(g.rounds, 3)

    def given(store: Path, n: int) -> Taken:
        return g.predicted(model, store, n, f"predicted{next(runs)}")

    with ExitStack() as stack:
        stores = [stack.enter_context(g.store(n)) for n in (few, many)]
        turns = [partial(given, *pair) for pair in zip(stores, (few, many), strict=True)]
        alone = stack.enter_context(Runner("rates.shipped", "encoder", "fast", str(g.cutouts), "1024"))
        small, large, other = alternate(rounds, *turns, partial(alone.turn, max(4, few // 256)))
    written = [f for f in g.folder.glob("predicted1/**/*") if f.is_file()]  # of the first large run
    size = sum(f.stat().st_size for f in written) / many
    row = ("predict", f"`stage=predict`, {many:,} galaxies, after start-up", "galaxies/s")
    yield Row(*row, g.slopes(small, large), "`fast` alone", g.rates(other), 0.92)
    yield Row("predict", "the same, start-up included", "galaxies/s", g.rates(large))
    yield Row("predict", "bytes written a galaxy", "B", [size])
    for n, each in ((few, small), (many, large)):
        held = [one.memory / 1e9 for one in each]
        row = ("predict", f"memory, {n:,} galaxies", "GB", held)
        yield Row(*row, goal=1.0, at_most=True)


def busy(g: Ground) -> Iterator[Row]:
    """All threads beside a busy process, against one thread beside it."""
    sizes, runs, cores = (min(2048, g.galaxies // 4), min(g.galaxies, 16384)), count(), os.cpu_count() or 1
    model = g.model

    def given(store: Path, n: int, threads: int) -> Taken:
        return g.predicted(model, store, n, f"beside{next(runs)}", f"trainer.threads={threads}")

    with ExitStack() as stack:
        stores = [stack.enter_context(g.store(n)) for n in sizes]
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        stack.callback(other.wait)
        stack.callback(other.kill)
        turns = [
            partial(given, *of, threads) for threads in (cores, 1) for of in zip(stores, sizes, strict=True)
        ]
        few, many, few_of_one, many_of_one = alternate(min(g.rounds, 3), *turns)
    row = ("busy", f"{cores} threads beside a busy process, after start-up", "galaxies/s")
    yield Row(*row, g.slopes(few, many), "one thread", g.slopes(few_of_one, many_of_one), 1.0)


PARTS = {f.__name__: f for f in (encoder, bandwidth, reading, heads, start, mock, predict, busy)}
