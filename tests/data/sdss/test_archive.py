"""Fetching frames: every fault that may pass is overcome, the others are named, nothing is fetched twice."""

import bz2
import sys
import threading
import time
from contextlib import closing
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from faulty_server import Fault, FrameServer, frame_bytes

from photoz_lit.data.sdss.archive import Archive, Fetched, damage, size_estimate
from photoz_lit.data.sdss.frames import FrameName
from photoz_lit.errors import DataError

BANDS = "gri"


def field_frames(number: int) -> list[FrameName]:
    return [FrameName(band, 3918, 3, number) for band in BANDS]


FIELDS = [field_frames(number) for number in range(213, 217)]
FILES = {frame.filename(): frame_bytes(frame) for frames in FIELDS for frame in frames}
ONE = FIELDS[0][1]
NAME = ONE.filename()
HALF = len(FILES[NAME]) // 2


def archive(server: FrameServer, folder: Path, **changes: Any) -> Archive:
    quick = {"timeout": 0.3, "backoff": 0.01, "patience": 2.0, "retries": 3}
    return Archive(server.address, folder, **(quick | changes))


def fetch(server: FrameServer, folder: Path, fields: list[list[FrameName]], **changes: Any) -> list[Fetched]:
    return list(archive(server, folder, **changes).fetch(fields))


def fetch_one(server: FrameServer, folder: Path, **changes: Any) -> Fetched:
    (fetched,) = fetch(server, folder, [[ONE]], **changes)
    return fetched


def test_every_field_arrives_whole_under_its_name(tmp_path: Path) -> None:
    with FrameServer(FILES) as server:
        fetched = fetch(server, tmp_path, FIELDS)
    assert sorted(f.frames[0].field for f in fetched) == [213, 214, 215, 216]
    for field in fetched:
        assert not field.failures
        assert field.paths == {frame.band: tmp_path / frame.filename() for frame in field.frames}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES
    assert len(server.requests) == len(FILES)
    assert f"/301/3918/3/{NAME}" in server.paths
    assert all("photoz_lit" in request.headers["User-Agent"] for request in server.requests)


def test_second_run_fetches_only_what_is_missing(tmp_path: Path) -> None:
    with FrameServer(FILES) as server:
        fetch(server, tmp_path, FIELDS[:2])
        (tmp_path / NAME).unlink()
        server.requests.clear()
        fetched = fetch(server, tmp_path, FIELDS[:3])
    assert sorted(r.name for r in server.requests) == sorted([NAME, *(f.filename() for f in FIELDS[2])])
    assert all(not f.failures for f in fetched)
    assert len(fetched) == 3


PASSING = {
    "500 once": Fault(status=500),
    "503 with Retry-After": Fault(status=503, headers={"Retry-After": "0"}),
    "429": Fault(status=429),
    "no answer": Fault(hang=True),
    "silence in the middle": Fault(stall_after=HALF),
    "corrupt": Fault(corrupt=True),
    "truncated as if whole": Fault(truncate_to=HALF),
    "an error page as if a file": Fault(content=b"<html>busy</html>"),
    "cut without Content-Length": Fault(drop_after=HALF, no_length=True),
    "dropped at the start": Fault(drop_after=0),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_passing_faults_are_overcome(tmp_path: Path, fault: Fault) -> None:
    with FrameServer(FILES, {NAME: [fault]}) as server:
        fetched = fetch_one(server, tmp_path)
    assert fetched.failures == {}
    assert fetched.paths["r"].read_bytes() == FILES[NAME]
    assert len(server.requests) == 2
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_dropped_connection_is_resumed_where_it_broke(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: [Fault(drop_after=HALF), Fault(drop_after=100)]}) as server:
        fetched = fetch_one(server, tmp_path)
    assert [r.headers.get("Range") for r in server.requests] == [
        None,
        f"bytes={HALF}-",
        f"bytes={HALF + 100}-",
    ]
    assert [r.status for r in server.requests] == [200, 206, 206]
    assert fetched.paths["r"].read_bytes() == FILES[NAME]


