"""`stage=prepare data=sdss`, apart from other sources: it needs the packages of the extra `sdss`."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from photoz_lit.config import Config
from photoz_lit.data.sdss import query as skyserver
from photoz_lit.data.sdss.archive import Archive
from photoz_lit.data.sources import sdss
from photoz_lit.data.store import Store, open_store, partial_folder
from photoz_lit.errors import ConfigError
from photoz_lit.stages.plans import table_rules

log = logging.getLogger(__name__)


def prepare(
    config: Config, folder: Path, facts: dict[str, Any], advance: Callable[[int, int], None]
) -> Store:
    """Ask for the catalogue or read the positions, say what it takes, then cut field by field."""
    d, s, a = config.data, config.survey, config.archive
    partial, rules = partial_folder(folder), table_rules(config)
    if d.positions is not None:
        galaxies = sdss.read_positions(Path(d.positions), rules, d.limit)
    elif not config.target.is_redshift:
        raise ConfigError(
            f"the SDSS archive is asked for galaxies by redshift, the target is {config.target.column}: "
            "name a table with ra, dec and the true values by data.positions=TABLE"
        )
    else:
        region = cast(tuple[float, float, float, float], tuple(d.region)) if d.region else None
        selection = skyserver.Selection(s.z_min, s.z_max, d.r_max, d.limit, region, tuple(d.runs))
        server = skyserver.SkyServer(a.catalogue_url, a.data_release, retries=a.retries, backoff=a.backoff)
        facts |= {"sql": skyserver.sql(selection)}
        galaxies = sdss.ask_catalogue(selection, partial / "query", server, rules)
    frames: Path | Archive = partial / "frames"
    if d.frames is not None:
        frames = Path(d.frames)
    else:
        frames = Archive(
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
        folder,
        galaxies,
        frames,
        stamps,
        settings=facts,
        workers=config.trainer.threads or os.cpu_count() or 1,
        progress=advance,
    )


def retry(folder: Path) -> None:
    """Make a finished store unfinished again where galaxies lack a frame, so that they are tried again."""
    if n := sdss.failed_rows(open_store(folder)):
        log.info("%s: %d galaxies lack a frame: trying again", folder, n)
        sdss.reopen(folder)
