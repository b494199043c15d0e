"""Fetching frames: every fault that may pass is overcome, the others are named, nothing is fetched twice."""

import bz2
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Fault, FrameServer, frame_bytes

from photoz_lit.data.sdss import fetch as module
from photoz_lit.data.sdss.fetch import Archive, damage
from photoz_lit.data.sdss.frames import Field
from photoz_lit.errors import DataError

BANDS = "gri"
FIELDS = [Field(3918, 3, number) for number in range(213, 217)]
FILES = {field.filename(band): frame_bytes(field, band) for field in FIELDS for band in BANDS}
NAME = FIELDS[0].filename("r")
HALF = len(FILES[NAME]) // 2

Fetched = list[tuple[dict[Field, dict[str, Path]], dict[Field, str]]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TIMEOUT": 0.3, "BACKOFF": 0.01, "RETRIES": 3}.items():
        monkeypatch.setattr(module, name, value)


def fetch(server: FrameServer, folder: Path, jobs: Sequence[Sequence[Field]], bands: str = BANDS) -> Fetched:
    """Fetch all jobs, and keep what they had in a folder beside."""
    kept: Fetched = []
    (folder / "kept").mkdir(exist_ok=True)
    for paths, failures in Archive(server.address, folder / "frames", 3).fetch(jobs, bands):
        copies = {
            f: {b: folder / "kept" / path.name for b, path in files.items()} for f, files in paths.items()
        }
        for field, files in paths.items():
            for band, path in files.items():
                copies[field][band] = folder / "kept" / path.name
                copies[field][band].write_bytes(path.read_bytes())
        kept.append((copies, failures))
    return kept


def fetch_one(server: FrameServer, folder: Path) -> bytes | str:
    """Fetch one frame: its content, or why there is none."""
    ((paths, failures),) = fetch(server, folder, [[FIELDS[0]]], "r")
    return failures[FIELDS[0]] if failures else paths[FIELDS[0]]["r"].read_bytes()


def test_every_field_arrives_whole_in_order_and_is_removed_after_use(tmp_path: Path) -> None:
    with FrameServer(FILES) as server:
        fetched = fetch(server, tmp_path, [[field] for field in FIELDS])
    for (paths, failures), field in zip(fetched, FIELDS, strict=True):
        assert not failures
        assert {band: path.read_bytes() for band, path in paths[field].items()} == {
            band: FILES[field.filename(band)] for band in BANDS
        }
    assert list((tmp_path / "frames").iterdir()) == []
    assert len(server.requests) == len(FILES)
    assert f"/301/3918/3/{NAME}" in server.paths
    assert all("photoz_lit" in request.headers["User-Agent"] for request in server.requests)


def test_a_field_of_several_groups_is_fetched_once(tmp_path: Path) -> None:
    jobs = [FIELDS[:2], FIELDS[1:2], FIELDS[:3]]
    with FrameServer(FILES) as server:
        fetched = fetch(server, tmp_path, jobs)
    assert [list(paths) for paths, _ in fetched] == jobs
    assert len(server.requests) == 9


def test_second_run_fetches_only_what_is_missing(tmp_path: Path) -> None:
    files = {name: content for name, content in FILES.items() if name != NAME}
    with FrameServer(files) as server:
        ((_, failures),) = fetch(server, tmp_path, [FIELDS[:1]])
        assert f"band r: {server.address}/301/3918/3/{NAME}: HTTP 404" in failures[FIELDS[0]]
        assert len(server.asked(NAME)) == 1
        server.files = FILES
        server.requests.clear()
        ((paths, failures),) = fetch(server, tmp_path, [FIELDS[:1]])
    assert [request.name for request in server.requests] == [NAME]
    assert not failures
    assert sorted(paths[FIELDS[0]]) == sorted(BANDS)


PASSING = {
    "500 once": Fault(status=500),
    "503 with Retry-After": Fault(status=503, headers={"Retry-After": "0"}),
    "503 with nonsense": Fault(status=503, headers={"Retry-After": "soon"}),
    "429": Fault(status=429),
    "no answer": Fault(hang=True),
    "silence in the middle": Fault(stall_after=HALF),
    "corrupt": Fault(corrupt=True),
    "truncated as if whole": Fault(truncate_to=HALF),
    "an error page as if a file": Fault(content=b"<html>busy</html>"),
    "cut without Content-Length": Fault(drop_after=HALF, no_length=True),
    "dropped at the start": Fault(drop_after=0),
    "hung up": Fault(slam=True),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_passing_faults_are_overcome(tmp_path: Path, fault: Fault) -> None:
    with FrameServer(FILES, {NAME: [fault]}) as server:
        assert fetch_one(server, tmp_path) == FILES[NAME]
    assert len(server.requests) == 2


def test_dropped_connection_is_resumed_where_it_broke(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: [Fault(drop_after=HALF), Fault(drop_after=100)]}) as server:
        assert fetch_one(server, tmp_path) == FILES[NAME]
    ranges = [request.headers.get("Range") for request in server.requests]
    assert ranges == [None, f"bytes={HALF}-", f"bytes={HALF + 100}-"]
    assert [request.status for request in server.requests] == [200, 206, 206]


def test_progress_starts_the_count_of_tries_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRIES", 1)
    with FrameServer(FILES, {NAME: [Fault(drop_after=100)] * 6}) as server:
        assert fetch_one(server, tmp_path) == FILES[NAME]
    assert len(server.requests) == 7


@pytest.mark.parametrize(
    "second",
    [
        Fault(ignore_range=True),
        Fault(status=206, content=FILES[NAME][:HALF]),
        Fault(status=206, content=FILES[FIELDS[1].filename("r")][HALF:]),
    ],
    ids=["the whole", "the part that is there", "a part of another file"],
)
def test_an_answer_with_another_part_is_no_harm(tmp_path: Path, second: Fault) -> None:
    with FrameServer(FILES, {NAME: [Fault(drop_after=HALF), second]}) as server:
        assert fetch_one(server, tmp_path) == FILES[NAME]
    assert len(server.requests) <= 3


@pytest.mark.parametrize(
    ("partial", "statuses"),
    [(FILES[NAME][:HALF], [206]), (FILES[NAME], [416]), (b"whose?", [206, 200]), (b"", [200])],
    ids=["a part", "the whole", "something else", "nothing"],
)
def test_the_next_run_goes_on_with_what_a_killed_one_left(
    tmp_path: Path, partial: bytes, statuses: list[int]
) -> None:
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / f"{NAME}.partial").write_bytes(partial)
    with FrameServer(FILES) as server:
        assert fetch_one(server, tmp_path) == FILES[NAME]
    assert [request.status for request in server.requests] == statuses


