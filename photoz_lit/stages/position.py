"""What `stage=predict` says of single positions (`position=`): a line each, and a page to look at."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from photoz_lit.config import Config
from photoz_lit.data.store import ESTIMATED, FLAGS
from photoz_lit.files import beside

if TYPE_CHECKING:
    from photoz_lit.data.store import Store
    from photoz_lit.inference import Predictor, Trained

log = logging.getLogger(__name__)

LINES = "positions.txt"
DUST = 0.10  # mag, E(B-V) to show what not knowing it does
OFF = 1.0  # pixels between position and peak that are told


def tell(
    config: Config, folder: Path, models: "Sequence[Trained]", predictor: "Predictor", store: "Store"
) -> None:
    """Print a line a position of a complete run; make the lines and the pages unless they are there."""
    if not (folder / LINES).is_file():
        lines = _drawn(config, folder, models, predictor, store)
        with beside(folder / LINES) as partial:
            partial.write_text("\n".join(lines) + "\n")
    for i, line in enumerate((folder / LINES).read_text().splitlines(), 1):
        log.info("%s\n  -> %s", line, folder / f"photo_z_{i}.png")


def _drawn(
    config: Config, folder: Path, models: "Sequence[Trained]", predictor: "Predictor", store: "Store"
) -> list[str]:
    """Draw the page of each position and return its line."""
    import torch
    from astropy.table import Table

    from photoz_lit.data.sdss.manifest import Manifest
    from photoz_lit.report.figures.position import Page, figure_position
    from photoz_lit.report.figures.style import as_png
    from photoz_lit.results import read_pdf

    table = Table.read(folder / "photo_z.fits", mask_invalid=False, character_as_bytes=False)
    pdf = np.concatenate(list(read_pdf(folder)))
    cut = Manifest(store.folder / "manifest.csv", store.catalogue["object_id"]).lines
    reference, training, lines = models[0].reference, predictor.priors.training.sum(axis=0), []
    distances = np.empty(0)
    if predictor.neighbours is not None:
        with torch.inference_mode():
            val = torch.from_numpy(reference["val"]).float().to(predictor.device)
            distances = predictor.neighbours(val).cpu().numpy().astype(np.float64)
    ranges = {"dered_petro_r": "r_range", "ebv": "ebv"}
    for i in range(len(table)):
        row = dict(zip(table.colnames, table[i], strict=True))
        title = _title(row, config.target.estimate)
        said = _notes(config, predictor, store, i, row, cut[i]["reason"])
        said += [f"Cut from {cut[i]['field']}."] if cut[i]["field"] else []
        page = Page(
            *(title, "\n".join(said), row, np.asarray(store.inputs[i], np.float64)),
            *(config.survey.bands, config.survey.pixel_scale, predictor.grid, pdf[i]),
            *(training / training.sum(), distances, predictor.threshold),
            ranges={column: reference[key] for column, key in ranges.items() if key in reference},
            target=config.target,
        )
        with beside(folder / f"photo_z_{i + 1}.png") as partial:
            partial.write_bytes(as_png(figure_position(page)))
        lines.append(f"{title}. {' '.join(said)}")
    return lines


def _title(row: dict[str, Any], name: str) -> str:
    place, result = str(row["object_id"]), f"no {name}"
    if not re.fullmatch(r"[\d.]+ *[+-]?[\d.]+", place):
        place += f" ({row['ra']:.5f} {row['dec']:+.5f} deg)"
    if np.isfinite(row[name]):
        limits = f"{row[f'{name}_lower']:.3f} to {row[f'{name}_upper']:.3f}"
        result = f"{name} {row[name]:.3f} (68 %: {limits})"
    return f"{place}: {result}, flag {row['flag']}"


def _notes(
    config: Config, predictor: "Predictor", store: "Store", i: int, row: dict[str, Any], reason: str
) -> list[str]:
    """Say what the estimate is made from, and what speaks against it."""
    seen, flag, name, notes = store.catalogue[i], row["flag"], config.target.estimate, []
    if flag not in ("good", "ebv"):
        reason = reason or FLAGS[flag]
        notes.append(f"{reason[0].upper()}{reason[1:]}.")
    if np.isfinite(row["dered_petro_r"]):
        notes.append(f"r {row['dered_petro_r']:.2f} ({seen['r_from'].strip()}).")
    if np.isfinite(row["ebv"]):
        notes.append(f"E(B-V) {row['ebv']:.3f} ({seen['ebv_from'].strip()}).")
    elif flag in ESTIMATED:
        other = _with_dust(config, predictor, store, i)
        notes.append(
            f"E(B-V) is not known: {name} {row[name]:.3f} without dust, {other:.3f} with E(B-V) {DUST:.2f}. "
            "Type ebv= after the position."
        )
    away = float(seen["peak_distance"])
    if flag in ESTIMATED and not away <= OFF * config.survey.pixel_scale:
        where = f"{away:.1f} arcsec" if np.isfinite(away) else "more than 2 arcsec"
        notes.append(f"The brightest peak nearby in r is {where} away: type its place if it is meant.")
    return notes


def _with_dust(config: Config, predictor: "Predictor", store: "Store", i: int) -> float:
    """Return the estimate that a galaxy had with dust before it."""
    from photoz_lit.data.dust import EXTINCTION_PER_EBV
    from photoz_lit.estimates import estimates_of

    r = store.column("dered_petro_r")[i : i + 1]
    if store.catalogue["r_from"][i].strip() == "measured":
        r = r - EXTINCTION_PER_EBV["r"] * DUST
    pdf, _ = predictor(store.read(i, i + 1), np.array([DUST]), r)
    usable = np.ones(1, dtype=bool)
    return float(estimates_of(pdf, usable, predictor.grid, config.estimate)[""][0])
