"""Work for a second core while the first goes on: matplotlib draws on one."""

import atexit
import multiprocessing
import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def aside(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
    """Begin to call a function of a module in another process, and return how to get its result.

    On one core, where processes cannot be forked, or in one with threads of PyTorch, it is called here.
    """
    if (
        (os.cpu_count() or 1) < 2
        or "fork" not in multiprocessing.get_all_start_methods()
        or "torch" in sys.modules
    ):
        result = function(*args, **kwargs)
        return lambda: result
    return _other_process().submit(function, *args, **kwargs).result


@cache
def _other_process() -> ProcessPoolExecutor:
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("fork"))
    atexit.register(pool.shutdown)
    return pool
