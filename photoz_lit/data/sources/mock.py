"""`data=mock`: the embedded simulated survey, a stand-in for SDSS that needs no files.

Galaxies come from `photoz_lit.data.mock.population`, their cutouts from `photoz_lit.data.mock.render`, and
`photoz_lit.data.mock.survey` observes them. Redshifts and magnitudes may come from a catalogue of real
galaxies instead (`data=semi_real`).
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from photoz_lit.data.pixels import Inspected, inspect_numbers
from photoz_lit.data.sources.settings import Plan, Survey, TableSettings, facts_of, need
from photoz_lit.errors import DataError
from photoz_lit.grids import Floats
from photoz_lit.processes import end_with_parent
from photoz_lit.setting import setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from astropy.table import Table

    from photoz_lit.data.catalogue import TableRules
    from photoz_lit.data.mock.survey import Sky

KINDS = ("images", "features")  # the latter of the same galaxies: `photoz_lit.data.magnitudes`
VERSION = 3  # raise it when the simulated survey changes: stores are made again
EFFECTS = (
    *("arms", "asymmetry", "bars", "companions", "dust_lanes", "lines", "neighbours", "psf_shape"),
    *("resampling", "sky"),
)
Z_RANGE = (0.0, 0.4)  # of the survey that it stands in for
LEAST_SPEC_Z = 1e-4  # nearer ones have no distance to be drawn at


@dataclass
class Settings(TableSettings):
    """How many galaxies are drawn; with `path`, a real catalogue that they come from (`data=semi_real`)."""

    source: str = "mock"
    n_galaxies: int = setting(20000, least=10)
    mock_seed: int = setting(0, least=0)
    without: list[str] = setting([], choices=EFFECTS)  # of what galaxies and images show
    path: str | None = setting(None, kind="path")
    magnitudes: list[str] = setting([])
    magnitude_errors: list[str] = setting([])


def check(settings: Settings, survey: Survey) -> None:
    """Refuse another survey than the one that is simulated, and a table that is meant for another source."""
    need(
        survey.name == "sdss" and survey.bands == "ugriz",
        f"data=mock simulates SDSS in ugriz but the survey is {survey.name} in {survey.bands}: "
        "type survey=sdss, or bring cutouts with data=arrays",
    )
    need(
        settings.path is None or len(settings.magnitudes) > 0,
        f"data.path={settings.path} is not read with data=mock, whose galaxies are simulated: type "
        "data=semi_real to draw them from this table, or the source that reads it, e.g. data=arrays",
    )


def facts(settings: Settings, survey: Survey, target: Target) -> dict[str, Any]:
    """Return what the store depends on: one store serves all targets, and predictions too."""
    own = facts_of(settings, survey, target, of_survey=("pixels",), nothing=("labelled",))
    own |= {"version": VERSION, "target": "spec_z"}
    return own if target.is_redshift else own | {"z_range": list(Z_RANGE)}


def plan(settings: Settings, survey: Survey, target: Target, workers: int) -> Plan:
    """Draw galaxies, select those that are measured as bright enough, and measure the cutouts of these."""
    from photoz_lit.data.mock.population import draw_galaxies
    from photoz_lit.data.mock.survey import KEPT, Sky, observe
    from photoz_lit.data.splits import NUMBERED

    n, sky = settings.n_galaxies, Sky(settings.mock_seed, survey.pixels, tuple(settings.without))
    run = _Workers(workers)
    real = None
    if settings.path is not None:
        rules = settings.rules(
            survey, target, magnitudes=settings.magnitudes, magnitude_errors=settings.magnitude_errors
        )
        rules = rules if target.is_redshift else replace(rules, z_range=Z_RANGE)
        real = _read_real_galaxies(Path(settings.path), rules)
    try:
        galaxies = (
            observe(n, sky, run)
            if real is None
            else draw_galaxies(n, sky.seed, catalogue=real, without=sky.without)
        )
    except ValueError as error:
        raise DataError(f"{settings.path or 'data=mock'}: {error}") from error
    outside = (galaxies["spec_z"] < survey.z_min) | (galaxies["spec_z"] > survey.z_max)
    if target.is_redshift and outside.any():
        raise DataError(
            f"data=mock: spec_z is outside the survey's {survey.z_min:g}-{survey.z_max:g} in "
            f"{outside.sum()} of {n} galaxies: widen survey.z_min and survey.z_max, or mend data.path"
        )

    table = galaxies[[c for c in galaxies.colnames if not c.startswith("true_") or c in KEPT]]
    if real is not None:  # a galaxy that was drawn twice is one object: no split shares it with another
        for name in [c for c in ("object_id", "ra", "dec", "split") if c in real.colnames]:
            table[name] = real[name][galaxies["catalogue_row"]]
        table.meta[NUMBERED] = real.meta.get(NUMBERED, False)
    shape = (n, len(survey.bands), survey.pixels, survey.pixels)
    drawn = _Drawn(galaxies, sky, run, measures=real is None)
    complete = drawn.complete if drawn.measures else None
    return Plan(table, shape, "images", drawn.chunks, drawn.inspect, "float16", complete=complete)


class _Drawn:
    """Cutouts as they are drawn, and what is measured on them meanwhile."""

    def __init__(self, galaxies: "Table", sky: "Sky", run: "_Workers", measures: bool) -> None:
        self.galaxies, self.sky, self.run, self.measures = galaxies, sky, run, measures
        self.columns: dict[int, dict[str, Floats]] = {}  # by first row
        self.half = True  # until a cutout is too bright

    def chunks(self, start: int) -> Iterator[NDArray[Any]]:
        """Yield cutouts from a row on."""
        from photoz_lit.data.mock.survey import CHUNK

        self.columns.clear()
        n = len(self.galaxies)
        bounds = [*range(start - start % CHUNK, n, CHUNK), n]
        draw = partial(self.sky.observed, half=self.half, measures=self.measures)
        made = self.run(draw, [self.galaxies[max(i, start) : j] for i, j in pairwise(bounds)])
        for first, (cutouts, columns) in zip(bounds, made, strict=False):
            if first >= start:  # rounding depends on which are measured together
                self.columns[first] = columns
            self.half &= cutouts.dtype == np.float16
            yield cutouts

    def inspect(self, cutouts: NDArray[Any]) -> Inspected:
        """Say whether they are finite; nothing else can be wrong."""
        return replace(inspect_numbers(cutouts), fits_half=cutouts.dtype == np.float16)

    def complete(self, table: "Table", inputs: NDArray[Any]) -> "Table":
        """Add what is measured, now of those that an interrupted run left."""
        from photoz_lit.data.mock.survey import measured_on

        return measured_on(self.galaxies, table, inputs, self.run, self.columns)


class _Workers:
    """So many processes that yield the function of each part, in order; they end with this object."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pool: ProcessPoolExecutor | None = None

    def __call__(self, function: Callable[[Any], Any], parts: Iterable[Any]) -> Iterator[Any]:
        parts, alone = list(parts), partial(_with_one_thread, function)
        if self.count == 1 or len(parts) <= 1:
            return map(alone, parts)
        if self.pool is None:
            # Workers start afresh: a fork of a process that has run torch's threads can hang.
            spawn = multiprocessing.get_context("spawn")
            self.pool = ProcessPoolExecutor(self.count, mp_context=spawn, initializer=end_with_parent)
        return self.pool.map(alone, parts)


