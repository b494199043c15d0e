"""Differences from a reference correction on the same galaxies, with the errors of a paired bootstrap."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from photoz_lit import metrics
from photoz_lit.errors import DataError
from photoz_lit.grids import Floats, Ints
from photoz_lit.metrics.draws import counts, drawn, mean, plain_slope, sigma_mad
from photoz_lit.report.runs import Run
from photoz_lit.report.table import COLLAPSE, CRPS, OUTLIERS, PLAIN, PLAIN_BULK, RMS, SCATTER, medians
from photoz_lit.results import read_grid, read_pdf

REFERENCES = ("Baseline", "Step 1", "none")  # the first that there is
DRAWS = 100
SLOPES = tuple(replace(c, heading=f"|{c.heading}|") for c in (PLAIN, PLAIN_BULK))
COMPARED = (SCATTER, RMS, OUTLIERS, *SLOPES, COLLAPSE, CRPS)
COLUMNS = tuple(replace(c, signed=True, digits=c.digits + 1) for c in COMPARED)
KEYS = tuple(column.key for column in COLUMNS)


def paired_rows(corrections: dict[str, list[Run]]) -> list[dict[str, Any]]:
    """Return a row for each correction that shares seeds and test galaxies with the reference.

    A row has `correction`, `reference`, `seeds`, and for each of `KEYS` the median difference over seeds,
    under `<key>_err` its median paired error, and under `<key>_spread` half the range over several seeds.
    A slope is its absolute value. What was not measured is NaN.
    """
    name = next((name for name in REFERENCES if name in corrections), "")
    rows: list[dict[str, Any]] = []
    others = {run.seed: (run, _samples(run)) for run in corrections.get(name, ())}
    for label, same in corrections.items():
        pairs = [(run, *others[run.seed]) for run in same if label != name and run.seed in others]
        found = [_samples(run) - theirs for run, other, theirs in pairs if _alike(run, other)]
        if found:
            errors = np.median([samples[1:].std(axis=0) for samples in found], axis=0)
            over_seeds = medians([dict(zip(KEYS, samples[0], strict=True)) for samples in found], KEYS)
            row = {"correction": label, "reference": name, "seeds": len(found)} | over_seeds
            rows.append(row | {f"{key}_err": float(e) for key, e in zip(KEYS, errors, strict=True)})
    return rows


def _alike(one: Run, other: Run) -> bool:
    """Whether two runs were tested on the same galaxies."""
    return all(np.array_equal(getattr(one, c), getattr(other, c)) for c in ("spec_z", "dered_petro_r"))


def _samples(run: Run) -> Floats:
    """Return the numbers of all galaxies, then those of each draw, the same for all runs of a seed."""
    n, statistic, rng = run.spec_z.size, _statistic(run), np.random.default_rng([run.seed, 8])
    return np.vstack([statistic(np.arange(n)[None]), *(statistic(some) for some in drawn(n, DRAWS, rng))])


def _statistic(run: Run) -> Callable[[Ints], Floats]:
    grid, z, photo_z, cut = run.survey.grid, run.spec_z, run.photo_z, run.survey.outlier_cut
    dz, crps = metrics.residual(z, photo_z, run.survey.target.relative), _crps(run)
    bins, step = (grid.index(z), grid.index(photo_z)), photo_z - z

    def statistic(rows: Ints) -> Floats:
        own, (true, estimated) = dz[rows], (counts(k[rows], grid.n_bins) for k in bins)
        slopes = (np.abs(plain_slope(x[rows], step[rows])) for x in (z, photo_z))
        rms, tv = np.sqrt(mean(own**2)), 0.5 * np.abs(true - estimated).sum(axis=1) / rows.shape[1]
        outliers = mean((np.abs(own) > cut).astype(np.float64))
        return np.stack([sigma_mad(own), rms, outliers, *slopes, tv, mean(crps[rows])], axis=1)

    return statistic


def _crps(run: Run) -> Floats:
    """Return the CRPS of each galaxy (n,); NaN where p(z) are gone or are of other galaxies too."""
    try:
        pdf = np.concatenate(list(read_pdf(run.folder)))
        return metrics.crps(pdf, run.spec_z, read_grid(run.folder, run.survey.grid))
    except (DataError, ValueError):
        return np.full(run.spec_z.size, np.nan)
