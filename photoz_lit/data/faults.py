"""What values cannot be: limits on both sides for every column, and fillers that stand for no value."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from photoz_lit.grids import Bools, Floats

LIMITS = {  # lowest and highest value that can be, and what others are said to be
    "magnitude": (np.nextafter(0, 1), 40.0, "is no magnitude (above 0, up to 40; others: data=embeddings)"),
    "error": (0.0, 10.0, "is no error of a magnitude (0 to 10)"),
    "ebv": (0.0, 10.0, "is no E(B-V) (0 to 10 mag)"),
    "ra": (-360.0, 360.0, "is outside -360 to 360 degrees"),
    "dec": (-90.0, 90.0, "is outside -90 to 90 degrees"),
}
# What catalogues write for no magnitude: lowest and highest value, and what it says. After the manual of BPZ,
# https://www.stsci.edu/~dcoe/BPZ/quickstart.html; Hyperz and RAIL write 99 too.
NO_MAGNITUDE = (
    (99.0, 99.999, "but 99: not detected (its error is then the limit)"),
    (-99.999, -99.0, "but -99: not observed"),
    (-99999.0, -999.0, "but a filler (such as -999): no value"),
)
STAND_INS = (0, -1, -9, -99, -999, -9999, -99999)  # as tables fill what they do not know
FAR = 6.0  # mag: r of a few galaxies that is separated by such a gap from that of all others is no r

Fault = tuple[str, Bools]  # what is wrong, and in which rows


def absent_faults(values: Floats, name: str) -> list[Fault]:
    """Rows without a value, by kind of fault."""
    empty = (f"column {name} has an empty cell", np.isnan(values))
    return [empty, (f"column {name} is not finite", np.isinf(values))]


def value_faults(values: Floats, name: str, kind: str, hint: str = "") -> list[Fault]:
    """Rows whose value cannot be, by kind of fault; of magnitudes and errors also those without one."""
    low, high, words = LIMITS[kind]
    faults = absent_faults(values, name) if kind in ("magnitude", "error") else []
    outside = (values < low) | (values > high)
    for least, most, says in NO_MAGNITUDE if kind == "magnitude" and not hint else ():
        faults.append((f"column {name} is no magnitude {says},", (values >= least) & (values <= most)))
        outside &= ~faults[-1][1]
    return [*faults, (f"column {name} {words}{hint}", outside)]


def range_faults(values: Floats, name: str, z_range: tuple[float, float]) -> list[Fault]:
    """Rows whose true value lies outside the survey's range, by kind of fault."""
    low, high = z_range
    negative = (values < 0) & (low >= 0)
    outside = ~negative & ((values < low) | (values > high))
    return [
        (f"{name} is negative", negative),
        (f"{name} is outside the survey's {low:g}{'-' if low >= 0 else ' to '}{high:g}", outside),
    ]


def far_from_others(r: Floats) -> Bools:
    """Say which few values a gap separates from all others."""
    far = np.zeros(len(r), bool)
    rows = np.flatnonzero((r > 0) & (r <= LIMITS["magnitude"][1]))
    rows = rows[np.argsort(r[rows])]
    for gap in np.flatnonzero(np.diff(r[rows]) > FAR):
        for few in (rows[: gap + 1], rows[gap + 1 :]):
            far[few] |= few.size <= 0.05 * rows.size
    return far


def stand_ins(keys: NDArray[np.generic], suspects: Sequence[complex] = STAND_INS) -> Bools:
    """Say which keys stand for none: known fillers that repeat as no other does, or a third of the table."""
    values, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    suspect = np.isin(values, np.array(suspects).astype(values.dtype))
    repeated = counts > counts[~suspect].max(initial=1)
    return np.asarray(((suspect & repeated) | (counts > max(10, len(keys) / 3)))[inverse])
