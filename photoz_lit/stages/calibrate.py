"""`stage=calibrate`: photo_z of a finished run calibrated against the bulk bias (Lin et al. 2022, Step 4).

A separate product: the run's own photo_z stay as they are, photo_z_calibrated stands beside them. The
spec_z of those that are calibrated, where it is known, serves the metrics alone. Without a run, estimates of
any method are calibrated that a table holds: its rows with the truth tell what the others lose. All of it
goes for other quantities than redshift.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit import __version__, metrics
from photoz_lit.config import Config, finished_runs
from photoz_lit.correction.calibration.deconvolution import Expected
from photoz_lit.correction.calibration.sample import Sample, held_out_weights
from photoz_lit.correction.calibration.smoothing import BIN_WIDTH, calibrate
from photoz_lit.data.catalogue import split_words
from photoz_lit.data.columns import find_column, numbers
from photoz_lit.data.faults import range_faults
from photoz_lit.data.formats import read_table
from photoz_lit.data.splits import object_names
from photoz_lit.data.store import Store
from photoz_lit.dispersion import variances
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import (
    digest,
    locked,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
    write_table,
)
from photoz_lit.fitting import member_subset
from photoz_lit.grids import RedshiftGrid
from photoz_lit.inference import CHUNK, Predictor, Trained, open_model
from photoz_lit.progress import counted
from photoz_lit.results import read_pdf
from photoz_lit.runs import check_origin, enter, survey_facts
from photoz_lit.stages.prepare import plan_of, prepare, splits, store_folder, training_labels
from photoz_lit.target import Target

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimates:
    """Whose photo_z are calibrated: a table, and the results folder with their p(z), if there is one."""

    name: str
    table: Table
    target: Target
    folder: Path | None = None

    def columns(self) -> tuple[Floats, Floats, Floats]:
        """Return truth, estimate and dered_petro_r (mag), each (n,), NaN where masked or unknown."""
        table = self.table
        z, estimate, r = (
            np.ma.filled(np.ma.asarray(table[name], dtype=np.float64), np.nan)
            if name in table.colnames
            else np.full(len(table), np.nan)
            for name in (self.target.column, self.target.estimate, "dered_petro_r")
        )
        return z, estimate, r


def run(config: Config) -> None:
    """Calibrate the photo_z of a run's test split, of a results folder of stage=predict, or of a table."""
    if config.calibration.name == "none":
        raise ConfigError("stage=calibrate has nothing to do with calibration=none: type calibration=photo_z")
    if config.model is None:
        of_a_table(config)
        return
    found = finished_runs(config.model)
    if len(found) > 1:
        raise ConfigError(f"model={config.model} names {len(found)} runs: calibrate one run at a time")
    of_a_run(config, open_model(found[0]))


def of_a_run(config: Config, model: Trained) -> None:
    """Calibrate on the training and validation galaxies of a run, whose photo_z are made for it."""
    own = replace(
        model.config,
        stage=config.stage,
        model=str(model.folder),
        run=config.run,
        data_dir=config.data_dir,
        output_dir=config.output_dir,
        trainer=config.trainer,
        calibration=config.calibration,
    )
    trained_on, there = read_json(model.folder / "origin.json").get("store"), store_folder(own)
    if trained_on != there.name:
        raise ConfigError(
            f"{model.folder} was trained on {trained_on}, its settings now give {there}: bring the galaxies "
            "that it was trained on, unchanged, to calibrate it"
        )
    galaxies = read_estimates(model, config.calibration.galaxies)
    assert galaxies.folder is not None
    n_views, how = 1, []
    if galaxies.folder != model.folder:
        views = galaxies.folder.resolve().parent.name.partition(",symmetries=")[2]
        n_views, how = int(views or 1), [f"of={galaxies.folder.resolve().name}"]
        how += [f"symmetries={views}"] if views else []
    above = Path(own.output_dir) / own.run / "calibrate" / model.folder.name

    def sample() -> Sample:
        store = prepare(own)
        estimate = str(galaxies.table.meta.get("ESTIMATE", own.photo_z))
        return sample_of(own, store, training_estimates(own, model, store, estimate, n_views, above))

    origin = {"model": model.digest, "estimates": digest(galaxies.folder / "photo_z.fits")}
    work(own, above / folder_name(own, *how), galaxies, sample, model.grid, origin)


