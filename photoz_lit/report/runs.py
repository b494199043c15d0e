"""Finished runs, as they lie on disk: `<output_dir>/<run>/<stage>/<name>/` with `done.json` in it."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit.errors import ConfigError, DataError
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.target import REDSHIFT, Target

STAGES = ("representation", "classifier")
METRICS = (
    "n",
    "bias",
    "sigma_mad",
    "outlier_fraction",
    "crps",
    "pit_ks",
    "pit_cvm",
    "cde_loss",
    "coverage_68",
    "coverage_95",
    "slope_spec_z",
    "slope_spec_z_high",
    "slope_photo_z",
    "total_variation",
    "total_variation_floor",
    "wasserstein",
)
# Numbers that runs of before them lack; they are read as "not measured".
ADDED = ("pit_cvm", "cde_loss", "coverage_68", "coverage_95")


class NoResultsError(DataError, ValueError):
    """There is no finished run to report on."""


class BrokenRunError(DataError, ValueError):
    """A run says that it is finished, but its results cannot be read."""


@dataclass(frozen=True)
class Survey:
    """The survey that a run was made for, from its `survey.json`.

    Parameters
    ----------
    name : str
        Name of the survey.
    grid : RedshiftGrid
        Its redshift bins, without extension.
    slices : MagnitudeSlices
        Its slices of r.
    outlier_cut : float
        abs(dz) beyond which an estimate is an outlier.
    slope_high_from : float
        spec_z from which the second slope is fitted.
    estimate : str
        Which estimate of p(z) is photo_z: mode, median or mean.
    target : Target
        What is estimated.
    """

    name: str
    grid: RedshiftGrid
    slices: MagnitudeSlices
    outlier_cut: float
    slope_high_from: float
    estimate: str
    target: Target = REDSHIFT


@dataclass(frozen=True)
class Run:
    """One finished run and its estimates for the test galaxies whose redshift is known.

    Parameters
    ----------
    folder : Path
        Where it lies.
    run, stage, label, group : str
        Name of the set of runs, stage, name of the correction, settings without the seed.
    seed : int
        Seed of the run.
    seconds : float
        Wall-clock time, s.
    metrics, trainz : dict of str to float
        The numbers of `metrics.json`, and those of the estimator that gives every galaxy the training n(z).
    survey : Survey
        Grids and cuts.
    spec_z, photo_z, dered_petro_r, pit : ndarray, shape (n,)
        Test galaxies: truth and estimate of the target, redshift or another; the estimate is the one that
        the survey names, r in mag.
    config : str
        The resolved settings, as YAML.
    """

    folder: Path
    run: str
    stage: str
    label: str
    group: str
    seed: int
    seconds: float
    metrics: dict[str, float]
    trainz: dict[str, float]
    survey: Survey
    spec_z: NDArray[np.float64]
    photo_z: NDArray[np.float64]
    dered_petro_r: NDArray[np.float64]
    pit: NDArray[np.float64]
    config: str


@dataclass(frozen=True)
class Gathered:
    """All that lies under an output folder.

    Parameters
    ----------
    runs : tuple of Run
        Finished and readable, sorted by run, stage, group and seed.
    incomplete : tuple of Path
        Begun but not finished.
    broken : tuple of (Path, str)
        Finished but unreadable, with the reason.
    """

    runs: tuple[Run, ...]
    incomplete: tuple[Path, ...]
    broken: tuple[tuple[Path, str], ...]


def gather(output_dir: Path) -> Gathered:
    """Read every run under an output folder; a broken one is named, not fatal.

    Parameters
    ----------
    output_dir : Path
        Folder that holds `<run>/<stage>/<name>/`.

    Returns
    -------
    Gathered
        Finished, incomplete and broken runs.
    """
    runs: list[Run] = []
    incomplete: list[Path] = []
    broken: list[tuple[Path, str]] = []
    for folder in sorted(f for stage in STAGES for f in output_dir.glob(f"*/{stage}/*/") if f.is_dir()):
        if (folder / "done.json").is_file():
            try:
                runs.append(read_run(folder))
            except BrokenRunError as error:
                broken.append((folder, str(error)))
        elif "seed=" in folder.name:  # other folders are caches, not runs
            incomplete.append(folder)
    runs.sort(key=lambda r: (r.run, STAGES.index(r.stage), r.group, r.seed))
    return Gathered(tuple(runs), tuple(incomplete), tuple(broken))


def read_run(folder: Path) -> Run:
    """Read one finished run.

    Parameters
    ----------
    folder : Path
        `<output_dir>/<run>/<stage>/<name>`.

    Returns
    -------
    Run
        Its numbers and estimates.

    Raises
    ------
    BrokenRunError
        A file is missing, truncated or lacks an entry; the message names it.
    """
    done = read_json(folder / "done.json")
    survey = _read_survey(folder / "survey.json")
    spec_z, photo_z, r, pit = _read_estimates(folder / "photo_z.fits", survey.target)
    config = folder / "config.yaml"
    try:
        return Run(
            folder=folder,
            run=str(done.get("run", folder.parent.parent.name)),
            stage=folder.parent.name,
            label=str(done["label"]),
            group=str(done["group"]),
            seed=int(done["seed"]),
            seconds=read_number(done.get("seconds")),
            metrics=_read_metrics(folder / "metrics.json"),
            trainz=_read_metrics(folder / "trainz.json"),
            survey=survey,
            spec_z=spec_z,
            photo_z=photo_z,
            dered_petro_r=r,
            pit=pit,
            config=config.read_text(encoding="utf-8") if config.is_file() else "",
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, BrokenRunError):
            raise
        raise BrokenRunError(f"done.json: {_reason(error)}") from error


def sets_of_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Sort runs into sets that can be compared: one `<run>` folder and one target each.

    Parameters
    ----------
    runs : sequence of Run
        Finished runs.

    Returns
    -------
    dict of str to list of Run
        Runs under the name of their folder, with the target where a folder holds several.
    """
    sets: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        sets.setdefault((run.run, run.survey.target.label), []).append(run)
    names = [name for name, _ in sets]
    return {n if names.count(n) == 1 else f"{n}: {label}": same for (n, label), same in sets.items()}


