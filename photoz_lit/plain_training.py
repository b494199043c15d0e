"""One training of a head on cached embeddings: a plain loop on one device.

Lightning, which trains whole networks (`photoz_lit.training`), takes as long to import as a head takes to
train, and longer for a step than the step itself. Batches, rates, checks and numbers are the same but for
rounding. Nothing waits for the device between two checks. A training that is interrupted starts again.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from photoz_lit.checkpoints import load_checkpoint, load_weights, save_checkpoint
from photoz_lit.config import Config, TrainingConfig, to_container
from photoz_lit.data.batches import VAL_BATCH, Galaxies, Stream
from photoz_lit.device import autocast, device_of, threads_for
from photoz_lit.files import beside
from photoz_lit.grids import Bools
from photoz_lit.models.heads import AnyHead, Head, Trainable
from photoz_lit.models.objective import LossFunction, check_loss, rate
from photoz_lit.network import membership
from photoz_lit.progress import counted

log = logging.getLogger(__name__)

BLOCK = 2048  # galaxies, about, that are gathered together: more would not stay in a CPU's cache
PREFIX = "net.head."  # of a head's weights in checkpoints


class Gathered:
    """Galaxies of a split; embeddings that take less than half of the device's memory are kept there."""

    def __init__(self, galaxies: Galaxies, membership: Bools, device: torch.device) -> None:
        embeddings, rows = galaxies.inputs, torch.from_numpy(galaxies.rows)
        columns = galaxies.columns | {"member": membership[galaxies.columns["r_slice"]]}
        self.columns = {name: torch.tensor(column, device=device) for name, column in columns.items()}
        size = len(embeddings) * len(rows) * embeddings[0, 0].nbytes
        if device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 2:
            parts = [torch.from_numpy(view[galaxies.rows]).to(device) for view in embeddings]
            self.embeddings, rows = torch.cat(parts), torch.arange(len(rows), device=device)
        else:
            self.embeddings = torch.from_numpy(embeddings).flatten(0, 1)
        self.rows, self.n, self.device = rows, len(self.embeddings) // len(embeddings), device

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
            *(self.parameters, list(gradients), self.means, self.squares, [], self.steps),
            fused=True,
            amsgrad=False,
            maximize=False,
            lr=lr,
            beta1=0.9,
            beta2=0.999,
            eps=1e-8,
            weight_decay=self.weight_decay,
        )


def train_head(
    config: Config,
    head: AnyHead,
    loss_function: LossFunction,
    training: TrainingConfig,
    galaxies: list[Galaxies],
    folder: Path,
    trainable: Trainable = "redshift_outputs",
    stop: Event | None = None,
) -> AnyHead:
    """Train a head, and return it as it was where the validation loss was lowest.

    Its redshift outputs are trained, while the gate stays as it is, or all of it. `galaxies` are those to
    train on and to validate with, their inputs embeddings (views, N, d).
    `folder` gets `result.ckpt`; a training that is finished there is not repeated. InterruptedError where
    `stop` is set meanwhile.
    """
    for part in head.modules():
        if isinstance(part, Head) and part.gate is not None:
            part.gate.requires_grad_(trainable == "all")
    log.info("fitting %s on %d galaxies", folder.name.partition("-")[0], len(galaxies[0]))
    result = folder / "result.ckpt"
    if not result.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        weights = _fit(config, head, loss_function, training, galaxies, folder, stop)
        plain = {"state_dict": {PREFIX + key: values for key, values in weights.items()}}
        save_checkpoint(result, plain | {"settings": to_container(config)})
    saved = load_checkpoint(result)["state_dict"].items()
    load_weights(head, {k.removeprefix(PREFIX): v for k, v in saved if k.startswith(PREFIX)}, result)
    return head


def _fit(
    config: Config,
    head: AnyHead,
    loss_function: LossFunction,
    training: TrainingConfig,
    galaxies: list[Galaxies],
    folder: Path,
    stop: Event | None,
) -> dict[str, Tensor]:
    """Return the weights of the lowest validation loss."""
    device, every, size = device_of(config.trainer), training.check_every, training.batch_size
    n_views, of_val = len(galaxies[0].inputs), torch.arange(len(galaxies[1]))
    galaxies = [galaxies[0], replace(galaxies[1], inputs=galaxies[1].inputs[:1])]
    train, val = (Gathered(g, membership(config), device) for g in galaxies)
    head.to(device)
    if isinstance(loss_function, nn.Module):
        loss_function.to(device)
    parameters = [p for p in head.parameters() if p.requires_grad]
    adam, best, least, note = Adam(parameters, training.weight_decay), {}, torch.inf, _Log(config, folder)
    precision, multiplications = autocast(config.trainer), size * sum(p.numel() for p in parameters)
    with (
        threads_for(multiplications),
        counted("steps", 0, training.max_steps, config.trainer.progress) as tick,
    ):
        for epoch in range(training.max_steps // every):
            # The batches of all steps until the next check, one after the other.
            ((members, views),) = Stream(len(galaxies[0]), size * every, 1, config.seed, n_views, epoch=epoch)
            total, loss_of_val = torch.zeros(2, device=device)
            head.train()
            batches = train.batches(torch.from_numpy(members), torch.from_numpy(views), size)
            for step, batch in enumerate(batches, epoch * every):
                with precision:
                    loss = loss_function(head(batch["inputs"]), batch)
                adam.step(torch.autograd.grad(loss, parameters), training.lr * rate(training, step))
                total += loss.detach()
                tick(1)
                if stop is not None and stop.is_set():
                    raise InterruptedError(f"{folder}: the training was stopped")
            head.eval()
            with torch.no_grad(), precision:
                for batch in val.batches(of_val, torch.zeros_like(of_val), VAL_BATCH):
                    loss_of_val += loss_function(head(batch["inputs"]), batch) * len(batch["member"])
            found = float(loss_of_val) / len(of_val)
            note({"epoch": epoch, "step": step, "train_loss": float(total) / every, "val_loss": found})
            check_loss(found, step + 1, training.lr)
            if found < least:
                least, best = found, {k: v.to("cpu", copy=True) for k, v in head.state_dict().items()}
    return best


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
