"""The catalogue from a SkyServer on loopback: the right galaxies, every page, exact identifiers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from faulty_server import Fault, SkyServer, error_page

from photoz_lit.data.dust import EXTINCTION_PER_EBV
from photoz_lit.data.sdss import fetch
from photoz_lit.data.sdss import query as module
from photoz_lit.data.sdss.query import BANDS, Selection, query, sql, standard_columns
from photoz_lit.errors import DataError

N = 40
FIRST_OBJECT, FIRST_SPECTRUM = 1237668367995797891, 299489677444933632  # of real size: no float holds them
GALAXIES = Selection(z_max=0.4, r_max=17.8)


@pytest.fixture
def survey() -> tuple[Table, Table]:
    """Galaxies that all pass, in the order of their spectra; tests spoil some."""
    rng = np.random.default_rng(5)
    ebv = rng.uniform(0.02, 0.2, N)
    photo = Table({"objID": FIRST_OBJECT + 7 * rng.permutation(N), "mode": np.ones(N, int)})
    for name, value in {"run": 3918, "rerun": 301, "camcol": 3}.items():
        photo[name] = np.full(N, value)
    photo["field"] = 213 + np.arange(N) // 10
    photo["rowc_r"], photo["colc_r"] = rng.uniform(0, 1489, N), rng.uniform(0, 2048, N)
    photo["ra"], photo["dec"] = rng.uniform(0, 360, N), rng.uniform(-10, 70, N)
    for band in BANDS:
        photo[f"extinction_{band}"] = EXTINCTION_PER_EBV[band] * ebv
        for quantity in ("petroMag", "modelMag"):
            photo[f"{quantity}_{band}"] = rng.uniform(14, 17, N) + photo[f"extinction_{band}"]
            photo[f"{quantity}Err_{band}"] = rng.uniform(0.01, 0.05, N)
    spec = Table({"specObjID": FIRST_SPECTRUM + 2048 * np.arange(N), "bestObjID": photo["objID"]})
    spec["class"] = np.full(N, "GALAXY")
    spec["zWarning"], spec["sciencePrimary"] = np.zeros(N, int), np.ones(N, int)
    spec["z"], spec["zErr"] = rng.uniform(0.02, 0.3, N), np.full(N, 1e-5)
    return photo, spec


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BACKOFF": 0.01, "RETRIES": 2}.items():
        monkeypatch.setattr(fetch, name, value)
    for name, value in {"TIMEOUT": 0.3, "PAUSE": 0.0, "PAGE_ROWS": 15}.items():
        monkeypatch.setattr(module, name, value)


def at(server: SkyServer) -> str:
    return f"{server.address}/dr17"


def numbers(table: Table) -> list[int]:
    """Return the galaxies' places in the survey."""
    return [(int(i) - FIRST_SPECTRUM) // 2048 for i in table["specObjID"]]


def test_pages_join_to_the_whole_catalogue_with_exact_identifiers(
    tmp_path: Path, survey: tuple[Table, Table]
) -> None:
    photo, spec = survey
    with SkyServer(photo, spec) as server:
        table = query(GALAXIES, tmp_path / "pages", at(server))
    assert (table["specObjID"] == spec["specObjID"].astype(np.uint64)).all()
    assert (table["objID"] == photo["objID"]).all()
    assert table["objID"].dtype == np.int64
    for ours, theirs in {
        "rowc": "rowc_r",
        "colc": "colc_r",
        "ra": "ra",
        "modelMagErr_u": "modelMagErr_u",
    }.items():
        assert (table[ours] == photo[theirs]).all()
    assert (table["z"] == spec["z"]).all()
    assert [q.split(" ")[2] for q in server.queries[:4]] == ["15"] * 4  # the fourth page is empty: the end
    assert server.queries[0] == " ".join(sql(GALAXIES, rows=15).split())


def test_only_good_galaxies_are_taken(tmp_path: Path, survey: tuple[Table, Table]) -> None:
    photo, spec = survey
    spec["class"][0] = "STAR"
    spec["zWarning"][1] = 4
    spec["sciencePrimary"][2] = 0
    photo["mode"][3] = 2
    spec["z"][4] = 0.41
    spec["z"][5] = -0.001
    photo["petroMag_r"][6] = 17.81 + photo["extinction_r"][6]
    photo["petroMag_r"][7] = 17.79 + photo["extinction_r"][7]  # fainter than the limit before dereddening
    photo["petroMag_r"][8] = -9999.0
    with SkyServer(photo, spec) as server:
        table = query(GALAXIES, tmp_path, at(server))
    assert numbers(table) == [7, *range(9, N)]


@pytest.mark.parametrize(
    ("changes", "inside"),
    [
        ({"region": (350.0, 10.0, -5.0, 5.0)}, [0, 2, 3]),
        ({"region": (5.0, 180.0, -5.0, 5.0)}, [1, 2]),
        ({"runs": (756, 94)}, [5, 6]),
        ({"z_min": 0.35}, [7]),
    ],
    ids=["through 0", "plain", "runs", "z"],
)
def test_restrictions(
    tmp_path: Path, survey: tuple[Table, Table], changes: dict[str, Any], inside: list[int]
) -> None:
    photo, spec = survey
    photo["ra"][:], photo["dec"][:] = 200.0, 30.0
    photo["ra"][:5], photo["dec"][:5] = [0.5, 90.0, 9.0, 355.0, 4.0], [0.0, 0.0, 0.0, 0.0, 6.0]
    photo["run"][5:7] = [94, 756]
    spec["z"][7] = 0.38
    with SkyServer(photo, spec) as server:
        assert numbers(query(Selection(**changes), tmp_path, at(server))) == inside


def test_limit_takes_the_first_and_asks_for_no_more(tmp_path: Path, survey: tuple[Table, Table]) -> None:
    with SkyServer(*survey) as server:
        table = query(Selection(limit=25), tmp_path, at(server))
    assert numbers(table) == list(range(25))
    assert [q.split(" ")[2] for q in server.queries] == ["15", "10"]


def test_a_server_that_cuts_answers_short_loses_no_galaxy(
    tmp_path: Path, survey: tuple[Table, Table]
) -> None:
    with SkyServer(*survey, most_rows=9) as server:
        assert numbers(query(GALAXIES, tmp_path, at(server))) == list(range(N))


def test_an_interrupted_query_goes_on(
    tmp_path: Path, survey: tuple[Table, Table], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "RETRIES", 0)
    faults = [None, None, Fault(status=500, content=error_page("disk of the server is full"))]
    with SkyServer(*survey, faults) as server:
        with pytest.raises(DataError, match=r"HTTP 500.*disk of the server is full"):
            query(GALAXIES, tmp_path, at(server))
        assert sorted(p.name for p in tmp_path.iterdir()) == ["page-0000.csv", "page-0001.csv"]
        server.queries.clear()
        assert numbers(query(GALAXIES, tmp_path, at(server))) == list(range(N))
        assert len(server.queries) == 2
        server.queries.clear()
        assert numbers(query(GALAXIES, tmp_path, at(server))) == list(range(N))
        assert server.queries == []


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503, content=b"<html><body><h1>503 Service Unavailable</h1></body></html>"),
        Fault(content=error_page("")),
        Fault(content=b""),
        Fault(content=b"#Table1\nobjID,ra\n1,2\n"),
        Fault(hang=True),
        Fault(drop_after=200),
    ],
    ids=["503", "page with status 200", "empty", "other columns", "silence", "dropped"],
)
def test_passing_faults_are_overcome(tmp_path: Path, survey: tuple[Table, Table], fault: Fault) -> None:
    with SkyServer(*survey, [None, fault]) as server:
        table = query(GALAXIES, tmp_path, at(server))
    assert numbers(table) == list(range(N))