def test_progress_starts_the_count_of_tries_again(tmp_path: Path) -> None:
    drops = [Fault(drop_after=100)] * 6
    with FrameServer(FILES, {NAME: drops}) as server:
        assert fetch_one(server, tmp_path, retries=1).failures == {}
    assert len(server.requests) == 7


def test_a_server_without_ranges_sends_the_whole_file(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: [Fault(drop_after=HALF), Fault(ignore_range=True)]}) as server:
        fetched = fetch_one(server, tmp_path)
    assert [r.status for r in server.requests] == [200, 200]
    assert fetched.paths["r"].read_bytes() == FILES[NAME]


def test_the_next_run_goes_on_with_a_partial_file(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: [Fault(drop_after=HALF)]}) as server:
        failed = fetch_one(server, tmp_path, retries=0)
        assert f"{HALF} bytes" in failed.failures["r"]
        assert fetch_one(server, tmp_path).paths["r"].read_bytes() == FILES[NAME]
    assert server.requests[1].headers["Range"] == f"bytes={HALF}-"


def test_a_file_that_changed_in_between_is_fetched_afresh(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: [Fault(drop_after=HALF)]}) as server:
        fetch_one(server, tmp_path, retries=0)
        server.files[NAME] = new = frame_bytes(FrameName("r", 1, 1, 1))
        assert fetch_one(server, tmp_path).paths["r"].read_bytes() == new
    assert [r.status for r in server.requests] == [200, 200]
    assert "If-Range" in server.requests[1].headers


@pytest.mark.parametrize(
    "wrong",
    [
        {"ETag": '"another"'},
        {"Content-Range": f"bytes 0-{HALF}/{len(FILES[NAME])}"},
        {"Content-Range": f"bytes {HALF}-{len(FILES[NAME])}/{len(FILES[NAME]) + 1}"},
    ],
    ids=["version", "start", "size"],
)
def test_a_part_of_something_else_is_not_appended(tmp_path: Path, wrong: dict[str, str]) -> None:
    right = {"Content-Range": f"bytes {HALF}-{len(FILES[NAME]) - 1}/{len(FILES[NAME])}"}
    part = Fault(status=206, content=FILES[NAME][HALF:], headers=right | wrong)
    with FrameServer(FILES, {NAME: [Fault(drop_after=HALF), part]}) as server:
        assert fetch_one(server, tmp_path).paths["r"].read_bytes() == FILES[NAME]
    assert [r.status for r in server.requests] == [200, 206, 200]
    assert "Range" not in server.requests[2].headers


