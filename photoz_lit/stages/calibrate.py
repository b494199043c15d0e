"""`stage=calibrate`: photo_z of a finished run calibrated against the bulk bias (Lin et al. 2022, Step 4).

A separate product: the run's own photo_z stay as they are, photo_z_calibrated stands beside them. The
spec_z of those that are calibrated, where it is known, serves the metrics alone. Without a run, estimates of
any method are calibrated that a table holds: its rows with the truth tell what the others lose. All of it
goes for other quantities than redshift.
"""

import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit import metrics
from photoz_lit.config import Config
from photoz_lit.correction.calibration.deconvolution import Expected
from photoz_lit.correction.calibration.sample import Sample, held_out_weights
from photoz_lit.correction.calibration.smoothing import BIN_WIDTH, Facts, calibrate
from photoz_lit.data.catalogue import numbers, range_faults
from photoz_lit.data.store import Store
from photoz_lit.dispersion import variances
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import digest, locked, read_arrays, read_json, write_arrays, write_json, write_table
from photoz_lit.grids import RedshiftGrid
from photoz_lit.report.figures.residuals import Curve, figure_residuals
from photoz_lit.results import read_pdf
from photoz_lit.stages.evaluate import check_origin, enter, survey_facts
from photoz_lit.stages.plans import plan_of
from photoz_lit.stages.predict import Estimator, Trained, branches_of, counted, finished_runs, open_model
from photoz_lit.stages.prepare import member_subset, prepare, splits, store_folder, training_labels

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

ENOUGH = 100
"""Galaxies of a photo_z bin whose mean residual counts in the summary."""


@dataclass(frozen=True)
class Target:
    """Whose photo_z are calibrated.

    Parameters
    ----------
    name : str
        What they are called: the name of their run, or of their table.
    table : Table
        Photo-z table.
    names : (str, str)
        Its columns of the truth, which it need not have, and of the estimate.
    folder : Path, optional
        The results folder they come from, with their p(z).
    estimate : str
        Which estimate of p(z) they are.
    views : int
        Symmetries that p(z) are means over.
    """

    name: str
    table: Table
    names: tuple[str, str]
    folder: Path | None = None
    estimate: str = ""
    views: int = 1

    @property
    def spec_z(self) -> Floats:
        """The truth, NaN where it is not known, (n,)."""
        truth = self.names[0]
        return self.column(truth) if truth in self.table.colnames else np.full_like(self.photo_z, np.nan)

    @property
    def photo_z(self) -> Floats:
        """The estimates, (n,)."""
        return self.column(self.names[1])

    @property
    def r(self) -> Floats:
        """dered_petro_r, (n,), mag."""
        return self.column("dered_petro_r")

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether each galaxy has a photo_z and an r, (n,)."""
        return np.isfinite(self.photo_z) & np.isfinite(self.r)

    def column(self, name: str) -> Floats:
        """Return a column, NaN where it is masked."""
        return np.ma.filled(np.ma.asarray(self.table[name], dtype=np.float64), np.nan)


def run(config: Config) -> None:
    """Calibrate the photo_z of a run's test split, of a results folder of stage=predict, or of a table."""
    if config.calibration.name == "none":
        raise ConfigError("stage=calibrate has nothing to do with calibration=none: type calibration=photo_z")
    if config.model is None:
        of_a_table(config)
    else:
        of_a_run(config, open_model(one_run(config.model)))


def of_a_run(config: Config, model: Trained) -> None:
    """Calibrate on the training and validation galaxies of a run, whose photo_z are made for it."""
    c, began = config.calibration, time.monotonic()
    own = replace(
        model.config,
        data_dir=config.data_dir,
        output_dir=config.output_dir,
        trainer=config.trainer,
        calibration=c,
    )
    check_data(own, model)
    target = read_target(model, None if c.galaxies is None else Path(c.galaxies))
    assert target.folder is not None
    above = Path(config.output_dir) / config.run / "calibrate" / model.folder.name
    others = None if target.folder == model.folder else target.folder.resolve().name
    folder = above / folder_name(config, others, target.views)
    origin = {"model": model.digest, "estimates": digest(target.folder / "photo_z.fits")}
    check_origin(folder, origin)
    if not enter(config, folder, origin):
        return
    store = prepare(own)
    sample = sample_of(own, c.sample, store, training_estimates(own, model, store, target, above))
    calibrated, facts = write_calibrated(own, folder, target, sample, model.grid)
    finish(own, folder, target, model.grid, calibrated, facts, str(model.folder), began)


