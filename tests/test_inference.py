from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from command import Finished, Outcome, only, places, run, run_well

from photoz_lit.correction.finishing.chain import Chain
from photoz_lit.correction.prior import Priors
from photoz_lit.data.store import open_store
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.inference import Predictor, open_model
from photoz_lit.n_of_z import read_prior
from photoz_lit.results import read_pdf

GRID = RedshiftGrid(0.0, 0.4, 8, 2, 2)


def write_n_of_z(path: Path, z: list[float], n: list[float]) -> str:
    Table({"z": z, "n_of_z": n}).write(path, overwrite=True)
    return str(path)


def test_words_that_are_no_table() -> None:
    assert read_prior("none", GRID) is None
    assert read_prior("flat", GRID) == "flat"


def test_table_is_linear_between_rows_and_zero_beyond(tmp_path: Path) -> None:
    prior = read_prior(write_n_of_z(tmp_path / "n.csv", [0.1, 0.2], [1.0, 3.0]), GRID)
    density = np.zeros(12)
    density[4:6] = 1.5, 2.5  # bins at 0.125 and 0.175
    np.testing.assert_allclose(prior, density / 4)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"z": [0.1], "n": [1.0]}, "has the columns z, n: predict.prior is"),
        ({"z": [0.1, 0.1], "n_of_z": [1.0, 2.0]}, "in row 1: z must rise"),
        ({"z": [0.1, 0.2], "n_of_z": [1.0, -2.0]}, "n_of_z=-2 in row 1"),
        ({"z": [0.1, 0.2], "n_of_z": [np.nan, 2.0]}, "n_of_z=nan in row 0"),
        ({"z": [1.0, 2.0], "n_of_z": [1.0, 1.0]}, "zero on the range of p(z), -0.1 to 0.5"),
        ({"z": [0.1, 0.2], "n_of_z": [0.0, 0.0]}, "zero on the range"),
    ],
    ids=str,
)
def test_tables_that_are_no_n_of_z(columns: dict[str, list[float]], said: str, tmp_path: Path) -> None:
    Table(columns).write(tmp_path / "n.ecsv")
    with pytest.raises(DataError) as caught:
        read_prior(str(tmp_path / "n.ecsv"), GRID)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match="flatt"):
        read_prior("flatt", GRID)


def test_bins_without_labels_are_not_blown_up() -> None:
    before = Priors(np.array([[0.5, 0.5, 0, 0]]), np.full((1, 4), 0.25), MagnitudeSlices(14.0, 1.0, 1))
    pdf = before.convert(np.array([[0.6, 0.3999, 1e-4, 0]]), None, before.converted(np.full(4, 0.25)))
    assert pdf[0, 2] < 0.03
    np.testing.assert_allclose(pdf[0, :2] / pdf[0, :2].sum(), [0.6, 0.4], atol=1e-3)


