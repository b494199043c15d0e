"""`stage=representation`: the encoder and its first head, from all training data (Baseline or Step 1).

With `representation=FOLDER` the encoder is that of another run, trained on other galaxies, and stays as it
is: a first head is fitted on its embeddings, in seconds.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray

from photoz_lit import config as settings
from photoz_lit import products
from photoz_lit.checkpoints import load_weights, open_weights, save_checkpoint
from photoz_lit.compiled import faster
from photoz_lit.config import Config
from photoz_lit.correction.prior import Priors
from photoz_lit.data.batches import Galaxies, Stream
from photoz_lit.data.store import Store
from photoz_lit.data.transforms import Inputs, VectorInputs
from photoz_lit.embeddings import embeddings_of, measured, write_reference
from photoz_lit.errors import DataError
from photoz_lit.files import write_table
from photoz_lit.fitting import predict
from photoz_lit.grids import Floats, Ints
from photoz_lit.models.heads import PhotozNet
from photoz_lit.models.module import PhotozModule
from photoz_lit.models.objective import hard_labels
from photoz_lit.network import build, inputs_of, membership
from photoz_lit.plain_training import Fit, train_heads, trained
from photoz_lit.runs import Run, finish, finish_again, opened, origin_of
from photoz_lit.stages.prepare import prepare, splits, store_folder, training_labels
from photoz_lit.tracking import tracked
from photoz_lit.training import GalaxyData, train

log = logging.getLogger(__name__)

STANDARDISE_ON = 4096  # training galaxies are plenty for a mean and a scale


def run(config: Config) -> None:
    """Train the representation, evaluate it on the test split, and write the run folder."""
    products.check(config.format)
    origin = origin_of(config, "representation", store_folder(config).name)
    with opened(config, "representation", origin) as opened_run:
        if opened_run is not None:
            with tracked(config, opened_run.folder):
                represent(config, opened_run)
    products.make(config.format, config.folder("representation"))


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
    fit_it = fit_first_head if config.representation else fit
    fit_it(config, store, net, inputs, spec_z, (train_rows, val_rows))

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
    t, folder = config.training.representation, config.folder("representation")
    array = store.inputs
    if inputs.once:
        array, inputs = measured(config, store, inputs, np.concatenate(rows)), VectorInputs()
    standardise(net, array, store.catalogue["ebv"], rows[0], inputs)
    data = GalaxyData(
        *galaxies_of(config, store, spec_z, rows, array),
        stream=Stream(len(rows[0]), t.batch_size, t.check_every, config.seed, inputs.n_views),
        num_workers=config.trainer.num_workers,
    )
    plain = settings.to_container(config)
    module = PhotozModule(net, torch.from_numpy(membership(config)), t, config.seed, inputs, settings=plain)
    one = inputs(torch.from_numpy(np.array(array[:1])), None)
    shape = (t.batch_size // config.trainer.devices, *one.shape[1:])
    net.compiled = faster(net.encoder, shape, config.trainer, calls=t.max_steps, training=True)
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


def fit_first_head(
    config: Config, store: Store, net: PhotozNet, inputs: Inputs, spec_z: Floats, rows: tuple[Ints, Ints]
) -> None:
    """Take the encoder of another run, fit the head alone on its embeddings, and write `model.ckpt`."""
    (path, theirs), folder = open_weights(Path(str(config.representation))), config.folder("representation")
    part = "encoder."
    weights = {k.removeprefix(part): v for k, v in theirs["state_dict"].items() if k.startswith(part)}
    own = net.encoder.state_dict()
    if wrong := [key for key, v in weights.items() if key in own and own[key].shape != v.shape]:
        raise DataError(
            f"{path} cannot read inputs of shape {store.inputs.shape[1:]}, as {store.folder} has them (its "
            f"{wrong[0]}: {tuple(weights[wrong[0]].shape)}, here {tuple(own[wrong[0]].shape)}): give as many "
            "magnitudes or bands as it was trained on, in their order"
        )
    load_weights(net.encoder, weights, path)
    embeddings_of(config, store, net, inputs, rows[0], inputs.n_views)
    embeddings = embeddings_of(config, store, net, inputs, rows[1], 1)
    galaxies = galaxies_of(config, store, spec_z, rows, embeddings)
    training = config.training.representation
    fit = [Fit(config, net.head, hard_labels, training, galaxies, folder / "training", "all")]
    train_heads(fit)
    (net.head,) = trained(fit)
    content = {"state_dict": net.state_dict(), "settings": settings.to_container(config)}
    save_checkpoint(folder / "model.ckpt", content)


def galaxies_of(
    config: Config,
    store: Store,
    spec_z: Floats,
    rows: tuple[Ints, Ints],
    inputs: NDArray[Any],
) -> list[Galaxies]:
    """Return what batches of training and validation are drawn from: inputs (N, ...) or (views, N, d)."""
    columns: dict[str, NDArray[Any]] = {
        "ebv": np.asarray(store.catalogue["ebv"], dtype=np.float32),
        "z_bin": config.survey.grid().index(spec_z),
        "r_slice": config.survey.slices().index(store.catalogue["dered_petro_r"]),
    }
    return [Galaxies(inputs, {k: v[part] for k, v in columns.items()}, part) for part in rows]


def fit_missing(config: Config) -> None:
    """Train the representation that a classifier's settings ask for, unless it is there."""
    if not (config.folder("representation") / "done.json").is_file():
        run(settings.of_representation(config))


def standardise(net: PhotozNet, array: NDArray[Any], ebv: NDArray[Any], rows: Ints, inputs: Inputs) -> None:
    """Set the input scales of an encoder that has them, from training galaxies."""
    rows = rows[:: max(1, len(rows) // STANDARDISE_ON)]  # tables may be sorted
    raw = torch.from_numpy(np.ascontiguousarray(array[rows]))
    columns = inputs(raw, torch.zeros(len(rows), dtype=torch.int64))
    net.encoder.standardise(columns, torch.from_numpy(np.asarray(ebv[rows], dtype=np.float32)))