def of_a_table(config: Config) -> None:
    """Calibrate on those rows of a table of estimates that have the truth; no p(z) is needed."""
    began = time.monotonic()
    own = replace(config, data=replace(config.data, labelled=False))
    assert own.data.path is not None
    # Nothing is prepared, but the name of a store tells the table from others and from its changes.
    place = store_folder(own).name.replace(own.data.source, Path(own.data.path).stem)
    folder = Path(own.output_dir) / own.run / "calibrate" / place / folder_name(own)
    origin = {"store": place, "survey": str(asdict(own.survey)), "target": str(asdict(own.target))}
    origin["seed"] = str(own.seed)  # of folds and resampling
    check_origin(folder, origin)
    if not enter(own, folder, origin):
        return
    target, sample = read_estimates(own)
    calibrated, facts = write_calibrated(own, folder, target, sample, own.survey.grid())
    finish(own, folder, target, own.survey.grid(), calibrated, facts, str(own.data.path), began)


def read_estimates(own: Config) -> tuple[Target, Sample]:
    """Read a table of estimates: what is to be calibrated, and the galaxies to measure on.

    The latter have the truth, and do not say `test` in the column `split`.

    Raises
    ------
    DataError
        There are none of either, or a true value lies outside the survey's range.
    """
    plan, s, names = plan_of(own), own.survey, (own.target.column, own.target.estimate)
    path, table, truth = str(own.data.path), plan.catalogue, names[0]
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
    if "split" in table.colnames:
        told &= np.asarray(table["split"]).astype(str) != "test"
    for what, mask in range_faults(spec_z, truth, (s.z_min, s.z_max)):
        if (mask & told).any():
            raise DataError(f"{path}: {what} in {(mask & told).sum()} rows: leave them out")
    table = table[[n for n in ("object_id", "ra", "dec", truth, "dered_petro_r") if n in table.colnames]]
    table[names[1]] = estimates[:, 0]
    everyone = Target(Path(path).stem, table, names)
    rows = np.flatnonzero(told & everyone.usable)
    target = replace(everyone, table=table[~told])
    if len(rows) == 0 or not target.usable.any():
        raise DataError(
            f"{path}: {len(rows)} rows have {truth} to calibrate on, {target.usable.sum()} are to be "
            f"calibrated: those without {truth}, and those that say test in a column split"
        )
    return target, Sample(spec_z[rows], everyone.photo_z[rows], everyone.r[rows], np.ones(len(rows)))


def write_calibrated(
    own: Config, folder: Path, target: Target, sample: Sample, grid: RedshiftGrid
) -> tuple[Floats, Facts]:
    """Measure the correction on a sample, and write it and the calibrated estimates, which are returned."""
    c, s, usable = own.calibration, own.survey, target.usable
    photo_z, r = target.photo_z[usable], target.r[usable]
    calibration, facts = calibrate(
        sample,
        photo_z,
        r,
        grid,
        s.slices(),
        expected=cast(Expected, c.target),  # checked with the settings
        paper=c.paper,
        relative=own.target.relative,
        bin_width=BIN_WIDTH if own.target.is_redshift else (s.z_max - s.z_min) / metrics.WIDE_BINS,
        seed=own.seed,
    )
    calibrated = np.full(len(usable), np.nan)
    calibrated[usable] = calibration.correct(photo_z, r)
    table = target.table.copy()
    table[f"{target.names[1]}_calibrated"] = calibrated
    write_arrays(
        folder / "calibration.npz",
        {"table": calibration.table, "start": calibration.start, "width": calibration.width},
    )
    write_table(folder / "photo_z.fits", table)
    return calibrated, facts


def check_data(own: Config, model: Trained) -> None:
    """Raise ConfigError unless the data set that a model was trained on is the one that its settings name."""
    trained_on, there = read_json(model.folder / "origin.json").get("store"), store_folder(own)
    if trained_on != there.name:
        raise ConfigError(
            f"{model.folder} was trained on {trained_on}, its settings now give {there}: bring the galaxies "
            "that it was trained on, unchanged, to calibrate it"
        )


def one_run(pattern: str) -> Path:
    """Return the one finished run that `model` names."""
    found = finished_runs(pattern)
    if len(found) > 1:
        raise ConfigError(f"model={pattern} names {len(found)} runs: calibrate one run at a time")
    return found[0]


