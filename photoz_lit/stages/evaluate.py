"""From a trained head to a finished run folder: p(z), photo-z table, metrics, the mark of completion."""

import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from omegaconf import OmegaConf

from photoz_lit import config as settings
from photoz_lit import metrics
from photoz_lit.config import Config, TrainerConfig
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import beside, read_json, write_json
from photoz_lit.grids import RedshiftGrid
from photoz_lit.models.heads import AnyHead, mixture
from photoz_lit.results import read_pdf, write_results
from photoz_lit.training import device_of

log = logging.getLogger(__name__)


def start(config: Config, stage: str, origin: dict[str, str]) -> Path | None:
    """Open the run folder of these settings; None where the run is complete already.

    A finished run of other `settings.results` is opened again: its results are made anew, nothing is trained.

    Parameters
    ----------
    config, stage
        Settings and stage.
    origin : dict of str to str
        What the run is made from: the name of its store; for a classifier, a digest of its representation.

    Raises
    ------
    ConfigError
        The folder holds a run of other settings, other data or another representation.
    """
    folder = config.folder(stage)
    check_origin(folder, origin)
    if (folder / "config.yaml").is_file():
        old = _same_settings(config, stage, folder / "config.yaml")
        changed = settings.differences(settings.results(old), settings.results(config))
        if changed and (folder / "done.json").is_file():
            log.info("results are made again, nothing is trained: %s", "; ".join(changed))
            (folder / "done.json").unlink()
    return folder if enter(config, folder, origin) else None


def enter(config: Config, folder: Path, origin: dict[str, str]) -> bool:
    """Make a run folder and write settings and origin into it; False where the run is complete already."""
    if (folder / "done.json").is_file():
        log.info("%s is complete: skipped (delete the folder to run it again)", folder)
        return False
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "origin.json", origin)
    with beside(folder / "config.yaml") as partial:
        partial.write_text(settings.as_yaml(config))
    return True


def check_origin(folder: Path, origin: dict[str, str]) -> None:
    """Raise ConfigError where a run folder was made from other data or another representation."""
    path = folder / "origin.json"
    if not path.is_file():
        return
    changed = [key for key, value in origin.items() if read_json(path).get(key) != value]
    if changed:
        what = " and ".join("other data" if key == "store" else f"another {key}" for key in changed)
        raise ConfigError(
            f"{folder} was made from {what} than there is now: "
            "delete the folder to run it again, or type run=NAME for a new family of runs"
        )


def _same_settings(config: Config, stage: str, saved: Path) -> Config:
    """Return the settings of a run folder; raise ConfigError where they train something else."""
    try:
        plain = OmegaConf.to_container(OmegaConf.load(saved), resolve=False)
    except Exception as error:  # a damaged file fails in many ways
        raise DataError(f"{saved}: cannot be read ({error}): delete {saved.parent} and run again") from error
    try:
        old = settings.restored(plain)
    except ConfigError as error:
        raise ConfigError(f"{saved.parent} {error}") from error
    changed = settings.differences(settings.science(old, stage), settings.science(config, stage))
    if changed:
        raise ConfigError(
            f"{saved.parent} holds a run of other settings ({'; '.join(changed)}): "
            "type run=NAME for a new family of runs, or delete the folder"
        )
    return old


@torch.inference_mode()
def predict(
    head: AnyHead, embeddings: NDArray[np.float32], rows: NDArray[np.int64], trainer: TrainerConfig
) -> Iterator[NDArray[np.float32]]:
    """Yield p(z) of galaxies, (m, n_outputs) a batch, from their embeddings in view 0."""
    device = device_of(trainer)
    head = head.to(device).eval()
    for begin in range(0, len(rows), trainer.predict_batch_size):
        part = rows[begin : begin + trainer.predict_batch_size]
        x = torch.from_numpy(np.ascontiguousarray(embeddings[0, part])).to(device)
        yield mixture(*head(x)).cpu().numpy()


def n_of_z(spec_z: NDArray[np.floating[Any]], grid: RedshiftGrid) -> NDArray[np.float64]:
    """Fraction of galaxies in each of the survey's K bins."""
    return np.bincount(grid.index(spec_z), minlength=grid.n_bins) / len(spec_z)


