"""`stage=classifier`: the recipe of Lin et al. 2022, section 4, on a frozen representation.

Cached embeddings -> balanced subset -> Step 2 (one-hot fine-tuning) -> estimates -> label table
-> Step 3 (new outputs, soft and shifted labels) -> results. The switches of `correction` say which steps run.
"""

import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from photoz_lit import config as settings
from photoz_lit import metrics
from photoz_lit.config import Config, TrainingConfig
from photoz_lit.correction.finishing import Finishing, Prior, Recalibration, fit_finishing
from photoz_lit.correction.labels import LabelTable, Shift, build_label_table, one_hot_table
from photoz_lit.correction.posthoc import smoothed_prior
from photoz_lit.correction.weights import dense_weights, lds_weights
from photoz_lit.data.datamodule import Galaxies, GalaxyData
from photoz_lit.data.sampling import balanced_subset, cell_counts
from photoz_lit.embeddings import locked
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.models.encoders import Precomputed
from photoz_lit.models.heads import Head, PhotozNet
from photoz_lit.models.module import OneHotLoss, PhotozModule
from photoz_lit.report import figures
from photoz_lit.results import link, write_arrays
from photoz_lit.stages.embed import digest, embeddings_of, write_reference
from photoz_lit.stages.evaluate import check_origin, finish, n_of_z, predict, require_representation, start
from photoz_lit.stages.prepare import prepare, splits, store_folder
from photoz_lit.stages.representation import inputs_of, load, membership
from photoz_lit.stages.representation import run as fit_representation
from photoz_lit.training import load_weights, save_checkpoint, train

log = logging.getLogger(__name__)

LDS_SIGMA = 2.0  # bins: kernel of label-distribution smoothing, as its authors use
DENSE_ALPHA = 1.0  # DenseWeight: 1 gives the fullest redshift no weight but a floor


def run(config: Config) -> None:
    """Fit a corrected classifier on the representation and write the run folder."""
    if config.encoder.name == "precomputed":
        fit_representation(config)  # the vectors are there: only a first head is to be fitted, in seconds
    require_representation(config)
    representation, data = config.folder("representation"), {"store": store_folder(config).name}
    check_origin(representation, data)
    checkpoint = digest(representation / "model.ckpt")
    folder = start(config, "classifier", data | {"representation": checkpoint})
    if folder is None:
        return
    began = time.monotonic()
    c, s, grid, slices = config.correction, config.survey, config.survey.grid(), config.survey.slices()

    # The representation, frozen from here on.
    store = prepare(config)
    split = splits(store, config)
    net, inputs = load(config, store), inputs_of(config, store)
    spec_z = np.asarray(store.catalogue["spec_z"], dtype=np.float64)
    r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
    train_rows, val_rows, test_rows = (np.flatnonzero(split == name) for name in ("train", "val", "test"))

    # The balanced subset: at most `threshold` galaxies of each (z bin, r slice) cell.
    subset = train_rows
    if c.balance:
        chosen = balanced_subset(
            spec_z[train_rows], r[train_rows], grid, slices, c.threshold, c.fold, config.seed
        )
        subset = train_rows[chosen]
        log.info("balanced subset: %d of %d galaxies", len(subset), len(train_rows))
        before = cell_counts(spec_z[train_rows], r[train_rows], grid, slices)
        if len(subset) == len(train_rows):
            log.warning(
                "nothing is balanced: the fullest cell holds %d galaxies. Lower correction.threshold=%d",
                before.max(),
                c.threshold,
            )
        after = cell_counts(spec_z[subset], r[subset], grid, slices)
        figures.figure_counts(before, after, grid, slices).savefig(folder / "counts.png", dpi=150)

    # Their embeddings under several views, and those of validation and test in view 0: made once, cached.
    n_views = min(c.views, inputs.n_views)
    with locked(representation):  # corrections that run at the same time share them
        if c.fine_tune or c.relabels:
            embeddings_of(config, store, net, inputs, subset, n_views)
        if c.fine_tune or c.relabels or c.finishes:
            embeddings_of(config, store, net, inputs, val_rows, 1)
        embeddings = embeddings_of(config, store, net, inputs, test_rows, 1)
        if not (representation / "reference.npz").is_file():
            write_reference(config, store, net, inputs, train_rows, val_rows)
    link(representation / "reference.npz", folder)  # the folder alone is enough to predict with, anywhere

    cells = slices.index(r) * s.n_bins + grid.index(spec_z)
    columns = {"ebv": np.asarray(store.catalogue["ebv"], dtype=np.float32), "cell": cells}
    galaxies = [
        Galaxies(embeddings[:n_views], {k: v[rows] for k, v in columns.items()}, rows, views_first=True)
        for rows in (subset, val_rows)
    ]
    head, out_grid, prior = net.head, grid, n_of_z(spec_z[subset], grid)

    # Step 2: the redshift outputs again, one-hot labels, against the distribution-induced residual.
    if c.fine_tune:
        table = one_hot_table(grid, membership(config).numpy())
        one_hot = one_hot_loss(config, cells[subset])
        if one_hot is not None:
            add_one_hot_columns(config, galaxies, spec_z)
        with locked(representation):
            step2 = step2_folder(config, checkpoint)
            head = fit_head(config, head, table, config.training.step2, galaxies, step2, one_hot)

    # Step 3: new outputs on labels that are soft (mode collapse) and shifted (boundary-induced residual).
    if c.relabels:
        estimates = [metrics.mode(p, grid) for p in predict(head, embeddings, subset, config.trainer)]
        table = build_label_table(
            spec_z[subset],
            np.concatenate(estimates),
            r[subset],
            grid,
            slices,
            extend=(s.extend_left, s.extend_right) if c.extend else (0, 0),
            soften=c.soften,
            shift=cast(Shift, c.shift),  # checked with the settings
            shift_strength=c.shift_strength,
            membership=membership(config).numpy(),
        )
        out_grid = table.grid
        generator = torch.Generator().manual_seed(config.seed + 1)
        head = head.with_new_bins(out_grid.n_outputs, generator)
        head = fit_head(config, head, table, config.training.step3, galaxies, folder / "step3")
        prior = labels_n_of_z(table, cells[subset])
        draw_labels(table, grid, slices, folder)

    # Finished p(z): another prior, a temperature, PIT recalibration, fitted on the validation split.
    chunks: Iterable[NDArray[np.float32]] = predict(head, embeddings, test_rows, config.trainer)
    if c.finishes:
        finishing = fit_finishing(
            np.concatenate(list(predict(head, embeddings, val_rows, config.trainer))),
            spec_z[val_rows],
            r[val_rows],
            out_grid,
            slices,
            implicit_prior=prior,
            training_prior=n_of_z(spec_z[train_rows], grid),
            n_fitted=len(subset),
            prior=cast(Prior, c.prior),
            temperature=c.temperature,
            recalibration=cast(Recalibration, c.recalibrate),
            rng=np.random.default_rng([config.seed, 9]),
        )
        write_arrays(folder / "finishing.npz", finishing.arrays())
        chunks = finished(chunks, finishing, r[test_rows])
        prior = prior if finishing.new_prior is None else finishing.new_prior

    whole = PhotozNet(net.encoder, head, "redshift_outputs")
    save_checkpoint(
        folder / "model.ckpt", {"state_dict": whole.state_dict(), "settings": settings.to_container(config)}
    )
    finish(
        config,
        folder,
        label=config.names["label"],
        galaxies=store.catalogue[test_rows],
        pdf_chunks=chunks,
        grid=out_grid,
        train_n_of_z=prior,
        spec_z_train=spec_z[train_rows],
        began=began,
    )


