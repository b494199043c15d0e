from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from command import BANDS, magnitude_table

from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.sources import catalogue
from photoz_lit.data.splits import assign_splits
from photoz_lit.errors import DataError
from photoz_lit.target import Target

MAGNITUDES = [f"mag_{band}" for band in BANDS]
ERRORS = [f"mag_err_{band}" for band in BANDS]


def load(path: Path, test_path: Path | None = None, errors: bool = True) -> tuple[Table, np.ndarray]:
    settings = catalogue.Settings(
        path=str(path),
        test_path=None if test_path is None else str(test_path),
        columns={"dered_petro_r": "mag_r"},
        magnitudes=MAGNITUDES,
        magnitude_errors=ERRORS if errors else [],
    )
    plan = catalogue.plan(settings, SurveyConfig(), Target(), 1)
    return plan.catalogue, np.concatenate(list(plan.chunks(0)))


def write(path: Path, n: int, seed: int = 0, **columns: object) -> Path:
    table = magnitude_table(n, seed)
    for name, values in columns.items():
        table[name] = values
    table.write(path)
    return path


def test_inputs_are_magnitudes_and_errors_in_the_order_asked_for(tmp_path: Path) -> None:
    table, inputs = load(write(tmp_path / "a.csv", 20))
    assert inputs.shape == (20, 2, 5)
    for i, (magnitude, error) in enumerate(zip(MAGNITUDES, ERRORS, strict=True)):
        np.testing.assert_allclose(inputs[:, 0, i], magnitude_table(20)[magnitude], rtol=1e-6)
        np.testing.assert_allclose(inputs[:, 1, i], magnitude_table(20)[error], rtol=1e-6)
    np.testing.assert_array_equal(table["dered_petro_r"], table["mag_r"])
    assert not load(tmp_path / "a.csv", errors=False)[1][:, 1].any()


@pytest.mark.parametrize("kind", ["no id", "numbers", "text", "one of each"])
def test_rows_of_the_test_table_are_the_test_split(kind: str, tmp_path: Path) -> None:
    ids = {
        "no id": ({}, {}),
        "numbers": ({"object_id": np.arange(50)}, {"object_id": np.arange(50, 70)}),
        "text": ({"object_id": [f"a{i}" for i in range(50)]}, {"object_id": [f"bb{i}" for i in range(20)]}),
        "one of each": ({"object_id": np.arange(50)}, {"object_id": [f"b{i}" for i in range(20)]}),
    }[kind]
    table, inputs = load(
        write(tmp_path / "a.csv", 50, **ids[0]), write(tmp_path / "b.csv", 20, seed=1, **ids[1])
    )
    split = assign_splits(table, test_fraction=0.2, val_fraction=0.1, seed=0)
    assert np.flatnonzero(split == "test").tolist() == list(range(50, 70))
    assert set(split[:50]) == {"train", "val"}
    np.testing.assert_allclose(inputs[50:, 0, 0], magnitude_table(20, 1)["mag_u"], rtol=1e-6)


def test_object_of_both_tables_is_tested_and_never_trained_on(tmp_path: Path) -> None:
    given = magnitude_table(50)
    given["object_id"] = np.arange(50) + 1237648720693755000
    given.write(tmp_path / "a.csv")
    given["object_id"] = given["object_id"].astype(str)
    given[[7, 20]].write(tmp_path / "b.fits")
    table, _ = load(tmp_path / "a.csv", tmp_path / "b.fits")
    split = assign_splits(table, test_fraction=0.2, val_fraction=0.1, seed=0)
    assert np.flatnonzero(split == "test").tolist() == [7, 20, 50, 51]


def test_validation_galaxies_of_the_training_table_stay_so(tmp_path: Path) -> None:
    words = np.array(["train", "Validation"])[np.arange(50) % 2]
    table, _ = load(write(tmp_path / "a.csv", 50, split=words), write(tmp_path / "b.csv", 20, seed=1))
    split = assign_splits(table, test_fraction=0.2, val_fraction=0.1, seed=0)
    assert split.tolist() == [*["train", "val"] * 25, *["test"] * 20]


def test_tables_must_have_the_same_columns(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", 50, ebv=0.1)
    write(tmp_path / "b.csv", 20, ra=np.arange(20.0), dec=np.arange(20.0))
    with pytest.raises(DataError, match="only one of them has dec, ra"):
        load(tmp_path / "a.csv", tmp_path / "b.csv")
