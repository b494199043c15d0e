"""`stage=export`: a trained model as a small folder to hand on, with what it takes to predict and no more.

It holds `model.safetensors`, weights and settings; `config.yaml`, the settings to read; `reference.npz`,
galaxies to compare with, of the first of several models; `priors.npz` and `finishing.npz`, what finishes
p(z); `card.md`; and programs that run without this package (`photoz_lit.program`). No path of this machine
and no name of a galaxy goes into it. It is used as a run folder is: `model=FOLDER`.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit import config as settings
from photoz_lit.checkpoints import save_exported
from photoz_lit.config import Config
from photoz_lit.correction.finishing.chain import FILE as FINISHING
from photoz_lit.correction.prior import FILE as PRIORS
from photoz_lit.embeddings import spaced
from photoz_lit.errors import PhotozError
from photoz_lit.files import beside, read_json, write_arrays, write_json
from photoz_lit.hub import check_push, push
from photoz_lit.inference import Trained, open_model
from photoz_lit.program import WRITERS, Program

log = logging.getLogger(__name__)

KEPT = {"train": 1024, "val": 512}  # galaxies whose embeddings are handed on
CARD = """# {name}

| | |
|---|---|
| survey | {survey}, bands {bands}, {pixels} pixels of {pixel_scale} arcsec |
| network | encoder={encoder}, correction={correction}, {bins} bins |
| trained on | data={data} |
| holds for | r {r[0]:.2f} to {r[1]:.2f}, E(B-V) {ebv[0]:.3f} to {ebv[1]:.3f} mag, z {z_min:g} to {z_max:g} |
| own test split | sigma_mad {sigma_mad:.4f}, outliers {outliers:.2%}, CRPS {crps:.4f}, mean dz {bias:+.4f} |

Galaxies beyond these ranges, or unlike all that it was trained on, are flagged: `r_range`, `far`. r is the
dereddened Petrosian magnitude. Without E(B-V) 0 is taken and the flag is `ebv`.
"""
PROGRAMS = "\n**Programs**, p(z) from inputs, E(B-V) and r, without flags: "


def run(config: Config) -> None:
    """Write a folder for each of the models that the settings name."""
    if config.export.push:
        check_push(config.export.push)
    places = []
    for i, folder in enumerate(settings.finished_runs(config.model or "")):
        places.append(Path(config.output_dir) / config.run / "export" / folder.name)
        export(open_model(folder), places[-1], config.export.programs, with_galaxies=i == 0)
    if config.export.push:
        log.info("pushed to %s", push(places, config.export.push))


def export(model: Trained, place: Path, programs: Sequence[str], *, with_galaxies: bool = True) -> None:
    """Write a model to a folder, with or without galaxies to measure distances to."""
    place.mkdir(parents=True, exist_ok=True)
    plain = settings.portable(model.config)
    save_exported(place, model.weights, settings.to_container(plain))
    with beside(place / "config.yaml") as partial:
        partial.write_text(settings.as_yaml(plain))
    reference = handed_on(model.reference, with_galaxies)
    if reference:
        write_arrays(place / "reference.npz", reference)
    write_arrays(place / PRIORS, model.priors.arrays())
    if model.config.correction.finish:
        with beside(place / FINISHING) as partial:
            shutil.copyfile(model.folder / FINISHING, partial)
    told = write_programs(model, place, programs)
    with beside(place / "card.md") as partial:
        partial.write_text(card(model, place.name) + told)
    write_json(place / "done.json", {"label": model.folder.name, "stage": "export"})
    size = sum(path.stat().st_size for path in place.iterdir()) / 1e6
    log.info("%s: %.1f MB -> %s", model.folder.name, size, place)


def write_programs(model: Trained, place: Path, kinds: Sequence[str]) -> str:
    """Write programs of these kinds as far as there are such, and return what the card says of them."""
    for name, _ in WRITERS.values():
        (place / name).unlink(missing_ok=True)  # of an earlier export
    if not kinds:
        return ""
    written: list[str] = []
    try:
        program = Program([model])
        recorded = program.recorded()
        for name, write in (WRITERS[kind] for kind in kinds):
            write(place / name, recorded)
            written.append(f"`{name}`")
    except PhotozError as error:
        log.warning("no program for %s: %s", kinds[len(written)], error)
    if not written:
        return ""
    left_out = f", not finished: {', '.join(program.left_out)} has no such form" if program.left_out else ""
    return f"{PROGRAMS}{' and '.join(written)}{left_out}.\n"


def handed_on(reference: dict[str, NDArray[Any]], with_galaxies: bool) -> dict[str, NDArray[Any]]:
    """Return the ranges, some of the galaxies to compare with, in half precision, and no names."""
    left_out = {"objects"} if with_galaxies else {"objects", *KEPT}
    kept = {name: values for name, values in reference.items() if name not in left_out}
    for name, most in KEPT.items():
        if name in kept:
            rows = spaced(np.arange(len(kept[name])), most)
            kept[name] = kept[name][rows].astype(np.float16)
    return kept


def card(model: Trained, name: str) -> str:
    """Return what a user has to know of the model."""
    own = model.folder / "card.md"
    if own.is_file():  # exported before
        return own.read_text().partition(PROGRAMS)[0]
    c, found = model.config, read_json(model.folder / "metrics.json")
    known = model.reference
    nothing = (np.nan, np.nan)
    return CARD.format(
        **{"name": name, "survey": c.survey.name, "bands": c.survey.bands, "pixels": c.survey.pixels},
        **{"pixel_scale": c.survey.pixel_scale, "z_min": c.survey.z_min, "z_max": c.survey.z_max},
        **{"encoder": c.encoder.name, "correction": c.correction.name, "data": c.data.source},
        **{"bins": c.survey.n_bins, "r": known.get("r_range", nothing)},
        **{"ebv": known.get("ebv", nothing), "sigma_mad": found["sigma_mad"], "crps": found["crps"]},
        **{"outliers": found["outlier_fraction"], "bias": found["bias"]},
    )
