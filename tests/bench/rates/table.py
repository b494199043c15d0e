"""What came out: rows with medians and quartiles, as a table, as JSON, in a page between two marks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass
class Row:
    """A quantity in each round, and the same of what it is compared with."""

    part: str
    what: str
    unit: str
    values: list[float]
    against: str = ""
    others: list[float] = field(default_factory=list)
    goal: float | None = None
    at_most: bool = False  # the goal is no lower limit

    @property
    def ratios(self) -> list[float]:
        """The ratio of each round; the values themselves where nothing is compared."""
        return [a / b for a, b in zip(self.values, self.others, strict=True)] if self.others else self.values

    @property
    def counts(self) -> float:
        """What is held against the goal."""
        return float(np.median(self.ratios))

    @property
    def met(self) -> bool | None:
        """Whether it reaches the goal, if there is one."""
        if self.goal is None:
            return None
        return self.counts <= self.goal if self.at_most else self.counts >= self.goal

    def as_json(self) -> dict[str, Any]:
        """Return all that is known of it."""
        return vars(self) | {"ratio": self.counts, "quartiles": quartiles(self.ratios), "met": self.met}


def quartiles(values: list[float]) -> list[float]:
    """Return the first and the third."""
    return [float(v) for v in np.quantile(values, [0.25, 0.75])]


def number(value: float) -> str:
    """Spell a number with three digits that count."""
    if value >= 1e9:
        return f"{value / 1e9:,.0f} G"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def line(row: Row) -> str:
    """Return a row of the table."""
    low, high = quartiles(row.ratios)
    measured = f"{number(float(np.median(row.values)))} {row.unit}".replace(" G ", " G")
    other = f"{row.against}: {number(float(np.median(row.others)))}" if row.others else row.against
    spread = f"{row.counts:.3g} ({low:.3g}-{high:.3g})" if row.others else f"({number(low)}-{number(high)})"
    sign = "<=" if row.at_most else ">="
    goal = "" if row.goal is None else f"{sign} {row.goal:g}{'' if row.met else ' **no**'}"
    return f"| {row.what} | {measured} | {other} | {spread} | {goal} |"


def table(rows: list[Row], machine: dict[str, Any]) -> str:
    """Return what was measured, and on what, in Markdown."""
    head = ["| | median | compared with | ratio (quartiles) | goal |", "|---|---|---|---|---|"]
    return "\n".join([", ".join(f"{k} {v}" for k, v in machine.items()) + ".", "", *head, *map(line, rows)])


def write(page: Path, name: str, content: str) -> None:
    """Put a table between the marks of this name in a page."""
    text, marks = page.read_text(), [f"<!-- {name}: {end} -->" for end in ("begin", "end")]
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise SystemExit(f"{page} has no {' and '.join(marks)} to write between")
    page.write_text(f"{before}{marks[0]}\n{content}\n{marks[1]}{after}")
