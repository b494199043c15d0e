"""What sources share: settings by kind, the survey that a source is told of, the plan that it gives.

A source is one module of this folder with

- `Settings`, a dataclass on one of those here, whose defaults stand in it alone; `source` is its name;
- `KINDS`, what its stores may hold: `images`, `features` or `vectors`;
- `check(settings, survey)`, which raises ConfigError where the settings cannot work;
- `facts(settings, survey, target)`, all that its store depends on: `facts_of` takes every setting, and what
  is behind every path, but for those that are named as deciding nothing;
- `plan(settings, survey, target, workers)`, which reads and checks its tables, and says how the inputs are
  made, on so many processes or threads. Its `write(folder, facts, progress)` makes the store.

Imports at the top of a source are light: the settings of all sources are read at every start.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.pixels import Inspected, inspect_cutouts, inspect_numbers
from photoz_lit.errors import ConfigError
from photoz_lit.files import digest_of, fingerprint
from photoz_lit.setting import setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from astropy.table import Table

    from photoz_lit.data.catalogue import TableRules
    from photoz_lit.data.store import Store

log = logging.getLogger(__name__)

NANOMAGGIES = 22.5  # AB zero point, mag
MOST_LISTED = 10  # files that facts spell out; more are counted

Progress = Callable[[int, int], None]  # told how many more galaxies are done, and of how many


class Survey(Protocol):
    """What a source is told of the survey."""

    name: str
    bands: str
    pixels: int
    pixel_scale: float
    z_min: float
    z_max: float


@dataclass
class SourceSettings:
    """Of every source: how its galaxies are split by object. None of it decides what a store holds."""

    source: str = ""
    labelled: bool = True
    val_fraction: float = setting(0.05, above=0, below=1)
    test_fraction: float = setting(0.2, above=0, below=1)
    split_seed: int = setting(0, least=0)
    # A fifth of the objects, the outer part, by split_seed: left out (inner), or the test split (outer).
    nested: str = setting("none", choices=("none", "inner", "outer"))
    n_train: int | float | None = setting(None, above=0)
    thin: list[float] = setting([])
    label_error: float = setting(0.0, least=0)

    def need_path(self, key: str, words: str) -> None:
        """Raise ConfigError unless a path is set; `words` say what it should be."""
        need(getattr(self, key) is not None, f"data.{key} is not set: data={self.source} needs {words}")

    def retry(self, folder: Path) -> None:
        """Make a finished store unfinished again where another try may get more; mostly it cannot."""


@dataclass
class TableSettings(SourceSettings):
    """Of sources that read somebody's table."""

    columns: dict[str, str | None] = setting({})
    drop_invalid: bool = False
    # E(B-V) by position: a folder of the SFD maps, or them in pixels of 0.9 degrees. Frames and images to
    # predict for, whose E(B-V) is not told, have that of the coarse map anyway, but with none.
    ebv_maps: str | None = setting(None, choices=("coarse", "none"), kind="path")

    def rules(self, survey: Survey, target: Target, **features: list[str]) -> "TableRules":
        """Return how the table becomes the project's own; `features` are those of `TableRules`."""
        from photoz_lit.data.catalogue import TableRules

        names = {target.column if ours == "target" else ours: yours for ours, yours in self.columns.items()}
        return TableRules(
            columns={ours: yours for ours, yours in names.items() if yours},
            z_range=(survey.z_min, survey.z_max),
            drop_invalid=self.drop_invalid,
            labelled=self.labelled,
            ebv_maps=None if self.ebv_maps in (None, "none") else Path(self.ebv_maps),
            target=target.column,
            **features,
        )


