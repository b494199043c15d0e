"""Run folders: what a run is made from, whether it is done already, who works on it, and its results."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit import config as settings
from photoz_lit.config import Config
from photoz_lit.config.folders import weights_file
from photoz_lit.errors import ConfigError, PhotozError
from photoz_lit.files import beside, digest, locked, read_json, write_json
from photoz_lit.frozen import write_frozen
from photoz_lit.grids import RedshiftGrid

if TYPE_CHECKING:
    from astropy.table import Table

    from photoz_lit.correction.finishing.response import Response
    from photoz_lit.correction.prior import Priors

log = logging.getLogger(__name__)

ANOTHER = "type run=NAME for a new family of runs"


@dataclass(frozen=True)
class Run:
    """An open run folder."""

    folder: Path
    began: float  # time.monotonic() at the start of the run, less what it took before
    fitted: bool = False  # p(z) are there, and only the numbers made of them are to be made again


def origin_of(config: Config, stage: str, store: str) -> dict[str, str]:
    """Return what a run is made from: the name of its store; its encoder, if it is another run's.

    For a classifier its representation too.
    """
    origin = {"store": store}
    if config.representation:
        origin["encoder"] = digest(weights_file(Path(config.representation)))
    if stage == "classifier":
        origin["representation"] = digest(config.folder("representation") / "model.ckpt")
    return origin


def complete(config: Config, store: str) -> bool:
    """Whether nothing is left to do for these settings, and all before them is as it was; says so."""
    stages = ("representation", "classifier")[: 1 + (config.stage.name == "classifier")]
    for stage in stages:
        folder = config.folder(stage)
        if not (folder / "done.json").is_file():
            return False
        if not _done(config, stage, folder, origin_of(config, stage, store)) and stage == config.stage.name:
            return False
    log.info("%s is complete: skipped", folder)
    return True


@contextmanager
def opened(config: Config, stage: str, origin: dict[str, str]) -> Iterator[Run | None]:
    """Open the run folder of these settings; None where the run is complete already.

    Of two equal commands one works, and the other waits and then finds it done.
    ConfigError where the folder holds a run of other settings, other data or another representation.
    """
    folder = config.folder(stage)
    one = config.trainer.devices == 1  # the processes of several devices are one command
    with locked(folder) if one and not _done(config, stage, folder, origin) else nullcontext():
        if _done(config, stage, folder, origin):
            log.info("%s is complete: skipped", folder)
            yield None
            return
        began, done = time.monotonic(), folder / "done.json"
        if fitted := done.is_file():
            began -= read_json(done)["seconds"]
            done.unlink()
        enter(config, folder, origin)
        yield Run(folder, began, fitted)


def _done(config: Config, stage: str, folder: Path, origin: dict[str, str]) -> bool:
    """Whether a run is complete, its numbers included; ConfigError where the folder holds another one."""
    check_origin(folder, origin)
    if not (folder / "config.yaml").is_file():
        return False
    old = settings.saved(folder / "config.yaml")
    changed = settings.differences(settings.science(old, stage), settings.science(config, stage))
    if changed:
        raise ConfigError(f"{folder} holds a run of other settings ({'; '.join(changed)}): {ANOTHER}")
    return (folder / "done.json").is_file() and settings.results(old) == settings.results(config)


def enter(config: Config, folder: Path, origin: dict[str, str]) -> bool:
    """Make a run folder and write settings and origin into it; False where the run is complete already."""
    if (folder / "done.json").is_file():
        log.info("%s is complete: skipped", folder)
        return False
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "origin.json", origin)
    write_frozen(config, folder)
    if ",settings=" in folder.name:  # a digest
        (folder / "settings.txt").write_text(config.names["spelt"])
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
        raise ConfigError(f"{folder} was made from {what} than there is now: {ANOTHER}")


def require_representation(config: Config) -> None:
    """Raise ConfigError, with the command to type, unless the representation is trained."""
    folder = config.folder("representation")
    if not (folder / "done.json").is_file():
        raise ConfigError(
            f"no finished representation in {folder}.{_others(config, folder)} Type fit_missing=true, or "
            "train it first:\n"
            f"  python -m photoz_lit stage=representation {config.names['words']}"
        )
    read_json(folder / "done.json")
    _done(config, "representation", folder, {})


def _others(config: Config, folder: Path) -> str:
    """Name the representations that are finished, and what of their settings is otherwise."""
    wanted, lines = settings.science(config, "representation"), []
    for done in sorted(folder.parent.glob("*/done.json")):
        try:
            has = settings.science(settings.saved(done.with_name("config.yaml")), "representation")
        except PhotozError:  # of another version, or damaged
            continue
        differs = "; ".join(settings.differences(wanted, has)) or "other files"
        lines.append(f"\n  {done.parent.name} ({differs})")
    return f" There are{''.join(lines[:9])}\n" if lines else ""


def finish(
    config: Config,
    run: Run,
    label: str,
    galaxies: "Table",
    pdf_chunks: Iterable[NDArray[np.floating[Any]]],
    grid: RedshiftGrid,
    priors: "Priors",
    spec_z_train: NDArray[np.floating[Any]],
    responses: "Sequence[Response]" = (),
) -> None:
    """Write results and metrics of the test split, then `done.json`: only then the run is complete.

    `galaxies` are the test split, `pdf_chunks` (m, n_outputs) their p(z) on the bins of `grid`, extension
    included; `priors` stand beside them; `spec_z_train` (n,) are the redshifts of the whole training split,
    for `trainz`.
    """
    from photoz_lit.results import read_pdf, write_results
    from photoz_lit.scores import write_scores

    folder, target = run.folder, config.target
    table = write_results(folder, galaxies, pdf_chunks, grid, priors, config.estimate, target, responses)
    pdf = np.concatenate(list(read_pdf(folder)))
    numbers = write_scores(folder, config, table, pdf, grid, priors, spec_z_train)
    write_json(folder / "survey.json", survey_facts(config))
    done = {
        "label": label,
        "group": folder.name.rpartition(",seed=")[0],
        "seed": config.seed,
        "stage": folder.parent.name,
        "run": config.run,
        "seconds": round(time.monotonic() - run.began, 1),
    }
    write_json(folder / "done.json", done)
    told = [numbers[name] for name in ("slope_spec_z", "total_variation", "sigma_mad")]
    log.info("%s: slope_spec_z %+.3f, total_variation %.3f, sigma_mad %.4f -> %s", label, *told, folder)


def finish_again(
    config: Config,
    run: Run,
    label: str,
    galaxies: "Table",
    spec_z_train: NDArray[Any],
    responses: "Sequence[Response]" = (),
) -> None:
    """Write results and metrics again from p(z) that are there; arguments as of `finish`."""
    from photoz_lit.correction.prior import Priors
    from photoz_lit.results import read_pdf

    log.info("%s is fitted: its results are written again", run.folder)
    priors, chunks = Priors.read(run.folder), list(read_pdf(run.folder))  # all: the file is written again
    grid = config.output_grid() if run.folder.parent.name == "classifier" else config.survey.grid()
    finish(config, run, label, galaxies, chunks, grid, priors, spec_z_train, responses)


def survey_facts(config: Config) -> dict[str, Any]:
    """Return what readers of results need: grids, cuts, the estimate and the target, with its words."""
    return asdict(config.survey) | {"estimate": config.estimate, "target": asdict(config.target)}
