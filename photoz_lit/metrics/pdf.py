"""p(z): cumulative distribution, point estimates, and scores against spec_z.

Throughout, `pdf` (n, n_outputs) holds the probability of each bin of a grid, extension included. It is
normalised again, float32 sums being inexact; the density is constant within a bin. One that is not finite, is
negative or empty, or does not fit spec_z and the grid, is a ValueError. Results are of shape (n,).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.grids import Bools, Floats, Ints, RedshiftGrid, n_of_z
from photoz_lit.metrics import draws

OF_PDF = ("crps", "pit_ks", "pit_cvm", "cde_loss", "coverage_68", "coverage_95")
CHUNK = 4096  # galaxies whose p(z) is integrated at a time: bounds the memory, not the result


def _by_chunks(function: Callable[..., Floats], *columns: NDArray[np.generic]) -> Floats:
    """Apply a function to CHUNK galaxies at a time."""
    starts = range(0, max(len(columns[0]), 1), CHUNK)  # of none, once: for the shape
    return np.concatenate([function(*(column[i : i + CHUNK] for column in columns)) for i in starts])


def cumulative(pdf: ArrayLike) -> Floats:
    """Cumulative distribution at the bin edges, from 0 to 1, shape (n, n_outputs + 1)."""
    p = np.asarray(pdf, dtype=np.float64)
    if p.ndim != 2:
        raise ValueError(f"pdf must be of shape (n, n_outputs), got {p.shape}")
    cdf = np.zeros((len(p), p.shape[1] + 1))
    np.cumsum(p, axis=1, out=cdf[:, 1:])
    total = cdf[:, -1:]
    if not (np.all(p >= 0) and np.all(np.isfinite(total)) and np.all(total > 0)):
        raise ValueError("each p(z) must be finite, not negative and of positive sum")
    normalised: Floats = cdf / total
    return normalised


def mode(pdf: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Centre of the most probable bin."""
    centre: Floats = grid.centres[np.asarray(pdf).argmax(axis=1)]
    return centre