def _reason(error: Exception) -> str:
    return f"no entry {error}" if isinstance(error, KeyError) else f"{error}"


def read_number(value: Any) -> float:
    """Read a number of a JSON file, where null stands for "could not be measured"."""
    return float("nan") if value is None else float(value)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of names and values; BrokenRunError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BrokenRunError(f"{path.name} is missing") from error
    except (OSError, ValueError) as error:
        raise BrokenRunError(f"{path.name} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise BrokenRunError(f"{path.name} holds no table of names and values")
    return content


def _read_metrics(path: Path) -> dict[str, float]:
    content = read_json(path)
    missing = [key for key in METRICS if key not in content and key not in ADDED]
    if missing:
        raise BrokenRunError(f"{path.name} lacks {', '.join(missing)}")
    keys = [name for key in METRICS for name in (key, f"{key}_err")]
    try:
        return {key: read_number(content.get(key)) for key in keys}
    except (TypeError, ValueError) as error:
        raise BrokenRunError(f"{path.name} holds an entry that is no number ({error})") from error


def _read_survey(path: Path) -> Survey:
    content = read_json(path)
    try:
        return Survey(
            name=str(content["name"]),
            grid=RedshiftGrid(float(content["z_min"]), float(content["z_max"]), int(content["n_bins"])),
            slices=MagnitudeSlices(
                float(content["r_min"]), float(content["r_width"]), int(content["n_slices"])
            ),
            outlier_cut=float(content["outlier_cut"]),
            slope_high_from=float(content["slope_high_from"]),
            estimate=str(content["estimate"]),
            target=_target(content.get("target")),
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise BrokenRunError(f"{path.name}: {_reason(error)}") from error


def _target(content: dict[str, Any] | None) -> Target:
    """Read what is estimated; runs of before there was a choice do not say it."""
    if content is None:
        return REDSHIFT
    return Target(*(str(content[key]) for key in ("column", "label", "symbol", "unit", "residual")))


def _read_estimates(path: Path, target: Target) -> tuple[NDArray[np.float64], ...]:
    """Read truth, estimate, r and PIT, each (n,), of the galaxies whose truth is known."""
    names = (target.column, target.estimate, "dered_petro_r", "pit")
    if not path.is_file():
        raise BrokenRunError(f"{path.name} is missing")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*truncated")  # astropy only warns, then reads on
            table = Table.read(path, format="fits")
        columns = [np.ma.filled(np.ma.asarray(table[name], dtype=np.float64), np.nan) for name in names]
    except (
        Exception
    ) as error:  # a damaged FITS file fails in many ways, none of which should hide the other runs
        raise BrokenRunError(f"{path.name} cannot be read ({_reason(error)})") from error
    known = np.isfinite(columns[0]) & np.isfinite(columns[1])
    if not known.any():
        raise BrokenRunError(f"{path.name} holds no galaxy with a known {target.label}")
    return tuple(column[known] for column in columns)
