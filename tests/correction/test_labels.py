from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz_lit.correction.labels import (
    LabelTable,
    build_label_table,
    centre_of_mass,
    gaussian_labels,
    shifted_mean,
)
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, cell_counts

Golden = Callable[[str], dict[str, Any]]

GRID = RedshiftGrid(0.0, 0.4, 40)
SLICES = MagnitudeSlices(15.0, 1.0, 3)


class Reference:
    """The golden labels with the sizes that follow from the arrays."""

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.arrays = arrays
        n_bins, n_slices = arrays["parent_counts"].shape
        self.n_extended = arrays["lab_yz_on_soft_shift"].shape[1]
        self.left = (self.n_extended - n_bins) // 2
        self.grid = RedshiftGrid(0.0, 0.4, n_bins)
        self.slices = MagnitudeSlices(12.5, 0.5, n_slices)
        self.extend = (self.left, self.n_extended - n_bins - self.left)
        sub = arrays["lab_sub_index"]
        self.spec_z, self.r = arrays["parent_z"][sub], arrays["parent_r"][sub]
        self.photo_z = (arrays["parent_zphot_bin"][sub] + 0.5) * self.grid.width
        self.k, self.s = self.grid.index(self.spec_z), self.slices.index(self.r)
        pick = arrays["lab_pick"]
        galaxy, self.output = np.nonzero(arrays["lab_yz_mask"])
        self.picked_k, self.picked_s = self.k[pick][galaxy], self.s[pick][galaxy]

    def labels(self, shift: str, soften: bool, truncated: bool = False) -> Any:
        """Labels of the picked galaxies' member outputs with the reference's own sigma_1."""
        counts = np.round(self.arrays["lab_dist2d_zr_train_sub"].T * len(self.spec_z))
        mean = shifted_mean(counts, self.arrays["lab_sigma_scatter"], shift)  # type: ignore[arg-type]
        sigma = self.arrays["lab_sigma_disp"] * soften
        mean = mean[self.picked_s, self.picked_k, self.output]
        mean = np.floor(mean) if truncated else mean
        return gaussian_labels(mean, sigma[self.output], self.grid.extended(*self.extend))


def every_label(table: LabelTable) -> np.ndarray:
    """Labels of all cells, (S, K, R, n_outputs)."""
    shape = table.mean.shape
    return table.rows(*np.indices(shape[:2]).reshape(2, -1)).reshape(*shape, -1)


@pytest.fixture(scope="module")
def reference(golden: Golden) -> Reference:
    return Reference(golden("a2_labels"))


def test_golden_lab_xdata_lab_ydata(reference: Reference) -> None:
    table = build_label_table(
        reference.spec_z, reference.photo_z, reference.r, reference.grid, reference.slices
    )
    np.testing.assert_allclose(table.spec_z_hist.T, reference.arrays["lab_ydata"], rtol=1e-10)
    np.testing.assert_allclose(table.photo_z_hist.T, reference.arrays["lab_xdata"], rtol=1e-10)


def test_golden_lab_dist2d_zr_train_sub_and_zphotor_train_sub(reference: Reference) -> None:
    table = build_label_table(
        reference.spec_z, reference.photo_z, reference.r, reference.grid, reference.slices
    )
    fraction = table.counts.T / len(reference.spec_z)
    np.testing.assert_allclose(fraction, reference.arrays["lab_dist2d_zr_train_sub"], rtol=1e-10)
    photo = cell_counts(reference.photo_z, reference.r, reference.grid, reference.slices).T
    expected = reference.arrays["lab_dist2d_zphotor_train_sub"]
    np.testing.assert_allclose(photo / len(reference.photo_z), expected, rtol=1e-10)


def test_golden_lab_yz_mask(reference: Reference) -> None:
    pick = reference.arrays["lab_pick"]
    np.testing.assert_array_equal(
        reference.slices.membership[reference.s[pick]], reference.arrays["lab_yz_mask"]
    )
    np.testing.assert_array_equal(reference.s[pick], reference.arrays["lab_yr"].argmax(axis=1))


