"""Batches in threads: the next ones are read while one is dealt with."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Semaphore
from typing import TypeVar

import torch

Raw = TypeVar("Raw")
Made = TypeVar("Made")

AHEAD = 8  # batches a thread that may wait to be taken


def in_order(
    parts: Iterable[slice],
    read: Callable[[slice], Raw],
    compute: Callable[[slice, Raw], Made],
    *,
    apart: bool,
) -> Generator[Made]:
    """Yield what is computed of parts, in order; close the iterator to stop its threads early.

    All of torch's threads work on one part or, `apart`, each on one of its own: small operations hardly gain
    from a second thread, and wait long for one that another process keeps. One thread more reads ahead.
    """
    threads = torch.get_num_threads()
    at_once = threads if apart else 1
    turn = Semaphore(at_once)

    def work(part: slice) -> Made:
        raw = read(part)
        with turn:
            return compute(part, raw)

    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(at_once + 1, "ahead", torch.set_num_threads, (threads // at_once,)) as pool:
        try:
            for part in parts:
                waiting.append(pool.submit(work, part))
                if len(waiting) > AHEAD * at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # some libraries have one number for all threads
