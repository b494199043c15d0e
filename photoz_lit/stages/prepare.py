"""`stage=prepare`: from a source of galaxies to a store on disk; every other stage calls it when needed."""

import hashlib
import importlib
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from scipy.stats import truncnorm

from photoz_lit.config import PARTS, Config
from photoz_lit.data.columns import numbers
from photoz_lit.data.faults import outside_slices, range_faults
from photoz_lit.data.sampling import balanced_subset
from photoz_lit.data.sources import mock
from photoz_lit.data.splits import assign_splits
from photoz_lit.data.store import Store, is_complete, open_store, rows_written, write_store
from photoz_lit.errors import DataError
from photoz_lit.report.data_page import write_data_report
from photoz_lit.stages.plans import plan_of

log = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Prepare the data set of these settings and say where it lies and what is in it."""
    folder = store_folder(config)
    if config.data.source == "sdss" and is_complete(folder):
        _sdss().retry(folder)
    store = prepare(config)
    flagged = int((store.flags != "").sum())
    n, shape = len(store.catalogue), store.inputs.shape
    split = None
    words = "for prediction"
    if config.data.labelled:
        try:
            split = splits(store, config)
            words = ", ".join(f"{(split == name).sum()} {name}" for name in ("train", "val", "test"))
        except DataError as error:  # the store stands; more galaxies or other fractions may come
            log.warning("%s", error)
            words = "too few to train on"
    if flagged:
        words += f", {flagged} flagged"
    if "dered_petro_r" in store.catalogue.colnames:
        r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
        if outside := outside_slices(r, config.survey.slices()):
            log.warning("%s: %s", store.folder, outside)
    log.info("%s: %d galaxies (%s), %s of shape %s", store.folder, n, words, store.kind, shape)
    page = store.folder / "data_report.html"
    if not page.is_file():
        s = config.survey
        page = write_data_report(
            store,
            store.folder,
            split=split,
            bands=s.bands,
            pixel_scale=s.pixel_scale,
            slices=s.slices(),
            name=s.name,
            target=config.target,
        )
    log.info("what is in it: %s", page)


def prepare(config: Config) -> Store:
    """Return the store of these settings, made now if it is not there yet."""
    folder = store_folder(config)
    if is_complete(folder) or config.data.source == "store":
        return open_store(folder)
    log.info("preparing %s", folder)
    if config.data.source == "sdss":
        with progress_bar("galaxies", config.trainer.progress) as advance:
            store: Store = _sdss().prepare(config, folder, store_facts(config), advance)
            return store
    plan = plan_of(config)
    start = rows_written(folder, plan.shape, plan.dtype)
    if start:
        log.info("going on at galaxy %d of %d", start, plan.shape[0])
    with progress_bar("galaxies", config.trainer.progress) as advance:
        advance(start, plan.shape[0])
        return write_store(
            folder,
            plan.catalogue,
            _counted(plan.chunks(start), plan.shape[0], advance),
            shape=plan.shape,
            dtype=plan.dtype,
            kind=plan.kind,
            settings=store_facts(config),
            keep_faulty=plan.keep_faulty,
        )


def store_folder(config: Config) -> Path:
    """Return where the store of these settings lies: its name tells what it is made from."""
    if config.data.source == "store":
        assert config.data.path is not None
        return Path(config.data.path)
    return Path(config.data_dir) / f"{config.data.source}-{_digest(store_facts(config))}"


def splits(store: Store, config: Config) -> NDArray[np.str_]:
    """Split the store's galaxies by object as the settings say."""
    d = config.data
    if d.thin:
        truth(store, config)  # says what is missing
    return assign_splits(
        store.catalogue,
        test_fraction=d.test_fraction,
        val_fraction=d.val_fraction,
        seed=d.split_seed,
        n_train=d.n_train,
        train_fraction=d.train_fraction,
        thin=d.thin,
        target=config.target.column,
    )


def training_labels(store: Store, config: Config, split: NDArray[np.str_]) -> NDArray[np.float64]:
    """Return what training is told of each galaxy, (N,): the truth, with errors of `data.label_error`.

    Galaxies of the training and validation splits have one error each, from the seed: every stage is told the
    same. Errors are Gaussian, but no label leaves the survey's range: clipped ones would pile up at its ends.
    Test galaxies have none.
    """
    true, sigma, s = truth(store, config), config.data.label_error, config.survey
    if sigma == 0:
        return true
    u = np.random.default_rng([config.seed, 17]).random(len(true))
    told = truncnorm.ppf(u, (s.z_min - true) / sigma, (s.z_max - true) / sigma, true, sigma)
    return np.where(np.isin(split, ("train", "val")), told, true)


