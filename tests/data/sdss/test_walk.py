"""From galaxies to a store of cutouts, from an archive on loopback with faults and from frames on disk."""

import bz2
import csv
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from faulty_server import Fault, FrameServer
from synthetic_frames import BANDS, PIXELS, Survey, name_of, write_survey

from photoz_lit.data.sdss import fetch
from photoz_lit.data.sdss.fetch import Archive
from photoz_lit.data.sdss.fields import Stamps
from photoz_lit.data.sdss.frames import Field
from photoz_lit.data.sdss.manifest import Manifest
from photoz_lit.data.sdss.walk import MEAN_BYTES, Walk, reopen
from photoz_lit.data.store import Store, is_complete, open_store
from photoz_lit.errors import DataError


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return write_survey(tmp_path_factory.mktemp("frames"))


@pytest.fixture
def archive(survey: Survey) -> Iterator[FrameServer]:
    with FrameServer(survey.files) as server:
        yield server


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TIMEOUT": 0.5, "BACKOFF": 0.01, "RETRIES": 3}.items():
        monkeypatch.setattr(fetch, name, value)


def galaxies(survey: Survey, *more: str) -> Table:
    """Return the catalogue's galaxies with so many of its columns."""
    table = survey.photo[["objID", "ra", "dec", *more]]
    table.rename_column("objID", "object_id")
    return table


PLACE = ("run", "camcol", "field")


def prepare(folder: Path, table: Table, frames: Path | FrameServer, pixels: int = PIXELS) -> Store:
    """Make the store, or try again what a finished one lacks."""
    if is_complete(folder):
        reopen(open_store(folder))
    if is_complete(folder):
        return open_store(folder)
    where = Archive(frames.address, folder.parent / "fetched") if isinstance(frames, FrameServer) else frames
    walk = Walk(table, where, Stamps(BANDS, pixels), 2)
    return walk.write(folder, {}, lambda n, total: None)


