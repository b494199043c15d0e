"""What the table of a data set tells of itself, by its extremes: other units, sentinels, wrong survey."""

from collections.abc import Mapping

import numpy as np

from photoz_lit.grids import Bools, Floats, Texts
from photoz_lit.report import limits


def table_suspicions(columns: Mapping[str, Floats], names: Texts) -> list[str]:
    """Say what looks wrong in columns of numbers (n,), a sentence each; `names` are the galaxies'."""
    found = []
    for column, values in columns.items():
        finite = np.isfinite(values)
        missing = int((~finite).sum())
        if missing == len(values):
            continue
        if missing:
            found.append(f"Column {column} is empty or not finite in {missing} of {len(values)} galaxies.")
        left = finite
        for what, bad in _unusual(column, values):
            bad &= left
            left = left & ~bad  # each value is named once
            if bad.any():
                first = np.flatnonzero(bad)[0]
                found.append(
                    f"Column {column} {what} in {bad.sum()} of {len(values)} galaxies,"
                    f" first {values[first]:g} of {names[first]}."
                )
    return found


@np.errstate(invalid="ignore")
def _unusual(column: str, values: Floats) -> list[tuple[str, Bools]]:
    """Return what may be wrong with values of a column, and where it is."""
    found = [("holds a number that stands for none", np.isin(values, limits.NO_NUMBERS))]
    kind = "err" if "err" in column else "mag" if column.startswith("mag") else column
    if kind in limits.COLUMNS:
        low, high = limits.COLUMNS[kind]
        found.append((f"lies outside {low:g} to {high:g}", (values < low) | (values > high)))
    finite = values[np.isfinite(values)]
    if finite.size >= limits.ENOUGH:
        low, middle, high = np.percentile(finite, [1, 50, 99])
        far = np.abs(values - middle) > limits.FAR * (high - low)
        if high > low and column not in ("ra", "dec"):
            found.append(("lies far from all others", far))
    return found
