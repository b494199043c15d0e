"""How fast the package is, against what is plain, and against what this machine can do: `make bench`.

    python tests/bench/speed.py [--parts encoder,reading] [--quick] [--write] [--json FILE] [--galaxies 1000000]

All ratios of one run are of turns that alternate; medians and quartiles over rounds are given.
"""

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rates.ground import Ground, machine, on_gpu
from rates.parts import PARTS
from rates.table import Row, line, table, write

PAGE = Path(__file__).resolve().parents[2] / "conf" / "trainer" / "README.md"
QUICK = "reading,start"


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help=f"few rounds; without --parts: {QUICK}")
    parser.add_argument("--rounds", type=int, help="turns of each")
    parser.add_argument("--galaxies", type=int, help="of predict")
    parser.add_argument("--cpu-time", action="store_true", help="time of the processors: beside other work")
    parser.add_argument("--json", type=Path, help="keep everything in this file")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name} of {PAGE.parent}")
    typed = parser.parse_args()
    parts = (typed.parts or (QUICK if typed.quick else ",".join(PARTS))).split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--parts {','.join(unknown)}: there are {', '.join(PARTS)}")
    typed.parts = parts
    return typed


def measured(typed: argparse.Namespace, folder: Path) -> tuple[list[Row], dict[str, float]]:
    """Measure the parts, and say how long each took."""
    galaxies = typed.galaxies or (2048 if typed.quick else 400_000 if on_gpu() else 32_768)
    clock = "cpu" if typed.cpu_time else "wall"
    ground = Ground(folder, typed.rounds or (2 if typed.quick else 5), galaxies, typed.quick, clock)
    rows, took = [], {}
    for part in typed.parts:
        began = time.monotonic()
        for row in PARTS[part](ground):
            print(line(row), flush=True)
            rows.append(row)
        took[part] = round(time.monotonic() - began, 1)
    return rows, took


def main() -> None:
    """Measure, print, keep."""
    typed = options()
    facts: dict[str, Any] = machine("cpu" if typed.cpu_time else "wall")
    with TemporaryDirectory() as folder:
        rows, took = measured(typed, Path(folder))
    print("\n" + table(rows, facts))
    print("seconds by part: " + ", ".join(f"{part} {s:.0f}" for part, s in took.items()))
    if typed.json:
        content = {"machine": facts, "seconds": took, "rows": [row.as_json() for row in rows]}
        typed.json.write_text(json.dumps(content, indent=1))
    if typed.write:
        write(PAGE, table(rows, facts))


if __name__ == "__main__":
    main()