@pytest.mark.parametrize(
    ("fault", "reason", "requests"),
    [
        (Fault(status=500), "HTTP 500", 4),
        (Fault(hang=True), "no answer within 0.1 s", 4),
        (Fault(stall_after=0), "the connection broke after 0 bytes", 4),
        (Fault(slam=True), "Remote end closed connection", 4),
        (Fault(corrupt=True), "not a whole bz2 file", 3),
        (Fault(content=bz2.compress(b"<html>")), "not a FITS file", 3),
        (Fault(status=503, headers={"Retry-After": "3600"}), "HTTP 503", 1),
    ],
    ids=["500", "silence", "stall", "hung up", "corrupt", "no FITS", "long wait"],
)
def test_lasting_faults_are_reported_and_leave_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, reason: str, requests: int
) -> None:
    if fault.hang or fault.stall_after is not None:
        monkeypatch.setattr(module, "TIMEOUT", 0.1)
    with FrameServer(FILES, {NAME: repeat(fault)}) as server:
        ((paths, failures),) = fetch(server, tmp_path, [FIELDS[:1]])
    assert reason in failures[FIELDS[0]]
    assert NAME in failures[FIELDS[0]]
    assert len(server.asked(NAME)) == requests
    assert sorted(paths[FIELDS[0]]) == ["g", "i"]
    assert not (tmp_path / "frames" / NAME).exists()


