import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

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
