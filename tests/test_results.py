import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from command import probabilities

from photoz_lit import metrics
from photoz_lit.correction.finishing.response import Response
from photoz_lit.correction.prior import Priors
from photoz_lit.errors import DataError
from photoz_lit.files import read_json, write_json
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.results import Results, read_pdf, write_results
from photoz_lit.target import Target

GRID = RedshiftGrid(0.0, 0.4, 8, 2, 2)
PDF = np.random.default_rng(0).dirichlet(np.ones(12), 30).astype(np.float32)
PRIORS = Priors(
    *np.random.default_rng(1).dirichlet(np.ones(36), 2).reshape(2, 3, 12), MagnitudeSlices(14, 1, 3)
)

LIMITS, LINEAR = np.array([[14.0, 17.0], [-4.0, -1.0]]), np.zeros((2, 0))
RESPONSES = [  # the fainter, the weaker
    Response(np.array([[0, *5 * [0.02]], [slope, *5 * [0.6]]]), LIMITS, LINEAR, 1.2, 1.0, GRID)
    for slope in (-0.4, -0.3)
]


def galaxies(text: bool = False) -> Table:
    ids = [f"g{i}" for i in range(30)] if text else list(range(30))
    return Table(
        {
            "object_id": ids,
            "spec_z": np.linspace(0, 0.4, 30),
            "dered_petro_r": np.linspace(14, 17, 30),
            "ebv": np.zeros(30),
        }
    )


def chunks(size: int = 7) -> Iterator[np.ndarray]:
    return (PDF[i : i + size] for i in range(0, 30, size))


@pytest.mark.parametrize("text", [False, True])
def test_table_holds_the_estimates_of_every_galaxy(text: bool, tmp_path: Path) -> None:
    written = write_results(tmp_path, galaxies(text), chunks(), GRID, PRIORS)
    table = Table.read(tmp_path / "photo_z.fits", character_as_bytes=False)
    assert table.colnames == [
        "object_id",
        "spec_z",
        "dered_petro_r",
        "ebv",
        "flag",
        "photo_z",
        "photo_z_mode",
        "photo_z_mean",
        "photo_z_median",
        "photo_z_lower",
        "photo_z_upper",
        "pit",
        "pdf_outside",
        "distance",
    ]
    assert list(table["object_id"]) == list(galaxies(text)["object_id"])
    pdf = PDF.astype(float)
    np.testing.assert_allclose(table["photo_z_mode"], metrics.mode(pdf, GRID))
    np.testing.assert_allclose(table["photo_z_mean"], metrics.mean(pdf, GRID))
    np.testing.assert_allclose(table["pit"], metrics.pit(pdf, galaxies()["spec_z"], GRID))
    assert (np.asarray(table["photo_z_lower"]) <= table["photo_z_median"]).all()
    assert (np.asarray(table["photo_z_upper"]) >= table["photo_z_median"]).all()
    np.testing.assert_array_equal(written["photo_z_mean"], table["photo_z_mean"])
    assert not list(tmp_path.glob("*partial*"))