def fit_head(
    config: Config,
    head: Head,
    table: LabelTable,
    training: TrainingConfig,
    galaxies: list[Galaxies],
    folder: Path,
    one_hot: OneHotLoss | None = None,
) -> Head:
    """Train the redshift outputs of a head on cached embeddings; the gate and all else stay as they are.

    Parameters
    ----------
    config : Config
        Settings.
    head : Head
        Where training starts.
    table : LabelTable
        Labels by (r slice, z bin).
    training : TrainingConfig
        Length, optimiser and schedule.
    galaxies : [Galaxies, Galaxies]
        Embeddings to train on and to validate with, with their `cell` = slice * K + bin.
    folder : Path
        Where checkpoints go; a training that is finished there is taken from there.

    Returns
    -------
    Head
        The trained head.
    """
    n_bins = config.survey.n_bins
    cells, index = np.unique(np.concatenate([g.columns["cell"] for g in galaxies]), return_inverse=True)
    train_set, val_set = (
        Galaxies(g.inputs, {**g.columns, "cell": part, "r_slice": g.columns["cell"] // n_bins}, g.rows, True)
        for g, part in zip(galaxies, np.split(index, [len(galaxies[0])]), strict=True)
    )
    data = GalaxyData(
        train_set,
        val_set,
        batch_size=training.batch_size,
        steps_per_epoch=training.check_every,
        seed=config.seed,
        n_views=galaxies[0].inputs.shape[0],
    )
    module = PhotozModule(
        PhotozNet(Precomputed(head.n_features), head, "redshift_outputs"),
        membership(config),
        training,
        config.seed,
        targets=None if one_hot else torch.from_numpy(table.rows(cells // n_bins, cells % n_bins)),
        settings=settings.to_container(config),
        one_hot=one_hot or OneHotLoss(),
    )
    log.info("fitting %s on %d galaxies", folder.name.partition("-")[0], len(train_set))
    checkpoint = train(
        module,
        data,
        folder,
        training=training,
        trainer=replace(config.trainer, devices=1, strategy="auto"),  # seconds of work: not worth several
        logger=config.logger,
        name=f"{config.run} {config.names['classifier']} {folder.name}",
        keep="last",
    )
    prefix = "net.head."
    weights = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    load_weights(head, weights, folder / "result.ckpt")
    return head


def one_hot_loss(config: Config, cells: NDArray[np.int64]) -> OneHotLoss | None:
    """Return how Step 2 judges its labels where that is not plain cross-entropy."""
    c, grid = config.correction, config.survey.grid()
    if c.loss == "cross_entropy" and c.weights == "none" and c.trend_penalty == 0:
        return None
    counts = np.bincount(cells, minlength=config.survey.n_slices * grid.n_bins)
    by_output = membership(config).numpy().T.astype(float) @ counts.reshape(-1, grid.n_bins)
    log_prior = torch.from_numpy(np.log(smoothed_prior(by_output))).float()
    centres = torch.from_numpy(grid.centres).float()
    return OneHotLoss(c.loss, log_prior, c.trend_penalty, centres)


def add_one_hot_columns(config: Config, galaxies: list[Galaxies], spec_z: NDArray[np.float64]) -> None:
    """Give the batches of Step 2 what its losses read: z_bin, spec_z and, in training, weights of mean 1."""
    grid = config.survey.grid()
    for part in galaxies:
        part.columns["z_bin"] = grid.index(spec_z[part.rows])
        part.columns["spec_z"] = spec_z[part.rows].astype(np.float32)
    train_z = spec_z[galaxies[0].rows]
    match config.correction.weights:
        case "lds":
            weight = lds_weights(train_z, grid, LDS_SIGMA, power=0.5)
        case "dense":
            weight = dense_weights(train_z, DENSE_ALPHA)
        case _:
            return
    galaxies[0].columns["weight"] = weight.astype(np.float32)


def finished(
    chunks: Iterable[NDArray[np.float32]], finishing: Finishing, r: NDArray[np.float64]
) -> Iterator[NDArray[np.float32]]:
    """Pass p(z) on, finished, with r (n,), mag, of the galaxies in the same order."""
    row = 0
    for chunk in chunks:
        yield finishing(chunk, r[row : row + len(chunk)])
        row += len(chunk)


def labels_n_of_z(table: LabelTable, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean label of galaxies in the outputs they belong to, (n_outputs,): the implicit prior of Step 3."""
    occupied, counts = np.unique(cells, return_counts=True)
    s, k = np.divmod(occupied, table.grid.n_bins)
    weight = table.membership[s] / table.membership[s].sum(axis=1, keepdims=True) * counts[:, None]
    total = np.einsum("cr,crj->j", weight, table.rows(s, k).astype(np.float64))
    return np.asarray(total / counts.sum())


def step2_folder(config: Config, checkpoint: str) -> Path:
    """Return the folder of Step 2 on a checkpoint, which all corrections with the same subset share."""
    c = config.correction
    subset = [c.threshold, c.fold] if c.balance else []
    facts = [checkpoint, subset, c.views, vars(config.training.step2)]
    own = [c.loss, c.weights, c.trend_penalty]
    if own != ["cross_entropy", "none", 0]:
        facts += own
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return config.folder("representation") / f"step2-{key}"


def draw_labels(table: LabelTable, grid: RedshiftGrid, slices: MagnitudeSlices, folder: Path) -> None:
    """Draw what the labels were made from and what they look like."""
    fit = table.fit
    assert fit is not None
    occupied = fit.counts > 0
    figures.figure_dispersions(fit.spec_z_hist.T, fit.photo_z_hist.T, fit.sigma_1, grid).savefig(
        folder / "dispersions.png", dpi=150
    )
    figures.figure_shift(table.mean, table.membership, grid, occupied, slices).savefig(
        folder / "shift.png", dpi=150
    )
    s = int(fit.counts.sum(axis=1).argmax())
    bins = np.flatnonzero(occupied[s])
    chosen = bins[[0, len(bins) // 2, -1]]
    output = int(np.flatnonzero(table.membership[s])[0])
    rows = table.rows(np.full(3, s), chosen)[:, output]
    r = slices.edges[s]
    labels = [
        (f"r {r:g}-{r + slices.width:g}, spec_z {grid.centres[k]:.3f}", row)
        for k, row in zip(chosen, rows, strict=True)
    ]
    figures.figure_labels(table.grid, labels, chosen).savefig(folder / "labels.png", dpi=150)
    np.savez(
        folder / "labels.npz",
        sigma_dispersion=fit.sigma_1,
        sigma_scatter=fit.sigma_2,
        spec_z_hist=fit.spec_z_hist,
        photo_z_hist=fit.photo_z_hist,
        counts=fit.counts,
        mean=table.mean,
    )
