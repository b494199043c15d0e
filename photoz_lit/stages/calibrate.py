"""`stage=calibrate`: photo_z of a finished run calibrated against the bulk bias (Lin et al. 2022, Step 4).

A separate product: the run's own photo_z stay as they are, photo_z_calibrated stands beside them. The
spec_z of those that are calibrated, where it is known, serves the metrics alone. Without a run, estimates of
any method are calibrated that a table holds: its rows with the truth tell what the others lose. All of it
goes for other quantities than redshift.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

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
from photoz_lit.files import digest, locked, read_arrays, read_json, write_arrays, write_json, write_table
from photoz_lit.fitting import member_subset
from photoz_lit.grids import RedshiftGrid
from photoz_lit.inference import Predictor, Trained, open_model
from photoz_lit.progress import counted
from photoz_lit.report.figures.residuals import Curve, figure_residuals
from photoz_lit.results import read_pdf
from photoz_lit.runs import check_origin, enter, survey_facts
from photoz_lit.stages.prepare import plan_of, prepare, splits, store_folder, training_labels
from photoz_lit.target import Target

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


def columns(table: Table, target: Target) -> tuple[Floats, Floats, Floats]:
    """Return truth, estimate and dered_petro_r (mag), each (n,), NaN where masked or unknown."""
    names, unknown = (target.column, target.estimate, "dered_petro_r"), np.full(len(table), np.nan)
    z, photo_z, r = (numbers(table, n, "estimates") if n in table.colnames else unknown for n in names)
    return z, photo_z, r


def run(config: Config) -> None:
    """Calibrate the photo_z of a run's test split, of a results folder of stage=predict, or of a table."""
    if config.model is None:
        of_a_table(config)
        return
    found = finished_runs(config.model)
    if len(found) > 1:
        raise ConfigError(f"model={config.model} names {len(found)} runs: calibrate one run at a time")
    of_a_run(config, open_model(found[0]))


def of_a_run(config: Config, model: Trained) -> None:
    """Calibrate on the training and validation galaxies of a run, whose photo_z are made for it."""
    typed = ("stage", "run", "data_dir", "output_dir", "trainer", "calibration")
    own = replace(model.config, model=str(model.folder), **{key: getattr(config, key) for key in typed})
    trained_on, there = read_json(model.folder / "origin.json").get("store"), store_folder(own)
    if trained_on != there.name:
        raise ConfigError(
            f"{model.folder} was trained on {trained_on}, its settings now give {there}: bring the galaxies "
            "that it was trained on, unchanged, to calibrate it"
        )
    folder, table = read_estimates(model, own.calibration.galaxies)
    of, above = folder.resolve(), Path(own.output_dir) / own.run / "calibrate" / model.folder.name
    views = of.parent.name.partition(",symmetries=")[2]
    how = [f"of={of.name}"] if folder != model.folder else []

    def sample() -> Sample:
        store, estimate = prepare(own), str(table.meta.get("ESTIMATE", own.estimate))
        return sample_of(own, store, training_estimates(own, model, store, estimate, int(views or 1), above))

    name = folder_name(own, *how, *([f"symmetries={views}"] if views else []))
    origin = {"model": model.digest, "estimates": digest(folder / "photo_z.fits")}
    work(own, above / name, table, folder, sample, model.grid, origin)


def of_a_table(config: Config) -> None:
    """Calibrate on those rows of a table of estimates that have the truth; no p(z) is needed."""
    own = replace(config, data=replace(config.data, labelled=False))
    # Nothing is prepared, but the name of a store tells the table from others and from its changes.
    place = store_folder(own).name.replace(own.data.source, Path(str(own.data.path)).stem)
    table, sample = table_of(own)
    origin = {"store": place, "survey": str(asdict(own.survey)), "target": str(asdict(own.target))}
    origin["seed"] = str(own.seed)  # of folds and resampling
    folder = Path(own.output_dir) / own.run / "calibrate" / place / folder_name(own)
    work(own, folder, table, None, lambda: sample, own.survey.grid(), origin)


