"""`stage=classifier`: the recipe of Lin et al. 2022, section 4, on a frozen representation.

Cached embeddings -> balanced subset -> Step 2 (outputs fitted again) -> Step 3 (new outputs, soft and shifted
labels) -> links on finished p(z) -> results. The branches of `correction` say which of them run.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from photoz_lit import products
from photoz_lit.checkpoints import save_checkpoint
from photoz_lit.config import Config, to_container
from photoz_lit.correction.finishing.chain import FILE, Chain, fit_chain
from photoz_lit.correction.finishing.link import Arrays, Facts, Galaxies
from photoz_lit.correction.prior import Priors
from photoz_lit.data.splits import object_names
from photoz_lit.embeddings import embeddings_of, write_reference
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.files import link, locked, write_arrays
from photoz_lit.fitting import Embedded, Fitted, Task, fit_step2, fit_step3, member_subset, predict, rescaled
from photoz_lit.grids import Floats, Ints, cell_counts
from photoz_lit.inference import open_model
from photoz_lit.models.heads import FARTHEST, AnyHead, Ensemble, Head, Mean, PhotozNet
from photoz_lit.network import inputs_of, load
from photoz_lit.plain_training import Fitting
from photoz_lit.runs import Run, check_origin, finish, finish_again, opened, origin_of, require_representation
from photoz_lit.stages.prepare import prepare, splits, store_folder, training_labels
from photoz_lit.tracking import tracked

log = logging.getLogger(__name__)

HEADS = ("mean", "scale", "hidden.weight", "hidden.bias", "redshift.weight", "redshift.bias")


def run(config: Config) -> Fitting[None]:
    """Fit a corrected classifier on the representation and write the run folder.

    These are steps that ask for heads to be trained: `__main__.work` does them.
    """
    products.check(config.format)
    if "borrowed" in dict(config.correction.links):
        heads_of(config)  # or stop before anything is trained
    if config.fit_missing or config.encoder.name == "precomputed" or config.representation:
        from photoz_lit.stages.representation import fit_missing  # Lightning takes seconds to import

        fit_missing(config)  # of vectors, or with another run's encoder, only a first head, in seconds
    require_representation(config)
    store = store_folder(config).name
    check_origin(config.folder("representation"), origin_of(config, "representation", store))
    origin = origin_of(config, "classifier", store)
    with opened(config, "classifier", origin) as folder:
        if folder is not None:
            with tracked(config, folder.folder):
                yield from correct(config, folder, origin["representation"])
    products.make(config.format, config.folder("classifier"))


def correct(config: Config, run: Run, checkpoint: str) -> Fitting[None]:
    """Follow the method from the representation to results."""
    c, folder, label = config.correction, run.folder, config.names["label"]

    # The representation, frozen from here on.
    store = prepare(config)
    split = splits(store, config)
    spec_z = training_labels(store, config, split)
    r = np.asarray(store.catalogue["dered_petro_r"], dtype=np.float64)
    train_rows, val_rows, test_rows = (np.flatnonzero(split == name) for name in ("train", "val", "test"))
    if run.fitted:
        grid, slices = config.output_grid(), config.survey.slices()
        responses = Chain.read(folder, slices, grid).responses if c.finish else []
        finish_again(config, run, label, store.catalogue[test_rows], spec_z[train_rows], responses)
        return
    net, inputs = load(config, store.kind, store.inputs.shape), inputs_of(config, store.kind)
    borrowed = heads_of(config) if "borrowed" in dict(c.links) else {}

    # The galaxies of each head: a balanced subset, at most `threshold` of each (z bin, r slice) cell, or all.
    names = object_names(store.catalogue[train_rows])
    subsets = [
        train_rows[member_subset(config, names, spec_z[train_rows], r[train_rows], m)]
        for m in range(c.members)
    ]
    if c.subset:
        write_counts(config, spec_z, r, train_rows, subsets[0], folder)

    # Their embeddings under several views, and those of validation and test in view 0: made once, cached.
    n_views, representation = min(c.views, inputs.n_views), config.folder("representation")
    with locked(representation):  # corrections that run at the same time share them
        if c.refits or c.rescale == "learnt":
            embeddings_of(config, store, net, inputs, np.unique(np.concatenate(subsets)), n_views)
        if c.needs_held_out:
            embeddings_of(config, store, net, inputs, train_rows, 1)
        if c.changes:
            embeddings_of(config, store, net, inputs, val_rows, 1)
        embeddings = embeddings_of(config, store, net, inputs, test_rows, 1)
        if not (representation / "reference.npz").is_file():
            write_reference(config, store, net, inputs, train_rows, val_rows)
    link(representation / "reference.npz", folder)  # the folder alone is enough to predict with, anywhere
    galaxies = Embedded(embeddings, spec_z, r)

    # Steps 2 and 3, a head for each subset; an ensemble averages their p(z).
    fitted = yield from fit_members(
        [
            Task(config, folder, checkpoint, galaxies, n_views, rows, val_rows, m)
            for m, rows in enumerate(subsets)
        ],
        net.head,
    )
    head = fitted[0].head if c.members == 1 else Ensemble([f.head for f in fitted], cast(Mean, c.mean))
    if fitted[0].labels is not None:
        write_arrays(folder / "labels.npz", fitted[0].labels.arrays())

    # Finished p(z): another prior, a temperature, PIT recalibration, moved estimates.
    unseen = [np.setdiff1d(train_rows, rows) for rows in subsets]  # by each head
    grid, prior = fitted[0].grid, np.mean([f.prior for f in fitted], axis=0)
    slices, of_train = config.survey.slices(), (spec_z[train_rows], r[train_rows])
    priors = Priors.of_labels(prior, *of_train, grid, slices)
    chain = fit_chain(
        c.links,
        lambda: sample_of(config, galaxies, [head], [val_rows]),
        lambda: sample_of(config, galaxies, [f.head for f in fitted], unseen),
        Facts(
            grid,
            slices,
            priors,
            borrowed,
            rng=np.random.default_rng([config.seed, 9]),
        ),
    )
    if c.links:
        write_arrays(folder / FILE, chain.arrays())

    whole = PhotozNet(net.encoder, head, "redshift_outputs")
    content = {"state_dict": whole.state_dict(), "settings": to_container(config)}
    save_checkpoint(folder / "model.ckpt", content)
    pdf_chunks, priors = finished_pdf(config, galaxies, head, test_rows, chain), chain.priors(priors)
    tested = store.catalogue[test_rows]
    finish(config, run, label, tested, pdf_chunks, grid, priors, spec_z[train_rows], chain.responses)


def fit_members(tasks: Sequence[Task], head: AnyHead) -> Fitting[list[Fitted]]:
    """Fit the heads of an ensemble, or one, to the rows of each subset, on the outputs of Step 1."""
    c, samples = tasks[0].config.correction, [task.samples for task in tasks]
    fitted = [Fitted(head, train.grid, train.prior()) for train, _ in samples]
    if c.step2:
        fitted = yield from fit_step2(tasks, head)
    if c.rescale != "none":
        kind = cast(Literal["tau", "learnt"], c.rescale)
        scaled = [rescaled(kind, cast(Head, f.head), *own) for f, own in zip(fitted, samples, strict=True)]
        fitted = [replace(f, head=own) for f, own in zip(fitted, scaled, strict=True)]
    if c.step3:
        fitted = yield from fit_step3(tasks, [f.head for f in fitted])
    return fitted


def heads_of(config: Config) -> Arrays:
    """Return the heads of the model that `representation` names, as `finishing.borrowed` reads them."""
    try:
        theirs = open_model(Path(config.representation or ""))
        members = [f"head.members.{m}." for m in range(theirs.config.correction.members)]
        heads = {n: np.stack([theirs.weights[m + n].numpy() for m in members]) for n in HEADS}
        return {**heads, "farthest": np.array(FARTHEST), "edges": theirs.grid.edges}
    except (DataError, KeyError) as error:
        raise ConfigError(
            f"correction={config.correction.name} mixes in p(z) of the model whose representation is taken, "
            f"but representation={config.representation} has none: type representation=sdss_main or "
            "sdss_main_magnitudes, or a folder of stage=export of correction=best"
        ) from error


def sample_of(config: Config, data: Embedded, heads: Sequence[AnyHead], rows_of: Sequence[Ints]) -> Galaxies:
    """Return galaxies for links to be fitted on: the rows of each head with its p(z)."""
    pairs = zip(heads, rows_of, strict=True)
    pdfs = [p for head, rows in pairs for p in predict(head, data.embeddings, rows, config.trainer)]
    rows = np.concatenate(rows_of)
    return Galaxies(np.concatenate(pdfs), data.spec_z[rows], data.r[rows], data.of(rows))


def finished_pdf(
    config: Config, data: Embedded, head: AnyHead, rows: Ints, chain: Chain
) -> Iterator[NDArray[np.float32]]:
    """Yield finished p(z) of the galaxies in these rows, (m, n_outputs) a batch."""
    done = 0
    for pdf in predict(head, data.embeddings, rows, config.trainer):
        part = rows[done : done + len(pdf)]
        yield chain(pdf, data.r[part], data.of(part))
        done += len(pdf)


def write_counts(config: Config, spec_z: Floats, r: Floats, train: Ints, subset: Ints, folder: Path) -> None:
    """Write how many galaxies each cell holds before and after balancing; warn where nothing is balanced."""
    grid, slices = config.survey.grid(), config.survey.slices()
    before, after = (cell_counts(spec_z[rows], r[rows], grid, slices) for rows in (train, subset))
    log.info("balanced subset: %d of %d galaxies", len(subset), len(train))
    if len(subset) == len(train):
        said = "nothing is balanced: the fullest cell holds %d galaxies. Lower correction.subset.threshold"
        log.warning(said, before.max())
    write_arrays(folder / "counts.npz", {"before": before, "after": after})
