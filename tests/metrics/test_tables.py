import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from estimates import EXTENDED, GRID, SLICES, Reference, bootstrap, gaussian_pdf, sample, within_seeds

from photoz_lit import metrics
from photoz_lit.grids import RedshiftGrid

Golden = Callable[[str], dict[str, Any]]

KEYS = [
    "bias",
    "sigma_mad",
    "rms",
    "outlier_fraction",
    "crps",
    "pit_ks",
    "pit_cvm",
    "cde_loss",
    "coverage_68",
    "coverage_95",
    "slope_spec_z",
    "slope_spec_z_high",
    "slope_photo_z",
    "slope_spec_z_plain",
    "slope_photo_z_plain",
    "slope_slices",
    "total_variation",
    "total_variation_floor",
    "wasserstein",
]

DIFFERENCES = RedshiftGrid(-3.0, 1.0, 40)


def test_golden_noboot(reference: Reference) -> None:
    """The arrays tv_noboot, wdist_noboot, sigmad_noboot and rmean_noboot."""
    z, estimate = reference.spec_z, reference.photo_z
    rng = np.random.default_rng(0)
    tv = metrics.total_variation(z, estimate, reference.grid)
    np.testing.assert_allclose(tv, reference["tv_noboot"], rtol=1e-10)
    slices = metrics.by_magnitude(
        z, estimate, reference.r, reference.slices.edges, outlier_cut=0.05, rng=rng, n_bootstrap=2
    )
    np.testing.assert_allclose(slices["sigma_mad"], reference["sigmad_noboot"], rtol=1e-10)
    np.testing.assert_allclose(slices["r"], reference["rmean_noboot"], rtol=1e-10)
    edges = np.linspace(
        reference.slices.edges[0], reference.slices.edges[-1], len(reference["wdist_noboot"]) + 1
    )

    def in_bins(values: Any) -> Any:
        """Return centres of bins: the reference's distance is that of histograms."""
        return reference.grid.centres[reference.grid.index(values)]

    wide = metrics.by_magnitude(
        in_bins(z), in_bins(estimate), reference.r, edges, outlier_cut=0.05, rng=rng, n_bootstrap=2
    )
    np.testing.assert_allclose(wide["wasserstein"], reference["wdist_noboot"], rtol=1e-10)


def test_golden_sigmad_seeds(reference: Reference) -> None:
    seeds = reference["sigmad_seeds"]
    rng = np.random.default_rng(1)
    table = metrics.by_magnitude(
        reference.spec_z, reference.photo_z, reference.r, reference.slices.edges, outlier_cut=0.05, rng=rng
    )
    np.testing.assert_allclose(table["r_err"], seeds[:, 1].mean(axis=0), rtol=0.4)
    np.testing.assert_allclose(table["sigma_mad_err"], seeds[:, 3].mean(axis=0), rtol=0.4)
    dz = metrics.residual(reference.spec_z, reference.photo_z)
    rows = reference.slices.index(reference.r)
    for row in range(reference.slices.n_slices):
        part = dz[rows == row]

        def statistic(draw: Any, part: Any = part) -> float:
            return metrics.sigma_mad(part[draw])

        samples = bootstrap(statistic, len(part), 100, rng)
        within_seeds(samples.mean(), seeds[:, 2, row])


def test_golden_wdist_seeds(reference: Reference) -> None:
    """Only the distance and its error: the reference's magnitudes are wrong."""
    seeds = reference["wdist_seeds"]
    n_rows = seeds.shape[2]
    edges = np.linspace(reference.slices.edges[0], reference.slices.edges[-1], n_rows + 1)
    row = np.clip(np.searchsorted(edges, reference.r, side="right") - 1, 0, n_rows - 1)
    rng = np.random.default_rng(2)

    def in_bins(values: Any) -> Any:
        """Return centres of bins: the reference's distance is that of histograms."""
        return reference.grid.centres[reference.grid.index(values)]

    for i in range(n_rows):
        z, estimate = in_bins(reference.spec_z[row == i]), in_bins(reference.photo_z[row == i])

        def statistic(draw: Any, z: Any = z, estimate: Any = estimate) -> float:
            return metrics.wasserstein(z[draw], estimate[draw])

        samples = bootstrap(statistic, len(z), 100, rng)
        within_seeds(samples.mean(), seeds[:, 2, i])
        np.testing.assert_allclose(metrics.standard_error(samples), seeds[:, 3, i].mean(), rtol=0.4)


def test_by_magnitude_with_an_empty_row() -> None:
    z, estimate, _, _ = sample(100)
    r = np.where(np.arange(100) < 99, 15.5, 17.5)
    table = metrics.by_magnitude(
        z, estimate, r, SLICES.edges, outlier_cut=0.05, rng=np.random.default_rng(0), n_bootstrap=10
    )
    np.testing.assert_array_equal(table["count"], [99, 0, 1])
    assert np.isnan(table["sigma_mad"][1])
    assert np.isnan(table["sigma_mad_err"][1])
    assert table["sigma_mad_err"][2] == 0.0
    assert table["r"][0] == pytest.approx(15.5)