def of_a_table(config: Config) -> None:
    """Calibrate on those rows of a table of estimates that have the truth; no p(z) is needed."""
    own = replace(config, data=replace(config.data, labelled=False))
    # Nothing is prepared, but the name of a store tells the table from others and from its changes.
    place = store_folder(own).name.replace(own.data.source, Path(str(own.data.path)).stem)
    galaxies, sample = table_of(own)
    origin = {"store": place, "survey": str(asdict(own.survey)), "target": str(asdict(own.target))}
    origin["seed"] = str(own.seed)  # of folds and resampling
    folder = Path(own.output_dir) / own.run / "calibrate" / place / folder_name(own)
    work(own, folder, galaxies, lambda: sample, own.survey.grid(), origin)


def work(
    own: Config,
    folder: Path,
    galaxies: Estimates,
    sample: Callable[[], Sample],
    grid: RedshiftGrid,
    origin: dict[str, str],
) -> None:
    """Calibrate and write with all that it was made with, unless that is done.

    Of equal commands one works and the others wait; nothing is written before all is there to be written.
    """
    began = time.monotonic()
    with locked(folder.parent):
        check_origin(folder, origin)
        if (folder / "done.json").is_file():
            log.info("%s is complete: skipped", folder)
            return
        c, s, (truth, photo_z, r) = own.calibration, own.survey, galaxies.columns()
        usable = np.isfinite(photo_z) & np.isfinite(r)
        calibration, facts = calibrate(
            sample(),
            photo_z[usable],
            r[usable],
            grid,
            s.slices(),
            expected=cast(Expected, c.target),  # checked with the settings
            paper=c.paper,
            relative=own.target.relative,
            bin_width=BIN_WIDTH if own.target.is_redshift else (s.z_max - s.z_min) / metrics.WIDE_BINS,
            seed=own.seed,
        )
        calibrated = np.full(len(usable), np.nan)
        calibrated[usable] = calibration.correct(photo_z[usable], r[usable])
        known = usable & np.isfinite(truth)
        results = {
            name: judged(own, grid, galaxies, known, estimates)
            for name, estimates in (("metrics_before", photo_z), ("metrics", calibrated))
            if known.any()
        }
        enter(own, folder, origin)
        table = galaxies.table.copy()
        table[f"{own.target.estimate}_calibrated"] = calibrated
        write_table(folder / "photo_z.fits", table)
        shape = {"start": calibration.start, "width": calibration.width}
        write_arrays(folder / "calibration.npz", {"table": calibration.table, **shape})
        write_json(folder / "survey.json", survey_facts(own))
        for name, scores in results.items():
            write_json(folder / f"{name}.json", scores)
        if results:  # the figure gives a correction its own colour by its name
            named = {own.correction.name: photo_z[known], "calibrated": calibrated[known]}
            draw_residuals(own, folder / "residuals.png", truth[known], r[known], named)
        done: dict[str, Any] = {
            "label": f"{galaxies.name}, calibrated to {c.target}",
            "group": folder.name,
            "stage": "calibrate",
            "run": own.run,
            "version": __version__,
            "model": own.model or own.data.path,
            "estimates": str(galaxies.folder or own.data.path),
            "target": c.target,
            "sample": c.sample,
            "galaxies": len(calibrated),
            "seconds": round(time.monotonic() - began, 1),
        }
        write_json(folder / "done.json", done | asdict(facts))
    said = "no truth is known"
    if results:
        before, after = results.values()
        said = (
            f"mean abs(mean dz) in bins of photo_z {before['bulk_mean']:.5f} -> {after['bulk_mean']:.5f}, "
            f"slope_photo_z {before['slope_photo_z']:+.3f} -> {after['slope_photo_z']:+.3f}"
        )
    log.info("%d galaxies calibrated on %d: %s -> %s", usable.sum(), facts.n_galaxies, said, folder)


