"""`stage=classifier`: the recipe of Lin et al. 2022, section 4, on a frozen representation.

Cached embeddings -> balanced subset -> Step 2 (one-hot fine-tuning) -> estimates -> label table
-> Step 3 (new outputs, soft and shifted labels) -> results. The switches of `correction` say which steps run.
"""

import copy
import hashlib
import json
import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from photoz_lit import config as settings
from photoz_lit import metrics
from photoz_lit.config import Config, TrainingConfig
from photoz_lit.correction.finishing import Finishing, Prior, Recalibration, fit_finishing
from photoz_lit.correction.labels import LabelTable, Shift, build_label_table, one_hot_table
from photoz_lit.correction.nearest import NearestLabels
from photoz_lit.correction.ordinal import ordinal_labels
from photoz_lit.correction.posthoc import smoothed_prior
from photoz_lit.correction.rescaling import choose_tau, learnt_scales, tau_normalised
from photoz_lit.correction.unshrink import fit_unshrink
from photoz_lit.correction.weights import dense_weights, lds_weights
from photoz_lit.data.datamodule import Galaxies, GalaxyData
from photoz_lit.embeddings import embeddings_of, write_reference
from photoz_lit.files import digest, link, locked, write_arrays
from photoz_lit.grids import RedshiftGrid, cell_counts, cell_index
from photoz_lit.models.encoders.precomputed import Precomputed
from photoz_lit.models.heads import AnyHead, Ensemble, Head, HiddenHead, Mean, PhotozNet
from photoz_lit.models.module import OneHotLoss, PhotozModule
from photoz_lit.stages.evaluate import check_origin, finish, n_of_z, predict, require_representation, start
from photoz_lit.stages.prepare import member_subset, prepare, splits, store_folder, training_labels
from photoz_lit.stages.representation import fit_missing, inputs_of, load, membership, new_outputs
from photoz_lit.training import device_of, load_weights, save_checkpoint, train

log = logging.getLogger(__name__)

LDS_SIGMA = 2.0  # bins: kernel of label-distribution smoothing, as its authors use
DENSE_ALPHA = 1.0  # DenseWeight: 1 gives the fullest redshift no weight but a floor


def run(config: Config) -> None:
    """Fit a corrected classifier on the representation and write the run folder."""
    if config.fit_missing or config.encoder.name == "precomputed":
        fit_missing(config)  # of vectors that is only a first head, in seconds
    require_representation(config)
    representation, data = config.folder("representation"), {"store": store_folder(config).name}
    check_origin(representation, data)
    checkpoint = digest(representation / "model.ckpt")
    folder = start(config, "classifier", data | {"representation": checkpoint})
    if folder is None:
        return
    began = time.monotonic()
    c, grid, slices = config.correction, config.survey.grid(), config.survey.slices()

    # The representation, frozen from here on.
    store = prepare(config)
    split = splits(store, config)
    net, inputs = load(config, store), inputs_of(config, store)
    spec_z = training_labels(store, config, split)
    r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
    train_rows, val_rows, test_rows = (np.flatnonzero(split == name) for name in ("train", "val", "test"))

    # The galaxies of each head: a balanced subset, at most `threshold` of each (z bin, r slice) cell, or all.
    subsets = [
        train_rows[member_subset(config, spec_z[train_rows], r[train_rows], m)] for m in range(c.members)
    ]
    if c.balance:
        keep_counts(config, spec_z, r, train_rows, subsets[0], folder)

    # Their embeddings under several views, and those of validation and test in view 0: made once, cached.
    n_views = min(c.views, inputs.n_views)
    with locked(representation):  # corrections that run at the same time share them
        if c.fine_tune or c.relabels or c.rescale == "learnt":
            embeddings_of(config, store, net, inputs, np.unique(np.concatenate(subsets)), n_views)
            if c.unshrink > 0:
                embeddings_of(config, store, net, inputs, train_rows, 1)
        if c.changes:
            embeddings_of(config, store, net, inputs, val_rows, 1)
        embeddings = embeddings_of(config, store, net, inputs, test_rows, 1)
        if not (representation / "reference.npz").is_file():
            write_reference(config, store, net, inputs, train_rows, val_rows)
    link(representation / "reference.npz", folder)  # the folder alone is enough to predict with, anywhere

    # Steps 2 and 3, a head for each subset; an ensemble averages their p(z).
    galaxies = Embedded(embeddings, n_views, spec_z, r, np.asarray(store.catalogue["ebv"], dtype=np.float32))
    fitted = [
        fit_corrected(config, net.head, galaxies, rows, val_rows, folder, m, checkpoint)
        for m, rows in enumerate(subsets)
    ]
    out_grid, prior = fitted[0].grid, np.mean([f.prior for f in fitted], axis=0)
    head = fitted[0].head if c.members == 1 else Ensemble([f.head for f in fitted], cast(Mean, c.mean))

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
            n_fitted=len(subsets[0]),
            prior=cast(Prior, c.prior),
            temperature=c.temperature,
            recalibration=cast(Recalibration, c.recalibrate),
            rng=np.random.default_rng([config.seed, 9]),
            embeddings=embeddings[0, val_rows],
        )
        if c.unshrink > 0:
            unseen = [np.setdiff1d(train_rows, rows) for rows in subsets]  # by each head
            finishing = with_unshrink(config, finishing, fitted, galaxies, unseen, spec_z[train_rows])
        write_arrays(folder / "finishing.npz", finishing.arrays())
        chunks = finished(chunks, finishing, galaxies, test_rows)
        if finishing.old_prior is not None and finishing.new_prior is not None:
            implicit = smoothed_prior(prior * len(subsets[0]), out_grid.n_outputs)
            prior = implicit * finishing.new_prior / finishing.old_prior  # which may be divided out in part
            prior /= prior.sum()

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


