"""Other quantities than redshift, of the simulated survey and of other fields, through the command line."""

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from command import QUICK, Finished, only, places, run, run_well

from photoz_lit.files import read_arrays, read_json

KINDS = ("mode", "mean", "median", "lower", "upper")


def columns_of(target: str) -> list[str]:
    """Return the columns of the results of `full`."""
    name = f"photo_{target}"
    carried = ("object_id", target, "dered_petro_r", "ebv", "flag")
    return [*carried, name, *(f"{name}_{kind}" for kind in KINDS), "pit", "pdf_outside", "distance"]


def fields(n: int = 200, seed: int = 0) -> Table:
    """Draw fields of wheat with weather and yield: no redshift, no magnitude, no position."""
    rng = np.random.default_rng(seed)
    rain, warmth, nitrogen = rng.uniform(200, 900, n), rng.normal(14, 3, n), rng.uniform(0, 200, n)
    harvest = 1 + 0.005 * rain + 0.015 * nitrogen - 0.02 * (warmth - 14) ** 2 + rng.normal(0, 0.3, n)
    table = Table(
        {"rain": rain, "warmth": warmth, "nitrogen": nitrogen, "soil_depth": rng.uniform(20, 90, n)}
    )
    table["crop_yield"] = harvest.clip(0.1, 11.9)
    return table


YIELD = (
    *("target.column=crop_yield", "target.label=crop yield", "target.symbol=Y", "target.unit=t/ha"),
    *("target.residual=difference", "survey.z_max=12", "survey.outlier_cut=1"),
    *("survey.r_min=20", "survey.r_width=10", "survey.n_slices=7"),
    "data.columns.dered_petro_r=soil_depth",
)
FIELDS = (
    *(*QUICK, "logger=none", "data=embeddings", "encoder=mlp", "encoder.hidden=[16,16]"),
    *(*YIELD, "data.vectors=[rain,warmth,nitrogen]"),
)


def test_stellar_mass_of_the_simulated_survey(mock_run: Finished, tmp_path: Path) -> None:
    finished = mock_run.copy(tmp_path)  # of redshift: its store has both quantities, and serves both
    words = ("target=log_mass", *finished.words)
    run_well("stage=representation", *words)
    run_well("stage=classifier", "correction=full", *words)
    assert {"spec_z", "log_mass"} <= set(Table.read(only(tmp_path / "data", "catalogue.fits")).colnames)
    folder = only(tmp_path / "runs", "classifier/*/done.json").parent
    assert "target=log_mass" in folder.name
    table = Table.read(folder / "photo_z.fits")
    assert table.colnames == columns_of("log_mass")
    survey = read_json(folder / "survey.json")
    assert survey["target"] == {
        "column": "log_mass",
        "label": "stellar mass",
        "symbol": "log M",
        "unit": "dex",
        "residual": "difference",
    }
    assert (survey["z_min"], survey["z_max"], survey["n_bins"]) == (6.5, 12.5, 20)
    difference = np.asarray(table["photo_log_mass"]) - table["log_mass"]
    assert read_json(folder / "metrics.json")["bias"] == pytest.approx(difference.mean())


def test_a_store_without_the_target_is_named_with_its_columns(tmp_path: Path) -> None:
    fields(60).write(tmp_path / "fields.csv")
    words = (*FIELDS, f"data.path={tmp_path / 'fields.csv'}", *places(tmp_path))
    run_well("stage=prepare", *words)
    path = only(tmp_path / "data", "catalogue.fits")
    table = Table.read(path)
    table["crop_yield"][3] = 20
    table.write(path, overwrite=True)
    message = run("stage=representation", *words).message
    assert "crop_yield is outside the survey's 0-12 in 1 of 60 galaxies" in message
    table["crop_yield"][3] = np.nan
    table.write(path, overwrite=True)
    message = run("stage=representation", *words).message
    assert "crop_yield is not finite in 1 of 60 galaxies" in message
    del table["crop_yield"]
    table.write(path, overwrite=True)
    message = run("stage=representation", *words).message
    assert "no column 'crop_yield'" in message
    assert "Its columns are: object_id, dered_petro_r" in message


