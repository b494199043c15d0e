import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, bin_of, cell_counts, cell_index

SDSS = RedshiftGrid(0.0, 0.4, 180)


def test_centres_and_edges_with_and_without_extension() -> None:
    grid = RedshiftGrid(0.2, 0.6, 4)
    np.testing.assert_allclose(grid.centres, [0.25, 0.35, 0.45, 0.55])
    np.testing.assert_allclose(grid.edges, [0.2, 0.3, 0.4, 0.5, 0.6])
    extended = grid.extended(1, 2)
    assert extended.n_outputs == 7
    np.testing.assert_allclose(extended.centres, [0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75])
    np.testing.assert_allclose(extended.edges, np.arange(1, 9) * 0.1)
    assert extended.width == grid.width


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 179), st.integers(0, 100), st.integers(0, 100))
def test_the_index_of_a_centre_is_its_bin_whatever_the_extension(k: int, left: int, right: int) -> None:
    grid = SDSS.extended(left, right)
    assert grid.index(grid.centres[left + k]) == k


def test_the_index_is_clipped_to_the_survey() -> None:
    np.testing.assert_array_equal(SDSS.index([-1.0, 0.0, 0.4, 9.0]), [0, 0, 179, 179])
    np.testing.assert_array_equal(SDSS.index([-np.inf, -1e300, 1e300, np.inf]), [0, 0, 179, 179])
    extended = SDSS.extended(90, 45)
    np.testing.assert_array_equal(extended.output_index([-9.0, -0.2, 0.0, 0.4, 9.0]), [0, 0, 90, 270, 314])


GRIDS = {
    "wide survey": RedshiftGrid(0.0, 4.0, 400),
    "CFHTLS": RedshiftGrid(0.0, 4.0, 1000, 500, 1000),
    "SDSS": SDSS.extended(90, 90),
    "demo": RedshiftGrid(0.0, 0.4, 90),
    "few bins": RedshiftGrid(0.0, 0.4, 60, 7, 3),
    "bins of 0.01": RedshiftGrid(0.0, 0.4, 40),
    "blueshifts": RedshiftGrid(-0.05, 0.4, 90, 45, 45),
    "hundredths from below zero": RedshiftGrid(-0.1, 1.3, 140),
    "tenths from below zero": RedshiftGrid(-0.3, 0.7, 10, 3, 5),
    "not from zero": RedshiftGrid(0.1, 1.3, 120),
    "another quantity": RedshiftGrid(6.5, 12.5, 120, 30, 30),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_value_on_an_edge_is_in_the_bin_that_its_decimal_says(
    grid: RedshiftGrid, dtype: type[np.floating]
) -> None:
    k = np.arange(grid.n_bins)
    own = grid.edges[grid.extend_left : grid.extend_left + grid.n_bins]
    for values in (own, own.round(12), np.array([float(f"{e:.12g}") for e in own])):
        np.testing.assert_array_equal(grid.index(values.astype(dtype)), k)
    every = np.arange(grid.n_outputs)
    np.testing.assert_array_equal(grid.output_index(grid.edges[:-1].astype(dtype)), every)
    np.testing.assert_array_equal(grid.output_index(grid.centres.astype(dtype)), every)
    # What single precision rounded stays on its edge where it was turned into double since.
    np.testing.assert_array_equal(grid.index(own.astype(np.float32).astype(np.float64)), k)


def test_redshifts_of_two_decimals_are_in_their_bins() -> None:
    k = np.arange(400)
    np.testing.assert_array_equal(GRIDS["wide survey"].index(np.round(k * 0.01, 2)), k)
    assert GRIDS["wide survey"].index(0.29) == 29
    np.testing.assert_array_equal(bin_of(np.round(k * 0.01 - 2, 2), 0.0, 0.01), k - 200)


def test_slices_hold_the_magnitudes_on_their_bright_edge() -> None:
    for slices in (
        MagnitudeSlices(12.5, 0.5, 11),
        MagnitudeSlices(16.3, 0.1, 91),
        MagnitudeSlices(15, 0.7, 5),
    ):
        s = np.arange(slices.n_slices)
        np.testing.assert_array_equal(slices.index(slices.edges[:-1]), s)
        np.testing.assert_array_equal(slices.index(slices.edges[:-1].round(1)), s)


@pytest.mark.parametrize("n_bins", [60, 90, 180])
def test_random_redshifts_are_where_a_plain_division_puts_them(n_bins: int) -> None:
    z = np.random.default_rng(0).uniform(0, 0.4, 20_000)
    np.testing.assert_array_equal(RedshiftGrid(0.0, 0.4, n_bins).index(z), np.floor(z / (0.4 / n_bins)))


def test_cells_count_bins_within_slices() -> None:
    grid, slices = RedshiftGrid(-0.1, 0.4, 5), MagnitudeSlices(15.0, 1.0, 3)
    z, r = [-0.2, 0.05, 0.3, 0.9], [14.0, 16.5, 17.0, 20.0]
    np.testing.assert_array_equal(cell_index(z, r, grid, slices), [0, 6, 14, 14])
    np.testing.assert_array_equal(
        cell_counts(z, r, grid, slices), [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 2]]
    )
    with pytest.raises(ValueError, match="one length"):
        cell_index([0.1, 0.2], [16.0], grid, slices)
    with pytest.raises(ValueError, match="1 of 2 galaxies have no finite"):
        cell_index([0.1, np.nan], [16.0, 16.0], grid, slices)


@pytest.mark.parametrize(("n_slices", "n_outputs"), [(1, 1), (11, 6), (19, 10)])
def test_membership_is_interlaced(n_slices: int, n_outputs: int) -> None:
    slices = MagnitudeSlices(12.5, 0.5, n_slices)
    assert slices.n_outputs == n_outputs
    member = slices.membership
    assert member.shape == (n_slices, n_outputs)
    np.testing.assert_array_equal(member.sum(axis=1), np.where(np.arange(n_slices) % 2, 2, 1))
    for i in range(n_outputs):
        expected = [s for s in (2 * i - 1, 2 * i, 2 * i + 1) if 0 <= s < n_slices]
        np.testing.assert_array_equal(np.flatnonzero(member[:, i]), expected)


def test_slices_are_half_open_and_clipped() -> None:
    slices = MagnitudeSlices(12.5, 0.5, 11)
    np.testing.assert_array_equal(
        slices.index([10.0, 12.5, 12.99, 13.0, 17.99, 18.0, 25.0]), [0, 0, 0, 1, 10, 10, 10]
    )
    np.testing.assert_allclose(slices.edges[[0, -1]], [12.5, 18.0])


@pytest.mark.parametrize("n_slices", [0, 2, -1])
def test_an_even_number_of_slices_is_an_error(n_slices: int) -> None:
    with pytest.raises(ValueError, match="odd and positive"):
        MagnitudeSlices(12.5, 0.5, n_slices)
