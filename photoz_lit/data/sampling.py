"""The balanced subset: at most a threshold of galaxies in each (z bin, r slice) cell.

Step 2 of Lin et al. 2022, section 4.2.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.data.splits import draw
from photoz_lit.grids import Ints, MagnitudeSlices, RedshiftGrid, Texts, cell_index


def balanced_subset(
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    threshold: int,
    fold: int = 1,
    seed: int = 0,
    names: Texts | None = None,
) -> Ints:
    """Return sorted indices of at most `threshold` galaxies (N_th) of each cell of redshift and r (mag).

    Which members of crowded ones are taken, `fold_of_cells` says; all folds of an ensemble share the seed.
    With the galaxies' names (`object_names`) the order of rows decides nothing.
    """
    if threshold < 1 or fold < 1:
        raise ValueError(f"threshold and fold start at 1, got threshold={threshold}, fold={fold}")
    cells = cell_index(spec_z, dered_petro_r, grid, slices)
    return fold_of_cells(cells, draw(names, len(cells), seed), threshold, fold)


def fold_of_cells(cells: Ints, lots: NDArray[np.uint64], threshold: int, fold: int) -> Ints:
    """Return sorted indices of the members of a fold, given the cell and the lot of each galaxy (n,).

    Each cell's galaxies stand in the order of their lots, as if on a circle; fold f takes the `threshold` of
    them that follow after (f - 1) * threshold places. Folds are disjoint as long as the cell is large enough
    and wrap around where it is not, so that five folds form an ensemble (Lin et al. 2022, section 4.2).
    """
    by_cell = np.lexsort((lots, cells))
    ordered = cells[by_cell]
    rank = np.empty(len(cells), dtype=np.int64)
    rank[by_cell] = np.arange(len(cells)) - np.searchsorted(ordered, ordered)
    size = np.bincount(cells, minlength=1)[cells]
    return np.flatnonzero((rank - (fold - 1) * threshold) % np.maximum(size, 1) < threshold)