def judged(
    own: Config, grid: RedshiftGrid, galaxies: Estimates, known: NDArray[np.bool_], estimates: Floats
) -> dict[str, float]:
    """Return the metrics of those whose truth is known, with two of the bulk bias."""
    s, (spec_z, _, r) = own.survey, (column[known] for column in galaxies.columns())
    numbers = metrics.evaluate(
        spec_z,
        estimates[known],
        r,
        None if galaxies.folder is None else np.concatenate(list(read_pdf(galaxies.folder)))[known],
        grid,
        s.slices(),
        outlier_cut=s.outlier_cut,
        rng=np.random.default_rng([own.seed, 5]),
        n_bootstrap=own.n_bootstrap,
        z_high=s.slope_high_from,
        relative=own.target.relative,
    )
    return numbers | metrics.bulk_bias(spec_z, estimates[known], s.grid(), own.target.relative)


def draw_residuals(own: Config, path: Path, spec_z: Floats, r: Floats, named: dict[str, Floats]) -> None:
    """Draw mean residuals of estimates by name, against spec_z and photo_z, as the metrics have them."""
    from photoz_lit.report.figures.residuals import Curve, figure_residuals

    grid, relative = own.survey.grid(), own.target.relative
    sides: tuple[list[Curve], list[Curve]] = ([], [])
    for label, photo_z in named.items():
        variance, _ = variances(spec_z, photo_z, r, grid, own.survey.slices())
        binned = (
            metrics.residuals_by_spec_z(spec_z, photo_z, variance, grid, relative),
            metrics.residuals_by_photo_z(spec_z, photo_z, grid, metrics.MIN_COUNT, relative),
        )
        for side, means in zip(sides, binned, strict=True):
            side.append(Curve(label, means, metrics.fit_line(means)))
    figure_residuals(*sides, own.target).savefig(path, dpi=150)


def folder_name(config: Config, *others: str) -> str:
    """Name the distribution expected, other galaxies than a run's own, and what differs from the defaults."""
    c = config.calibration
    sample, paper = [f"sample={c.sample}"] if c.sample != "held_out" else [], ["paper"] if c.paper else []
    return ",".join([f"target={c.target}", *others, *sample, *paper])


def table_of(own: Config) -> tuple[Estimates, Sample]:
    """Read a table of estimates: what is to be calibrated, and the galaxies to measure on.

    The latter have the truth, and do not say `test` in the column `split`.
    """
    plan, s, target = plan_of(own), own.survey, own.target
    path, table, truth = str(own.data.path), plan.catalogue, target.column
    estimates = np.concatenate(list(plan.chunks(0))).astype(np.float64)
    if estimates.shape[1] != 1:
        raise DataError(
            f"{path}: data.vectors={own.data.vectors} are {estimates.shape[1]} columns: name the one that "
            "holds the estimates"
        )
    if absent := [name for name in (truth, "dered_petro_r") if name not in table.colnames]:
        raise DataError(
            f"{path}: no column {' and '.join(absent)}: name them by target.column and data.columns"
        )
    spec_z = numbers(table, truth, path)
    told = np.isfinite(spec_z)
    given = read_table(path)  # a table without labels, whose splits are not read
    if (split := find_column(given, own.data.columns.get("split") or "split", path)) is not None:
        told &= split_words(given, split, path)[0] != "test"
    for what, mask in range_faults(spec_z, truth, (s.z_min, s.z_max)):
        if (mask & told).any():
            raise DataError(f"{path}: {what} in {(mask & told).sum()} rows: leave them out")
    table = table[[n for n in ("object_id", "ra", "dec", truth, "dered_petro_r") if n in table.colnames]]
    table[target.estimate] = estimates[:, 0]
    _, photo_z, r = Estimates(path, table, target).columns()
    usable = np.isfinite(photo_z) & np.isfinite(r)
    rows = told & usable
    if not rows.any() or not (usable & ~told).any():
        raise DataError(
            f"{path}: {rows.sum()} rows have {truth} to calibrate on, {(usable & ~told).sum()} are to be "
            f"calibrated: those without {truth}, and those that say test in a column split"
        )
    sample = Sample(spec_z[rows], photo_z[rows], r[rows], np.ones(rows.sum()))
    return Estimates(Path(path).stem, table[~told], target), sample


