"""Corrections of a sweep whose heads are trained together, as on a GPU."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import ROOT, Finished, only, run, run_well
from test_plain_training import galaxies, head_of, settings
from torch import Tensor

from photoz_lit import plain_training, together
from photoz_lit.config import Config, TrainerConfig, TrainingConfig, several
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import locked, read_json
from photoz_lit.models.heads import AnyHead, Head
from photoz_lit.models.objective import hard_labels
from photoz_lit.plain_training import Fit, Fitting
from photoz_lit.together import AT_ONCE, HEADS, attempted

TRAINING = TrainingConfig(10, 5, 8, 0.05)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many heads were trained at a time."""
    found, best = list[int](), plain_training._best

    def counted(fits: Sequence[Fit]) -> list[dict[str, Tensor]]:
        found.append(len(fits))
        return best(fits)

    monkeypatch.setattr(plain_training, "_best", counted)
    return found


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sweeps in this process be those of a machine with a GPU."""
    monkeypatch.setattr(several, "GPUS", ("/",))


def words_of(copied: Finished) -> list[str]:
    """Return words of a classifier that may take a GPU."""
    own = [word for word in copied.words if not word.startswith("trainer.accelerator")]
    return ["stage=classifier", "trainer.precision=32-true", *own]


def named(name: str) -> Config:
    """Return settings of a job with a folder of its own."""
    config = settings()
    config.names |= {"representation": "one", "classifier": name}
    return config


def fit(folder: Path, loss: Any = hard_labels, seed: int = 1, **other: Any) -> Fit:
    head = Head(5, 2, 6, torch.Generator().manual_seed(seed))
    return Fit(named("any"), head, loss, TRAINING, galaxies(), folder, **other)


def broken(logits: tuple[Tensor, Tensor | None], batch: dict[str, Tensor]) -> Tensor:
    return hard_labels(logits, batch) * torch.nan


def test_jobs_wait_for_each_other_and_share_what_is_the_same(tmp_path: Path, sizes: list[int]) -> None:
    heads: dict[str, list[AnyHead]] = {}
    seeds = {"b": 5, "a": 2}

    def work(config: Config) -> Fitting[None] | None:
        name = config.names["classifier"]

        def steps() -> Fitting[None]:
            first = yield [fit(tmp_path / "both" / "step2", shared=True)]
            own = [fit(tmp_path / name / f"step3-{i}", seed=seeds[name] + i) for i in range(2)]
            heads[name] = [*first, *(yield own)]

        return None if name == "done" else steps()

    assert attempted(work, [named(name) for name in ("b", "done", "a", "b")]) == [None] * 4
    assert sizes == [1, 4], "Step 2 once for both, Step 3 of both together; b again finds all done"
    for name, found in heads.items():
        apart = [
            fit(tmp_path / "apart" / f"{name}{i}", seed=s)
            for i, s in enumerate((1, seeds[name], seeds[name] + 1))
        ]
        for own, ours in zip(apart, found, strict=True):
            plain_training.train_heads([own])
            (theirs,) = plain_training.trained([own])
            torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-4, atol=1e-5)


def test_what_fails_in_one_job_leaves_the_others(tmp_path: Path) -> None:
    ended: list[str] = []

    def work(config: Config) -> Fitting[None]:
        name = config.names["classifier"]
        if name == "wrong":
            raise ConfigError("wrong from the start")
        try:
            yield [fit(tmp_path / name, broken if name == "diverges" else hard_labels)]
            if name == "disk":
                raise OSError(28, "No space left on device")
            ended.append(name)
        finally:
            ended.append(f"{name} closed")

    names = ("good", "diverges", "wrong", "disk", "last")
    found = attempted(work, [named(name) for name in names])
    assert [type(failure) for failure in found] == [type(None), DataError, ConfigError, OSError, type(None)]
    assert "diverged" in str(found[1])
    assert {"good", "last"} == {name for name in ended if " " not in name}
    assert {f"{name} closed" for name in names if name != "wrong"} <= set(ended)


def test_a_job_whose_heads_cannot_be_read_leaves_its_folder(tmp_path: Path) -> None:
    (tmp_path / "step3").mkdir()
    (tmp_path / "step3" / "result.ckpt").write_bytes(b"no weights")
    began: list[bool] = []

    def work(config: Config) -> Fitting[None]:
        assert not any(began), "the folder is still held"
        began.append(True)
        try:
            yield [fit(tmp_path / "step3")]
        finally:
            began[-1] = False

    found = attempted(work, [named("one"), named("one")])
    assert [type(failure) for failure in found] == [DataError, DataError]
    assert began == [False, False]


def test_an_interruption_closes_all(tmp_path: Path) -> None:
    open_jobs: set[str] = set()

    def interrupted(logits: Any, batch: Any) -> Tensor:
        raise KeyboardInterrupt

    def work(config: Config) -> Fitting[None]:
        name = config.names["classifier"]
        open_jobs.add(name)
        try:
            yield [fit(tmp_path / name, interrupted)]
        finally:
            open_jobs.remove(name)

    with pytest.raises(KeyboardInterrupt):
        attempted(work, [named("one"), named("two")])
    assert not open_jobs


def test_so_many_jobs_and_heads_are_at_work_at_a_time(
    tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    began: list[str] = []

    def work(config: Config) -> Fitting[None]:
        began.append(config.names["classifier"])
        yield [fit(tmp_path / config.names["classifier"])]

    names = [chr(ord("k") - i) for i in range(AT_ONCE + 3)]
    assert attempted(work, [named(name) for name in names]) == [None] * (AT_ONCE + 3)
    assert sizes == [AT_ONCE, 3]
    assert began == [*sorted(names[:AT_ONCE]), *sorted(names[AT_ONCE:])]
    sizes.clear()
    together._train([fit(tmp_path / f"many{i}") for i in range(HEADS + 1)])
    assert sizes == [HEADS, 1]


def test_heads_that_do_not_fit_into_memory_together_are_parted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, room = list[int](), 2
    best = plain_training._best

    def small(fits: Sequence[Fit]) -> list[dict[str, Tensor]]:
        tried.append(len(fits))
        if len(fits) > room:
            raise torch.OutOfMemoryError
        return best(fits)

    monkeypatch.setattr(plain_training, "_best", small)
    fits = [fit(tmp_path / str(i)) for i in range(5)]
    assert not together._train(fits)
    assert tried == [5, 2, 3, 1, 2]
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        together._train([fit(tmp_path / "large")])


@pytest.mark.parametrize(
    "other",
    [
        lambda one: replace(one, head=head_of("hidden")),
        lambda one: replace(one, head=Head(5, 2, 7)),
        lambda one: replace(one, training=replace(TRAINING, lr=0.1)),
        lambda one: replace(one, galaxies=[replace(g, inputs=g.inputs[:1]) for g in one.galaxies]),
        lambda one: replace(one, galaxies=[one.galaxies[0], replace(one.galaxies[1], rows=np.arange(3))]),
        lambda one: replace(one, galaxies=with_column(one, "weight", np.ones(50))),
        lambda one: replace(one, galaxies=with_column(one, "cell", np.ones(50, np.float32))),
        lambda one: replace(one, galaxies=with_column(one, "cell", np.ones((50, 2), np.int64))),
        lambda one: replace(one, config=replace(one.config, seed=8)),
        lambda one: replace(one, config=replace(one.config, trainer=TrainerConfig(precision="bf16-mixed"))),
        lambda one: replace(one, config=replace(one.config, names={"representation": "another"})),
    ],
)
def test_heads_that_differ_are_not_trained_together(other: Any, tmp_path: Path) -> None:
    one = fit(tmp_path)
    assert fit(tmp_path / "another", broken, seed=2).kind == one.kind
    assert other(one).kind != one.kind


def with_column(one: Fit, name: str, values: Any) -> list[Any]:
    return [replace(g, columns=g.columns | {name: values[g.rows]}) for g in one.galaxies]


def test_results_that_are_shared_are_trained_by_one_process_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Path] = []

    def noted(folder: Path) -> Any:
        held.append(folder)
        return locked(folder)

    monkeypatch.setattr(plain_training, "locked", noted)
    plain_training.train_heads([fit(tmp_path / "own" / "step3")])
    assert held == []
    plain_training.train_heads([fit(tmp_path / "above" / "step2", shared=True)])
    assert held == [tmp_path / "above"]


def test_a_job_with_wrong_settings_is_told_in_its_place(
    catalogue_run: Finished, tmp_path: Path, as_on_a_gpu: None
) -> None:
    sweep = ("-m", "correction=hard,none,unshifted", "correction.step3.strength=3,1")
    outcome = run(*sweep, *words_of(catalogue_run.copy(tmp_path)))
    assert outcome.code == 2
    wrong = [line for line in outcome.err.splitlines() if line.startswith("jobs that failed")]
    assert len(wrong) == 1
    assert "correction=hard correction.step3.strength=3" in wrong[0]
    assert "correction=hard correction.step3.strength=1" not in wrong[0]
    assert only(tmp_path, "correction=hard,*/done.json")
    assert len(list(tmp_path.rglob("correction=unshifted,*/done.json"))) == 1


@pytest.mark.slow
def test_two_sweeps_at_once_do_not_wait_for_each_other(catalogue_run: Finished, tmp_path: Path) -> None:
    copied, names = catalogue_run.copy(tmp_path), ["hard", "skip_balanced", "unshifted"]
    program = (
        "from photoz_lit.config import several; several.GPUS = ('/',)\n"
        "from photoz_lit.__main__ import main; main()"
    )
    sweeps = [
        subprocess.Popen(
            [sys.executable, "-c", program, "-m", f"correction={','.join(own)}", *words_of(copied)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )
        for own in (names, names[::-1])
    ]
    try:
        for sweep in sweeps:
            said, _ = sweep.communicate(timeout=100)
            assert sweep.returncode == 0, said
    finally:
        for sweep in sweeps:
            sweep.kill()
    for name in names:
        only(copied.folder, f"correction={name},*/done.json")


def test_a_sweep_gives_the_heads_and_numbers_of_its_corrections_alone(
    catalogue_run: Finished, tmp_path: Path, sizes: list[int], as_on_a_gpu: None
) -> None:
    names = ("balanced", "full", "hard", "lds", "dense_weight", "ensemble", "temperature")
    words = ("training.step3.max_steps=40", "training.step2.max_steps=40")
    apart, joint = (catalogue_run.copy(tmp_path / name) for name in ("apart", "joint"))
    for place in (apart, joint):
        for folder in (*place.folder.rglob("classifier"), *place.folder.rglob("step2-*")):
            shutil.rmtree(folder)
    for name in names:
        run_well(f"correction={name}", *words_of(apart), *words)
    sizes.clear()
    run_well("-m", f"correction={','.join(names)}", *words_of(joint), *words)
    assert max(sizes) >= 7, "Step 3 of full, hard and the five of the ensemble"
    results = sorted(path.relative_to(joint.folder) for path in joint.folder.rglob("step*/result.ckpt"))
    assert len(results) == 14  # 7 of Step 2, of which the ensemble shares one, and 7 of Step 3
    for path in results:
        ours, theirs = (
            torch.load(place.folder / path, weights_only=True)["state_dict"] for place in (joint, apart)
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=str(path))
    for name in names:
        one, other = (
            read_json(only(place.folder, f"correction={name},*/metrics.json")) for place in (apart, joint)
        )
        assert one.keys() == other.keys()
        for key, value in one.items():
            if isinstance(value, float):
                assert other[key] == pytest.approx(value, rel=1e-3, abs=1e-4), (name, key)
