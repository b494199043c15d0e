"""PIT recalibration: p(z) whose PIT is uniform, over all galaxies, by r slice or by place in the embedding.

With F the cumulative distribution of p(z) and G that of the PIT of validation galaxies, F'(z) = G(F(z)) has a
uniform PIT; as a density, p'(z) = p(z) N(F(z)) with N = dG/du (Bordoloi et al. 2010, MNRAS 406, 881). It is
applied here to F at the bin edges, so that p'(z) sums to 1 without another normalisation.

Steps follow each other. The global map takes the PIT u to v = G(u), uniform over all galaxies. What is left
of a group of galaxies is the distribution of v in that group, shrunk towards the uniform one by a number of
prior galaxies: a group of few validation galaxies gets the map before. Groups are r slices, or the neighbours
of a galaxy in the embedding; that the PIT depends on the place is of Dey et al. 2021 (arXiv:2110.15209, and
2022, arXiv:2205.14568), who regress its distribution with a monotone network.

The number of knots, bins, neighbours and prior galaxies maximise the mean log density of the PIT of held-out
validation galaxies, which is the gain in mean log p'(spec_z). Nothing here sees test galaxies. Inside a bin
p(z) stays flat: p(z) much narrower than a bin cannot be calibrated.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

from photoz_lit.correction.nearest import nearest
from photoz_lit.metrics import CHUNK, cumulative

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

KNOTS = (1, 2, 3, 5, 8, 12, 20, 30, 50)
"""Choices of the number of equal parts of the PIT distribution; 1 changes nothing."""

GALAXIES_PER_KNOT = (15, 30, 60)
"""Choices of the number of galaxies of a slice between two knots of its map."""

SLICE_PRIOR_COUNTS = (10.0, 30.0, 100.0)
"""Choices of the number of prior galaxies of a slice.

Some hundreds of galaxies measure their own coverage to 2 or 3 %. A stronger prior or fewer knots, which the
likelihood of so few often prefers, leave half of the global map's error of coverage in place.
"""

LOCAL_NUMBERS = (50, 100, 200, 400, 800)
"""Choices of the number of neighbours of a galaxy."""

BINS = (4, 8, 16, 32)
"""Choices of the number of bins of v among the neighbours of a galaxy."""

LOCAL_PRIOR_COUNTS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 1e6)
"""Choices of the number of prior galaxies among neighbours; the last leaves the map before."""

FOLDS = 5
"""Parts of the validation galaxies of which each is held out once."""


# The global map


@dataclass(frozen=True, eq=False)
class PitMap:
    """Smooth monotone estimate of the cumulative distribution of the PIT.

    A monotone cubic through quantiles, mixed with the uniform distribution, so that p'(z) is nowhere zero
    where p(z) is not.

    Parameters
    ----------
    knots : ndarray, shape (m,)
        PIT values, ascending from 0 to 1.
    levels : ndarray, shape (m,)
        Fraction of galaxies below them, from 0 to 1.
    uniform : float
        Share of the uniform distribution.
    """

    knots: Floats
    levels: Floats
    uniform: float

    def cdf(self, u: ArrayLike) -> Floats:
        """Fraction of galaxies of a PIT below u, any shape."""
        curve = PchipInterpolator(self.knots, self.levels)
        values = np.asarray(u, dtype=np.float64)
        # The cubic is flat at worst, but rounding may turn it by 1e-17: p'(z) must not be negative.
        return np.asarray((1 - self.uniform) * np.clip(curve(values), 0, 1) + self.uniform * values)

    def density(self, u: ArrayLike) -> Floats:
        """Density N of the PIT at u, any shape."""
        curve = PchipInterpolator(self.knots, self.levels).derivative()
        return np.asarray((1 - self.uniform) * np.maximum(curve(u), 0) + self.uniform)


def fit_pit_map(pit: ArrayLike, n_knots: int) -> PitMap:
    """Fit the map to PIT values at `n_knots` equal parts.

    The knots are quantiles, so that they are dense where p(z) far too narrow piles up the PIT near 0 and 1.

    Parameters
    ----------
    pit : array_like, shape (n,)
        PIT of validation galaxies.
    n_knots : int
        Number of equal parts; 1 gives the identity.

    Returns
    -------
    PitMap
        The map.

    Raises
    ------
    ValueError
        If there is no galaxy, a value is outside [0, 1] or `n_knots` < 1.
    """
    u = np.asarray(pit, dtype=np.float64)
    if u.ndim != 1 or u.size == 0 or not ((u >= 0) & (u <= 1)).all() or n_knots < 1:
        raise ValueError(f"a PIT map needs values in [0, 1] and n_knots >= 1, got {u.shape} and {n_knots}")
    levels = np.arange(1, n_knots) / n_knots
    knots = np.quantile(u, levels, method="hazen")
    # Galaxies at exactly 0 or 1 lie where p(z) = 0: their share goes to the nearest place where it is not.
    knots = np.round(knots, 12)
    inside = (knots > 0) & (knots < 1)
    knots, which = np.unique(knots[inside], return_inverse=True)
    levels = np.bincount(which, weights=levels[inside]) / np.bincount(which) if len(knots) else levels[:0]
    return PitMap(
        np.concatenate([[0.0], knots, [1.0]]), np.concatenate([[0.0], levels, [1.0]]), 1 / (u.size + 1)
    )


def choose_pit_map(pit: ArrayLike, rng: np.random.Generator, knots: Sequence[int] = KNOTS) -> PitMap:
    """Fit the map with the number of parts that describes held-out validation galaxies best.

    Parameters
    ----------
    pit : array_like, shape (n,)
        PIT of validation galaxies.
    rng : numpy.random.Generator
        Divides them into folds.
    knots : sequence of int
        Choices of the number of parts.

    Returns
    -------
    PitMap
        The map, fitted to all of them.
    """
    u = np.asarray(pit, dtype=np.float64)
    fold = rng.permutation(len(u)) % FOLDS
    folds = [f for f in range(FOLDS) if 0 < np.count_nonzero(fold == f) < len(u)]

    def score(n: int) -> float:
        held_out = [np.log(fit_pit_map(u[fold != f], n).density(u[fold == f])).sum() for f in folds]
        return float(np.sum(held_out))

    return fit_pit_map(u, max(knots, key=score))


# r slices


@dataclass(frozen=True, eq=False)
class SliceMaps:
    """What the global map leaves of each r slice.

    Parameters
    ----------
    maps : tuple of PitMap
        Distribution of v in each slice, shrunk towards the uniform one.
    galaxies_per_knot : int
        Galaxies of a slice between two of its knots.
    prior_count : float
        Prior galaxies: `maps[s].uniform` is prior_count / (galaxies of the slice + prior_count).
    gain : float
        Mean log density of held-out validation galaxies: what the slices add to mean log p'(spec_z).
    """

    maps: tuple[PitMap, ...]
    galaxies_per_knot: int
    prior_count: float
    gain: float

    def cdf(self, v: ArrayLike, slice_index: ArrayLike) -> Floats:
        """Fraction of the slice's galaxies below v, shape of v, (n, ...), with slice_index (n,)."""
        values, s = np.asarray(v, dtype=np.float64), np.asarray(slice_index, dtype=np.int64)
        out = np.empty_like(values)
        for i in np.unique(s):
            out[s == i] = self.maps[i].cdf(values[s == i])
        return out


