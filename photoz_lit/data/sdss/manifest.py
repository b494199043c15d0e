"""What became of each galaxy: a file of one line each, beside the cutouts, that only grows until all are cut.

An interrupted run goes on with the galaxies that have no line in it. Those that lack a frame, of their own or
of the neighbouring field that would complete them, are tried again.
"""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.data.sdss.cut import FieldCutouts
from photoz_lit.data.store import FLAGS
from photoz_lit.errors import DataError
from photoz_lit.files import beside

COLUMNS = ("row", "object_id", "status", "again", "missing_fraction", "field", "reason")
STATUS = ("done", "edge", "frame", "pixels")


class Manifest:
    """The lines of a file, which may not be there yet, of galaxies with these ids."""

    def __init__(self, path: Path, object_id: Sequence[Any] | NDArray[Any]) -> None:
        self.path, self.object_id, n = path, object_id, len(object_id)
        self.lines: dict[int, dict[str, Any]] = {}
        self.settled = np.zeros(n, bool)  # needs no other try
        self.flag = np.full(n, "frame", "U8")  # those without a line count as lacking their frame
        self.missing_fraction = np.ones(n, np.float32)  # part of the cutout that lies off the frames
        if not path.is_file():
            return
        content = path.read_bytes()
        if not content.endswith(b"\n"):  # the beginning of a line that a killed run left
            os.truncate(path, content.rfind(b"\n") + 1)
        try:
            with path.open(newline="") as file:
                for line in csv.DictReader(file, strict=True):
                    row, status = int(line["row"]), line["status"]
                    if status not in STATUS or str(object_id[row]) != line["object_id"]:
                        raise ValueError(f"row {row} is of another galaxy, or has the status {status!r}")
                    self._note(row, line)
        except (ValueError, KeyError, IndexError, TypeError, csv.Error) as error:
            raise DataError(
                f"{path}: damaged ({error}). Remove {path.parent} and prepare the data set again"
            ) from error

    def _note(self, row: int, line: dict[str, Any]) -> None:
        self.lines[row], self.settled[row] = line, not line["again"]
        self.flag[row] = "" if line["status"] == "done" else line["status"]
        self.missing_fraction[row] = float(line["missing_fraction"])

    def add(self, field: FieldCutouts, flags: list[str]) -> None:
        """Add the galaxies of a field, once their cutouts are on disk."""
        for i, (row, flag) in enumerate(zip(field.rows.tolist(), flags, strict=True)):
            missing, incomplete = field.missing_fraction[i], field.incomplete[i]
            reasons = {
                "": "",
                "frame": field.faults[i],
                "edge": f"{missing:.0%} of the cutout is off the frames" + (incomplete and f": {incomplete}"),
                "pixels": "a pixel is brighter than 65504 nanomaggies",
            }
            again = flag == "frame" or (flag == "edge" and incomplete != "")
            line = {
                "row": row,
                "object_id": self.object_id[row],
                "status": flag or "done",
                "again": "yes" if again else "",
                "missing_fraction": f"{missing:.4f}",
                "field": field.field or "",
                "reason": " ".join(reasons[flag].split()),
            }
            self._note(row, line)
        _write(self.path, [self.lines[row] for row in field.rows.tolist()], "a")

    def reasons(self) -> str:
        """Say why galaxies were not cut, the commonest reasons first."""
        failed = [line for line in self.lines.values() if line["status"] != "done"]
        counts = Counter(FLAGS["edge"] if line["status"] == "edge" else line["reason"] for line in failed)
        words = [f"{count} x {reason}" for reason, count in counts.most_common(5)]
        return "; ".join([*words, *(["..."] if len(counts) > 5 else [])])

    def rewrite(self) -> None:
        """Write one line a galaxy, in the order of the table."""
        with beside(self.path) as partial:
            _write(partial, [self.lines[row] for row in sorted(self.lines)], "w")


def _write(path: Path, lines: Sequence[dict[str, Any]], mode: str) -> None:
    """Write lines, on disk before it returns."""
    with path.open(mode, newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(lines)
        file.flush()
        os.fsync(file.fileno())
