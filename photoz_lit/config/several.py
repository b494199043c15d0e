"""Jobs of a sweep: one after the other, or side by side where each is too small for several cores."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from threadpoolctl import threadpool_limits

from photoz_lit.errors import DataError
from photoz_lit.processes import can_fork, end_with_parent

MOST = 8  # processes: each holds half a gigabyte
GPUS = ("/dev/nvidiactl", "/dev/kfd")  # one is there where a driver is

Attempt = Callable[[DictConfig, list[str]], Exception | None]
Job = tuple[DictConfig, list[str]]  # settings, and the words that they are composed of

_shared: list[Any] = []  # with the processes that are forked


def results_of(attempt: Attempt, jobs: Sequence[Job]) -> Iterator[Exception | None]:
    """Attempt jobs, and yield what comes of each, in order.

    Classifiers alone run side by side: a representation takes all cores, and others wait for it.
    """
    count, threads = _processes([settings for settings, _ in jobs])
    if count == 1:
        yield from (attempt(*job) for job in jobs)
        return
    for settings, _ in jobs:
        OmegaConf.update(settings, "trainer.progress", False)
        if settings.trainer.threads:
            OmegaConf.update(settings, "trainer.threads", threads)
    _shared[:] = [attempt, jobs]
    sys.stdout.flush()
    fork = multiprocessing.get_context("fork")
    pool = ProcessPoolExecutor(count, fork, _begin, (threads,))
    try:
        for result in [pool.submit(_attempt, i) for i in range(len(jobs))]:
            yield result.result()
    except BaseException as error:
        for child in multiprocessing.active_children():
            child.terminate()
        if not isinstance(error, BrokenProcessPool):
            raise
        raise DataError(
            "a process of the sweep was ended, perhaps for its memory: type the same command to go on, "
            "with trainer.threads=1 for one process"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _processes(jobs: Sequence[DictConfig]) -> tuple[int, int]:
    """Return how many processes share the jobs, and how many threads each has."""
    threads = min((job.trainer.threads or os.cpu_count() or 1 for job in jobs), default=1)
    on_gpu = any(Path(place).exists() for place in GPUS) and any(j.trainer.accelerator != "cpu" for j in jobs)
    if not can_fork() or on_gpu or any(job.stage.name != "classifier" for job in jobs):
        return 1, threads
    count = max(1, min(len(jobs), threads, MOST))
    return count, threads // count


def _begin(threads: int) -> None:
    """Make a process ready for its jobs: before PyTorch is imported, which then has as many threads."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process says what is to be said
    end_with_parent()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    threadpool_limits(threads)


def _attempt(i: int) -> Exception | None:
    attempt, jobs = _shared
    result: Exception | None = attempt(*jobs[i])
    return result