def work(
    own: Config,
    folder: Path,
    table: Table,
    results: Path | None,
    sample: Callable[[], Sample],
    grid: RedshiftGrid,
    origin: dict[str, str],
) -> None:
    """Calibrate a table of estimates, with p(z) in the folder `results`, and write it, unless that is done.

    Of equal commands one works and the others wait; nothing is written before all is there to be written.
    """
    began, c, s = time.monotonic(), own.calibration, own.survey
    with locked(folder.parent):
        check_origin(folder, origin)
        if (folder / "done.json").is_file():
            log.info("%s is complete: skipped", folder)
            return
        truth, photo_z, r = columns(table, own.target)
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
            bin_width=BIN_WIDTH if own.target.is_redshift else metrics.wide(s.grid()).width,
            seed=own.seed,
        )
        log.info("calibration.target=%s, expected is %s: %s", c.target, facts.expected, facts.shift)
        calibrated = np.full(len(usable), np.nan)
        calibrated[usable] = calibration.correct(photo_z[usable], r[usable])
        known, said = np.isfinite(truth) & usable, "no truth is known"
        scores, curves = judge(own, grid, table, results, calibrated) if known.any() else ([], None)
        enter(own, folder, origin)
        table[f"{own.target.estimate}_calibrated"] = calibrated
        write_table(folder / "photo_z.fits", table)
        shape = {"start": calibration.start, "width": calibration.width}
        write_arrays(folder / "calibration.npz", {"table": calibration.table, **shape})
        write_json(folder / "survey.json", survey_facts(own))
        if curves:
            write_json(folder / "metrics_before.json", scores[0])
            write_json(folder / "metrics.json", scores[1])
            figure_residuals(*curves, own.target).savefig(folder / "residuals.png", dpi=150)
            told = "mean abs(mean dz) in bins of photo_z {bulk_mean:.5f}, slope_photo_z {slope_photo_z:+.3f}"
            said = " -> ".join(told.format(**one) for one in scores)
        done = asdict(c) | asdict(facts) | {"stage": "calibrate", "version": __version__}
        done |= {"model": own.model or own.data.path, "galaxies": len(calibrated)}
        write_json(folder / "done.json", done | {"seconds": round(time.monotonic() - began, 1)})
    log.info("%d galaxies calibrated on %d: %s -> %s", usable.sum(), facts.n_galaxies, said, folder)


def judge(
    own: Config, grid: RedshiftGrid, table: Table, results: Path | None, calibrated: Floats
) -> tuple[list[dict[str, float]], tuple[list[Curve], list[Curve]]]:
    """Return metrics of those whose truth is known and curves of their mean residuals, before and after."""
    s, bins, slices, relative = own.survey, own.survey.grid(), own.survey.slices(), own.target.relative
    every = columns(table, own.target)
    known = np.isfinite(every[0]) & np.isfinite(calibrated)
    spec_z, photo_z, r = (column[known] for column in every)
    pdf = None if results is None else np.concatenate(list(read_pdf(results)))[known]
    scores, curves = list[dict[str, float]](), (list[Curve](), list[Curve]())
    # The figure gives a correction its own colour by its name.
    for label, estimate in ((own.correction.name, photo_z), ("calibrated", calibrated[known])):
        of_all = metrics.evaluate(
            *(spec_z, estimate, r, pdf, grid, slices),
            outlier_cut=s.outlier_cut,
            rng=np.random.default_rng([own.seed, 5]),
            n_bootstrap=own.n_bootstrap,
            z_high=s.slope_high_from,
            relative=relative,
        )
        scores.append(of_all | metrics.bulk_bias(spec_z, estimate, bins, relative))
        variance, _ = variances(spec_z, estimate, r, bins, slices)
        by_spec_z = metrics.residuals_by_spec_z(spec_z, estimate, variance, bins, relative)
        by_photo_z = metrics.residuals_by_photo_z(spec_z, estimate, bins, metrics.MIN_COUNT, relative)
        for side, means in zip(curves, (by_spec_z, by_photo_z), strict=True):
            side.append(Curve(label, means, metrics.fit_line(means)))
    return scores, curves


