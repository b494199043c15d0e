"""Jobs of a sweep in processes, forked from a program without threads of PyTorch, as a command is."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import ROOT, Finished, only, run_apart
from omegaconf import DictConfig, OmegaConf

from photoz_lit.config import several
from photoz_lit.files import read_json

PROGRAM = """
import os, signal, sys, time
from omegaconf import OmegaConf
from photoz_lit.config import several

def jobs(n, stage="classifier", threads=2, accelerator="cpu", logger="csv"):
    trainer = dict(threads=threads, accelerator=accelerator, progress=True)
    settings = dict(stage=dict(name=stage), trainer=trainer, logger=dict(name=logger))
    return [(OmegaConf.create(settings), [str(i)]) for i in range(n)]

def attempt(settings, words):
    t = settings.trainer
    return ValueError(os.getpid(), int(words[0]), t.threads, t.progress, os.environ.get("OMP_NUM_THREADS"))

def attempt_together(jobs):
    return [ValueError(*attempt(*job).args, "together") for job in jobs]

def found(*args, **kwargs):
    return [error.args for error in several.results_of(attempt, attempt_together, jobs(*args, **kwargs))]

here = os.getpid()
signal.signal(signal.SIGINT, signal.default_int_handler)  # one started in the background ignores it
"""


def program(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", PROGRAM + code], capture_output=True, text=True, cwd=ROOT)


def test_classifiers_run_side_by_side_and_results_come_in_order() -> None:
    done = program(
        """
several.GPUS = ()
told = found(5, threads=4)
assert [args[1] for args in told] == list(range(5))
assert here not in {args[0] for args in told}
assert {args[2:] for args in told} == {(1, False, "1")}
assert {args[2:] for args in found(2, threads=4)} == {(2, False, "2")}
"""
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "before", "together"),
    [
        ("2, stage='representation'", "", False),
        ("1", "", False),
        ("2, threads=1", "", False),
        ("2", "sys.modules['torch'] = sys", False),
        ("2", "several.GPUS = ('/',); sys.modules['torch'] = sys", False),
        ("1, accelerator='auto'", "several.GPUS = ('/',)", False),
        ("2, accelerator='auto', stage='predict'", "several.GPUS = ('/',)", False),
        ("2, accelerator='auto', logger='wandb_offline'", "several.GPUS = ('/',)", False),
        ("2, accelerator='auto', logger='${nope}'", "several.GPUS = ('/',)", True),
        ("2, accelerator='auto'", "several.GPUS = ('/',)", True),
    ],
)
def test_others_are_done_in_one_process_with_their_own_settings(
    words: str, before: str, together: bool
) -> None:
    code = f"""
{before}
told = found({words})
assert {{args[0] for args in told}} == {{here}}
of_it = (True, os.environ.get("OMP_NUM_THREADS"), *{("together",) * together})
assert {{args[3:] for args in told}} == {{of_it}}
"""
    done = program(code)
    assert done.returncode == 0, done.stderr


def test_a_process_that_is_killed_is_told() -> None:
    done = program(
        """
several.GPUS = ()
def attempt(settings, words):
    os.kill(os.getpid(), signal.SIGKILL)
for _ in range(20):  # the end of a process is seen a moment before its exit code
    try:
        list(several.results_of(attempt, attempt_together, jobs(2)))
    except several.DataError as error:
        print(error)
"""
    )
    assert done.stdout.count("a process of the sweep was ended") == 20, done.stderr


def test_a_fault_of_ours_is_raised_where_the_sweep_was_begun() -> None:
    done = program(
        """
several.GPUS = ()
def attempt(settings, words):
    raise KeyError("as if")
list(several.results_of(attempt, attempt_together, jobs(2)))
"""
    )
    assert "RuntimeError: KeyError('as if')" in done.stderr
    assert 'raise KeyError("as if")' in done.stderr or "in attempt" in done.stderr


def test_an_interruption_ends_all() -> None:
    code = """
several.GPUS = ()
def attempt(settings, words):
    os.write(1, b"%d\\n" % os.getpid())
    time.sleep(60)
list(several.results_of(attempt, attempt_together, jobs(2)))
"""
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdout is not None
    children = [int(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert time.monotonic() - began < 30
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


def test_what_is_no_job_is_none() -> None:
    assert list(several.results_of(lambda settings, words: None, list, [])) == []
    settings = OmegaConf.create({"stage": {"name": None}, "trainer": {"threads": 2, "accelerator": "cpu"}})
    assert list(several.results_of(lambda settings, words: None, list, [(settings, [])] * 2)) == [None, None]


@pytest.mark.slow
def test_a_sweep_side_by_side_gives_the_numbers_of_one_after_the_other(
    catalogue_run: Finished, tmp_path: Path
) -> None:
    found, names = [], ("balanced", "full", "none")
    for threads in (1, 2):
        own = catalogue_run.copy(tmp_path / str(threads))
        words = [word for word in own.words if not word.startswith("trainer.threads")]
        sweep = ("-m", "stage=classifier", f"correction={','.join(names)}")
        outcome = run_apart(*sweep, *words, f"trainer.threads={threads}")
        assert outcome.code == 0, outcome.err
        found.append([read_json(only(own.folder, f"correction={name},*/metrics.json")) for name in names])
    for one, other in zip(*found, strict=True):
        assert one.keys() == other.keys()
        known = {name for name, value in one.items() if value is not None}
        assert known == {name for name, value in other.items() if value is not None}
        assert len(known) > 20
        for name in known:
            assert one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), name


def correction(**words: object) -> DictConfig:
    """Return settings as they are composed, checked by nobody, of a correction and its training."""
    own = {"step2": {"loss": {}}, "step3": {"hidden": 0}, "members": 1}
    steps = {"step2": {"max_steps": 200}, "step3": {"max_steps": 1000}, "hidden": {"max_steps": 2000}}
    settings = OmegaConf.create({"correction": own, "training": steps, "trainer": {"threads": None}})
    for key, value in words.items():
        OmegaConf.update(settings, key.replace("__", "."), value, merge=False)
    return settings


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ({}, 1200),
        ({"correction__step2": None}, 1000),
        ({"correction__step3": None}, 200),
        ({"correction__step2": None, "correction__step3": None}, 0),
        ({"correction__step2": None, "correction__step3__hidden": 256, "correction__members": 5}, 10_000),
        ({"correction__members": "abc"}, 1200),
        ({"training__step3__max_steps": "x"}, 200),
        ({"training__step3": 7}, 200),
        ({"training__step3__max_steps": "${nothing}"}, 200),
    ],
)
def test_jobs_are_taken_up_by_their_length_whatever_is_typed(words: dict[str, object], steps: int) -> None:
    assert several._steps(correction(**words)) == steps


@pytest.mark.parametrize("words", ["correction.members=abc,2", "trainer.threads=abc correction.members=2,3"])
def test_a_value_that_is_no_number_is_told_by_its_job(words: str, tmp_path: Path) -> None:
    outcome = run_apart(
        "-m", "experiment=smoke", "stage=classifier", "correction=full", *words.split(), cwd=tmp_path
    )
    assert outcome.code == 2, outcome.err
    assert "'abc'" in outcome.err
    assert "Traceback" not in outcome.err
