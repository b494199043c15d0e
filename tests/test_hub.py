"""What would be sent to the hub, by a client that notes it and sends nothing."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from command import places, run

from photoz_lit import hub
from photoz_lit.errors import ConfigError, DataError


class Client:
    """What of `huggingface_hub` is used."""

    token: str | None = "secret"
    refusal: Exception | None = None

    def __init__(self) -> None:
        self.constants = SimpleNamespace(ENDPOINT="https://hub.example")
        self.repositories: list[str] = []
        self.sent: dict[str, bytes] = {}

    def get_token(self) -> str | None:
        return self.token

    def HfApi(self) -> "Client":
        return self

    def CommitOperationAdd(self, path_in_repo: str, path_or_fileobj: Any) -> tuple[str, bytes]:
        held = path_or_fileobj
        return path_in_repo, held if isinstance(held, bytes) else Path(held).read_bytes()

    def create_repo(self, repo_id: str, *, exist_ok: bool) -> None:
        assert exist_ok
        self.repositories.append(repo_id)

    def create_commit(self, repo_id: str, operations: Any, *, commit_message: str) -> str:
        if self.refusal:
            raise self.refusal
        assert commit_message
        self.sent = dict(operations)
        return f"https://hub.example/{repo_id}"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    client = Client()
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)  # type: ignore[arg-type]
    monkeypatch.setattr(requests, "head", lambda *_, **__: None)
    return client


@pytest.fixture
def silent() -> Iterator[str]:
    """Yield the address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def exported(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("card.md", "model.safetensors", ".half.partial"):
        (folder / name).write_text(f"{name} of {folder.name}\n")
    return folder


def test_a_model_goes_as_it_is_with_its_card_as_readme(client: Client, tmp_path: Path) -> None:
    assert hub.push([exported(tmp_path / "one")], "me/photo-z") == "https://hub.example/me/photo-z"
    assert client.repositories == ["me/photo-z"]
    assert client.sent.keys() == {"card.md", "model.safetensors", "README.md"}
    header, _, card = client.sent["README.md"].decode().partition("\n---\n\n")
    assert "library_name: photoz_lit" in header
    assert card == "card.md of one\n"


def test_several_go_into_folders_of_their_own(client: Client, tmp_path: Path) -> None:
    hub.push([exported(tmp_path / name) for name in ("1", "2")], "me/photo-z")
    assert {"1/model.safetensors", "2/model.safetensors", "README.md"} < client.sent.keys()
    assert b"of 1\n\ncard.md of 2" in client.sent["README.md"]


def test_a_refusal_is_told(client: Client, tmp_path: Path) -> None:
    client.refusal = ValueError("403 Forbidden: no rights\nRequest ID: 7")
    with pytest.raises(DataError, match=r"the hub refuses \(403 Forbidden: no rights\); the models are in"):
        hub.push([exported(tmp_path / "one")], "me/photo-z")


@pytest.mark.parametrize("name", ["photo-z", "me/photo z", "https://hub.example/me/x", "me/", "a/b/c"])
def test_a_name_must_be_one(name: str) -> None:
    with pytest.raises(ConfigError, match="must be OWNER/NAME"):
        hub.check_push(name)


def test_before_any_work_it_says_that_nobody_is_logged_in(client: Client, tmp_path: Path) -> None:
    client.token = None
    outcome = run("stage=export", "model=sdss_main", "export.push=me/photo-z", *places(tmp_path))
    assert "export.push=me/photo-z: you are not logged in: type hf auth login" in outcome.message
    assert not list(tmp_path.iterdir())


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'photoz_lit\[hub\]'"):
        hub.check_push("me/photo-z")


@pytest.mark.parametrize("answers", ["nobody", "never"])
def test_without_a_network_it_ends_soon(
    answers: str, silent: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)  # type: ignore[arg-type]
    monkeypatch.setattr(hub, "PATIENCE", 0.5)
    client.constants.ENDPOINT = silent if answers == "never" else "http://127.0.0.1:9"
    began = time.monotonic()
    with pytest.raises(DataError, match="does not answer"):
        hub.check_push("me/photo-z")
    assert time.monotonic() - began < 5