def truth(store: Store, config: Config) -> NDArray[np.float64]:
    """Return the true values of the target, (n,).

    Raises
    ------
    DataError
        The store does not have them, or not within the survey's range for all galaxies that can be used.
    """
    name, s, known = config.target.column, config.survey, store.catalogue.colnames
    if name not in known:
        raise DataError(
            f"{store.folder}: no column '{name}' (target.column). Its columns are: {', '.join(known)}. Bring "
            "data that have it, or, if they should, delete the folder and prepare it again"
        )
    values = numbers(store.catalogue, name, str(store.folder))
    faults = [(f"{name} is not finite", ~np.isfinite(values))]
    for what, mask in faults + range_faults(values, name, (s.z_min, s.z_max)):
        if bad := int((mask & (store.flags == "")).sum()):
            raise DataError(
                f"{store.folder}: {what} in {bad} of {len(values)} galaxies: change survey.z_min and "
                "survey.z_max, or leave these galaxies out of the data"
            )
    return values


def store_facts(config: Config) -> dict[str, Any]:
    """What a store depends on: its folder is named by a digest of this."""
    d, s = config.data, config.survey
    files = [d.path, d.test_path, d.images, d.test_images, d.mock_catalogue, d.frames, d.positions]
    facts: dict[str, Any] = {
        "source": d.source,
        "files": [_stamp(Path(f)) for f in files if f is not None],
        "z_range": [s.z_min, s.z_max],
        "drop_invalid": d.drop_invalid,
    }
    cutouts = {"columns": d.columns, "bands": s.bands, "pixels": s.pixels, "dtype": d.dtype}
    if not config.target.is_redshift and d.source != "mock":
        facts["target"] = config.target.column
    match d.source:
        case "mock":
            facts |= {"n": d.n_galaxies, "seed": d.mock_seed, "pixels": s.pixels, "dtype": d.dtype}
            facts |= {"version": mock.VERSION}
            if d.mock_catalogue is not None:
                facts |= {"columns": d.columns, "magnitudes": d.magnitudes, "errors": d.magnitude_errors}
                facts |= {"ebv_maps": d.ebv_maps}
            if not config.target.is_redshift:  # one store for all targets
                facts["z_range"] = list(mock.Z_RANGE)
        case "catalogue":
            facts |= {"columns": d.columns, "magnitudes": d.magnitudes, "errors": d.magnitude_errors}
        case "arrays":
            facts |= cutouts | {"key": d.images_key}
        case "stamps":
            facts |= cutouts | {"pattern": d.pattern}
        case "published":
            facts |= cutouts | {"layout": d.layout}
        case "embeddings":
            facts |= {"columns": d.columns, "key": d.images_key, "vectors": d.vectors}
        case "sdss":
            facts |= cutouts | {"pixel_scale": s.pixel_scale, "north_up": d.north_up}
            facts |= {"max_missing": d.max_missing, "limit": d.limit, "region": d.region, "runs": d.runs}
            facts |= {"r_max": d.r_max, "release": config.archive.data_release}
    if d.source != "mock":
        facts |= {} if d.zero_point is None else {"zero_point": d.zero_point}
        facts |= {} if d.labelled else {"labelled": False}
        facts |= {} if d.ebv_maps is None else {"ebv_maps": d.ebv_maps}
    return facts


def _stamp(path: Path) -> list[Any]:
    """Path, size and time of a file or folder: a changed one is prepared again."""
    path = path.expanduser().absolute()
    if not path.exists():
        return [str(path)]
    return [str(path), path.stat().st_size, path.stat().st_mtime_ns]


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _sdss() -> ModuleType:
    """Return the part that needs the packages of the extra `sdss`."""
    try:
        return importlib.import_module("photoz_lit.stages.prepare_sdss")
    except ImportError as error:
        raise DataError(f"data=sdss needs {error.name}: type pip install 'photoz_lit[sdss]'") from error


Advance = Callable[[int, int], None]


def _counted(
    chunks: Iterable[NDArray[np.floating[Any]]], total: int, advance: Advance
) -> Iterator[NDArray[np.floating[Any]]]:
    """Pass chunks on and count their galaxies."""
    for chunk in chunks:
        yield chunk
        advance(len(chunk), total)


@contextmanager
def progress_bar(what: str, wanted: bool) -> Iterator[Advance]:
    """Show a progress bar with the time left, where there is a terminal.

    Yields
    ------
    advance : callable
        Told how many more are done, and of how many.
    """
    show = wanted and sys.stdout.isatty() and shutil.get_terminal_size().columns > 20
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, disable=not show, transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda n, total: progress.update(task, advance=n, total=total)


def member_subset(
    config: Config, spec_z: NDArray[np.float64], r: NDArray[np.float64], member: int
) -> NDArray[np.int64]:
    """Return which training galaxies a head is fitted to, given their spec_z and r (n,): sorted indices."""
    c, grid, slices = config.correction, config.survey.grid(), config.survey.slices()
    if c.balance:
        return balanced_subset(spec_z, r, grid, slices, c.threshold, c.fold + member, config.seed)
    if c.leaves_out:
        part = np.random.default_rng([config.seed, 11]).permutation(len(spec_z)) % PARTS
        return np.flatnonzero(part != member)
    return np.arange(len(spec_z))