def test_a_partial_file_without_notes_is_not_trusted(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.partial").write_bytes(b"whose?")
    with FrameServer(FILES) as server:
        assert fetch_one(server, tmp_path).paths["r"].read_bytes() == FILES[NAME]
    assert "Range" not in server.requests[0].headers


def test_a_whole_partial_file_is_only_checked_and_renamed(tmp_path: Path) -> None:
    with FrameServer(FILES) as server:
        fetch_one(server, tmp_path)
        (tmp_path / NAME).rename(tmp_path / f"{NAME}.partial")
        (tmp_path / f"{NAME}.partial.json").write_text(f'{{"size": "{len(FILES[NAME])}"}}')
        assert fetch_one(server, tmp_path).paths["r"].read_bytes() == FILES[NAME]
    assert len(server.requests) == 1


def test_missing_file_is_not_asked_for_twice_and_leaves_the_others(tmp_path: Path) -> None:
    files = {name: content for name, content in FILES.items() if name != NAME}
    with FrameServer(files) as server:
        (fetched,) = fetch(server, tmp_path, FIELDS[:1])
    assert list(fetched.failures) == ["r"]
    assert f"{server.address}/301/3918/3/{NAME}: HTTP 404" in fetched.failures["r"]
    assert sorted(fetched.paths) == ["g", "i"]
    assert len(server.asked(NAME)) == 1


@pytest.mark.parametrize(
    ("fault", "reason", "requests"),
    [
        (Fault(status=500), "HTTP 500", 4),
        (Fault(hang=True), "no answer within 0.1 s", 4),
        (Fault(stall_after=0), "the connection broke after 0 bytes", 4),
        (Fault(corrupt=True), "not a whole bz2 file", 3),
        (Fault(content=bz2.compress(b"<html>")), "not a FITS file, in 3 copies", 3),
        (Fault(status=503, headers={"Retry-After": "3600"}), "asks to wait 3600 s", 1),
    ],
    ids=["500", "silence", "stall", "corrupt", "no FITS", "long wait"],
)
def test_lasting_faults_are_reported(tmp_path: Path, fault: Fault, reason: str, requests: int) -> None:
    with FrameServer(FILES, {NAME: repeat(fault)}) as server:
        fetched = fetch_one(server, tmp_path, timeout=0.1)
    assert reason in fetched.failures["r"]
    assert NAME in fetched.failures["r"]
    assert len(server.requests) == requests
    assert not (tmp_path / NAME).exists()


def test_the_server_is_left_alone_as_long_as_it_asks(tmp_path: Path) -> None:
    fault = Fault(status=503, headers={"Retry-After": "1"})
    with FrameServer(FILES, {NAME: [fault]}) as server:
        start = time.monotonic()
        assert fetch_one(server, tmp_path).failures == {}
        assert time.monotonic() - start >= 1.0


def test_an_outage_does_not_use_up_the_tries(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: [Fault(status=500)]}) as server:
        server.stop()
        restart = threading.Timer(0.3, server.start)
        restart.start()
        fetched = fetch_one(server, tmp_path, retries=1, patience=20.0)
        restart.join()
    assert fetched.failures == {}


def test_the_patience_begins_with_each_outage(tmp_path: Path) -> None:
    slams = {frame.filename(): [Fault(slam=True)] for frames in FIELDS[:2] for frame in frames}
    with FrameServer(FILES, slams) as server:
        for field in archive(server, tmp_path, ahead=1, connections=1, patience=0.2).fetch(FIELDS[:2]):
            assert field.failures == {}
            time.sleep(0.25)


def test_unreachable_server_is_a_reason_not_a_crash(tmp_path: Path) -> None:
    with FrameServer(FILES) as server:
        server.stop()
        start = time.monotonic()
        fetched = fetch(server, tmp_path, FIELDS, patience=0.3, connections=1)
    assert time.monotonic() - start < 2.0  # each of twelve files with a patience of its own would take 3.6 s
    assert len(fetched) == len(FIELDS)
    for field in fetched:
        assert sorted(field.failures) == sorted(BANDS)
        assert all("the server cannot be reached" in reason for reason in field.failures.values())


def test_a_server_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with FrameServer(FILES) as server:
        fetching = archive(server, tmp_path, ahead=1, patience=20.0).fetch(FIELDS)
        next(fetching)
        server.stop()
        restart = threading.Timer(0.3, server.start)
        restart.start()
        rest = list(fetching)
        restart.join()
    assert len(rest) == 3
    assert all(not field.failures for field in rest)


def test_no_more_fields_are_on_disk_than_allowed(tmp_path: Path) -> None:
    fields = [field_frames(number) for number in range(20)]
    files = {frame.filename(): frame_bytes(frame) for frames in fields for frame in frames}
    most = 0
    with FrameServer(files) as server, closing(archive(server, tmp_path, ahead=2).fetch(fields)) as fetched:
        for field in fetched:
            time.sleep(0.01)  # the others catch up
            most = max(most, len({path.name.split(".")[0][8:] for path in tmp_path.iterdir()}))
            for path in field.paths.values():
                path.unlink()
    assert most == 2
    assert len(server.requests) == len(files)
    assert list(tmp_path.iterdir()) == []


