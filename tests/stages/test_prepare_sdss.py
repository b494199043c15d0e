"""From a query to cutouts, through the command line, against servers on loopback with faults."""

import csv
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from command import kill_when, only, places, run, run_well
from faulty_server import Fault, FrameServer, SkyServer
from synthetic_frames import SHAPE, draw_stars, frame_header, frame_wcs, write_frame

from photoz_lit.data.dust import EXTINCTION_PER_EBV
from photoz_lit.data.sdss.frames import Field, FrameName
from photoz_lit.data.sdss.query import KINDS
from photoz_lit.data.store import open_store

BANDS = "ugriz"
FIELDS = [Field(1000, 3, number) for number in (10, 20, 30, 40)]  # far apart: none is another's neighbour
PIXELS = 24
PER_FIELD = 3


@dataclass
class Survey:
    """A piece of sky: the galaxies of the catalogue, and the archive's files that show them."""

    photo: Table
    spec: Table
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    rows = []
    for i, field in enumerate(FIELDS):
        centre = (150.0 + i, 2.0)
        wcs = frame_wcs(*centre)
        x, y = rng.uniform(40, SHAPE[1] - 40, PER_FIELD), rng.uniform(40, SHAPE[0] - 40, PER_FIELD)
        ra, dec = wcs.pixel_to_world_values(x, y)
        image = draw_stars(wcs, ra, dec)
        for band in BANDS:
            noise = rng.normal(0, 0.01, SHAPE).astype(np.float32)
            write_frame(folder, field, band, image + noise, frame_header(*centre))
        rows += [(field, *values) for values in zip(ra, dec, x, y, strict=True)]
    n = len(rows)
    photo = Table({"objID": 1237648720000000000 + np.arange(n), "mode": np.ones(n, int)})
    for j, name in enumerate(("run", "camcol", "field")):
        photo[name] = [row[0][j] for row in rows]
    photo["rerun"] = 301
    photo["ra"], photo["dec"] = ([float(row[k]) for row in rows] for k in (1, 2))
    photo["colc_r"], photo["rowc_r"] = ([float(row[k]) + 0.5 for row in rows] for k in (3, 4))
    for band in BANDS:
        photo[f"extinction_{band}"] = 0.05 * EXTINCTION_PER_EBV[band]
        for name, value in (("petroMag", 17.0), ("modelMag", 17.1)):
            photo[f"{name}_{band}"], photo[f"{name}Err_{band}"] = value, 0.02
    spec = Table({"specObjID": 300000000000000000 + np.arange(n), "bestObjID": photo["objID"]})
    spec["z"], spec["zErr"] = rng.uniform(0.02, 0.3, n), 1e-4
    spec["class"], spec["zWarning"], spec["sciencePrimary"] = "GALAXY", 0, 1
    assert set(KINDS) <= {*photo.colnames, *spec.colnames, "rowc", "colc"}
    return Survey(photo, spec, {path.name: path.read_bytes() for path in folder.iterdir()})


@pytest.fixture
def catalogue(survey: Survey) -> Iterator[SkyServer]:
    with SkyServer(survey.photo, survey.spec) as server:
        yield server


def words(catalogue: SkyServer, archive: FrameServer, folder: Path) -> list[str]:
    return [
        "stage=prepare",
        "data=sdss",
        f"survey.pixels={PIXELS}",
        f"archive.catalogue_url={catalogue.address}",
        f"archive.frames_url={archive.address}/frames",
        "archive.timeout=1",
        "archive.backoff=0.01",
        "archive.retries=3",
        "data.dtype=float32",
        *places(folder),
    ]


def name_of(field: int, band: str) -> str:
    return FrameName(band, *FIELDS[field]).filename()


