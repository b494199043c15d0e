import json
import os
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from photoz_lit import metrics
from photoz_lit.errors import DataError
from photoz_lit.files import link, read_arrays, read_json, write_arrays, write_json
from photoz_lit.grids import RedshiftGrid
from photoz_lit.results import EstimateFiles, read_pdf, write_results

GRID = RedshiftGrid(0.0, 0.4, 8, 2, 2)
PDF = np.random.default_rng(0).dirichlet(np.ones(12), 30).astype(np.float32)
N_OF_Z = np.full(8, 1 / 8)


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
    written = write_results(tmp_path, galaxies(text), chunks(), GRID, N_OF_Z)
    table = Table.read(tmp_path / "photo_z.fits", character_as_bytes=False)
    assert table.colnames == [
        "object_id",
        "spec_z",
        "dered_petro_r",
        "photo_z",
        "photo_z_mode",
        "photo_z_mean",
        "photo_z_median",
        "photo_z_lower",
        "photo_z_upper",
        "pit",
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


def test_pdf_file_holds_probabilities_edges_and_the_prior(tmp_path: Path) -> None:
    write_results(tmp_path, galaxies(True), chunks(), GRID, N_OF_Z)
    with h5py.File(tmp_path / "pdf.hdf5") as file:
        np.testing.assert_allclose(file["pdf"][:].sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_array_equal(file["edges"][:], GRID.edges)
        np.testing.assert_array_equal(file["train_n_of_z"][:], N_OF_Z)
        assert [i.decode() for i in file["object_id"][:3]] == ["g0", "g1", "g2"]
    pieces = list(read_pdf(tmp_path, chunk=11))
    assert [len(piece) for piece in pieces] == [11, 11, 8]
    np.testing.assert_array_equal(np.concatenate(pieces), PDF)


def test_without_spec_z_there_is_no_pit(tmp_path: Path) -> None:
    unknown = galaxies()
    unknown.remove_column("spec_z")
    table = write_results(tmp_path, unknown, chunks(), GRID, N_OF_Z)
    assert not {"spec_z", "pit"} & set(table.colnames)


def test_results_do_not_depend_on_the_chunks(tmp_path: Path) -> None:
    tables = []
    for size in (1, 30):
        (tmp_path / str(size)).mkdir()
        tables.append(write_results(tmp_path / str(size), galaxies(), chunks(size), GRID, N_OF_Z))
    for name in tables[0].colnames:
        np.testing.assert_allclose(tables[0][name], tables[1][name], rtol=1e-12)


def test_interrupted_write_leaves_the_finished_files_alone(tmp_path: Path) -> None:
    write_results(tmp_path, galaxies(), chunks(), GRID, N_OF_Z)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def half() -> Iterator[np.ndarray]:
        yield PDF[:7]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_results(tmp_path, galaxies(), half(), GRID, N_OF_Z)
    with pytest.raises(DataError, match="7 galaxies were given for 30"):
        write_results(tmp_path, galaxies(), iter([PDF[:7]]), GRID, N_OF_Z)
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


FLAGS = np.where(np.arange(30) % 7 == 3, "edge", "")


def filled(folder: Path, table: Table, size: int, rows: int = 30) -> EstimateFiles:
    """Write estimates in chunks of a size until so many rows are there."""
    files = EstimateFiles(folder, table, FLAGS, GRID, np.full(12, 1 / 12), "median")
    while files.rows < rows:
        part = slice(files.rows, files.rows + size)
        pdf = PDF[part]
        files.append(pdf, pdf.max(axis=1), pdf.max(axis=1) > 0.3)
    return files


@pytest.mark.parametrize("text", [False, True])
def test_estimates_filled_in_place_read_as_they_were_given(text: bool, tmp_path: Path) -> None:
    files = filled(tmp_path, galaxies(text), 7)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "pdf.hdf5.partial",
        "photo_z.partial.fits",
        "progress.json",
    ]
    files.finish()
    files.forget()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pdf.hdf5", "photo_z.fits"]
    with fits.open(tmp_path / "photo_z.fits", checksum=True) as hdus:
        hdus.verify("exception")
        assert "DATE" not in hdus[1].header
    table = Table.read(tmp_path / "photo_z.fits", character_as_bytes=False, mask_invalid=False)
    usable = FLAGS == ""
    np.testing.assert_array_equal(table["flag"], np.where(usable, "good", FLAGS))
    assert list(table["object_id"]) == list(galaxies(text)["object_id"])
    np.testing.assert_array_equal(table["spec_z"], galaxies()["spec_z"])
    pdf = PDF[usable].astype(float)
    np.testing.assert_array_equal(table["photo_z"][usable], metrics.median(pdf, GRID))
    np.testing.assert_array_equal(table["photo_z_mode"][usable], metrics.mode(pdf, GRID))
    np.testing.assert_array_equal(table["distance"][usable], PDF.max(axis=1)[usable])
    np.testing.assert_array_equal(table["far"], (PDF.max(axis=1) > 0.3) & usable)
    assert files.n_far == table["far"].sum() > 0
    for name in ("photo_z", "photo_z_mean", "photo_z_lower", "distance"):
        assert np.isnan(table[name][~usable]).all()
    with h5py.File(tmp_path / "pdf.hdf5") as file:
        np.testing.assert_array_equal(file["pdf"][:], np.where(usable[:, None], PDF, np.nan))
        np.testing.assert_array_equal(file["edges"][:], GRID.edges)
        assert len(file["object_id"]) == 30


@pytest.mark.parametrize("rows", [7, 28, 30])
def test_filling_goes_on_where_it_stopped_and_the_bytes_are_the_same(rows: int, tmp_path: Path) -> None:
    results = []
    for name in ("whole", "parts"):
        folder = tmp_path / name
        folder.mkdir()
        if name == "parts":
            files = filled(folder, galaxies(), 7, rows)
            with (folder / "photo_z.partial.fits").open("r+b") as file:  # what a kill leaves of a chunk
                file.seek(len(files.header) + rows * files.row_bytes)
                file.write(b"x" * files.row_bytes * min(2, 30 - rows))
            if rows == 30:  # killed between one file and the other
                (folder / "pdf.hdf5.partial").rename(folder / "pdf.hdf5")
            assert EstimateFiles(folder, galaxies(), FLAGS, GRID, N_OF_Z, "median").rows == rows
        filled(folder, galaxies(), 7).finish()
        results.append([(folder / n).read_bytes() for n in ("pdf.hdf5", "photo_z.fits")])
    assert results[0] == results[1]


def test_filling_starts_again_where_a_file_is_gone(tmp_path: Path) -> None:
    filled(tmp_path, galaxies(), 7, 14)
    (tmp_path / "pdf.hdf5.partial").unlink()
    assert EstimateFiles(tmp_path, galaxies(), FLAGS, GRID, N_OF_Z, "median").rows == 0


def test_p_of_z_that_is_not_finite_stops_with_its_galaxy(tmp_path: Path) -> None:
    files = EstimateFiles(tmp_path, galaxies(), FLAGS, GRID, N_OF_Z, "median")
    pdf = PDF[:7].copy()
    pdf[3:5] = np.nan  # row 3 has a flag and needs none
    with pytest.raises(DataError, match=r"for 1 galaxies, first in row 4 \(object_id 4\)"):
        files.append(pdf, np.zeros(7), np.zeros(7, bool))


def test_arrays_are_read_as_written_and_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, {"x": np.arange(3), "y": [1.5, 2.5]})
    read = read_arrays(path)
    assert sorted(read) == ["x", "y"]
    np.testing.assert_array_equal(read["y"], [1.5, 2.5])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(DataError, match=r"a\.npz: cannot be read"):
        read_arrays(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("linked", [True, False])
def test_file_gets_into_another_folder_with_or_without_links(
    linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(18, "Invalid cross-device link")

    (tmp_path / "a").write_text("content")
    (tmp_path / "b").mkdir()
    if not linked:
        monkeypatch.setattr(os, "link", refuse)
    for _ in range(2):  # a second time, over the first
        link(tmp_path / "a", tmp_path / "b")
        assert (tmp_path / "b" / "a").read_text() == "content"
    assert [p.name for p in (tmp_path / "b").iterdir()] == ["a"]
    assert ((tmp_path / "a").stat().st_nlink == 2) == linked


NAMES = ("log_mass", "photo_log_mass")


def test_estimates_of_another_quantity_have_its_name(tmp_path: Path) -> None:
    other = galaxies()
    other.rename_column("spec_z", "log_mass")
    write_results(tmp_path, other, chunks(), GRID, N_OF_Z, "median", NAMES)
    table = Table.read(tmp_path / "photo_z.fits")
    kinds = ("mode", "mean", "median", "lower", "upper")
    assert table.colnames == [
        *("object_id", "log_mass", "dered_petro_r", "photo_log_mass"),
        *(f"photo_log_mass_{kind}" for kind in kinds),
        "pit",
    ]
    np.testing.assert_array_equal(table["photo_log_mass"], table["photo_log_mass_median"])
    (tmp_path / "filled").mkdir()
    files = EstimateFiles(tmp_path / "filled", other, FLAGS, GRID, np.full(12, 1 / 12), "median", NAMES)
    files.append(PDF, PDF.max(axis=1), PDF.max(axis=1) > 0.3)
    files.finish()
    filled_table = Table.read(tmp_path / "filled" / "photo_z.fits")
    assert filled_table.colnames == [
        *("object_id", "log_mass", "dered_petro_r", "flag", "photo_log_mass"),
        *(f"photo_log_mass_{kind}" for kind in kinds),
        *("distance", "far"),
    ]
    good = FLAGS == ""
    np.testing.assert_array_equal(
        filled_table["photo_log_mass_mode"][good], table["photo_log_mass_mode"][good]
    )
