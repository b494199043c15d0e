"""Finished runs, as they lie on disk: `<output_dir>/<run>/<stage>/<name>/` with `done.json` in it."""

import itertools
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import escape
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from astropy.table import Table

from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import read_json
from photoz_lit.frozen import FILE as FROZEN
from photoz_lit.frozen import is_blind
from photoz_lit.grids import Floats, MagnitudeSlices, RedshiftGrid
from photoz_lit.metrics import POINTS
from photoz_lit.target import REDSHIFT, Target

TARGET = ("column", "label", "symbol", "unit", "residual")
STAGES = ("representation", "classifier")
METRICS = (
    *("n", "bias", "sigma_mad", "outlier_fraction", "crps", "pit_ks", "pit_cvm", "cde_loss"),
    *("coverage_68", "coverage_95", "slope_spec_z", "slope_spec_z_high", "slope_photo_z"),
    *("total_variation", "total_variation_floor", "wasserstein"),
)
NEWER = (  # that runs of earlier versions lack
    *("rms", "slope_spec_z_plain", "slope_photo_z_plain", "slope_slices", "within_error", "n_of_z_floor"),
    *("stacked_tv", "stacked_mean_error", "inferred_tv", "inferred_mean_error"),
)
N_OF_Z = ("z_low", "z_high", "stacked", "inferred")  # n(z) from p(z), and its bins

Found = TypeVar("Found")
Broken = list[tuple[Path, str]]  # folders, and what is wrong with them


@dataclass(frozen=True)
class Survey:
    """What a run was made for, from its `survey.json`."""

    name: str
    grid: RedshiftGrid  # without extension
    slices: MagnitudeSlices
    outlier_cut: float  # abs(dz) beyond which an estimate is an outlier
    estimate: str  # of p(z), which is photo_z
    target: Target = REDSHIFT