def test_pdf_file_holds_probabilities_edges_and_priors(tmp_path: Path) -> None:
    write_results(tmp_path, galaxies(True), chunks(), GRID, PRIORS)
    with h5py.File(tmp_path / "pdf.hdf5") as file:
        np.testing.assert_allclose(probabilities(file).sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(file["meta/bins"][0], GRID.edges)
        assert [i.decode() for i in file["ancil/object_id"][:3]] == ["g0", "g1", "g2"]
    for name, values in Priors.read(tmp_path).arrays().items():
        np.testing.assert_array_equal(values, PRIORS.arrays()[name])
    pieces = list(read_pdf(tmp_path, chunk=11))
    assert [len(piece) for piece in pieces] == [11, 11, 8]
    np.testing.assert_allclose(np.concatenate(pieces), PDF, rtol=1e-7)


@pytest.mark.parametrize("estimate", ["mode", "mean", "median"])
@pytest.mark.parametrize("beyond", [0, 2])
def test_interval_is_that_of_the_survey_and_holds_the_estimate(
    beyond: int, estimate: str, tmp_path: Path
) -> None:
    grid, pdf = RedshiftGrid(0.0, 0.4, 12 - 2 * beyond, beyond, beyond), PDF.astype(float)
    table = write_results(tmp_path, galaxies(), chunks(), grid, PRIORS, estimate)
    lower, photo_z, upper = (np.asarray(table[f"photo_z{kind}"]) for kind in ("_lower", "", "_upper"))
    np.testing.assert_array_equal(photo_z, table[f"photo_z_{estimate}"])
    assert ((lower <= photo_z) & (photo_z <= upper)).all()
    in_survey = (photo_z >= 0) & (photo_z <= 0.4)  # a mode need not be
    assert ((lower >= 0) & (upper <= 0.4))[in_survey].all()
    low, high = metrics.interval(pdf, grid).T
    kept = (low >= 0) & (high <= 0.4) & (low <= photo_z) & (photo_z <= high)
    assert 0 < kept.sum() <= len(kept) - beyond
    np.testing.assert_allclose(np.stack([lower, upper])[:, kept], np.stack([low, high])[:, kept], atol=1e-6)
    assert ("pdf_outside" in table.colnames) == (beyond > 0)
    if beyond:
        np.testing.assert_allclose(table["pdf_outside"], 1 - pdf[:, 2:10].sum(axis=1), atol=1e-6)


@pytest.mark.parametrize("with_r", [True, False])
def test_estimate_for_galaxies_of_one_redshift_stands_where_all_members_have_one(
    with_r: bool, tmp_path: Path
) -> None:
    table = galaxies()
    table.keep_columns([name for name in table.colnames if with_r or name != "dered_petro_r"])
    r = galaxies()["dered_petro_r"] if with_r else None
    found = write_results(tmp_path, table, chunks(), GRID, PRIORS, responses=RESPONSES)
    expected = np.mean([response.individual(PDF, r) for response in RESPONSES], axis=0)
    holds = galaxies()["dered_petro_r"] < 16.25 if with_r else np.ones(30, dtype=bool)
    for name, values in zip(("photo_z_individual", "photo_z_individual_err"), expected, strict=True):
        np.testing.assert_allclose(found[name], values, rtol=1e-6)
        np.testing.assert_array_equal(np.isfinite(found[name]), holds)


def test_without_spec_z_there_is_no_pit(tmp_path: Path) -> None:
    unknown = galaxies()
    unknown.remove_column("spec_z")
    table = write_results(tmp_path, unknown, chunks(), GRID, PRIORS)
    assert not {"spec_z", "pit"} & set(table.colnames)


def test_pit_is_left_out_where_the_truth_is_not_known(tmp_path: Path) -> None:
    some = galaxies()
    some["spec_z"][3:8] = np.nan
    table = write_results(tmp_path, some, chunks(), GRID, PRIORS)
    np.testing.assert_array_equal(np.isnan(table["pit"]), np.isnan(some["spec_z"]))


def test_header_tells_units_meanings_and_numbers(tmp_path: Path) -> None:
    results = Results(tmp_path, galaxies(), GRID, PRIORS, "median", facts={"N_VIEWS": (8, "views")})
    results.append(PDF, np.full(30, "good"))
    results.finish()
    table = Table.read(tmp_path / "photo_z.fits")
    assert table["dered_petro_r"].unit == table["ebv"].unit == "mag"
    header = fits.getheader(tmp_path / "photo_z.fits", 1)
    assert all(header[f"TCOMM{i}"] for i in range(1, len(table.colnames) + 1))
    meta = {k: table.meta[k] for k in ("Z_MIN", "Z_MAX", "N_BINS", "ESTIMATE", "N_VIEWS")}
    assert meta == {"Z_MIN": 0.0, "Z_MAX": 0.4, "N_BINS": 8, "ESTIMATE": "median", "N_VIEWS": 8}


@pytest.mark.parametrize(("unit", "kept"), [("mag", "mag"), ("log M_sun", None), ("", None)])
def test_unit_of_the_target_is_one_or_stands_in_words(unit: str, kept: str | None, tmp_path: Path) -> None:
    write_results(tmp_path, galaxies(), chunks(), GRID, PRIORS, target=Target(unit=unit))
    table = Table.read(tmp_path / "photo_z.fits")
    assert table["photo_z_mean"].unit == table["spec_z"].unit == kept
    comment = fits.getheader(tmp_path / "photo_z.fits", 1)[f"TCOMM{table.colnames.index('photo_z_mean') + 1}"]
    assert comment == "mean of p(z)" + (", log M_sun" if unit == "log M_sun" else "")


def test_ids_of_any_letters(tmp_path: Path) -> None:
    table = galaxies()
    table["object_id"] = [f"Андромеда {i}" for i in range(30)]
    write_results(tmp_path, table, chunks(), GRID, PRIORS)
    assert list(Table.read(tmp_path / "photo_z.fits")["object_id"]) == list(table["object_id"])
    with h5py.File(tmp_path / "pdf.hdf5") as file:
        assert file["ancil/object_id"][29].decode() == "Андромеда 29"


def test_results_do_not_depend_on_the_chunks(tmp_path: Path) -> None:
    tables = []
    for size in (1, 30):
        (tmp_path / str(size)).mkdir()
        tables.append(write_results(tmp_path / str(size), galaxies(), chunks(size), GRID, PRIORS))
    for name in set(tables[0].colnames) - {"flag"}:
        np.testing.assert_allclose(tables[0][name], tables[1][name], rtol=1e-12)


def test_interrupted_write_leaves_the_finished_files_alone(tmp_path: Path) -> None:
    write_results(tmp_path, galaxies(), chunks(), GRID, PRIORS)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def half() -> Iterator[np.ndarray]:
        yield PDF[:7]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_results(tmp_path, galaxies(), half(), GRID, PRIORS)
    with pytest.raises(DataError, match="7 galaxies were given for 30"):
        write_results(tmp_path, galaxies(), iter([PDF[:7]]), GRID, PRIORS)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_json_of_numbers_that_are_not_finite(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": float("nan"), "b": 1.5, "c": "d", "e": float("inf")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": None, "b": 1.5, "c": "d", "e": None}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", ["", '{"a": 1', "[1]"])
def test_truncated_json_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=r"a\.json.*delete its folder and run again"):
        read_json(tmp_path / "a.json")


