"""Curves of one correction over its seeds: mean residuals with their lines, scatter by magnitude."""

from collections.abc import Sequence

import numpy as np

from photoz_lit import metrics
from photoz_lit.dispersion import variances
from photoz_lit.report.figures.residuals import Curve
from photoz_lit.report.figures.results import Points
from photoz_lit.report.runs import Run

FEW_IN_SLICE = 30  # galaxies; below, sigma_mad of a slice, or the mean of a bin, says nothing
FEW_BINS = 5  # with fewer, a bias "over the range" would be that of its middle


def against_spec_z(label: str, runs: Sequence[Run]) -> Curve:
    """Bin residuals by the truth, weighted as `metrics.evaluate` does: figure and table show one slope."""
    binned = []
    for run in runs:
        galaxies, survey = (run.spec_z, run.photo_z), run.survey
        variance, _ = variances(*galaxies, run.dered_petro_r, survey.grid, survey.slices)
        binned.append(metrics.residuals_by_spec_z(*galaxies, variance, survey.grid, survey.target.relative))
    return _over_seeds(label, binned, runs[0].metrics["slope_spec_z_err"])


def against_photo_z(label: str, runs: Sequence[Run]) -> Curve:
    """Bin residuals by the estimate, plain means."""
    binned = []
    for run in runs:
        how = (run.survey.grid, metrics.MIN_COUNT, run.survey.target.relative)
        binned.append(metrics.residuals_by_photo_z(run.spec_z, run.photo_z, *how))
    return _over_seeds(label, binned, runs[0].metrics["slope_photo_z_err"])


def sigma_mad_by_magnitude(runs: Sequence[Run]) -> Points:
    """Measure sigma_mad per slice of r: median and half range over seeds, or one seed's bootstrap error."""
    tables = []
    for run in runs:
        galaxies, s = (run.spec_z, run.photo_z, run.dered_petro_r), run.survey
        rng, relative = np.random.default_rng(run.seed), s.target.relative
        table = metrics.by_magnitude(
            *galaxies, s.slices.edges, outlier_cut=s.outlier_cut, rng=rng, n_bootstrap=20, relative=relative
        )
        tables.append(table)
    use = np.min([t["count"] for t in tables], axis=0) >= FEW_IN_SLICE
    values = np.array([t["sigma_mad"][use] for t in tables])
    error = np.ptp(values, axis=0) / 2 if len(runs) > 1 else tables[0]["sigma_mad_err"][use]
    return np.mean([t["r"][use] for t in tables], axis=0), np.median(values, axis=0), error


def residual_rms(run: Run) -> dict[str, float]:
    """Measure the bias over all of the range: root mean square of the mean residuals in 40 bins of the truth.

    Those with 30 galaxies or more count once each; NaN where they are fewer than 5.
    """
    grid = run.survey.grid
    residual = metrics.residual(run.spec_z, run.photo_z, run.survey.target.relative)
    bins = metrics.wide(grid).index(run.spec_z)
    count, total, square = (np.bincount(bins, residual**k, metrics.WIDE_BINS) for k in (0, 1, 2))
    use = count >= FEW_IN_SLICE
    if use.sum() < FEW_BINS:
        return {"residual_rms": np.nan, "residual_rms_err": np.nan}
    mean = total[use] / count[use]
    error = np.sqrt(np.maximum(square[use] / count[use] - mean**2, 0.0) / (count[use] - 1))
    rms = float(np.sqrt(np.mean(mean**2)))
    size = float(np.sqrt(np.sum((mean * error) ** 2))) / (use.sum() * rms) if rms > 0 else np.nan
    return {"residual_rms": rms, "residual_rms_err": float(size)}


def _over_seeds(label: str, binned: Sequence[metrics.BinnedResiduals], slope_error: float) -> Curve:
    """Average the bins of all seeds, and take the median line; `slope_error` is that of one seed."""
    # Seeds need not populate the same bins; equal centres may differ by rounding.
    centre, bins = np.unique(np.concatenate([b.centre for b in binned]).round(9), return_inverse=True)
    count = np.concatenate([b.count for b in binned])
    total = np.bincount(bins, weights=count)
    # Errors are not divided by the root of the number of seeds: all seeds see the same galaxies.
    columns = (np.concatenate([getattr(b, name) for b in binned]) for name in ("mean", "error"))
    mean, error = (np.bincount(bins, weights=count * column) / total for column in columns)
    averaged = metrics.BinnedResiduals(centre, mean, error, (total / len(binned)).astype(np.int64))
    fits = [metrics.fit_line(b) for b in binned]
    slopes, intercepts = [f.slope for f in fits], [f.intercept for f in fits]
    intercept_error = fits[0].intercept_error
    if len(fits) > 1:
        slope_error, intercept_error = float(np.ptp(slopes)) / 2, float(np.ptp(intercepts)) / 2
    middle = float(np.median(slopes)), float(np.median(intercepts))
    return Curve(label, averaged, metrics.LineFit(*middle, slope_error, intercept_error))
