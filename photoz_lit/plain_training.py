"""One training of a head, or of several at once, on cached embeddings: a plain loop on one device.

Lightning, which trains whole networks (`photoz_lit.training`), takes as long to import as a head takes to
train, and longer for a step than the step itself. Batches, rates, checks and numbers are the same but for
rounding. Nothing waits for the device between two checks. A training that is interrupted starts again.
"""

import logging
import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.adamw import adamw

from photoz_lit.checkpoints import load_checkpoint, load_weights, save_checkpoint
from photoz_lit.config import Config, TrainingConfig, to_container
from photoz_lit.correction.losses.sample import Logits
from photoz_lit.data.batches import VAL_BATCH, Galaxies, Picks, Stream, copy_rows
from photoz_lit.device import autocast, device_of, threads_for
from photoz_lit.files import beside, locked
from photoz_lit.grids import Bools
from photoz_lit.models.heads import AnyHead, Head, StackedHeads, Trainable
from photoz_lit.models.objective import LossFunction, SoftLabels, check_loss, rate
from photoz_lit.network import membership
from photoz_lit.progress import counted

log = logging.getLogger(__name__)

BLOCK = 2048  # galaxies, about, that are gathered together: more would not stay in a CPU's cache
PREFIX = "net.head."  # of a head's weights in checkpoints


class Gathered:
    """Galaxies of a split; embeddings that take less than half of the device's memory are kept there."""

    def __init__(self, galaxies: Galaxies, membership: Bools, device: torch.device) -> None:
        embeddings: Any = galaxies.inputs
        rows = galaxies.rows
        columns = galaxies.columns | {"member": membership[galaxies.columns["r_slice"]]}
        self.columns = {name: torch.tensor(column, device=device) for name, column in columns.items()}
        if device.type == "cuda":
            distinct = np.unique(rows)
            size = len(embeddings) * len(distinct) * embeddings[0, 0].nbytes
            if size < torch.cuda.mem_get_info(device)[0] / 2:
                embeddings, rows = held(embeddings, distinct, device), np.searchsorted(distinct, rows)
        self.embeddings, self.n = torch.as_tensor(embeddings).flatten(0, 1), embeddings.shape[1]
        self.rows, self.device = torch.from_numpy(rows).to(self.embeddings.device), device

    def batches(self, members: Tensor, views: Tensor, size: int) -> Iterator[dict[str, Tensor]]:
        """Yield batches of so many galaxies, each in its view."""
        members, views = members.to(self.device), views.to(self.rows.device)
        block = size * max(1, BLOCK // size)
        for start in range(0, len(members), block):
            own = members[start : start + block]
            place = self.rows[own.to(self.rows.device)] + views[start : start + block] * self.n
            found = {name: column.index_select(0, own) for name, column in self.columns.items()}
            found["inputs"] = self.embeddings.index_select(0, place).to(self.device).float()
            for at in range(0, len(own), size):
                yield {name: column[at : at + size] for name, column in found.items()}


def held(embeddings: NDArray[np.floating[Any]], rows: NDArray[np.int64], device: torch.device) -> Tensor:
    """Return rows of embeddings (views, N, d) in the memory of a device, (views, n, d)."""
    dtype = torch.from_numpy(embeddings[:0]).dtype
    found = torch.empty((len(embeddings), len(rows), embeddings.shape[2]), dtype=dtype, device=device)
    for view, place in zip(embeddings, found, strict=True):
        copy_rows(view, rows, place)
    return found


class Adam:
    """Adam with decoupled weight decay, as `torch.optim.AdamW`, which imports torch's compiler."""

    def __init__(self, parameters: Sequence[Tensor], weight_decay: float) -> None:
        self.parameters, self.weight_decay = list(parameters), weight_decay
        self.means, self.squares = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
        self.steps = [torch.zeros((), device=p.device) for p in parameters]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], lr: float) -> None:
        """Change the parameters."""
        adamw(
            self.parameters,
            [gradient.contiguous() for gradient in gradients],  # the fused kernel takes them as they lie
            *(self.means, self.squares, [], self.steps),
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=lr,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=self.weight_decay,
        )