FLAGS = np.array(["good", "far", "r_range", "edge", "repaired", "ebv"] * 5)
USABLE = FLAGS != "edge"


def filled(folder: Path, table: Table, size: int, rows: int = 30) -> Results:
    """Write estimates in chunks of a size until so many rows are there."""
    results = Results(folder, table, GRID, PRIORS, "median")
    while results.rows < rows:
        part = slice(results.rows, results.rows + size)
        results.append(PDF[part], FLAGS[part], PDF[part].max(axis=1))
    return results


@pytest.mark.parametrize("text", [False, True])
def test_estimates_filled_in_place_read_as_they_were_given(text: bool, tmp_path: Path) -> None:
    results = filled(tmp_path, galaxies(text), 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "pdf.hdf5.partial",
        "photo_z.partial.fits",
        "progress.json",
    ]
    results.finish()
    results.forget()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pdf.hdf5", "photo_z.fits"]
    with fits.open(tmp_path / "photo_z.fits", checksum=True) as hdus:
        hdus.verify("exception")
        assert "DATE" not in hdus[1].header
    table = Table.read(tmp_path / "photo_z.fits", character_as_bytes=False, mask_invalid=False)
    np.testing.assert_array_equal(table["flag"], FLAGS)
    assert results.counts == {flag: 5 for flag in FLAGS[:6]}
    assert list(table["object_id"]) == list(galaxies(text)["object_id"])
    np.testing.assert_array_equal(table["spec_z"], galaxies()["spec_z"])
    pdf = PDF[USABLE].astype(float)
    np.testing.assert_allclose(table["photo_z"][USABLE], metrics.median(pdf, GRID), rtol=1e-6)
    np.testing.assert_array_equal(table["photo_z_mode"][USABLE], metrics.mode(pdf, GRID))
    np.testing.assert_array_equal(table["distance"][USABLE], PDF.max(axis=1)[USABLE])
    for name in ("photo_z", "photo_z_mean", "photo_z_lower", "pit", "distance"):
        assert np.isnan(table[name][~USABLE]).all()
    with h5py.File(tmp_path / "pdf.hdf5") as file:
        np.testing.assert_allclose(probabilities(file), np.where(USABLE[:, None], PDF, np.nan), rtol=1e-6)
        np.testing.assert_array_equal(file["meta/bins"][0], GRID.edges)
        assert len(file["ancil/object_id"]) == 30


