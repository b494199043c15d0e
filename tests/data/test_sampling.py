from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz_lit.data.sampling import balanced_subset, fold_of_cells
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, cell_counts, cell_index

Golden = Callable[[str], dict[str, Any]]

GRID = RedshiftGrid(0.0, 0.4, 8)
SLICES = MagnitudeSlices(15.0, 1.0, 3)


def golden_grids(arrays: dict[str, Any]) -> tuple[RedshiftGrid, MagnitudeSlices]:
    n_bins, n_slices = arrays["parent_counts"].shape
    return RedshiftGrid(0.0, 0.4, n_bins), MagnitudeSlices(12.5, 0.5, n_slices)


def golden_fold(arrays: dict[str, Any], threshold: int, fold: int = 1) -> np.ndarray:
    """Choose by the reference's permutation: a cell of size c visits its galaxies in the order p[p < c]."""
    cells = cell_index(arrays["parent_z"], arrays["parent_r"], *golden_grids(arrays))
    # The permutation's length is part of the recipe: it is the size of the original catalogue.
    order = np.random.default_rng(int(arrays["perm_seed"])).permutation(102547)
    by_cell = np.argsort(cells, kind="stable")
    position = np.empty(len(cells), dtype=np.int64)
    position[by_cell] = np.arange(len(cells)) - np.searchsorted(cells[by_cell], cells[by_cell])
    return fold_of_cells(cells, np.argsort(order)[position], threshold, fold)


def golden_thresholds(arrays: dict[str, Any]) -> list[int]:
    prefix = "balance_counts_fth"
    return sorted(int(name.removeprefix(prefix)) for name in arrays if name.startswith(prefix))


def test_golden_parent_counts(golden: Golden) -> None:
    arrays = golden("a2_labels")
    counts = cell_counts(arrays["parent_z"], arrays["parent_r"], *golden_grids(arrays)).T
    np.testing.assert_array_equal(counts, arrays["parent_counts"])


def test_golden_balance_counts(golden: Golden) -> None:
    arrays = golden("a2_labels")
    z, r = arrays["parent_z"], arrays["parent_r"]
    for threshold in golden_thresholds(arrays):
        for fold in (1, 3):
            chosen = balanced_subset(z, r, *golden_grids(arrays), threshold, fold, seed=7)
            counts = cell_counts(z[chosen], r[chosen], *golden_grids(arrays)).T
            np.testing.assert_array_equal(counts, arrays[f"balance_counts_fth{threshold}"])


@pytest.mark.parametrize("fold", [1, 2, 5])
def test_golden_balance_sel_sorted(golden: Golden, fold: int) -> None:
    """With the reference's permutation, the very same galaxies are chosen."""
    arrays = golden("a2_labels")
    for threshold in golden_thresholds(arrays):
        chosen = golden_fold(arrays, threshold, fold)
        np.testing.assert_array_equal(chosen, arrays[f"balance_sel_fth{threshold}_ne{fold}_sorted"])


def test_golden_lab_sub_index(golden: Golden) -> None:
    arrays = golden("a2_labels")
    chosen = golden_fold(arrays, int(arrays["lab_fth"]))
    np.testing.assert_array_equal(chosen, np.sort(arrays["lab_sub_index"]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 300), st.integers(1, 20), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_counts_are_those_of_the_catalogue_cut_at_the_threshold(
    n: int, threshold: int, fold: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    z, r = rng.uniform(0, 0.4, n), rng.uniform(15, 18, n)
    chosen = balanced_subset(z, r, GRID, SLICES, threshold, fold, seed)
    assert np.all(np.diff(chosen) > 0)
    expected = np.minimum(cell_counts(z, r, GRID, SLICES), threshold)
    np.testing.assert_array_equal(cell_counts(z[chosen], r[chosen], GRID, SLICES), expected)


def test_folds_are_disjoint_in_a_full_cell_and_cover_it() -> None:
    z, r = np.full(50, 0.1), np.full(50, 16.0)
    folds = [balanced_subset(z, r, GRID, SLICES, 10, fold) for fold in range(1, 6)]
    np.testing.assert_array_equal(np.sort(np.concatenate(folds)), np.arange(50))


def test_the_choice_follows_the_seed() -> None:
    z, r = np.full(500, 0.1), np.full(500, 16.0)
    first = balanced_subset(z, r, GRID, SLICES, 10, seed=1)
    np.testing.assert_array_equal(first, balanced_subset(z, r, GRID, SLICES, 10, seed=1))
    assert not np.array_equal(first, balanced_subset(z, r, GRID, SLICES, 10, seed=2))


@pytest.mark.parametrize("fold", [1, 2])
def test_named_galaxies_are_chosen_whatever_the_order_of_rows(fold: int) -> None:
    rng = np.random.default_rng(0)
    z, r, names = rng.uniform(0, 0.4, 600), rng.uniform(15, 18, 600), np.arange(600).astype(str)

    def chosen(rows: np.ndarray) -> set[str]:
        return set(names[rows][balanced_subset(z[rows], r[rows], GRID, SLICES, 10, fold, 1, names[rows])])

    shuffled = rng.permutation(600)
    assert chosen(shuffled) == chosen(np.arange(600))
    assert len(chosen(shuffled[:590]) ^ chosen(shuffled)) <= 20  # who goes is replaced, no more


def test_every_member_of_a_cell_is_equally_likely() -> None:
    z, r = np.full(20, 0.1), np.full(20, 16.0)
    taken = np.zeros(20)
    for seed in range(1000):
        taken[balanced_subset(z, r, GRID, SLICES, 5, seed=seed)] += 1
    # Binomial(1000, 1/4): five standard deviations of 13.7.
    assert np.abs(taken - 250).max() < 70


def test_an_empty_catalogue_gives_an_empty_subset() -> None:
    assert len(balanced_subset([], [], GRID, SLICES, 10)) == 0
    assert not cell_counts([], [], GRID, SLICES).any()


def test_bad_input_is_an_error() -> None:
    with pytest.raises(ValueError, match="no finite"):
        balanced_subset([0.1, np.nan], [16.0, 16.0], GRID, SLICES, 1)
    with pytest.raises(ValueError, match="one length"):
        cell_counts([0.1, 0.2], [16.0], GRID, SLICES)
    with pytest.raises(ValueError, match="start at 1"):
        balanced_subset([0.1], [16.0], GRID, SLICES, 0)
