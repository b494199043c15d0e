"""`stage=predict`: photo-z of galaxies without spec_z, from trained run folders and any source of galaxies.

Memory does not grow with the number of galaxies beyond their table, and an interrupted run goes on where it
stopped. Survey, target and network are the model's; names and units of a user's own files too, if not typed.
"""

import importlib
import logging
import shlex
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from photoz_lit import config as settings
from photoz_lit import products
from photoz_lit.config import Config
from photoz_lit.config.folders import weights_file
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import digest, digest_of, locked, write_json
from photoz_lit.grids import Texts
from photoz_lit.stages import shards

if TYPE_CHECKING:
    from photoz_lit.data.store import Store
    from photoz_lit.inference import Predictor, Trained

log = logging.getLogger(__name__)

FILES = ("path", "images", "ebv_maps")
WORDS = ("none", "flat", "coarse")  # in place of files
# Sources of a user's own files: what a model was told of their names and units goes for others.
USERS = ("catalogue", "arrays", "stamps", "embeddings")
MANY_FAR = 0.1
OTHER_UNITS = 5.0


def run(config: Config) -> None:
    """Estimate p(z) and photo-z of all galaxies of a source and write them into a run folder."""
    folders = settings.finished_runs(config.model or "")
    check_files(config)
    i, n = shards.shard_of(config.predict.shard)
    products.check(config.format)
    target = target_settings(config, settings.saved(folders[0] / "config.yaml"), folders[0])
    single = getattr(target.data, "position", None) is not None
    if not single and is_done(target, folders):
        return
    from photoz_lit.stages.prepare import prepare

    if single:
        with ThreadPoolExecutor(1) as beside:  # PyTorch takes seconds to import, and frames to decompress
            beside.submit(importlib.import_module, "torch")
            prepare(target)
    from photoz_lit import device
    from photoz_lit.inference import Predictor, open_model
    from photoz_lit.n_of_z import read_prior
    from photoz_lit.runs import check_origin, enter

    device.prepare(config.trainer)
    models = [open_model(folder) for folder in folders]
    p = target.predict
    if p.prior == "none" and all(model.config.data.source == "mock" for model in models):
        log.info(
            "the model has seen simulated galaxies alone: p(z) have the n(z) of the simulated survey, by "
            "slice of r, for prior. predict.prior=TABLE gives them another; with a few spec_z, train "
            "correction=few"
        )
    prior = read_prior(p.prior, models[0].grid)
    store = prepare(target)
    if len(store.catalogue) == 0:
        raise DataError(f"{store.folder}: there are no galaxies in it: look at data.path and data.images")
    shape, trainer = store.inputs.shape[1:], target.trainer
    predictor = Predictor(
        models,
        store.kind,
        shape,
        prior=prior,
        n_views=p.symmetries,
        trainer=trainer,
        n=len(store.catalogue),
    )
    if predictor.n_views < p.symmetries:
        name = models[0].config.encoder.name
        log.info("predict.symmetries=%d: encoder=%s does not see them, one view is used", p.symmetries, name)
    folder = results_folder(target, folders, store.folder, predictor.n_views)
    origin = origin_of(target, folders, store.folder)

    def do(place: Path, part: "Store", made_of: Sequence[Path] = ()) -> None:
        check_origin(place, origin)
        if enter(target, place, origin):
            with locked(place):
                if enter(target, place, origin):  # another process may have been at it
                    estimate_all(target, place, models, predictor, part, made_of)
                (place / "lock").unlink(missing_ok=True)

    if n > 1 and not (folder / "done.json").is_file():
        do(shards.folders(folder, n)[i], shards.part_of(store, i, n))
        missing = shards.missing(folder, n)
        if missing and not (folder / "done.json").is_file():
            log.info("other parts are not done yet: predict.shard=%s", ",".join(missing))
            return
    do(folder, store, shards.finished(folder))
    shards.forget(folder)
    products.make(config.format, folder)
    if single:
        from photoz_lit.stages.position import tell

        tell(target, folder, models, predictor, store)


def check_files(config: Config) -> None:
    """Raise DataError where a file that the settings name is not there."""
    named = {f"data.{key}": getattr(config.data, key, None) for key in FILES}
    named["predict.prior"] = config.predict.prior
    for key, value in named.items():
        if value in WORDS:
            continue
        path = Path(value or "").expanduser()
        if not path.exists() and not set(str(path)) & set("*?[{"):
            said = f"{key}={value}: no such file or folder."
            if key == "predict.prior":
                said += " It is none, flat, or a table with columns z and n_of_z."
            raise DataError(f"{said} Relative paths start at {Path.cwd()}")