@pytest.mark.parametrize("rows", [7, 28, 30])
def test_filling_goes_on_where_it_stopped_and_the_bytes_are_the_same(rows: int, tmp_path: Path) -> None:
    contents = []
    for name in ("whole", "parts"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "parts":
            results = filled(folder, galaxies(), 7, rows)
            with (folder / "photo_z.partial.fits").open("r+b") as file:  # what a kill leaves of a chunk
                file.seek(len(results.header) + rows * results.dtype.itemsize)
                file.write(b"x" * results.dtype.itemsize * min(2, 30 - rows))
            if rows == 30:  # killed between one file and the other
                (folder / "pdf.hdf5.partial").rename(folder / "pdf.hdf5")
            again = Results(folder, galaxies(), GRID, PRIORS, "median")
            assert (again.rows, again.counts) == (rows, results.counts)
        filled(folder, galaxies(), 7).finish()
        contents.append([(folder / n).read_bytes() for n in ("pdf.hdf5", "photo_z.fits")])
    assert contents[0] == contents[1]


def test_filling_starts_again_where_a_file_is_gone(tmp_path: Path) -> None:
    filled(tmp_path, galaxies(), 7, 14)
    (tmp_path / "pdf.hdf5.partial").unlink()
    assert Results(tmp_path, galaxies(), GRID, PRIORS, "median").rows == 0


def test_p_of_z_that_is_not_finite_stops_with_its_galaxy(tmp_path: Path) -> None:
    results = Results(tmp_path, galaxies(), GRID, PRIORS, "median")
    pdf = PDF[:7].copy()
    pdf[3:5] = np.nan  # row 3 has a flag and needs none
    with pytest.raises(DataError, match=r"for 1 galaxies, first in row 4 \(object_id 4\)"):
        results.append(pdf, FLAGS[:7])


def test_more_p_of_z_than_galaxies_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="p\\(z\\) of 31 galaxies were given for 30"):
        write_results(tmp_path, galaxies(), iter([PDF, PDF[:1]]), GRID, PRIORS)


def test_estimates_of_another_quantity_have_its_name(tmp_path: Path) -> None:
    other = galaxies()
    other.rename_column("spec_z", "log_mass")
    write_results(tmp_path, other, chunks(), GRID, PRIORS, "median", Target("log_mass"), RESPONSES)
    table = Table.read(tmp_path / "photo_z.fits")
    kinds = ("mode", "mean", "median", "lower", "upper", "individual", "individual_err")
    assert table.colnames == [
        *("object_id", "log_mass", "dered_petro_r", "ebv", "flag", "photo_log_mass"),
        *(f"photo_log_mass_{kind}" for kind in kinds),
        *("pit", "pdf_outside", "distance"),
    ]
    np.testing.assert_array_equal(table["photo_log_mass"], table["photo_log_mass_median"])
