import json
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from astropy.table import Table

from photoz_lit import metrics
from photoz_lit.errors import DataError
from photoz_lit.grids import RedshiftGrid
from photoz_lit.results import read_json, read_pdf, write_json, write_results

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
