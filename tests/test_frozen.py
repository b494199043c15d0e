"""Which numbers are blind: of test galaxies that nothing was chosen on, by code that was committed."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import photoz_lit
from photoz_lit import frozen
from photoz_lit.config import Config
from photoz_lit.data.sources import catalogue, mock
from photoz_lit.data.sources.settings import SourceSettings
from photoz_lit.files import read_json

SEMI_REAL = {"path": "real.csv", "magnitudes": list("ugriz")}
DONE, DIRTY, LOST = (
    {"version": "1", "commit": commit, "changed": changed}
    for commit, changed in (("a1", False), ("a1", True), (None, True))
)


@pytest.mark.parametrize(
    ("data", "is_unseen"),
    [
        (mock.Settings(), False),
        (mock.Settings(mock_seed=99), False),
        (mock.Settings(mock_seed=100), True),
        (mock.Settings(mock_seed=100, nested="inner"), True),
        (mock.Settings(mock_seed=100, **SEMI_REAL), False),
        (mock.Settings(mock_seed=100, nested="outer", **SEMI_REAL), True),
        (mock.Settings(mock_seed=99, nested="outer"), True),
        (catalogue.Settings(path="a.csv"), False),
        (catalogue.Settings(path="a.csv", nested="inner"), False),
        (catalogue.Settings(path="a.csv", nested="outer"), True),
    ],
)
def test_what_nothing_was_chosen_on(data: SourceSettings, is_unseen: bool) -> None:
    assert frozen.unseen(Config(data=data)) is is_unseen


@pytest.mark.parametrize(
    ("content", "blind"),
    [
        ({}, False),
        ({"unseen": True}, False),
        ({"unseen": True, "code": []}, False),
        ({"unseen": True, "code": [DONE]}, True),
        ({"unseen": True, "code": [DONE, DONE | {"commit": "b2"}]}, True),
        ({"unseen": False, "code": [DONE]}, False),
        ({"unseen": True, "code": [DIRTY]}, False),
        ({"unseen": True, "code": [LOST]}, False),
        ({"unseen": True, "code": [DONE, DIRTY]}, False),
        ({"unseen": True, "code": [LOST, DONE]}, False),
    ],
)
def test_blind_needs_both(content: dict[str, Any], blind: bool) -> None:
    assert frozen.is_blind(content) is blind


def test_a_run_that_was_gone_on_with_names_each_code_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, other = Config(data=mock.Settings(mock_seed=100)), DONE | {"commit": "b2"}
    for now, listed in ((DONE, [DONE]), (DONE, [DONE]), (other, [DONE, other]), (DONE, [other, DONE])):
        monkeypatch.setattr(frozen, "code", lambda now=now: now)
        frozen.write_frozen(config, tmp_path)
        assert read_json(tmp_path / frozen.FILE) == {"unseen": True, "code": listed}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the package lie in a folder of its own, and no hook's repository be in the way."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    root = tmp_path / "site"
    for name in ("photoz_lit", "conf", "tests"):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").touch()
    monkeypatch.setattr(photoz_lit, "__file__", str(root / "photoz_lit" / "__init__.py"))
    return root


def git(folder: Path, *words: str) -> str:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "core.hooksPath=/dev/null")
    return subprocess.run(
        ["git", "-C", folder, *own, *words], check=True, capture_output=True, text=True
    ).stdout


def test_code_is_the_commit_and_whether_the_package_or_its_settings_differ(package: Path) -> None:
    git(package, "init", "--quiet")
    git(package, "add", ".")
    git(package, "commit", "--quiet", "-m", "one")
    now = {"version": photoz_lit.__version__, "commit": git(package, "rev-parse", "HEAD").strip()}
    assert frozen.code() == now | {"changed": False}
    (package / "tests" / "new.py").touch()
    assert not frozen.code()["changed"]
    for path in ("conf/new.yaml", "photoz_lit/new.py"):
        (package / path).touch()
        assert frozen.code() == now | {"changed": True}
        (package / path).unlink()
    (package / "photoz_lit" / "__init__.py").write_text("a = 1\n")
    assert frozen.code()["changed"]


@pytest.mark.parametrize("around", [False, True])
def test_without_a_repository_of_its_own_there_is_no_commit(around: bool, package: Path) -> None:
    """An installed package may lie in the folder of somebody's project, whose commits say nothing of it."""
    if around:
        (package.parent / "a.py").touch()
        (package.parent / ".gitignore").write_text("site\n")
        git(package.parent, "init", "--quiet")
        git(package.parent, "add", ".")
        git(package.parent, "commit", "--quiet", "-m", "one")
    assert frozen.code() == {"version": photoz_lit.__version__, "commit": None, "changed": True}


def test_without_git_there_is_no_commit(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(package))
    assert frozen.code()["commit"] is None
