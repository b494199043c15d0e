"""Stages of RAIL: informed on a table of its columns, and judged by its own evaluators."""

import importlib
import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from command import ROOT, cutouts, magnitude_table
from numpy.typing import NDArray

import photoz_lit
from photoz_lit import metrics
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.grids import RedshiftGrid

qp = pytest.importorskip("qp")
pytest.importorskip("rail.core.data", exc_type=ImportError)
from rail.core.data import TableHandle  # noqa: E402
from rail.evaluation.dist_to_point_evaluator import DistToPointEvaluator  # noqa: E402
from rail.evaluation.point_to_point_evaluator import PointToPointEvaluator  # noqa: E402
from rail.utils.path_utils import find_rail_file  # noqa: E402

from photoz_lit import rail as ours  # noqa: E402

BANDS = [f"mag_{band}_lsst" for band in "ugriz"]
ERRORS = [f"mag_err_{band}_lsst" for band in "ugriz"]
LIMITS = dict.fromkeys(BANDS, 27.0)
PHOTOMETRY: dict[str, Any] = {"bands": BANDS, "err_bands": ERRORS, "mag_limits": LIMITS, "ref_band": BANDS[2]}
GRID = {"zmin": 0.0, "zmax": 0.4, "nzbins": 20}
OPTIONS = {**PHOTOMETRY, **GRID}
QUICK = [
    *(f"training.{name}.max_steps=6" for name in ("representation", "step2", "step3", "hidden")),
    *("training.representation.check_every=3", "training.hidden.check_every=3", "encoder.hidden=[16,16]"),
    "correction.members=2",
    *("trainer.accelerator=cpu", "trainer.threads=1", "n_bootstrap=2"),
]
Columns = dict[str, NDArray[Any]]


def lsst(n: int, seed: int) -> Columns:
    """Draw galaxies in RAIL's columns; some are not detected in u."""
    table = magnitude_table(n, seed=seed)
    columns = {"redshift": np.asarray(table["spec_z"]), "object_id": 7 * np.arange(n) + 10**12}
    for band, mag, error in zip("ugriz", BANDS, ERRORS, strict=True):
        columns[mag], columns[error] = (np.array(table[f"mag_{kind}{band}"]) for kind in ("", "err_"))
    columns[BANDS[0]][::9], columns[ERRORS[0]][::9] = 99.0, 80.0
    return columns