def test_closing_stops_at_once_and_keeps_what_arrived(tmp_path: Path) -> None:
    stalls = {frame.filename(): [Fault(stall_after=HALF)] for frame in FIELDS[1]}
    with FrameServer(FILES, stalls) as server:
        fetching = archive(server, tmp_path, timeout=60.0).fetch(FIELDS)
        next(fetching)
        partial = [tmp_path / f"{name}.partial" for name in stalls]
        while not all(path.is_file() and path.stat().st_size == HALF for path in partial):
            time.sleep(0.01)
        start = time.monotonic()
        fetching.close()
        assert time.monotonic() - start < 1.0
        assert not [t for t in threading.enumerate() if t.name.startswith("frames")]
        server.requests.clear()
        assert all(not field.failures for field in fetch(server, tmp_path, FIELDS))
    assert {r.headers.get("Range") for r in server.requests if r.name in stalls} == {f"bytes={HALF}-"}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == FILES


def test_requests_keep_their_distance(tmp_path: Path) -> None:
    with FrameServer(FILES) as server:
        start = time.monotonic()
        fetch(server, tmp_path, FIELDS[:1], delay=0.1)
        assert time.monotonic() - start >= 0.2


@pytest.mark.parametrize("setting", ["connections", "ahead"])
def test_nothing_can_be_fetched_with_nothing(tmp_path: Path, setting: str) -> None:
    with pytest.raises(DataError, match="at least 1"):
        Archive("http://127.0.0.1", tmp_path, **{setting: 0})


def test_missing_requests_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "requests", None)
    with pytest.raises(DataError, match=r"pip install 'photoz_lit\[sdss\]'"):
        next(Archive("http://127.0.0.1", tmp_path).fetch(FIELDS))


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with FrameServer(FILES) as server, pytest.raises(DataError, match="frames cannot be written there"):
        fetch(server, tmp_path / "file", FIELDS)


def test_damage_names_a_short_image(tmp_path: Path) -> None:
    path = tmp_path / "frame.bz2"
    whole = bz2.decompress(FILES[NAME])
    path.write_bytes(bz2.compress(whole))
    assert damage(path) is None
    path.write_bytes(bz2.compress(whole[:3000]))
    assert damage(path) == f"the image of 16 rows has {3000 - 2880} of {16 * 24 * 4} bytes"


def test_real_frames_are_undamaged_and_of_the_size_that_estimates_assume(real_data: Path) -> None:
    paths = sorted((real_data / "sdss_frames").glob("frame-*.bz2"))
    assert len(paths) >= 10
    assert damage(paths[0]) is None
    size, seconds = size_estimate(len(paths), connections=2, bytes_per_second=1e6)
    assert size == pytest.approx(sum(path.stat().st_size for path in paths), rel=0.02)
    assert seconds == pytest.approx(size / 2e6)


def test_a_file_that_the_server_hangs_up_on_is_given_up(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: repeat(Fault(slam=True))}) as server:
        (fetched,) = fetch(server, tmp_path, FIELDS[:1], patience=60.0)
    assert list(fetched.failures) == ["r"]
    assert "cannot be reached" not in fetched.failures["r"]
    assert len(server.asked(NAME)) == 4
    assert set(fetched.paths) == {"g", "i"}


@pytest.mark.parametrize("notes", ["[1]", '{"size": "many"}', "{"])
def test_damaged_notes_of_a_partial_file_are_not_trusted(notes: str, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.partial").write_bytes(b"something else")
    (tmp_path / f"{NAME}.partial.json").write_text(notes)
    with FrameServer(FILES) as server:
        assert fetch_one(server, tmp_path).failures == {}
    assert (tmp_path / NAME).read_bytes() == FILES[NAME]


def test_a_length_that_is_no_number_is_not_believed(tmp_path: Path) -> None:
    with FrameServer(FILES, {NAME: [Fault(headers={"Content-Length": "many"}, drop_after=HALF)]}) as server:
        assert fetch_one(server, tmp_path).failures == {}
    assert (tmp_path / NAME).read_bytes() == FILES[NAME]
