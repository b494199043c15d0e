"""From what Hydra composes to settings; the only file that turns OmegaConf's into ours."""

import copy
import difflib
import functools
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from photoz_lit.config.checks import check, check_borrowed, one_of
from photoz_lit.config.folders import AFTER, changed, flat, folder_names, other_representation, to_container
from photoz_lit.config.schema import VERSION, Config, leaves
from photoz_lit.config.words import shown
from photoz_lit.correction.settings import SubsetConfig
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.setting import contents_of, settings_of
from photoz_lit.target import Target

# Numbers in conf/ that follow others: `${half:${survey.n_bins}}`, `${per_cell:200,180,${survey.n_bins},1}`.
OmegaConf.register_new_resolver("half", lambda n: int(n) // 2, replace=True)
# A threshold that suits so many bins, for others and for a share of the training galaxies.
OmegaConf.register_new_resolver(
    "per_cell",
    lambda threshold, n_bins, now, n_train: max(1, round(threshold * n_bins / now * min(n_train or 1, 1))),
    replace=True,
)
# A value for one choice, null for others: `${when:${data.source},mock,12000}`.
OmegaConf.register_new_resolver("when", lambda now, one, value: value if now == one else None, replace=True)


_STRUCTURE: DictConfig = OmegaConf.structured(Config)
_STRUCTURE.target = OmegaConf.structured(Target)  # an instance has its words filled in

# What every composition starts from, so that conf/ can refer to it; a branch that is chosen brings its own.
_STARTS = [f.name for f in fields(Config) if "chosen" not in f.metadata and f.name != "names"]
# So do branches of others that are chosen, which types would fix too soon: `_fit` gives them.
_PLAIN: Any = OmegaConf.to_container(OmegaConf.masked_copy(_STRUCTURE, _STARTS), resolve=False)
_PLAIN["values"] = {"threshold": SubsetConfig().threshold}

NAMED = ("survey", "target", "data", "encoder", "size")  # groups that name run folders by their choice
NOT_REPRESENTATION = ("stage=", "correction", "training.step2", "training.step3", "training.hidden")


class Composition(NamedTuple):
    """What Hydra composes of words: settings, which file each group takes, and what a sweep varies."""

    settings: DictConfig
    groups: dict[str, str | None]
    varied: dict[str, str]
    runner: str  # launcher and sweeper


def offer() -> None:
    """Give Hydra, which a trained model is read without, the settings that conf/ refers to."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store("settings", _PLAIN)


def jobs_of(words: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Return the words of each job of a sweep, whose values are in the words or in an experiment."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    read = OverridesParser.create().parse_overrides
    once = tuple(w for w, typed in zip(words, read([*words]), strict=True) if not typed.is_sweep_override())
    first = composition(once)
    if re.sub(r"\S*\.Basic(Launcher|Sweeper)", "", first.runner).strip():
        raise ConfigError(f"an experiment chooses {first.runner}: type hydra/launcher=NAME (or sweeper)")
    varied = [f"{key}={values}" for key, values in first.varied.items()]
    values: dict[str, list[str]] = {}  # what is typed replaces what an experiment varies
    for word in read([*varied, *words]):
        key, several = word.get_key_element(), word.is_sweep_override()
        each = word.sweep_string_iterator() if several else [word.get_value_element_as_str()]
        values[key] = [f"{key}={value}" for value in each]
    return itertools.product(*values.values())


def composition(words: tuple[str, ...]) -> Composition:
    """Compose words that are in the form that Hydra reads: files, and on top of them the values typed."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    folders = str(GlobalHydra.instance().config_loader().get_search_path())
    files = _composed(tuple(word for word in words if not word.startswith("++")), folders)
    settings = copy.deepcopy(files.settings)
    for typed in OverridesParser.create().parse_overrides([w for w in words if w.startswith("++")]):
        OmegaConf.update(settings, typed.key_or_group, typed.value(), force_add=True)
    return files._replace(settings=settings)


@functools.lru_cache(maxsize=64)
def _composed(words: tuple[str, ...], folders: str) -> Composition:
    """Compose words with the configurations of some folders."""
    from hydra import compose

    offer()
    whole = compose("config", list(words), return_hydra_config=True)
    groups = {str(k): v for k, v in whole.hydra.runtime.choices.items() if not str(k).startswith("hydra")}
    settings = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    varied: Any = OmegaConf.to_container(whole.hydra.sweeper).get("params")  # type: ignore[union-attr]
    runner = f"{whole.hydra.launcher._target_} {whole.hydra.sweeper._target_}"
    return Composition(OmegaConf.create(plain_of(settings)), groups, varied or {}, runner)


def plain_of(composed: DictConfig) -> dict[str, Any]:
    """Return what is composed as plain values, and in it `values`, to which conf/ alone refers."""
    plain: dict[str, Any] = OmegaConf.to_container(composed, resolve=False)  # type: ignore[assignment]
    values = plain.pop("values", {})

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        name = re.fullmatch(r"\$\{values\.(\w+)\}", value) if isinstance(value, str) else None
        return value if name is None else values[name[1]]

    return {key: filled(value) for key, value in plain.items()}


def parse(composed: DictConfig, words: Sequence[str] | None = None) -> Config:
    """Turn what Hydra composed, of these words, into checked settings.

    What the words change of the groups' own settings names run folders; without words these have no names.
    ConfigError for a key that does not exist, a wrong value, or settings that cannot work together.
    """
    plain = plain_of(composed)
    for key in [key for key, value in flat(plain).items() if value == "???"]:
        raise ConfigError(f"{key} is not set, and there is no default: type {key}=VALUE")
    try:
        given = [word[2:].partition("=")[0] for word in words or () if word.startswith("++")]
        if any(key.startswith("values") for key in given):
            raise ConfigError(
                "values are numbers that conf/ refers to, no settings: type correction.subset.threshold, say"
            )
        schema = _fit(copy.deepcopy(_STRUCTURE), Config, plain, given)
        typed = OmegaConf.merge(schema, plain)
        config = OmegaConf.to_object(typed)
        assert isinstance(typed, DictConfig)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
    assert isinstance(config, Config)
    if config.stage.name == "predict":
        config.data.labelled = False
    if words is not None and config.representation:  # else the encoder's settings are saved with the others
        _borrow(config, list(map(shown, words)))
    check(config)
    if words is not None and config.stage.name in AFTER:
        choices = tuple(w for w in words if not w.startswith("++"))
        base, groups = composition(choices), {}
        if typed_groups := {word.lstrip("+").partition("=")[0] for word in choices} & set(NAMED):
            usual = composition(tuple(w for w in choices if w.lstrip("+").startswith("experiment=")))
            groups = {g: str(base.groups[g]) for g in typed_groups if base.groups[g] != usual.groups.get(g)}
        config.names = folder_names(config, changed(typed, schema, base.settings), groups)
    own = [word for word in words or () if not shown(word).startswith(NOT_REPRESENTATION)]
    if config.head != "multi" and not any(shown(word).startswith("head=") for word in own):
        own.append(f"++head={config.head}")  # which a correction may ask for
    config.names |= {"words": shlex.join(map(shown, own)), "put": shlex.join(own)}
    for leaf in leaves(config):
        no_paths = (None, *leaf.declared.get("choices", ()))
        if leaf.declared.get("kind") == "path" and leaf.value not in no_paths:
            leaf.set(str(Path(re.sub("^~(?=/|$)", str(Path.home()), leaf.value)).absolute()))
    if hasattr(config.data, "columns"):
        config.data.columns = {ours: theirs for ours, theirs in config.data.columns.items() if theirs}
    return config


def _borrow(config: Config, words: list[str]) -> None:
    """Take the encoder's settings from the representation that the settings name."""
    assert config.representation is not None
    folder = other_representation(config.representation)
    theirs = saved(folder / "config.yaml")
    name = f"encoder={theirs.encoder.name}"
    if own := [word for word in words if re.match(r"encoder\b", word) and word != name]:
        raise ConfigError(f"{own[0]}: the encoder is that of representation={folder} ({name}): leave it out")
    check_borrowed(config, theirs)
    config.encoder, config.representation = theirs.encoder, str(folder)


def of_representation(config: Config) -> Config:
    """Return the settings of a classifier's representation: those of its words without a correction."""
    words = ["stage=representation", "correction=none", *shlex.split(config.names["put"])]
    return parse(composition(tuple(words)).settings, words)


def restored(plain: Any) -> Config:
    """Return the settings that a checkpoint holds as plain values; ConfigError if not of this version."""
    if not isinstance(plain, dict) or plain.get("version") != VERSION:
        raise ConfigError("was made by another version of photoz_lit: train again, under run=NAME")
    plain = {key: value for key, value in plain.items() if key != "version"}
    return parse(OmegaConf.create(_literal(plain)))


def saved(path: Path) -> Config:
    """Read a run's `config.yaml`; DataError where it is damaged, ConfigError where of another version."""
    return copy.deepcopy(_saved(path, path.read_bytes() if path.is_file() else b""))


@functools.lru_cache(maxsize=64)
def _saved(path: Path, content: bytes) -> Config:
    """Parse a file of this content: jobs of a sweep read the same runs again and again."""
    try:
        plain = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:  # a damaged file fails in many ways
        raise DataError(f"{path}: cannot be read ({error}): delete {path.parent} and run again") from error
    try:
        return restored(plain)
    except ConfigError as error:
        raise ConfigError(f"{path.parent} {error}") from error


def _literal(plain: Any) -> Any:
    """Return values of which none is taken for an interpolation."""
    if isinstance(plain, dict):
        return {str(key): _literal(value) for key, value in plain.items()}
    if isinstance(plain, list):
        return [_literal(value) for value in plain]
    return plain.replace("${", "\\${") if isinstance(plain, str) else plain


def as_yaml(config: Config) -> str:
    """Return the settings as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_container(config)))


def _fit(
    schema: DictConfig, kind: type, plain: dict[Any, Any], typed: list[str], prefix: str = "", whose: str = ""
) -> DictConfig:
    """Give a structure the branches that are chosen, and those that may be absent and are not.

    What an experiment sets for another choice than was made is left out of `plain`; what was typed is not.
    """
    hints = get_type_hints(kind)
    valid = sorted(f.name for f in fields(kind) if (prefix, f.name) != ("", "names"))
    for key in plain:
        if key not in valid:
            close = difflib.get_close_matches(str(key), valid, n=1)
            guess = f" Did you mean {prefix}{close[0]}?" if close else ""
            where = f"under '{prefix[:-1]}'{whose}" if prefix else "at the top level"
            raise ConfigError(
                f"unknown setting '{prefix}{key}'.{guess} Valid keys {where}: {', '.join(valid)}"
            )
    OmegaConf.set_readonly(schema, False)  # of a frozen dataclass
    for f in fields(kind):
        value, inner, own = plain.get(f.name), hints[f.name], ""
        if "chosen" in f.metadata and not (value is None and f.default is None):
            contents, key = f.metadata["chosen"]
            value = plain[f.name] = {key: value} if isinstance(value, str) else (value or {})
            name = value.setdefault(key, f.metadata["default"])
            one_of(f"{prefix}{f.name}", name, tuple(contents_of(contents)))
            inner, own = settings_of(contents, name), f" with {key}={name}"
            for odd in value.keys() - _settings(contents, name).keys():
                elsewhere = any(odd in _settings(contents, other) for other in contents_of(contents))
                if elsewhere and f"{prefix}{f.name}.{odd}" not in typed:
                    del value[odd]
        if get_origin(inner) is dict and not isinstance(plain.get(f.name, {}), dict):
            raise ConfigError(f"{prefix}{f.name}={value}: pairs are needed, as in '{{key: value}}'")
        inner = next((t for t in get_args(inner) if is_dataclass(t)), inner)
        if is_dataclass(inner) and isinstance(inner, type) and value is not None:
            if not isinstance(value, dict):
                keys = ", ".join(f"{prefix}{f.name}.{inside.name}" for inside in fields(inner))
                raise ConfigError(f"{prefix}{f.name}={value}: a value goes to one of its settings: {keys}")
            if own or schema[f.name] is None:
                schema[f.name] = OmegaConf.structured(inner)
            _fit(schema[f.name], inner, value, typed, f"{prefix}{f.name}.", own)
    return schema


def _settings(contents: str, name: str) -> dict[str, Any]:
    return get_type_hints(settings_of(contents, name))