def mean(pdf: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Mean of p(z)."""

    def of_chunk(p: Floats) -> Floats:
        part = p.astype(np.float64)
        return np.asarray(part @ grid.centres / part.sum(axis=1))

    return _by_chunks(of_chunk, np.asarray(pdf))


def quantile(pdf: ArrayLike, level: float | Sequence[float], grid: RedshiftGrid) -> Floats:
    """Redshift below which p(z) holds the probability `level`, linear within a bin; (n, L) of L levels."""
    levels = np.ravel(level)

    def of_chunk(p: Floats) -> Floats:
        cdf, row = cumulative(p), np.arange(len(p))
        found = np.empty((len(p), len(levels)))
        for column, wanted in zip(found.T, levels, strict=True):
            k = np.minimum((cdf[:, 1:] < wanted).sum(axis=1), grid.n_outputs - 1)
            below, inside = cdf[row, k], cdf[row, k + 1] - cdf[row, k]
            part = np.divide(wanted - below, inside, out=np.zeros(len(cdf)), where=inside > 0)
            column[:] = grid.edges[k] + np.clip(part, 0, 1) * grid.width
        return found if np.ndim(level) else found[:, 0]

    return _by_chunks(of_chunk, np.asarray(pdf))


def median(pdf: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Median of p(z)."""
    return quantile(pdf, 0.5, grid)


def interval(pdf: ArrayLike, grid: RedshiftGrid, level: float = 0.68) -> Floats:
    """Equal-tailed interval that holds the probability `level`, shape (n, 2)."""
    return central(pdf, grid, level)[:, [0, 2]]


def central(pdf: ArrayLike, grid: RedshiftGrid, level: float = 0.68) -> Floats:
    """Lower end of `interval`, median and upper end, shape (n, 3): together in a third of the time."""
    tail = 0.5 * (1 - level)
    return quantile(pdf, (tail, 0.5, 1 - tail), grid)


def trainz(spec_z_train: ArrayLike, grid: RedshiftGrid, n: int) -> Floats:
    """p(z) that ignores the data: the training n(z) for everyone (Schmidt et al. 2020, MNRAS 499, 1587).

    A read-only view of one row, shape (n, n_outputs); zero in the extension of the grid.
    """
    if np.size(spec_z_train) == 0:
        raise ValueError("trainz needs at least one training redshift")
    return np.broadcast_to(n_of_z(spec_z_train, grid), (n, grid.n_outputs))


def crps(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Continuous ranked probability score of each galaxy: integral of (F(z) - 1[z >= spec_z])^2 dz.

    Exact for the distribution that is uniform within each bin; a spec_z outside the grid costs its distance
    (D'Isanto & Polsterer 2018, arXiv 1706.02467). In redshift.
    """

    def third(a: Floats, b: Floats) -> Floats:
        """Integral of the square of a straight line from a to b over a unit length."""
        return (a**2 + a * b + b**2) / 3

    def of_chunk(p: Floats, z: Floats) -> Floats:
        cdf, (k, t), row = cumulative(p), _place(z, grid), np.arange(len(p))
        bins, low, high = np.arange(p.shape[1]), cdf[:, :-1], cdf[:, 1:]
        beyond = np.where(bins > k[:, None], third(1 - low, 1 - high), 0.0)
        whole = np.where(bins < k[:, None], third(low, high), beyond).sum(axis=1)
        start, end = cdf[row, k], cdf[row, k + 1]
        at = start + t * (end - start)
        split = t * third(start, at) + (1 - t) * third(1 - at, 1 - end)
        outside = np.maximum(grid.edges[0] - z, 0) + np.maximum(z - grid.edges[-1], 0)
        return np.asarray((whole + split) * grid.width + outside)

    return _by_chunks(of_chunk, *_paired(pdf, spec_z, grid))


def pit(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Probability integral transform F(spec_z): uniform for calibrated p(z), 0 or 1 outside the grid."""

    def of_chunk(p: Floats, z: Floats) -> Floats:
        cdf, (k, t), row = cumulative(p), _place(z, grid), np.arange(len(p))
        return np.asarray(cdf[row, k] + t * (cdf[row, k + 1] - cdf[row, k]))

    return _by_chunks(of_chunk, *_paired(pdf, spec_z, grid))


# kstest and cramervonmises of scipy.stats give the same numbers, but p-values too, which nobody asks for and
# which take milliseconds: too long within a bootstrap of thousands of samples.


def pit_ks(pit_values: ArrayLike) -> float:
    """Kolmogorov-Smirnov distance of the PIT values from the uniform distribution."""
    return draws.of_one(lambda u: draws.ks_and_cvm(u)[0], pit_values)


def pit_cvm(pit_values: ArrayLike) -> float:
    """Cramer-von Mises statistic of the PIT values against uniform ones, divided by their number n.

    So samples of any size compare: 1/3 where all values are 0, and 1 / (6 n) on average for uniform values.
    """
    return draws.of_one(lambda u: draws.ks_and_cvm(u)[1], pit_values)


def cde_loss(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid) -> Floats:
    """Loss of a conditional density of each galaxy: integral of p(z)^2 dz - 2 p(spec_z), per unit redshift.

    Its mean is, but for a constant of the sample, the expected integral of (p - true density)^2 (Izbicki &
    Lee 2017, arXiv 1704.08095): the lower the better, negative for useful p(z).
    """

    def of_chunk(p: Floats, z: Floats) -> Floats:
        density = np.diff(cumulative(p), axis=1) / grid.width
        inside = (z >= grid.edges[0]) & (z <= grid.edges[-1])
        at_spec_z = density[np.arange(len(density)), _place(z, grid)[0]] * inside
        return np.asarray(np.einsum("ij,ij->i", density, density) * grid.width - 2 * at_spec_z)

    return _by_chunks(of_chunk, *_paired(pdf, spec_z, grid))


def covered(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid, level: float = 0.68) -> Bools:
    """Whether spec_z lies in `interval`, ends included: a share `level` does, less if p(z) are too narrow."""
    p, z = _paired(pdf, spec_z, grid)
    low, high = interval(p, grid, level).T
    inside: Bools = (low <= z) & (z <= high)
    return inside


@dataclass(frozen=True, eq=False)
class PdfScores:
    """What the p(z) of each galaxy is worth, by these functions, to be averaged over any set of galaxies."""

    crps: Floats
    cde_loss: Floats
    pit: Floats
    covered_68: Floats  # 1 where spec_z lies in the central 68 % interval, else 0
    covered_95: Floats

    def summary(self, rows: Ints) -> dict[str, Floats]:
        """Return the numbers of samples of galaxies, given by their rows (b, n), which may repeat."""
        means = (self.crps, self.cde_loss, self.covered_68, self.covered_95)
        crps, loss, *coverage = (draws.mean(values[rows]) for values in means)
        found = (crps, *draws.ks_and_cvm(self.pit[rows]), loss, *coverage)
        return dict(zip(OF_PDF, found, strict=True))


def pdf_scores(pdf: ArrayLike | None, spec_z: ArrayLike, grid: RedshiftGrid) -> PdfScores:
    """Score each p(z) once; without p(z), all scores are NaN."""
    if pdf is None:
        return PdfScores(*np.full((5, np.size(spec_z)), np.nan))
    inside = (covered(pdf, spec_z, grid, level).astype(np.float64) for level in (0.68, 0.95))
    return PdfScores(*(score(pdf, spec_z, grid) for score in (crps, cde_loss, pit)), *inside)


def _paired(pdf: ArrayLike, spec_z: ArrayLike, grid: RedshiftGrid) -> tuple[Floats, Floats]:
    """Check that p(z), redshifts and grid fit together."""
    p, z = np.asarray(pdf), np.asarray(spec_z, dtype=np.float64)
    if p.ndim != 2 or z.shape != (len(p),) or p.shape[1] != grid.n_outputs:
        raise ValueError(f"pdf {p.shape}, spec_z {z.shape} and {grid.n_outputs} bins do not fit together")
    return p, z


def _place(z: Floats, grid: RedshiftGrid) -> tuple[Ints, Floats]:
    """Bin of the extended grid and place within it from 0 to 1; redshifts outside go to the ends."""
    k = grid.output_index(z)
    return k, np.clip((z - grid.edges[0]) / grid.width - k, 0, 1)