def test_by_redshift_sees_each_bin_alone() -> None:
    z, estimate, _, pdf = sample(3000)
    narrow = gaussian_pdf(estimate, 0.008, EXTENDED)
    scores = metrics.pdf_scores(np.where(z[:, None] < 0.1, pdf, narrow), z, EXTENDED)
    edges = np.array([0.0, 0.1, 0.3, 0.35, 9.0])
    table = metrics.by_redshift(
        z, estimate, scores, edges, outlier_cut=0.05, rng=np.random.default_rng(0), n_bootstrap=50
    )
    assert table["count"].sum() == 3000
    part = (z >= 0.1) & (z < 0.3)
    assert table["count"][1] == part.sum()
    assert table["bias"][1] == pytest.approx(metrics.residual(z, estimate)[part].mean())
    assert table["spec_z"][1] == pytest.approx(z[part].mean())
    assert table["crps"][1] == pytest.approx(metrics.crps(narrow, z, EXTENDED)[part].mean())
    assert table["pit_ks"][1] == metrics.pit_ks(metrics.pit(narrow, z, EXTENDED)[part])
    share = metrics.covered(narrow, z, EXTENDED)[part].mean()
    assert table["coverage_68"][1] == pytest.approx(share)
    assert table["coverage_68_err"][1] == pytest.approx(np.sqrt(share * (1 - share) / part.sum()), rel=0.4)
    assert table["coverage_68"][0] > table["coverage_68"][1] + 0.2
    assert (table["coverage_68"] <= table["coverage_95"]).all()


def test_by_group_with_an_empty_group() -> None:
    scores = metrics.pdf_scores(np.full((3, 40), 1 / 40), [0.1, 0.2, 0.3], GRID)
    table = metrics.by_group(scores.summary, [0, 2, 2], 3, rng=np.random.default_rng(0), n_bootstrap=10)
    np.testing.assert_array_equal(table["count"], [1, 0, 2])
    np.testing.assert_allclose(table["cde_loss"], [-2.5, np.nan, -2.5])
    np.testing.assert_allclose(table["cde_loss_err"], [0, np.nan, 0], atol=1e-12)


def test_evaluate_gives_all_keys_fast_and_the_same_by_seed() -> None:
    z, estimate, r, _ = sample(4000)
    grid = RedshiftGrid(0.0, 0.4, 180, 90, 90)
    pdf = gaussian_pdf(estimate, 0.02, grid).astype(np.float32)
    start = time.process_time()
    first = metrics.evaluate(
        z, estimate, r, pdf, grid, SLICES, outlier_cut=0.05, rng=np.random.default_rng(1)
    )
    assert time.process_time() - start < 10  # about 1 s; other work on the machine makes it slower
    assert set(first) == {"n", *KEYS, *(f"{key}_err" for key in KEYS)}
    assert np.isfinite(list(first.values())).all()
    assert first["n"] == 4000
    assert first["coverage_68"] == metrics.covered(pdf, z, grid, 0.68).mean()
    assert first["coverage_95"] == metrics.covered(pdf, z, grid, 0.95).mean()
    assert first["cde_loss"] == metrics.cde_loss(pdf, z, grid).mean()
    assert first["coverage_95_err"] == pytest.approx(np.sqrt(0.95 * 0.05 / 4000), rel=0.5)
    again = metrics.evaluate(
        z, estimate, r, pdf, grid, SLICES, outlier_cut=0.05, rng=np.random.default_rng(1)
    )
    assert first == again


def test_evaluate_sees_the_biases() -> None:
    z, estimate, r, _ = sample(4000)
    shrunk = 0.12 + 0.7 * (estimate - 0.12)
    options: dict[str, Any] = {"outlier_cut": 0.05, "n_bootstrap": 20}
    honest = metrics.evaluate(z, estimate, r, None, GRID, SLICES, rng=np.random.default_rng(1), **options)
    biased = metrics.evaluate(z, shrunk, r, None, GRID, SLICES, rng=np.random.default_rng(1), **options)
    assert abs(honest["slope_spec_z"]) < 4 * honest["slope_spec_z_err"]
    assert biased["slope_spec_z"] == pytest.approx(-0.27, abs=0.05)
    for key in ("crps", "pit_ks", "pit_cvm", "cde_loss", "coverage_68", "coverage_95"):
        assert np.isnan([honest[key], honest[f"{key}_err"]]).all()


