"""Numbers by magnitude and by redshift, and all headline numbers of a sample, with their bootstrap errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit.dispersion import variances
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid, on_edges
from photoz_lit.metrics.pdf import PdfScores, pdf_scores
from photoz_lit.metrics.point import (
    Floats,
    Ints,
    bias,
    bootstrap,
    outlier_fraction,
    residual,
    sigma_mad,
    standard_error,
    total_variation,
    wasserstein,
)
from photoz_lit.metrics.residuals import (
    fit_line,
    residuals_by_photo_z,
    residuals_by_spec_z,
    total_variation_floor,
)

MIN_COUNT = 10
"""Fewest galaxies of a photo_z bin in `evaluate`.

The standard error that a few galaxies give to their mean may by chance be near zero, and such a bin would
decide the slope, above all in the bootstrap, where draws repeat galaxies.
"""


def by_group(
    statistics: Callable[[Ints], dict[str, float]],
    group: ArrayLike,
    n_groups: int,
    *,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
) -> dict[str, NDArray[Any]]:
    """Evaluate statistics on each group of galaxies, with bootstrap errors from draws within it.

    Parameters
    ----------
    statistics : callable
        Takes rows of galaxies, which may repeat or be none, and returns numbers by name.
    group : array_like of int, shape (n,)
        Group of each galaxy, 0 .. n_groups - 1.

    Returns
    -------
    dict of str to ndarray, each of shape (n_groups,)
        `count`, each statistic, and its standard error under `<key>_err`; NaN without galaxies.
    """
    which = np.asarray(group)
    rows = []
    for i in range(n_groups):
        members = np.flatnonzero(which == i)
        values = statistics(members)

        def sampled(draw: Ints, members: Ints = members) -> list[float]:
            return list(statistics(members[draw]).values())

        draws = (
            bootstrap(sampled, len(members), n_bootstrap, rng) if len(members) else np.empty((0, len(values)))
        )
        errors = zip(values, standard_error(draws).tolist(), strict=True)
        rows.append({"count": len(members)} | values | {f"{key}_err": error for key, error in errors})
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


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

    Returns
    -------
    dict of str to ndarray, each of shape (m,)
        count, r (mean), bias, sigma_mad, outlier_fraction, wasserstein, and `<key>_err` for all but count;
        NaN without galaxies.
    """
    z, estimate, r = (np.asarray(a, dtype=np.float64) for a in (spec_z, photo_z, dered_petro_r))
    dz, borders = residual(z, estimate, relative), np.asarray(edges, dtype=np.float64)

    def statistics(members: Ints) -> dict[str, float]:
        part = dz[members]
        return {
            "r": bias(r[members]),
            "bias": bias(part),
            "sigma_mad": sigma_mad(part),
            "outlier_fraction": outlier_fraction(part, outlier_cut),
            "wasserstein": wasserstein(z[members], estimate[members]),
        }

    row = _row_of(r, borders)
    return by_group(statistics, row, len(borders) - 1, rng=rng, n_bootstrap=n_bootstrap)


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

    Returns
    -------
    dict of str to ndarray, each of shape (m,)
        count, spec_z (mean), bias, sigma_mad, outlier_fraction, those of `PdfScores.summary`, and
        `<key>_err` for all but count; NaN without galaxies.
    """
    z, borders = np.asarray(spec_z, dtype=np.float64), np.asarray(edges, dtype=np.float64)
    dz = residual(z, photo_z, relative)

    def statistics(members: Ints) -> dict[str, float]:
        part = dz[members]
        return {
            "spec_z": bias(z[members]),
            "bias": bias(part),
            "sigma_mad": sigma_mad(part),
            "outlier_fraction": outlier_fraction(part, outlier_cut),
        } | scores.summary(members)

    row = _row_of(z, borders)
    return by_group(statistics, row, len(borders) - 1, rng=rng, n_bootstrap=n_bootstrap)


def _row_of(values: Floats, edges: Floats) -> Ints:
    """Half-open bin of each value, those beyond the edges in the first or last."""
    row = np.searchsorted(edges, on_edges(values, np.diff(edges).min()), side="right") - 1
    return np.clip(row, 0, len(edges) - 2)


def evaluate(
    spec_z: ArrayLike,
    photo_z: ArrayLike,
    dered_petro_r: ArrayLike,
    pdf: ArrayLike | None,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    outlier_cut: float,
    rng: np.random.Generator,
    n_bootstrap: int = 100,
    z_high: float = 0.15,
    relative: bool = True,
) -> dict[str, float]:
    """Compute the headline numbers of one sample, each with its bootstrap standard error under `<key>_err`.

    Parameters
    ----------
    spec_z, photo_z, dered_petro_r : array_like, shape (n,)
        Redshifts, estimates (those outside the survey's range are allowed) and magnitudes (mag), all finite.
    pdf : array_like, shape (n, n_outputs), or None
        Probability of each bin of `grid`; without it, the numbers of p(z) are NaN.
    outlier_cut : float
        Cut on abs(dz).
    rng, n_bootstrap
        Source and number of the bootstrap samples, and of the draws for the TV floor.
    z_high : float
        `slope_spec_z_high` uses bins above it: 0.15 for SDSS.

    Returns
    -------
    dict of str to float
        n, bias, sigma_mad, outlier_fraction, crps, pit_ks, pit_cvm, cde_loss, coverage_68, coverage_95,
        slope_spec_z, slope_spec_z_high, slope_photo_z, total_variation, total_variation_floor, wasserstein
        and `<key>_err` for all but n. What a small sample leaves undefined is NaN. Slopes use all populated
        bins of spec_z and the bins of photo_z with 10 galaxies or more. The variance that weights the slopes
        is held fixed in the bootstrap; the error of the floor is the scatter of its draws.

    Raises
    ------
    ValueError
        If there is no galaxy, lengths differ, a value is not finite, p(z) does not fit the grid or
        n_bootstrap < 1.
    """
    z, estimate, r = (np.asarray(a, dtype=np.float64) for a in (spec_z, photo_z, dered_petro_r))
    if z.size == 0 or not z.shape == estimate.shape == r.shape:
        raise ValueError(
            f"evaluate needs arrays of one length above 0, got {z.shape}, {estimate.shape}, {r.shape}"
        )
    if not all(np.isfinite(a).all() for a in (z, estimate, r)):
        raise ValueError(
            "evaluate needs finite spec_z, photo_z and dered_petro_r: drop the other galaxies first"
        )
    if n_bootstrap < 1:
        raise ValueError(f"n_bootstrap must be at least 1, got {n_bootstrap}")
    variance, _ = variances(z, estimate, r, grid, slices)
    scores = pdf_scores(pdf, z, grid)

    def statistics(draw: Ints) -> dict[str, float]:
        spec, photo = z[draw], estimate[draw]
        dz = residual(spec, photo, relative)
        by_spec_z = residuals_by_spec_z(spec, photo, variance[draw], grid, relative)
        by_photo_z = residuals_by_photo_z(spec, photo, grid, MIN_COUNT, relative)
        return {
            "bias": bias(dz),
            "sigma_mad": sigma_mad(dz),
            "outlier_fraction": outlier_fraction(dz, outlier_cut),
            **scores.summary(draw),
            "slope_spec_z": fit_line(by_spec_z).slope,
            "slope_spec_z_high": fit_line(by_spec_z, z_high).slope,
            "slope_photo_z": fit_line(by_photo_z).slope,
            "total_variation": total_variation(spec, photo, grid),
            "wasserstein": wasserstein(spec, photo),
        }

    values = statistics(np.arange(len(z)))
    samples = bootstrap(lambda draw: list(statistics(draw).values()), len(z), n_bootstrap, rng)
    errors = dict(zip(values, standard_error(samples).tolist(), strict=True))
    floor = total_variation_floor(z, estimate, variance, grid, rng, n_bootstrap, relative)
    values["total_variation_floor"] = float(floor.mean())
    errors["total_variation_floor"] = float(standard_error(floor))
    return {"n": float(len(z))} | values | {f"{key}_err": error for key, error in errors.items()}