def choose_slice_maps(
    v: ArrayLike,
    slice_index: ArrayLike,
    n_slices: int,
    rng: np.random.Generator,
    galaxies_per_knot: Sequence[int] = GALAXIES_PER_KNOT,
    prior_counts: Sequence[float] = SLICE_PRIOR_COUNTS,
) -> SliceMaps:
    """Fit each slice's map with the knots and the shrinkage that describe held-out galaxies best.

    Parameters
    ----------
    v : array_like, shape (n,)
        PIT of validation galaxies after the global map, `pit_map.cdf(pit)`.
    slice_index : array_like of int, shape (n,)
        Their slice, 0 .. n_slices - 1.
    n_slices : int
        Number of slices.
    rng : numpy.random.Generator
        Divides them into folds.
    galaxies_per_knot, prior_counts : sequence
        Choices, the same for all slices.

    Returns
    -------
    SliceMaps
        Fitted to all of them; a slice without galaxies has the identity.

    Raises
    ------
    ValueError
        If there is no galaxy or lengths differ.
    """
    values, s = np.asarray(v, dtype=np.float64), np.asarray(slice_index, dtype=np.int64)
    if values.size == 0 or values.shape != s.shape:
        raise ValueError(f"slices need a PIT and a slice of each galaxy, got {values.shape} and {s.shape}")
    fold = rng.permutation(len(values)) % FOLDS
    gains = dict.fromkeys(itertools.product(galaxies_per_knot, prior_counts), 0.0)
    for i, f in itertools.product(range(n_slices), range(FOLDS)):
        fitted, held_out = values[(s == i) & (fold != f)], values[(s == i) & (fold == f)]
        for per_knot, prior_count in gains:
            density = _slice_map(fitted, per_knot, prior_count).density(held_out)
            gains[per_knot, prior_count] += float(np.log(density).sum()) / len(values)
    per_knot, prior_count = max(gains, key=gains.__getitem__)
    maps = tuple(_slice_map(values[s == i], per_knot, prior_count) for i in range(n_slices))
    return SliceMaps(maps, per_knot, prior_count, gains[per_knot, prior_count])