def _with_one_thread(function: Callable[[Any], Any], part: Any) -> Any:
    """Call the function: its matrix products round alike whatever the machine, and workers do not queue."""
    with threadpool_limits(1, "blas"):
        return function(part)


def _read_real_galaxies(path: Path, rules: "TableRules") -> "Table":
    """Read galaxies as `draw_galaxies` takes them, with object_id and what is known of ra, dec and split.

    Magnitudes are named in the order u g r i z; their errors are mag_err_u to mag_err_z, where the table has
    them and none are named.
    """
    from photoz_lit.data.catalogue import standard_table
    from photoz_lit.data.columns import find_column
    from photoz_lit.data.formats import read_table
    from photoz_lit.data.mock.templates import BANDS
    from photoz_lit.data.splits import with_ids

    table = read_table(path)

    def has(name: str) -> bool:
        return name in rules.columns or find_column(table, name, str(path)) is not None

    ours, our_errors = ([f"{name}_{band}" for band in BANDS] for name in ("mag", "mag_err"))
    theirs = list(rules.magnitudes)
    if len(theirs) != len(ours):
        raise DataError(
            f"data.magnitudes names {len(theirs)} columns of {path}: name those of u, g, r, i and z, in order"
        )
    errors = list(rules.magnitude_errors) or (our_errors if all(map(has, our_errors)) else [])
    no_r = {} if has("dered_petro_r") else {"dered_petro_r": theirs[BANDS.index("r")]}
    if not (has_ebv := has("ebv")):
        table["ebv"] = 0.0
    low, high = rules.z_range
    rules = replace(
        rules,
        columns={**rules.columns, **no_r},
        z_range=(max(low, LEAST_SPEC_Z), high),
        magnitudes=theirs,
        magnitude_errors=errors,
        labelled=True,
        target="spec_z",
    )
    galaxies = with_ids(standard_table(table, str(path), rules)[0])
    if not has_ebv and not (rules.ebv_maps is not None and {"ra", "dec"} <= set(galaxies.colnames)):
        galaxies.remove_column("ebv")  # it is drawn
    galaxies.rename_columns([*theirs, *errors], [*ours, *our_errors[: len(errors)]])
    return galaxies