def folder_name(config: Config, *others: str) -> str:
    """Name the distribution expected, other galaxies than a run's own, and what differs from the defaults."""
    c = config.calibration
    sample, paper = [f"sample={c.sample}"] if c.sample != "held_out" else [], ["paper"] if c.paper else []
    return ",".join([f"target={c.target}", *others, *sample, *paper])


def table_of(own: Config) -> tuple[Table, Sample]:
    """Read a table of estimates: what is to be calibrated, and the galaxies to measure on.

    The latter have the truth, and do not say `test` in the column `split`.
    """
    plan, s, path, truth = plan_of(own), own.survey, str(own.data.path), own.target.column
    table, estimates = plan.catalogue, np.concatenate(list(plan.chunks(0))).astype(np.float64)
    if estimates.shape[1] != 1:
        raise DataError(
            f"{path}: data.vectors={own.data.vectors} are {estimates.shape[1]} columns: name the one that "
            "holds the estimates"
        )
    if absent := [name for name in (truth, "dered_petro_r") if name not in table.colnames]:
        raise DataError(
            f"{path}: no column {' and '.join(absent)}: name them by target.column and data.columns"
        )
    spec_z, photo_z, r = numbers(table, truth, path), estimates[:, 0], numbers(table, "dered_petro_r", path)
    told, usable = np.isfinite(spec_z), np.isfinite(photo_z) & np.isfinite(r)
    given = read_table(path)  # a table without labels, whose splits are not read
    if (split := find_column(given, own.data.columns.get("split") or "split", path)) is not None:
        told &= split_words(given, split, path)[0] != "test"
    for what, mask in range_faults(spec_z, truth, (s.z_min, s.z_max)):
        if n := (mask & told).sum():
            raise DataError(f"{path}: {what} in {n} rows: leave them out")
    table = table[[n for n in ("object_id", "ra", "dec", truth, "dered_petro_r") if n in table.colnames]]
    table[own.target.estimate] = photo_z
    rows = told & usable
    if not rows.any() or not (usable & ~told).any():
        raise DataError(
            f"{path}: {rows.sum()} rows have {truth} to calibrate on, {(usable & ~told).sum()} are to be "
            f"calibrated: those without {truth}, and those that say test in a column split"
        )
    return table[~told], Sample(spec_z[rows], photo_z[rows], r[rows], np.ones(rows.sum()))


def read_estimates(model: Trained, others: str | None) -> tuple[Path, Table]:
    """Read folder and table of the photo_z to calibrate: the model's own, or results of stage=predict."""
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
    return folder, table


def training_estimates(
    own: Config, model: Trained, store: Store, estimate: str, n_views: int, above: Path
) -> Floats:
    """Estimate photo_z (N,) of training and validation galaxies as the others' were, or read what is kept."""
    path = above / f"training-{model.digest[:12]}-{estimate}-{n_views if store.kind == 'images' else 1}.npz"
    if not path.is_file():
        usable = np.isin(splits(store, own), ("train", "val"))
        photo_z = np.full(len(usable), np.nan)
        predictor = Predictor(
            [model], store.kind, store.inputs.shape[1:], n_views=n_views, trainer=own.trainer
        )
        with counted("galaxies", 0, len(usable), own.trainer.progress) as tick:
            start = 0
            for pdf, _ in predictor.chunks(store, 0, len(usable), usable, tick):
                mine = np.flatnonzero(usable[start : start + len(pdf)])
                photo_z[start + mine] = getattr(metrics, estimate)(pdf[mine], model.grid)
                start += len(pdf)
        write_arrays(path, {"photo_z": photo_z})
    return read_arrays(path)["photo_z"]


def sample_of(own: Config, store: Store, photo_z: Floats) -> Sample:
    """Choose and weight the galaxies that the calibration is measured on; never those of the test split."""
    which, split = own.calibration.sample, splits(store, own)
    spec_z, r = training_labels(store, own, split), np.asarray(store.catalogue["dered_petro_r"], dtype=float)
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
