"""The command line as tests type it, in this process or in one of its own; small data to run it on."""

import contextlib
import hashlib
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from astropy.table import Table
from hydra import initialize_config_dir
from numpy.typing import NDArray

from photoz_lit.__main__ import conf_folder, main
from photoz_lit.config import Config, for_hydra, parse
from photoz_lit.config.parse import composition

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("experiment=smoke", "trainer.accelerator=cpu", "trainer.threads=1")
IMAGES = (*QUICK, "data.n_galaxies=120", "survey.pixels=24", "logger=none")
BANDS = "ugriz"
PEAK = 'next(int(x.split()[1]) for x in open("/proc/self/status") if x.startswith("VmHWM")) / 2**20'
"""Most memory that a program has held, GiB; its `ru_maxrss` begins with that of the test that started it."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one message of a command that stopped; fails where there is none, or more than one."""
        assert self.code in (1, 2), f"exit code {self.code}: {self.out}{self.err}"
        assert "Traceback" not in self.out + self.err, self.err
        assert self.err.startswith("error: "), self.err
        assert self.err.count("error: ") == 1, self.err
        return self.err.removeprefix("error: ").strip()


def parsed(*words: str) -> Config:
    """Return the settings that words of the command line give, without running anything."""
    put = for_hydra(list(words), [conf_folder()], multirun=False)
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return parse(composition(tuple(put)).settings, put)


def run(*words: str) -> Outcome:
    """Type `python -m photoz_lit WORDS` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        _logging_as_it_was(),
        mock.patch.object(sys, "argv", ["photoz_lit", *words]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def nothing_done() -> Iterator[list[Config]]:
    """Let commands run nothing, and give the settings of their jobs."""
    found: list[Config] = []

    def together(configs: Sequence[Config]) -> list[None]:
        found.extend(configs)
        return [None] * len(configs)

    way_in = "photoz_lit.__main__"
    with mock.patch(f"{way_in}.work", found.append), mock.patch(f"{way_in}.work_together", together):
        yield found


@contextlib.contextmanager
def _logging_as_it_was() -> Iterator[None]:
    """Undo what a command sets for its own process, so that tests of log messages after it see them."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers


def run_well(*words: str) -> Outcome:
    """Run a command that must succeed, in silence but for its log."""
    outcome = run(*words)
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return outcome


def begin(*words: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `python -m photoz_lit WORDS` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "photoz_lit", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(env or {})},
    )


def run_apart(*words: str, cwd: Path = ROOT, env: dict[str, str] | None = None) -> Outcome:
    """Type `python -m photoz_lit WORDS` in a process of its own."""
    process = begin(*words, cwd=cwd, env=env)
    out, err = process.communicate(timeout=300)
    return Outcome(process.returncode, out, err)


def places(folder: Path) -> tuple[str, str]:
    """Words that keep results and data below a folder."""
    return f"output_dir={folder / 'runs'}", f"data_dir={folder / 'data'}"


def state(folder: Path) -> dict[str, tuple[int, str]]:
    """Time of change and digest of every file below a folder."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def probabilities(file: Any) -> NDArray[np.float64]:
    """Return p(z) of an open `pdf.hdf5`, (n, n_outputs), as probabilities of bins."""
    edges = file["meta/bins"][0]
    return np.asarray(file["data/pdfs"][:] * np.float64(edges[1] - edges[0]))


def only(folder: Path, pattern: str) -> Path:
    """Return the one path below a folder that fits."""
    found = sorted(folder.rglob(pattern))
    assert len(found) == 1, f"{pattern} in {folder}: {found}"
    return found[0]


def magnitude_table(n: int = 90, seed: int = 0, z_max: float = 0.39) -> Table:
    """Draw galaxies with magnitudes that tell of their redshift."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.01, z_max, n)
    r = rng.uniform(14.0, 17.7, n)
    table = Table({"spec_z": z})
    for i, band in enumerate(BANDS):
        table[f"mag_{band}"] = r + (2 - i) * (0.4 + 3 * z) + rng.normal(0, 0.02, n)
        table[f"mag_err_{band}"] = rng.uniform(0.01, 0.05, n)
    return table


def write_catalogue(folder: Path, name: str = "galaxies.csv", **options: Any) -> Path:
    """Write a table of magnitudes, by its suffix."""
    path = folder / name
    magnitude_table(**options).write(path, overwrite=True)
    return path


def catalogue_words(path: Path) -> tuple[str, ...]:
    """Words that run tiny trainings on a table of magnitudes."""
    return (
        *QUICK,
        "logger=none",
        "data=catalogue",
        "encoder=mlp",
        "encoder.hidden=[16,16]",
        f"data.path={path}",
        "data.columns.dered_petro_r=mag_r",
    )


def cutouts(n: int = 40, pixels: int = 12, seed: int = 0) -> NDArray[np.float32]:
    """Draw cutouts (n, 5, pixels, pixels) of noise around a bright centre."""
    images = np.random.default_rng(seed).normal(0, 0.1, (n, 5, pixels, pixels)).astype(np.float32)
    images[:, :, pixels // 2, pixels // 2] += 10
    return images


def write_arrays(folder: Path, n: int = 40, pixels: int = 12, z_max: float = 0.39) -> tuple[str, ...]:
    """Write cutouts and the table beside them; return the words that read them."""
    table = magnitude_table(n, z_max=z_max)
    table["dered_petro_r"], table["ebv"] = table["mag_r"], 0.05
    table.write(folder / "table.csv", overwrite=True)
    np.save(folder / "cutouts.npy", cutouts(n, pixels))
    return (
        "data=arrays",
        f"data.path={folder / 'table.csv'}",
        f"data.images={folder / 'cutouts.npy'}",
        f"survey.pixels={pixels}",
    )


def kill_when(path_pattern: str, folder: Path, *words: str) -> None:
    """Run a command and kill it (SIGKILL) as soon as a file is there."""
    process = begin(*words)
    until = time.monotonic() + 600  # far more than it takes
    while not list(folder.rglob(path_pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdout, process.stderr):
        assert pipe is not None
        pipe.close()


@dataclass(frozen=True)
class Finished:
    """An output folder with finished runs and the words that made them; tests that write take a copy."""

    folder: Path
    words: tuple[str, ...]

    def copy(self, folder: Path) -> "Finished":
        """Copy runs and data; the words of the copy write there."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        return Finished(folder, (*self.words[:-2], *places(folder)))