def test_golden_lab_trace_i_zindex_zcm_zad(reference: Reference) -> None:
    trace = reference.arrays["lab_trace_i_zindex_zcm_zad"]
    counts = np.round(reference.arrays["lab_dist2d_zr_train_sub"].T * len(reference.spec_z))
    at = (reference.picked_s, reference.picked_k, reference.output)
    centre = centre_of_mass(counts, reference.arrays["lab_sigma_scatter"])[at]
    mean = shifted_mean(counts, reference.arrays["lab_sigma_scatter"])[at]
    np.testing.assert_array_equal(reference.picked_k + reference.left, trace[:, 1])
    np.testing.assert_allclose(centre + reference.left, trace[:, 2], rtol=1e-10)
    np.testing.assert_allclose(mean + reference.left, trace[:, 3], rtol=1e-10)


def test_golden_lab_yz_on_soft_shift(reference: Reference) -> None:
    expected = reference.arrays["lab_yz_on_soft_shift"]
    # Far tails near the smallest float64 carry fewer digits; nothing below 1e-290 matters.
    np.testing.assert_allclose(reference.labels("mirror", True), expected, rtol=1e-10, atol=1e-290)


def test_golden_lab_yz_on_soft_noshift(reference: Reference) -> None:
    expected = reference.arrays["lab_yz_on_soft_noshift"]
    np.testing.assert_allclose(reference.labels("none", True), expected, rtol=1e-6, atol=1e-37)


def test_golden_lab_yz_on_hard_shift(reference: Reference) -> None:
    """The reference truncates the shifted mean; ours rounds it and so lies at most one bin above."""
    expected = reference.arrays["lab_yz_on_hard_shift"]
    np.testing.assert_array_equal(reference.labels("mirror", False, truncated=True).argmax(axis=1), expected)
    assert set(np.unique(reference.labels("mirror", False).argmax(axis=1) - expected)) <= {0, 1}


def test_golden_lab_yz_on_hard_noshift(reference: Reference) -> None:
    labels = reference.labels("none", False)
    np.testing.assert_array_equal(labels.argmax(axis=1), reference.arrays["lab_yz_on_hard_noshift"])
    np.testing.assert_array_equal(labels.sum(axis=1), 1.0)


def test_golden_lab_yz_on_soft_shift_through_the_table(reference: Reference) -> None:
    """The whole chain with its own sigma_1 stays as close as the reference's optimiser is to the optimum."""
    table = build_label_table(
        reference.spec_z,
        reference.photo_z,
        reference.r,
        reference.grid,
        reference.slices,
        extend=reference.extend,
    )
    pick = reference.arrays["lab_pick"]
    rows = table.rows(reference.s[pick], reference.k[pick])
    assert rows.shape == (*reference.arrays["lab_yz_mask"].shape, reference.n_extended)
    on, off = rows[reference.arrays["lab_yz_mask"]], rows[~reference.arrays["lab_yz_mask"]]
    np.testing.assert_allclose(on, reference.arrays["lab_yz_on_soft_shift"], atol=5e-3)
    np.testing.assert_array_equal(off, np.float32(1 / reference.n_extended))


