"""The models that come with the package: small, whole, and of use on the real sky."""

from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from command import only, places, run_well

import photoz_lit
from photoz_lit import metrics
from photoz_lit.config.folders import PRETRAINED, packaged
from photoz_lit.data.mock.survey import Sky, measured, observe

MOST_BYTES = 5e6


def test_it_is_small_and_names_no_machine() -> None:
    files = [path for name in packaged() for path in (PRETRAINED / name).rglob("*") if path.is_file()]
    assert len(files) > 20
    assert sum(path.stat().st_size for path in files) <= MOST_BYTES
    for path in files:
        content = path.read_bytes()
        assert b"/tmp" not in content, path
        assert b"/home" not in content, path


def test_simulated_galaxies_of_another_seed() -> None:
    n, sky = 300, Sky(seed=12, pixels=64)
    galaxies = observe(n, sky, lambda function, parts: map(function, parts))
    cutouts = sky.draw(galaxies)
    r = measured(galaxies, cutouts)["dered_petro_r"]
    result = photoz_lit.load("sdss_main").predict(cutouts, galaxies["ebv"], r)
    dz = metrics.residual(np.asarray(galaxies["spec_z"]), result.photo_z)
    assert (result.flag == "good").mean() > 0.95
    assert metrics.sigma_mad(dz) < 0.02
    assert abs(metrics.bias(dz)) < 0.005
    assert 0.6 < metrics.covered(result.pdf, np.asarray(galaxies["spec_z"]), result.grid).mean() < 0.8


def test_real_galaxies_as_bright_as_the_survey(real_data: Path) -> None:
    table = Table.read(real_data / "sdss_cutouts" / "galaxies.csv")
    result = photoz_lit.load("sdss_main").predict(
        np.load(real_data / "sdss_cutouts" / "cutouts.npy"), 0.04, table["mag_r"]
    )
    spec_z, bright = np.asarray(table["spec_z"]), np.asarray(table["mag_r"]) < 17.9
    assert (result.flag[bright] == "good").all()
    assert np.isin(result.flag[np.asarray(table["mag_r"]) > 18.6], ["far", "r_range"]).all()
    dz = metrics.residual(spec_z, result.photo_z)[bright]
    assert abs(dz.mean()) < 0.006
    assert metrics.sigma_mad(dz) < 0.02


def test_real_magnitudes(real_data: Path) -> None:
    table = Table.read(real_data / "sdss_mgs" / "sdss_mgs.csv")
    spec_z = np.asarray(table["spec_z"])
    result = photoz_lit.load("sdss_main_magnitudes").predict(table, 0.0, table["mag_r"])
    dz = metrics.residual(spec_z, result.photo_z)
    assert (result.flag == "good").mean() > 0.95
    assert metrics.sigma_mad(dz) < 0.0155
    assert abs(metrics.bias(dz)) < 0.002
    assert metrics.crps(result.pdf.astype(np.float64), spec_z, result.grid).mean() < 0.011
    assert 0.63 < metrics.covered(result.pdf, spec_z, result.grid).mean() < 0.73


@pytest.mark.slow
def test_it_is_a_model_as_any_other(tmp_path: Path) -> None:
    words = ("data.n_galaxies=20", "survey.pixels=64", "trainer.accelerator=cpu", "trainer.threads=1")
    said = run_well("stage=predict", "model=sdss_main", "data=mock", *words, *places(tmp_path)).out
    assert "p(z) have the n(z) of the simulated survey" in said
    table = Table.read(only(tmp_path, "photo_z.fits"), mask_invalid=False)
    assert np.isfinite(table["photo_z"]).all()
