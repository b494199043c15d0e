"""`data=sdss`: images of SDSS galaxies, from the archive or cut from frames on disk."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photoz_lit.data.sources.settings import Progress, Survey, TableSettings, facts_of, need
from photoz_lit.errors import ConfigError
from photoz_lit.setting import setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from photoz_lit.data.store import Store

log = logging.getLogger(__name__)

KINDS = ("images",)


@dataclass
class Settings(TableSettings):
    """Which galaxies are cut, from what, and how; and where the survey's servers are."""

    source: str = "sdss"
    drop_invalid: bool = True
    frames: str | None = setting(None, kind="path")
    positions: str | None = setting(None, kind="path")
    limit: int | None = setting(None, least=1)
    region: list[float] = setting([])
    runs: list[int] = setting([])
    r_max: float = 17.8
    north_up: bool = False
    max_missing: float = setting(0.05, least=0, below=1)
    dtype: str = setting("float16", choices=("float16", "float32"))
    frames_url: str = setting("https://data.sdss.org/sas/dr17/eboss/photoObj/frames", decides="nothing")
    catalogue_url: str = setting("https://skyserver.sdss.org/dr17", decides="nothing")
    connections: int = setting(4, least=1, decides="nothing")

    def retry(self, folder: Path) -> None:
        """Make a finished store unfinished again where galaxies lack a frame: they are tried again."""
        from photoz_lit.data.sdss.walk import reopen
        from photoz_lit.data.store import open_store

        if n := reopen(open_store(folder)):
            log.info("%s: %d galaxies lack a frame: trying again", folder, n)


def check(settings: Settings, survey: Survey) -> None:
    """Check the region, and that a folder of frames comes with positions."""
    ra, dec = settings.region[:2], settings.region[2:]
    in_order = len(dec) == 2 and -90 <= dec[0] < dec[1] <= 90
    need(
        not ra or (in_order and 0 <= min(ra) <= max(ra) <= 360),
        f"data.region={settings.region} must be four numbers in degrees, [ra_min,ra_max,dec_min,dec_max]: ra "
        "of 0 to 360 (ra_min > ra_max goes through 0), dec_min below dec_max, of -90 to 90",
    )
    need(
        settings.frames is None or settings.positions is not None,
        f"data.frames={settings.frames} needs data.positions, a table with ra and dec",
    )


def facts(settings: Settings, survey: Survey, target: Target) -> dict[str, Any]:
    """Return what the store depends on: frames never change, and what comes later joins the same store."""
    counts, nothing = ("bands", "pixels", "pixel_scale"), ("frames", "frames_url", "connections")
    own = facts_of(settings, survey, target, of_survey=counts, nothing=nothing)
    return own | {"frames": settings.frames}


@dataclass(frozen=True)
class Cutting:
    """The plan of `data=sdss`: galaxies are asked for when the store is made, then cut field by field."""

    settings: Settings
    survey: Survey
    target: Target
    workers: int

    def write(self, folder: Path, facts: dict[str, Any], progress: Progress) -> "Store":
        """Ask for the catalogue or read the positions, then cut."""
        from photoz_lit.data.sdss.fetch import Archive
        from photoz_lit.data.sdss.fields import Stamps
        from photoz_lit.data.sdss.galaxies import ask_catalogue, read_positions
        from photoz_lit.data.sdss.query import Selection, sql
        from photoz_lit.data.sdss.walk import Walk
        from photoz_lit.data.store import partial_folder

        d, s = self.settings, self.survey
        partial, rules = partial_folder(folder), d.rules(s, self.target)
        if d.positions is not None:
            galaxies = read_positions(Path(d.positions), rules, d.limit, places=d.frames is None)
        elif not self.target.is_redshift:
            raise ConfigError(
                f"the SDSS archive is asked for galaxies by redshift, the target is {self.target.column}: "
                "name a table with ra, dec and the true values by data.positions=TABLE"
            )
        else:
            selection = Selection(s.z_min, s.z_max, d.r_max, d.limit, tuple(d.region), tuple(d.runs))
            facts = facts | {"sql": sql(selection)}
            galaxies = ask_catalogue(selection, partial / "query", d.catalogue_url, rules)
        archive = Archive(d.frames_url, partial / "frames", d.connections)
        frames = archive if d.frames is None else Path(d.frames)
        stamps = Stamps(s.bands, s.pixels, s.pixel_scale, d.north_up)
        walk = Walk(galaxies, frames, stamps, d.max_missing, d.dtype, self.workers)
        return walk.write(folder, facts, progress)


plan = Cutting
