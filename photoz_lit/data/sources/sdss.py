"""`data=sdss`: images of SDSS galaxies, from the archive or cut from frames on disk."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from photoz_lit.data.sources.settings import Progress, Survey, TableSettings, facts_of, need
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.setting import branch, setting
from photoz_lit.target import Target

if TYPE_CHECKING:
    from photoz_lit.data.store import Store

log = logging.getLogger(__name__)

KINDS = ("images",)


@dataclass
class Archive:
    """The SDSS archive and how politely it is asked."""

    frames_url: str = "https://data.sdss.org/sas/dr17/eboss/photoObj/frames"
    catalogue_url: str = "https://skyserver.sdss.org"
    data_release: int = 17
    connections: int = 4
    timeout: float = 60.0
    retries: int = 6
    backoff: float = 1.0
    patience: float = 600.0


@dataclass
class Settings(TableSettings):
    """Which galaxies are cut, from what, and how."""

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
    archive: Archive = branch(Archive)

    def retry(self, folder: Path) -> None:
        """Make a finished store unfinished again where galaxies lack a frame: they are tried again."""
        from photoz_lit.data.sdss import store as sdss
        from photoz_lit.data.store import open_store

        if n := sdss.failed_rows(open_store(folder)):
            log.info("%s: %d galaxies lack a frame: trying again", folder, n)
            sdss.reopen(folder)


def check(settings: Settings, survey: Survey) -> None:
    """Check what belongs together."""
    s = settings
    need(
        len(s.region) in (0, 4),
        f"data.region={s.region} must be four numbers in degrees: [ra_min,ra_max,dec_min,dec_max]",
    )
    need(
        s.frames is None or s.positions is not None,
        f"data.frames={s.frames} needs data.positions, a table with ra and dec",
    )


def facts(settings: Settings, survey: Survey, target: Target) -> dict[str, Any]:
    """Return what the store depends on."""
    own = facts_of(
        settings, survey, target, of_survey=("bands", "pixels", "pixel_scale"), nothing=("archive",)
    )
    return own | {"release": settings.archive.data_release}


def plan(settings: Settings, survey: Survey, target: Target, workers: int) -> "Cutting":
    """Return what cuts the galaxies; they are asked for when the store is made."""
    return Cutting(settings, survey, target, workers)


@dataclass(frozen=True)
class Cutting:
    """The way from positions and frames to a store, field by field."""

    settings: Settings
    survey: Survey
    target: Target
    workers: int

    def write(self, folder: Path, facts: dict[str, Any], progress: Progress) -> "Store":
        """Ask for the catalogue or read the positions, say what it takes, then cut field by field."""
        try:
            from photoz_lit.data.sdss import query as skyserver
            from photoz_lit.data.sdss import store as sdss
            from photoz_lit.data.sdss.archive import Archive as FramesArchive
        except ImportError as error:
            raise DataError(f"data=sdss needs {error.name}: type pip install 'photoz_lit[sdss]'") from error
        from photoz_lit.data.store import partial_folder

        d, s, a = self.settings, self.survey, self.settings.archive
        partial, rules = partial_folder(folder), d.rules(s, self.target)
        if d.positions is not None:
            galaxies = sdss.read_positions(Path(d.positions), rules, d.limit)
        elif not self.target.is_redshift:
            raise ConfigError(
                f"the SDSS archive is asked for galaxies by redshift, the target is {self.target.column}: "
                "name a table with ra, dec and the true values by data.positions=TABLE"
            )
        else:
            region = cast(tuple[float, float, float, float], tuple(d.region)) if d.region else None
            selection = skyserver.Selection(s.z_min, s.z_max, d.r_max, d.limit, region, tuple(d.runs))
            server = skyserver.SkyServer(
                a.catalogue_url, a.data_release, retries=a.retries, backoff=a.backoff
            )
            facts = facts | {"sql": skyserver.sql(selection)}
            galaxies = sdss.ask_catalogue(selection, partial / "query", server, rules)
        frames: Path | FramesArchive
        if d.frames is not None:
            frames = Path(d.frames)
        else:
            frames = FramesArchive(
                a.frames_url,
                partial / "frames",
                connections=a.connections,
                timeout=a.timeout,
                retries=a.retries,
                backoff=a.backoff,
                patience=a.patience,
            )
        stamps = sdss.Stamps(s.bands, s.pixels, s.pixel_scale, d.north_up, d.max_missing, d.dtype)
        log.info("%s", sdss.estimate(galaxies, stamps, frames))
        return sdss.make_store(
            folder, galaxies, frames, stamps, settings=facts, workers=self.workers, progress=progress
        )
