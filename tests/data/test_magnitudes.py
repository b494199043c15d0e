"""Magnitudes of galaxies that have images, and both kinds of encoders on one store."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from astropy.table import Table
from command import (
    BANDS,
    Finished,
    cutouts,
    magnitude_table,
    only,
    places,
    probabilities,
    run,
    run_well,
    state,
)

from photoz_lit.data.magnitudes import with_magnitudes
from photoz_lit.data.sources import SOURCES
from photoz_lit.data.store import Store
from photoz_lit.errors import DataError
from photoz_lit.models.encoders.settings import ImageSettings, MLPSettings
from photoz_lit.report import data_page
from photoz_lit.stages.prepare import _readable

NAMES = [[f"{kind}_{band}" for band in BANDS] for kind in ("mag", "mag_err")]


def store_of(folder: Path, table: Table) -> Store:
    return Store(folder, table, cutouts(len(table), 8), "images")


def test_magnitudes_are_the_columns_of_the_table_and_written_once(tmp_path: Path) -> None:
    store = store_of(tmp_path, magnitude_table(7))
    own = with_magnitudes(store, "gri")
    assert (own.kind, own.inputs.shape, own.inputs.dtype) == ("features", (7, 2, 3), np.float32)
    for kind, i in (("mag", 0), ("mag_err", 1)):
        for band, j in zip("gri", range(3), strict=True):
            np.testing.assert_allclose(own.inputs[:, i, j], store.catalogue[f"{kind}_{band}"], rtol=1e-6)
    np.testing.assert_array_equal(own.read(2, 5), own.inputs[2:5])
    assert own.catalogue is store.catalogue
    before = state(tmp_path)
    assert list(before) == ["magnitudes_gri.npy"]
    np.testing.assert_array_equal(with_magnitudes(store, "gri").inputs, own.inputs)
    assert state(tmp_path) == before
    assert with_magnitudes(store, BANDS).inputs.shape == (7, 2, 5)  # another file


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.remove_columns(["mag_u", "mag_err_z"]), "its table has no mag_u, mag_err_z: "),
        (lambda t: t["mag_r"].__setitem__(3, np.nan), "is no number in row 3"),
        (lambda t: t["mag_err_g"].__setitem__([5, 2], np.inf), "is no number in row 2"),
    ],
)
def test_what_is_missing_is_said_and_nothing_is_written(change, said: str, tmp_path: Path) -> None:
    table = magnitude_table(7)
    change(table)
    with pytest.raises(DataError, match=said):
        with_magnitudes(store_of(tmp_path, table), BANDS)
    assert not list(tmp_path.iterdir())


def test_galaxies_that_cannot_be_used_need_none(tmp_path: Path) -> None:
    table = magnitude_table(4)
    table["flag"] = ["", "pixels", "table", "repaired"]
    table["mag_u"][1], table["mag_err_z"][2] = np.nan, np.inf
    found = with_magnitudes(store_of(tmp_path, table), BANDS).inputs
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[3, 0], [table[name][3] for name in NAMES[0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "encoder", "given"),
    [
        ("images", MLPSettings(), "features"),
        ("images", ImageSettings(), "images"),
        ("features", MLPSettings(), "features"),
        ("vectors", MLPSettings(), "vectors"),
    ],
)
def test_only_images_give_way_to_magnitudes(kind: str, encoder, given: str, tmp_path: Path) -> None:
    store = Store(tmp_path, magnitude_table(4), np.zeros((4, 3)), kind)
    config = SimpleNamespace(encoder=encoder, survey=SimpleNamespace(bands=BANDS))
    found = _readable(store, config)
    assert found.kind == given
    assert (found is store) == (kind == given)


def test_the_simulated_survey_has_both() -> None:
    assert SOURCES["mock"].KINDS == ("images", "features")


MLP = ("encoder=mlp", "encoder.hidden=[16,16]")


def test_an_mlp_reads_magnitudes_of_the_simulated_survey_and_predicts(
    mock_run: Finished, tmp_path: Path
) -> None:
    shutil.copytree(mock_run.folder / "data", tmp_path / "data")
    words = (*mock_run.words[:-2], *places(tmp_path))
    run_well("stage=classifier", "correction=full", "fit_missing=true", *MLP, *words)
    folder = only(tmp_path / "runs", "classifier/correction=full,*")
    store = only(tmp_path / "data", "magnitudes_ugriz.npy").parent
    table = Table.read(store / "catalogue.fits")
    found = np.load(store / "magnitudes_ugriz.npy")
    for i, names in enumerate(NAMES):
        np.testing.assert_allclose(found[:, i], np.column_stack([table[n] for n in names]), rtol=1e-6)
    n_galaxies = next(word for word in words if word.startswith("data.n_galaxies"))
    run_well("stage=predict", f"model={folder}", "data=mock", n_galaxies, *places(tmp_path))
    again = only(tmp_path / "runs", "predict/*/*/done.json").parent
    with h5py.File(folder / "pdf.hdf5") as own, h5py.File(again / "pdf.hdf5") as theirs:
        rows = np.searchsorted(theirs["ancil/object_id"][:], own["ancil/object_id"][:])
        pdf = probabilities(theirs)[rows]
        known = np.isfinite(pdf).all(axis=1)
        assert known.sum() > 5
        np.testing.assert_allclose(pdf[known], probabilities(own)[known], atol=2e-5)


def test_the_page_of_a_data_set_is_of_its_images_whatever_reads_it(
    mock_run: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = mock_run.copy(tmp_path)
    for page in tmp_path.rglob("data_report.html"):
        page.unlink()
    shown = []
    monkeypatch.setattr(data_page, "write_data_report", lambda store, **_: shown.append(store) or [])
    outcome = run_well("stage=prepare", *MLP, *copied.words)
    assert "images of shape (120, 5, 24, 24)" in outcome.out
    assert [(store.kind, store.inputs.shape[1:]) for store in shown] == [("images", (5, 24, 24))]


def test_an_encoder_of_images_cannot_have_them_from_a_table(tmp_path: Path) -> None:
    magnitude_table(30).write(tmp_path / "galaxies.csv")
    words = ("data=catalogue", f"data.path={tmp_path / 'galaxies.csv'}", "encoder=fast", *places(tmp_path))
    assert "encoder=mlp" in run("stage=representation", *words).message
