"""How a setting is declared: its default, what values it may have and what it decides, beside its field."""

import copy
import importlib
from collections.abc import Callable
from dataclasses import field
from typing import Any, Literal

# What a setting decides: no result at all; the numbers made of finished p(z); what a classifier fits; the
# representation and all that follows. Each stage names and compares only what it depends on.
Decides = Literal["nothing", "results", "classifier", "representation"]


def setting(
    default: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] | None = None,
    kind: Literal["path", "part"] | None = None,
    decides: Decides | None = None,
) -> Any:
    """Declare a setting as the field of a dataclass, with its default in this one place.

    `least` and `most` are allowed values themselves; limits of a list are those of its elements. A text
    without `choices` is taken from the command line as it is typed. A `path` is a file, folder or pattern of
    them, and starts at the current folder; of a `part` a sweep may have several. What is not said to decide
    anything decides what its branch does.
    """
    limits = {"least": least, "above": above, "most": most, "below": below}
    said = {"choices": choices, "kind": kind, "decides": decides, **limits}
    metadata = {key: value for key, value in said.items() if value is not None}
    if isinstance(default, list | dict):
        return field(default_factory=lambda: copy.deepcopy(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def branch(kind: Callable[[], Any], decides: Decides | None = None) -> Any:
    """Declare a branch of settings."""
    return field(default_factory=kind, metadata={} if decides is None else {"decides": decides})


def chosen(contents: str, key: str, default: str | None, *, decides: Decides | None = None) -> Any:
    """Declare a branch whose settings are those of what is named in it by the setting `key`.

    `contents` is module and dict of what can be chosen: `photoz_lit.data.sources:SOURCES`. Its values have a
    dataclass `Settings`, are one, or say where to import what has it. Typing the name alone for the branch is
    enough. Without a default the branch may be absent.
    """
    metadata: dict[str, Any] = {"chosen": (contents, key), "default": default}
    if decides is not None:
        metadata["decides"] = decides
    if default is None:
        return field(default=None, metadata=metadata)
    return field(default_factory=lambda: settings_of(contents, default)(**{key: default}), metadata=metadata)


def contents_of(contents: str) -> dict[str, Any]:
    """Return the dict that `chosen` speaks of."""
    module, _, name = contents.partition(":")
    found: dict[str, Any] = getattr(importlib.import_module(module), name)
    return found


def settings_of(contents: str, name: str) -> type:
    """Return the dataclass of what has this name."""
    entry = contents_of(contents)[name]
    if isinstance(entry, str):
        try:
            entry = importlib.import_module(entry)
        except ModuleNotFoundError:  # a class in a module
            module, _, member = entry.rpartition(".")
            entry = getattr(importlib.import_module(module), member)
    found: type = getattr(entry, "Settings", entry)
    return found
