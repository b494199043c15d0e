"""Runs along a swept setting: which sets of runs have one, and what belongs to each of its values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from photoz_lit.report.figures.style import known_label
from photoz_lit.report.figures.sweep import SweepAxis, SweepLine
from photoz_lit.report.runs import Run
from photoz_lit.report.table import by_correction, middle_and_spread

KEYS = ("slope_spec_z", "total_variation", "total_variation_floor", "sigma_mad", "crps")
# What a representation does not depend on: its stage comes before.
LATER = ("correction.", "calibration.", "predict.", "training.step2.", "training.step3.", "training.hidden.")
CATEGORY, NOTHING = "category", "none"


@dataclass(frozen=True)
class Sweep:
    """A swept setting and the runs along it.

    Parameters
    ----------
    key : str
        The setting, with dots.
    axis : SweepAxis
        Its name, scale and ticks.
    values : tuple
        Its values, in the order of the axis.
    runs : tuple of (Run, int or None)
        Each run with the place of its value in `values`; None where the setting does not touch the run.
    """

    key: str
    axis: SweepAxis
    values: tuple[Any, ...]
    runs: tuple[tuple[Run, int | None], ...]

    @property
    def places(self) -> np.ndarray:
        """Place of each value on the axis, shape (m,): the value, or its number where it is a category."""
        if self.axis.scale == CATEGORY:
            return np.arange(len(self.values), dtype=np.float64)
        return np.array(self.values, dtype=np.float64)


def sweeps_of(runs: Sequence[Run]) -> list[Sweep]:
    """Find the swept settings of a set of runs.

    Parameters
    ----------
    runs : sequence of Run
        Runs of one set.

    Returns
    -------
    list of Sweep
        One a setting with two values or more. Runs of the set that were not part of any sweep join each, at
        the value that they have.
    """
    settings = [(run, _settings(run)) for run in runs]
    axes: dict[str, dict[str, Any]] = {}
    for _, own in settings:
        if axis := _value(own, "sweep.axis"):
            axes.setdefault(str(axis), own["sweep"])
    found = []
    for key, swept in axes.items():
        along = [
            (run, _hashable(_value(own, key)))
            for run, own in settings
            if _value(own, "sweep.axis") in (key, None)
        ]
        values = _sorted({value for run, value in along if _touches(key, run)})
        if len(values) < 2:
            continue
        numeric = all(_is_number(value) and (value > 0 or swept.get("scale") != "log") for value in values)
        scale = str(swept.get("scale") or CATEGORY) if numeric else CATEGORY
        ticks = tuple(_tick(value) for value in values)
        found.append(
            Sweep(
                key,
                SweepAxis(str(swept.get("label") or key), scale, ticks),
                tuple(values),
                tuple((run, values.index(value) if _touches(key, run) else None) for run, value in along),
            )
        )
    return found


def _touches(key: str, run: Run) -> bool:
    """Whether a run depends on a setting at all: a representation comes before what is fitted on it."""
    return not (run.stage == "representation" and key.startswith(LATER))


def _settings(run: Run) -> dict[str, Any]:
    """Read the resolved settings of a run; those that cannot be read are none."""
    try:
        content = OmegaConf.to_container(OmegaConf.create(run.config))
    except Exception:  # a damaged file fails in many ways; the run's numbers are whole all the same
        return {}
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}


def _value(settings: dict[str, Any], key: str) -> Any:
    """Return a setting by its dotted key; None where it is not there."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


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


def lines_of(sweep: Sweep) -> list[SweepLine]:
    """Summarise each correction along a sweep: medians over seeds with half their range.

    Parameters
    ----------
    sweep : Sweep
        The setting and its runs.

    Returns
    -------
    list of SweepLine
        One a named correction, in the order of the table; its further settings are not told apart. `none` is
        left out where Step 1 is there, whose output it is.
    """
    order = [known_label(label) for label in by_correction([run for run, _ in sweep.runs])]
    groups: dict[str, dict[int | None, list[Run]]] = {label: {} for label in order}
    for run, place in sweep.runs:
        groups[known_label(run.label)].setdefault(place, []).append(run)
    if "Step 1" in groups:
        groups.pop("none", None)
    return [_line(label, members, sweep) for label, members in groups.items()]


def _line(label: str, members: dict[int | None, list[Run]], sweep: Sweep) -> SweepLine:
    places = sorted(place for place in members if place is not None)
    groups = [members[place] for place in places] or [members[None]]
    summaries = {
        key: [middle_and_spread([run.metrics for run in group], key) for group in groups] for key in KEYS
    }
    return SweepLine(
        label,
        sweep.places[places] if places else np.empty(0),
        {key: np.array([middle for middle, _ in of_key]) for key, of_key in summaries.items()},
        {key: np.array([spread for _, spread in of_key]) for key, of_key in summaries.items()},
    )


def floor_of_sweep(lines: Sequence[SweepLine]) -> tuple[np.ndarray, np.ndarray] | None:
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
    return _tick(sweep.values[most]), [run for run, place in sweep.runs if place in (most, None)]
