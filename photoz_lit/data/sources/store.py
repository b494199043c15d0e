"""`data=store`: a data set that was prepared before, by its folder."""

from dataclasses import dataclass

from photoz_lit.data.sources.settings import SourceSettings, Survey, facts_of
from photoz_lit.setting import setting

KINDS = ("images", "features", "vectors")
facts = facts_of


@dataclass
class Settings(SourceSettings):
    """Where the prepared folder lies."""

    source: str = "store"
    path: str | None = setting(None, kind="path")


def check(settings: Settings, survey: Survey) -> None:
    """Ask for the folder; what is in it tells itself when it is opened."""
    settings.need_path("path", "a prepared folder, e.g. data.path=data/mock-0123456789ab")
