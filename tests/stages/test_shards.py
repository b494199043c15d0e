"""A prediction in parts: the whole is that of one process, whatever happens to the parts."""

from pathlib import Path
from typing import Any

import pytest
from command import Finished, only, places, run, run_well
from stages.test_predict import CPU, content, galaxies, write_target

from photoz_lit import inference
from photoz_lit.results import Results


@pytest.fixture
def command(mock_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Return the words of a prediction of 40 galaxies in chunks of 4."""
    monkeypatch.setattr(inference, "CHUNK", 4)
    table, images = galaxies()
    table["flag"] = ["edge" if i in (5, 30) else "" for i in range(40)]
    model = only(mock_run.folder / "runs", "representation/*")
    return "stage=predict", f"model={model}", *CPU, *write_target(tmp_path / "target", table, images)


def test_parts_make_the_table_of_one_process(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_well(*command, *places(tmp_path / "whole"))
    whole = only(tmp_path / "whole", "done.json").parent
    append, calls = Results.append, 0

    def once_too_often(self: Results, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        append(self, *args)

    words = (*command, *places(tmp_path / "parts"))
    assert "other parts are not done yet: predict.shard=0/3,1/3" in run_well(*words, "predict.shard=2/3").out
    with monkeypatch.context() as patched:
        patched.setattr(Results, "append", once_too_often)
        assert run(*words, "predict.shard=1/3").code == 130
    assert "parts are not done: predict.shard=0/3,1/3. Do these" in run(*words).message
    run_well(*words, "predict.shard=0/3")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    outcome = run_well(*words, "predict.shard=rank")
    assert "going on at galaxy 8 of 12" in outcome.out
    assert "38 of 40 galaxies have a photo_z" in outcome.out
    folder = only(tmp_path / "parts", "done.json").parent
    assert content(folder) == content(whole)
    assert sorted(p.name for p in folder.iterdir()) == sorted(p.name for p in whole.iterdir())
    assert "is complete: skipped" in run_well(*words, "predict.shard=1/3").out


def test_parts_of_a_sweep_are_merged_once_and_an_interrupted_merge_goes_on(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = Results.append, 0

    def once_too_often(self: Results, *args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 16:  # in the merge
            raise KeyboardInterrupt
        append(self, *args)

    words = (*command, *places(tmp_path / "parts"))
    with monkeypatch.context() as patched:
        patched.setattr(Results, "append", once_too_often)
        assert run("-m", *words, "predict.shard=0/2,1/2").code == 130
    outcome = run_well(*words)
    assert "going on at galaxy 20 of 40" in outcome.out
    run_well(*command, *places(tmp_path / "whole"))
    folders = [only(tmp_path / name, "done.json").parent for name in ("parts", "whole")]
    assert content(folders[0]) == content(folders[1])


@pytest.mark.parametrize(
    ("shard", "said"),
    [
        ("3/3", "predict.shard=3/3 is no part: type I/N"),
        ("0/0", "is no part"),
        ("two", "is no part"),
        ("-1/3", "is no part"),
        ("rank", "predict.shard=rank is no part"),
        ("0/11", "a part has 4 galaxies at least: type N up to 10"),
    ],
)
def test_wrong_parts_are_refused(shard: str, said: str, command: tuple[str, ...], tmp_path: Path) -> None:
    outcome = run(*command, f"predict.shard={shard}", *places(tmp_path))
    assert outcome.code == 2
    assert said in outcome.message