@dataclass(frozen=True, eq=False)
class Fit:
    """What a head is trained to; `folder` gets `result.ckpt`."""

    config: Config
    head: AnyHead
    loss: LossFunction
    training: TrainingConfig
    galaxies: list[Galaxies]  # to train on and to validate with, their inputs embeddings (views, N, d)
    folder: Path
    trainable: Trainable = "redshift_outputs"  # while the gate stays as it is; or all
    shared: bool = False  # with other runs: no other process works beside it meanwhile

    @property
    def result(self) -> Path:
        """Return the file of weights."""
        return self.folder / "result.ckpt"

    @property
    def kind(self) -> str:
        """What heads have in common that can be trained together."""
        shapes = {name: tuple(values.shape) for name, values in self.head.state_dict().items()}
        inputs = [
            (own.inputs.shape, sorted((n, c.dtype.str, c.shape[1:]) for n, c in own.columns.items()))
            for own in self.galaxies
        ]
        of_run = self.config.folder("representation"), self.config.seed, self.config.trainer
        return repr((type(self.head), shapes, self.training, inputs, len(self.galaxies[1]), of_run))


Result = TypeVar("Result")
Fitting = Generator[list[Fit], list[AnyHead], Result]
"""Steps that ask for heads to be trained and go on with them; `alone` or `photoz_lit.together` does them."""


def alone(steps: Fitting[Result]) -> Result:
    """Do steps, train what they ask for each time, and return what comes of them."""
    heads: list[AnyHead] | None = None
    with closing(steps):
        while True:
            try:
                fits = next(steps) if heads is None else steps.send(heads)
            except StopIteration as end:
                found: Result = end.value
                return found
            train_heads(fits)
            heads = trained(fits)


def train_heads(fits: Sequence[Fit]) -> None:
    """Train a head, or several of one kind together, to what each would be alone but for rounding.

    The weights of its lowest validation loss are kept. A training that is finished is not repeated.
    """
    with locked(fits[0].folder.parent) if fits[0].shared else nullcontext():
        for fit in fits:
            log.info("fitting %s on %d galaxies", fit.folder.name.partition("-")[0], len(fit.galaxies[0]))
            fit.folder.mkdir(parents=True, exist_ok=True)
            for part in fit.head.modules():
                if isinstance(part, Head) and part.gate is not None:
                    part.gate.requires_grad_(fit.trainable == "all")
        if left := [fit for fit in fits if not fit.result.is_file()]:
            for fit, weights in zip(left, _best(left), strict=True):
                plain = {"state_dict": {PREFIX + key: values for key, values in weights.items()}}
                save_checkpoint(fit.result, plain | {"settings": to_container(fit.config)})


def trained(fits: Sequence[Fit]) -> list[AnyHead]:
    """Return heads with the weights that were kept."""
    for fit in fits:
        saved = load_checkpoint(fit.result)["state_dict"].items()
        weights = {key.removeprefix(PREFIX): values for key, values in saved if key.startswith(PREFIX)}
        load_weights(fit.head, weights, fit.result)
    return [fit.head for fit in fits]