@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
def test_evaluate_small_samples_and_constant_estimates(n: int) -> None:
    z, estimate, r, pdf = sample(n)
    for photo_z in (estimate, np.full(n, 0.1), z, estimate - 1.0):
        numbers = metrics.evaluate(
            z,
            photo_z,
            r,
            pdf,
            EXTENDED,
            SLICES,
            outlier_cut=0.05,
            rng=np.random.default_rng(2),
            n_bootstrap=10,
        )
        assert np.isfinite([numbers["bias"], numbers["crps"], numbers["total_variation"]]).all()


def test_evaluate_refuses_what_it_cannot_judge() -> None:
    options: dict[str, Any] = {"outlier_cut": 0.05, "rng": np.random.default_rng(0)}
    with pytest.raises(ValueError, match="one length above 0"):
        metrics.evaluate([], [], [], None, GRID, SLICES, **options)
    with pytest.raises(ValueError, match="finite"):
        metrics.evaluate([0.1], [np.nan], [16.0], None, GRID, SLICES, **options)
    with pytest.raises(ValueError, match="n_bootstrap"):
        metrics.evaluate([0.1], [0.1], [16.0], None, GRID, SLICES, n_bootstrap=0, **options)
    with pytest.raises(ValueError, match="one length"):
        metrics.residual([0.1], [0.1, 0.2])


def tilted(tilt: float = -0.2, offset: float = 0.05) -> tuple[Any, Any, Any]:
    """Return truths at the centres of the wide bins, estimates on a straight line of them, and r."""
    truth = np.repeat(DIFFERENCES.centres, 30)
    return truth, truth + offset + tilt * (truth + 1), np.tile([15.5, 16.5, 17.5], 400)


def test_differences_have_the_slope_and_the_bias_that_they_were_made_with() -> None:
    truth, estimate, r = tilted()
    np.testing.assert_array_equal(metrics.residual(truth, estimate, relative=False), estimate - truth)
    numbers = metrics.evaluate(
        truth,
        estimate,
        r,
        None,
        DIFFERENCES,
        SLICES,
        outlier_cut=0.31,
        rng=np.random.default_rng(0),
        n_bootstrap=3,
        z_high=0.0,
        relative=False,
    )
    assert numbers["slope_spec_z"] == pytest.approx(-0.2)
    assert numbers["slope_spec_z_high"] == pytest.approx(-0.2)
    assert numbers["slope_spec_z_plain"] == pytest.approx(-0.2)
    assert numbers["slope_photo_z_plain"] == pytest.approx(-0.25)
    assert numbers["rms"] == pytest.approx(np.sqrt(np.mean((estimate - truth) ** 2)))
    assert numbers["bias"] == pytest.approx(0.05)  # the truths have the mean -1
    # abs(0.05 - 0.2 (x + 1)) > 0.31 for x > 0.8 or x < -2.3: 2 and 7 of the 40 centres.
    assert numbers["outlier_fraction"] == pytest.approx(9 / 40)
    # The estimates' spacing is 0.8 of a bin, and the residual falls by 0.2 a unit of truth.
    assert numbers["slope_photo_z"] == pytest.approx(-0.25, abs=0.01)


def test_differences_by_truth_and_by_magnitude() -> None:
    truth, estimate, r = tilted(tilt=0.0, offset=-0.1)
    binned = metrics.residuals_by_spec_z(truth, estimate, np.full(1200, 0.04), DIFFERENCES, relative=False)
    np.testing.assert_allclose(binned.mean, -0.1)
    np.testing.assert_allclose(binned.error, 0.2 / np.sqrt(30))
    by_estimate = metrics.residuals_by_photo_z(truth, estimate, DIFFERENCES, relative=False)
    np.testing.assert_allclose(by_estimate.mean, -0.1)
    common: dict[str, Any] = {"outlier_cut": 0.3, "rng": np.random.default_rng(0), "n_bootstrap": 2}
    slices = metrics.by_magnitude(truth, estimate, r, SLICES.edges, relative=False, **common)
    np.testing.assert_allclose(slices["bias"], -0.1)
    np.testing.assert_allclose(slices["rms"], 0.1)
    by_r = metrics.by_magnitude(
        truth, estimate - 0.1 * (r - 15) * truth, r, SLICES.edges, relative=False, **common
    )
    np.testing.assert_allclose(by_r["slope_spec_z_plain"], [-0.05, -0.15, -0.25])
    scores = metrics.pdf_scores(None, truth, DIFFERENCES)
    bins = metrics.by_redshift(truth, estimate, scores, np.linspace(-3, 1, 5), relative=False, **common)
    np.testing.assert_allclose(bins["bias"], -0.1)
    floor = metrics.total_variation_floor(
        truth,
        estimate,
        np.full(1200, 1e-12),
        DIFFERENCES,
        np.random.default_rng(0),
        n_draws=2,
        relative=False,
    )
    # All estimates move by one bin: the first is empty, the last two are one.
    np.testing.assert_allclose(floor, metrics.total_variation(truth, truth - 0.1, DIFFERENCES))
