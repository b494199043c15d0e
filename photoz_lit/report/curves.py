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
N_BOOTSTRAP = 20  # enough for an error bar


def against_spec_z(label: str, runs: Sequence[Run]) -> Curve:
    """Bin residuals by the truth, inverse-variance weighted, and average over seeds.

    The line is the median one: its slope is that of `metrics.json`.
    """
    binned = [_residuals_by_spec_z(r) for r in runs]
    return _over_seeds(label, binned, [r.metrics["slope_spec_z_err"] for r in runs])


def _residuals_by_spec_z(run: Run) -> metrics.BinnedResiduals:
    """Weight as `metrics.evaluate` does, so that figure and table show one slope."""
    z, estimate, r, survey = run.spec_z, run.photo_z, run.dered_petro_r, run.survey
    variance, _ = variances(z, estimate, r, survey.grid, survey.slices)
    relative = survey.target.relative
    return metrics.residuals_by_spec_z(z, estimate, variance, survey.grid, relative=relative)


def against_photo_z(label: str, runs: Sequence[Run]) -> Curve:
    """Bin residuals by the estimate, plain means, and average over seeds, as `against_spec_z` does."""
    binned = [
        metrics.residuals_by_photo_z(
            r.spec_z,
            r.photo_z,
            r.survey.grid,
            min_count=metrics.MIN_COUNT,
            relative=r.survey.target.relative,
        )
        for r in runs
    ]
    return _over_seeds(label, binned, [r.metrics["slope_photo_z_err"] for r in runs])


def sigma_mad_by_magnitude(runs: Sequence[Run]) -> Points:
    """Measure sigma_mad per slice of r, those with few galaxies left out: the median over seeds.

    The error is half the range over seeds, or from the bootstrap where there is one seed.
    """
    tables = [
        metrics.by_magnitude(
            r.spec_z,
            r.photo_z,
            r.dered_petro_r,
            r.survey.slices.edges,
            outlier_cut=r.survey.outlier_cut,
            rng=np.random.default_rng(r.seed),
            n_bootstrap=N_BOOTSTRAP,
            relative=r.survey.target.relative,
        )
        for r in runs
    ]
    use = np.min([t["count"] for t in tables], axis=0) >= FEW_IN_SLICE
    values = np.array([t["sigma_mad"][use] for t in tables])
    error = np.ptp(values, axis=0) / 2 if len(runs) > 1 else tables[0]["sigma_mad_err"][use]
    return np.mean([t["r"][use] for t in tables], axis=0), np.median(values, axis=0), error


def residual_rms(run: Run) -> dict[str, float]:
    """Measure the bias over all of the range: root mean square of the mean residuals in bins of the truth.

    Each of 40 bins over the survey's range that holds 30 galaxies or more counts once, with its plain mean;
    NaN where they are fewer than 5. `residual_rms_err` is from the errors of these means.
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


def _over_seeds(
    label: str, binned: Sequence[metrics.BinnedResiduals], slope_errors: Sequence[float]
) -> Curve:
    """Average the bins of all seeds, and take the median line.

    Errors are averaged too, not divided by the root of the number of seeds: all seeds see the same galaxies.
    """
    # Seeds need not populate the same bins; equal centres may differ by rounding.
    centre, bins = np.unique(np.concatenate([b.centre for b in binned]).round(9), return_inverse=True)
    count = np.concatenate([b.count for b in binned])
    total = np.bincount(bins, weights=count)
    mean = np.bincount(bins, weights=count * np.concatenate([b.mean for b in binned])) / total
    error = np.bincount(bins, weights=count * np.concatenate([b.error for b in binned])) / total
    averaged = metrics.BinnedResiduals(centre, mean, error, (total / len(binned)).astype(np.int64))
    fits = [metrics.fit_line(b) for b in binned]
    slopes, intercepts = [f.slope for f in fits], [f.intercept for f in fits]
    several = len(fits) > 1
    line = metrics.LineFit(
        slope=float(np.median(slopes)),
        intercept=float(np.median(intercepts)),
        slope_error=float(np.ptp(slopes)) / 2 if several else slope_errors[0],
        intercept_error=float(np.ptp(intercepts)) / 2 if several else fits[0].intercept_error,
    )
    return Curve(label, averaged, line)
