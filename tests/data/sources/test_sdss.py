"""`data=sdss` from its settings on: tables of positions, the query, and one run through the command line."""

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Column
from command import only, places, run, run_well
from faulty_server import FrameServer, SkyServer
from synthetic_frames import PIXELS, Survey, write_survey

from photoz_lit.data.dust import EXTINCTION_PER_EBV
from photoz_lit.data.sdss import fetch, query
from photoz_lit.data.store import open_store


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    return write_survey(tmp_path_factory.mktemp("frames"))


def words(survey: Survey, folder: Path, columns: list[str]) -> list[str]:
    survey.photo[columns].write(folder / "positions.csv", overwrite=True)
    return [
        "stage=prepare",
        "data=sdss",
        f"data.path={folder / 'positions.csv'}",
        "data.labelled=false",
        f"survey.pixels={PIXELS}",
        *places(folder),
    ]


def frames_on_disk(survey: Survey, folder: Path) -> str:
    (folder / "frames").mkdir()
    for name, content in survey.files.items():
        (folder / "frames" / name).write_bytes(content)
    return f"data.images={folder / 'frames'}"


def test_from_query_to_cutouts(survey: Survey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SkyServer(survey.photo, survey.spec) as catalogue, FrameServer(survey.files) as archive:
        monkeypatch.setattr(query, "CATALOGUE", f"{catalogue.address}/dr17")
        monkeypatch.setattr(fetch, "FRAMES", f"{archive.address}/frames")
        outcome = run_well(
            "stage=prepare",
            "data=sdss",
            f"survey.pixels={PIXELS}",
            *places(tmp_path),
        )
        assert len(archive.paths) == len(set(archive.paths)) == 20
    assert "12 galaxies; cutouts take" in outcome.out
    assert "E(B-V)" not in outcome.out
    store = open_store(only(tmp_path, "store.json").parent)
    assert (store.flags == "").all()
    np.testing.assert_array_equal(store.catalogue["object_id"], survey.photo["objID"])
    np.testing.assert_allclose(store.catalogue["ebv"], 0.05, rtol=1e-4)
    np.testing.assert_allclose(store.catalogue["dered_petro_r"], 17 - 0.05 * EXTINCTION_PER_EBV["r"])
    assert "SELECT" in (store.folder / "store.json").read_text()


def test_what_is_missing_from_the_table_is_named(survey: Survey, tmp_path: Path) -> None:
    command = words(survey, tmp_path, ["ra", "dec"])
    message = run(*command).message
    assert "no column run, camcol, field" in message
    assert "data.images" in message
    assert "no column 'raa'" in run(*command, "data.columns.ra=raa").message
    assert "no column 'spec_z'" in run(*[w for w in command if "labelled" not in w]).message
    command[2] = f"data.images={tmp_path}"
    assert "needs data.path" in run(*command).message


@pytest.mark.slow
def test_columns_that_are_not_the_survey_s_stop_nothing_where_they_are_not_used(
    survey: Survey, tmp_path: Path
) -> None:
    table = survey.photo.copy()
    table["field"] = Column(["COSMOS"] * 12)
    table["run"], table["camcol"] = Column([0.5] * 12), Column([np.nan] * 12)
    command = words(
        Survey(table, survey.spec, survey.files), tmp_path, ["ra", "dec", "field", "run", "camcol"]
    )
    message = run(*command).message  # for the archive they are needed
    assert "column run holds 0.5: whole numbers are needed" in message
    run_well(*command, frames_on_disk(survey, tmp_path))


def test_pixel_positions_may_be_unknown_but_must_be_numbers(survey: Survey, tmp_path: Path) -> None:
    table = survey.photo.copy()
    table["rowc"] = Column(["left"] * 12)
    command = words(Survey(table, survey.spec, survey.files), tmp_path, ["ra", "dec", "rowc"])
    message = run(*command, frames_on_disk(survey, tmp_path)).message
    assert "column rowc holds text where numbers are needed" in message


@pytest.mark.parametrize("ebv", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_frames_without_ebv_are_marked(survey: Survey, tmp_path: Path, ebv: bool) -> None:
    table = survey.photo.copy()
    table["ebv"] = 0.05
    command = words(
        Survey(table, survey.spec, survey.files), tmp_path, ["ra", "dec", *(["ebv"] if ebv else [])]
    )
    run_well(*command, frames_on_disk(survey, tmp_path))
    store = open_store(only(tmp_path, "store.json").parent)
    known = store.catalogue["ebv_known"] if "ebv_known" in store.catalogue.colnames else np.ones(12, bool)
    assert (known == ebv).all()