def test_a_table_of_another_field(tmp_path: Path) -> None:
    fields(120).write(tmp_path / "fields.csv")
    words = (*FIELDS, f"data.path={tmp_path / 'fields.csv'}", *places(tmp_path))
    run_well("stage=representation", *words)
    said = run_well("stage=classifier", "correction=full", *words)
    folder = only(tmp_path / "runs", "classifier/*/done.json").parent
    table = Table.read(folder / "photo_z.fits")
    assert table.colnames == columns_of("crop_yield")
    assert read_json(folder / "survey.json")["target"]["label"] == "crop yield"
    np.testing.assert_array_equal(np.sort(table["object_id"]), np.unique(table["object_id"]))
    assert "spec_z" not in said.out.replace("slope_spec_z", "")  # the metrics keep their names
    # Fields without a harvest, and Step 4 on what was predicted for them.
    others = fields(40, seed=1)
    del others["crop_yield"]
    others["soil_depth"] = np.linspace(30, 80, 40)  # within the range of those it was trained on
    others.write(tmp_path / "others.csv")
    kept = [
        w for w in words if w.startswith(("data=", "data.v", "data.col", "trainer", "output", "data_dir"))
    ]
    said = run_well("stage=predict", f"model={folder}", f"data.path={tmp_path / 'others.csv'}", *kept)
    assert "40 of 40 galaxies have a photo_crop_yield" in said.out
    predicted = only(tmp_path / "runs", "predict/*/*/done.json").parent
    assert "photo_crop_yield_upper" in Table.read(predicted / "photo_z.fits").colnames
    calibrate = ("stage=calibrate", f"model={folder}", *words)
    run_well(*calibrate, f"calibration.galaxies={predicted}")
    run_well(*calibrate)
    tables = [Table.read(path) for path in (tmp_path / "runs").rglob("calibrate/*/*/photo_z.fits")]
    assert sorted(len(t) for t in tables) == [24, 40]
    assert all(np.isfinite(t["photo_crop_yield_calibrated"]).all() for t in tables)
    others = f"data.path={tmp_path / 'others.csv'}"
    outcome = run("stage=predict", f"model={folder}", "target=log_mass", *kept, others)
    assert "was trained for another target than you typed (target.column: crop_yield ->" in outcome.message


def test_the_truth_is_not_among_the_vectors(tmp_path: Path) -> None:
    fields(120).write(tmp_path / "fields.csv")
    words = [w for w in FIELDS if not w.startswith("data.vectors")]
    outcome = run(
        *("stage=prepare", "data.vectors=['*']", f"data.path={tmp_path / 'fields.csv'}"),
        *(*words, *places(tmp_path)),
    )
    assert "names crop_yield, the true values" in outcome.message


def test_weather_as_magnitudes_says_where_it_belongs(tmp_path: Path) -> None:
    fields(120).write(tmp_path / "fields.csv")
    words = [w for w in FIELDS if not w.startswith(("data.vectors", "data=embeddings"))]
    outcome = run(
        *("stage=prepare", "data=catalogue", "data.magnitudes=[rain,warmth]"),
        *(f"data.path={tmp_path / 'fields.csv'}", *words, *places(tmp_path)),
    )
    assert "column rain is no magnitude (above 0, up to 40; others: data=embeddings)" in outcome.message


# Point estimates of any method


