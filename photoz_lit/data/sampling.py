"""The balanced subset: at most a threshold of galaxies in each (z bin, r slice) cell.

Step 2 of Lin et al. 2022, section 4.2.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, cell_index


def balanced_subset(
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    threshold: int,
    fold: int = 1,
    seed: int = 0,
    order: ArrayLike | None = None,
) -> NDArray[np.int64]:
    """Keep at random at most `threshold` galaxies of each (z bin, r slice) cell.

    Each cell's galaxies stand in a random order, as if on a circle; fold f takes the `threshold` of them that
    follow after (f - 1) * threshold places. Folds are disjoint as long as the cell is large enough and wrap
    around where it is not, so that five folds form an ensemble (Lin et al. 2022, section 4.2).

    Parameters
    ----------
    spec_z, dered_petro_r : array_like, shape (n,)
        Redshifts and dereddened Petrosian r (mag).
    grid, slices : RedshiftGrid, MagnitudeSlices
        Define the cells.
    threshold : int
        Largest number N_th of galaxies kept in a cell.
    fold : int
        1, 2, ...: which members of the crowded cells are taken.
    seed : int
        Seed of the random order. All folds of one ensemble share it.
    order : array_like of int, optional
        A permutation of 0 .. m-1, m at least the size of the fullest cell, that replaces the random order: a
        cell of size c visits its galaxies, numbered as in the catalogue, in the order `order[order < c]`.

    Returns
    -------
    ndarray of int, shape (n_selected,)
        Sorted indices into the catalogue.

    Raises
    ------
    ValueError
        If `threshold` or `fold` is below 1, `order` is too short or no permutation, the lengths differ, or a
        value is not finite.
    """
    if threshold < 1 or fold < 1:
        raise ValueError(f"threshold and fold start at 1, got threshold={threshold}, fold={fold}")
    cells = cell_index(spec_z, dered_petro_r, grid, slices)
    if order is None:
        key = np.random.default_rng(seed).permutation(len(cells))
    else:
        key = _key_from_order(np.asarray(order), _rank_in_cell(cells, np.arange(len(cells))))
    rank = _rank_in_cell(cells, key)
    size = np.bincount(cells, minlength=1)[cells]
    return np.flatnonzero((rank - (fold - 1) * threshold) % np.maximum(size, 1) < threshold)


def _rank_in_cell(cells: NDArray[np.int64], key: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rank each galaxy among those of its cell by ascending `key`, from 0, shape (n,)."""
    by_cell = np.lexsort((key, cells))
    ordered = cells[by_cell]
    rank = np.empty(len(cells), dtype=np.int64)
    rank[by_cell] = np.arange(len(cells)) - np.searchsorted(ordered, ordered)
    return rank


def _key_from_order(order: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn a permutation of positions within a cell into a sorting key, shape (n,)."""
    if not np.array_equal(np.sort(order), np.arange(len(order))):
        raise ValueError("order must be a permutation of 0 .. m-1")
    if len(position) and position.max() >= len(order):
        raise ValueError(
            f"order has {len(order)} entries, the fullest cell has {position.max() + 1} galaxies"
        )
    return np.argsort(order)[position]