def write(path: Path, columns: Mapping[str, NDArray[Any]]) -> TableHandle:
    """Write an HDF5 file of RAIL; return what gives access to it."""
    with h5py.File(path, "w") as file:
        for name, values in columns.items():
            file[f"photometry/{name}"] = values
    return TableHandle("input", path=str(path))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of a model, informed for a few steps."""
    folder = tmp_path_factory.mktemp("rail")
    path = folder / "model.zip"
    training = write(folder / "training.hdf5", lsst(300, seed=1))
    stage = ours.PhotozLitInformer.make_stage(name="inform", model=str(path), **OPTIONS, settings=QUICK)
    stage.inform(training)
    return path


def estimated(model: Path, data: TableHandle, place: Path, **options: Any) -> Any:
    """Return the ensemble that an estimator writes."""
    options = {"model": str(model), "output": str(place / "pz.hdf5"), **OPTIONS, **options}
    ours.PhotozLitEstimator.make_stage(name="estimate", **options).estimate(data)
    return qp.read(place / "pz.hdf5")


@pytest.mark.filterwarnings("ignore:There are non-finite values in the pdfs:RuntimeWarning:qp")
def test_chunks_say_what_the_whole_says_and_what_python_says(model: Path, tmp_path: Path) -> None:
    columns = lsst(100, seed=2)
    columns[BANDS[1]][4] = -99.0  # not observed
    data = write(tmp_path / "test.hdf5", columns)
    found = estimated(model, data, tmp_path, chunk_size=33)
    assert found.npdf == 100
    np.testing.assert_allclose(found.metadata["bins"].ravel(), np.linspace(0, 0.4, 21))
    ancil = found.ancil
    assert list(np.flatnonzero(ancil["flag"] == "table")) == [4]
    usable = np.arange(100) != 4
    for name in ("zmode", "zmedian", "zmean", "photo_z", "photo_z_lower", "photo_z_upper", "distance"):
        assert (np.isfinite(ancil[name]) == usable).all(), name
    np.testing.assert_array_equal(ancil["object_id"], columns["object_id"])
    np.testing.assert_array_equal(ancil["redshift"], columns["redshift"])
    assert set(ancil["distribution_type"]) == {1}  # a posterior, of RAIL's kinds
    with zipfile.ZipFile(model) as archive:
        archive.extractall(tmp_path / "model")
    options = SimpleNamespace(**PHOTOMETRY, nondetect_val=99.0, nonobserved_val=-99.0, ebv_col="")
    direct = photoz_lit.load(tmp_path / "model", device="cpu").predict(ours.photometry(columns, options))
    density = direct.pdf[usable] / direct.grid.width
    np.testing.assert_allclose(found.objdata["pdfs"][usable], density, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ancil["photo_z"], direct.photo_z, atol=1e-6)
    np.testing.assert_allclose(ancil["zmode"][usable], metrics.mode(direct.pdf[usable], direct.grid))


def test_the_file_is_what_the_photo_z_challenge_of_desc_asks_for(model: Path, tmp_path: Path) -> None:
    """As LSSTDESC/pz_data_challenge checks it: read by qp, with zmode, and object_id of the test file."""
    columns = lsst(40, seed=3)
    found = estimated(model, write(tmp_path / "test.hdf5", columns), tmp_path, chunk_size=15)
    assert {"zmode", "object_id"} <= found.ancil.keys()
    assert set(found.ancil["object_id"]) == set(columns["object_id"])
    assert found.ancil["zmode"].shape == (40,)


def test_a_run_folder_says_what_the_informer_s_model_says(model: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "test.hdf5", lsst(20, seed=2))
    found = estimated(model, data, tmp_path)
    with zipfile.ZipFile(model) as archive:
        archive.extractall(tmp_path / "run")
    options = {"model": str(tmp_path / "run"), "output": str(tmp_path / "other.hdf5"), **PHOTOMETRY}
    stage = ours.PhotozLitPretrainedEstimator.make_stage(name="other", calc_summary_stats=True, **options)
    other = stage.estimate(data)()
    np.testing.assert_array_equal(other.objdata["pdfs"], found.objdata["pdfs"])
    assert other.ancil["z_mode"].max() <= 0.4  # RAIL looks for it on the model's bins
    wrong = write(tmp_path / "wrong.hdf5", {name + "x": values for name, values in lsst(5, seed=2).items()})
    names = {key: [f"{name}x" for name in PHOTOMETRY[key]] for key in ("bands", "err_bands")}
    limits = {"mag_limits": dict.fromkeys(names["bands"], 27.0), "ref_band": names["bands"][2]}
    stage = ours.PhotozLitPretrainedEstimator.make_stage(name="wrong", **options | names | limits)
    with pytest.raises(DataError, match="the table has no column mag_u_lsst"):
        stage.estimate(wrong)


@pytest.mark.parametrize("value", [99.0, np.nan, np.inf])
def test_what_was_not_detected_stands_at_the_limit(value: float) -> None:
    data = {"m": np.array([20.0, value, 28.0, -99.0]), "e": np.array([0.1, np.nan, 30.0, 0.1])}
    bands = {"bands": ["m"], "err_bands": ["e"], "mag_limits": {"m": 27.0}, "ref_band": "m", "ebv_col": ""}
    table = ours.photometry(data, SimpleNamespace(**bands, nondetect_val=value, nonobserved_val=-99.0))
    np.testing.assert_array_equal(table["m"], [20, 27, 27, np.nan])
    np.testing.assert_array_equal(table["e"], [0.1, 1, 1, 0.1])
    np.testing.assert_array_equal(table["dered_petro_r"], table["m"])
    with pytest.raises(ConfigError, match="no limit of m"):
        ours.photometry(data, SimpleNamespace(**bands | {"mag_limits": {}}))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"zmax": 0.5}, "zmax: 0.5, not 0.4"),
        ({"nzbins": 30}, "nzbins: 30, not 20"),
        ({"bands": BANDS[::-1], "err_bands": ERRORS}, "bands: "),
        ({"mag_limits": LIMITS | {BANDS[0]: 26.0}}, "mag_limits: "),
        ({"nondetect_val": np.nan}, r"nondetect_val: nan, not 99\.0"),
        ({"ref_band": BANDS[3]}, "ref_band: mag_i_lsst, not mag_r_lsst"),
        ({"err_bands": ERRORS[:2]}, "err_bands"),
    ],
)
def test_options_that_are_not_the_model_s_are_refused(
    changed: dict[str, Any], message: str, model: Path, tmp_path: Path
) -> None:
    data = write(tmp_path / "test.hdf5", lsst(5, seed=4))
    with pytest.raises(ConfigError, match=message):
        estimated(model, data, tmp_path, **changed)


def test_a_pickle_is_no_model_and_is_not_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "sprung"),)

    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"model\.pkl is no model of PhotozLitInformer"):
        estimated(tmp_path / "model.pkl", write(tmp_path / "test.hdf5", lsst(5, seed=4)), tmp_path)
    assert not (tmp_path / "sprung").exists()


def test_columns_that_are_not_there_and_redshifts_beyond_the_bins_are_named(tmp_path: Path) -> None:
    columns = lsst(50, seed=5)
    stage = ours.PhotozLitInformer.make_stage(name="inform", output_mode="return", **OPTIONS)
    with pytest.raises(DataError, match="spec_z"):
        stage.inform(write(tmp_path / "a.hdf5", columns | {"redshift": columns["redshift"] + 1}))
    del columns[BANDS[3]]
    stage = ours.PhotozLitInformer.make_stage(name="inform", output_mode="return", **OPTIONS)
    with pytest.raises(Exception, match=BANDS[3]):
        stage.inform(write(tmp_path / "b.hdf5", columns))


def test_the_package_s_model_on_cutouts(tmp_path: Path) -> None:
    images, r, ebv = cutouts(6, 64), np.linspace(15, 17, 6), np.full(6, 0.05)
    columns = {"images": images, "r": r, "ebv": ebv, "object_id": np.arange(6)}
    stage = ours.PhotozLitPretrainedEstimator.make_stage(
        **{"name": "estimate", "model": "sdss_main", "cutouts_col": "images", "ref_band": "r"},
        **{"ebv_col": "ebv", "chunk_size": 4, "output": str(tmp_path / "pz.hdf5")},
    )
    found = stage.estimate(write(tmp_path / "cutouts.hdf5", columns))()
    direct = photoz_lit.load("sdss_main", device="cpu").predict(images, ebv, r)
    density = direct.pdf / direct.grid.width
    np.testing.assert_allclose(found.objdata["pdfs"], density, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.ancil["photo_z"], direct.photo_z, atol=1e-6)
    assert list(found.ancil["flag"]) == list(direct.flag)


def judged(found: Any, data: Path, grid: RedshiftGrid, folder: Path) -> dict[str, Any]:
    """Return what RAIL's own evaluators say, at the centres of the bins where they ask for points."""
    truth = TableHandle("truth", path=str(data))
    names = ("output", "summary", "single_distribution_summary")
    places = {name: str(folder / f"{name}.hdf5") for name in names}
    point = ["point_bias", "point_stats_sigma_mad", "point_stats_iqr", "point_outlier_rate"]
    stage = PointToPointEvaluator.make_stage(name="point", metrics=point, force_exact=True, **places)
    said = dict(stage.evaluate(found, truth)["summary"]())
    stage = DistToPointEvaluator.make_stage(
        name="dist",
        metrics=["pit", "cdeloss"],
        force_exact=True,
        metric_config={"cdeloss": {"eval_grid": grid.centres}},
        **places,
    )
    of_pdf = stage.evaluate(found, truth)
    return {**said, **of_pdf["summary"](), "pit": of_pdf["single_distribution_summary"]()["pit"]}


