"""Runs along a swept setting: which sets of runs have one, and what belongs to each of its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.report.figures.style import known_label
from photoz_lit.report.runs import Run, data_settings
from photoz_lit.report.table import medians, rank

KEYS = ("slope_spec_z", "total_variation", "total_variation_floor", "sigma_mad", "crps")
# What a representation does not depend on: its stage comes before.
LATER = ("correction.", "calibration.", "predict.", "training.step2.", "training.step3.", "training.hidden.")
CATEGORY, NOTHING = "category", "none"
WIDE = 8  # times the least value, from which the greatest asks for a logarithmic axis


@dataclass(frozen=True)
class Line:
    """One correction along a sweep of m values; m is 1 where the setting does not touch the correction."""

    label: str
    x: NDArray[np.float64]  # (m,), places of the values on the axis, ascending; empty where not touched
    numbers: dict[str, NDArray[np.float64]]  # under the keys of `metrics.json`, each (m,)
    spreads: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Sweep:
    """A swept setting and its runs."""

    key: str
    label: str  # of the axis
    values: tuple[Any, ...]
    runs: tuple[tuple[Run, int | None], ...] = ()  # with the place in `values`; None if not touched

    @property
    def scale(self) -> str:
        """The scale of the axis: linear, log or category."""
        if not all(map(_is_number, self.values)):
            return CATEGORY
        least, greatest = min(self.values), max(self.values)
        return "log" if 0 < WIDE * least <= greatest else "linear"

    @property
    def ticks(self) -> tuple[str, ...]:
        """The values in words."""
        words = {value: f"{value:g}" if _is_number(value) else str(value) for value in self.values}
        return tuple("not set" if value is None else text for value, text in words.items())


def sweeps_of(runs: Sequence[Run]) -> list[Sweep]:
    """Find the swept settings of a set of runs: each with two values or more, and with one choice of data."""
    found = []
    for key, words in {key: words for run in runs for key, words in run.axis.items()}.items():
        of_data: dict[str, list[Run]] = {}
        for run in runs:
            if key in run.axis or not run.axis:  # those of no sweep join each, at their value
                of_data.setdefault(data_settings(run, {key}), []).append(run)
        for same in of_data.values():
            sweep = _sweep(key, str(words or key), same)
            if len(sweep.values) > 1:
                found.append(sweep)
    return found


def _sweep(key: str, label: str, runs: Sequence[Run]) -> Sweep:
    along = []
    for run in runs:
        # A representation comes before corrections, and an absent branch has no settings.
        before = run.stage == "representation" and key.startswith(LATER)
        touched = not before and isinstance(run.setting(key.rpartition(".")[0]), dict)
        value = run.setting(key)
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or NOTHING
        along.append((run, value if isinstance(value, str | int | float | None) else str(value), touched))
    values = _sorted({value for _, value, touched in along if touched})
    placed = ((run, values.index(value) if touched else None) for run, value, touched in along)
    return Sweep(key, label, tuple(values), tuple(placed))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sorted(values: set[Any]) -> list[Any]:
    """Sort numbers by size, then words, nothing first, then what is not set."""
    numbers = sorted(value for value in values if _is_number(value))
    words = sorted((v for v in values if isinstance(v, str | bool) and v != NOTHING), key=str)
    return [*values & {NOTHING}, *numbers, *words, *values & {None}]


def lines_of(sweep: Sweep) -> list[Line]:
    """Summarise each named correction along a sweep, whatever its settings, in the order of the table."""
    groups: dict[str, dict[int | None, list[Run]]] = {}
    for run, place in sweep.runs:
        groups.setdefault(known_label(run.label), {}).setdefault(place, []).append(run)
    if "Step 1" in groups:
        groups.pop("none", None)  # whose output it is
    lines = []
    for label in sorted(groups, key=rank):
        members = groups[label]
        places = sorted(place for place in members if place is not None)
        at_values = [members[place] for place in places] or [members[None]]
        found = [medians([run.metrics for run in same], KEYS) for same in at_values]
        numbers, spreads = (
            {key: np.array([row[f"{key}{end}"] for row in found]) for key in KEYS} for end in ("", "_spread")
        )
        x = places if sweep.scale == CATEGORY else [sweep.values[place] for place in places]
        lines.append(Line(label, np.array(x, dtype=np.float64), numbers, spreads))
    return lines


def floor_of_sweep(lines: Sequence[Line]) -> tuple[np.ndarray, np.ndarray] | None:
    """Return places on the axis and the median floor of the total variation there, None if none is known."""
    x = np.concatenate([line.x for line in lines])
    y = np.concatenate([line.numbers["total_variation_floor"] for line in lines if line.x.size])
    finite = np.isfinite(y)
    if not finite.any():
        return None
    places = np.unique(x[finite])
    return places, np.array([np.median(y[finite & (x == place)]) for place in places])


def reference_runs(sweep: Sweep) -> tuple[str, list[Run]]:
    """Return the value of a sweep that most runs have, the middle one of several, and the runs at it."""
    places = [place for _, place in sweep.runs if place is not None]
    middle = (len(sweep.values) - 1) / 2
    most = max(sorted(set(places)), key=lambda place: (places.count(place), -abs(place - middle)))
    return sweep.ticks[most], [run for run, place in sweep.runs if place in (most, None)]
