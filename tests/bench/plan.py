"""What 10^9 galaxies take, from measured rates: `python tests/bench/plan.py bench.json [--gpu-rate 50000]`.

    hours = max(galaxies / (rate x units), bytes in / (read x nodes), bytes out / (write x nodes)) / 3600

A unit is the machine that was measured, or a GPU. Shards of one run share nothing, so rates add up; what they
share are the disks that they read. The rates of a GPU are given, or measured if the benchmark ran on one.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GALAXY = 5 * 64 * 64 * 2  # bytes of a cutout in float16
GOAL = 50_000.0  # galaxies a second of a GPU, where none was measured
HEAD = "| | shards | nodes | galaxies/s | hours: computing | reading | writing |\n" + "|---" * 7 + "|"


@dataclass(frozen=True)
class Plan:
    """So many galaxies on so many units, each of which does `rate` galaxies a second."""

    name: str
    units: int
    nodes: int
    rate: float

    def hours(self, galaxies: float, out: float, read: float, write: float) -> tuple[float, float, float]:
        """Return hours of computing, reading and writing: of `out` bytes a galaxy, at bytes/s a node."""
        bytes_each = ((GALAXY, read), (out, write))
        moved = [galaxies * size / (speed * self.nodes) / 3600 for size, speed in bytes_each]
        return galaxies / (self.rate * self.units) / 3600, moved[0], moved[1]

    def line(self, *facts: float) -> str:
        """Return a row of the table; what takes longest, and so the whole, is bold."""
        hours = self.hours(*facts)
        told = [f"**{h:,.1f}**" if h == max(hours) else f"{h:,.1f}" for h in hours]
        rate = f"{self.rate * self.units:,.0f}"
        return f"| {' | '.join([self.name, f'{self.units}', f'{self.nodes}', rate, *told])} |"


def median(rows: list[dict[str, Any]], start: str) -> float | None:
    """Return the median of the row whose name starts so, if it was measured."""
    found = [sorted(row["values"]) for row in rows if row["what"].startswith(start)]
    return float(found[0][len(found[0]) // 2]) if found else None


def plans(bench: dict[str, Any], gpu_rate: float | None, gpus_a_node: int) -> list[Plan]:
    """Return the plans that the measured rate, and a GPU's, allow."""
    rate, cores = median(bench["rows"], "`stage=predict`"), int(bench["machine"]["cores"])
    if rate is None:
        return []
    if "GPU" in bench["machine"]:
        gpu_rate, name = gpu_rate or rate, bench["machine"]["GPU"]
        own = []
    else:
        name = "GPU"
        own = [(1, 1), (-(-64 // cores), 1), (-(-64 // cores) * 16, 16)]  # nodes of 64 cores
    found = [Plan(f"{units * cores:,} cores like this one's", units, nodes, rate) for units, nodes in own]
    for n in (1, 8, 64) if gpu_rate else ():
        found.append(Plan(f"{n} {name} at {gpu_rate:,.0f}/s", n, -(-n // gpus_a_node), float(gpu_rate or 0)))
    return found


def table(
    bench: dict[str, Any],
    *,
    galaxies: float = 1e9,
    gpu_rate: float | None = None,
    gpus_a_node: int = 8,
    read: float = 2e9,
    write: float = 1e9,
) -> str:
    """Return the plans, in Markdown, and what they were made from."""
    made, out = plans(bench, gpu_rate, gpus_a_node), median(bench["rows"], "bytes written") or 0.0
    memory = median(bench["rows"], "memory") or 0.0
    said = (
        f"{galaxies:,.0f} galaxies: {galaxies * GALAXY / 1e12:.0f} TB to read ({GALAXY:,} bytes each), "
        f"{galaxies * out / 1e12:.2g} TB to write ({out:,.0f}); a node reads {read / 1e9:g} GB/s and "
        f"writes {write / 1e9:g}; {memory:.2g} GB of memory a shard."
    )
    return "\n".join([said, "", HEAD, *(plan.line(galaxies, out, read, write) for plan in made)])


def main() -> None:
    """Print the plans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("bench", type=Path, help="what speed.py --json wrote")
    parser.add_argument("--galaxies", type=float, default=1e9)
    parser.add_argument("--gpu-rate", type=float, help="galaxies a second of one GPU")
    parser.add_argument("--gpus-a-node", type=int, default=8)
    parser.add_argument("--read", type=float, default=2e9, help="bytes a second that a node reads")
    parser.add_argument("--write", type=float, default=1e9, help="bytes a second that a node writes")
    typed = vars(parser.parse_args())
    print(table(json.loads(typed.pop("bench").read_text()), **typed))


if __name__ == "__main__":
    main()
