"""The three lines of Python, against what `stage=predict` and the run itself wrote."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.table import Table
from command import Finished, only, run_well

import photoz_lit
from photoz_lit.data.store import Store, open_store
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.results import read_pdf


@pytest.fixture(scope="module")
def images(mock_run: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """Return a classifier on images, and its store."""
    copied = mock_run.copy(tmp_path_factory.mktemp("trained"))
    run_well("stage=classifier", "correction=full", *copied.words)
    model = only(copied.folder / "runs", "classifier/*/done.json").parent
    return model, open_store(only(copied.folder / "data", "store.json").parent)


def of_test_split(model: Path, store: Store) -> tuple[np.ndarray, Table]:
    table = Table.read(model / "photo_z.fits", mask_invalid=False)
    place = {name: i for i, name in enumerate(np.asarray(store.catalogue["object_id"]).tolist())}
    return np.array([place[name] for name in np.asarray(table["object_id"]).tolist()]), table


def test_estimates_are_those_of_the_run(images: tuple[Path, Store]) -> None:
    model, store = images
    rows, table = of_test_split(model, store)
    cutouts, ebv, r = store.inputs[rows], table["ebv"], table["dered_petro_r"]
    result = photoz_lit.load(model).predict(cutouts, ebv, r)
    own = np.concatenate(list(read_pdf(model)))
    np.testing.assert_allclose(result.pdf, own, atol=1e-5)
    for name, column in (("photo_z", "photo_z"), ("lower", "photo_z_lower"), ("upper", "photo_z_upper")):
        np.testing.assert_allclose(getattr(result, name), table[column], atol=1e-4)
    np.testing.assert_allclose(result.prior.sum(axis=1), 1)
    assert result.pdf.shape == (len(rows), len(result.z)) == result.prior.shape
    again = photoz_lit.load(str(model)).predict(torch.from_numpy(cutouts.astype(np.float32)), ebv, r)
    np.testing.assert_array_equal(again.pdf, result.pdf)
    written = result.to_table()
    assert len(written) == len(rows)
    assert {"photo_z", "lower", "upper", "flag", "distance"} <= set(written.colnames)


def test_an_exported_model_gives_the_same(images: tuple[Path, Store], tmp_path: Path) -> None:
    model, store = images
    run_well("stage=export", f"model={model}", f"output_dir={tmp_path}", "run=out", "export.programs=[]")
    folder = only(tmp_path, "out/export/*/done.json").parent
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("model.safetensors", "config.yaml", "reference.npz", "priors.npz", "card.md", "done.json"),
    }
    for path in folder.iterdir():
        assert str(model.parents[3]).encode() not in path.read_bytes(), path.name
    assert "encoder=fast" in (folder / "card.md").read_text()
    one, other = (photoz_lit.load(f).predict(store.inputs[:40], 0.1, 17.0) for f in (model, folder))
    np.testing.assert_allclose(other.pdf, one.pdf, atol=1e-5)
    store_words = ("data=store", f"data.path={store.folder}", "trainer.accelerator=cpu")
    run_well("stage=predict", f"model={folder}", *store_words, f"output_dir={tmp_path}", "run=predicted")
    with h5py.File(only(tmp_path, "predicted/predict/*/*/pdf.hdf5")) as file:
        assert len(file["data/pdfs"]) == len(store.catalogue)


def test_a_damaged_export_is_named(images: tuple[Path, Store], tmp_path: Path) -> None:
    run_well("stage=export", f"model={images[0]}", f"output_dir={tmp_path}", "run=out", "export.programs=[]")
    path = only(tmp_path, "out/export/*/model.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"model\.safetensors: cannot be loaded"):
        photoz_lit.load(path.parent)


def test_what_cannot_be_estimated_is_flagged_and_lost_to_nobody(images: tuple[Path, Store]) -> None:
    model, store = images
    cutouts = store.inputs[:5].astype(np.float32)
    cutouts[1, 2, 3, 3] = np.nan
    cutouts[2, 0] = 0
    ebv = np.array([0.02, 0.02, 0.02, np.nan, 0.02])
    result = photoz_lit.load(model).predict(cutouts, ebv, [17.0, 17.0, 17.0, 17.0, 25.0])
    assert result.flag[1] == result.flag[2] == "pixels"
    assert result.flag[3] in ("ebv", "far")
    assert result.flag[4] in ("r_range", "far")
    assert np.isfinite(result.photo_z).tolist() == [True, False, False, True, True]
    assert np.isnan(result.pdf[1]).all()
    nothing = photoz_lit.load(model).predict(cutouts[:0])
    assert len(nothing) == 0
    assert nothing.pdf.shape == (0, len(nothing.z))


def test_magnitudes_come_from_a_table_or_an_array(
    catalogue_run: Finished, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copied = catalogue_run.copy(tmp_path_factory.mktemp("magnitudes"))
    model = photoz_lit.load(only(copied.folder / "runs", "classifier/*/done.json").parent)
    store = open_store(only(copied.folder / "data", "store.json").parent)
    data = model.models[0].config.data
    table = Table({name: store.inputs[:30, 0, i] for i, name in enumerate(data.magnitudes)})
    for i, name in enumerate(data.magnitude_errors):
        table[name] = store.inputs[:30, 1, i]
    by_array = model.predict(store.inputs[:30], 0.05, 17.0)
    table["ebv"], table["dered_petro_r"] = 0.05, 17.0
    np.testing.assert_array_equal(model.predict(table).pdf, by_array.pdf)
    table.remove_column(data.magnitudes[0])
    with pytest.raises(DataError, match="the table has no column"):
        model.predict(table)


@pytest.mark.parametrize(
    ("shape", "words", "said"),
    [
        ((3,), {}, "give cutouts"),
        ((3, 5, 8, 8), {}, "was trained on images of shape"),
        ((3, 7), {}, "cannot read vectors"),
        ((3, 5, 32, 32), {"ebv": [0.1, 0.2]}, r"ebv is of shape \(2,\), for 3 galaxies"),
    ],
)
def test_inputs_that_are_not_the_models(
    shape: tuple[int, ...], words: dict[str, list[float]], said: str, images: tuple[Path, Store]
) -> None:
    with pytest.raises((DataError, ConfigError), match=said):
        photoz_lit.load(images[0]).predict(np.ones(shape, np.float32), **words)


def test_an_estimate_that_there_is_not_is_named(images: tuple[Path, Store]) -> None:
    with pytest.raises(DataError, match="estimate=modus: there are mode, median, mean"):
        photoz_lit.load(images[0]).predict(images[1].inputs[:2], estimate="modus")


def test_no_model_is_named() -> None:
    with pytest.raises(ConfigError, match="model=nowhere: no finished run is there"):
        photoz_lit.load("nowhere")


def test_p_of_z_is_drawn(images: tuple[Path, Store], tmp_path: Path) -> None:
    model, store = images
    figure = photoz_lit.load(model).predict(store.inputs[:2], 0.02, 17.0).plot(1, spec_z=0.1)
    figure.savefig(tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000


@pytest.mark.slow
def test_neither_lightning_nor_hydra_is_imported(images: tuple[Path, Store]) -> None:
    script = (
        "import sys, numpy as np, photoz_lit.api\n"
        "slow = {'astropy.table', 'astropy.units', 'h5py', 'pyarrow', 'scipy', 'pandas'}\n"
        "assert not slow & sys.modules.keys(), slow & sys.modules.keys()  # a second of start-up\n"
        f"model = photoz_lit.load({str(images[0])!r})\n"
        f"n = np.load({str(images[1].folder / 'inputs.npy')!r})[:4]\n"
        "assert len(model.predict(n, 0.1).photo_z) == 4\n"
        "unwanted = {'pytorch_lightning', 'hydra', 'wandb', 'matplotlib', 'torchmetrics'}\n"
        "print(sorted(unwanted & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_qp_reads_the_same_p_of_z(images: tuple[Path, Store], tmp_path: Path) -> None:
    script = f"""
import numpy as np, photoz_lit, qp
from photoz_lit import metrics
cutouts = np.load({str(images[1].folder / "inputs.npy")!r})[:6]
result = photoz_lit.load({str(images[0])!r}).predict(cutouts, 0.02, 17.0)
ensemble = result.to_qp()
ensemble.write_to({str(tmp_path / "p.hdf5")!r})
again = qp.read({str(tmp_path / "p.hdf5")!r})
np.testing.assert_allclose(again.objdata["pdfs"] * result.grid.width, result.pdf, atol=1e-6)
np.testing.assert_allclose(again.median().ravel(), metrics.median(result.pdf, result.grid), atol=1e-5)
spec_z = np.linspace(0.05, 0.15, 6)
pit = metrics.pit(result.pdf.astype(float), spec_z, result.grid)
np.testing.assert_allclose(again.cdf(spec_z[:, None]).ravel(), pit, atol=1e-5)
np.testing.assert_array_equal(again.ancil["photo_z"], result.photo_z)
print("ok")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "ok", done.stderr