def manifest(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(folder: Path) -> list[str]:
    return [line["status"] for line in manifest(folder)]


def check_cutouts(folder: Path, rows: slice = slice(None)) -> None:
    """Check that a star of 100 nMgy stands in the middle of each cutout, in all bands."""
    store = open_store(folder)
    cutouts = store.inputs[rows]
    assert (store.flags[rows] == "").all()
    y, x = np.mgrid[:PIXELS, :PIXELS] - (PIXELS - 1) / 2
    near = np.hypot(x, y) < 6
    flux = cutouts[..., near].sum(-1)
    np.testing.assert_allclose(flux, 100, rtol=0.02)
    for axis in (x, y):
        np.testing.assert_allclose((cutouts * near * axis).sum((-1, -2)) / flux, 0, atol=0.1)


def test_faults_are_recovered_or_named_and_a_second_run_fetches_what_is_missing(
    survey: Survey, archive: FrameServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    size, table, folder = len(survey.files[name_of(1, "g")]), galaxies(survey, *PLACE), tmp_path / "store"
    faults: dict[str, list[Fault]] = {
        name_of(0, "u"): [Fault(status=500), Fault(status=503)],
        name_of(0, "g"): [Fault(hang=True)],
        name_of(1, "u"): [Fault(truncate_to=size // 2)],
        name_of(1, "g"): [Fault(drop_after=size // 2)],
        name_of(2, "r"): [Fault(corrupt=True)],
        name_of(2, "z"): [Fault(corrupt=True)] * 9,
        name_of(3, "i"): [Fault(status=404)],
    }
    archive.faults = {name: iter(f) for name, f in faults.items()}
    prepare(folder, table, archive)
    assert "6 of 12 galaxies were not cut (manifest.csv): 3 x band z:" in caplog.text
    assert statuses(folder) == ["done"] * 6 + ["frame"] * 6
    assert "HTTP 404" in manifest(folder)[-1]["reason"]
    assert name_of(2, "z") in manifest(folder)[6]["reason"]
    assert archive.asked(name_of(1, "g"))[1].headers["Range"] == f"bytes={size // 2}-"
    check_cutouts(folder, slice(0, 6))
    # Still no luck with one of them: the other is fetched, and nothing else.
    archive.faults = {name_of(2, "z"): iter([Fault(corrupt=True)] * 9)}
    archive.requests.clear()
    prepare(folder, table, archive)
    assert {request.name for request in archive.requests} == {name_of(2, "z"), name_of(3, "i")}
    check_cutouts(folder, slice(9, 12))
    archive.faults = {}
    prepare(folder, table, archive)
    check_cutouts(folder)
    archive.requests.clear()
    prepare(folder, table, archive)  # nothing is missing any more
    assert archive.requests == []
    assert statuses(folder) == ["done"] * 12
    assert not list(tmp_path.rglob("frame-*"))  # removed once cut


def test_server_that_goes_away_and_comes_back(
    survey: Survey, archive: FrameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RETRIES", 12)

    def interrupt() -> None:
        while len(archive.requests) < 6:
            time.sleep(0.005)
        archive.stop()
        time.sleep(0.3)
        archive.start()

    thread = threading.Thread(target=interrupt)
    thread.start()
    prepare(tmp_path / "store", galaxies(survey, *PLACE), archive)
    thread.join()
    check_cutouts(tmp_path / "store")


def test_server_that_stays_away_stops_the_run_which_goes_on_later(
    survey: Survey, archive: FrameServer, tmp_path: Path
) -> None:
    archive.stop()
    with pytest.raises(DataError, match=r"cannot be reached.*type the same command to go on"):
        prepare(tmp_path / "store", galaxies(survey, *PLACE), archive)
    archive.start()
    prepare(tmp_path / "store", galaxies(survey, *PLACE), archive)
    check_cutouts(tmp_path / "store")


def test_killed_run_goes_on_to_the_same_store(survey: Survey, archive: FrameServer, tmp_path: Path) -> None:
    table = galaxies(survey, *PLACE)
    archive.faults = {name_of(3, "r"): iter([Fault(hang=True)] * 99)}
    process = multiprocessing.get_context("fork").Process(
        target=prepare, args=(tmp_path / "killed", table, archive)
    )
    process.start()
    partial = tmp_path / "killed.partial" / "manifest.csv"
    while not partial.is_file():
        time.sleep(0.002)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not list(tmp_path.rglob("store.json"))
    with partial.open("a") as file:
        file.write("11,12376487200000")  # a line that was being written
    archive.faults = {}
    prepare(tmp_path / "killed", table, archive)
    prepare(tmp_path / "whole", table, archive)
    for name in ("inputs.npy", "catalogue.fits", "manifest.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def on_disk(survey: Survey, folder: Path) -> Path:
    """Put the frames into a folder of the archive's layout."""
    below = folder / "frames" / "1000"
    below.mkdir(parents=True)
    for name, content in survey.files.items():
        (below / name).write_bytes(content)
    return folder / "frames"


def test_frames_on_disk_are_cut_by_the_same_code(
    survey: Survey, archive: FrameServer, tmp_path: Path
) -> None:
    fetched = prepare(tmp_path / "fetched store", galaxies(survey, *PLACE, "rowc", "colc"), archive)
    table = galaxies(survey)
    table.add_row((5, 10.0, -80.0))
    cut = prepare(tmp_path / "store", table, on_disk(survey, tmp_path))
    np.testing.assert_array_equal(cut.inputs[:12], fetched.inputs)
    assert cut.flags.tolist() == [""] * 12 + ["frame"]
    assert manifest(tmp_path / "store")[12]["reason"].startswith("on none of the frames: bring ")


def test_a_frame_that_is_mended_on_disk_is_used_by_the_same_command(survey: Survey, tmp_path: Path) -> None:
    frames, folder = on_disk(survey, tmp_path), tmp_path / "store"
    broken = [frames / "1000" / name_of(field, "i") for field in range(4)]
    for path in broken:
        path.write_bytes(b"no frame")
    with pytest.raises(DataError, match="none of 12 galaxies could be cut"):
        prepare(folder, galaxies(survey), frames)
    broken[0].write_bytes(survey.files[broken[0].name])
    prepare(folder, galaxies(survey), frames)
    check_cutouts(folder, slice(0, 3))
    assert statuses(folder) == ["done"] * 3 + ["frame"] * 9
    for path in broken:
        path.write_bytes(survey.files[path.name])
    prepare(folder, galaxies(survey), frames)
    check_cutouts(folder)


def test_a_store_can_be_used_though_another_try_fails(
    survey: Survey, archive: FrameServer, tmp_path: Path
) -> None:
    folder, table = tmp_path / "store", galaxies(survey, *PLACE)
    archive.faults = {name_of(3, "r"): iter([Fault(status=404)])}
    prepare(folder, table, archive)
    before = manifest(folder)
    archive.stop()
    prepare(folder, table, archive)
    assert manifest(folder) == before
    check_cutouts(folder, slice(0, 9))
    archive.start()
    prepare(folder, table, archive)
    check_cutouts(folder)


@pytest.mark.parametrize("from_archive", [True, False])
def test_a_cutout_that_its_neighbour_could_not_complete_is_tried_again(
    tmp_path: Path, from_archive: bool
) -> None:
    """Two fields with a galaxy at their seam; the neighbour's frame comes later."""
    survey = write_survey(tmp_path / "files", neighbours=True)
    table = galaxies(survey, *PLACE)
    table["rowc"] = [1483.0, 700.0, 700.0]  # as if the synthetic frames were not smaller
    late = Field(1000, 3, 11).filename("u")
    folder = tmp_path / "store"
    with FrameServer(survey.files, {late: [Fault(status=404)]}) as archive:
        frames: Path | FrameServer = archive if from_archive else on_disk(survey, tmp_path)
        if isinstance(frames, Path):
            (frames / "1000" / late).write_bytes(b"")
        prepare(folder, table, frames)
        line = manifest(folder)[0]
        assert (line["status"], line["again"]) == ("edge", "yes")
        assert late in line["reason"]
        if isinstance(frames, Path):
            (frames / "1000" / late).write_bytes(survey.files[late])
        store = prepare(folder, table, frames)
    assert store.flags.tolist() == [""] * 3
    check_cutouts(folder)


def test_galaxies_whose_field_the_table_does_not_name_are_flagged(
    survey: Survey, archive: FrameServer, tmp_path: Path
) -> None:
    table = galaxies(survey, *PLACE)
    table["run"][4] = -1
    prepare(tmp_path / "store", table, archive)
    assert len(archive.requests) == 20
    assert statuses(tmp_path / "store") == ["done"] * 4 + ["frame"] + ["done"] * 7
    assert "run, camcol or field is not known" in manifest(tmp_path / "store")[4]["reason"]


def test_galaxies_whose_row_cannot_be_used_are_left_out(survey: Survey, tmp_path: Path) -> None:
    table = galaxies(survey)
    table["flag"] = ["", "table", *[""] * 10]
    table["ra"][1] = np.nan
    store = prepare(tmp_path / "store", table, on_disk(survey, tmp_path))
    assert store.flags.tolist() == table["flag"].tolist()
    assert reopen(store) == 0


def test_estimate_says_what_it_takes(survey: Survey, tmp_path: Path) -> None:
    archive = Archive("http://127.0.0.1", tmp_path)
    walk = Walk(galaxies(survey, *PLACE), archive, Stamps(BANDS, 64), 1)
    assert walk.estimate() == (
        "12 galaxies; cutouts take 0.00 GB; 4 fields, 0.07 GB to fetch (removed once cut); about 17 s"
    )
    assert "fetch" not in Walk(galaxies(survey), tmp_path, Stamps(BANDS), 1).estimate()


def test_pixels_that_the_store_cannot_hold_are_flagged(survey: Survey, tmp_path: Path) -> None:
    frames, folder = on_disk(survey, tmp_path), tmp_path / "store"
    path = frames / "1000" / name_of(2, "i")
    with fits.open(io.BytesIO(bz2.decompress(path.read_bytes()))) as file:
        file[0].data *= np.float32(1e5)
        written = io.BytesIO()
        file.writeto(written)
    path.write_bytes(bz2.compress(written.getvalue()))
    store = prepare(folder, galaxies(survey), frames)
    assert store.flags.tolist() == [""] * 6 + ["pixels"] * 3 + [""] * 3
    assert "brighter than 65504 nanomaggies" in manifest(folder)[6]["reason"]
    check_cutouts(folder, slice(0, 6))


def test_damage_to_a_manifest_is_noticed(survey: Survey, tmp_path: Path) -> None:
    frames, folder, partial = on_disk(survey, tmp_path), tmp_path / "store", tmp_path / "store.partial"
    (frames / "1000" / name_of(3, "r")).unlink()
    prepare(folder, galaxies(survey), frames)
    (folder / "manifest.csv").write_bytes(b"row,object_id\n1,2,3\n")
    prepare(folder, galaxies(survey), frames)  # a store that is whole can be used
    check_cutouts(folder, slice(0, 9))
    folder.rename(partial)
    with pytest.raises(DataError, match=r"manifest.csv: damaged"):
        prepare(folder, galaxies(survey), frames)
    (partial / "inputs.npy").unlink()
    prepare(folder, galaxies(survey), frames)  # all are cut again: nothing says done of a cutout that is gone
    assert statuses(folder) == ["done"] * 9 + ["frame"] * 3
    other = tmp_path / "other.csv"
    other.write_bytes((folder / "manifest.csv").read_bytes())
    with pytest.raises(DataError, match="row 0 is of another galaxy"):
        Manifest(other, np.arange(12))


def test_real_frames_are_of_the_size_that_estimates_assume(real_data: Path) -> None:
    paths = sorted((real_data / "sdss_frames").glob("frame-*.bz2"))
    assert np.mean([path.stat().st_size for path in paths]) == pytest.approx(MEAN_BYTES, rel=0.02)
