"""Progress with the time left: a bar on a terminal, lines in a log."""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

log = logging.getLogger(__name__)

LOG_EVERY = 30.0  # s


@contextmanager
def progress_bar(what: str, wanted: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with the time left on a terminal; tell it how many more are done, and of how many."""
    if not (wanted and sys.stdout.isatty() and shutil.get_terminal_size().columns > 20):
        yield lambda n, total: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda n, total: progress.update(task, advance=n, total=total)


@contextmanager
def counted(what: str, done: int, total: int, wanted: bool) -> Iterator[Callable[[int], None]]:
    """Show progress from `done` on, a bar on a terminal, else lines in the log; tell it how many more are."""
    first, began = done, time.monotonic()
    logged = began
    with progress_bar(what, wanted) as advance:
        advance(done, total)

        def tick(n: int) -> None:
            nonlocal done, logged
            advance(n, total)
            done += n
            now = time.monotonic()
            if now - logged > LOG_EVERY and not sys.stdout.isatty():
                rate = (done - first) / (now - began)
                left = timedelta(seconds=round((total - done) / rate))
                log.info("%d of %d %s, %.0f a second, %s left", done, total, what, rate, left)
                logged = now

        yield tick
