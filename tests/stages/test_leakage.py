"""No spec_z of a test galaxy reaches an estimate, whatever the correction or calibration.

The real stages run on two tables that differ in the spec_z of the test split alone, which is permuted, and
all estimates must be the same to the last bit. A third table, with the other spec_z permuted, shows that the
comparison can fail.
"""

from pathlib import Path
from typing import get_args

import h5py
import numpy as np
import pytest
import torch
from astropy.table import Table
from command import ROOT, Finished, catalogue_words, magnitude_table, only, places, run_well
from matplotlib.figure import Figure
from numpy.typing import NDArray

from photoz_lit.correction.calibration.deconvolution import Expected

CORRECTIONS = sorted(path.stem for path in (ROOT / "conf" / "correction").glob("*.yaml"))
FAST = ("full_pit", "clap")
NEEDS_SPEC_Z = ("spec_z", "pit")

SPLITS = ("train",) * 90 + ("val",) * 30 + ("test",) * 40
TRAINED = (  # enough for estimates that differ from galaxy to galaxy
    *("training.representation.max_steps=80", "training.representation.check_every=40"),
    *("training.step2.max_steps=20", "training.step3.max_steps=20", "training.hidden.max_steps=60"),
    *(f"training.{name}.lr=0.02" for name in ("representation", "step2", "step3")),
    "n_bootstrap=2",
)


@pytest.fixture(autouse=True)
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave figures out: they hold no estimates and take most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda *_, **__: None)


def write_survey(folder: Path, permuted: str) -> Finished:
    """Write galaxies, the spec_z of some splits permuted, and train a representation on them."""
    table = magnitude_table(len(SPLITS))
    table["object_id"], table["split"] = np.arange(len(SPLITS)), SPLITS
    rows = np.flatnonzero(np.isin(table["split"], permuted.split()))
    shuffled = np.random.default_rng(5).permutation(np.asarray(table["spec_z"][rows]))
    assert np.any(shuffled != table["spec_z"][rows]) == bool(permuted)
    table["spec_z"][rows] = shuffled
    table.write(folder / "galaxies.csv")
    finished = Finished(folder, (*catalogue_words(folder / "galaxies.csv"), *TRAINED, *places(folder)))
    run_well("stage=representation", *finished.words)
    return finished


@pytest.fixture(scope="module")
def true(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return write_survey(tmp_path_factory.mktemp("true"), "")


@pytest.fixture(scope="module")
def permuted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return write_survey(tmp_path_factory.mktemp("permuted"), "test")


def classified(survey: Finished, correction: str) -> Path:
    """Run a correction, unless it was run before, and return its run folder."""
    called = "none,head=single" if correction == "baseline" else correction  # it has its own representation
    pattern = f"classifier/correction={called},settings=*/done.json"
    if not list((survey.folder / "runs").rglob(pattern)):
        words = list(survey.words)
        if correction == "few":  # on another model
            words = [w for w in words if not w.startswith("encoder.")]
            words.append("representation=sdss_main_magnitudes")
        run_well("stage=classifier", f"correction={correction}", "fit_missing=true", *words)
    return only(survey.folder / "runs", pattern).parent


def estimates(folder: Path) -> dict[str, NDArray[np.generic]]:
    """Return the columns of the table, but what is made from spec_z, and all of p(z)'s file."""
    table = Table.read(folder / "photo_z.fits", mask_invalid=False)
    found = {name: np.asarray(table[name]) for name in table.colnames if name not in NEEDS_SPEC_Z}
    with h5py.File(folder / "pdf.hdf5") as file:
        parts = [f"{group}/{name}" for group in ("data", "ancil", "meta", "priors") for name in file[group]]
        return found | {f"pdf.hdf5 {name}": file[name][:] for name in parts}


def assert_same(ours: Path, theirs: Path) -> None:
    """All estimates of two folders are the same, and their spec_z are not."""
    a, b = estimates(ours), estimates(theirs)
    assert a.keys() == b.keys()
    assert {"photo_z", "photo_z_lower", "pdf.hdf5 data/pdfs", "pdf.hdf5 priors/implicit_prior"} <= a.keys()
    for name in {"photo_z", "photo_z_individual"} & a.keys():
        assert len(np.unique(a[name][np.isfinite(a[name])])) > 3, name
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    spec_z = [np.asarray(Table.read(folder / "photo_z.fits")["spec_z"]) for folder in (ours, theirs)]
    assert np.any(spec_z[0] != spec_z[1])


@pytest.mark.parametrize(
    "correction",
    [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow(), id=name) for name in CORRECTIONS],
)
def test_no_spec_z_of_the_test_split_reaches_an_estimate(
    correction: str, true: Finished, permuted: Finished
) -> None:
    ours, theirs = classified(true, correction), classified(permuted, correction)
    weights = [torch.load(f / "model.ckpt", weights_only=True)["state_dict"] for f in (ours, theirs)]
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name]), name
    assert_same(ours, theirs)


@pytest.mark.parametrize("split", ["train", "val"])
def test_spec_z_of_the_other_splits_do(split: str, true: Finished, tmp_path: Path) -> None:
    ours = estimates(classified(true, "full_pit"))
    theirs = estimates(classified(write_survey(tmp_path, split), "full_pit"))
    assert np.any(ours["photo_z"] != theirs["photo_z"])
    assert np.any(ours["pdf.hdf5 data/pdfs"] != theirs["pdf.hdf5 data/pdfs"])


def calibrated(survey: Finished, expected: str, *words: str) -> NDArray[np.float64]:
    """Calibrate the photo_z of `full` and return them."""
    run_well(
        "stage=calibrate",
        f"calibration.target={expected}",
        f"model={classified(survey, 'full')}",
        *words,
        *survey.words,
    )
    of = "of=*" if words else ""
    path = only(survey.folder / "runs", f"calibrate/*/target={expected}{of and ',' + of}/photo_z.fits")
    return np.asarray(Table.read(path)["photo_z_calibrated"])


@pytest.mark.parametrize("expected", get_args(Expected))
def test_no_spec_z_of_the_target_reaches_a_calibration(
    expected: str, true: Finished, permuted: Finished
) -> None:
    ours, theirs = calibrated(true, expected), calibrated(permuted, expected)
    assert np.isfinite(ours).all()
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("expected", get_args(Expected))
def test_no_spec_z_of_other_galaxies_reaches_a_prediction_or_its_calibration(
    expected: str, true: Finished, permuted: Finished, tmp_path: Path
) -> None:
    folders, results = [], []
    for name, survey in (("true", true), ("permuted", permuted)):
        copied = survey.copy(tmp_path / name)
        store = only(copied.folder / "data", "store.json").parent
        words = ("data=store", f"data.path={store}", *places(copied.folder))
        run_well("stage=predict", f"model={classified(copied, 'full')}", "trainer.accelerator=cpu", *words)
        folders.append(only(copied.folder / "runs", "predict/*/*/done.json").parent)
        results.append(calibrated(copied, expected, f"calibration.galaxies={folders[-1]}"))
    assert_same(*folders)
    np.testing.assert_array_equal(*results)
