"""What a stage depends on, and the names of run folders that follow from it."""

import copy
import glob
import hashlib
import logging
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from photoz_lit.config.schema import VERSION, Config, leaves
from photoz_lit.errors import ConfigError
from photoz_lit.files import read_json

log = logging.getLogger(__name__)

LONGEST = 150  # bytes of settings of a stage in the name of a folder
NAME = 230  # bytes of a whole name up to which they are spelt: file systems hold 255, and others add to it
SEED = 25  # bytes that a seed may take in it
PRETRAINED = Path(__file__).resolve().parents[1] / "pretrained"
AFTER = {"representation": ("representation",), "classifier": ("representation", "classifier")}


def to_container(config: Config) -> dict[str, Any]:
    """Return the settings as plain dicts, lists and scalars (safe in a checkpoint)."""
    plain = asdict(config)
    del plain["names"]
    return {"version": VERSION} | plain


def portable(config: Config) -> Config:
    """Return the settings with the names of files and folders alone, which say nothing of this machine."""
    config = copy.deepcopy(config)
    for leaf in leaves(config):
        if leaf.declared.get("kind") == "path" and isinstance(leaf.value, str):
            leaf.set(Path(leaf.value).name)
    return config


def science(config: Config, stage: str) -> dict[str, Any]:
    """Return the settings that decide what a stage trains, by their keys `a.b.c`.

    Paths are left out: what a file holds counts, not where it lies, and a run knows its store.
    """
    return {
        leaf.key: leaf.value
        for leaf in leaves(config)
        if leaf.decides in AFTER[stage]
        and leaf.declared.get("kind") != "path"
        and not leaf.key.startswith(config.idle)
    }


def results(config: Config) -> dict[str, Any]:
    """Return the settings that decide nothing but the numbers made of finished p(z), by their keys."""
    return {leaf.key: leaf.value for leaf in leaves(config) if leaf.decides == "results"}


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


def folder_names(config: Config, differs: dict[str, Any], groups: dict[str, str]) -> dict[str, str]:
    """Name the run folders: correction, head, seed, and what else is not as the composed groups have it.

    `differs` is what `changed` finds, `groups` the choices of groups that are not the usual ones. Besides the
    folders of both stages, `spelt` is all that they may name by a digest, and `label` what the report calls
    the correction.
    """
    decides = {leaf.key: leaf.decides for leaf in leaves(config)}
    differs = {
        key: _text(value)
        for key, value in differs.items()
        if not key.startswith(config.idle) and key not in ("head", "seed", "correction.name")
    }

    def spelt(kind: str, words: dict[str, str], most: int = LONGEST) -> str:
        # An entry of a mapping decides what the mapping does, and a branch that is absent what it would.
        words |= {
            k: v for k, v in differs.items() if decides.get(k, decides.get(k.rpartition(".")[0])) == kind
        }
        return _joined(dict(sorted(words.items())), most)

    common = spelt("representation", groups)
    head, correction = "" if config.head == "multi" else f",head={config.head}", config.correction.name
    part = "correction."
    switches = [f"{k.removeprefix(part)}={v}" for k, v in differs.items() if k.startswith(part)]
    first, last = f"correction={_text(correction)}{head}{common}", f",seed={config.seed}"
    own = spelt("classifier", {}, min(LONGEST, max(0, NAME - SEED - len(first.encode()))))
    return {
        "spelt": "".join(f"{key}={value}\n" for key, value in sorted((groups | differs).items())),
        "label": f"{correction} · {', '.join(switches)}" if switches else correction,
        "representation": f"head={config.head}{common},seed={config.seed}",
        "classifier": f"{first}{own}{last}",
    }


def changed(typed: DictConfig, schema: DictConfig, base: DictConfig) -> dict[str, Any]:
    """Return the settings that are not what the composed groups have.

    `typed` are the settings, interpolations unresolved, `schema` their defaults, and `base` what the groups
    have without any values typed. What follows other settings there follows them here.
    """
    plain = OmegaConf.to_container(typed, resolve=False)
    values, written = flat(OmegaConf.to_container(typed, resolve=True)), flat(plain)
    theirs = flat(OmegaConf.to_container(base, resolve=False))
    before = flat(OmegaConf.to_container(schema, resolve=False)) | theirs
    follows = {k: v for k, v in before.items() if isinstance(v, str) and "${" in v and k in values}
    context = OmegaConf.create(plain)
    for key, interpolation in follows.items():
        OmegaConf.update(context, key, interpolation)
    before |= {key: OmegaConf.select(context, key) for key in follows}
    found = {
        key: value
        for key, value in sorted(values.items())
        if written[key] != before.get(key) and value != before.get(key)
    }
    absent = {key: "null" for key, value in values.items() if value is None and _below(key, theirs)}
    present = {key: "on" for key, value in theirs.items() if value is None and _below(key, values)}
    return found | absent | present