def read_estimates(model: Trained, others: str | None) -> Estimates:
    """Read the photo_z to calibrate: the model's own, or those of a results folder of stage=predict."""
    folder = model.folder if others is None else Path(others)
    if others is not None:
        if not (folder / "done.json").is_file():
            raise ConfigError(
                f"calibration.galaxies={folder}: no finished results of stage=predict are there"
            )
        origin = read_json(folder / "origin.json")
        if origin.get("model") != model.digest:
            raise ConfigError(f"{folder} holds no estimates of {model.folder}: name the model that made them")
        if "predict.prior" in origin:
            raise ConfigError(
                f"{folder} holds p(z) of another prior (predict.prior), and the calibration measures those "
                "of the model's own: predict with predict.prior=none to calibrate"
            )
    path = folder / "photo_z.fits"
    try:
        table = Table.read(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): run its stage again") from error
    if "dered_petro_r" not in table.colnames:
        raise DataError(f"{path}: has no dered_petro_r, and the calibration depends on it: predict with it")
    return Estimates(model.folder.name, table, model.config.target, folder)


def training_estimates(
    own: Config, model: Trained, store: Store, estimate: str, n_views: int, above: Path
) -> Floats:
    """Estimate photo_z of the training and validation galaxies as the others' were; kept for the next run.

    Returns
    -------
    ndarray, shape (N,)
        One a galaxy of the store, NaN for the others.
    """
    path = above / f"training-{model.digest[:12]}-{estimate}-{n_views if store.kind == 'images' else 1}.npz"
    if not path.is_file():
        usable = np.isin(splits(store, own), ("train", "val"))
        photo_z = np.full(len(usable), np.nan)
        predictor = Predictor(
            [model], store.kind, store.inputs.shape[1:], n_views=n_views, trainer=own.trainer
        )
        with counted("galaxies", 0, len(usable), own.trainer.progress) as tick:
            for start in range(0, len(usable), CHUNK):
                part = slice(start, min(start + CHUNK, len(usable)))
                pdf, _ = predictor.rows(store, part.start, part.stop, usable, tick)
                mine = usable[part]
                photo_z[part][mine] = getattr(metrics, estimate)(pdf[mine], model.grid)
        write_arrays(path, {"photo_z": photo_z})
    return read_arrays(path)["photo_z"]


def sample_of(own: Config, store: Store, photo_z: Floats) -> Sample:
    """Choose and weight the galaxies that the calibration is measured on; never those of the test split."""
    which, split = own.calibration.sample, splits(store, own)
    r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
    spec_z = training_labels(store, own, split)
    rows = np.flatnonzero(np.isin(split, ("val",) if which == "val" else ("train", "val")))
    if len(rows) == 0:
        raise DataError(
            f"{store.folder}: no galaxies to calibrate with (calibration.sample={which}, "
            f"data.val_fraction={own.data.val_fraction}): type calibration.sample=held_out"
        )
    weights = np.ones(len(rows))
    if which == "held_out":
        fitted = fitted_on(own, store, spec_z, r, split)[rows]
        weights = held_out_weights(spec_z[rows], r[rows], fitted, own.survey.grid(), own.survey.slices())
    return Sample(spec_z[rows], photo_z[rows], r[rows], weights)


def fitted_on(
    own: Config, store: Store, spec_z: Floats, r: Floats, split: NDArray[np.str_]
) -> NDArray[np.bool_]:
    """Whether the redshift outputs of a run were fitted on each galaxy, (N,)."""
    train, fitted = np.flatnonzero(split == "train"), np.zeros(len(split), dtype=np.bool_)
    names = object_names(store.catalogue[train])
    for member in range(own.correction.members):
        fitted[train[member_subset(own, names, spec_z[train], r[train], member)]] = True
    return fitted
