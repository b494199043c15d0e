"""`data=sdss`: images of SDSS galaxies, from the archive or cut from frames on disk."""

import logging
from dataclasses import dataclass
from functools import partial as partial_of
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
    """Which galaxies are cut, from what, and how."""

    source: str = "sdss"
    drop_invalid: bool = True
    images: str | None = setting(None, kind="path")  # a folder of frames; null: the archive
    path: str | None = setting(None, kind="path")  # a table of positions; null: the survey's catalogue
    position: str | None = None  # or a few positions themselves; `position=` alone is short for it
    n_galaxies: int | None = setting(None, least=1)
    region: list[float] = setting([])
    runs: list[int] = setting([])
    r_max: float = 17.8
    north_up: bool = False

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
    if settings.position is not None:
        from photoz_lit.data.sdss.positions import typed_positions

        typed_positions(settings.position)
        said = [key for key in ("path", "n_galaxies", "region", "runs", "columns") if getattr(settings, key)]
        need(
            not said,
            f"position={settings.position} says which galaxies: leave data.{', data.'.join(said)} out",
        )
        need(not settings.labelled, f"position={settings.position} has no spec_z: it is for stage=predict")
    need(
        settings.images is None or (settings.path or settings.position) is not None,
        f"data.images={settings.images} needs data.path, a table with ra and dec, or position=",
    )


def facts(settings: Settings, survey: Survey, target: Target) -> dict[str, Any]:
    """Return what the store depends on: frames never change, and what comes later joins the same store.

    Single positions are cut again where there are other frames.
    """
    counts = ("bands", "pixels", "pixel_scale")
    if settings.position is not None:
        return facts_of(settings, survey, target, of_survey=counts)
    own = facts_of(settings, survey, target, of_survey=counts, nothing=("images", "position"))
    return own | {"images": settings.images}


@dataclass(frozen=True)
class Cutting:
    """The plan of `data=sdss`: galaxies are asked for when the store is made, then cut field by field."""

    settings: Settings
    survey: Survey
    target: Target
    workers: int

    def write(self, folder: Path, facts: dict[str, Any], progress: Progress) -> "Store":
        """Ask for the catalogue or read the positions, then cut."""
        from photoz_lit.data.sdss.fetch import FRAMES, Archive
        from photoz_lit.data.sdss.fields import Stamps
        from photoz_lit.data.sdss.galaxies import ask_catalogue, read_positions
        from photoz_lit.data.sdss.positions import positions_table, typed_positions, with_sources
        from photoz_lit.data.sdss.query import CATALOGUE, Selection, sql
        from photoz_lit.data.sdss.walk import Walk
        from photoz_lit.data.store import partial_folder

        d, s = self.settings, self.survey
        partial, rules = partial_folder(folder), d.rules(s, self.target)
        if d.position is not None:
            server = CATALOGUE if d.images is None else None
            galaxies = positions_table(typed_positions(d.position), server, d.ebv_maps)
        elif d.path is not None:
            galaxies = read_positions(Path(d.path), rules, d.n_galaxies, places=d.images is None)
        elif not self.target.is_redshift:
            raise ConfigError(
                f"the SDSS archive is asked for galaxies by redshift, the target is {self.target.column}: "
                "name a table with ra, dec and the true values by data.path=TABLE"
            )
        else:
            selection = Selection(s.z_min, s.z_max, d.r_max, d.n_galaxies, tuple(d.region), tuple(d.runs))
            facts = facts | {"sql": sql(selection)}
            galaxies = ask_catalogue(selection, partial / "query", CATALOGUE, rules)
        frames = Archive(FRAMES, partial / "frames") if d.images is None else Path(d.images)
        stamps = Stamps(s.bands, s.pixels, s.pixel_scale, d.north_up)
        complete = None if d.position is None else partial_of(with_sources, stamps=stamps)
        return Walk(galaxies, frames, stamps, self.workers, complete).write(folder, facts, progress)


plan = Cutting
