"""Commands at the same time: of equal ones one works, and the others wait and find it done."""

from pathlib import Path

import pytest
from command import Finished, begin, catalogue_words, only, places, state, write_catalogue

AT_ONCE = {"prepare": 4, "representation": 3, "classifier": 2, "predict": 3}


def words_of(stage: str, finished: Finished, folder: Path) -> tuple[str, ...]:
    """Words of a stage whose own results are not there yet, on what it needs."""
    if stage == "prepare":
        path = write_catalogue(folder)
        return ("stage=prepare", *catalogue_words(path), *places(folder))
    copy = finished.copy(folder)
    if stage == "representation":
        return ("stage=representation", *copy.words, "seed=7")
    if stage == "classifier":
        return ("stage=classifier", "correction=unshifted", *copy.words)
    model = only(folder / "runs", "classifier/*/done.json").parent
    table = next(word for word in copy.words if word.startswith("data.path="))
    return ("stage=predict", f"model={model}", "data=catalogue", table, "trainer.threads=1", *places(folder))


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "n"), AT_ONCE.items())
def test_equal_commands_at_once_end_well_with_one_result(
    stage: str, n: int, catalogue_run: Finished, tmp_path: Path
) -> None:
    words = words_of(stage, catalogue_run, tmp_path)
    together = [begin(*words) for _ in range(n)]
    said = [process.communicate(timeout=300) for process in together]
    assert [process.returncode for process in together] == [0] * n, said
    assert not [err for _, err in said if err], said
    done_before = "preparing" if stage == "prepare" else "is complete: skipped"
    assert sum(done_before in out for out, _ in said) == (1 if stage == "prepare" else n - 1), said
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    before = state(tmp_path)
    once_more = begin(*words)
    out, err = once_more.communicate(timeout=300)
    assert once_more.returncode == 0, err
    after = state(tmp_path)
    assert {name: entry for name, entry in before.items() if not name.endswith("lock")} == {
        name: entry for name, entry in after.items() if not name.endswith("lock")
    }, out
