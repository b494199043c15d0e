"""Work in threads: batches of which the next are read while one is dealt with; several things at once."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event, Semaphore
from typing import TypeVar

import torch

Item = TypeVar("Item")
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


def side_by_side(work: Callable[[Item, Event], Made], items: Sequence[Item]) -> list[Made]:
    """Work on items, each with one of torch's threads; return what is made of them, in order.

    The event is set when another failed, or somebody interrupts: who works for long looks at it and ends.
    """
    threads, stop = torch.get_num_threads(), Event()
    at_once = min(len(items), threads)
    with ThreadPoolExecutor(at_once, "aside", torch.set_num_threads, (1,)) as pool:
        waiting = [pool.submit(work, item, stop) for item in items]
        try:
            return [one.result() for one in waiting]
        finally:  # also of Ctrl-C, which reaches this thread alone
            for one in waiting:
                one.cancel()  # before a thread that ends takes it up
            stop.set()
            pool.shutdown()
            torch.set_num_threads(threads)  # some libraries have one number for all threads
