"""The experiment of Lin et al. 2022 on a simulated survey of its size, in one command: `make paper-size`.

    python tests/bench/paper_size.py [--scale 0.01] [--minutes 8] [WORDS]

The survey, Baseline and Step 1 with Net_P, every correction of the paper and `best`, Step 4, the report. With
`--minutes` it stops in time and ends with code 3 while there is more to do: the same command goes on where it
stopped, until it ends with 0. WORDS are settings for all stages, e.g. trainer.devices=4. What each stage took
stands in `timings.json` beside the runs.

A scale below 1 takes that share of the galaxies and of the passes over them
(`conf/experiment/paper_size.yaml`). Its numbers mean little: it is the way that is the same.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

MORE = 3  # exit code: stopped in time, and there is more to do
GALAXIES = 516_525
CORRECTIONS = "none,balanced,hard,unshifted,skip_balanced,full,best"
GRACE = 20.0  # s that a stage is given to stop


def settings(scale: float) -> list[str]:
    """Return the words that a scale sets; all else follows the number of galaxies."""
    part = ["run=paper_size"]
    if scale != 1:
        part = [f"run=paper_size_{scale:g}", f"data.n_galaxies={round(GALAXIES * scale)}"]
    return ["experiment=paper_size", *part]


def stages(scale: float, words: list[str]) -> dict[str, list[str]]:
    """Return the commands, in order, each with what it is called in the timings."""
    own = [*settings(scale), *words]
    chosen = dict(word.split("=", 1) for word in own if "=" in word)
    family = Path(chosen.get("output_dir", "runs")) / chosen["run"]
    alone = [*own, "trainer.devices=1"]  # sweeps, and what takes seconds
    return {
        "prepare": ["stage=prepare", *alone],
        "baseline": ["stage=representation", "head=single", *own],
        "step 1": ["stage=representation", "head=multi", *own],
        "corrections": ["-m", "stage=classifier", f"correction={CORRECTIONS}", *alone],
        "step 4": ["stage=calibrate", f"model={family / 'classifier' / 'correction=full,*'}", *alone],
        "report": ["stage=report", *alone],
    }


def piece(command: list[str], until: float) -> int:
    """Run a command, and stop it in time: its exit code, `MORE` where it was stopped."""
    process = subprocess.Popen(
        [sys.executable, "-m", "photoz_lit", *command],
        # A shell's background job ignores Ctrl-C, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        return process.wait(None if until == float("inf") else max(0.1, until - GRACE - time.monotonic()))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
    try:
        code = process.wait(GRACE)
    except subprocess.TimeoutExpired:  # nothing is lost: files are renamed into place when they are whole
        process.kill()
        code = process.wait()
    return code if code in (0, 1, 2) else MORE


def main(argv: list[str] | None = None) -> int:
    """Do what is left of it, or a piece of that."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so many")
    parser.add_argument("words", nargs="*")
    typed = parser.parse_intermixed_args(argv)
    if not 0 < typed.scale <= 1:
        parser.error(f"--scale {typed.scale:g}: it is above 0, and 1 at most")
    until, commands = time.monotonic() + 60 * typed.minutes, stages(typed.scale, typed.words)
    model = next(word for word in commands["step 4"] if word.startswith("model="))
    path = Path(model.removeprefix("model=")).parents[1] / "timings.json"
    timings = json.loads(path.read_text()) if path.is_file() else {}
    for name, command in commands.items():
        took = timings.setdefault(name, {"seconds": 0.0, "pieces": 0, "done": False})
        if took["done"]:
            continue
        began = time.monotonic()
        code = piece(command, until)
        took["seconds"] = round(took["seconds"] + time.monotonic() - began, 1)
        took["pieces"], took["done"] = took["pieces"] + 1, code == 0
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(timings, indent=1))
        print(f"{name}: {took['seconds']:.0f} s{'' if code == 0 else ' so far'}", flush=True)
        if code:
            if code == MORE:
                print("more to do: the same command goes on", flush=True)
            return code
    print(f"the whole: {sum(took['seconds'] for took in timings.values()):.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