def _below(key: str, tree: dict[str, Any]) -> bool:
    return any(other.startswith(f"{key}.") for other in tree)


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree by their keys `a.b.c`."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def _text(value: Any) -> str:
    """Spell a value as a part of a folder's name."""
    if isinstance(value, list | tuple):
        return "_".join(map(_text, value))
    if isinstance(value, dict):
        return "_".join(f"{key}-{_text(item)}" for key, item in value.items())
    text = str(value)
    if "/" in text:  # a file without its suffix; a run folder's name has settings after its last dot
        text = re.sub(r"(?<=.)\.[^.=]*$", "", Path(text).name)
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


def _joined(named: dict[str, str], most: int) -> str:
    """Spell settings out, or name them by a digest where a folder's name would grow too long."""
    words = "".join(f",{key}={value}" for key, value in named.items())
    if len(words.encode()) <= most:
        return words
    return f",settings={hashlib.sha256(words.encode()).hexdigest()[:10]}"


def other_representation(named: str) -> Path:
    """Return the folder that `representation` names; ConfigError unless it is of a finished one.

    It is that of a finished stage=representation, one that stage=export wrote, or the name of a model that
    comes with the package, of which it is the first member.
    """
    folder, done = (_packaged(named) or [Path(named).expanduser().absolute()])[0], {}
    if (folder / "done.json").is_file():
        done = read_json(folder / "done.json")
    if done.get("stage") in ("representation", "export"):
        return folder
    what = "no such folder" if not folder.is_dir() else "no finished run is there"
    if done:
        what = f"that is a run of stage={done.get('stage')}"
    raise ConfigError(
        f"representation={named}: {what}. Name the folder of a finished stage=representation, e.g. "
        f"representation=runs/main/representation/head=multi,seed=1 (relative paths start at {Path.cwd()}), "
        f"or one that comes with the package: {', '.join(packaged())}"
    )


def packaged() -> list[str]:
    """Return the names of the models that come with the package."""
    return sorted(path.name for path in PRETRAINED.iterdir() if (path / "1").is_dir())


def _packaged(named: str) -> list[Path]:
    """Return the members of a model that comes with the package, unless a folder here has its name."""
    path = Path(named).expanduser()
    if path not in (Path(path.name), Path(path.name).absolute()) or path.is_dir():
        return []
    return sorted(member for member in (PRETRAINED / path.name).glob("*") if member.is_dir())


def weights_file(folder: Path) -> Path:
    """Return the file that holds a folder's network: a checkpoint, or what was exported."""
    path, exported = folder / "model.ckpt", folder / "model.safetensors"
    return exported if exported.is_file() and not path.is_file() else path


def finished_runs(pattern: str) -> list[Path]:
    """Return the finished run folders that a folder, or a pattern with *, names; ConfigError if none.

    So does the name of a model that comes with the package.
    """
    path = Path(pattern).expanduser()
    if own := _packaged(pattern):
        found = own
    elif path.is_dir() or "*" not in pattern:
        found = [path]
    else:  # names of run folders may hold brackets: only * is special here
        literal = glob.escape(str(path)).replace("[*]", "*")
        found = [Path(name) for name in sorted(glob.glob(literal)) if Path(name).is_dir()]
    finished = [folder.resolve() for folder in found if (folder / "done.json").is_file()]
    if left := [str(f) for f in found if f.resolve() not in finished and finished]:
        log.warning("not finished, and left out: %s", ", ".join(left))
    if not finished:
        raise ConfigError(
            f"model={pattern}: no finished run is there. Name the folder of one, e.g. "
            "model=runs/main/classifier/correction=full,seed=1, or train it first:\n"
            "  python -m photoz_lit stage=representation\n"
            "  python -m photoz_lit stage=classifier correction=full"
        )
    return finished
