"""Runs of W&B: what is in them, and that a job goes on without them. W&B runs in processes of its own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, catalogue_words, only, places, run, run_apart, write_catalogue

from photoz_lit.files import read_json

BLOCK, HEADER = 32768, 7  # bytes of LevelDB's log, in which W&B keeps a run


def records(path: Path) -> Iterator[Any]:
    """Yield the records of a run's file."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, held = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:  # the rest of a block is empty
            at += BLOCK - at % BLOCK
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        held += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(held)
            yield record
            held = b""


def kept(folder: Path) -> dict[str, Any]:
    """Return what the one run below a folder holds."""
    path = only(folder, "run-*.wandb")
    found: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "media": [], "exit": None}
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                found["run"] = record.run
                found["config"] |= {u.key: json.loads(u.value_json) for u in record.run.config.update}
            case "history":
                names = ("/".join(i.nested_key) or i.key for i in record.history.item)
                values = (json.loads(i.value_json) for i in record.history.item)
                found["history"].append(dict(zip(names, values, strict=True)))
            case "summary":
                changed = {i.key or "/".join(i.nested_key): i.value_json for i in record.summary.update}
                found["summary"] |= {key: json.loads(value) for key, value in changed.items()}
            case "exit":
                found["exit"] = record.exit.exit_code
    found["media"] = sorted(p.name.rpartition("_")[0] for p in path.parent.rglob("media/**/*.html"))
    return found


def words(folder: Path, logger: str) -> list[str]:
    own = catalogue_words(write_catalogue(folder))
    return [*(w for w in own if not w.startswith("logger=")), f"logger={logger}", *places(folder)]


def test_a_job_is_one_run_with_settings_curves_numbers_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    typed = words(tmp_path, "wandb")
    for stage, own in (("representation", ()), ("classifier", ("correction=full",))):
        outcome = run(f"stage={stage}", *own, *typed)
        assert (outcome.code, outcome.err) == (0, "")
        folder = only(tmp_path, f"{stage}/*/done.json").parent
        found = kept(folder)
        assert found["config"]["encoder"]["name"] == "mlp"
        assert found["config"]["correction"]["name"] == ("none" if stage == "representation" else "full")
        for name, value in read_json(folder / "metrics.json").items():
            assert found["summary"][name] == value, name
        curves = [""] if stage == "representation" else ["step2-", "step3-"]
        for curve in curves:
            assert any(f"{curve}train_loss" in row for row in found["history"]), curve
            assert any(f"{curve}val_loss" in row for row in found["history"]), curve
        assert "n-z-mode-collapse-at-a-glance_" in "".join(found["media"])
        assert len(found["media"]) == 7
        done, told = read_json(folder / "done.json"), found["run"]
        assert told.run_group == f"smoke {done['group']}"[:128]
        assert told.job_type == stage
        assert {stage, "mlp", "smoke"} <= set(told.tags)
        assert found["exit"] == 0
        assert wandb.run is None


@contextlib.contextmanager
def server(kind: str) -> Iterator[str]:
    """Give the address of a server that is not there, never answers, or says that a key is wrong."""
    if kind == "closed":
        yield "http://127.0.0.1:9"
    elif kind == "silent":
        with socket.create_server(("127.0.0.1", 0)) as listening:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    else:

        class Refuses(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.send_error(401)

            do_GET = do_POST

            def log_message(self, *_: Any) -> None:
                """In silence."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as serving:
            threading.Thread(target=serving.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{serving.server_port}"
            serving.shutdown()


SCRIPT = """
import logging, sys, time
from pathlib import Path
import pytorch_lightning.utilities, wandb
from command import parsed
from photoz_lit import tracking
logging.basicConfig(stream=sys.stdout)
config = parsed("stage=representation", "logger=wandb_online")
folder = Path(sys.argv[1], "representation", "seed=1")
folder.mkdir(parents=True)
began = time.monotonic()
run = tracking._begun(config, folder)
print("took", time.monotonic() - began, run.offline)
run.finish()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "key"), [("closed", "x" * 40), ("closed", ""), ("silent", "x" * 40), ("refuses", "x" * 40)]
)
def test_where_it_does_not_answer_a_run_is_kept_offline_soon(kind: str, key: str, tmp_path: Path) -> None:
    own = {"WANDB_API_KEY": key, "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    with server(kind) as address:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(tmp_path)],
            env=os.environ
            | own
            | {"WANDB_BASE_URL": address, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
            capture_output=True,
            text=True,
            check=True,
        )
    assert "W&B cannot be used (" in done.stdout
    assert "going on offline. For the next time: wandb login, or logger=wandb" in done.stdout
    _, taken, offline = next(line for line in done.stdout.splitlines() if line.startswith("took")).split()
    assert float(taken) < 20
    assert offline == "True"
    assert only(tmp_path, "offline-run-*")


@pytest.mark.slow
def test_a_job_that_wandb_refuses_is_done_all_the_same(tmp_path: Path) -> None:
    env = {"WANDB_API_KEY": "", "WANDB_SILENT": "true", "HOME": str(tmp_path)}
    outcome = run_apart("stage=representation", *words(tmp_path, "wandb_online"), env=env)
    assert outcome.code == 0, outcome.err
    assert "W&B cannot be used (No API key configured" in outcome.out
    numbers = read_json(only(tmp_path, "metrics.json"))
    assert kept(only(tmp_path, "offline-run-*"))["summary"]["sigma_mad"] == numbers["sigma_mad"]