def sample(n: int, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    spec_z = rng.uniform(0.0, 0.4, n)
    return spec_z, np.clip(spec_z + rng.normal(0, 0.02, n), 0, 0.3999), rng.uniform(15.0, 18.0, n)


def test_mirrored_mean_arithmetic() -> None:
    # Two equal bins side by side, seen from the first: c = e / (1 + e) with e = exp(-1/8), m = -c.
    counts, sigma_2 = np.zeros((1, 6)), np.full((1, 6), 2.0)
    counts[0, :2] = 7.0
    c = np.exp(-1 / 8) / (1 + np.exp(-1 / 8))
    np.testing.assert_allclose(centre_of_mass(counts, sigma_2)[0, 0, 0], c)
    np.testing.assert_allclose(shifted_mean(counts, sigma_2, "mirror")[0, 0, 0], -c)
    np.testing.assert_allclose(shifted_mean(counts, sigma_2, "centre_of_mass")[0, 0, 0], c)
    np.testing.assert_allclose(shifted_mean(counts, sigma_2, "mirror", 0.5)[0, 0, 0], -c / 2)
    np.testing.assert_array_equal(shifted_mean(counts, sigma_2, "none")[0, :, 0], np.arange(6))
    with pytest.raises(ValueError, match="mirror, centre_of_mass or none"):
        shifted_mean(counts, sigma_2, "sideways")  # type: ignore[arg-type]


def test_mirror_moves_outwards_at_the_boundaries_and_not_in_the_middle() -> None:
    mean = shifted_mean(np.ones((1, 101)), np.full((1, 101), 5.0))[0, :, 0]
    assert mean[0] < -3.0
    assert mean[100] > 103.0
    np.testing.assert_allclose(mean[50], 50.0, atol=1e-10)
    np.testing.assert_allclose(mean + mean[::-1], 100.0, atol=1e-10)


def test_centre_of_mass_without_galaxies() -> None:
    counts = np.zeros((2, 200))
    counts[1, 3] = 1.0
    centre = centre_of_mass(counts, np.full((1, 200), 0.5))[:, :, 0]
    np.testing.assert_array_equal(centre[0], np.arange(200))
    np.testing.assert_allclose(centre[1], 3.0)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.2, 8.0))
def test_shift_is_translation_invariant(seed: int, step: int, sigma: float) -> None:
    counts = np.zeros((1, 60))
    counts[0, 20:40] = np.random.default_rng(seed).integers(1, 9, 20)
    width = np.full((1, 60), sigma)
    mean = shifted_mean(counts, width)[0, 20:40, 0]
    moved = shifted_mean(np.roll(counts, step, axis=1), width)[0, 20 + step : 40 + step, 0]
    np.testing.assert_allclose(moved, mean + step, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(0.0, 1e3), st.integers(0, 30), st.integers(0, 30))
def test_labels_are_normalised_wherever_the_mean_is(mean: float, sigma: float, left: int, right: int) -> None:
    labels = gaussian_labels([mean], [sigma], GRID.extended(left, right))
    assert np.isfinite(labels).all()
    np.testing.assert_allclose(labels.sum(), 1.0, rtol=1e-12)


def test_one_hot_labels_round_a_half_up_and_narrow_labels_are_one_hot() -> None:
    grid = GRID.extended(2, 2)
    labels = gaussian_labels([4.5, 5.5, -1.6, 39.4, 500.0], 0.09, grid)
    np.testing.assert_array_equal(labels.argmax(axis=1) - 2, [5, 6, -2, 39, 41])
    assert set(np.unique(labels)) == {0.0, 1.0}
    assert gaussian_labels([4.5], 0.11, grid).max() < 1.0


def test_a_soft_label_has_the_mean_and_width_asked_for() -> None:
    label = gaussian_labels([-3.3], [2.5], GRID.extended(30, 30))[0]
    bins = np.arange(100) - 30
    mean = label @ bins
    np.testing.assert_allclose([mean, label @ (bins - mean) ** 2], [-3.3, 2.5**2], rtol=1e-6)


@pytest.mark.parametrize("soften", [True, False])
@pytest.mark.parametrize("shift", ["mirror", "centre_of_mass", "none"])
@pytest.mark.parametrize("extend", [(0, 0), (10, 25)])
def test_rows_are_normalised_and_uniform_off_slice(soften: bool, shift: Any, extend: tuple[int, int]) -> None:
    z, estimate, r = sample(3000)
    table = build_label_table(z, estimate, r, GRID, SLICES, extend=extend, soften=soften, shift=shift)
    rows = table.rows(SLICES.index(r[:200]), GRID.index(z[:200]))
    assert rows.dtype == np.float32
    assert rows.shape == (200, 2, 40 + sum(extend))
    np.testing.assert_allclose(rows.sum(axis=2), 1.0, rtol=1e-5)
    off = ~SLICES.membership[SLICES.index(r[:200])]
    np.testing.assert_array_equal(rows[off], np.float32(1 / (40 + sum(extend))))


