"""`stage=calibrate`: photo_z of a finished run calibrated against the bulk bias (Lin et al. 2022, Step 4).

A separate product: the run's own photo_z stay as they are, photo_z_calibrated stands beside them. The
target's spec_z, where it is known, serves the metrics alone.
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
from photoz_lit.correction.calibration import (
    Expected,
    Facts,
    Sample,
    Smoothing,
    calibrate,
    held_out_weights,
)
from photoz_lit.correction.labels import fit_labels
from photoz_lit.data.sampling import balanced_subset
from photoz_lit.data.store import Store
from photoz_lit.embeddings import locked
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.report.figures.residuals import Curve, figure_residuals
from photoz_lit.results import read_arrays, read_json, read_pdf, write_arrays, write_json, write_table
from photoz_lit.stages.embed import digest
from photoz_lit.stages.evaluate import check_origin, enter
from photoz_lit.stages.predict import Estimator, Trained, branches_of, counted, finished_runs, open_model
from photoz_lit.stages.prepare import prepare, splits, store_folder

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

ENOUGH = 100
"""Galaxies of a photo_z bin whose mean residual counts in the summary."""


@dataclass(frozen=True)
class Target:
    """Whose photo_z are calibrated.

    Parameters
    ----------
    folder : Path
        The results folder they come from.
    table : Table
        Its photo-z table.
    estimate : str
        Which estimate its photo_z is.
    views : int
        Symmetries that its p(z) are means over.
    """

    folder: Path
    table: Table
    estimate: str
    views: int

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether each galaxy has a photo_z and an r, (n,)."""
        return np.isfinite(self.column("photo_z")) & np.isfinite(self.column("dered_petro_r"))

    def column(self, name: str) -> Floats:
        """Return a column, NaN where it is masked."""
        return np.ma.filled(np.ma.asarray(self.table[name], dtype=np.float64), np.nan)


def run(config: Config) -> None:
    """Calibrate the photo_z of a run's test split, or of a results folder of stage=predict."""
    c, began = config.calibration, time.monotonic()
    if c.name == "none":
        raise ConfigError("stage=calibrate has nothing to do with calibration=none: type calibration=photo_z")
    model = open_model(one_run(config.model or ""))
    own = replace(
        model.config, data_dir=config.data_dir, output_dir=config.output_dir, trainer=config.trainer
    )
    check_data(own, model)
    target = read_target(model, None if c.galaxies is None else Path(c.galaxies))
    above = Path(config.output_dir) / config.run / "calibrate" / model.folder.name
    folder = above / folder_name(config, target, model)
    origin = {"model": model.digest, "estimates": digest(target.folder / "photo_z.fits")}
    check_origin(folder, origin)
    if not enter(config, folder, origin):
        return
    store = prepare(own)
    sample = sample_of(own, c.sample, store, training_estimates(own, model, store, target, above))
    usable = target.usable
    photo_z, r = (target.column(name)[usable] for name in ("photo_z", "dered_petro_r"))
    calibration, facts = calibrate(
        sample,
        photo_z,
        r,
        model.grid,
        own.survey.slices(),
        expected=cast(Expected, c.target),  # checked with the settings, as the next
        smoothing=cast(Smoothing, c.smoothing),
        resampled=c.resampled,
        seed=own.seed,
    )
    calibrated = np.full(len(usable), np.nan)
    calibrated[usable] = calibration.correct(photo_z, r)
    table = target.table.copy()
    table["photo_z_calibrated"] = calibrated
    write_arrays(
        folder / "calibration.npz",
        {"table": calibration.table, "start": calibration.start, "width": calibration.width},
    )
    write_table(folder / "photo_z.fits", table)
    finish(own, folder, model, target, calibrated, facts, c.target, began)


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
        views = views_of(folder)
    try:
        table = Table.read(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): run its stage again") from error
    if "dered_petro_r" not in table.colnames:
        raise DataError(f"{path}: has no dered_petro_r, and the calibration depends on it: predict with it")
    return Target(path.parent, table, str(table.meta.get("ESTIMATE", model.config.estimate)), views)


def views_of(folder: Path) -> int:
    """Return over how many symmetries a results folder of stage=predict took its means."""
    name = folder.resolve().parent.name
    return int(name.rpartition(",symmetries=")[2]) if ",symmetries=" in name else 1


def folder_name(config: Config, target: Target, model: Trained) -> str:
    """Name the target and what differs from the defaults."""
    c = config.calibration
    words = [] if target.folder == model.folder else [f"of={target.folder.resolve().name}"]
    words += [f"symmetries={target.views}"] if target.views > 1 else []
    words += [] if c.sample == "held_out" else [f"sample={c.sample}"]
    words += [] if c.smoothing == "auto" else [f"smoothing={c.smoothing}"]
    return ",".join([f"target={c.target}", *words, *(["resampled"] if c.resampled else [])])


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
    spec_z, r = (np.asarray(store.catalogue[n], dtype=np.float64) for n in ("spec_z", "dered_petro_r"))
    split = splits(store, own)
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
    c, train = own.correction, np.flatnonzero(split == "train")
    if c.balance:
        s = own.survey
        chosen = balanced_subset(spec_z[train], r[train], s.grid(), s.slices(), c.threshold, c.fold, own.seed)
        train = train[chosen]
    fitted = np.zeros(len(split), dtype=np.bool_)
    fitted[train] = True
    return fitted