def manifest(folder: Path) -> list[dict[str, str]]:
    with only(folder, "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def check_cutouts(folder: Path, rows: slice) -> None:
    """Check that a star of 100 nMgy stands in the middle of each cutout, in all bands."""
    store = open_store(only(folder, "store.json").parent)
    cutouts = store.inputs[rows]
    assert (store.flags[rows] == "").all()
    y, x = np.mgrid[:PIXELS, :PIXELS] - (PIXELS - 1) / 2
    near = np.hypot(x, y) < 6
    flux = cutouts[..., near].sum(-1)
    np.testing.assert_allclose(flux, 100, rtol=0.02)
    for axis in (x, y):
        np.testing.assert_allclose((cutouts * near * axis).sum((-1, -2)) / flux, 0, atol=0.1)


def test_from_query_to_cutouts(survey: Survey, catalogue: SkyServer, tmp_path: Path) -> None:
    with FrameServer(survey.files) as archive:
        outcome = run_well(*words(catalogue, archive, tmp_path))
    assert "12 galaxies; cutouts take" in outcome.out
    assert "4 fields, 0.07 GB to fetch" in outcome.out
    check_cutouts(tmp_path, slice(None))
    store = open_store(only(tmp_path, "store.json").parent)
    np.testing.assert_array_equal(store.catalogue["object_id"], survey.photo["objID"])
    np.testing.assert_allclose(store.catalogue["ebv"], 0.05, rtol=1e-4)
    np.testing.assert_allclose(store.catalogue["dered_petro_r"], 17 - 0.05 * EXTINCTION_PER_EBV["r"])
    assert [line["status"] for line in manifest(tmp_path)] == ["done"] * 12
    assert "SELECT" in (store.folder / "store.json").read_text()
    assert not list(store.folder.rglob("frame-*"))  # removed once cut
    assert len(archive.paths) == len(set(archive.paths)) == 20


def test_faults_are_recovered_or_named_and_a_second_run_fetches_what_is_missing(
    survey: Survey, catalogue: SkyServer, tmp_path: Path
) -> None:
    size = len(survey.files[name_of(1, "g")])
    faults = {
        name_of(0, "u"): [Fault(status=500), Fault(status=503)],
        name_of(0, "g"): [Fault(hang=True)],
        name_of(1, "u"): [Fault(truncate_to=size // 2)],
        name_of(1, "g"): [Fault(drop_after=size // 2)],
        name_of(2, "r"): [Fault(corrupt=True)],
        name_of(2, "z"): [Fault(corrupt=True)] * 9,
        name_of(3, "i"): [Fault(status=404)],
    }
    with FrameServer(survey.files, faults) as archive:
        command = words(catalogue, archive, tmp_path)
        outcome = run_well(*command)
        assert "6 of 12 galaxies were not cut (manifest.csv): 3 x band z:" in outcome.out
        lines = manifest(tmp_path)
        assert [line["status"] for line in lines] == ["done"] * 6 + ["frame"] * 6
        assert "HTTP 404" in lines[-1]["reason"]
        assert name_of(2, "z") in lines[6]["reason"]
        assert archive.asked(name_of(1, "g"))[1].headers["Range"] == f"bytes={size // 2}-"
        check_cutouts(tmp_path, slice(0, 6))
        # Still no luck with one of them: the other is fetched, and nothing else.
        archive.faults = {name_of(2, "z"): iter([Fault(corrupt=True)] * 9)}
        archive.requests.clear()
        run_well(*command)
        assert {request.name for request in archive.requests} == {name_of(2, "z"), name_of(3, "i")}
        check_cutouts(tmp_path, slice(9, 12))
        archive.faults = {}
        run_well(*command)
        check_cutouts(tmp_path, slice(None))
        archive.requests.clear()
        outcome = run_well(*command)  # nothing is missing any more
        assert archive.requests == []
        assert "12 galaxies" in outcome.out
    assert [line["status"] for line in manifest(tmp_path)] == ["done"] * 12


def test_server_that_goes_away_and_comes_back(survey: Survey, catalogue: SkyServer, tmp_path: Path) -> None:
    with FrameServer(survey.files) as archive:
        command = words(catalogue, archive, tmp_path)

        def interrupt() -> None:
            while len(archive.requests) < 6:
                time.sleep(0.005)
            archive.stop()
            time.sleep(0.3)
            archive.start()

        thread = threading.Thread(target=interrupt)
        thread.start()
        run_well(*command, "archive.retries=50")
        thread.join()
    check_cutouts(tmp_path, slice(None))


def test_server_that_stays_away_stops_the_run_which_goes_on_later(
    survey: Survey, catalogue: SkyServer, tmp_path: Path
) -> None:
    with FrameServer(survey.files, {name_of(2, "g"): [Fault(hang=True)] * 9}) as archive:
        command = words(catalogue, archive, tmp_path)
        archive.stop()
        message = run(*command, "archive.patience=0.2").message
        assert "cannot be reached" in message
        assert "type the same command to go on" in message
        archive.start()
        archive.faults = {}
        run_well(*command)
    check_cutouts(tmp_path, slice(None))
    assert len(catalogue.queries) <= 2  # the catalogue was kept


@pytest.mark.slow  # a process of its own, and two runs
def test_killed_run_goes_on_to_the_same_store(survey: Survey, catalogue: SkyServer, tmp_path: Path) -> None:
    hang = {name_of(3, "r"): [Fault(hang=True)] * 99}
    with FrameServer(survey.files, hang) as archive:
        command = words(catalogue, archive, tmp_path / "killed")
        patient = [w for w in command if not w.startswith("archive.timeout")]
        kill_when("manifest.csv", tmp_path, *patient, "archive.timeout=60")
        assert not list(tmp_path.rglob("store.json"))
        archive.faults = {}
        run_well(*command)
        run_well(*words(catalogue, archive, tmp_path / "whole"))
    for name in ("inputs.npy", "catalogue.fits", "manifest.csv"):
        killed, whole = (only(tmp_path / f, name).read_bytes() for f in ("killed", "whole"))
        assert killed == whole, name


def test_frames_on_disk_are_cut_by_the_same_code(
    survey: Survey, catalogue: SkyServer, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    frames.mkdir()
    for name, content in survey.files.items():
        (frames / name).write_bytes(content)
    with FrameServer(survey.files) as archive:
        run_well(*words(catalogue, archive, tmp_path / "archive"))
    own = Table({"RA": survey.photo["ra"], "dec": survey.photo["dec"]})
    own.add_row((10.0, -80.0))
    own.write(tmp_path / "positions.csv")
    disk = [
        "stage=prepare",
        "data=sdss",
        f"data.frames={frames}",
        f"data.positions={tmp_path / 'positions.csv'}",
        "data.columns.ra=RA",
        "data.labelled=false",
        "data.dtype=float32",
        f"survey.pixels={PIXELS}",
        *places(tmp_path / "disk"),
    ]
    outcome = run_well(*disk)
    assert "13 galaxies (for prediction, 1 flagged)" in outcome.out
    fetched, cut = (
        open_store(only(tmp_path / name / "data", "store.json").parent) for name in ("archive", "disk")
    )
    np.testing.assert_array_equal(cut.inputs[:12], fetched.inputs)
    assert cut.flags.tolist() == [""] * 12 + ["frame"]
    assert manifest(tmp_path / "disk")[12]["reason"] == "on none of the frames"


def test_what_is_missing_from_the_table_is_named(survey: Survey, tmp_path: Path) -> None:
    survey.photo["ra", "dec"].write(tmp_path / "positions.csv")
    command = [
        "stage=prepare",
        "data=sdss",
        f"data.positions={tmp_path / 'positions.csv'}",
        *places(tmp_path),
    ]
    assert "no column 'spec_z'" in run(*command).message
    message = run(*command, "data.labelled=false").message
    assert "no column run, camcol, field" in message
    assert "data.frames" in message
    assert "no column 'raa'" in run(*command, "data.columns.ra=raa").message
    command[2] = f"data.frames={tmp_path}"
    assert "needs data.positions" in run(*command).message


def on_disk(survey: Survey, folder: Path, table: Table) -> list[str]:
    """Put the frames into a folder of the archive's layout, and say how to cut the galaxies of a table."""
    frames = folder / "frames" / "1000"
    frames.mkdir(parents=True)
    for name, content in survey.files.items():
        (frames / name).write_bytes(content)
    table.write(folder / "positions.csv")
    return [
        "stage=prepare",
        "data=sdss",
        f"data.frames={folder / 'frames'}",
        f"data.positions={folder / 'positions.csv'}",
        "data.labelled=false",
        "data.dtype=float32",
        f"survey.pixels={PIXELS}",
        *places(folder),
    ]


def test_a_frame_that_is_mended_on_disk_is_used_by_the_same_command(survey: Survey, tmp_path: Path) -> None:
    command = on_disk(survey, tmp_path, survey.photo["ra", "dec"])
    broken = [tmp_path / "frames" / "1000" / name_of(field, "i") for field in range(4)]
    for path in broken:
        path.write_bytes(b"no frame")
    assert "none of 12 galaxies could be cut" in run(*command).message
    broken[0].write_bytes(survey.files[broken[0].name])
    run_well(*command)
    check_cutouts(tmp_path, slice(0, 3))
    assert [line["status"] for line in manifest(tmp_path)] == ["done"] * 3 + ["frame"] * 9
    for path in broken:
        path.write_bytes(survey.files[path.name])
    run_well(*command)
    check_cutouts(tmp_path, slice(None))


def test_a_store_can_be_used_though_another_try_fails(
    survey: Survey, catalogue: SkyServer, tmp_path: Path
) -> None:
    with FrameServer(survey.files, {name_of(3, "r"): [Fault(status=404)]}) as archive:
        command = [*words(catalogue, archive, tmp_path), "archive.patience=0.2"]
        run_well(*command)
        before = manifest(tmp_path)
        archive.stop()
        outcome = run_well(*command)
        assert "cannot be reached" in outcome.out
        assert "12 galaxies" in outcome.out
        assert manifest(tmp_path) == before
        check_cutouts(tmp_path, slice(0, 9))
        archive.start()
        run_well(*command)
    check_cutouts(tmp_path, slice(None))


def test_pixel_positions_may_be_unknown_but_must_be_numbers(survey: Survey, tmp_path: Path) -> None:
    table = survey.photo["ra", "dec"]
    table["rowc"] = np.ma.masked_array(survey.photo["rowc_r"], np.arange(12) % 2 == 0)
    table["colc"] = survey.photo["colc_r"]
    command = on_disk(survey, tmp_path, table)
    run_well(*command)
    check_cutouts(tmp_path, slice(None))
    table.replace_column("rowc", ["left"] * 12)
    table.write(tmp_path / "positions.csv", overwrite=True)
    assert "column rowc holds text where numbers are needed" in run(*command).message


def test_galaxies_whose_field_the_table_does_not_name_are_flagged(survey: Survey, tmp_path: Path) -> None:
    table = survey.photo["ra", "dec", "run", "camcol", "field"]
    table["run"] = np.ma.masked_array(table["run"], np.arange(12) == 4)
    table.write(tmp_path / "positions.csv")
    with FrameServer(survey.files) as archive:
        command = [
            "stage=prepare",
            "data=sdss",
            f"data.positions={tmp_path / 'positions.csv'}",
            "data.labelled=false",
            f"archive.frames_url={archive.address}",
            f"survey.pixels={PIXELS}",
            *places(tmp_path),
        ]
        run_well(*command)
    assert len(archive.requests) == 20
    lines = manifest(tmp_path)
    assert [line["status"] for line in lines] == ["done"] * 4 + ["frame"] + ["done"] * 7
    assert "run, camcol or field is not in the table" in lines[4]["reason"]


def test_damage_to_an_unfinished_store_is_noticed(
    survey: Survey, catalogue: SkyServer, tmp_path: Path
) -> None:
    with FrameServer(survey.files, {name_of(3, "r"): [Fault(status=404)]}) as archive:
        command = words(catalogue, archive, tmp_path)
        run_well(*command)
        folder = only(tmp_path, "store.json").parent
        (folder / "manifest.csv").write_bytes(b"row,object_id\n1,2,3\n")
        message = run(*command).message
        assert "manifest.csv: damaged" in message
        partial = folder.with_name(f"{folder.name}.partial")
        (partial / "inputs.npy").unlink()
        run_well(*command)  # all are cut again: nothing says done of a cutout that is not there
    check_cutouts(tmp_path, slice(None))