def target_settings(config: Config, own: Config, folder: Path) -> Config:
    """Return the settings of the galaxies to predict for.

    ConfigError where the model is for another survey or target than is typed, or cannot read such a source.
    """
    from photoz_lit.data.sources import SOURCES
    from photoz_lit.models.encoders import reads

    gives, wanted = SOURCES[config.data.source].KINDS, reads(own.encoder.name)
    if not set(gives) & set(wanted):
        raise ConfigError(
            f"{folder} reads {' or '.join(wanted)} (encoder={own.encoder.name}) but "
            f"data={config.data.source} has {gives[0]}: choose another source or model"
        )
    typed = {word.lstrip("+~").partition("=")[0] for word in shlex.split(config.names["words"])}
    for group in ("survey", "target"):
        ours, given = (asdict(getattr(c, group)) for c in (own, config))
        changed = settings.differences(ours, given, f"{group}.")
        if changed := [line for line in changed if {group, line.partition(":")[0]} & typed]:
            raise ConfigError(
                f"{folder} was trained for another {group} than you typed ({'; '.join(changed)}): "
                f"leave {group} out, it is the model's"
            )
    return replace(
        config,
        survey=own.survey,
        target=own.target,
        # only training perturbs magnitudes
        encoder=replace(own.encoder, noise=0.0) if hasattr(own.encoder, "noise") else own.encoder,
        head=own.head,
        correction=own.correction,
        estimate=config.estimate if "estimate" in typed else own.estimate,
        data=replace(config.data, **inherited(config.data, own.data, typed, own.target.column)),
    )


def inherited(given: Any, own: Any, typed: set[str], truth: str) -> dict[str, Any]:
    """Return names and units of a user's own files: as typed, else the model's."""
    if not hasattr(given, "columns"):  # a store has them already
        return {}
    # An own name for itself says nothing, and would make the column one that has to be there.
    columns = {ours: theirs for ours, theirs in given.columns.items() if ours != theirs}
    if not {given.source, own.source} <= set(USERS):
        return {"columns": columns}
    found = {
        key: value
        for key in ("zero_point", "magnitudes", "magnitude_errors")
        if (value := getattr(own, key, None)) and hasattr(given, key) and f"data.{key}" not in typed
    }
    known = {
        ours: theirs
        for ours, theirs in own.columns.items()
        if ours not in ("spec_z", truth, "target", "split", theirs)
        and f"data.columns.{ours}" not in typed
        and given.path
    }
    if said := found | ({"columns": known} if known else {}):
        words = ", ".join(f"data.{key}={value}" for key, value in said.items())
        log.info("as the model was told of its own files, where nothing else is typed: %s", words)
    return found | {"columns": known | columns}


def results_folder(config: Config, models: Sequence[Path], place: Path, n_views: int = 1) -> Path:
    """Return where the estimates go: by models, prior, views and the place of the store."""
    name = models[0].name
    if len(models) > 1:
        name = f"ensemble-{digest_of([digest(weights_file(model)) for model in models])}"
    if config.predict.prior != "none":
        name += f",prior={Path(config.predict.prior).stem}"
    if n_views > 1:
        name += f",symmetries={n_views}"
    return Path(config.output_dir) / config.run / "predict" / name / place.resolve().name


def origin_of(config: Config, models: Sequence[Path], place: Path) -> dict[str, str]:
    """Return what decides the estimates: a finished folder is not taken for one of other facts."""
    p = config.predict
    table = Path(p.prior).expanduser()
    prior = {} if p.prior == "none" else {"predict.prior": digest(table) if table.is_file() else p.prior}
    return prior | {
        "store": f"{place.resolve().name} {digest(place / 'catalogue.fits')}",
        "model": " ".join(digest(weights_file(model)) for model in models),
        "estimate": config.estimate,
    }


def is_done(config: Config, models: Sequence[Path]) -> bool:
    """Whether the estimates are there, which is found out without PyTorch; then make the wanted format."""
    from photoz_lit.data.store import is_complete
    from photoz_lit.runs import check_origin
    from photoz_lit.stages.prepare import store_folder

    place = store_folder(config)
    if config.predict.symmetries > 1 or not is_complete(place):  # how many are seen is the network's
        return False
    folder = results_folder(config, models, place)
    if not (folder / "done.json").is_file():
        return False
    check_origin(folder, origin_of(config, models, place))
    log.info("%s is complete: skipped", folder)
    products.make(config.format, folder)
    return True