@pytest.fixture(scope="module")
def trained(catalogue_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return two classifiers with the same bins of p(z) and different implicit priors."""
    copied = catalogue_run.copy(tmp_path_factory.mktemp("trained"))
    run_well("stage=classifier", "correction=skip_balanced", *copied.words)
    return copied


def predicted(trained: Finished, place: Path, prior: str, model: str = "correction=full,*") -> Outcome:
    folder = next((trained.folder / "runs").glob("*/classifier"))
    store = only(trained.folder / "data", "store.json").parent
    words = ("data=store", f"data.path={store}", f"predict.prior={prior}", "trainer.accelerator=cpu")
    return run("stage=predict", f"model={folder / model}", *words, *places(place))


def read(place: Path, pattern: str) -> tuple[np.ndarray, np.ndarray, Priors]:
    """Return p(z) and r of the galaxies that have one, and the priors."""
    folder = only(place, f"predict/{pattern}/*/done.json").parent
    pdf, table = np.concatenate(list(read_pdf(folder))), Table.read(folder / "photo_z.fits")
    known = np.isfinite(pdf).all(axis=1)
    return pdf[known], np.asarray(table["dered_petro_r"])[known], Priors.read(folder)


def test_predicted_pdfs_have_the_prior_that_was_asked_for(trained: Finished, tmp_path: Path) -> None:
    table = write_n_of_z(tmp_path / "wanted.csv", [0.0, 0.4], [0.0, 1.0])
    for prior in ("none", "flat", table):
        assert predicted(trained, tmp_path, prior).code == 0
    pdf, r, old = read(tmp_path, "*seed=1")
    assert len(pdf) > 50
    assert len(np.unique(old.slices.index(r))) > 3
    for name in ("flat", "wanted"):
        converted, _, new = read(tmp_path, f"*,prior={name}")
        np.testing.assert_allclose(converted, old.convert(pdf, r, new), atol=1e-6)
        assert not np.allclose(converted, old.convert(pdf, None, new), atol=1e-3)  # without slices of r
        assert not np.allclose(converted, pdf, atol=1e-3)
        np.testing.assert_array_equal(new.training, old.training)
        if name == "flat":
            np.testing.assert_allclose(np.ptp(new.implicit, axis=1), 0, atol=1e-12)
    n_of_z = new.implicit.sum(axis=0)[10:30]
    np.testing.assert_allclose(n_of_z / n_of_z.sum(), (np.arange(20) + 0.5) / 200, atol=1e-3)


def test_members_of_an_ensemble_are_converted_each_by_its_own_prior(
    trained: Finished, tmp_path: Path
) -> None:
    for name, model in (("a", "correction=full,*"), ("b", "correction=skip_balanced,*"), ("both", "*")):
        assert predicted(trained, tmp_path / name, "flat", model).code == 0
    one, other, both = (read(tmp_path / name, "*,prior=flat") for name in ("a", "b", "both"))
    np.testing.assert_allclose(both[0], (one[0] + other[0]) / 2, atol=1e-6)
    np.testing.assert_array_equal(both[2].implicit, one[2].implicit)


def test_another_prior_is_another_folder_or_refused(trained: Finished, tmp_path: Path) -> None:
    table = write_n_of_z(tmp_path / "wanted.csv", [0.0, 0.4], [0.0, 1.0])
    assert predicted(trained, tmp_path, table).code == 0
    assert "is complete: skipped" in predicted(trained, tmp_path, table).out
    write_n_of_z(tmp_path / "wanted.csv", [0.0, 0.4], [1.0, 1.0])
    assert "was made from another predict.prior" in predicted(trained, tmp_path, table).message


def test_a_wrong_prior_leaves_no_folder(trained: Finished, tmp_path: Path) -> None:
    message = predicted(trained, tmp_path, "nofile.csv").message
    assert "nofile.csv: no such file" in message
    assert "It is none, flat, or a table with columns z and n_of_z" in message
    assert not list(tmp_path.rglob("predict"))


def test_photo_z_of_another_prior_are_not_calibrated(trained: Finished, tmp_path: Path) -> None:
    copied = trained.copy(tmp_path)
    assert predicted(copied, tmp_path, "flat").code == 0
    galaxies = only(tmp_path, "predict/*/*/done.json").parent
    words = ("stage=calibrate", f"calibration.galaxies={galaxies}")
    model = only(tmp_path / "runs", "classifier/correction=full,*")
    assert "predict with predict.prior=none" in run(*words, f"model={model}", *copied.words).message


def test_only_pdfs_of_a_known_prior_are_converted(catalogue_run: Finished, tmp_path: Path) -> None:
    copied = catalogue_run.copy(tmp_path)
    run_well("-m", "stage=classifier", "correction=best,full_pit", "correction.members=1", *copied.words)
    outcome = predicted(copied, tmp_path, "flat", "correction=full_pit,*")
    assert "no prior that could be replaced" in outcome.message
    assert predicted(copied, tmp_path, "none", "correction=full_pit,*").code == 0
    # An estimate for galaxies of one spec_z was measured on p(z) as they were.
    for prior, place in (("none", "*seed=1"), ("flat", "*,prior=flat")):
        assert predicted(copied, tmp_path, prior, "correction=best,*").code == 0
        table = Table.read(only(tmp_path, f"predict/correction=best,{place}/*/photo_z.fits"))
        assert ("photo_z_individual" in table.colnames) == (prior == "none")
    model = open_model(only(tmp_path / "runs", "classifier/correction=best,*"))
    bare = replace(model)
    vars(bare)["chain"] = Chain()
    for models, wanted, n in (([model, model], None, 2), ([model, bare], None, 0), ([model], "flat", 0)):
        assert len(Predictor(models, "features", (2, 5), prior=wanted).responses) == n


def test_model_is_used_from_python_without_settings(trained: Finished, tmp_path: Path) -> None:
    model = open_model(only(trained.folder / "runs", "classifier/correction=full,*"))
    store = open_store(only(trained.folder / "data", "store.json").parent)
    predictor = Predictor([model], store.kind, store.inputs.shape[1:])
    columns = np.asarray(store.catalogue["ebv"]), np.asarray(store.catalogue["dered_petro_r"])
    pdf, distance = predictor(store.inputs, *columns)
    assert pdf.shape == (len(store.inputs), predictor.grid.n_outputs)
    np.testing.assert_allclose(pdf.sum(axis=1), 1, rtol=1e-5)
    assert (distance > predictor.threshold).mean() < 0.2
    usable = np.ones(len(pdf), dtype=bool)
    usable[5] = False
    rows, far = next(predictor.chunks(store, 3, 20, usable))
    np.testing.assert_array_equal(rows[[0, 1, *range(3, 17)]], pdf[[3, 4, *range(6, 20)]])
    assert (rows[2] == 0).all()
    assert np.isnan(far[2])


@pytest.mark.parametrize(
    ("kind", "shape", "said"),
    [
        ("images", (5, 24, 24), "cannot read images"),
        ("features", (2, 3), r"was trained on features of shape \(10,\).*the galaxies have \(6,\)"),
    ],
)
def test_galaxies_that_a_model_cannot_read(
    kind: str, shape: tuple[int, ...], said: str, trained: Finished
) -> None:
    model = open_model(only(trained.folder / "runs", "classifier/correction=full,*"))
    with pytest.raises(ConfigError, match=said):
        Predictor([model], kind, shape)