def _best(fits: Sequence[Fit]) -> list[dict[str, Tensor]]:
    """Return the weights of each head's lowest validation loss."""
    config, training, n = fits[0].config, fits[0].training, len(fits)
    device, every, size = device_of(config.trainer), training.check_every, training.batch_size
    to_train, to_val = ([fit.galaxies[i] for fit in fits] for i in (0, 1))
    to_val = [replace(own, inputs=own.inputs[:1]) for own in to_val]
    train, val = (Gathered(_joined(own), membership(config), device) for own in (to_train, to_val))
    (n_val,) = {len(own) for own in to_val}
    to_validate = _in_turn(torch.arange(n * n_val).view(n, n_val), VAL_BATCH)
    head = fits[0].head if n == 1 else StackedHeads(cast(Sequence[Head], [fit.head for fit in fits]))
    head.to(device)
    losses = _Losses([fit.loss for fit in fits], device)
    parameters = [p for p in head.parameters() if p.requires_grad]
    adam, best, least = Adam(parameters, training.weight_decay), [dict[str, Tensor]()] * n, [torch.inf] * n
    notes = [_Log(fit.config, fit.folder) for fit in fits]
    precision, multiplications = autocast(config.trainer), size * sum(p.numel() for p in parameters)
    with (
        threads_for(multiplications),
        counted("steps", 0, training.max_steps, config.trainer.progress) as tick,
    ):
        for epoch in range(training.max_steps // every):
            # The batches of all steps until the next check, one after the other.
            members, views = _picks(to_train, training, config.seed, epoch)
            of_steps, of_galaxies = torch.zeros(n, device=device), torch.zeros(n, device=device)
            head.train()
            for step, batch in enumerate(train.batches(members, views, n * size), epoch * every):
                with precision:
                    loss = losses(head(batch["inputs"]), batch)
                # Of the sum each head gets the gradient that it would have alone.
                adam.step(torch.autograd.grad(loss.sum(), parameters), training.lr * rate(training, step))
                of_steps += loss.detach()
                tick(1)
            head.eval()
            with torch.no_grad(), precision:
                for batch in val.batches(to_validate, torch.zeros_like(to_validate), n * VAL_BATCH):
                    of_galaxies += len(batch["inputs"]) // n * losses(head(batch["inputs"]), batch)
            of_train, of_val = (of_steps / every).tolist(), (of_galaxies / n_val).tolist()
            for i, found in enumerate(of_val):
                notes[i]({"epoch": epoch, "step": step, "train_loss": of_train[i], "val_loss": found})
                check_loss(found, step + 1, training.lr)
                if found < least[i]:
                    weights = head.state_of(i) if isinstance(head, StackedHeads) else head.state_dict()
                    least[i], best[i] = found, {k: v.to("cpu", copy=True) for k, v in weights.items()}
    return best


class _Losses:
    """Losses of n heads, of which a batch has as many galaxies each: the first one's first."""

    def __init__(self, own: Sequence[LossFunction], device: torch.device) -> None:
        self.soft: SoftLabels | None = None  # those of all, whose labels stand one's after the other's
        self.own = own
        if len(own) > 1 and all(isinstance(loss, SoftLabels) for loss in own):
            targets = [cast(SoftLabels, loss).targets for loss in own]
            self.soft = SoftLabels(torch.cat(targets)).to(device)
            starts = np.cumsum([0, *(len(part) for part in targets[:-1])])
            self.starts = torch.from_numpy(starts)[:, None].to(device)
        else:
            self.own = [loss.to(device) if isinstance(loss, nn.Module) else loss for loss in own]

    def __call__(self, logits: Logits, batch: dict[str, Tensor]) -> Tensor:
        """Return the loss of each head, (n,)."""
        n = len(self.own)
        if n == 1:
            return self.own[0](logits, batch)[None]
        if self.soft is not None:
            cells = (batch["cell"].view(n, -1) + self.starts).flatten()
            return self.soft.of_heads(logits, batch | {"cell": cells}, n)
        m, found = len(logits[0]) // n, []
        for i, loss in enumerate(self.own):
            part = slice(i * m, (i + 1) * m)
            own = logits[0][part], None if logits[1] is None else logits[1][part]
            found.append(loss(own, {name: column[part] for name, column in batch.items()}))
        return torch.stack(found)


def _joined(galaxies: Sequence[Galaxies]) -> Galaxies:
    """Put galaxies of the same embeddings into one, one's after the other's."""
    columns = {name: np.concatenate([own.columns[name] for own in galaxies]) for name in galaxies[0].columns}
    return Galaxies(galaxies[0].inputs, columns, np.concatenate([own.rows for own in galaxies]))


def _picks(
    galaxies: Sequence[Galaxies], training: TrainingConfig, seed: int, epoch: int
) -> tuple[Tensor, Tensor]:
    """Return which of joined galaxies an epoch's batches hold, as many of each in turn, and their views."""
    start, picks, size = 0, list[Picks](), training.batch_size
    for own in galaxies:
        stream = Stream(len(own), size * training.check_every, 1, seed, len(own.inputs), epoch=epoch)
        members, views = next(iter(stream))
        picks.append((start + members, views))
        start += len(own)
    members, views = (np.stack(columns) for columns in zip(*picks, strict=True))
    return _in_turn(torch.from_numpy(members), size), _in_turn(torch.from_numpy(views), size)


def _in_turn(rows: Tensor, size: int) -> Tensor:
    """Put rows (n, m) into one, (n m,): so many of the first, as many of the next, and so on, in turn."""
    return torch.cat([part.flatten() for part in torch.split(rows, size, dim=1)])


class _Log:
    """Losses of a training, a row at each check: where the settings say."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.kind, self.folder, self.rows = config.logger.name, folder, list[dict[str, float]]()

    def __call__(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        if self.kind == "csv":
            lines = [",".join(row), *(",".join(map(str, r.values())) for r in self.rows)]
            path = self.folder / "log" / "metrics.csv"
            path.parent.mkdir(exist_ok=True)
            with beside(path) as partial:
                partial.write_text("\n".join(lines) + "\n")
        elif self.kind.startswith("wandb"):
            import wandb

            if wandb.run is not None:  # or W&B cannot be used
                # Several trainings are of one run.
                step = re.sub("^training|-[0-9a-f]{12}$", "", self.folder.name)
                named = {f"{step}-{key}".lstrip("-"): v for key, v in row.items() if key != "step"}
                wandb.run.log(named | {"trainer/global_step": row["step"]})