def _slice_map(v: Floats, galaxies_per_knot: int, prior_count: float) -> PitMap:
    """Map of one slice, the identity where it has no galaxies."""
    n_knots = min(max(len(v) // galaxies_per_knot, 1), max(KNOTS))
    fitted = fit_pit_map(v if len(v) else np.array([0.5]), n_knots)
    return replace(fitted, uniform=prior_count / (len(v) + prior_count))


# Neighbours in the embedding


def shrunk_density(counts: ArrayLike, prior_count: float) -> Floats:
    """Density of v in equal bins of [0, 1], shrunk towards the uniform one.

    Parameters
    ----------
    counts : array_like, shape (..., m)
        Validation galaxies in each bin of v.
    prior_count : float
        Prior galaxies, spread over the bins, above 0.

    Returns
    -------
    ndarray, shape (..., m)
        Densities of mean 1; all 1 without galaxies.
    """
    n = np.asarray(counts, dtype=np.float64)
    m = n.shape[-1]
    density: Floats = m * (n + prior_count / m) / (n.sum(axis=-1, keepdims=True) + prior_count)
    return density


def density_at(density: Floats, v: Floats) -> Floats:
    """Density at v: linear between the centres of the bins, constant beyond the outer ones.

    Parameters
    ----------
    density : ndarray, shape (n, m)
        Density of each galaxy's group in the bins.
    v : ndarray, shape (n, ...)
        Places.

    Returns
    -------
    ndarray, shape (n, ...)
        Densities.
    """
    rows, j, t = _place(density, v)
    padded = _padded(density)
    return np.asarray((1 - t) * padded[rows, j] + t * padded[rows, j + 1])


def cdf_at(density: Floats, v: Floats) -> Floats:
    """Integral of `density_at` from 0 to v, shape (n, ...); 0 at 0 and 1 at 1."""
    rows, j, t = _place(density, v)
    padded, m = _padded(density), density.shape[1]
    # Integrals up to the centres; the first is half a bin below zero.
    steps = 0.5 * (padded[:, :-1] + padded[:, 1:]) / m
    start = np.concatenate([-0.5 * padded[:, :1] / m, steps], axis=1).cumsum(axis=1)
    low, high = padded[rows, j], padded[rows, j + 1]
    return np.asarray(start[rows, j] + (t * low + 0.5 * t**2 * (high - low)) / m)


def _padded(density: Floats) -> Floats:
    """Repeat the outer bins once, shape (n, m + 2)."""
    return np.concatenate([density[:, :1], density, density[:, -1:]], axis=1)


def _place(density: Floats, v: Floats) -> tuple[Ints, Ints, Floats]:
    """Row, left centre (of the padded bins) and place between two centres of each v."""
    rows = np.arange(len(density)).reshape(-1, *[1] * (v.ndim - 1))
    x = np.clip(v, 0, 1) * density.shape[1] + 0.5
    j = np.minimum(x.astype(np.int64), density.shape[1])
    return rows, j, x - j


@dataclass(frozen=True)
class LocalChoice:
    """How many neighbours, bins and prior galaxies describe the PIT by place in the embedding best.

    Parameters
    ----------
    k, m : int
        Number of neighbours and of bins of v.
    prior_count : float
        Prior galaxies.
    gain : float
        Mean log density of validation galaxies, each left out of its own neighbours.
    """

    k: int
    m: int
    prior_count: float
    gain: float


def local_density(v: ArrayLike, neighbours: ArrayLike, choice: LocalChoice) -> Floats:
    """Density of v among the nearest validation galaxies of each galaxy.

    Parameters
    ----------
    v : array_like, shape (n_validation,)
        PIT of validation galaxies after the global map.
    neighbours : array_like of int, shape (n, at least choice.k)
        Validation galaxies by distance from each galaxy, nearest first (`neighbours.nearest`).
    choice : LocalChoice
        From `choose_local`.

    Returns
    -------
    ndarray, shape (n, choice.m)
        Densities of mean 1.
    """
    counts = _neighbour_counts(np.asarray(v, dtype=np.float64), np.asarray(neighbours), choice.k, choice.m)
    return shrunk_density(counts, choice.prior_count)


def _neighbour_counts(v: Floats, neighbours: NDArray[np.integer[Any]], k: int, m: int) -> Ints:
    """Count the k nearest galaxies of each in m equal bins of v, shape (n, m)."""
    bins = np.minimum((v * m).astype(np.int64), m - 1)
    counts = np.empty((len(neighbours), m), dtype=np.int64)
    for start in range(0, len(neighbours), CHUNK):
        near = neighbours[start : start + CHUNK, :k]
        cell = np.arange(len(near))[:, None] * m + bins[near]
        counts[start : start + CHUNK] = np.bincount(cell.ravel(), minlength=len(near) * m).reshape(-1, m)
    return counts


def choose_local(
    v: ArrayLike,
    neighbours: ArrayLike,
    ks: Sequence[int] = LOCAL_NUMBERS,
    bins: Sequence[int] = BINS,
    prior_counts: Sequence[float] = LOCAL_PRIOR_COUNTS,
) -> LocalChoice:
    """Choose the neighbours, bins and shrinkage that describe each validation galaxy from the others best.

    Parameters
    ----------
    v : array_like, shape (n,)
        PIT of validation galaxies after the global map.
    neighbours : array_like of int, shape (n, k_max)
        The other validation galaxies by distance, nearest first; a galaxy must not be its own neighbour.
    ks, bins, prior_counts : sequence
        Choices; k above k_max is left out.

    Returns
    -------
    LocalChoice
        The best.

    Raises
    ------
    ValueError
        If shapes do not fit, a galaxy is its own neighbour or no k is left.
    """
    values, near = np.asarray(v, dtype=np.float64), np.asarray(neighbours)
    if near.ndim != 2 or len(near) != len(values) or (near == np.arange(len(near))[:, None]).any():
        raise ValueError("neighbours must be those of the validation galaxies, without the galaxy itself")
    within = [k for k in ks if k <= near.shape[1]]
    if not within:
        raise ValueError(f"none of k = {list(ks)} is within the {near.shape[1]} neighbours given")
    choices = []
    for k, m in itertools.product(within, bins):
        counts = _neighbour_counts(values, near, k, m)
        for prior_count in prior_counts:
            gain = float(np.log(density_at(shrunk_density(counts, prior_count), values)).mean())
            choices.append(LocalChoice(k, m, prior_count, gain))
    return max(choices, key=lambda choice: choice.gain)


@dataclass(frozen=True, eq=False)
class LocalMap:
    """What the global map leaves around each place in the embedding.

    Parameters
    ----------
    embeddings : ndarray, shape (n, d)
        Of the validation galaxies.
    v : ndarray, shape (n,)
        Their PIT after the global map.
    choice : LocalChoice
        Numbers of neighbours, bins and prior galaxies.
    """

    embeddings: NDArray[np.float32]
    v: Floats
    choice: LocalChoice

    def density(self, embeddings: ArrayLike) -> Floats:
        """Density of v among the neighbours of galaxies, (n, m), by their embeddings (n, d)."""
        return local_density(self.v, nearest(embeddings, self.embeddings, self.choice.k), self.choice)


def choose_local_map(v: ArrayLike, embeddings: ArrayLike) -> LocalMap | None:
    """Fit the map to validation galaxies; None for a single one, which has no neighbours.

    Neighbours are those of `nearest`: each dimension of the embedding has unit variance. Whitened principal
    directions, as in `photoz_lit.models.neighbours`, describe the PIT of held-out galaxies less well.

    Parameters
    ----------
    v : array_like, shape (n,)
        PIT of validation galaxies after the global map.
    embeddings : array_like, shape (n, d)
        Their embeddings.
    """
    values, x = np.asarray(v, dtype=np.float64), np.asarray(embeddings, dtype=np.float32)
    most = min(max(LOCAL_NUMBERS), len(values) - 1)
    if most < 1:
        return None
    near = nearest(x, x, most, leave_one_out=True)
    numbers = [k for k in LOCAL_NUMBERS if k <= most] or [most]
    return LocalMap(x, values, choose_local(values, near, numbers))


# Application


def recalibrate(
    pdf: ArrayLike,
    pit_map: PitMap,
    slices: SliceMaps | None = None,
    slice_index: ArrayLike | None = None,
    density: ArrayLike | None = None,
) -> Floats:
    """Recalibrate p(z): the global map, then each r slice's, then that of each galaxy's neighbours.

    Parameters
    ----------
    pdf : array_like, shape (n, K)
        Probability of each bin; rows are independent, so that chunks of galaxies will do.
    pit_map : PitMap
        Global map.
    slices : SliceMaps, optional
        Maps of the slices.
    slice_index : array_like of int, shape (n,), optional
        Slice of each galaxy, given with `slices`.
    density : array_like, shape (n, m), optional
        Density among each galaxy's neighbours of the PIT after the maps before (`local_density`).

    Returns
    -------
    ndarray, shape (n, K)
        Rows sum to 1.

    Raises
    ------
    ValueError
        If slices and their indices are not given together.
    """
    if (slices is None) != (slice_index is None):
        raise ValueError("slices and slice_index go together")
    v = pit_map.cdf(cumulative(pdf))
    if slices is not None and slice_index is not None:
        v = slices.cdf(v, slice_index)
    if density is not None:
        v = cdf_at(np.asarray(density, dtype=np.float64), v)
    return np.maximum(np.diff(v, axis=1), 0)