def read_target(model: Trained, folder: Path | None) -> Target:
    """Read the photo_z to calibrate.

    Raises
    ------
    ConfigError
        They are not of this model.
    DataError
        The table cannot be read, or does not tell r.
    """
    views, path = 1, (folder or model.folder) / "photo_z.fits"
    if folder is not None:
        if not (folder / "done.json").is_file():
            raise ConfigError(
                f"calibration.galaxies={folder}: no finished results of stage=predict are there"
            )
        if read_json(folder / "origin.json").get("model") != model.digest:
            raise ConfigError(f"{folder} holds no estimates of {model.folder}: name the model that made them")
        if "predict.prior" in read_json(folder / "origin.json"):
            raise ConfigError(
                f"{folder} holds p(z) of another prior (predict.prior), and the calibration measures those "
                "of the model's own: predict with predict.prior=none to calibrate"
            )
        views = views_of(folder)
    try:
        table = Table.read(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): run its stage again") from error
    if "dered_petro_r" not in table.colnames:
        raise DataError(f"{path}: has no dered_petro_r, and the calibration depends on it: predict with it")
    estimate = str(table.meta.get("ESTIMATE", model.config.photo_z))
    own = model.config.target
    return Target(model.folder.name, table, (own.column, own.estimate), path.parent, estimate, views)


def views_of(folder: Path) -> int:
    """Return over how many symmetries a results folder of stage=predict took its means."""
    name = folder.resolve().parent.name
    return int(name.rpartition(",symmetries=")[2]) if ",symmetries=" in name else 1


def folder_name(config: Config, others: str | None = None, views: int = 1) -> str:
    """Name the distribution expected, other galaxies than a run's own, and what differs from the defaults."""
    c = config.calibration
    named = [] if others is None else [f"of={others}"]
    named += [f"symmetries={views}"] if views > 1 else []
    named += [] if c.sample == "held_out" else [f"sample={c.sample}"]
    return ",".join([f"target={c.target}", *named, *(["paper"] if c.paper else [])])


def training_estimates(own: Config, model: Trained, store: Store, target: Target, above: Path) -> Floats:
    """Estimate photo_z of the training and validation galaxies as the target's were; kept for the next run.

    Returns
    -------
    ndarray, shape (N,)
        One a galaxy of the store, NaN for the others.
    """
    views = target.views if store.kind == "images" else 1
    path = above / f"training-{model.digest[:12]}-{target.estimate}-{views}.npz"
    with locked(above):
        if not path.is_file():
            usable = np.isin(splits(store, own), ("train", "val"))
            photo_z = np.full(len(usable), np.nan)
            with counted(0, len(usable), own.trainer.progress) as tick:
                branches = branches_of([model], store)
                estimator = Estimator(store, usable, branches, None, views, own.trainer, tick)
                for start in range(0, len(usable), own.predict.chunk):
                    part = slice(start, min(start + own.predict.chunk, len(usable)))
                    pdf, _, _ = estimator(part.start, part.stop)
                    mine = usable[part]
                    photo_z[part][mine] = getattr(metrics, target.estimate)(pdf[mine], model.grid)
            write_arrays(path, {"photo_z": photo_z})
        return read_arrays(path)["photo_z"]


def sample_of(own: Config, which: str, store: Store, photo_z: Floats) -> Sample:
    """Choose and weight the galaxies that the calibration is measured on; never those of the test split.

    Raises
    ------
    DataError
        There are none.
    """
    r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
    split = splits(store, own)
    spec_z = training_labels(store, own, split)
    rows = np.flatnonzero(np.isin(split, ("val",) if which == "val" else ("train", "val")))
    if len(rows) == 0:
        raise DataError(
            f"{store.folder}: no galaxies to calibrate with (calibration.sample={which}, "
            f"data.val_fraction={own.data.val_fraction}): type calibration.sample=held_out"
        )
    weights = np.ones(len(rows))
    if which == "held_out":
        fitted = fitted_on(own, spec_z, r, split)[rows]
        weights = held_out_weights(spec_z[rows], r[rows], fitted, own.survey.grid(), own.survey.slices())
    return Sample(spec_z[rows], photo_z[rows], r[rows], weights)


