"""One training of a head, or of several at once, on cached embeddings: a plain loop on one device.

Lightning, which trains whole networks (`photoz_lit.training`), takes as long to import as a head takes to
train, and longer for a step than the step itself. Batches, rates, checks and numbers are the same but for
rounding. Nothing waits for the device between two checks. A training that is interrupted starts again.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

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
from photoz_lit.files import beside
from photoz_lit.grids import Bools
from photoz_lit.models.heads import AnyHead, Head, Heads, Trainable
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


def train_heads(fits: Sequence[Fit], trainable: Trainable = "redshift_outputs") -> list[AnyHead]:
    """Train a head, or several of one shape together, to what each would be alone but for rounding.

    Each is returned as it was where its validation loss was lowest. Redshift outputs are trained, while the
    gate stays as it is, or all of a head. A training that is finished in its folder is not repeated.

    Those together have the same settings and embeddings, and as many galaxies to validate with. The training
    loss in their logs is the mean over them.
    """
    for fit in fits:
        log.info("fitting %s on %d galaxies", fit.folder.name.partition("-")[0], len(fit.galaxies[0]))
        fit.folder.mkdir(parents=True, exist_ok=True)
        for part in fit.head.modules():
            if isinstance(part, Head) and part.gate is not None:
                part.gate.requires_grad_(trainable == "all")
    results = [fit.folder / "result.ckpt" for fit in fits]
    if left := [i for i, result in enumerate(results) if not result.is_file()]:
        for i, weights in zip(left, _trained([fits[i] for i in left]), strict=True):
            plain = {"state_dict": {PREFIX + key: values for key, values in weights.items()}}
            save_checkpoint(results[i], plain | {"settings": to_container(fits[i].config)})
    for fit, result in zip(fits, results, strict=True):
        saved = load_checkpoint(result)["state_dict"].items()
        load_weights(fit.head, {k.removeprefix(PREFIX): v for k, v in saved if k.startswith(PREFIX)}, result)
    return [fit.head for fit in fits]


def _trained(fits: Sequence[Fit]) -> list[dict[str, Tensor]]:
    """Return the weights of each head's lowest validation loss."""
    config, training, n = fits[0].config, fits[0].training, len(fits)
    device, every, size = device_of(config.trainer), training.check_every, training.batch_size
    of_train, of_val = ([fit.galaxies[i] for fit in fits] for i in (0, 1))
    of_val = [replace(own, inputs=own.inputs[:1]) for own in of_val]
    train, val = (Gathered(_joined(own), membership(config), device) for own in (of_train, of_val))
    (n_val,) = {len(own) for own in of_val}
    to_validate = _in_turn(torch.arange(n * n_val).view(n, n_val), VAL_BATCH)
    head = fits[0].head if n == 1 else Heads(cast(Sequence[Head], [fit.head for fit in fits]))
    head.to(device)
    losses = _Losses([fit.loss for fit in fits], device)
    parameters = [p for p in head.parameters() if p.requires_grad]
    adam, best, least = Adam(parameters, training.weight_decay), [dict[str, Tensor]()] * n, [torch.inf] * n
    notes = [_Log(config, fit.folder) for fit in fits]
    precision, multiplications = autocast(config.trainer), size * sum(p.numel() for p in parameters)
    with (
        threads_for(multiplications),
        counted("steps", 0, training.max_steps, config.trainer.progress) as tick,
    ):
        for epoch in range(training.max_steps // every):
            # The batches of all steps until the next check, one after the other.
            members, views = _picks(of_train, training, config.seed, epoch)
            total, loss_of_val = torch.zeros((), device=device), torch.zeros(n, device=device)
            head.train()
            for step, batch in enumerate(train.batches(members, views, n * size), epoch * every):
                with precision:
                    loss = losses.sum(head(batch["inputs"]), batch)
                adam.step(torch.autograd.grad(loss, parameters), training.lr * rate(training, step))
                total += loss.detach()
                tick(1)
            head.eval()
            with torch.no_grad(), precision:
                for batch in val.batches(to_validate, torch.zeros_like(to_validate), n * VAL_BATCH):
                    found = torch.stack(losses.each(head(batch["inputs"]), batch))
                    loss_of_val += len(batch["inputs"]) // n * found
            for i, found in enumerate((loss_of_val / n_val).tolist()):
                mean = float(total) / (n * every)
                notes[i]({"epoch": epoch, "step": step, "train_loss": mean, "val_loss": found})
                check_loss(found, step + 1, training.lr)
                if found < least[i]:
                    weights = head.state_of(i) if isinstance(head, Heads) else head.state_dict()
                    least[i], best[i] = found, {k: v.to("cpu", copy=True) for k, v in weights.items()}
    return best


class _Losses:
    """Losses of n heads, which a batch has as many galaxies of each for: the first one's first."""

    def __init__(self, own: Sequence[LossFunction], device: torch.device) -> None:
        self.own = [loss.to(device) if isinstance(loss, nn.Module) else loss for loss in own]
        self.soft: SoftLabels | None = None  # those of all, whose labels stand one's after the other's
        if len(own) > 1 and all(isinstance(loss, SoftLabels) for loss in own):
            targets = [cast(SoftLabels, loss).targets for loss in own]
            self.soft = SoftLabels(torch.cat(targets))
            starts = np.cumsum([0, *(len(part) for part in targets[:-1])])
            self.starts = torch.from_numpy(starts)[:, None].to(device)

    def each(self, logits: Logits, batch: dict[str, Tensor]) -> list[Tensor]:
        """Return the loss of each head."""
        m, found = len(logits[0]) // len(self.own), []
        for i, loss in enumerate(self.own):
            part = slice(i * m, (i + 1) * m)
            own = logits[0][part], None if logits[1] is None else logits[1][part]
            found.append(loss(own, {name: column[part] for name, column in batch.items()}))
        return found

    def sum(self, logits: Logits, batch: dict[str, Tensor]) -> Tensor:
        """Return the sum of the losses: each head gets the gradient that it would have alone."""
        if len(self.own) == 1:
            return self.own[0](logits, batch)
        if self.soft is None:
            return torch.stack(self.each(logits, batch)).sum()
        cells = (batch["cell"].view(len(self.own), -1) + self.starts).flatten()
        loss: Tensor = len(self.own) * self.soft(logits, batch | {"cell": cells})
        return loss


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
