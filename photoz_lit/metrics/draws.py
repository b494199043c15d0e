"""Numbers of several samples of galaxies at once, a row each, (b, n): thousands are drawn in a bootstrap.

Functions map values of galaxies to one number a row, (b,); NaN where it has no galaxies.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.grids import Floats, Ints

AT_A_TIME = 2**17  # galaxies of draws that are looked at together: what fits a CPU's cache is faster
MAD_TO_SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation


def drawn(n: int, n_draws: int, rng: np.random.Generator) -> Iterator[Ints]:
    """Yield rows of n galaxies, drawn with replacement, some draws (b, n) at a time."""
    some = max(1, AT_A_TIME // max(n, 1))
    for start in range(0, n_draws, some):
        yield np.stack([rng.integers(0, n, n) for _ in range(min(some, n_draws - start))])


def of_one(number: Callable[..., Floats], *values: ArrayLike) -> float:
    """Return a number of one sample."""
    return float(number(*(np.asarray(v, dtype=np.float64).reshape(1, -1) for v in values))[0])


def mean(x: Floats) -> Floats:
    """Mean."""
    return np.asarray(x.mean(axis=1)) if x.shape[1] else np.full(len(x), np.nan)


def sigma_mad(x: Floats) -> Floats:
    """1.4826 median|x - median(x)|."""
    if not x.shape[1]:
        return np.full(len(x), np.nan)
    distance = np.abs(x - np.median(x, axis=1, keepdims=True))
    return np.asarray(MAD_TO_SIGMA * np.median(distance, axis=1, overwrite_input=True))


def wasserstein(x: Floats, y: Floats) -> Floats:
    """Mean distance of the sorted values."""
    return mean(np.abs(np.sort(x, axis=1) - np.sort(y, axis=1)))


def ks_and_cvm(x: Floats) -> tuple[Floats, Floats]:
    """Kolmogorov-Smirnov distance from the uniform distribution, and Cramer-von Mises statistic over n."""
    n, u = x.shape[1], np.sort(x, axis=1)
    if not n:
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    steps = np.arange(n + 1) / n
    largest = np.maximum((steps[1:] - u).max(axis=1), (u - steps[:-1]).max(axis=1))
    return largest, mean(((np.arange(n) + 0.5) / n - u) ** 2) + 1 / (12 * n**2)


def counts(k: Ints, n_bins: int, weights: Floats | None = None) -> Floats:
    """Number, or sum of weights, of the galaxies in bins 0 .. n_bins - 1, (b, n_bins)."""
    place = (k + n_bins * np.arange(len(k))[:, None]).ravel()
    weight = None if weights is None else weights.ravel()
    found = np.bincount(place, weight, n_bins * len(k)).reshape(len(k), n_bins)
    return np.asarray(found, dtype=np.float64)


def over(total: Floats, count: Floats) -> Floats:
    """Quotient, NaN where nothing is counted."""
    nothing = np.full(np.broadcast(total, count).shape, np.nan)
    return np.asarray(np.divide(total, count, out=nothing, where=count > 0))


def plain_slope(x: Floats, y: Floats) -> Floats:
    """Slope of the least-squares line of y against x; NaN where all x are the same."""
    if not x.shape[1]:
        return np.full(len(x), np.nan)
    offset = x - mean(x)[:, None]
    moment = np.where(np.ptp(x, axis=1) > 0, np.einsum("ij,ij->i", offset, offset), 0.0)
    return over(np.einsum("ij,ij->i", offset, y), moment)


def steepest(x: Floats, y: Floats, group: Ints, among: Ints) -> Floats:
    """Slope of y against x in the group, of some, where it is the steepest; NaN where there is none."""
    if not among.size:
        return np.full(len(x), np.nan)
    n = int(among.max()) + 1
    k = np.where(np.isin(group, among), group, n)
    rows, count = np.arange(len(x))[:, None], counts(k, n + 1)
    offset = x - over(counts(k, n + 1, x), count)[rows, k]
    moment = counts(k, n + 1, offset**2)
    # Of values that are all the same the mean, and so the offset, may differ by rounding.
    moment[moment <= 1e-24 * counts(k, n + 1, x**2)] = 0.0
    slopes = over(counts(k, n + 1, offset * y), moment)[:, among]
    size = np.where(np.isfinite(slopes), np.abs(slopes), -1.0)
    return np.asarray(slopes[rows[:, 0], size.argmax(axis=1)])


def line_slope(centre: Floats, value: Floats, error: Floats) -> Floats:
    """Slope of the straight line through values (b, m) with errors, at centres (m,), but for NaN."""
    weight = np.where(np.isfinite(value), error, np.inf) ** -2.0
    value, total = np.where(np.isfinite(value), value, 0.0), weight.sum(axis=1)
    offset = centre - over(weight @ centre, total)[:, None]
    enough = (weight > 0).sum(axis=1) > 1
    return over(
        (weight * offset * value).sum(axis=1), np.where(enough, (weight * offset**2).sum(axis=1), 0.0)
    )
