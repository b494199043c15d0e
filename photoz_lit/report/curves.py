"""Curves of one correction over its seeds: mean residuals with their lines, scatter by magnitude."""

from collections.abc import Sequence

import numpy as np

from photoz_lit import metrics
from photoz_lit.correction.labels import fit_labels
from photoz_lit.report.figures import Curve, MagnitudeCurve
from photoz_lit.report.runs import Run

FEW_IN_SLICE = 30  # galaxies; below, sigma_mad of a slice says nothing
N_BOOTSTRAP = 20  # enough for an error bar


def against_spec_z(label: str, runs: Sequence[Run]) -> Curve:
    """Bin the residuals of a correction by spec_z, inverse-variance weighted, and average over seeds.

    Parameters
    ----------
    label : str
        Name of the correction.
    runs : sequence of Run
        Its runs, one a seed.

    Returns
    -------
    Curve
        Means over seeds of the binned residuals, and the median line: its slope is that of `metrics.json`.
    """
    return _over_seeds(
        label, [_residuals_by_spec_z(r) for r in runs], [r.metrics["slope_spec_z_err"] for r in runs]
    )


def _residuals_by_spec_z(run: Run) -> metrics.BinnedResiduals:
    """Weight as `metrics.evaluate` does, so that figure and table show one slope."""
    z, estimate, r, survey = run.spec_z, run.photo_z, run.dered_petro_r, run.survey
    sigma = fit_labels(z, estimate, r, survey.grid, survey.slices, survey.slices.membership).sigma_1
    variance, _ = metrics.variances(z, estimate, r, sigma, survey.grid, survey.slices)
    return metrics.residuals_by_spec_z(z, estimate, variance, survey.grid)


def against_photo_z(label: str, runs: Sequence[Run]) -> Curve:
    """Bin the residuals of a correction by photo_z, plain means, and average over seeds.

    Parameters
    ----------
    label : str
        Name of the correction.
    runs : sequence of Run
        Its runs, one a seed.

    Returns
    -------
    Curve
        Means over seeds of the binned residuals, and the median line: its slope is that of `metrics.json`.
    """
    binned = [
        metrics.residuals_by_photo_z(r.spec_z, r.photo_z, r.survey.grid, min_count=metrics.MIN_COUNT)
        for r in runs
    ]
    return _over_seeds(label, binned, [r.metrics["slope_photo_z_err"] for r in runs])


def sigma_mad_by_magnitude(label: str, runs: Sequence[Run]) -> MagnitudeCurve:
    """Measure sigma_mad of a correction per slice of r: the median over seeds.

    Parameters
    ----------
    label : str
        Name of the correction.
    runs : sequence of Run
        Its runs, one a seed.

    Returns
    -------
    MagnitudeCurve
        The error is half the range over seeds, or from the bootstrap where there is one seed. Slices with few
        galaxies are left out.
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
        )
        for r in runs
    ]
    use = np.min([t.count for t in tables], axis=0) >= FEW_IN_SLICE
    values = np.array([t.sigma_mad[use] for t in tables])
    error = np.ptp(values, axis=0) / 2 if len(runs) > 1 else tables[0].sigma_mad_err[use]
    return MagnitudeCurve(
        label, np.mean([t.r[use] for t in tables], axis=0), np.median(values, axis=0), error
    )


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