@dataclass(frozen=True)
class Run:
    """One finished run and its estimates for the n test galaxies whose truth is known."""

    folder: Path
    run: str  # its family
    stage: str
    label: str  # name of the correction
    group: str  # settings without the seed
    seed: int
    seconds: float
    metrics: dict[str, float]
    trainz: dict[str, float]  # numbers of the estimator that gives every galaxy the training n(z)
    survey: Survey
    store: str  # data set that it was made from: name of its folder below `data_dir`
    spec_z: Floats  # (n,), the truth, redshift or another target, as photo_z
    photo_z: Floats
    dered_petro_r: Floats
    pit: Floats
    config: str  # resolved settings, as YAML
    frozen: dict[str, Any]  # `photoz_lit.frozen`; nothing where the run does not say
    points: dict[str, dict[str, float]]  # numbers by estimate: mode, median, individual where there is one
    n_of_z: dict[str, Floats]  # N_OF_Z, by bins of p(z); nothing in runs of earlier versions

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The settings as values; those that cannot be read are none: the run's numbers are whole."""
        try:
            content = yaml.load(self.config, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def blind(self) -> bool:
        """Whether no setting was chosen on these test galaxies, and all were committed before."""
        return is_blind(self.frozen)

    @property
    def axis(self) -> dict[str, Any]:
        """The setting that the run's family is swept along, by its key, with words for it; or nothing."""
        axis = self.setting("sweep.axis")
        return axis if isinstance(axis, dict) else {}

    def setting(self, key: str) -> Any:
        """Return a setting by its dotted key; None where it is not there."""
        value: Any = self.settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


@dataclass(frozen=True)
class Gathered:
    """Finished runs, by run, stage, group and seed, those begun but not finished, and unreadable ones."""

    runs: tuple[Run, ...]
    incomplete: tuple[Path, ...]
    broken: tuple[tuple[Path, str], ...]


def gather(output_dir: Path, family: str | None = None) -> Gathered:
    """Read the runs of a family below an output folder, or of all; a broken one is named, not fatal."""
    begun = list(folders(output_dir, family, STAGES))
    finished = [folder for folder in begun if (folder / "done.json").is_file()]
    runs, broken = read_each(finished, read_run)
    runs.sort(key=lambda r: (r.run, STAGES.index(r.stage), r.group, r.seed))
    # Folders without a seed are caches, not runs.
    incomplete = [folder for folder in begun if folder not in finished and "seed=" in folder.name]
    return Gathered(tuple(runs), tuple(incomplete), tuple(broken))


def read_each(finished: Sequence[Path], read: Callable[[Path], Found]) -> tuple[list[Found], Broken]:
    """Read folders; those that cannot be read are named, with the reason."""
    found, broken = [], []
    for folder in finished:
        try:
            found.append(read(folder))
        except DataError as error:
            broken.append((folder, reason_of(error, folder)))
    return found, broken


def folders(output_dir: Path, family: str | None, stages: Sequence[str], below: str = "*") -> Iterator[Path]:
    """Yield the folders of stages, sorted; of one family or of all."""
    own = escape(family) if family else "*"
    yield from sorted(f for stage in stages for f in output_dir.glob(f"{own}/{stage}/{below}/") if f.is_dir())


def reason_of(error: Exception, folder: Path) -> str:
    """Return what is wrong with a file of a folder that is named already."""
    return str(error).removeprefix(f"{folder}/")


def read_run(folder: Path) -> Run:
    """Read one finished run; DataError names a file that is missing, truncated or lacks an entry."""
    done, origin = read_json(folder / "done.json"), folder / "origin.json"
    survey = _read_survey(folder / "survey.json")
    spec_z, photo_z, r, pit = _read_estimates(folder / "photo_z.fits", survey.target)
    settings, of_pdf = folder / "config.yaml", folder / "n_of_z.ecsv"
    config = settings.read_text(encoding="utf-8") if settings.is_file() else ""
    try:
        return Run(
            folder=folder,
            run=str(done.get("run", folder.parent.parent.name)),
            stage=folder.parent.name,
            label=str(done["label"]),
            group=str(done["group"]),
            seed=int(done["seed"]),
            seconds=read_number(done.get("seconds")),
            metrics=read_numbers(folder / "metrics.json", METRICS, NEWER),
            trainz=read_numbers(folder / "trainz.json", METRICS, NEWER),
            survey=survey,
            store=str(read_json(origin).get("store", "")) if origin.is_file() else "",
            spec_z=spec_z,
            photo_z=photo_z,
            dered_petro_r=r,
            pit=pit,
            config=config,
            frozen=read_json(folder / FROZEN) if (folder / FROZEN).is_file() else {},
            points={
                name: read_numbers(path, METRICS, NEWER)
                for name in POINTS
                if (path := folder / f"metrics_{name}.json").is_file()
            },
            n_of_z=_read_columns(of_pdf, "ascii.ecsv", N_OF_Z) if of_pdf.is_file() else {},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{folder / 'done.json'}: {_words(error)}") from error


def sets_of_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Sort runs into sets of one family, target, survey and data set, whose numbers can be compared.

    Only a setting that the family was swept along may differ. Sets are called by their family, and by what
    tells its sets apart.
    """
    axes: dict[str, set[str]] = {}
    for run in runs:
        axes.setdefault(run.run, set()).update(run.axis)
    sets: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        sets.setdefault((run.run, *_identity(run, axes[run.run])), []).append(run)
    named: dict[str, list[Run]] = {}
    for (family, *_), same in sets.items():
        siblings = [_words_of(other[0]) for (of, *_), other in sets.items() if of == family]
        differ = [len(set(words)) > 1 for words in zip(*siblings, strict=True)]
        apart = ", ".join(itertools.compress(_words_of(same[0]), differ))
        name = f"{family}: {apart}" if apart else family
        named[name if name not in named else f"{name} ({len(named)})"] = same
    return named


def _identity(run: Run, axes: set[str]) -> tuple[str, ...]:
    """Return target, survey and data set of a run, without what is swept along the axes."""
    survey = run.survey
    facts = {"name": survey.name, **vars(survey.grid), **vars(survey.slices)}
    own = {key: value for key, value in facts.items() if f"survey.{key}" not in axes}
    # Each value of a swept setting may have its own store, and each seed its own simulated survey.
    redrawn = run.setting("data.mock_seed") == run.seed
    differ = redrawn or any(axis.startswith("data.") for axis in axes)
    without = axes | {"data.mock_seed"} if redrawn else axes
    return survey.target.label, json.dumps(own), data_settings(run, without) if differ else run.store


def data_settings(run: Run, without: set[str]) -> str:
    """Return the settings of `data` of a run, as text, without some and those that earlier versions lack."""
    own = run.setting("data")
    pairs = own.items() if isinstance(own, dict) else ()
    kept = {k: v for k, v in pairs if f"data.{k}" not in without and v not in (None, "none")}
    return json.dumps(kept, sort_keys=True, default=str)


def _words_of(run: Run) -> tuple[str, ...]:
    """Return what may tell the sets of a family apart, in words."""
    grid, slices = run.survey.grid, run.survey.slices
    return (
        run.survey.target.label,
        run.survey.name,
        run.store,
        f"{grid.n_bins} bins from {grid.z_min:g} to {grid.z_max:g}",
        f"{slices.n_slices} slices of {slices.width:g} mag from {slices.r_min:g}",
    )


def _words(error: Exception) -> str:
    return f"no entry {error}" if isinstance(error, KeyError) else f"{error}"


def read_number(value: Any) -> float:
    """Read a number of a JSON file, where null stands for "could not be measured"."""
    return float("nan") if value is None else float(value)


def read_numbers(path: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, float]:
    """Read numbers and their errors, `<key>_err`; DataError where one is missing or is none.

    Optional ones that are missing are NaN.
    """
    content = read_json(path)
    missing = [key for key in keys if key not in content]
    if missing:
        raise DataError(f"{path}: lacks {', '.join(missing)}")
    try:
        all_keys = (*keys, *optional)
        return {name: read_number(content.get(name)) for key in all_keys for name in (key, f"{key}_err")}
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: holds an entry that is no number ({error})") from error


def _read_survey(path: Path) -> Survey:
    content = read_json(path)
    try:
        target = [str(content["target"][key]) for key in TARGET] if content.get("target") else None
        numbers = ("z_min", "z_max", "r_min", "r_width", "outlier_cut")
        z_min, z_max, r_min, r_width, outlier_cut = (float(content[key]) for key in numbers)
        return Survey(
            name=str(content["name"]),
            grid=RedshiftGrid(z_min, z_max, int(content["n_bins"])),
            slices=MagnitudeSlices(r_min, r_width, int(content["n_slices"])),
            outlier_cut=outlier_cut,
            estimate=str(content["estimate"]),
            target=Target(*target) if target else REDSHIFT,
        )
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise DataError(f"{path}: {_words(error)}") from error


def _read_estimates(path: Path, target: Target) -> tuple[Floats, ...]:
    """Read truth, estimate, r and PIT, each (n,), of the galaxies whose truth is known."""
    names = (target.column, target.estimate, "dered_petro_r", "pit")
    columns = [*_read_columns(path, "fits", names, unit_parse_strict="silent").values()]
    known = np.isfinite(columns[0]) & np.isfinite(columns[1])
    if not known.any():
        raise DataError(f"{path}: holds no galaxy with a known {target.label}")
    return tuple(column[known] for column in columns)


def _read_columns(path: Path, kind: str, names: Sequence[str], **options: str) -> dict[str, Floats]:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*truncated")  # astropy only warns, then reads on
            table = Table.read(path, format=kind, **options)
        return {n: np.ma.filled(np.ma.asarray(table[n], dtype=np.float64), np.nan) for n in names}
    except Exception as error:  # a damaged file fails in many ways; none should hide the other runs
        raise DataError(f"{path}: cannot be read ({_words(error)})") from error