def finish(
    config: Config,
    folder: Path,
    *,
    label: str,
    galaxies: Table,
    pdf_chunks: Iterable[NDArray[np.float32]],
    grid: RedshiftGrid,
    train_n_of_z: NDArray[np.float64],
    spec_z_train: NDArray[np.floating[Any]],
    began: float,
) -> None:
    """Write results and metrics of the test split, then `done.json`: only then the run is complete.

    Parameters
    ----------
    config, folder, label
        Settings, run folder, and what the report calls the run.
    galaxies : Table
        The test split.
    pdf_chunks : iterable of arrays (m, n_outputs)
        Its p(z).
    grid : RedshiftGrid
        Bins of p(z), extension included.
    train_n_of_z : array (n_outputs,)
        Mean label that the outputs were trained with, on the bins of p(z).
    spec_z_train : array (n,)
        Redshifts of the whole training split, for `trainz`.
    began : float
        `time.monotonic()` at the start of the run.
    """
    s = config.survey
    names = config.target.column, config.target.estimate
    table = write_results(folder, galaxies, pdf_chunks, grid, train_n_of_z, config.photo_z, config.target)
    pdf = np.concatenate(list(read_pdf(folder)))
    common: dict[str, Any] = {
        "slices": s.slices(),
        "outlier_cut": s.outlier_cut,
        "z_high": s.slope_high_from,
        "n_bootstrap": config.n_bootstrap,
        "relative": config.target.relative,
    }
    spec_z, photo_z, r = (np.asarray(table[name]) for name in (*names, "dered_petro_r"))
    rng = np.random.default_rng([config.seed, 5])
    numbers = metrics.evaluate(spec_z, photo_z, r, pdf, grid, rng=rng, **common)
    write_json(folder / "metrics.json", numbers)
    scores = metrics.pdf_scores(pdf, spec_z, grid)
    _write_by_magnitude(folder / "by_magnitude.ecsv", spec_z, photo_z, r, scores, config)
    _write_by_redshift(folder / "by_redshift.ecsv", spec_z, photo_z, scores, config)
    own = s.grid()
    everyone = metrics.trainz(spec_z_train, own, len(spec_z))
    numbers_trainz = metrics.evaluate(
        spec_z, getattr(metrics, config.photo_z)(everyone, own), r, everyone, own, rng=rng, **common
    )
    write_json(folder / "trainz.json", numbers_trainz)
    write_json(folder / "survey.json", survey_facts(config))
    stage = folder.parent.name
    write_json(
        folder / "done.json",
        {
            "label": label,
            "group": folder.name.rpartition(",seed=")[0],
            "seed": config.seed,
            "stage": stage,
            "run": config.run,
            "seconds": round(time.monotonic() - began, 1),
        },
    )
    log.info(
        "%s: slope_spec_z %+.3f, total_variation %.3f, sigma_mad %.4f -> %s",
        label,
        numbers["slope_spec_z"],
        numbers["total_variation"],
        numbers["sigma_mad"],
        folder,
    )


def survey_facts(config: Config) -> dict[str, Any]:
    """Return what readers of results need: grids, cuts, the estimate and the target, with its words."""
    plain = settings.to_container(config)
    facts: dict[str, Any] = plain["survey"]
    return facts | {"estimate": config.photo_z, "target": plain["target"]}


def _write_by_magnitude(
    path: Path,
    spec_z: NDArray[np.float64],
    photo_z: NDArray[np.float64],
    r: NDArray[np.float64],
    scores: metrics.PdfScores,
    config: Config,
) -> None:
    """Write the statistics of each r slice that holds galaxies."""
    slices, relative = config.survey.slices(), config.target.relative
    rng, n_bootstrap = np.random.default_rng([config.seed, 6]), config.n_bootstrap
    cut = config.survey.outlier_cut
    points = metrics.by_magnitude(
        spec_z,
        photo_z,
        r,
        slices.edges,
        outlier_cut=cut,
        rng=rng,
        n_bootstrap=n_bootstrap,
        relative=relative,
    )
    pdf_columns = metrics.by_group(
        scores.summary, slices.index(r), slices.n_slices, rng=rng, n_bootstrap=n_bootstrap
    )
    _write_populated(path, Table(points | pdf_columns))


def _write_by_redshift(
    path: Path,
    spec_z: NDArray[np.float64],
    photo_z: NDArray[np.float64],
    scores: metrics.PdfScores,
    config: Config,
) -> None:
    """Write the statistics of ten equal bins of spec_z over the survey's range, those that hold galaxies."""
    edges = np.linspace(config.survey.z_min, config.survey.z_max, 11)
    columns = metrics.by_redshift(
        spec_z,
        photo_z,
        scores,
        edges,
        outlier_cut=config.survey.outlier_cut,
        rng=np.random.default_rng([config.seed, 7]),
        n_bootstrap=config.n_bootstrap,
        relative=config.target.relative,
    )
    _write_populated(path, Table({"z_low": edges[:-1], "z_high": edges[1:]} | columns))


def _write_populated(path: Path, rows: Table) -> None:
    """Write the rows that hold galaxies beside their place and rename."""
    beside = path.with_suffix(".partial.ecsv")
    rows[rows["count"] > 0].write(beside, overwrite=True)
    beside.rename(path)


def require_representation(config: Config) -> None:
    """Raise ConfigError, with the command to type, unless the representation is trained."""
    folder = config.folder("representation")
    if not (folder / "done.json").is_file():
        raise ConfigError(
            f"no finished representation in {folder}. Type fit_missing=true, or train it first:\n"
            f"  python -m photoz_lit stage=representation {config.names['words']}"
        )
    read_json(folder / "done.json")
    _same_settings(config, "representation", folder / "config.yaml")
