"""A deep survey, half of whose galaxies have the colours of two redshifts, through all of `best`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from astropy.table import Table
from command import BANDS, only, places, probabilities, run_well

from photoz_lit.grids import Bools, Floats
from photoz_lit.metrics import plain_slope

pytestmark = pytest.mark.slow

N, FOLD = 12_000, 1.0  # what looks alike is as far on either side of this redshift
SURVEY = (
    *("survey.name=deep", "survey.z_max=2", "survey.n_bins=60", "survey.extend_left=30"),
    *("survey.extend_right=30", "survey.r_min=18", "survey.r_width=2", "survey.n_slices=3"),
)
TRAINED = (
    *("training.representation.max_steps=800", "training.representation.check_every=100"),
    *("training.representation.batch_size=256", "training.representation.lr=0.005"),
    *("training.step3.batch_size=256", "training.hidden.max_steps=300", "training.hidden.check_every=50"),
    *("training.hidden.lr=0.003", "estimate=median", "n_bootstrap=2"),
    *("logger=none", "trainer.accelerator=cpu", "trainer.threads=1"),
)


def deep_table() -> tuple[Table, Bools]:
    """Draw galaxies of z to 2, and say which of them have the colours of two redshifts."""
    rng = np.random.default_rng(0)
    z = rng.normal(0.9, 0.45, 3 * N)
    z, r, lost = z[(z > 0.02) & (z < 1.98)][:N], rng.uniform(18, 24, N), rng.random(N) < 0.5
    x, noise = np.where(lost, np.abs(z - FOLD), z), 0.02 + 0.01 * (r - 18)
    table = Table({"object_id": np.arange(N), "spec_z": z})
    for i, band in enumerate(BANDS):
        colour = (2 - i) * 0.5 * x + (1.5 * lost if band == "u" else 0)
        table[f"mag_{band}"] = r + colour + noise * rng.standard_normal(N)
        table[f"mag_err_{band}"] = noise
    return table, lost


@dataclass(frozen=True)
class Results:
    """What a correction left for the test split."""

    table: Table
    pdf: Floats
    centres: Floats
    metrics: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "Results":
        with h5py.File(folder / "pdf.hdf5") as file:
            pdf, edges = probabilities(file), file["meta/bins"][0]
        table = Table.read(folder / "photo_z.fits", mask_invalid=False)
        numbers = json.loads((folder / "metrics.json").read_text())
        return cls(table, pdf, (edges[1:] + edges[:-1]) / 2, numbers)

    def near(self, z: Floats) -> Floats:
        """Return the share of each p(z) that is within 0.2 of a redshift."""
        return np.asarray((self.pdf * (np.abs(self.centres - z[:, None]) < 0.2)).sum(axis=1))

    def __getitem__(self, name: str) -> Floats:
        return np.asarray(self.table[name], dtype=np.float64)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Results, Results, Bools]:
    """Return results of `none` and `best`, and which of their galaxies have the colours of two redshifts."""
    folder = tmp_path_factory.mktemp("deep")
    table, lost = deep_table()
    table.write(folder / "galaxies.csv")
    words = (
        *("data=catalogue", f"data.path={folder / 'galaxies.csv'}", "data.columns.dered_petro_r=mag_r"),
        *("data.val_fraction=0.1", "data.test_fraction=0.4", "encoder=mlp", "encoder.hidden=[64,64]"),
        *(*SURVEY, *TRAINED, *places(folder)),
    )
    run_well("-m", "stage=classifier", "fit_missing=true", "correction=none,best", *words)
    none, best = (Results.read(only(folder, f"classifier/correction={n},*")) for n in ("none", "best"))
    return none, best, lost[np.asarray(best.table["object_id"])]


def test_two_peaks_stay_two(deep: tuple[Results, Results, Bools]) -> None:
    _, best, lost = deep
    z = best["spec_z"]
    far = lost & (np.abs(z - FOLD) > 0.4)
    assert far.sum() > 500
    here, there = (np.median(best.near(peak)[far]) for peak in (z, 2 * FOLD - z))
    assert min(here, there) > 0.25
    assert here + there > 0.85


def test_the_product_is_as_good_as_without(deep: tuple[Results, Results, Bools]) -> None:
    none, best, _ = deep
    assert 0.63 < best.metrics["coverage_68"] < 0.73
    assert best.metrics["crps"] <= none.metrics["crps"]
    assert best.metrics["sigma_mad"] < 1.05 * none.metrics["sigma_mad"]
    z, inside = best["spec_z"], (best["photo_z_lower"], best["photo_z_upper"])
    assert 0.63 < np.mean((inside[0] <= z) & (z <= inside[1])) < 0.73


def test_estimates_for_given_spec_z_are_where_they_hold(deep: tuple[Results, Results, Bools]) -> None:
    """Galaxies that can be told apart have them, as good as their median, whatever others are among them."""
    _, best, lost = deep
    z, estimate, error = (best[name] for name in ("spec_z", "photo_z_individual", "photo_z_individual_err"))
    has, off = np.isfinite(estimate), estimate - z
    np.testing.assert_array_equal(has, np.isfinite(error))
    far = lost & (np.abs(z - FOLD) > 0.4)
    assert has[far].mean() < 0.08
    assert has[lost].mean() < 0.3  # near FOLD the two are nearly one
    assert 0.55 < np.mean(np.abs(off)[has & lost] < error[has & lost]) < 0.75
    assert has[~lost].mean() > 0.98
    assert 0.62 < np.mean(np.abs(off) < error, where=has) < 0.74
    sharp = has & ~lost
    assert 0.62 < np.mean(np.abs(off)[sharp] < error[sharp]) < 0.76
    of_median = np.median(np.abs(best["photo_z_median"] - z)[sharp])
    assert np.median(np.abs(off)[sharp]) < 1.25 * of_median
    assert abs(plain_slope(z[sharp], off[sharp])) < 0.06
    middle = sharp & (np.abs(z - FOLD) < 0.3)  # where those of two redshifts have one
    assert abs(off[middle].mean()) < 0.01
    assert np.median(np.abs(off)[middle]) < 1.25 * of_median
