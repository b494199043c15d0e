"""Corrections of a sweep on one GPU: heads that are alike are trained in the same matrix products.

A correction asks whoever does its steps for trained heads, and goes on with them. The products of one head
are small: those of several, on a GPU, take hardly longer.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from photoz_lit.config import Config
from photoz_lit.errors import PhotozError

if TYPE_CHECKING:  # what is done already needs no PyTorch
    from photoz_lit.plain_training import Fit, Fitting

AT_ONCE = 8  # corrections: each holds the embeddings of its galaxies
HEADS = 16  # in one product: each holds its labels

Work: TypeAlias = "Callable[[Config], Fitting[None] | None]"  # None: it is done
Failure = PhotozError | OSError


def attempted(work: Work, configs: Sequence[Config]) -> list[Failure | None]:
    """Do work that asks for heads, up to `AT_ONCE` at the same time, and return what failed of each."""
    jobs: dict[int, _Job] = {}
    left = dict(enumerate(configs))
    while left:
        folders = dict[Path, int]()  # two jobs of one folder: the second will find it done
        for i, config in left.items():
            if len(folders) < AT_ONCE:
                folders.setdefault(config.folder("classifier"), i)
        now: list[_Job] = []
        try:
            # In order: two sweeps at once, each of which holds some folders, would else wait for each other.
            for _, i in sorted(folders.items()):
                jobs[i] = _Job(work, left.pop(i))
                now.append(jobs[i])
            while fits := [fit for job in now for fit in job.fits]:
                failures = _train(fits)
                for job in now:
                    job.go_on(failures)
        finally:
            for job in now:
                job.close()
    return [jobs[i].failure for i in range(len(configs))]


class _Job:
    """Work under way: the heads that it waits for, or what failed."""

    def __init__(self, work: Work, config: Config) -> None:
        self.steps: Fitting[None] | None = None
        self.fits: list[Fit] = []
        self.failure: Failure | None = None

        def begin() -> "list[Fit]":
            self.steps = work(config)
            return [] if self.steps is None else next(self.steps)

        self._do(begin)

    def go_on(self, failures: dict[Path, Failure]) -> None:
        """Go on with the heads, or with what failed of them."""
        from photoz_lit.plain_training import trained

        if self.steps is not None and (fits := self.fits):
            steps, failed = self.steps, [failures[fit.folder] for fit in fits if fit.folder in failures]
            self._do((lambda: steps.throw(failed[0])) if failed else (lambda: steps.send(trained(fits))))

    def close(self) -> None:
        """Leave what is not done: its folder is free for others."""
        if self.steps is not None:
            self.steps.close()

    def _do(self, step: "Callable[[], list[Fit]]") -> None:
        self.fits = []
        try:
            self.fits = step()
        except StopIteration:
            pass
        except (PhotozError, OSError) as error:
            self.failure = error
            self.close()


def _train(fits: "Sequence[Fit]") -> dict[Path, Failure]:
    """Train heads, those of one kind together, and return what failed, by folder."""
    import torch

    from photoz_lit.plain_training import train_heads

    kinds: dict[str, list[Fit]] = {}
    failures: dict[Path, Failure] = {}
    for fit in {fit.folder: fit for fit in fits}.values():  # corrections share results of Step 2
        kinds.setdefault(fit.kind, []).append(fit)
    groups = [alike[i : i + HEADS] for alike in kinds.values() for i in range(0, len(alike), HEADS)]
    while groups:
        group = groups.pop(0)
        try:
            train_heads(group)
        except (PhotozError, OSError, torch.OutOfMemoryError) as error:
            if len(group) > 1:  # only one may be at fault, or all together are too many
                groups[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
            elif isinstance(error, torch.OutOfMemoryError):
                raise
            else:
                failures[group[0].folder] = error
    return failures
