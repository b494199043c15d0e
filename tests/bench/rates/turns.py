"""Processes that take turns, and commands; how long they take, and the memory they need.

What is compared runs in processes of its own, so that neither has what the other sets for its process, and
one waits while the other works. A process is a module of this folder, `python -m rates.plain PIECE WORDS`,
that does so many units when it reads their number, and answers with what they took.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE.parent), str(ROOT), os.environ.get("PYTHONPATH")])),
}


@dataclass(frozen=True)
class Taken:
    """What a turn took: units done (galaxies, mostly), seconds, those of all processors, bytes, its words."""

    done: float
    wall: float
    cpu: float
    memory: float = np.nan
    said: str = ""
    busy: float = np.nan  # seconds in which the GPU worked

    def rate(self, clock: str = "wall") -> float:
        """Units a second."""
        return self.done / float(getattr(self, clock))


class Turns:
    """The side of the process that works: it waits for its turn, and tells what that took."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "w")  # what is printed goes elsewhere
        os.dup2(2, 1)
        self.profiler: Any = None

    def wait(self) -> int:
        """Wait for the number of units to do; the process ends with the one that asks."""
        line = sys.stdin.readline().split()
        if not line:
            os._exit(0)
        if "profile" in line:
            import torch

            self.profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])
            self.profiler.start()
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return int(line[0])

    def tell(self, done: float) -> None:
        """Tell what so many units took since the last `wait`."""
        if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        told = {
            "done": done,
            "wall": time.perf_counter() - self.wall,
            "cpu": time.process_time() - self.cpu,
        }
        if self.profiler:
            self.profiler.stop()
            told["busy"] = sum(e.self_device_time_total for e in self.profiler.key_averages()) / 1e6
            self.profiler = None
        print(json.dumps(told), file=self.out, flush=True)

    def serve(self, unit: Callable[[], float]) -> None:
        """Do units, each of which returns how many galaxies it was, for ever."""
        while True:
            n = self.wait()
            self.tell(sum(unit() for _ in range(n)))


class Runner:
    """The side that asks: a process that works in turns. Its first, with all start-up, does not count."""

    def __init__(self, *words: str, warm: int = 1, log: Path | None = None) -> None:
        self.words, self.log = words, log
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with Path(log or os.devnull).open("w") as err:
            command = [sys.executable, "-m", *words]
            self.process = subprocess.Popen(command, env=ENVIRONMENT, stderr=err, **pipes)
        self.turn(warm)

    def turn(self, n: int = 1, *flags: str) -> Taken:
        """Let it do n units."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(n, *flags, file=self.process.stdin, flush=True)
            return Taken(**json.loads(self.process.stdout.readline()))
        except (OSError, ValueError) as error:
            self.close()
            tail = self.log.read_text()[-2000:] if self.log and self.log.is_file() else ""
            raise RuntimeError(f"{' '.join(self.words)} ended\n{tail}") from error

    def close(self) -> None:
        """End it."""
        self.process.kill()
        with suppress(OSError, ValueError):  # what was not read of it
            self.process.communicate()

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def command(*words: str, done: float = 1) -> Taken:
    """Type `python -m photoz_lit WORDS` and wait for its end."""
    return program(sys.executable, "-m", "photoz_lit", *words, done=done)


def program(*words: str, done: float = 1) -> Taken:
    """Run a program to its end; its memory is the most that it and its children held at a time."""
    began, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(
        words, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.05):
            peak = max(peak, resident(process.pid))

    before, watcher = os.times(), threading.Thread(target=watch, daemon=True)
    watcher.start()
    said, _ = process.communicate()
    wall, after = time.perf_counter() - began, os.times()
    ended.set()
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.returncode}:\n{said[-2000:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Taken(done, wall, cpu, peak or np.nan, said)


def resident(pid: int) -> float:
    """Return the bytes in memory of a process and all below it, pages that they share counted once a process.

    0 where the system does not tell (it is not Linux).
    """
    total, pids = 0.0, [pid]
    while pids:
        place = Path(f"/proc/{pids.pop()}")
        try:
            total += int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            for task in (place / "task").iterdir():
                pids += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
    return total


def alternate(rounds: int, *turns: Callable[[], Taken]) -> list[list[Taken]]:
    """Take turns so many times: lists of what each took."""
    taken: list[list[Taken]] = [[] for _ in turns]
    for _ in range(rounds):
        for one, turn in zip(taken, turns, strict=True):
            one.append(turn())
    return taken
