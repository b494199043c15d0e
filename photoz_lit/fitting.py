"""Heads fitted to cached embeddings: Step 2, the lengths of weights, Step 3. The encoder never runs here."""

import copy
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from photoz_lit import metrics
from photoz_lit.config import Config, TrainerConfig
from photoz_lit.correction.labels import LabelTable, Shift, build_label_table
from photoz_lit.correction.losses import loss_module
from photoz_lit.correction.losses.sample import Sample
from photoz_lit.correction.prior import smoothed_prior
from photoz_lit.correction.rescaling import choose_tau, learnt_scales, tau_normalised
from photoz_lit.correction.settings import PARTS
from photoz_lit.correction.weights import LDS_SIGMA, galaxy_weights, lds_weights
from photoz_lit.data.batches import Galaxies
from photoz_lit.data.sampling import balanced_subset
from photoz_lit.data.splits import draw
from photoz_lit.device import BATCH, device_of
from photoz_lit.files import digest_of
from photoz_lit.grids import RedshiftGrid
from photoz_lit.models.heads import AnyHead, Head, HiddenHead, mixture
from photoz_lit.models.objective import SoftLabels
from photoz_lit.network import membership, new_outputs
from photoz_lit.plain_training import Fit, Fitting

Floats = NDArray[np.float64]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Embedded:
    """Galaxies of a store as heads see them: embeddings (views, N, d) and columns (N,)."""

    embeddings: NDArray[np.floating[Any]]  # in float16 where they come in bfloat16
    spec_z: Floats
    r: Floats

    def of(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the embeddings of rows in view 0, (m, d)."""
        return np.asarray(self.embeddings[0, rows], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head, the bins of its p(z), and the mean label by slice, (S, n_outputs), its implicit prior."""

    head: AnyHead
    grid: RedshiftGrid
    prior: Floats
    labels: LabelTable | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """What one head of a correction is fitted to."""

    config: Config
    folder: Path  # of the run
    representation: str  # its digest
    data: Embedded  # all galaxies of the store
    n_views: int  # that are trained on
    train_rows: NDArray[np.int64]
    val_rows: NDArray[np.int64]
    member: int = 0  # number of the head

    @cached_property
    def samples(self) -> tuple[Sample, Sample]:
        """Training and validation galaxies, those of training with the weights of Step 2."""
        d, grid, step2 = self.data, self.config.survey.grid(), self.config.correction.step2
        slices, members = self.config.survey.slices(), membership(self.config)
        device = str(device_of(self.config.trainer))
        train, val = (
            Sample(d.of(rows), d.spec_z[rows], slices.index(d.r[rows]), grid, members, None, device)
            for rows in (self.train_rows, self.val_rows)
        )
        kind = step2.weights if step2 else "none"
        return replace(train, weight=galaxy_weights(kind, train.spec_z, grid)), val

    def galaxies(self, *own: dict[str, NDArray[Any]]) -> list[Galaxies]:
        """Return what batches of training and validation are drawn from, with columns of their own."""
        views = self.data.embeddings[: self.n_views]
        found = []
        for rows, sample, extra in zip((self.train_rows, self.val_rows), self.samples, own, strict=True):
            found.append(Galaxies(views, {"r_slice": sample.r_slice, **extra}, rows))
        return found


def member_subset(
    config: Config, names: NDArray[np.str_] | None, spec_z: Floats, r: Floats, member: int
) -> NDArray[np.int64]:
    """Return which training galaxies a head is fitted to, given their names, spec_z and r (n,): indices."""
    c, grid, slices = config.correction, config.survey.grid(), config.survey.slices()
    if c.subset:
        fold = c.subset.fold + member
        return balanced_subset(spec_z, r, grid, slices, c.subset.threshold, fold, config.seed, names)
    if c.leaves_out:
        part = draw(names, len(spec_z), [config.seed, 11]) % PARTS
        return np.flatnonzero(part != member)
    return np.arange(len(spec_z))


@torch.inference_mode()
def predict(
    head: AnyHead, embeddings: NDArray[np.floating[Any]], rows: NDArray[np.int64], trainer: TrainerConfig
) -> Iterator[NDArray[np.float32]]:
    """Yield p(z) of galaxies, (m, n_outputs) a batch, from their embeddings in view 0."""
    device = device_of(trainer)
    head = head.to(device).eval()
    for begin in range(0, len(rows), BATCH):
        part = rows[begin : begin + BATCH]
        x = torch.from_numpy(np.ascontiguousarray(embeddings[0, part])).to(device)
        yield mixture(*head(x.float())).cpu().numpy()


def fit_step2(tasks: Sequence[Task], head: AnyHead) -> Fitting[list[Fitted]]:
    """Fit the redshift outputs again, against the distribution-induced residual; results are cached.

    All corrections with the same subset, loss and weights share them.
    """
    config = tasks[0].config
    c, t, step2 = config.correction, config.training.step2, config.correction.step2
    assert step2 is not None
    fits, losses, above = list[Fit](), [], config.folder("representation")
    for task in tasks:
        train, val = task.samples
        loss = loss_module(step2.loss.name).Loss(step2.loss, train)
        own = [loss.columns(sample) | {"z_bin": sample.z_bin} for sample in (train, val)]
        if train.weight is not None:
            own[0]["weight"] = train.weight
        part: list[int | str] = ["part", task.member] if c.leaves_out else []
        if c.subset:
            part = [c.subset.threshold, c.subset.fold + task.member]
        key = digest_of([task.representation, part, c.views, asdict(t), asdict(step2)])
        galaxies, folder = task.galaxies(*own), above / f"step2-{key}"
        own_head, training = copy.deepcopy(head), t.training(checks=1)
        fits.append(Fit(config, own_head, loss, training, galaxies, folder, shared=True))
        losses.append(loss)
    heads = yield fits
    return [
        Fitted(head, task.samples[0].grid, loss.implicit_prior())
        for head, task, loss in zip(heads, tasks, losses, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Begun:
    """What a head of Step 3 begins with: labels of occupied cells, and the cells of its galaxies."""

    table: LabelTable
    prior: Floats
    head: AnyHead  # new
    targets: Tensor  # (cells, n_outputs, n_bins)
    cells: tuple[NDArray[np.int64], NDArray[np.int64]]  # of training and validation: places in the targets


def fit_step3(tasks: Sequence[Task], heads: Sequence[AnyHead]) -> Fitting[list[Fitted]]:
    """Fit new outputs on labels that are soft (mode collapse) and shifted (boundary-induced residual)."""
    config, t = tasks[0].config, tasks[0].config.training
    c, members = config.correction.step3, config.correction.members
    assert c is not None
    training = t.hidden.training(t.step3.batch_size) if c.hidden else t.step3.training(checks=2)
    begun = [_begin_step3(task, head) for task, head in zip(tasks, heads, strict=True)]
    fits = []
    for task, own in zip(tasks, begun, strict=True):
        galaxies = task.galaxies(*({"cell": cells} for cells in own.cells))
        folder = task.folder / f"step3{f'-{task.member}' if members > 1 else ''}"
        fits.append(Fit(config, own.head, SoftLabels(own.targets), training, galaxies, folder))
    new = yield fits
    return [Fitted(head, own.table.grid, own.prior, own.table) for head, own in zip(new, begun, strict=True)]


def _begin_step3(task: Task, head: AnyHead) -> _Begun:
    """Make the labels of Step 3 from the estimates of a head of Step 1 or 2, and new outputs."""
    config, c, s = task.config, task.config.correction.step3, task.config.survey
    assert c is not None
    grid, (train, val) = s.grid(), task.samples
    pdfs = predict(head, task.data.embeddings, task.train_rows, config.trainer)
    table = build_label_table(
        train.spec_z,
        np.concatenate([metrics.mode(p, grid) for p in pdfs]),
        task.data.r[task.train_rows],
        grid,
        s.slices(),
        extend=(s.extend_left, s.extend_right) if c.extend else (0, 0),
        soften=c.soften,
        width=c.width,
        shift=cast(Shift, c.shift),  # checked with the settings
        strength=c.strength,
        membership=np.ones((s.n_slices, 1), dtype=bool) if c.hidden else train.membership,
    )
    prior = table.mean_label(train.r_slice, train.z_bin)
    new = new_outputs(config, head, table.grid.n_outputs, task.member)
    if isinstance(new, HiddenHead):
        embeddings = torch.from_numpy(train.embeddings)
        start = smoothed_prior(prior.sum(axis=0) * len(task.train_rows))
        new.start_from(embeddings, torch.from_numpy(start).float())
    # Labels depend on the cell alone: those that are occupied are made, once.
    cells, index = np.unique(
        np.concatenate([p.r_slice * grid.n_bins + p.z_bin for p in (train, val)]), return_inverse=True
    )
    targets = torch.from_numpy(table.rows(*np.divmod(cells, grid.n_bins)))
    of_train, of_val = np.split(index, [len(train.spec_z)])
    return _Begun(table, prior, new, targets, (of_train, of_val))


def rescaled(kind: Literal["tau", "learnt"], head: Head, train: Sample, val: Sample) -> Head:
    """Return a head with another length of each redshift bin's weights (Kang et al. 2020).

    The power of tau-normalisation is that of the best likelihood on the validation split, weighted to a
    flat n(z); it leaves no bias, as the authors do. Learnt scales are fitted to the training galaxies.
    """
    head = copy.deepcopy(head).cpu()
    blocks = (head.n_redshift_outputs, head.n_bins)
    weight = head.redshift.weight.detach().numpy().reshape(*blocks, -1)
    if kind == "tau":
        gate = None
        if head.gate is not None:
            gate = torch.softmax(head.gate(torch.from_numpy(val.embeddings)).detach(), dim=1).numpy()
        flat = lds_weights(val.grid.centres[val.z_bin], val.grid, LDS_SIGMA)
        tau = choose_tau(val.embeddings, weight, gate, val.z_bin, flat)
        scaled = tau_normalised(weight, tau)
        log.info("tau-normalisation: tau = %.2f", tau)
    else:
        bias, member = head.redshift.bias.detach().numpy().reshape(blocks), train.membership[train.r_slice]
        scaled = weight * learnt_scales(train.embeddings, weight, bias, train.z_bin, member)[:, :, None]
    with torch.no_grad():
        head.redshift.weight.copy_(torch.from_numpy(scaled).flatten(0, 1))
        if kind == "tau":
            head.redshift.bias.zero_()
    return head
