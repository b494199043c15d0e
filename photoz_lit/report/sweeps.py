"""Runs along a swept setting: which sets of runs have one, and what belongs to each of its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.report.figures.style import known_label
from photoz_lit.report.runs import Run, data_settings
from photoz_lit.report.table import by_correction, middle_and_spread

KEYS = ("slope_spec_z", "total_variation", "total_variation_floor", "sigma_mad", "crps")
# What a representation does not depend on: its stage comes before.
LATER = ("correction.", "calibration.", "predict.", "training.step2.", "training.step3.", "training.hidden.")
CATEGORY, NOTHING = "category", "none"


@dataclass(frozen=True)
class Line:
    """One correction along a sweep: numbers and their spreads under the keys of `metrics.json`, each (m,).

    `x` (m,) is the place of each value on the axis, ascending; it is empty, and m is 1, where the setting
    does not touch the correction.
    """

    label: str
    x: NDArray[np.float64]
    numbers: dict[str, NDArray[np.float64]]
    spreads: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Sweep:
    """A swept setting, its name on the axis, scale (linear, log or category) and values, and its runs.

    Each run has the place of its value in `values`; None where the setting does not touch the run.
    """

    key: str
    label: str
    scale: str
    values: tuple[Any, ...]
    runs: tuple[tuple[Run, int | None], ...] = ()

    @property
    def ticks(self) -> tuple[str, ...]:
        """The values in words."""
        return tuple(_tick(value) for value in self.values)

    @property
    def places(self) -> np.ndarray:
        """Place of each value on the axis, shape (m,): the value, or its number where it is a category."""
        if self.scale == CATEGORY:
            return np.arange(len(self.values), dtype=np.float64)
        return np.array(self.values, dtype=np.float64)


def sweeps_of(runs: Sequence[Run]) -> list[Sweep]:
    """Find the swept settings of a set of runs: each with two values or more, and with one choice of data.

    Runs of the set that were not part of any sweep join each, at the value that they have.
    """
    axes = {str(run.setting("sweep.axis")): run for run in runs if run.setting("sweep.axis")}
    found = []
    for key, first in axes.items():
        of_data: dict[str, list[Run]] = {}
        for run in runs:
            if run.setting("sweep.axis") in (key, None):
                of_data.setdefault(data_settings(run, {key}), []).append(run)
        for same in of_data.values():
            sweep = _sweep(key, first.settings["sweep"], same)
            if len(sweep.values) > 1:
                found.append(sweep)
    return found


def _sweep(key: str, swept: dict[str, Any], runs: Sequence[Run]) -> Sweep:
    along = [(run, _hashable(run.setting(key)), _touches(key, run)) for run in runs]
    values = _sorted({value for _, value, touched in along if touched})
    numeric = all(_is_number(value) and (value > 0 or swept.get("scale") != "log") for value in values)
    scale = str(swept.get("scale") or CATEGORY) if numeric else CATEGORY
    placed = ((run, values.index(value) if touched else None) for run, value, touched in along)
    return Sweep(key, str(swept.get("label") or key), scale, tuple(values), tuple(placed))


def _touches(key: str, run: Run) -> bool:
    """Whether a run has a setting: a representation comes before corrections, an absent branch has none."""
    before = run.stage == "representation" and key.startswith(LATER)
    return not before and isinstance(run.setting(key.rpartition(".")[0]), dict)


def _hashable(value: Any) -> Any:
    """Return a value that a set can hold: lists as text, an empty one as `none`."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or NOTHING
    return value if isinstance(value, str | int | float | None) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _sorted(values: set[Any]) -> list[Any]:
    """Sort numbers by size, then words, nothing first, then what is not set."""

    def key(value: Any) -> tuple[int, float, str]:
        if _is_number(value):
            return 1, float(value), ""
        return {NOTHING: 0, None: 3}.get(value, 2), 0.0, str(value)

    return sorted(values, key=key)


def _tick(value: Any) -> str:
    if value is None:
        return "not set"
    return f"{value:g}" if _is_number(value) else str(value)


def lines_of(sweep: Sweep) -> list[Line]:
    """Summarise each named correction along a sweep, whatever its settings, in the order of the table.

    Numbers are medians over seeds with half their range. `none` is left out where Step 1 is there, whose
    output it is.
    """
    order = [known_label(label) for label in by_correction([run for run, _ in sweep.runs])]
    groups: dict[str, dict[int | None, list[Run]]] = {label: {} for label in order}
    for run, place in sweep.runs:
        groups.setdefault(known_label(run.label), {}).setdefault(place, []).append(run)
    if "Step 1" in groups:
        groups.pop("none", None)
    return [_line(label, members, sweep) for label, members in groups.items()]


def _line(label: str, members: dict[int | None, list[Run]], sweep: Sweep) -> Line:
    places = sorted(place for place in members if place is not None)
    groups = [members[place] for place in places] or [members[None]]
    summaries = {
        key: np.array([middle_and_spread([run.metrics for run in group], key) for group in groups])
        for key in KEYS
    }
    return Line(
        label,
        sweep.places[places] if places else np.empty(0),
        {key: of_key[:, 0] for key, of_key in summaries.items()},
        {key: of_key[:, 1] for key, of_key in summaries.items()},
    )


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
    """Return the value of a sweep that most runs have, the middle one of several, and the runs that have it.

    Figures with one panel a correction show these: at other values, n(z) may have other bins.
    """
    places = [place for _, place in sweep.runs if place is not None]
    middle = (len(sweep.values) - 1) / 2
    most = max(sorted(set(places)), key=lambda place: (places.count(place), -abs(place - middle)))
    return sweep.ticks[most], [run for run, place in sweep.runs if place in (most, None)]
