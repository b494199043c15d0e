"""The way in: `python -m photoz_lit stage=...`."""

import importlib
import itertools
import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from photoz_lit.config import STAGES, check_overrides, parse
from photoz_lit.errors import ConfigError, PhotozError

log = logging.getLogger("photoz_lit")

USAGE = """\
photoz_lit: photometric redshifts from galaxy images, without the biases that deep classifiers add.

  python -m photoz_lit experiment=demo stage=representation head=single   the Baseline, on a simulated survey
  python -m photoz_lit experiment=demo stage=representation               Step 1, the representation
  python -m photoz_lit experiment=demo stage=classifier correction=full   its biases removed
  python -m photoz_lit experiment=demo stage=report                       one page with all results
  python -m photoz_lit stage=predict model=FOLDER data=stamps data.images=FOLDER   photo-z of other galaxies

Sweep:     python -m photoz_lit -m stage=classifier correction=none,balanced,hard,unshifted,full seed=1,2,3
Settings:  python -m photoz_lit --help
"""


def conf_folder() -> Path:
    """Return the folder of configurations: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def own_folders(words: list[str]) -> list[Path]:
    """Return the user's own folders of configurations: `--config-dir FOLDER` or `--config-dir=FOLDER`."""
    named = [after for word, after in itertools.pairwise(words) if word in ("--config-dir", "-cd")]
    named += [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    if missing := [name for name in named if not Path(name).is_dir()]:
        raise ConfigError(f"--config-dir {missing[0]}: no such folder (relative paths start at {Path.cwd()})")
    return [Path(name).absolute() for name in named]


def report(error: Exception) -> None:
    """Print what a user can mend, without a traceback."""
    if isinstance(error, OSError) and error.filename is not None:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return
    print(f"error: {error}", file=sys.stderr)
    for note in getattr(error, "__notes__", []):
        print(f"  {note}", file=sys.stderr)


def _word(error: Exception) -> list[str]:
    """Return the word that Hydra could not read, where it says so."""
    word = getattr(error, "override", None)
    return [] if word is None else [f"{word}: cannot be read"]


def quoted(word: str) -> str:
    """Quote the value of words such as `model=FOLDER`: Hydra would read = , { } in it as its own."""
    key, _, value = word.partition("=")
    if (
        key not in ("model", "calibration.galaxies", "data.pattern")
        or value in ("", "null")
        or value[0] in "'\""
    ):
        return word
    return f"{key}='" + value.replace("'", "\\'") + "'"


def main() -> None:
    """Run a job, or a sweep of jobs, and exit: 0 done, 1 failed on data, 2 wrong settings."""
    if len(sys.argv) == 1:
        print(USAGE, end="")
        return
    # Hydra stops at words on both sides of a flag; flags may stand anywhere.
    words = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    sys.argv[1:] = [quoted(word) for word in words]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, so that all messages have one form
    failures: list[tuple[str, Exception]] = []

    @hydra.main(config_path=str(conf_folder()), config_name="config", version_base="1.3")
    def job(composed: DictConfig) -> None:
        overrides = list(HydraConfig.get().overrides.task)
        try:
            config = parse(composed, overrides)
            if config.stage.name is None:
                raise ConfigError(f"no stage is set: type stage=NAME, with NAME one of {', '.join(STAGES)}")
            multirun = HydraConfig.get().mode == RunMode.MULTIRUN
            if multirun and config.trainer.devices > 1:
                raise ConfigError(
                    f"--multirun with trainer.devices={config.trainer.devices}: every device would start the "
                    "whole sweep again. Type trainer.devices=1, or one command a setting"
                )
            if config.stage.name not in ("prepare", "report"):
                from photoz_lit.training import quieten, use_threads  # imports torch and Lightning: seconds

                quieten()
                use_threads(config.trainer.threads)
            importlib.import_module(f"photoz_lit.stages.{config.stage.name}").run(config)
        except (PhotozError, OSError) as error:
            report(error)
            failures.append((" ".join(overrides), error))

    try:
        check_overrides(sys.argv[1:], [conf_folder(), *own_folders(sys.argv[1:])])
        job()
    except PhotozError as error:
        report(error)
        sys.exit(error.exit_code)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line for line in str(error).splitlines()[:2] if "hydra.cc" not in line]
        wrong = ConfigError("\n  ".join([*_word(error), *lines]))
        report(wrong)
        sys.exit(wrong.exit_code)
    except KeyboardInterrupt:
        print("interrupted: type the same command to go on", file=sys.stderr)
        sys.exit(130)
    if failures:
        if {"-m", "--multirun"} & set(sys.argv):
            print(
                f"jobs that failed: {len(failures)}: " + "; ".join(words for words, _ in failures),
                file=sys.stderr,
            )
        sys.exit(max(getattr(error, "exit_code", 1) for _, error in failures))


if __name__ == "__main__":
    main()
