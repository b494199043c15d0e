"""All numbers of a finished run, from its estimates and p(z) of test galaxies, as files of its folder."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit import __version__, metrics
from photoz_lit.config import Config
from photoz_lit.correction.n_of_z import inferred, stacked, tv_and_mean_error
from photoz_lit.correction.prior import Priors
from photoz_lit.files import digest_of, read_json, write_json, write_table
from photoz_lit.grids import Floats, RedshiftGrid


def write_scores(
    folder: Path,
    config: Config,
    table: Table,
    pdf: NDArray[np.float32],
    grid: RedshiftGrid,
    priors: Priors,
    spec_z_train: NDArray[np.floating[Any]],
) -> dict[str, float]:
    """Write the numbers of test galaxies, whose truth is known, and return those of `metrics.json`.

    `table` is that of `photoz_lit.results`, `pdf` (n, n_outputs) on `grid`, `priors` stand beside them,
    `spec_z_train` are those of the whole training split, for `trainz`.
    """
    s, target, n = config.survey, config.target, config.n_bootstrap
    names = (target.column, target.estimate, "dered_petro_r")
    spec_z, photo_z, r = (np.asarray(table[name], dtype=np.float64) for name in names)
    slices, own = s.slices(), s.grid()
    resampled: dict[str, Any] = {"outlier_cut": s.outlier_cut, "n_bootstrap": n, "relative": target.relative}
    of_all: dict[str, Any] = {"slices": slices, "z_high": s.slope_high_from, **resampled}

    of_pdf, rng = metrics.pdf_scores(pdf, spec_z, grid), np.random.default_rng([config.seed, 5])
    of_estimate = metrics.evaluate(spec_z, photo_z, r, of_pdf, grid, rng=rng, **of_all)
    numbers = of_estimate | write_n_of_z(folder, spec_z, r, pdf, grid, priors)
    write_json(folder / "metrics.json", numbers)
    write_json(folder / "trainz.json", trainz_of(config, spec_z, r, spec_z_train, rng, of_all))

    # Mode and median of the same p(z), and the estimate for galaxies of given spec_z, side by side.
    for kind in metrics.POINTS:
        column = f"{target.estimate}_{kind}"
        if column not in table.colnames:
            continue
        point = np.asarray(table[column], dtype=np.float64)
        has, rng = np.isfinite(point), np.random.default_rng([config.seed, 5])
        if not has.any():
            continue
        if np.array_equal(point, photo_z):  # measured already
            of_point = of_estimate | {
                k: np.nan for k in of_estimate if k.removesuffix("_err") in metrics.OF_PDF
            }
        else:
            of_point = metrics.evaluate(spec_z[has], point[has], r[has], None, own, rng=rng, **of_all)
        if (error := f"{column}_err") in table.colnames:
            within = np.abs(point - spec_z)[has] <= np.asarray(table[error])[has]
            of_point["within_error"] = float(within.mean())
        write_json(folder / f"metrics_{kind}.json", of_point)

    rng = np.random.default_rng([config.seed, 6])
    by_r = metrics.by_magnitude(spec_z, photo_z, r, slices.edges, rng=rng, **resampled) | metrics.by_group(
        of_pdf.summary, slices.index(r), slices.n_slices, rng=rng, n_bootstrap=n
    )
    rng, edges = np.random.default_rng([config.seed, 7]), np.linspace(s.z_min, s.z_max, 11)
    by_z = metrics.by_redshift(spec_z, photo_z, of_pdf, edges, rng=rng, **resampled)
    by_z = {"z_low": edges[:-1], "z_high": edges[1:]} | by_z
    for name, columns in (("by_magnitude", by_r), ("by_redshift", by_z)):
        rows = Table(columns)
        write_table(folder / f"{name}.ecsv", rows[rows["count"] > 0])  # those that hold galaxies
    return numbers


def trainz_of(
    config: Config,
    spec_z: Floats,
    r: Floats,
    spec_z_train: NDArray[np.floating[Any]],
    rng: np.random.Generator,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return the numbers of p(z) that are all the n(z) of training, which corrections share."""
    grid, train = config.survey.grid(), np.asarray(spec_z_train, np.float64)
    arrays = [hashlib.sha256(values.tobytes()).hexdigest() for values in (spec_z, r, train, grid.edges)]
    key = digest_of([__version__, config.estimate, str(settings), str(rng.bit_generator.state), arrays])
    kept = config.folder("representation") / f"trainz-{key}.json"
    if kept.is_file():
        return read_json(kept)
    pdf = metrics.trainz(train, grid, len(spec_z))
    estimate = getattr(metrics, config.estimate)(pdf, grid)
    found = metrics.evaluate(spec_z, estimate, r, pdf, grid, rng=rng, **settings)
    if kept.parent.is_dir():
        write_json(kept, found)
    return found


def write_n_of_z(
    folder: Path,
    spec_z: Floats,
    r: Floats,
    pdf: NDArray[np.float32],
    grid: RedshiftGrid,
    priors: Priors,
) -> dict[str, float]:
    """Write n(z) of test galaxies, true, stacked and inferred, and return what the latter two miss."""
    n = len(spec_z)
    true = np.bincount(grid.output_index(spec_z), minlength=grid.n_outputs) / n
    found = {"stacked": stacked(pdf), "inferred": inferred(pdf, r, priors)}
    write_table(
        folder / "n_of_z.ecsv",
        Table({"z_low": grid.edges[:-1], "z_high": grid.edges[1:], "true": true} | found),
    )
    # What counting galaxies alone makes of the right n(z): half the sum of the mean absolute deviations.
    numbers = {"n_of_z_floor": float(0.5 * np.sqrt(2 * true * (1 - true) / (np.pi * n)).sum())}
    for name, n_of_z in found.items():
        numbers[f"{name}_tv"], numbers[f"{name}_mean_error"] = tv_and_mean_error(n_of_z, spec_z, grid)
    return numbers
