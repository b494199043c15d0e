"""Words of the command line: taken as they are typed, and put as Hydra reads them."""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from photoz_lit.config.checks import one_of
from photoz_lit.config.schema import Config
from photoz_lit.errors import ConfigError
from photoz_lit.setting import contents_of

QUOTED = r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"


def for_hydra(words: list[str], folders: list[Path], multirun: bool) -> list[str]:
    """Check words of the command line, `key=value` as typed, and put them as Hydra reads them.

    `folders` are those of configurations: ours, and what `--config-dir` names. With `multirun` several values
    are several jobs. ConfigError for a choice that a group does not have, a key typed twice, and several
    values of one job.
    """
    groups = {p.name for folder in folders for p in folder.iterdir() if p.is_dir() and p.name != "hydra"}
    typed: dict[str, str] = {}
    put = []
    words = _of_position(words)
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        if re.match(r"hydra\b", key) or not (equals or word.startswith("~")):
            put.append(word)
            continue
        if key in typed:
            raise ConfigError(f"{key} is typed twice, {typed[key]} and {word}: leave one out")
        typed[key] = word
        if key in groups:
            valid = tuple(sorted({p.stem for folder in folders for p in (folder / key).glob("*.yaml")}))
            for one in value.split(",") if re.fullmatch(r"[\w,]+", value) else ():
                if one != "null":
                    one_of(key, one, valid)
        elif word.startswith("~"):
            raise ConfigError(f"{word}: a setting cannot be left out: type {key}=null, or another value")
        else:
            value = _quoted(key, value)
        if not multirun and re.fullmatch(r"[^\[\](){}'\"]+,[^\[\](){}'\"]*", value):
            raise ConfigError(f"{word} has several values, one a job: add -m, or type one of them")
        put.append(word if key in groups else f"++{key}={value}")
    return put


def _of_position(words: list[str]) -> list[str]:
    """Spell out `position=`, which is short for `data=sdss data.position=`."""
    words = [re.sub(r"^[+]*position=", "data.position=", word) for word in words]
    data = [word for word in words if word.startswith("data=")]
    if not any(word.startswith("data.position=") for word in words) or "data=sdss" in data:
        return words
    if data:
        raise ConfigError(f"position= is cut from images of SDSS, and {data[0]} is other data: leave one out")
    return [*words, "data=sdss"]


def shown(word: str) -> str:
    """Return a word of `for_hydra` as it was typed."""
    key, equals, value = word.removeprefix("++").partition("=")
    if re.fullmatch(QUOTED, value):
        value = re.sub(r"\\(\\*')|\\(\\)$", r"\1\2", value[1:-1]).replace("\\${", "${")
    return f"{key}{equals}{value}"


def quote(text: str) -> str:
    """Quote a text for Hydra, in which nothing has a meaning then."""
    text = re.sub(r"(\\*)'", r"\1\1\\'", text.replace("${", "\\${"))
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def _quoted(key: str, value: str) -> str:
    """Quote what is a text by the kind of the setting: a value, the items of a list or of a mapping."""
    hints = set(_hints(key))
    if not hints or re.fullmatch(f"{QUOTED}(,{QUOTED})*", value):
        return value
    inner = value[1:-1]
    if str in hints:
        return value if value == "null" and type(None) in hints else quote(value)
    if list[str] in hints and re.fullmatch(r"\[.*\]", value) and not re.search(r"\]\s*,\s*\[", inner):
        return "[" + ",".join(_item(item) for item in _items(inner)) + "]"
    if any(get_origin(hint) is dict for hint in hints) and re.fullmatch(r"\{.*\}", value):
        pairs = [item.partition(":") for item in _items(inner)]
        return "{" + ",".join(f"{ours.strip()}:{_item(theirs)}" for ours, _, theirs in pairs) + "}"
    return value


def _items(inner: str) -> list[str]:
    """Split at commas outside quotes."""
    return [item for item in re.findall(rf"(?:{QUOTED}|[^,])+", inner) if item.strip()]


def _item(item: str) -> str:
    item = item.strip()
    return item if item == "null" or re.fullmatch(QUOTED, item) else quote(item)


def _hints(key: str) -> Iterator[Any]:
    """Yield the types that a setting may have; a text that has choices is none here."""
    nodes: list[Any] = [Config]
    *above, last = key.split(".")
    for part in above:
        nodes = [inner for node in nodes for inner in _below(node, part)]
    for node in nodes:
        if get_origin(node) is dict:
            yield from _alternatives(get_args(node)[1])
        elif is_dataclass(node) and last in (hints := get_type_hints(node)):
            declared = next(f.metadata for f in fields(node) if f.name == last)
            kind = declared.get("kind")
            if kind != "part" and (kind or "choices" not in declared):
                yield from _alternatives(hints[last])


def _below(node: Any, part: str) -> list[Any]:
    """Return what a part of a key leads to: a branch, a mapping, or all that may be chosen there."""
    for f in fields(node) if is_dataclass(node) else ():
        if f.name == part and "chosen" in f.metadata:
            entries = contents_of(f.metadata["chosen"][0]).values()
            return [getattr(e, "Settings", e) for e in entries if not isinstance(e, str)]
        if f.name == part:
            return list(_alternatives(get_type_hints(node)[part]))
    return []


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if type(None) in get_args(hint) else (hint,)