@dataclass(frozen=True)
class Embedded:
    """Galaxies of a store as the heads see them: embeddings (views, N, d) and columns (N,)."""

    embeddings: NDArray[np.float32]
    n_views: int
    spec_z: NDArray[np.float64]
    r: NDArray[np.float64]
    ebv: NDArray[np.float32]


@dataclass(frozen=True)
class Fitted:
    """A head, the bins of its p(z), and the mean label it was trained with, its implicit prior."""

    head: AnyHead
    grid: RedshiftGrid
    prior: NDArray[np.float64]


def fit_corrected(
    config: Config,
    head: AnyHead,
    data: Embedded,
    subset: NDArray[np.int64],
    val_rows: NDArray[np.int64],
    folder: Path,
    member: int,
    checkpoint: str,
) -> Fitted:
    """Fit Steps 2 and 3 to the rows of a subset, on the outputs of Step 1; the recipe's middle."""
    c, s, grid, slices = config.correction, config.survey, config.survey.grid(), config.survey.slices()
    cells = cell_index(data.spec_z, data.r, grid, slices)
    columns: dict[str, NDArray[Any]] = {"ebv": data.ebv, "cell": cells}
    galaxies = [
        Galaxies(
            data.embeddings[: data.n_views], {k: v[rows] for k, v in columns.items()}, rows, views_first=True
        )
        for rows in (subset, val_rows)
    ]
    out_grid, prior = grid, n_of_z(data.spec_z[subset], grid)
    of_member = f"-{member}" if c.members > 1 else ""

    # Step 2: the redshift outputs again, one-hot labels, against the distribution-induced residual.
    if c.fine_tune:
        table = one_hot_table(grid, membership(config).numpy())
        one_hot = one_hot_loss(config, cells[subset])
        if one_hot is not None:
            add_one_hot_columns(config, galaxies, data.spec_z)
            prior = step2_prior(config, galaxies[0])
        with locked(config.folder("representation")):
            step2 = step2_folder(config, checkpoint, member)
            head = fit_head(
                config, copy.deepcopy(head), table, config.training.step2, galaxies, step2, one_hot
            )

    if c.rescale != "none":
        head = rescaled(config, cast(Head, head), galaxies)

    # Step 3: new outputs on labels that are soft (mode collapse) and shifted (boundary-induced residual).
    if not c.relabels:
        return Fitted(head, out_grid, prior)
    estimates = [metrics.mode(p, grid) for p in predict(head, data.embeddings, subset, config.trainer)]
    table = build_label_table(
        data.spec_z[subset],
        np.concatenate(estimates),
        data.r[subset],
        grid,
        slices,
        extend=(s.extend_left, s.extend_right) if c.extend else (0, 0),
        soften=c.soften,
        width=c.label_width,
        shift=cast(Shift, c.shift),  # checked with the settings
        shift_strength=c.shift_strength,
        membership=np.ones((s.n_slices, 1), dtype=bool) if c.n_hidden else membership(config).numpy(),
    )
    out_grid, prior = table.grid, labels_n_of_z(table, cells[subset])
    new = new_outputs(config, head, out_grid.n_outputs, member)
    if isinstance(new, HiddenHead):
        embeddings = torch.from_numpy(data.embeddings[0, subset])
        new.start_from(embeddings, torch.from_numpy(smoothed_prior(prior * len(subset))).float())
    training = config.training.hidden if c.n_hidden else config.training.step3
    new = fit_head(config, new, table, training, galaxies, folder / f"step3{of_member}")
    if member == 0:
        keep_labels(table, folder)
    return Fitted(new, out_grid, prior)