def same_numbers(said: dict[str, Any], found: Any, spec_z: NDArray[Any], grid: RedshiftGrid) -> None:
    """Compare what RAIL's evaluators say with our own numbers of the same estimates."""
    pdf = found.objdata["pdfs"] * grid.width
    dz = metrics.residual(spec_z, np.squeeze(found.ancil["zmode"]))
    iqr = np.subtract(*np.percentile(dz, (75, 25))) / 1.349
    for name, value in {
        "point_bias": np.median(dz),
        "point_stats_sigma_mad": metrics.sigma_mad(dz),
        "point_stats_iqr": iqr,
        "point_outlier_rate": metrics.outlier_fraction(dz, max(0.06, 3 * iqr)),
    }.items():
        assert said[name][0] == pytest.approx(value, abs=1e-6), name
    levels, locations = np.squeeze(said["pit"].metadata["quants"]), np.squeeze(said["pit"].objdata["locs"])
    own = np.quantile(metrics.pit(pdf, spec_z, grid), levels)
    np.testing.assert_allclose(locations[1:-1], own[1:-1], atol=1e-6)  # the ends are 0 and 1 by definition
    # Trapezoids between the centres have half of the first and of the last bin.
    ends = 0.5 * (found.objdata["pdfs"][:, [0, -1]] ** 2).sum(axis=1) * grid.width
    assert said["cdeloss"][0] == pytest.approx(np.mean(metrics.cde_loss(pdf, spec_z, grid) - ends), abs=1e-6)


