"""Progress with the time left: a bar on a terminal."""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(what: str, wanted: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar with the time left, where there is a terminal.

    Yields
    ------
    advance : callable
        Told how many more are done, and of how many.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    show = wanted and sys.stdout.isatty() and shutil.get_terminal_size().columns > 20
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda n, total: progress.update(task, advance=n, total=total)
