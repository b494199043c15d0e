"""The files of numbers of a finished run, each from its own columns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from command import parsed

from photoz_lit import metrics
from photoz_lit.config import Config
from photoz_lit.correction.n_of_z import inferred, stacked
from photoz_lit.correction.prior import Priors
from photoz_lit.files import read_json
from photoz_lit.grids import Floats
from photoz_lit.scores import write_n_of_z, write_scores

N = 400


def estimates(config: Config, seed: int = 0) -> tuple[Table, Floats, Priors]:
    """Draw spec_z, noisy estimates of every kind, p(z), and the priors beside them."""
    rng, grid = np.random.default_rng(seed), config.survey.grid()
    z, r = rng.uniform(0.02, 0.38, N), rng.uniform(14, 17.7, N)
    table = Table({"spec_z": z, "dered_petro_r": r})
    for i, name in enumerate(("_mode", "_median", "_individual")):
        table[f"photo_z{name}"] = z + (0.01 + 0.01 * i) * rng.standard_normal(N)
    table["photo_z"], table["photo_z_individual_err"] = table["photo_z_median"], rng.uniform(0.02, 0.05, N)
    table["photo_z_individual"][:100] = table["photo_z_individual_err"][:100] = np.nan
    pdf = np.exp(-0.5 * ((grid.centres - np.asarray(table["photo_z"])[:, None]) / 0.02) ** 2)
    pdf = (pdf / pdf.sum(axis=1, keepdims=True)).astype(np.float32)
    return table, pdf, Priors.of_labels(None, z, r, grid, config.survey.slices())


def write(folder: Path, config: Config, table: Table, pdf: Floats, priors: Priors) -> dict[str, float]:
    return write_scores(folder, config, table, pdf, config.survey.grid(), priors, np.asarray(table["spec_z"]))


def known(numbers: dict[str, Any]) -> dict[str, Any]:
    """Return numbers that were measured; JSON has null for the others."""
    return {key: value for key, value in numbers.items() if value is not None and np.isfinite(value)}


@pytest.fixture(scope="module")
def config() -> Config:
    return parsed("experiment=smoke", "estimate=median", "stage=classifier")


def test_each_file_has_the_numbers_of_its_own_columns(config: Config, tmp_path: Path) -> None:
    s, (table, pdf, priors) = config.survey, estimates(config)
    numbers = write(tmp_path, config, table, pdf, priors)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"metrics{kind}.json" for kind in ("", "_mode", "_median", "_individual")),
        *("trainz.json", "by_magnitude.ecsv", "by_redshift.ecsv", "n_of_z.ecsv"),
    }
    assert known(read_json(tmp_path / "metrics.json")) == pytest.approx(known(numbers))
    for kind in ("mode", "median", "individual"):
        point, found = np.asarray(table[f"photo_z_{kind}"]), read_json(tmp_path / f"metrics_{kind}.json")
        has = np.isfinite(point)
        z, r = np.asarray(table["spec_z"]), np.asarray(table["dered_petro_r"])
        own = metrics.evaluate(
            *(z[has], point[has], r[has], None, s.grid()),
            slices=s.slices(),
            z_high=s.slope_high_from,
            outlier_cut=s.outlier_cut,
            n_bootstrap=config.n_bootstrap,
            rng=np.random.default_rng([config.seed, 5]),
        )
        assert found["n"] == has.sum() == (300 if kind == "individual" else N)
        within = found.pop("within_error", None)
        assert known(found) == pytest.approx(known(own))
        assert (within is not None) == (kind == "individual")
    error = np.asarray(table["photo_z_individual_err"])
    assert within == np.mean(np.abs(point - z)[has] < error[has])
    # Numbers of p(z) are of p(z) alone, and photo_z is the median here.
    of_median = read_json(tmp_path / "metrics_median.json")
    for key in ("bias", "sigma_mad", "slope_spec_z", "slope_spec_z_err"):
        assert of_median[key] == pytest.approx(numbers[key])
    assert of_median["crps"] is None
    assert numbers["crps"] > 0


def test_tables_count_every_galaxy_once_and_n_of_z_sums_to_1(config: Config, tmp_path: Path) -> None:
    table, pdf, priors = estimates(config)
    numbers = write(tmp_path, config, table, pdf, priors)
    for name in ("by_magnitude", "by_redshift"):
        rows = Table.read(tmp_path / f"{name}.ecsv")
        assert rows["count"].sum() == N
        assert (rows["count"] > 0).all()
    n_of_z = Table.read(tmp_path / "n_of_z.ecsv")
    true, grid = np.asarray(n_of_z["true"]), config.survey.grid()
    np.testing.assert_array_equal(true, np.histogram(table["spec_z"], grid.edges)[0] / N)
    for name, own in (("stacked", stacked(pdf)), ("inferred", inferred(pdf, table["dered_petro_r"], priors))):
        np.testing.assert_allclose(n_of_z[name], own)
        assert own.sum() == pytest.approx(1)
        assert numbers[f"{name}_tv"] == pytest.approx(0.5 * np.abs(own - true).sum())
        off = own @ grid.centres - np.mean(table["spec_z"])
        assert numbers[f"{name}_mean_error"] == pytest.approx(off)


def test_the_floor_of_n_of_z_is_what_counting_leaves(config: Config, tmp_path: Path) -> None:
    table, pdf, priors = estimates(config)
    args = (
        np.asarray(table["spec_z"]),
        np.asarray(table["dered_petro_r"]),
        pdf,
        config.survey.grid(),
        priors,
    )
    floor = write_n_of_z(tmp_path, *args)["n_of_z_floor"]
    true = np.asarray(Table.read(tmp_path / "n_of_z.ecsv")["true"])
    counts = np.random.default_rng(1).multinomial(N, true, size=2000)
    assert floor == pytest.approx(0.5 * np.abs(counts / N - true).sum(axis=1).mean(), rel=0.03)


def test_without_a_kind_of_estimate_there_is_no_file_of_it(config: Config, tmp_path: Path) -> None:
    table, pdf, priors = estimates(config)
    table.remove_column("photo_z_mode")
    table["photo_z_individual"] = np.nan
    write(tmp_path, config, table, pdf, priors)
    assert {path.name for path in tmp_path.glob("metrics_*")} == {"metrics_median.json"}


def test_random_numbers_are_the_seeds(config: Config, tmp_path: Path) -> None:
    found = [
        write(tmp_path, replace(config, seed=seed), *estimates(config))["sigma_mad_err"] for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]


def test_what_gives_all_galaxies_one_pdf_is_measured_once(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, (table, pdf, priors) = replace(config, output_dir=str(tmp_path / "runs")), estimates(config)
    places, measured = [tmp_path / name for name in "abcd"], []
    for place in places:
        place.mkdir()
    write(places[0], own, table, pdf, priors)
    own.folder("representation").mkdir(parents=True)
    monkeypatch.setattr(
        metrics, "trainz", lambda *args, real=metrics.trainz: measured.append(1) or real(*args)
    )
    write(places[1], own, table, pdf, priors)
    write(places[2], own, table, pdf[::-1], priors)  # another correction
    first, *others = [(place / "trainz.json").read_bytes() for place in places[:3]]
    assert others == [first, first]
    assert len(measured) == 1
    write(places[3], replace(own, estimate="mode"), table, pdf, priors)
    write(places[3], own, table[:-1], pdf[:-1], priors)  # other galaxies
    assert len(measured) == 3