def test_the_server_is_left_alone_as_long_as_it_asks(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: [Fault(status=503, headers={"Retry-After": "1"})]}) as server:
        start = time.monotonic()
        assert fetch_one(server, tmp_path) == FILES[NAME]
        assert time.monotonic() - start >= 1.0


def restart_soon(server: FrameServer) -> threading.Timer:
    server.stop()
    timer = threading.Timer(0.3, server.start)
    timer.start()
    return timer


def test_a_server_that_stays_away_stops_the_run(tmp_path: Path) -> None:
    with FrameServer(FILES) as server:
        server.stop()
        with pytest.raises(DataError, match=r"cannot be reached.*type the same command to go on"):
            fetch(server, tmp_path, [[field] for field in FIELDS])


def test_a_server_that_comes_back_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 1)
    monkeypatch.setattr(module, "RETRIES", 12)
    with FrameServer(FILES) as server:
        fetching = Archive(server.address, tmp_path).fetch([[field] for field in FIELDS], BANDS)
        next(fetching)
        timer = restart_soon(server)
        assert [failures for _, failures in fetching] == [{}] * 3
        timer.join()


def test_no_more_fields_are_on_disk_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 2)
    fields = [Field(3918, 3, number) for number in range(20)]
    files = {field.filename(band): frame_bytes(field, band) for field in fields for band in BANDS}
    most = 0
    with (
        FrameServer(files) as server,
        closing(Archive(server.address, tmp_path).fetch([[f] for f in fields], BANDS)) as fetched,
    ):
        for _ in fetched:
            time.sleep(0.01)  # the others catch up
            most = max(most, len({path.name.split(".")[0][8:] for path in tmp_path.iterdir()}))
    assert most == 2
    assert len(server.requests) == len(files)


def test_closing_keeps_what_arrived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRIES", 99)  # half a minute and more
    silence = [Fault(stall_after=HALF), *[Fault(stall_after=0)] * 99]
    stalls: dict[str, Any] = {FIELDS[1].filename(band): silence for band in BANDS}
    with FrameServer(FILES, stalls) as server:
        fetching = Archive(server.address, tmp_path).fetch([[field] for field in FIELDS], BANDS)
        next(fetching)
        partial = [tmp_path / f"{name}.partial" for name in stalls]
        while not all(path.is_file() and path.stat().st_size == HALF for path in partial):
            time.sleep(0.01)
        start = time.monotonic()
        fetching.close()
        assert time.monotonic() - start < 10  # one time-out, for those that are silent
        assert not [t for t in threading.enumerate() if t.name.startswith("frames")]
        server.requests.clear()
        server.faults = {}
        rest = Archive(server.address, tmp_path).fetch([[field] for field in FIELDS[1:]], BANDS)
        assert [failures for _, failures in rest] == [{}] * 3
    assert {r.headers.get("Range") for r in server.requests if r.name in stalls} == {f"bytes={HALF}-"}


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("")
    with FrameServer(FILES) as server, pytest.raises(DataError, match="frames cannot be written there"):
        fetch_one(server, tmp_path)


def test_damage_names_a_short_image(tmp_path: Path) -> None:
    path = tmp_path / "frame.bz2"
    whole = bz2.decompress(FILES[NAME])
    path.write_bytes(bz2.compress(whole))
    assert damage(path) == ""
    path.write_bytes(bz2.compress(whole[:3000]))
    assert damage(path) == f"the image has {3000 - 2880} of {16 * 24 * 4} bytes"


def test_a_real_frame_is_undamaged(real_data: Path) -> None:
    assert damage(min((real_data / "sdss_frames").glob("frame-*.bz2"))) == ""
