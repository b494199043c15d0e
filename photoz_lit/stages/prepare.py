"""`stage=prepare`: from a source of galaxies to a store on disk; every other stage calls it when needed."""

import logging
import os
from pathlib import Path
from typing import Any

from photoz_lit.config import Config
from photoz_lit.data.magnitudes import with_magnitudes
from photoz_lit.data.sources import SOURCES
from photoz_lit.data.splits import assign_splits
from photoz_lit.data.store import Store, is_complete, open_store
from photoz_lit.data.truth import training_labels as labels_of
from photoz_lit.data.truth import truth
from photoz_lit.errors import DataError
from photoz_lit.files import digest_of, locked
from photoz_lit.grids import Floats, Texts
from photoz_lit.progress import progress_bar

log = logging.getLogger(__name__)


def run(config: Config) -> None:
    """Prepare the data set of these settings and say where it lies and what is in it."""
    store = open_store(prepare(config, again=True).folder)  # images, even where their magnitudes are read
    split, words = None, "for prediction"
    if config.data.labelled:
        try:
            split = splits(store, config)
            words = ", ".join(f"{(split == name).sum()} {name}" for name in ("train", "val", "test"))
        except DataError as error:  # the store stands; more galaxies or other fractions may come
            log.warning("%s", error)
            words = "too few to train on"
    if flagged := int((store.flags != "").sum()):
        words += f", {flagged} flagged"
    n, shape = len(store.catalogue), store.inputs.shape
    log.info("%s: %d galaxies (%s), %s of shape %s", store.folder, n, words, store.kind, shape)
    page = store.folder / "data_report.html"
    with locked(_lock(store.folder)):
        if not page.is_file():
            from photoz_lit.report.data_page import write_data_report

            s = config.survey
            for warning in write_data_report(
                store,
                split=split,
                bands=s.bands,
                slices=s.slices(),
                pixel_scale=s.pixel_scale,
                name=s.name,
                target=config.target,
            ):
                log.warning("%s", warning)
    log.info("what is in it: %s", page)


def prepare(config: Config, again: bool = False) -> Store:
    """Return the store of these settings, made if it is not there; `again` completes one that can have more.

    Of several processes one makes it, the others wait and find it done.
    """
    folder, source = store_folder(config), config.data.source
    if source == "store" or (is_complete(folder) and not again):
        return _readable(open_store(folder), config)
    with locked(_lock(folder)):
        if is_complete(folder):
            config.data.retry(folder)
        if not is_complete(folder):
            log.info("preparing %s", folder)
            with progress_bar("galaxies", config.trainer.progress) as advance:
                plan_of(config).write(folder, facts_of(config), advance)
    return _readable(open_store(folder), config)


def _readable(store: Store, config: Config) -> Store:
    """Return the store with magnitudes for inputs where the encoder reads these instead of its images."""
    reads_magnitudes = store.kind == "images" and config.encoder.reads[0] == "features"
    return with_magnitudes(store, config.survey.bands, config.encoder.also) if reads_magnitudes else store


def plan_of(config: Config) -> Any:
    """Return how the store of these settings is made."""
    workers = config.trainer.threads or os.cpu_count() or 1
    return SOURCES[config.data.source].plan(config.data, config.survey, config.target, workers)


def _lock(folder: Path) -> Path:
    """Return where processes that make one store wait for each other: unlike the store, it never moves."""
    return folder.parent / ".locks" / folder.name


def facts_of(config: Config) -> Any:
    """Return what the store of these settings depends on."""
    return SOURCES[config.data.source].facts(config.data, config.survey, config.target)


def store_folder(config: Config) -> Path:
    """Return where the store of these settings lies: its name tells what it is made from."""
    if config.data.source == "store":
        return Path(str(config.data.path))
    return Path(config.data_dir) / f"{config.data.source}-{digest_of(facts_of(config))}"


def splits(store: Store, config: Config) -> Texts:
    """Split the store's galaxies by object as the settings say."""
    d, s = config.data, config.survey
    if d.thin:
        truth(store, config.target.column, (s.z_min, s.z_max))  # says what is missing
    return assign_splits(
        store.catalogue,
        test_fraction=d.test_fraction,
        val_fraction=d.val_fraction,
        seed=d.split_seed,
        n_train=d.n_train,
        thin=d.thin,
        nested=d.nested,
        target=config.target.column,
    )


def training_labels(store: Store, config: Config, split: Texts) -> Floats:
    """Return what training is told of each galaxy, (N,): the truth, with errors of `data.label_error`."""
    z_range = (config.survey.z_min, config.survey.z_max)
    true = truth(store, config.target.column, z_range)
    return labels_of(true, split, error=config.data.label_error, z_range=z_range, seed=config.seed)
