"""The way in: `python -m photoz_lit stage=...`."""

import importlib
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photoz_lit.errors import ConfigError, PhotozError

if TYPE_CHECKING:
    from omegaconf import DictConfig

log = logging.getLogger("photoz_lit")

MULTIRUN = {"-m", "--multirun"}
WITH_VALUE = ("--config-dir", "-cd", "--package", "-p", "--cfg", "-c")


def conf_folder() -> Path:
    """Return the folder of configurations: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def report(error: Exception) -> None:
    """Print what a user can mend, without a traceback."""
    said = str(error)
    if isinstance(error, OSError) and error.filename is not None:
        said = f"{error.filename}: {error.strerror}"
    print("\n  ".join([f"error: {said}", *getattr(error, "__notes__", [])]), file=sys.stderr)


def main() -> None:
    """Run a job, or a sweep of jobs, and exit: 0 done, 1 failed on data, 2 wrong settings."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without some letters shows ? in their place
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if len(sys.argv) == 1 or {"--help", "-h", "--version"} & set(sys.argv):
        from photoz_lit.usage import text, version_text

        print(version_text() if "--version" in sys.argv else text(conf_folder()))
        return
    try:
        sys.exit(_run(*_split(sys.argv[1:])))
    except PhotozError as error:
        report(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted: type the same command to go on", file=sys.stderr)
        sys.exit(130)


def _split(argv: list[str]) -> tuple[list[list[str]], list[str]]:
    """Part flags, with their values, from words."""
    flags: list[list[str]] = []
    words: list[str] = []
    for word in argv:
        if flags and flags[-1][-1] in WITH_VALUE and len(flags[-1]) == 1:
            flags[-1].append(word)
        elif word.startswith("-"):
            flags.append(word.split("=", 1) if word.startswith("--") else [word])
        else:
            words.append(word)
    return flags, words


def _run(flags: list[list[str]], words: list[str]) -> int:
    """Compose the jobs with Hydra and run them; return the exit code."""
    import hydra
    import yaml
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from photoz_lit.config import for_hydra, parse

    given = {flag[0]: flag[-1] for flag in flags}
    multirun = bool(MULTIRUN & given.keys())
    show = given.get("--cfg", given.get("-c")) == "job" and not {"--package", "-p"} & given.keys()
    if multirun and {"--cfg", "-c"} & given.keys():
        raise ConfigError("--cfg prints the settings of one job: leave -m out")
    own = [Path(given[flag]) for flag in ("--config-dir", "-cd") if flag in given]
    if missing := [folder for folder in own if not folder.is_dir()]:
        raise ConfigError(f"--config-dir {missing[0]}: no such folder (relative paths start at {Path.cwd()})")
    words = for_hydra(words, [conf_folder(), *own], multirun)
    if show:  # by us: with types and defaults
        flags = [flag for flag in flags if flag[0] not in ("--cfg", "-c", "--resolve")]
    # Hydra stops at words on both sides of a flag.
    sys.argv[1:] = [part for flag in flags for part in flag] + words
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on, so that all messages have one form
    failures: list[tuple[str, Exception]] = []

    @hydra.main(config_path=str(conf_folder()), config_name="config", version_base="1.3")
    def job(composed: "DictConfig") -> None:
        overrides = list(HydraConfig.get().overrides.task)
        try:
            config = parse(composed, overrides)
            if show:
                from photoz_lit.config import as_yaml

                print(as_yaml(config), end="")
                return
            _start(config, multirun)
        except (PhotozError, OSError) as error:
            if str(error) not in [str(other) for _, other in failures]:
                report(error)
            failures.append((" ".join(overrides), error))

    try:
        job()
    except (HydraException, OmegaConfBaseException) as error:
        lines = [line for line in str(error).splitlines()[:2] if "hydra.cc" not in line]
        if word := getattr(error, "override", None):
            lines.insert(0, f"{word}: cannot be read")
        raise ConfigError("\n  ".join(lines)) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"a configuration is no valid YAML: {error}") from error
    if failures and multirun:
        print(f"jobs that failed: {len(failures)}: " + "; ".join(w for w, _ in failures), file=sys.stderr)
    return max((getattr(error, "exit_code", 1) for _, error in failures), default=0)


def _start(config: Any, multirun: bool) -> None:
    """Run the stage of checked settings."""
    from photoz_lit.config import STAGES

    if config.stage.name is None:
        raise ConfigError(f"no stage is set: type stage=NAME, with NAME one of {', '.join(STAGES)}")
    if multirun and config.trainer.devices > 1:
        raise ConfigError(
            f"--multirun with trainer.devices={config.trainer.devices}: every device would start the "
            "whole sweep again. Type trainer.devices=1, or one command a setting"
        )
    stage = importlib.import_module(f"photoz_lit.stages.{config.stage.name}")
    if "torch" in sys.modules:
        from photoz_lit.training import quieten, use_threads

        quieten()
        use_threads(config.trainer.threads)
    stage.run(config)


if __name__ == "__main__":
    main()