def test_rail_s_evaluators_say_what_our_metrics_say(model: Path, tmp_path: Path) -> None:
    columns = lsst(200, seed=6)
    grid = RedshiftGrid(0.0, 0.4, 20)
    found = estimated(model, write(tmp_path / "test.hdf5", columns), tmp_path)
    same_numbers(judged(found, tmp_path / "test.hdf5", grid, tmp_path), found, columns["redshift"], grid)


@pytest.mark.slow
def test_a_pipeline_file_of_rail_runs_and_its_numbers_are_ours(tmp_path: Path) -> None:
    """On 2,000 of the simulated LSST galaxies that RAIL brings, informed by 3,000 others."""
    kept: dict[str, Columns] = {}
    for name, sample, n in (("train", "training", 3000), ("test", "validation", 2000)):
        path = find_rail_file(f"examples_data/testdata/test_dc2_{sample}_9816.hdf5")
        with h5py.File(path) as file:
            columns = {key: values[:] for key, values in file["photometry"].items()}
        rows = np.flatnonzero(columns["redshift"] < 3)[:n]
        kept[name] = {
            key.replace("id", "object_id") if key == "id" else key: v[rows] for key, v in columns.items()
        }
        write(tmp_path / f"{name}.hdf5", kept[name])
    config = yaml.safe_load((ROOT / "conf" / "data" / "rail_config.yml").read_text())
    quick = ["training.representation.max_steps=400", "training.hidden.max_steps=160", "correction.members=2"]
    config["inform"]["settings"] = quick
    (tmp_path / "config.yml").write_text(yaml.safe_dump(config))
    words = [f"inputs.{name}={tmp_path / name}.hdf5" for name in kept]
    words += [f"config={tmp_path}/config.yml", f"output_dir={tmp_path}", f"log_dir={tmp_path}"]
    bin_folder = Path(sys.executable).parent
    env = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [bin_folder / "ceci", ROOT / "conf/data/rail.yml", *words],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + "".join(p.read_text() for p in tmp_path.glob("*.out"))
    found, spec_z, grid = (
        qp.read(tmp_path / "output_estimate.hdf5"),
        kept["test"]["redshift"],
        RedshiftGrid(0, 3, 300),
    )
    assert found.npdf == 2000
    with h5py.File(tmp_path / "summary_point.hdf5") as file:
        written = {name: float(values[0]) for name, values in file.items()}
    said = judged(found, tmp_path / "test.hdf5", grid, tmp_path)
    assert written == {name: pytest.approx(float(said[name][0]), abs=1e-12) for name in written}
    assert len(written) == 4
    same_numbers(said, found, spec_z, grid)
    assert written["point_stats_sigma_mad"] < 0.08


def test_without_rail_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rail.core.common_params", None)
    monkeypatch.delitem(sys.modules, "photoz_lit.rail")
    with pytest.raises(DataError, match=r"pip install 'photoz_lit\[rail\]'"):
        importlib.import_module("photoz_lit.rail")
