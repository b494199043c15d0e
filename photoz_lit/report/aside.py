"""Work for a second core while the first goes on: matplotlib draws on one."""

import atexit
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from typing import ParamSpec, TypeVar

from photoz_lit.processes import can_fork, end_with_parent

P = ParamSpec("P")
T = TypeVar("T")


def aside(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Begin to call a function of a module in another process, and return how to get its result.

    On one core, or where this process cannot be forked, it is called here, when that is wanted.
    """
    if (os.cpu_count() or 1) < 2 or not can_fork():
        return cache(partial(function, *args, **kwargs))
    return _other_process().submit(function, *args, **kwargs).result


@cache
def _other_process() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"), end_with_parent)
    atexit.register(pool.shutdown)
    return pool
