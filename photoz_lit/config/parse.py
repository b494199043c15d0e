"""From the command line to settings; the only file that turns OmegaConf's into ours."""

import difflib
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from photoz_lit.config.checks import check, one_of
from photoz_lit.config.folders import PATHS, folder_names, naming, to_container, words_without_classifier
from photoz_lit.config.schema import Config
from photoz_lit.errors import ConfigError

# Numbers that follow others in conf/: `${half:${survey.n_bins}}`, `${per_cell:200,180,${survey.n_bins}}`.
OmegaConf.register_new_resolver("half", lambda n: int(n) // 2, replace=True)
# A threshold that suits so many bins, for others and for a part of the training galaxies.
OmegaConf.register_new_resolver(
    "per_cell",
    lambda threshold, n_bins, now, part=1.0: max(1, round(threshold * n_bins / now * part)),
    replace=True,
)


def parse(composed: DictConfig, overrides: list[str] | None = None) -> Config:
    """Turn what Hydra composed into checked settings.

    Parameters
    ----------
    composed : DictConfig
        The composed configuration.
    overrides : list of str, optional
        The command line's `key=value` words: those that change what is computed name the run folder.

    Raises
    ------
    ConfigError
        A key that does not exist, a value of the wrong type, or settings that cannot work together.
    """
    container = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(container, dict)
    for key in _leaves(container):
        check_key(key)
    if OmegaConf.select(composed, "stage.name") not in (None, "report"):
        for key in sorted(OmegaConf.missing_keys(composed)):  # written ??? in conf/
            raise ConfigError(f"{key} is not set, and there is no default: type {key}=VALUE")
    try:
        structured = OmegaConf.structured(Config)
        OmegaConf.set_readonly(structured.target, False)  # the only frozen one
        merged = OmegaConf.merge(structured, container)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        message = str(error).splitlines()[0]
        raise ConfigError(f"{key}: {message}") from error
    assert isinstance(config, Config)
    check(config)
    config.output_dir = str(Path(config.output_dir).expanduser().absolute())
    config.data_dir = str(Path(config.data_dir).expanduser().absolute())
    for key in PATHS:
        if (value := getattr(config.data, key)) is not None:
            setattr(config.data, key, str(Path(value).expanduser().absolute()))
    config.data.columns = {ours: yours for ours, yours in config.data.columns.items() if yours is not None}
    if config.stage.name == "predict":
        config.data.labelled = False
    words = overrides or []
    config.names = {"words": words_without_classifier(words)}
    if config.stage.name not in (
        "prepare",
        "predict",
        "calibrate",
        "report",
    ):  # these have no folders by settings
        config.names |= folder_names(config, naming(words, composed), composed)
    return config


def save(config: Config, path: Path) -> None:
    """Write the settings as YAML."""
    OmegaConf.save(OmegaConf.create(to_container(config)), path)


def check_key(key: str) -> None:
    """Raise ConfigError, with the valid keys, unless `a.b.c` is a setting."""
    node: Any = Config
    done: list[str] = []
    for part in key.split("."):
        if not is_dataclass(node):
            return  # inside a free mapping such as data.columns
        hints = get_type_hints(node)
        if part not in hints or (node is Config and part == "names"):
            valid = sorted(name for name in hints if name != "names")
            close = difflib.get_close_matches(part, valid, n=1)
            guess = f" Did you mean {'.'.join([*done, close[0]])}?" if close else ""
            where = f"under '{'.'.join(done)}'" if done else "at the top level"
            raise ConfigError(f"unknown setting '{key}'.{guess} Valid keys {where}: {', '.join(valid)}")
        done.append(part)
        hint = hints[part]
        node = next((t for t in get_args(hint) if is_dataclass(t)), hint)


def check_overrides(words: list[str], folders: list[Path]) -> None:
    """Check the command line before Hydra reads it: every key must exist, every group must have the value.

    Parameters
    ----------
    words : list of str
        The command line.
    folders : list of Path
        Folders of configurations: ours, and what `--config-dir` names.

    Raises
    ------
    ConfigError
        With the valid keys or values, and the nearest one.
    """
    groups = {p.name for folder in folders for p in folder.iterdir() if p.is_dir()}
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        if word.startswith("-") or not equals or key.split(".")[0].split("/")[0] == "hydra":
            continue
        if key not in groups:
            check_key(key)
            continue
        valid = tuple(sorted(p.stem for folder in folders for p in (folder / key).glob("*.yaml")))
        if re.fullmatch(r"[\w,]+", value):
            for one in value.split(","):
                if one != "null":
                    one_of(key, one, valid)


def _leaves(container: dict[Any, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in container.items():
        if isinstance(value, dict) and value:
            keys += _leaves(value, f"{prefix}{key}.")
        else:
            keys.append(f"{prefix}{key}")
    return keys
