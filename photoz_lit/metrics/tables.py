"""Numbers by magnitude and by redshift, and all headline numbers of a sample, with their bootstrap errors.

Throughout, spec_z, photo_z and dered_petro_r (mag) are of shape (n,), numbers are of abs(dz) > `outlier_cut`,
and each has its bootstrap standard error under `<key>_err`. What no or few galaxies leave undefined is NaN.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.dispersion import variances
from photoz_lit.grids import Floats, Ints, MagnitudeSlices, RedshiftGrid, on_edges
from photoz_lit.metrics import draws
from photoz_lit.metrics.pdf import OF_PDF, PdfScores, pdf_scores
from photoz_lit.metrics.point import residual, standard_error, unit
from photoz_lit.metrics.residuals import (
    bins_of_photo_z,
    means_by_photo_z,
    means_by_spec_z,
    total_variation_floor,
    wide,
)

# Fewest galaxies of a photo_z bin in `evaluate`. The standard error that a few give to their mean may be near
# zero by chance, and such a bin would decide the slope, above all in the bootstrap: draws repeat galaxies.
MIN_COUNT = 10
CROWDED = 500  # galaxies of a slice above which its own slope is looked at

POINTS = ("mode", "median", "individual")  # estimates of one p(z), given side by side

Statistics = Callable[[Ints], dict[str, Floats]]  # (b,) of rows of galaxies (b, n), which may repeat


def by_group(
    statistics: Statistics, group: ArrayLike, n_groups: int, *, rng: np.random.Generator, n_bootstrap: int
) -> dict[str, NDArray[Any]]:
    """`count` and statistics of each group of galaxies, given by its number (n,): arrays (n_groups,)."""
    groups = (np.flatnonzero(np.asarray(group) == i) for i in range(n_groups))
    rows = [{"count": len(own)} | _with_errors(statistics, own, n_bootstrap, rng) for own in groups]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def _with_errors(
    statistics: Statistics, rows: Ints, n_bootstrap: int, rng: np.random.Generator
) -> dict[str, float]:
    values = {key: float(found[0]) for key, found in statistics(rows[None]).items()}
    parts = [
        np.stack(list(statistics(rows[some]).values()), axis=1)
        for some in draws.drawn(len(rows), n_bootstrap if len(rows) else 0, rng)
    ]
    errors = standard_error(np.concatenate([np.empty((0, len(values))), *parts])).tolist()
    return values | {f"{key}_err": error for key, error in zip(values, errors, strict=True)}


def by_magnitude(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    edges: ArrayLike,
    *,
    outlier_cut: float,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
    relative: bool = True,
) -> dict[str, NDArray[Any]]:
    """Statistics in bins of magnitude, those beyond the ascending edges (m + 1,) in the first or last bin.

    Arrays (m,): count, r (mean), bias, sigma_mad, rms, outlier_fraction, wasserstein, slope_spec_z_plain (of
    photo_z - spec_z), and their errors.
    """
    z, estimate, r = (np.asarray(a, dtype=np.float64) for a in (spec_z, photo_z, dered_petro_r))
    dz = residual(z, estimate, relative)

    def statistics(rows: Ints) -> dict[str, Floats]:
        own = {"r": draws.mean(r[rows])} | _of_residuals(dz[rows], outlier_cut)
        spec, photo = z[rows], estimate[rows]
        distance, slope = draws.wasserstein(spec, photo), draws.plain_slope(spec, photo - spec)
        return own | {"wasserstein": distance, "slope_spec_z_plain": slope}

    return by_group(statistics, *_row_of(r, edges), rng=rng, n_bootstrap=n_bootstrap)


def by_redshift(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    scores: PdfScores,
    edges: ArrayLike,
    *,
    outlier_cut: float,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
    relative: bool = True,
) -> dict[str, NDArray[Any]]:
    """Statistics in bins of spec_z, those beyond the ascending edges (m + 1,) in the first or last bin.

    A bin of spec_z selects by the truth, so that even perfect p(z) miss the nominal coverage where n(z) is
    steep or ends: judge runs against each other, not against the level. A slice of r selects by what p(z) may
    know, and there calibrated p(z) do have the nominal coverage.

    Arrays (m,): count, spec_z (mean), bias, sigma_mad, outlier_fraction, those of `PdfScores.summary`, and
    their errors.
    """
    z, dz = np.asarray(spec_z, dtype=np.float64), residual(spec_z, photo_z, relative)

    def statistics(rows: Ints) -> dict[str, Floats]:
        own = {"spec_z": draws.mean(z[rows])} | _of_residuals(dz[rows], outlier_cut)
        return own | scores.summary(rows)

    return by_group(statistics, *_row_of(z, edges), rng=rng, n_bootstrap=n_bootstrap)


def _of_residuals(dz: Floats, outlier_cut: float) -> dict[str, Floats]:
    outliers = draws.mean((np.abs(dz) > outlier_cut).astype(np.float64))
    of_size = {"sigma_mad": draws.sigma_mad(dz), "rms": np.sqrt(draws.mean(dz**2))}
    return {"bias": draws.mean(dz), **of_size, "outlier_fraction": outliers}


def _row_of(values: Floats, edges: ArrayLike) -> tuple[Ints, int]:
    """Half-open bin of each value, those beyond the edges in the first or last, and how many there are."""
    borders = np.asarray(edges, dtype=np.float64)
    row = np.searchsorted(borders, on_edges(values, np.diff(borders).min()), side="right") - 1
    return np.clip(row, 0, len(borders) - 2), len(borders) - 1


def evaluate(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    pdf: ArrayLike | PdfScores | None,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    outlier_cut: float,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
    z_high: float = 0.15,
    relative: bool = True,
) -> dict[str, float]:
    """Compute the headline numbers of one sample, by the names of their functions.

    photo_z may lie outside the survey's range. `pdf` (n, n_outputs) is on `grid`, or scored already; without
    it, the numbers of p(z) are NaN. Slopes use all populated bins of spec_z, of which `slope_spec_z_high`
    those above `z_high` (0.15 for SDSS), and the bins of photo_z with 10 galaxies or more; plain ones are
    those of ordinary least squares, and `slope_slices` is the steepest plain one, against spec_z, in slices
    of r with more than 500 galaxies. The variance that weights is held fixed in the bootstrap; the error of
    the TV floor is the scatter of its `n_bootstrap` draws.
    """
    z, estimate, r = (np.asarray(a, dtype=np.float64) for a in (spec_z, photo_z, dered_petro_r))
    same = z.size > 0 and z.shape == estimate.shape == r.shape
    if not same or not np.isfinite([z, estimate, r]).all():
        raise ValueError("evaluate needs finite spec_z, photo_z and dered_petro_r of one length above 0")
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    variance, _ = variances(z, estimate, r, grid, slices)
    scores, bins = pdf if isinstance(pdf, PdfScores) else pdf_scores(pdf, z, grid), wide(grid)
    r_slice, (in_photo_z, centres) = slices.index(r), bins_of_photo_z(estimate, grid)
    crowded = np.flatnonzero(np.bincount(r_slice) > CROWDED)
    dz, weight = residual(z, estimate, relative), unit(z, relative) ** 2 / variance
    in_spec_z, fine, high = bins.index(z), (grid.index(estimate), grid.index(z)), bins.centres > z_high

    def statistics(rows: Ints) -> dict[str, Floats]:
        spec, photo, own = z[rows], estimate[rows], dz[rows]
        mean, error, _ = means_by_spec_z(in_spec_z[rows], own, weight[rows])
        bulk = means_by_photo_z(in_photo_z[rows], own, len(centres), MIN_COUNT, grid.width)
        n_photo, n_spec = (draws.counts(k[rows], grid.n_bins) for k in fine)
        nothing = dict.fromkeys(OF_PDF, np.full(len(rows), np.nan))
        return {
            **_of_residuals(own, outlier_cut),
            **(nothing if pdf is None else scores.summary(rows)),
            "slope_spec_z": draws.line_slope(bins.centres, mean, error),
            "slope_spec_z_high": draws.line_slope(bins.centres[high], mean[:, high], error[:, high]),
            "slope_photo_z": draws.line_slope(centres, *bulk[:2]),
            "slope_spec_z_plain": draws.plain_slope(spec, photo - spec),
            "slope_photo_z_plain": draws.plain_slope(photo, photo - spec),
            "slope_slices": draws.steepest(spec, photo - spec, r_slice[rows], crowded),
            "total_variation": 0.5 * np.abs(n_photo - n_spec).sum(axis=1) / rows.shape[1],
            "wasserstein": draws.wasserstein(spec, photo),
        }

    numbers = _with_errors(statistics, np.arange(len(z)), n_bootstrap, rng)
    floor = total_variation_floor(z, estimate, variance, grid, rng, n_bootstrap, relative)
    numbers |= {"n": float(len(z)), "total_variation_floor": float(floor.mean())}
    return numbers | {"total_variation_floor_err": float(standard_error(floor))}
