"""Corrections of a sweep in one process, whose heads are trained together."""

import shutil
from pathlib import Path

import pytest
import torch
from command import Finished, only, run, run_well
from test_plain_training import galaxies, head_of, settings
from torch import Tensor

from photoz_lit import plain_training
from photoz_lit.config import Config, TrainingConfig
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import read_json
from photoz_lit.models.heads import AnyHead
from photoz_lit.models.objective import hard_labels
from photoz_lit.plain_training import Fit, Fitting
from photoz_lit.together import AT_ONCE, attempted


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many heads were trained at a time."""
    found, best = list[int](), plain_training._best

    def counted(fits: list[Fit]) -> list[dict[str, Tensor]]:
        found.append(len(fits))
        return best(fits)

    monkeypatch.setattr(plain_training, "_best", counted)
    return found


def named(name: str) -> Config:
    """Return settings of a job with a folder of its own."""
    config = settings()
    config.names |= {"representation": "one", "classifier": name}
    return config


def fit(folder: Path, loss: object = hard_labels, shared: bool = False) -> Fit:
    training = TrainingConfig(10, 5, 8, 0.05)
    return Fit(settings_of_all(), head_of("hard"), loss, training, galaxies(), folder, shared=shared)  # type: ignore[arg-type]


def settings_of_all() -> Config:
    return named("any")


def test_jobs_wait_for_each_other_and_share_what_is_the_same(tmp_path: Path, sizes: list[int]) -> None:
    heads: dict[str, list[AnyHead]] = {}

    def work(config: Config) -> Fitting[None] | None:
        name = config.names["classifier"]

        def steps() -> Fitting[None]:
            first = yield [fit(tmp_path / "both" / "step2", shared=True)]
            second = yield [fit(tmp_path / name / f"step3-{i}") for i in range(2)]
            heads[name] = [*first, *second]

        return None if name == "done" else steps()

    assert attempted(work, [named(name) for name in ("a", "done", "b", "a")]) == [None] * 4
    assert sizes == [1, 4], "Step 2 once for both, Step 3 of both together; a again finds all done"
    assert len(heads["a"]) == 3
    for ours, theirs in zip(heads["a"], heads["b"], strict=True):
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_what_fails_in_one_job_leaves_the_others(tmp_path: Path) -> None:
    def broken(logits: tuple[Tensor, Tensor | None], batch: dict[str, Tensor]) -> Tensor:
        return hard_labels(logits, batch) * torch.nan

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


def test_so_many_jobs_are_at_work_at_a_time(tmp_path: Path, sizes: list[int]) -> None:
    def work(config: Config) -> Fitting[None]:
        yield [fit(tmp_path / config.names["classifier"])]

    assert attempted(work, [named(str(i)) for i in range(AT_ONCE + 3)]) == [None] * (AT_ONCE + 3)
    assert sizes == [AT_ONCE, 3]


def test_a_sweep_in_one_process_gives_the_numbers_of_its_corrections_alone(
    catalogue_run: Finished, tmp_path: Path, sizes: list[int]
) -> None:
    names = ("balanced", "full", "hard", "lds", "ensemble", "temperature")
    words = ("stage=classifier", "trainer.precision=32-true")
    apart, joint = (catalogue_run.copy(tmp_path / name) for name in ("apart", "joint"))
    for place in (apart, joint):
        for folder in (*place.folder.rglob("classifier"), *place.folder.rglob("step2-*")):
            shutil.rmtree(folder)
    for name in names:
        run_well(f"correction={name}", *words, *apart.words)
    sizes.clear()
    outcome = run(
        "-m", f"correction={','.join(names)}", "correction.subset.threshold=0", *words, *joint.words
    )
    assert outcome.code == 2
    assert not sizes
    run_well("-m", f"correction={','.join(names)}", *words, *joint.words)
    assert max(sizes) >= 7, "Step 3 of full, hard and the five of the ensemble"
    for name in names:
        one, other = (
            read_json(only(place.folder, f"correction={name},*/metrics.json")) for place in (apart, joint)
        )
        assert one.keys() == other.keys()
        for key, value in one.items():
            if isinstance(value, float):
                assert other[key] == pytest.approx(value, rel=1e-3, abs=1e-4), (name, key)