def fit_head(
    config: Config,
    head: AnyHead,
    table: LabelTable,
    training: TrainingConfig,
    galaxies: list[Galaxies],
    folder: Path,
    one_hot: OneHotLoss | None = None,
) -> AnyHead:
    """Train the redshift outputs of a head on cached embeddings; the gate and all else stay as they are.

    Parameters
    ----------
    config : Config
        Settings.
    head : Head or HiddenHead
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
    AnyHead
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
        keep="best" if isinstance(head, HiddenHead) else "last",  # a hidden layer learns galaxies by heart
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
    labels = torch.from_numpy(ordinal_table(config)).float() if c.loss == "sord" else None
    counts = np.bincount(cells, minlength=config.survey.n_slices * grid.n_bins)
    by_output = membership(config).numpy().T.astype(float) @ counts.reshape(-1, grid.n_bins)
    log_prior = torch.from_numpy(np.log(smoothed_prior(by_output))).float()
    centres = torch.from_numpy(grid.centres).float()
    return OneHotLoss(c.loss, log_prior, c.trend_penalty, centres, labels)


def ordinal_table(config: Config) -> NDArray[np.float64]:
    """Return the ordinal label of each redshift bin, (K, K)."""
    grid = config.survey.grid()
    return ordinal_labels(grid.centres, grid, config.correction.label_width * grid.width)


def add_one_hot_columns(config: Config, galaxies: list[Galaxies], spec_z: NDArray[np.float64]) -> None:
    """Give the batches of Step 2 what its losses read: z_bin, spec_z and, in training, weights of mean 1.

    With loss=nearest also labels, from the embeddings of training galaxies in view 0.
    """
    grid = config.survey.grid()
    for part in galaxies:
        part.columns["z_bin"] = grid.index(spec_z[part.rows])
        part.columns["spec_z"] = spec_z[part.rows].astype(np.float32)
    train, val = galaxies
    train_z = spec_z[train.rows]
    if config.correction.loss == "nearest":
        labels = NearestLabels(train.inputs[0, train.rows], train_z, grid, device_of(config.trainer))
        train.columns["label"], val.columns["label"] = labels.of_train(), labels(val.inputs[0, val.rows])
    match config.correction.weights:
        case "lds":
            weight = lds_weights(train_z, grid, LDS_SIGMA, power=0.5)
        case "dense":
            weight = dense_weights(train_z, DENSE_ALPHA)
        case _:
            return
    train.columns["weight"] = weight.astype(np.float32)


def step2_prior(config: Config, galaxies: Galaxies) -> NDArray[np.float64]:
    """Implicit prior of the p(z) of Step 2, (K,): the mean label of its galaxies, weighted as they are."""
    n_bins, weight = config.survey.n_bins, galaxies.columns.get("weight")
    match config.correction.loss:
        case "balanced_softmax":  # the training n(z) is in the loss, not in p(z)
            return np.full(n_bins, 1 / n_bins)
        case "nearest":
            return np.average(galaxies.columns["label"], axis=0, weights=weight).astype(np.float64)
    counts = np.bincount(galaxies.columns["z_bin"], weight, minlength=n_bins)
    n_of_label: NDArray[np.float64] = counts / counts.sum()
    return n_of_label @ ordinal_table(config) if config.correction.loss == "sord" else n_of_label


def rescaled(config: Config, head: Head, galaxies: list[Galaxies]) -> Head:
    """Return a head with another length of each redshift bin's weights (Kang et al. 2020).

    The power of tau-normalisation is that of the best likelihood on the validation split, weighted to a flat
    n(z); it leaves no bias, as the authors do. Learnt scales are fitted to the training galaxies.
    """
    c, grid = config.correction, config.survey.grid()
    part = galaxies[1 if c.rescale == "tau" else 0]
    r_slice, z_bin = np.divmod(part.columns["cell"], grid.n_bins)
    embeddings = part.inputs[0, part.rows]
    head = copy.deepcopy(head).cpu()
    blocks = (head.n_redshift_outputs, head.n_bins)
    weight = head.redshift.weight.detach().numpy().reshape(*blocks, -1)
    if c.rescale == "tau":
        gate = None
        if head.gate is not None:
            gate = torch.softmax(head.gate(torch.from_numpy(embeddings)).detach(), dim=1).numpy()
        flat = lds_weights(grid.centres[z_bin], grid, LDS_SIGMA)
        tau = choose_tau(embeddings, weight, gate, z_bin, flat)
        scaled = tau_normalised(weight, tau)
        log.info("tau-normalisation: tau = %.2f", tau)
    else:
        bias = head.redshift.bias.detach().numpy().reshape(blocks)
        member = membership(config).numpy()[r_slice]
        scaled = weight * learnt_scales(embeddings, weight, bias, z_bin, member)[:, :, None]
    with torch.no_grad():
        head.redshift.weight.copy_(torch.from_numpy(scaled).flatten(0, 1))
        if c.rescale == "tau":
            head.redshift.bias.zero_()
    return head


def with_unshrink(
    config: Config,
    finishing: Finishing,
    fitted: list[Fitted],
    data: Embedded,
    unseen: list[NDArray[np.int64]],
    spec_z_train: NDArray[np.float64],
) -> Finishing:
    """Add the last step to finished p(z): estimates moved back, fitted on galaxies each head left out."""
    pdfs = [
        chunk
        for f, rows in zip(fitted, unseen, strict=True)
        for chunk in finished(predict(f.head, data.embeddings, rows, config.trainer), finishing, data, rows)
    ]
    rows, grid = np.concatenate(unseen), fitted[0].grid
    unshrink = fit_unshrink(
        np.concatenate(pdfs),
        data.spec_z[rows],
        data.r[rows],
        grid,
        config.survey.slices(),
        spec_z_train=spec_z_train,
        rise=config.correction.unshrink,
        relative=config.target.relative,
    )
    log.info("estimates are moved back from the mean with strength %.2f", unshrink.strength)
    return replace(finishing, unshrink=unshrink, grid=grid)


def finished(
    chunks: Iterable[NDArray[np.float32]], finishing: Finishing, data: Embedded, rows: NDArray[np.int64]
) -> Iterator[NDArray[np.float32]]:
    """Pass p(z) of the galaxies in these rows on, finished."""
    done = 0
    for chunk in chunks:
        part = rows[done : done + len(chunk)]
        yield finishing(chunk, data.r[part], data.embeddings[0, part])
        done += len(chunk)


def labels_n_of_z(table: LabelTable, cells: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean label of galaxies in the outputs they belong to, (n_outputs,): the implicit prior of Step 3."""
    occupied, counts = np.unique(cells, return_counts=True)
    s, k = np.divmod(occupied, table.grid.n_bins)
    weight = table.membership[s] / table.membership[s].sum(axis=1, keepdims=True) * counts[:, None]
    total = np.einsum("cr,crj->j", weight, table.rows(s, k).astype(np.float64))
    return np.asarray(total / counts.sum())


