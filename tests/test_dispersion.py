from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from photoz_lit.dispersion import (
    convolve,
    cross_entropy,
    fit_dispersion,
    output_histogram,
    scatter,
    smoothed_scatter,
    variances,
)
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

Golden = Callable[[str], dict[str, Any]]

GRID = RedshiftGrid(0.0, 0.4, 40)
SLICES = MagnitudeSlices(15.0, 1.0, 3)


class Reference:
    """The golden balanced subset with its Step 2 estimates."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays
        n_bins, n_slices = arrays["parent_counts"].shape
        self.grid = RedshiftGrid(0.0, 0.4, n_bins)
        self.slices = MagnitudeSlices(12.5, 0.5, n_slices)
        sub = arrays["lab_sub_index"]
        self.spec_z, self.r = arrays["parent_z"][sub], arrays["parent_r"][sub]
        self.photo_z = (arrays["parent_zphot_bin"][sub] + 0.5) * self.grid.width
        self.s = self.slices.index(self.r)


@pytest.fixture(scope="module")
def reference(golden: Golden) -> Reference:
    return Reference(golden("a2_labels"))


@pytest.mark.parametrize(
    ("array", "sigma"),
    [("lab_xent_at_ones", 1.0), ("lab_xent_at_0.5", 0.5), ("lab_xent_at_2.0", 2.0), ("lab_xent_at_4.0", 4.0)],
)
def test_golden_lab_xent_at(reference: Reference, array: str, sigma: float) -> None:
    y, x = reference.arrays["lab_ydata"].T, reference.arrays["lab_xdata"].T
    total = sum(cross_entropy(a, b, sigma) for a, b in zip(y, x, strict=True))
    np.testing.assert_allclose(total, reference.arrays[array], rtol=1e-10)


def test_golden_lab_xent_at_fit(reference: Reference) -> None:
    y, x = reference.arrays["lab_ydata"].T, reference.arrays["lab_xdata"].T
    sigma = reference.arrays["lab_sigma_disp"]
    total = sum(cross_entropy(a, b, float(s)) for a, b, s in zip(y, x, sigma, strict=True))
    np.testing.assert_allclose(total, reference.arrays["lab_xent_at_fit"].item(), rtol=1e-10)


def test_golden_lab_sigma_disp_true_optimum(reference: Reference) -> None:
    y, x = reference.arrays["lab_ydata"].T, reference.arrays["lab_xdata"].T
    sigma = fit_dispersion(y, x)
    np.testing.assert_allclose(sigma, reference.arrays["lab_sigma_disp_true_optimum"], rtol=1e-4)
    entropy = [cross_entropy(a, b, float(s)) for a, b, s in zip(y, x, sigma, strict=True)]
    np.testing.assert_allclose(entropy, reference.arrays["lab_xent_true_optimum"], rtol=1e-10)
    # The reference's own optimiser stops a few per cent away.
    np.testing.assert_allclose(sigma, reference.arrays["lab_sigma_disp"], rtol=0.04)


def test_golden_lab_sigma_sq_scatter_and_lab_sigma_scatter(reference: Reference) -> None:
    sigma_1 = reference.arrays["lab_sigma_disp"]
    member = reference.slices.membership
    for i, s in enumerate(sigma_1):
        of = member[reference.s, i]
        smooth = smoothed_scatter(reference.spec_z[of], reference.photo_z[of], s, reference.grid)
        np.testing.assert_allclose(smooth, reference.arrays["lab_sigma_sq_scatter"][i], rtol=1e-10)
    sigma_2 = scatter(reference.spec_z, reference.photo_z, reference.s, sigma_1, reference.grid, member)
    np.testing.assert_allclose(sigma_2, reference.arrays["lab_sigma_scatter"], rtol=1e-10)


def test_convolution_keeps_the_sum_and_equals_the_explicit_kernel() -> None:
    hist = np.random.default_rng(1).random(30)
    bins = np.arange(30)
    kernel = np.exp(-0.5 * ((bins[:, None] - bins[None, :]) / 4.0) ** 2)
    np.testing.assert_allclose(convolve(hist, 4.0), (kernel / kernel.sum(axis=0)) @ hist, rtol=1e-12)
    np.testing.assert_allclose(convolve(hist, 4.0).sum(), hist.sum(), rtol=1e-12)


@pytest.mark.parametrize("truth", [0.8, 3.0, 7.5])
def test_dispersion_recovers_the_width_that_made_the_histogram(truth: float) -> None:
    photo = np.random.default_rng(2).integers(0, 50, (2, 120)).astype(float)
    spec = np.array([convolve(row, truth) for row in photo])
    np.testing.assert_allclose(fit_dispersion(spec, photo), truth, rtol=1e-3)


def test_dispersion_of_equal_histograms_is_a_delta() -> None:
    # Spikes five bins apart: any width lowers the agreement.
    hist = np.zeros((1, 50))
    hist[0, ::5] = 1.0
    assert fit_dispersion(hist, hist)[0] <= 0.2


def test_dispersion_of_one_photo_z_for_all_stays_within_its_bounds() -> None:
    spec, photo = np.ones((1, 40)), np.zeros((1, 40))
    photo[0, 20] = 40.0
    assert 5.0 < fit_dispersion(spec, photo)[0] < 10.0 + 1e-9


def test_dispersion_of_an_empty_output_is_its_neighbours() -> None:
    rng = np.random.default_rng(3)
    hist = rng.random((3, 40))
    hist[2] = 0.0
    sigma = fit_dispersion(hist, hist[:, ::-1])
    assert sigma[2] == sigma[1]


def test_dispersion_without_galaxies_is_an_error() -> None:
    with pytest.raises(ValueError, match="no galaxies"):
        fit_dispersion(np.zeros((2, 5)), np.zeros((2, 5)))
    with pytest.raises(ValueError, match="one shape"):
        fit_dispersion(np.zeros((2, 5)), np.zeros((2, 6)))


def test_scatter_of_a_constant_offset_is_that_offset_and_the_dispersion_in_quadrature() -> None:
    z = GRID.centres
    sigma_2 = scatter(z, z + 3 * GRID.width, np.zeros(40, int), [1e-3, 0.5], GRID, np.ones((1, 2)))
    np.testing.assert_allclose(sigma_2[0], 3.0, rtol=1e-6)
    np.testing.assert_allclose(sigma_2[1, 5:-5], np.hypot(3.0, 0.5), rtol=1e-10)


def test_scatter_of_an_empty_bin_is_the_previous_one_and_of_the_outside_zero() -> None:
    z = GRID.centres[[10, 12]]
    smooth = smoothed_scatter(z, z + np.array([2.0, 4.0]) * GRID.width, 1e-3, GRID)
    np.testing.assert_allclose(smooth[9:14], [0.0, 4.0, 4.0, 16.0, 0.0], rtol=1e-10)
    assert not smoothed_scatter([], [], 1.0, GRID).any()


def test_variances_fit_their_own_smoothing_unless_it_is_given() -> None:
    rng = np.random.default_rng(2)
    z = rng.gamma(4.0, 0.03, 3000).clip(0, 0.39)
    estimate, r = z + rng.normal(0, 0.02, 3000), rng.uniform(15, 18, 3000)
    hists = [output_histogram(v, r, GRID, SLICES, SLICES.membership) for v in (z, estimate)]
    fitted = variances(z, estimate, r, GRID, SLICES)
    for ours, given_ in zip(
        fitted, variances(z, estimate, r, GRID, SLICES, fit_dispersion(*hists)), strict=True
    ):
        np.testing.assert_array_equal(ours, given_)
    assert fitted[1].shape == (3, 40)
    assert np.median(np.sqrt(fitted[0])) == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("tag", ["cont", "quant"])
def test_golden_var_inst_and_var_grid(golden: Golden, tag: str) -> None:
    arrays = golden("a1_metrics")
    n_slices, n_bins = arrays[f"var_grid_{tag}"].shape
    per_galaxy, table = variances(
        arrays["zspec"],
        arrays[f"zphoto_{tag}"],
        arrays["r"],
        RedshiftGrid(0.0, 0.4, n_bins),
        MagnitudeSlices(12.5, 0.5, n_slices),
        arrays["siglist"],
    )
    np.testing.assert_allclose(table, arrays[f"var_grid_{tag}"], rtol=1e-10)
    np.testing.assert_allclose(per_galaxy, arrays[f"var_inst_{tag}"], rtol=1e-10)


def test_variances_of_perfect_estimates_are_floored() -> None:
    per_galaxy, table = variances(GRID.centres, GRID.centres, np.full(40, 16.0), GRID, SLICES, [1.0, 1.0])
    np.testing.assert_allclose(per_galaxy, GRID.width**2 / 12)
    assert not table.any()