def finish(
    own: Config,
    folder: Path,
    model: Trained,
    target: Target,
    calibrated: Floats,
    facts: Facts,
    expected: str,
    began: float,
) -> None:
    """Write metrics before and after, where spec_z is known, and `done.json`."""
    numbers: dict[str, Any] = {}
    known = target.usable
    if "spec_z" in target.table.colnames:
        known = known & np.isfinite(target.column("spec_z"))
    if "spec_z" in target.table.colnames and known.any():
        pdf = np.concatenate(list(read_pdf(target.folder)))[known]
        spec_z, r = (target.column(name)[known] for name in ("spec_z", "dered_petro_r"))
        # The figures give a correction its own colour by its name.
        labels, curves = {"before": own.correction.name, "after": "calibrated"}, []
        for name, photo_z in (("before", target.column("photo_z")[known]), ("after", calibrated[known])):
            scores = evaluate(own, model, spec_z, photo_z, r, pdf)
            write_json(folder / ("metrics.json" if name == "after" else "metrics_before.json"), scores)
            numbers |= {f"{key}_{name}": scores[key] for key in ("bulk_mean", "bulk_max", "slope_photo_z")}
            curves.append(residual_curves(own, labels[name], spec_z, photo_z, r))
        by_spec_z, by_photo_z = zip(*curves, strict=True)
        figure_residuals(by_spec_z, by_photo_z).savefig(folder / "residuals.png", dpi=150)
    content: dict[str, Any] = {
        "label": f"{model.folder.name}, calibrated to {expected}",
        "group": folder.name,
    }
    content |= {"stage": "calibrate", "run": own.run, "seconds": round(time.monotonic() - began, 1)}
    content |= {"model": str(model.folder), "galaxies": len(calibrated)}
    write_json(folder / "done.json", content | asdict(facts) | numbers)
    words = (
        "mean abs(mean dz) in bins of photo_z {bulk_mean_before:.5f} -> {bulk_mean_after:.5f}, slope_photo_z "
        "{slope_photo_z_before:+.3f} -> {slope_photo_z_after:+.3f}"
    )
    log.info(
        "%d galaxies calibrated on %d%s -> %s",
        target.usable.sum(),
        facts.n_galaxies,
        f": {words.format(**numbers)}" if numbers else "",
        folder,
    )


def evaluate(
    own: Config, model: Trained, spec_z: Floats, photo_z: Floats, r: Floats, pdf: NDArray[np.floating[Any]]
) -> dict[str, float]:
    """Return the metrics of `metrics.evaluate` and two of the bulk bias.

    bulk_mean is the mean, over galaxies, of abs(mean dz) of their photo_z bin, bulk_max the largest; of bins
    with more than 100 galaxies.
    """
    s = own.survey
    scores = metrics.evaluate(
        spec_z,
        photo_z,
        r,
        pdf,
        model.grid,
        s.slices(),
        outlier_cut=s.outlier_cut,
        rng=np.random.default_rng([own.seed, 5]),
        n_bootstrap=own.n_bootstrap,
        z_high=s.slope_high_from,
    )
    bins = metrics.residuals_by_photo_z(spec_z, photo_z, s.grid(), min_count=ENOUGH + 1)
    size, weight = np.abs(bins.mean), bins.count
    some = len(size) > 0
    scores["bulk_mean"] = float(np.average(size, weights=weight)) if some else np.nan
    scores["bulk_max"] = float(size.max()) if some else np.nan
    return scores


def residual_curves(
    own: Config, label: str, spec_z: Floats, photo_z: Floats, r: Floats
) -> tuple[Curve, Curve]:
    """Mean residuals against spec_z and against photo_z with their straight lines, as in the metrics."""
    grid, slices = own.survey.grid(), own.survey.slices()
    sigma = fit_labels(spec_z, photo_z, r, grid, slices, slices.membership).sigma_1
    variance, _ = metrics.variances(spec_z, photo_z, r, sigma, grid, slices)
    binned = (
        metrics.residuals_by_spec_z(spec_z, photo_z, variance, grid),
        metrics.residuals_by_photo_z(spec_z, photo_z, grid, min_count=metrics.MIN_COUNT),
    )
    by_spec_z, by_photo_z = (Curve(label, b, metrics.fit_line(b)) for b in binned)
    return by_spec_z, by_photo_z
