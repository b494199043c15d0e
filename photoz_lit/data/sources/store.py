"""`data=store`: a data set that was prepared before, by its folder."""

from dataclasses import dataclass
from typing import Any

from photoz_lit.data.sources.settings import (
    SourceSettings,
    Survey,
    facts_of,
    need_path,
)
from photoz_lit.setting import setting
from photoz_lit.target import Target

KINDS = ("images", "features", "vectors")


@dataclass
class Settings(SourceSettings):
    """Where the prepared folder lies."""

    source: str = "store"
    path: str | None = setting(None, kind="path")


def check(settings: Settings, survey: Survey) -> None:
    """Ask for the folder; what is in it tells itself when it is opened."""
    need_path(settings, "path", "a prepared folder, e.g. data.path=data/mock-0123456789ab")


def facts(settings: Settings, survey: Survey, target: Target) -> dict[str, Any]:
    """Return what the folder is recognised by; nothing is prepared."""
    return facts_of(settings, survey, target)