def test_the_full_table_holds_the_same_rows() -> None:
    z, estimate, r = sample(500)
    table = build_label_table(z, estimate, r, GRID, SLICES, extend=(5, 5))
    full = every_label(table)
    assert full.shape == (3, 40, 2, 50)
    s, k = SLICES.index(r), GRID.index(z)
    np.testing.assert_array_equal(full[s, k], table.rows(s, k))


def test_a_single_output_over_all_slices_gets_the_same_corrections() -> None:
    z, estimate, r = sample(3000)
    table = build_label_table(
        z, estimate, r, GRID, SLICES, extend=(10, 10), membership=np.ones((3, 1), dtype=bool)
    )
    assert table.mean.shape == (3, 40, 1)
    assert table.mean[1, 0, 0] < -0.5
    assert table.rows([0, 2], [0, 39]).shape == (2, 1, 60)


def test_labels_of_degenerate_samples_are_finite() -> None:
    # One galaxy; one galaxy a class; all estimates equal; a slice and an output without galaxies.
    samples: list[tuple[Any, Any, Any]] = [
        ([0.1], [0.12], [15.2]),
        (GRID.centres, GRID.centres, np.full(40, 17.5)),
        (GRID.centres, np.full(40, 0.1), np.full(40, 16.5)),
    ]
    for z, estimate, r in samples:
        table = build_label_table(z, estimate, r, GRID, SLICES, extend=(4, 4))
        assert np.isfinite(every_label(table)).all()
        np.testing.assert_allclose(every_label(table).sum(axis=-1), 1.0, rtol=1e-5)


def test_labels_of_a_bad_sample_are_errors() -> None:
    with pytest.raises(ValueError, match="empty"):
        build_label_table([], [], [], GRID, SLICES)
    with pytest.raises(ValueError, match="finite"):
        build_label_table([0.1], [np.nan], [16.0], GRID, SLICES)
    with pytest.raises(ValueError, match="no finite"):
        build_label_table([0.1], [0.1], [np.nan], GRID, SLICES)
    with pytest.raises(ValueError, match="membership has 2 rows"):
        build_label_table([0.1], [0.1], [16.0], GRID, SLICES, membership=np.ones((2, 1)))


def test_mean_label_is_that_of_the_outputs_a_galaxy_belongs_to() -> None:
    slices, grid = MagnitudeSlices(12.0, 1.0, 3), RedshiftGrid(0.0, 0.4, 4)
    z, r = grid.centres[[0, 0, 1, 3]], np.array([12.5, 12.5, 13.5, 14.5])
    table = build_label_table(z, z, r, grid, slices, shift="none", soften=False)
    prior = table.mean_label(slices.index(r), grid.index(z))
    np.testing.assert_allclose(prior, [[0.5, 0, 0, 0], [0, 0.25, 0, 0], [0, 0, 0, 0.25]])


def test_a_survey_as_large_as_cfhtls_needs_no_full_table() -> None:
    grid, slices = RedshiftGrid(0.0, 4.0, 1000), MagnitudeSlices(16.0, 0.5, 19)
    rng = np.random.default_rng(5)
    z, r = rng.gamma(4.0, 0.2, 5000), rng.uniform(18.0, 25.5, 5000)
    table = build_label_table(z, z + rng.normal(0, 0.05, 5000), r, grid, slices, extend=(500, 1000))
    rows = table.rows(slices.index(r[:64]), grid.index(z[:64]))
    assert rows.shape == (64, 10, 2500)
    np.testing.assert_allclose(rows.sum(axis=2), 1.0, rtol=1e-5)
