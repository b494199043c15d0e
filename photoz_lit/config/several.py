"""Jobs of a sweep: classifiers side by side on a CPU, together on a GPU; others one after the other."""

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from threadpoolctl import threadpool_limits

from photoz_lit.errors import DataError
from photoz_lit.processes import can_fork, end_with_parent

MOST = 8  # processes: each holds half a gigabyte
KILLED = (
    "a process of the sweep was ended, perhaps for its memory: type the same command to go on, with "
    "trainer.threads=1 for one process"
)
GPUS = ("/dev/nvidiactl", "/dev/kfd")  # one is there where a driver is

Job = tuple[DictConfig, list[str]]  # settings, and the words that they are composed of
Attempt = Callable[[DictConfig, list[str]], Exception | None]
AttemptTogether = Callable[[Sequence[Job]], Sequence[Exception | None]]


def results_of(
    attempt: Attempt, attempt_together: AttemptTogether, jobs: Sequence[Job]
) -> Iterator[Exception | None]:
    """Attempt jobs, and yield what comes of each, in order.

    Classifiers alone run side by side, or on a GPU together: a representation takes all cores, and others
    wait for it.
    """
    count, threads = _processes([settings for settings, _ in jobs])
    if count == 1:
        together = _together([settings for settings, _ in jobs])
        yield from attempt_together(jobs) if together else (attempt(*job) for job in jobs)
        return
    for settings, _ in jobs:
        OmegaConf.update(settings, "trainer.progress", False)
        if _number(settings, "trainer.threads"):
            OmegaConf.update(settings, "trainer.threads", threads)
    sys.stdout.flush()
    fork = multiprocessing.get_context("fork")
    taken, found = fork.Value("i", 0), dict[int, Exception | None]()
    ends = [fork.Pipe(duplex=False) for _ in range(count)]
    order = sorted(range(len(jobs)), key=lambda i: -_steps(jobs[i][0]))  # the longest first
    queue = [(i, jobs[i]) for i in order]
    workers = [fork.Process(target=_work, args=(attempt, queue, threads, taken, end)) for _, end in ends]
    sources: dict[Any, Connection] = {}  # by what becomes ready: a result, or the end of a process
    try:
        for worker, (source, _) in zip(workers, ends, strict=True):
            worker.start()
            sources |= {source: source, worker.sentinel: source}
        for i in range(len(jobs)):
            while i not in found:
                for ready in wait(list(sources)):
                    while sources[ready].poll():
                        which, raised, result = sources[ready].recv()
                        if raised:
                            raise result
                        found[which] = result
                    if isinstance(ready, int):
                        del sources[ready]
                        ended = next(worker for worker in workers if worker.sentinel == ready)
                        ended.join()  # it closes its files before its exit code is there
                        if ended.exitcode:
                            raise DataError(KILLED)
            yield found[i]
    except BaseException:
        for worker in workers:
            if worker.pid is not None:
                worker.terminate()
        raise
    finally:
        for worker in workers:
            if worker.pid is not None:
                worker.join()


def _work(
    attempt: Attempt, queue: Sequence[tuple[int, Job]], threads: int, taken: Any, end: Connection
) -> None:
    """Attempt one job after the other that no other process has taken, and tell what came of it."""
    _begin(threads)
    while True:
        with taken.get_lock():
            place = taken.value
            taken.value += 1
        if place >= len(queue):
            return
        i, job = queue[place]
        try:
            end.send((i, False, attempt(*job)))
        except Exception as error:  # a fault of ours is raised where the sweep was begun
            traceback.print_exc()
            end.send((i, True, RuntimeError(repr(error))))


def _processes(jobs: Sequence[DictConfig]) -> tuple[int, int]:
    """Return how many processes share the jobs, and how many threads each has."""
    threads = min((_number(job, "trainer.threads") or os.cpu_count() or 1 for job in jobs), default=1)
    if not can_fork() or _on_gpu(jobs) or any(job.stage.name != "classifier" for job in jobs):
        return 1, threads
    count = max(1, min(len(jobs), threads, MOST))
    return count, threads // count


def _on_gpu(jobs: Sequence[DictConfig]) -> bool:
    """Whether jobs may take a GPU."""
    return any(Path(place).exists() for place in GPUS) and any(j.trainer.accelerator != "cpu" for j in jobs)


def _together(jobs: Sequence[DictConfig]) -> bool:
    """Whether jobs train their heads together: on a CPU nothing is gained. W&B has one run at a time."""
    wandb = any(str(_value(job, "logger.name")).startswith("wandb") for job in jobs)
    return len(jobs) > 1 and not wandb and _on_gpu(jobs) and all(j.stage.name == "classifier" for j in jobs)


def _steps(job: DictConfig) -> int:
    """Return how many steps of training a correction takes, about."""
    last = "hidden" if _number(job, "correction.step3.hidden") else "step3"
    steps = 0
    for branch, training in (("step2", "step2"), ("step3", last)):
        if OmegaConf.select(job, f"correction.{branch}"):
            steps += _number(job, f"training.{training}.max_steps")
    return steps * (_number(job, "correction.members") or 1)


def _number(job: DictConfig, key: str) -> int:
    """Return a number that a job has, or 0; what is none the job itself refuses, when it is attempted."""
    value = _value(job, key)
    return value if isinstance(value, int) else 0


def _value(job: DictConfig, key: str) -> Any:
    """Return what a job has under a key, or None."""
    try:
        return OmegaConf.select(job, key)
    except OmegaConfBaseException:
        return None


def _begin(threads: int) -> None:
    """Make a process ready for its jobs: before PyTorch is imported, which then has as many threads."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process says what is to be said
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threadpool_limits(threads)