@pytest.mark.parametrize(
    ("fault", "reason", "queries"),
    [
        (Fault(content=error_page("Invalid column name &#39;zz&#39;.")), "Invalid column name 'zz'", 3),
        (
            Fault(status=400, content=b"<b>query string</b> too long"),
            "HTTP 400 Bad Request: 'query string too",
            1,
        ),
        (Fault(hang=True), "no answer within 0.3 s", 3),
        (Fault(content=b"#Table1\n" + b",".join([b"a"] * 3) + b"\n1,2\n"), "not the expected table", 3),
    ],
    ids=["SQL", "400", "silence", "ragged"],
)
def test_lasting_faults_are_told_in_the_servers_words(
    tmp_path: Path, survey: tuple[Table, Table], fault: Fault, reason: str, queries: int
) -> None:
    with SkyServer(*survey, [fault] * 3) as server:
        with pytest.raises(DataError) as error:
            query(GALAXIES, tmp_path, at(server))
        assert len(server.queries) == queries
    for part in (reason, server.address, "SELECT"):
        assert part in str(error.value)
    assert "<" not in str(error.value).partition("The query was")[0]


def test_unreachable_server(tmp_path: Path, survey: tuple[Table, Table]) -> None:
    with SkyServer(*survey) as server:
        server.stop()
        with pytest.raises(DataError, match="cannot be reached"):
            query(GALAXIES, tmp_path, at(server))


def test_no_galaxy_at_all(tmp_path: Path, survey: tuple[Table, Table]) -> None:
    with (
        SkyServer(*survey) as server,
        pytest.raises(DataError, match=r"no galaxy with z in 0\.39-0\.4"),
    ):
        query(Selection(z_min=0.39), tmp_path, at(server))