def regressed(n: int = 3000, seed: int = 0, unknown: int = 500) -> Table:
    """Draw yields as a regression network estimates them, pulled to the mean; some are not known."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(6, 1.5, n).clip(0.5, 11.5)
    table = Table({"crop_yield": truth, "soil_depth": rng.uniform(20, 90, n)})
    table["network"] = 6.5 + 0.9 * (truth - 6) + rng.normal(0, 0.5, n)
    table["split"] = np.where(np.arange(n) < unknown, "test", "train")
    table["crop_yield"] = np.where(np.arange(n) < unknown // 2, np.nan, truth)
    return table


ESTIMATES = (
    *("stage=calibrate", "experiment=embeddings", "n_bootstrap=5"),
    *(*YIELD, "data.vectors=[network]", "survey.n_bins=60"),
)


def test_estimates_of_a_regression_network_are_calibrated(tmp_path: Path) -> None:
    given = regressed()
    given.write(tmp_path / "estimates.csv")
    words = (*ESTIMATES, f"data.path={tmp_path / 'estimates.csv'}", *places(tmp_path))
    run_well(*words)
    folder = only(tmp_path / "runs", "calibrate/*/*/done.json").parent
    run_name, stage, table_name, how = folder.relative_to(tmp_path / "runs").parts
    assert (run_name, stage, table_name[:10], how) == (
        *("embeddings", "calibrate", "estimates-", "target=auto"),
    )
    assert read_json(folder / "survey.json")["target"]["label"] == "crop yield"
    table = Table.read(folder / "photo_z.fits")
    assert table.colnames == [
        *("object_id", "crop_yield", "dered_petro_r", "photo_crop_yield", "photo_crop_yield_calibrated")
    ]
    np.testing.assert_allclose(table["photo_crop_yield"], given["network"][:500], rtol=1e-6)
    np.testing.assert_allclose(read_arrays(folder / "calibration.npz")["width"], 12 / 40 / 4)  # nodes of bins
    before, after = (read_json(folder / f"{name}.json") for name in ("metrics_before", "metrics"))
    assert before["n"] == after["n"] == 250  # those of the test split whose truth is known
    assert before["bias"] == pytest.approx(0.5, abs=0.1)
    assert abs(after["bias"]) < 0.1
    assert (folder / "residuals.png").stat().st_size > 1000
    done = read_json(folder / "done.json")
    assert (done["n_galaxies"], done["galaxies"]) == (2500, 500)
    # The truth of what is calibrated is not used.
    given["crop_yield"][:500] = np.nan
    given.write(tmp_path / "unknown.csv")
    run_well(*ESTIMATES, f"data.path={tmp_path / 'unknown.csv'}", *places(tmp_path))
    (second,) = set((tmp_path / "runs").rglob("calibrate/*/*/photo_z.fits")) - {folder / "photo_z.fits"}
    name = "photo_crop_yield_calibrated"
    np.testing.assert_array_equal(Table.read(second)[name], table[name])
    assert not (second.parent / "metrics.json").exists()


def test_another_distribution_of_the_target_is_deconvolved_and_said(tmp_path: Path) -> None:
    given = regressed()
    given = given[(given["split"] == "train") | (given["network"] > 6)]
    given.write(tmp_path / "estimates.csv")
    outcome = run_well(*ESTIMATES, f"data.path={tmp_path / 'estimates.csv'}", *places(tmp_path))
    folder = only(tmp_path / "runs", "calibrate/*/*/done.json").parent
    done = read_json(folder / "done.json")
    assert (folder.name, done["target"], done["expected"]) == ("target=auto", "auto", "deconvolved")
    assert done["shift"]["p_value"] < 1e-6
    said = "calibration.target=auto, expected is deconvolved: n(photo_z) by slice of r differs from"
    assert outcome.out.count(said) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data.vectors=[network,soil_depth]",), "are 2 columns: name the one that holds the estimates"),
        (("target.column=colour",), "no column colour"),
        (("survey.z_max=3",), "crop_yield is outside the survey's 0-3 in"),
        (("model=nowhere",), "no finished run is there"),
    ],
)
def test_estimates_that_cannot_be_calibrated(words: tuple[str, ...], said: str, tmp_path: Path) -> None:
    regressed(300, unknown=50).write(tmp_path / "estimates.csv")
    kept = [w for w in ESTIMATES if w.partition("=")[0] not in [v.partition("=")[0] for v in words]]
    outcome = run(*kept, *words, f"data.path={tmp_path / 'estimates.csv'}", *places(tmp_path))
    assert said in outcome.message


def test_a_table_whose_truth_is_all_known_has_nothing_to_calibrate(tmp_path: Path) -> None:
    given = regressed(300, unknown=0)
    given.write(tmp_path / "estimates.csv")
    outcome = run(*ESTIMATES, f"data.path={tmp_path / 'estimates.csv'}", *places(tmp_path))
    assert "300 rows have crop_yield to calibrate on, 0 are to be calibrated" in outcome.message


def test_other_settings_do_not_pass_for_a_finished_calibration(tmp_path: Path) -> None:
    regressed(300, unknown=50).write(tmp_path / "estimates.csv")
    words = (*ESTIMATES, f"data.path={tmp_path / 'estimates.csv'}", *places(tmp_path))
    run_well(*words)
    assert "is complete: skipped" in run_well(*words).out
    outcome = run(*[w for w in words if not w.startswith("survey.r_width")], "survey.r_width=20")
    assert "was made from another survey" in outcome.message


def test_one_column_of_estimates_is_an_embedding(tmp_path: Path) -> None:
    given = regressed(300, unknown=0)
    del given["split"]
    given.write(tmp_path / "estimates.csv")
    words = [w for w in ESTIMATES[2:] if not w.startswith(("experiment", "encoder"))]
    run_well(
        *("stage=classifier", "correction=full", "encoder=precomputed", *words),
        *(*QUICK, "logger=none", "data=embeddings"),
        *(f"data.path={tmp_path / 'estimates.csv'}", *places(tmp_path)),
    )
    folder = only(tmp_path / "runs", "classifier/*/done.json").parent
    assert Table.read(folder / "photo_z.fits").colnames == columns_of("crop_yield")


def test_the_archive_knows_redshifts_only(tmp_path: Path) -> None:
    outcome = run("stage=prepare", "data=sdss", "target=log_mass", *places(tmp_path))
    assert "the target is log_mass: name a table with ra, dec and the true values" in outcome.message