@dataclass
class CutoutSettings(TableSettings):
    """Of sources of cutouts in fluxes. `zero_point` null: what the files say, or nanomaggies.

    `repair` fills single pixels without a flux.
    """

    zero_point: float | None = None
    repair: str = setting("none", choices=("none", "interpolate"))

    def plan_cutouts(
        self,
        survey: Survey,
        table: "Table",
        chunks: Callable[[int], Iterable[NDArray[Any]]],
        zero_point: float = NANOMAGGIES,
        array: "np.memmap[Any, Any] | None" = None,
    ) -> "Plan":
        """Return the plan of cutouts in fluxes of an AB zero point, unless the setting says another."""
        zero_point = zero_point if self.zero_point is None else self.zero_point
        scale = 10 ** (-0.4 * (zero_point - NANOMAGGIES))
        return Plan(
            table,
            (len(table), len(survey.bands), survey.pixels, survey.pixels),
            "images",
            chunks,
            partial(inspect_cutouts, scale=scale, repair=self.repair == "interpolate"),
            "float16" if array is None else str(array.dtype),
            keep_faulty=self.drop_invalid or not self.labelled,
            array=None if array is None else Path(str(array.filename)),
        )


SPLITTING = {f.name for f in fields(SourceSettings)} - {"source", "labelled"}


def facts_of(
    settings: SourceSettings,
    survey: Survey,
    target: Target,
    *,
    of_survey: Collection[str] = (),
    nothing: Collection[str] = (),
) -> dict[str, Any]:
    """Return what a store depends on: every setting that decides something, and the files behind every path.

    Of the survey that is its range and what `of_survey` names; `nothing` names settings that decide nothing.
    """
    facts: dict[str, Any] = {"z_range": [survey.z_min, survey.z_max], "target": target.column}
    facts |= {name: getattr(survey, name) for name in of_survey}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.name in SPLITTING or f.name in nothing:
            continue
        if f.metadata.get("kind") == "path" and value is not None:
            files = fingerprint([value])
            value = [value, files if len(files) <= MOST_LISTED else [len(files), digest_of(files)]]
        facts[f.name] = value
    return facts


cutout_facts = partial(facts_of, of_survey=("bands", "pixels"))  # of a store of cutouts


def need(holds: bool, message: str) -> None:
    """Raise ConfigError with a message unless something holds."""
    if not holds:
        raise ConfigError(message)


@dataclass(frozen=True)
class Plan:
    """A table and how to make its inputs; fields are as in `photoz_lit.data.store.write_store`."""

    catalogue: "Table"
    shape: tuple[int, ...]
    kind: str
    chunks: Callable[[int], Iterable[NDArray[Any]]]  # from a row on, in order, as they were brought
    inspect: Callable[[NDArray[Any]], Inspected] = inspect_numbers
    dtype: str = "float32"  # where float16 cannot hold them, it becomes float32
    keep_faulty: bool = False
    array: Path | None = None
    complete: Callable[["Table", NDArray[Any]], "Table"] | None = None  # the table, when the inputs are known

    def write(self, folder: Path, facts: dict[str, Any], progress: Progress) -> "Store":
        """Make the store, from where an interrupted run left it."""
        from photoz_lit.data.store import TooLargeForHalfError, rows_written

        if self.dtype == "float16" and not rows_written(folder, self.shape, "float32"):
            try:
                return self._write(folder, facts, progress)
            except TooLargeForHalfError:
                log.info("a galaxy has pixels that float16 cannot hold: the cutouts are kept in float32")
        return replace(self, dtype="float32")._write(folder, facts, progress)

    def _write(self, folder: Path, facts: dict[str, Any], progress: Progress) -> "Store":
        from photoz_lit.data.store import rows_written, write_store

        start, n = rows_written(folder, self.shape, self.dtype), self.shape[0]
        if start:
            log.info("going on at galaxy %d of %d", start, n)
        progress(start, n)

        def counted() -> Iterator[NDArray[Any]]:
            for chunk in self.chunks(start):
                yield chunk
                progress(len(chunk), n)

        return write_store(
            folder,
            self.catalogue,
            counted(),
            shape=self.shape,
            dtype=self.dtype,
            kind=self.kind,
            settings=facts,
            inspect=self.inspect,
            keep_faulty=self.keep_faulty,
            array=self.array,
            complete=self.complete,
        )
