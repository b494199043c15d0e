"""How fast the package is, against what is plain, and against what this machine can do: `make bench`.

    python tests/bench/speed.py [--parts encoder,reading] [--quick] [--write] [--json FILE]

All ratios of one run are of turns that alternate; medians and quartiles over rounds are given.
`--write` puts them, and the plan for 10^9 galaxies that follows, into conf/trainer/README.md.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import plan
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
    parser.add_argument("--write", action="store_true", help="put the tables into conf/trainer")
    typed = parser.parse_args()
    parts = (typed.parts or (QUICK if typed.quick else ",".join(PARTS))).split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--parts {','.join(unknown)}: there are {', '.join(PARTS)}")
    typed.parts = parts
    return typed


def measure(typed: argparse.Namespace, folder: Path, content: dict[str, Any]) -> list[Row]:
    """Measure the parts; what is there is kept in `content`, and in the file, whatever comes after it."""
    galaxies = typed.galaxies or (2048 if typed.quick else 400_000 if on_gpu() else 32_768)
    clock = "cpu" if typed.cpu_time else "wall"
    ground = Ground(folder, typed.rounds or (2 if typed.quick else 5), galaxies, typed.quick, clock)
    rows: list[Row] = []
    for part in typed.parts:
        began = time.monotonic()
        try:
            for row in PARTS[part](ground):
                print(line(row), flush=True)
                rows.append(row)
                content["rows"] = [row.as_json() for row in rows]
                if typed.json:
                    typed.json.write_text(json.dumps(content, indent=1))
        except Exception as error:  # the others are worth having
            print(f"{part} failed: {error}", flush=True)
            content["failed"].append(part)
        content["seconds"][part] = round(time.monotonic() - began, 1)
    return rows


def main() -> int:
    """Measure, print, keep."""
    typed = options()
    facts = machine("cpu" if typed.cpu_time else "wall")
    content: dict[str, Any] = {"machine": facts, "rows": [], "seconds": {}, "failed": []}
    with TemporaryDirectory() as folder:
        rows = measure(typed, Path(folder), content)
    print("\n" + table(rows, facts))
    print("\nseconds: " + ", ".join(f"{part} {s:.0f}" for part, s in content["seconds"].items()))
    if typed.json:
        typed.json.write_text(json.dumps(content, indent=1))
    if typed.write:
        write(PAGE, "bench", table(rows, facts))
        if plan.plans(content, None, 8):
            write(PAGE, "plan", plan.table(content, gpu_rate=None if on_gpu() else plan.GOAL))
    return len(content["failed"])


if __name__ == "__main__":
    sys.exit(main())