def estimate_all(
    config: Config,
    folder: Path,
    models: "Sequence[Trained]",
    predictor: "Predictor",
    store: "Store",
    made_of: Sequence[Path] = (),
) -> None:
    """Fill the files of a run folder, from the first galaxy that is not in them yet, and complete it.

    What they hold is estimated, or read from the finished run folders of its parts.
    """
    from photoz_lit.data.store import ESTIMATED
    from photoz_lit.inference import ebv_known, flags_of, flux_ratio, trained_on
    from photoz_lit.progress import counted
    from photoz_lit.results import Results

    began, looked_up = time.monotonic(), with_dust(config, store, models)
    flags, known = flags_of(store, models), ebv_known(store)
    usable = np.isin(flags, ESTIMATED)
    if getattr(config.data, "position", None) is None and not made_of:  # of single ones `tell` says it
        warn(store, flags, flux_ratio(store, usable, models[0]), trained_on(store, models))
    galaxies = store.catalogue.copy(copy_data=False)
    galaxies["ebv"] = np.where(known, galaxies["ebv"], np.nan)
    said = {
        "N_NO_EBV": (int((~known).sum()), "galaxies whose E(B-V) is not known"),
        "N_MAPEBV": (looked_up, "galaxies of E(B-V) of a coarse map"),
    }
    priors, responses = predictor.priors, predictor.responses
    results = Results(
        *(folder, galaxies, predictor.grid, priors, config.estimate, config.target, said), responses=responses
    )
    if results.rows:
        log.info("going on at galaxy %d of %d", results.rows, len(flags))
    with counted("galaxies", results.rows, len(flags), config.trainer.progress) as tick:
        if made_of:
            shards.gather(results, made_of, tick)
        else:
            with closing(predictor.chunks(store, results.rows, len(flags), usable, tick)) as chunks:
                for pdf, distance in chunks:
                    of_inputs = flags[results.rows : results.rows + len(pdf)]
                    results.append(pdf, np.where(distance > predictor.threshold, "far", of_inputs), distance)
    results.finish()
    complete(config, folder, models, results.counts, time.monotonic() - began)
    results.forget()


def with_dust(config: Config, store: "Store", models: "Sequence[Trained]") -> int:
    """Give images without E(B-V) that of the coarse map, where the model uses it and there are positions.

    The store on disk stays as it is. Return of how many.
    """
    from photoz_lit.data.dust import ebv_at
    from photoz_lit.inference import ebv_known, uses_ebv

    table, known = store.catalogue, ebv_known(store)
    off = getattr(config.data, "ebv_maps", None) == "none" or not uses_ebv(models) or store.kind != "images"
    if off or known.all() or not {"ra", "dec"} <= set(table.colnames):
        return 0
    ebv = np.asarray(table["ebv"], dtype=np.float64).copy()
    ebv[~known] = ebv_at(store.column("ra")[~known], store.column("dec")[~known])
    table["ebv"], table["ebv_known"] = np.nan_to_num(ebv), np.isfinite(ebv)
    n = int(np.isfinite(ebv[~known]).sum())
    log.info(
        "E(B-V) of %d galaxies is that of the SFD map in pixels of 0.9 degrees, at their ra and dec. "
        "data.ebv_maps=FOLDER names finer maps; data.ebv_maps=none leaves it out, of dereddened images",
        n,
    )
    return n


def warn(store: "Store", flags: Texts, ratio: float, n_known: int) -> None:
    """Say what looks wrong with the galaxies as a whole.

    `ratio` is their flux in that of training galaxies; `n_known` of them are such galaxies.
    """
    if not 1 / OTHER_UNITS <= ratio <= OTHER_UNITS and np.isfinite(ratio):
        log.warning(
            "these galaxies have %.3g times the flux of those that the model was trained on: are they in "
            "other units? data.zero_point says in which (22.5: nanomaggies)",
            ratio,
        )
    if n := (flags == "ebv").sum():
        log.warning(
            "E(B-V) is not known for %d of %d galaxies, but the model uses it: 0 is taken, and their flag is "
            "ebv. Name its column by data.columns.ebv, or those of ra and dec, where it is looked up",
            *(n, len(flags)),
        )
    if n_known:
        log.warning(
            "%d of %d galaxies are, by object_id or place, among those that the model was trained on: their "
            "errors say nothing of others",
            *(n_known, len(flags)),
        )
    if "dered_petro_r" not in store.catalogue.colnames:
        log.info("no column dered_petro_r: galaxies are not compared with the r of those in training")


def complete(
    config: Config, folder: Path, models: "Sequence[Trained]", counts: Mapping[str, int], seconds: float
) -> None:
    """Write `done.json`, only then the run is complete, and say what came out."""
    from photoz_lit.data.store import ESTIMATED

    total, flagged = sum(counts.values()), {flag: n for flag, n in sorted(counts.items()) if flag != "good"}
    estimated = sum(n for flag, n in counts.items() if flag in ESTIMATED)
    numbers = {"galaxies": total, "estimated": estimated, "flagged": flagged}
    what = {"label": ", ".join(model.folder.name for model in models), "stage": "predict", "run": config.run}
    write_json(folder / "done.json", {**what, "seconds": round(seconds, 1), **numbers})
    words = ", ".join(f"{flag} {n}" for flag, n in flagged.items())
    said = config.target.estimate + (f" (flagged: {words})" if words else "")
    log.info("%d of %d galaxies have a %s -> %s", estimated, total, said, folder)
    if (far := flagged.get("far", 0)) > MANY_FAR * estimated:
        log.warning(
            "%d of %d galaxies are far from those that the model was trained on (flag far): do not trust "
            "their estimates. Are units, bands, pixel scale and brightness those of its survey?",
            *(far, estimated),
        )