def step2_folder(config: Config, checkpoint: str, member: int = 0) -> Path:
    """Return the folder of Step 2 on a checkpoint, which all corrections with the same subset share."""
    c = config.correction
    subset: list[int | str] = []
    if c.balance:
        subset = [c.threshold, c.fold + member]
    elif c.leaves_out:
        subset = ["part", member]
    facts: list[Any] = [checkpoint, subset, c.views, vars(config.training.step2)]
    own = [c.loss, c.weights, c.trend_penalty]
    if own != ["cross_entropy", "none", 0]:
        facts += own + ([c.label_width] if c.loss == "sord" else [])
    key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return config.folder("representation") / f"step2-{key}"


def keep_counts(
    config: Config,
    spec_z: NDArray[np.float64],
    r: NDArray[np.float64],
    train_rows: NDArray[np.int64],
    subset: NDArray[np.int64],
    folder: Path,
) -> None:
    """Write how many galaxies each cell holds before and after balancing; warn where nothing is balanced."""
    grid, slices = config.survey.grid(), config.survey.slices()
    before, after = (cell_counts(spec_z[rows], r[rows], grid, slices) for rows in (train_rows, subset))
    log.info("balanced subset: %d of %d galaxies", len(subset), len(train_rows))
    if len(subset) == len(train_rows):
        log.warning(
            "nothing is balanced: the fullest cell holds %d galaxies. Lower correction.threshold=%d",
            before.max(),
            config.correction.threshold,
        )
    write_arrays(folder / "counts.npz", {"before": before, "after": after})


def keep_labels(table: LabelTable, folder: Path) -> None:
    """Write what the labels were made from and, of the fullest slice of r, three of them, for figures."""
    fit = table.fit
    assert fit is not None
    s = int(fit.counts.sum(axis=1).argmax())
    bins = np.flatnonzero(fit.counts[s] > 0)
    cells = np.array([(s, k) for k in bins[[0, len(bins) // 2, -1]]])
    output = int(np.flatnonzero(table.membership[s])[0])
    write_arrays(
        folder / "labels.npz",
        {
            "sigma_dispersion": fit.sigma_1,
            "sigma_scatter": fit.sigma_2,
            "spec_z_hist": fit.spec_z_hist,
            "photo_z_hist": fit.photo_z_hist,
            "counts": fit.counts,
            "mean": table.mean,
            "membership": table.membership,
            "edges": table.grid.edges,
            "example_cells": cells,
            "examples": table.rows(*cells.T)[:, output],
        },
    )
