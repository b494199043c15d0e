"""`stage=representation`: the encoder and its first head, from all training data (Baseline or Step 1)."""

import logging
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit import config as settings
from photoz_lit.config import Config
from photoz_lit.correction.prior import Priors
from photoz_lit.data.datamodule import Galaxies, GalaxyData, Stream
from photoz_lit.data.store import Store
from photoz_lit.data.transforms import Inputs
from photoz_lit.embeddings import embeddings_of, write_reference
from photoz_lit.files import write_table
from photoz_lit.fitting import predict
from photoz_lit.grids import Floats, Ints
from photoz_lit.models.heads import PhotozNet
from photoz_lit.models.module import PhotozModule
from photoz_lit.network import build, inputs_of, membership
from photoz_lit.runs import Run, finish, finish_again, opened
from photoz_lit.stages.prepare import prepare, splits, store_folder, training_labels
from photoz_lit.training import load_weights, save_checkpoint, train

log = logging.getLogger(__name__)

STANDARDISE_ON = 4096  # training galaxies are plenty for a mean and a scale


def run(config: Config) -> None:
    """Train the representation, evaluate it on the test split, and write the run folder."""
    with opened(config, "representation", {"store": store_folder(config).name}) as opened_run:
        if opened_run is not None:
            represent(config, opened_run)


def represent(config: Config, run: Run) -> None:
    """Train the representation unless it is, and write its results."""
    store, folder = prepare(config), run.folder
    split = splits(store, config)
    spec_z, label = training_labels(store, config, split), "Baseline" if config.head == "single" else "Step 1"
    train_rows, val_rows, test_rows = (np.flatnonzero(split == name) for name in ("train", "val", "test"))
    if run.fitted:
        finish_again(config, run, label, store.catalogue[test_rows], spec_z[train_rows])
        return
    write_table(folder / "split.fits", Table({"object_id": store.catalogue["object_id"], "split": split}))
    grid, inputs = config.survey.grid(), inputs_of(config, store.kind)
    net = build(config, store.kind, store.inputs.shape)
    fit(config, store, net, inputs, spec_z, (train_rows, val_rows))

    write_reference(config, store, net, inputs, train_rows, val_rows)
    embeddings = embeddings_of(config, store, net, inputs, test_rows, n_views=1)
    r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
    slices = config.survey.slices()
    priors = Priors.of_labels(None, spec_z[train_rows], r[train_rows], grid, slices)
    pdf_chunks = predict(net.head, embeddings, test_rows, config.trainer)
    finish(config, run, label, store.catalogue[test_rows], pdf_chunks, grid, priors, spec_z[train_rows])


def fit(
    config: Config, store: Store, net: PhotozNet, inputs: Inputs, spec_z: Floats, rows: tuple[Ints, Ints]
) -> None:
    """Train a network on the training and validation rows of a store and write `model.ckpt`."""
    standardise(net, store, rows[0], inputs)
    columns: dict[str, NDArray[Any]] = {
        "ebv": np.asarray(store.catalogue["ebv"], dtype=np.float32),
        "z_bin": config.survey.grid().index(spec_z),
        "r_slice": config.survey.slices().index(store.catalogue["dered_petro_r"]),
    }
    t, folder = config.training.representation, config.folder("representation")
    data = GalaxyData(
        *(Galaxies(store.inputs, {k: v[part] for k, v in columns.items()}, part) for part in rows),
        stream=Stream(len(rows[0]), t.batch_size, t.check_every, config.seed, inputs.n_views),
        num_workers=config.trainer.num_workers,
    )
    plain = settings.to_container(config)
    module = PhotozModule(net, torch.from_numpy(membership(config)), t, config.seed, inputs, settings=plain)
    if config.trainer.compile:
        net.encoder.compile()
    log.info("training %s, head=%s on %d galaxies", config.encoder.name, config.head, len(rows[0]))
    checkpoint = train(
        module,
        data,
        folder / "training",
        training=t,
        trainer=config.trainer,
        logger=config.logger,
        name=f"{config.run} {config.names['representation']}",
    )
    weights = {k.removeprefix("net."): v for k, v in checkpoint["state_dict"].items()}
    load_weights(net, weights, folder / "training" / "result.ckpt")
    save_checkpoint(folder / "model.ckpt", {"state_dict": net.state_dict(), "settings": plain})


def fit_missing(config: Config) -> None:
    """Train the representation that a classifier's settings ask for, unless it is there."""
    if not (config.folder("representation") / "done.json").is_file():
        run(settings.of_representation(config))


def standardise(net: PhotozNet, store: Store, rows: Ints, inputs: Inputs) -> None:
    """Set the input scales of an encoder that has them, from training galaxies."""
    rows = rows[:: max(1, len(rows) // STANDARDISE_ON)]  # tables may be sorted
    raw = torch.from_numpy(np.ascontiguousarray(store.inputs[rows]))
    columns = inputs(raw, torch.zeros(len(rows), dtype=torch.int64))
    ebv = torch.from_numpy(np.asarray(store.catalogue["ebv"][rows], dtype=np.float32))
    net.encoder.standardise(columns, ebv)
