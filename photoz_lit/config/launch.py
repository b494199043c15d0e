"""From the command line to jobs: flags and words, Hydra's composition of each job, errors in one form."""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from photoz_lit.config.parse import as_yaml, composition, jobs_of, offer, parse
from photoz_lit.config.schema import STAGES, Config
from photoz_lit.config.several import Job, results_of
from photoz_lit.config.words import for_hydra, shown
from photoz_lit.errors import ConfigError, PhotozError

WITH_VALUE = ("--config-dir", "-cd", "--package", "-p", "--cfg", "-c")


def launch(
    argv: list[str],
    conf: Path,
    work: Callable[[Config], None],
    work_together: Callable[[Sequence[Config]], Sequence[Exception | None]],
    report: Callable[[Exception], None],
) -> int:
    """Do the job of a command line, or the jobs of a sweep, and return the exit code.

    `work` is done with the settings of each job, or `work_together` with those of several classifiers.
    `report` is told of what fails in one, of the same failure once; a sweep goes on. ConfigError where no job
    can be made of the command line.
    """
    flags, words = _parted(argv)
    given = {flag[0]: flag[-1] for flag in flags}
    multirun = bool({"-m", "--multirun"} & given.keys())
    printed = given.get("--cfg", given.get("-c"))
    if multirun and printed is not None:
        raise ConfigError("--cfg prints the settings of one job: leave -m out")
    own = [Path(given[flag]) for flag in ("--config-dir", "-cd") if flag in given]
    if missing := [folder for folder in own if not folder.is_dir()]:
        raise ConfigError(f"--config-dir {missing[0]}: no such folder (relative paths start at {Path.cwd()})")
    words = for_hydra(words, [conf, *own], multirun)
    if printed == "job" and not {"--package", "-p"} & given.keys():  # printed by us, with types and defaults
        flags = [flag for flag in flags if flag[0] not in ("--cfg", "-c", "--resolve")]
        work = _show
    # Hydra stops at words on both sides of a flag.
    sys.argv[1:] = [part for flag in flags for part in flag] + words
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, so that all messages have one form
    failures: list[tuple[str, Exception]] = []

    def settings_of(composed: DictConfig, overrides: list[str]) -> Config:
        config = parse(composed, overrides)
        if work is not _show:
            _check_job(config, multirun)
        return config

    def attempt(composed: DictConfig, overrides: list[str]) -> Exception | None:
        try:
            work(settings_of(composed, overrides))
        except (PhotozError, OSError) as error:
            return error
        return None

    def attempt_together(jobs: Sequence[Job]) -> list[Exception | None]:
        configs, found = dict[int, Config](), dict[int, Exception | None]()
        for i, job in enumerate(jobs):
            try:
                configs[i] = settings_of(*job)
            except (PhotozError, OSError) as error:
                found[i] = error
        found |= zip(configs, work_together(list(configs.values())), strict=True)
        return [found[i] for i in range(len(jobs))]

    def note(error: Exception | None, overrides: list[str]) -> None:
        if error is not None:
            if str(error) not in [str(other) for _, other in failures]:
                report(error)
            failures.append((" ".join(map(shown, overrides)), error))

    def job(composed: DictConfig) -> None:
        overrides = list(HydraConfig.get().overrides.task)
        note(attempt(composed, overrides), overrides)

    offer()
    try:
        if given.keys() - {"-m", "--multirun"} or any(re.match(r"[+~]*hydra\b", word) for word in words):
            start = hydra.main(config_path=str(conf), config_name="config", version_base="1.3")
            start(job)()
        else:  # the same, each file composed once where Hydra composes it twice for each job
            with hydra.initialize_config_dir(str(conf), version_base="1.3"):
                each = jobs_of(words) if multirun else [tuple(words)]
                jobs = [(composition(own).settings, list(own)) for own in each]
                logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
                logging.getLogger("numexpr").setLevel(logging.WARNING)  # pandas brings it, and pyarrow pandas
                results = results_of(attempt, attempt_together, jobs)
                for error, (_, overrides) in zip(results, jobs, strict=True):
                    note(error, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        lines = [
            line for line in str(error).replace(" error: ", ": ").splitlines()[:2] if "hydra.cc" not in line
        ]
        if word := getattr(error, "override", None):
            lines.insert(0, f"{word}: cannot be read")
        raise ConfigError("\n  ".join(lines)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(getattr(error, "problem_mark", None), "name", "a configuration")
        raise ConfigError(f"{where} is no valid YAML: {error}") from error
    if failures and multirun:
        print(f"jobs that failed: {len(failures)}: " + "; ".join(w for w, _ in failures), file=sys.stderr)
    return max((getattr(error, "exit_code", 1) for _, error in failures), default=0)


def _parted(argv: list[str]) -> tuple[list[list[str]], list[str]]:
    """Part flags, each with its value, from words."""
    flags: list[list[str]] = []
    words: list[str] = []
    for word in argv:
        if flags and flags[-1][0] in WITH_VALUE and len(flags[-1]) == 1:
            flags[-1].append(word)
        elif word.startswith("-"):
            flags.append(word.split("=", 1) if word.startswith("--") else [word])
        else:
            words.append(word)
    return flags, words


def _check_job(config: Config, multirun: bool) -> None:
    if config.stage.name is None:
        raise ConfigError(f"no stage is set: type stage=NAME, with NAME one of {', '.join(STAGES)}")
    if multirun and config.trainer.devices > 1:
        raise ConfigError(
            f"--multirun with trainer.devices={config.trainer.devices}: every device would start the "
            "whole sweep again. Type trainer.devices=1, or one command a setting"
        )


def _show(config: Config) -> None:
    print(as_yaml(config), end="")