@pytest.mark.parametrize("content", [b"", b"#Table1\nobjID\n1\n", None], ids=["empty", "cut", "out of order"])
def test_a_spoilt_page_is_named(tmp_path: Path, survey: tuple[Table, Table], content: bytes | None) -> None:
    with SkyServer(*survey) as server:
        query(GALAXIES, tmp_path, at(server))
        page = tmp_path / "page-0001.csv"
        page.write_bytes(content if content is not None else (tmp_path / "page-0000.csv").read_bytes())
        with pytest.raises(DataError, match=r"page-0001.csv: .*"):
            query(GALAXIES, tmp_path, at(server))


def test_case_of_names_and_empty_magnitudes(tmp_path: Path, survey: tuple[Table, Table]) -> None:
    with SkyServer(*survey) as server:
        query(Selection(limit=1), tmp_path, at(server))
    page = tmp_path / "page-0000.csv"
    first, header, row = page.read_text().splitlines()
    values = dict(zip(header.split(","), row.split(","), strict=True)) | {"modelMag_u": "null"}
    page.write_text(f"{first}\r\n{header.lower()}\r\n{','.join(values.values())}\r\n", newline="")
    table = query(Selection(limit=1), tmp_path, at(server))
    assert str(table["objID"][0]) == values["objID"]
    assert np.isnan(table["modelMag_u"][0])
    page.write_text("\n".join([first, header, row.replace(values["run"], "null")]) + "\n")
    with pytest.raises(DataError, match="column run has empty cells"):
        query(Selection(limit=1), tmp_path, at(server))


def test_identifiers_beyond_63_bits_stay_exact(tmp_path: Path, survey: tuple[Table, Table]) -> None:
    with SkyServer(*survey) as server:
        query(Selection(limit=1), tmp_path, at(server))
    page = tmp_path / "page-0000.csv"
    page.write_bytes(page.read_bytes().replace(b"299489677444933632", b"14126000000000000001"))
    table = query(Selection(limit=1), tmp_path, at(server))
    assert int(table["specObjID"][0]) == 14126000000000000001
    assert "s.specObjID > 14126000000000000001" in sql(GALAXIES, after=14126000000000000001)


def test_too_many_runs_for_one_request() -> None:
    assert "p.run IN (1000,1001" in sql(Selection(runs=tuple(range(1000, 1100))))
    with pytest.raises(DataError, match=r"name fewer data\.runs"):
        sql(Selection(runs=tuple(range(1000, 1300))))


@pytest.fixture
def answer(tmp_path: Path, survey: tuple[Table, Table]) -> Table:
    photo, spec = survey
    photo["modelMag_u"][3], photo["modelMagErr_u"][3] = -9999.0, -9999.0
    with SkyServer(photo, spec) as server:
        return query(GALAXIES, tmp_path / "answer", at(server))


def test_standard_columns(answer: Table) -> None:
    table = standard_columns(answer)
    assert table.colnames[:6] == ["object_id", "spec_z", "dered_petro_r", "ebv", "ra", "dec"]
    assert (table["object_id"] == answer["objID"]).all()
    np.testing.assert_allclose(table["dered_petro_r"], answer["petroMag_r"] - answer["extinction_r"])
    for band in BANDS:
        np.testing.assert_allclose(table["ebv"], answer[f"extinction_{band}"] / EXTINCTION_PER_EBV[band])
    np.testing.assert_allclose(table["mag_g"], answer["modelMag_g"] - answer["extinction_g"])
    assert np.flatnonzero(np.isnan(table["mag_u"])).tolist() == [3]
    assert np.flatnonzero(np.isnan(table["mag_err_u"])).tolist() == [3]
    for name in ("run", "camcol", "field", "rowc", "colc", "mag_z", "mag_err_z"):
        assert name in table.colnames


def test_extinctions_of_other_coefficients_are_not_taken_for_the_survey_s(answer: Table) -> None:
    for band, coefficient in {"g": 3.303, "r": 2.285}.items():  # Schlafly & Finkbeiner 2011
        answer[f"extinction_{band}"] *= coefficient / EXTINCTION_PER_EBV[band]
    with pytest.raises(DataError, match=r"is 1\.446, not 1\.379"):
        standard_columns(answer)


def test_real_catalogue_has_the_coefficients(real_data: Path) -> None:
    with fits.open(real_data / "sdss_photoobj" / "photoObj-003900-6-0269.fits") as file:
        extinction = np.asarray(file[1].data["EXTINCTION"], dtype=np.float64)
    per_ebv = np.array([EXTINCTION_PER_EBV[band] for band in BANDS])
    np.testing.assert_allclose(
        extinction / extinction[:, 2:3], np.tile(per_ebv / per_ebv[2], (len(extinction), 1)), rtol=1e-4
    )