def fitted_on(own: Config, spec_z: Floats, r: Floats, split: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Whether the redshift outputs of a run were fitted on each galaxy, (N,)."""
    train, fitted = np.flatnonzero(split == "train"), np.zeros(len(split), dtype=np.bool_)
    for member in range(own.correction.members):
        fitted[train[member_subset(own, spec_z[train], r[train], member)]] = True
    return fitted


def finish(
    own: Config,
    folder: Path,
    target: Target,
    grid: RedshiftGrid,
    calibrated: Floats,
    facts: Facts,
    source: str,
    began: float,
) -> None:
    """Write metrics before and after, where the truth is known, and `done.json`."""
    results: dict[str, Any] = {}
    known = target.usable & np.isfinite(target.spec_z)
    if known.any():
        pdf = None if target.folder is None else np.concatenate(list(read_pdf(target.folder)))[known]
        spec_z, r = target.spec_z[known], target.r[known]
        # The figures give a correction its own colour by its name.
        labels, curves = {"before": own.correction.name, "after": "calibrated"}, []
        for name, photo_z in (("before", target.photo_z[known]), ("after", calibrated[known])):
            scores = evaluate(own, grid, spec_z, photo_z, r, pdf)
            write_json(folder / ("metrics.json" if name == "after" else "metrics_before.json"), scores)
            results |= {f"{key}_{name}": scores[key] for key in ("bulk_mean", "bulk_max", "slope_photo_z")}
            curves.append(residual_curves(own, labels[name], spec_z, photo_z, r))
        by_spec_z, by_photo_z = zip(*curves, strict=True)
        figure = figure_residuals(by_spec_z, by_photo_z, own.target)
        figure.savefig(folder / "residuals.png", dpi=150)
    content: dict[str, Any] = {
        "label": f"{target.name}, calibrated to {own.calibration.target}",
        "group": folder.name,
    }
    content |= {"stage": "calibrate", "run": own.run, "seconds": round(time.monotonic() - began, 1)}
    content |= {"model": source, "galaxies": len(calibrated)}
    write_json(folder / "survey.json", survey_facts(own))
    write_json(folder / "done.json", content | asdict(facts) | results)
    said = (
        "mean abs(mean dz) in bins of photo_z {bulk_mean_before:.5f} -> {bulk_mean_after:.5f}, slope_photo_z "
        "{slope_photo_z_before:+.3f} -> {slope_photo_z_after:+.3f}"
    )
    log.info(
        "%d galaxies calibrated on %d%s -> %s",
        target.usable.sum(),
        facts.n_galaxies,
        f": {said.format(**results)}" if results else "",
        folder,
    )


def evaluate(
    own: Config,
    grid: RedshiftGrid,
    spec_z: Floats,
    photo_z: Floats,
    r: Floats,
    pdf: NDArray[np.floating[Any]] | None,
) -> dict[str, float]:
    """Return the metrics of `metrics.evaluate` and two of the bulk bias.

    bulk_mean is the mean, over galaxies, of abs(mean dz) of their photo_z bin, bulk_max the largest; of bins
    with more than 100 galaxies.
    """
    s, relative = own.survey, own.target.relative
    scores = metrics.evaluate(
        spec_z,
        photo_z,
        r,
        pdf,
        grid,
        s.slices(),
        outlier_cut=s.outlier_cut,
        rng=np.random.default_rng([own.seed, 5]),
        n_bootstrap=own.n_bootstrap,
        z_high=s.slope_high_from,
        relative=relative,
    )
    bins = metrics.residuals_by_photo_z(spec_z, photo_z, s.grid(), min_count=ENOUGH + 1, relative=relative)
    size, weight = np.abs(bins.mean), bins.count
    some = len(size) > 0
    scores["bulk_mean"] = float(np.average(size, weights=weight)) if some else np.nan
    scores["bulk_max"] = float(size.max()) if some else np.nan
    return scores


def residual_curves(
    own: Config, label: str, spec_z: Floats, photo_z: Floats, r: Floats
) -> tuple[Curve, Curve]:
    """Mean residuals against spec_z and against photo_z with their straight lines, as in the metrics."""
    grid, slices, relative = own.survey.grid(), own.survey.slices(), own.target.relative
    variance, _ = variances(spec_z, photo_z, r, grid, slices)
    binned = (
        metrics.residuals_by_spec_z(spec_z, photo_z, variance, grid, relative=relative),
        metrics.residuals_by_photo_z(spec_z, photo_z, grid, min_count=metrics.MIN_COUNT, relative=relative),
    )
    by_spec_z, by_photo_z = (Curve(label, b, metrics.fit_line(b)) for b in binned)
    return by_spec_z, by_photo_z
