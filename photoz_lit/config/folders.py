"""Names of run folders: what a stage depends on, and how that is spelt."""

import hashlib
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from photoz_lit.config.schema import Config

# Settings that say where and how a job runs, never what it computes: they name no run folder.
NOT_SCIENCE = (
    "stage",
    "experiment",
    "run",
    "output_dir",
    "data_dir",
    "trainer",
    "logger",
    "hydra",
    "model",
    "predict",
    "calibration",
    "data.frames_url",
    "data.catalogue_url",
    "data.connections",
    "fit_missing",
    "sweep",
)
_CLASSIFIER_ONLY = ("correction", "training.step2", "training.step3", "training.hidden")
PATHS = (
    "path",
    "test_path",
    "images",
    "test_images",
    "mock_catalogue",
    "frames",
    "positions",
    "ebv_maps",
)


def to_container(config: Config) -> dict[str, Any]:
    """Return the settings as plain dicts, lists and scalars (safe in a checkpoint)."""
    return asdict(config)


def science(config: Config, stage: str) -> dict[str, Any]:
    """Settings that decide the result of a stage, for comparing with a finished run's."""
    plain = to_container(config)
    for key in PATHS:
        plain["data"].pop(key)  # what they hold counts, not where they lie: a run knows its store
    for key in (*NOT_SCIENCE, "names", "n_bootstrap"):
        group, _, name = key.rpartition(".")
        (plain[group] if group else plain).pop(name, None)
    if stage == "representation":
        plain.pop("correction")
        plain["training"] = {"representation": plain["training"]["representation"]}
    return plain


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Name the settings that differ: `key: old -> new`."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def naming(overrides: list[str], composed: DictConfig) -> list[str]:
    """Keep the words of the command line that change a setting: one that repeats a default names none."""
    keys = [word.partition("=")[0] for word in overrides]
    # A word that sets one value changes nothing but that value. One composition, of a quarter of a second,
    # tells what all of them would be without their words; each group needs one of its own.
    values = {
        word: key
        for word, key in zip(overrides, keys, strict=True)
        if keys.count(key) == 1
        and key[:1] not in "+~"
        and not _says_where(word)
        and not _sets_many(composed, key)
    }
    default = compose("config", [w for w in overrides if w not in values]) if values else composed
    kept = []
    for word in overrides:
        if _says_where(word):
            continue
        if word in values:
            before, after = (_unresolved(c, values[word]) for c in (default, composed))
        if word in values and "${" not in f"{before}{after}":
            changes = before != after
        else:
            changes = _changes(word, overrides, composed)
        if changes:
            kept.append(word)
    return kept


def _says_where(word: str) -> bool:
    return word.lstrip("+~").startswith(NOT_SCIENCE)


def _sets_many(composed: DictConfig, key: str) -> bool:
    """Whether a word chooses a file of settings: of a group in Config, or of another such as size."""
    name = key.partition("@")[0]
    return isinstance(OmegaConf.select(composed, name), DictConfig) or name.split(".")[0] not in composed


def _unresolved(composed: DictConfig, key: str) -> Any:
    """Return the value of `a.b.c`, or the whole list it is in; interpolations stay as they are written."""
    node: Any = OmegaConf.to_container(composed, resolve=False)
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else node
    return node


def _changes(word: str, overrides: list[str], composed: DictConfig) -> bool:
    """Whether the settings would be others without a word."""
    try:
        without = compose("config", [w for w in overrides if w != word])
    except HydraException:  # another word needs this one, e.g. data.path needs data=catalogue
        return True
    return OmegaConf.to_container(without, resolve=True) != OmegaConf.to_container(composed, resolve=True)


def words_without_classifier(overrides: list[str]) -> str:
    """Return the words that the representation's own command needs."""
    return shlex.join(w for w in overrides if not w.startswith(("stage=", *_CLASSIFIER_ONLY)))


def folder_names(config: Config, overrides: list[str], composed: DictConfig) -> dict[str, str]:
    """Names of the run folders: head, seed (and correction), then every override that changes results."""
    pairs = dict(word.lstrip("+~").split("=", 1) for word in overrides if "=" in word)
    representation: dict[str, str] = {}
    classifier: dict[str, str] = {}
    for key, value in sorted(pairs.items()):
        top = key.split(".")[0]
        if top in NOT_SCIENCE or key in ("head", "seed", "correction", "n_bootstrap"):
            continue
        if not _sets_many(composed, key):
            typed = OmegaConf.select(composed, key.partition("@")[0])
            # Not as it was written: 5e-3 and 0.005 are one setting.
            value = "_".join(map(str, typed)) if isinstance(typed, ListConfig) else str(typed)
        value = Path(value).stem if "/" in value else value
        (classifier if key.startswith(_CLASSIFIER_ONLY) else representation)[key] = value
    common, own = _joined(representation), _joined(classifier)
    head = "" if config.head == "multi" else f",head={config.head}"
    switches = ", ".join(
        f"{k.removeprefix('correction.')}={v}" for k, v in classifier.items() if k.startswith("correction.")
    )
    return {
        "label": config.correction.name + (f" · {switches}" if switches else ""),
        "representation": f"head={config.head}{common},seed={config.seed}",
        "classifier": f"correction={config.correction.name}{head}{common}{own},seed={config.seed}",
    }


def _joined(settings: dict[str, str], longest: int = 80) -> str:
    """Spell the settings out, or name them by a digest where a folder's name would grow too long."""
    words = "".join(f",{key}={value}" for key, value in settings.items())
    if len(words) <= longest:
        return words
    return f",settings={hashlib.sha256(words.encode()).hexdigest()[:10]}"
