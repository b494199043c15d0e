"""The LightningModule: a network, its labels, its optimiser. Stages differ by these, not by branches."""

import math
from collections.abc import Callable
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from photoz_lit.correction.losses.functions import hard_label_loss, soft_label_loss
from photoz_lit.data.transforms import Inputs
from photoz_lit.errors import DataError
from photoz_lit.models.heads import PhotozNet

LossFunction = Callable[[tuple[Tensor, Tensor | None], dict[str, Tensor]], Tensor]
"""Maps z_logits (n, R, K) and gate_logits (n, R) or None, and a batch with `member` (n, R), to a scalar."""


class Training(Protocol):
    """Length and optimiser; schedule: `one_cycle`, `halfway_drop` (the paper's) or `constant`."""

    max_steps: int
    lr: float
    weight_decay: float
    schedule: str


def hard_labels(logits: tuple[Tensor, Tensor | None], batch: dict[str, Tensor]) -> Tensor:
    """Loss of the Baseline and of Step 1: one-hot labels."""
    return hard_label_loss(*logits, batch["z_bin"], batch["member"])


class SoftLabels(nn.Module):
    """Loss of Step 3: soft labels (n_cells, R, n_bins) of occupied cells, indexed by the batch's `cell`."""

    targets: Tensor

    def __init__(self, targets: Tensor) -> None:
        super().__init__()
        self.register_buffer("targets", targets, persistent=False)

    def forward(self, logits: tuple[Tensor, Tensor | None], batch: dict[str, Tensor]) -> Tensor:
        """Map logits and a batch to a scalar."""
        return soft_label_loss(*logits, self.targets[batch["cell"]], batch["member"])


class PhotozModule(pl.LightningModule):
    """Trains whatever parameters of the network ask for gradients.

    `membership` (S, R), bool, says which output covers which r slice, and `seed` what is random in a step
    (noise). Without `inputs` a batch holds embeddings. Resolved `settings` are kept in checkpoints.
    """

    membership: Tensor

    def __init__(
        self,
        net: PhotozNet,
        membership: Tensor,
        training: Training,
        seed: int,
        inputs: Inputs | None = None,
        settings: dict[str, Any] | None = None,
        loss_function: LossFunction = hard_labels,
    ) -> None:
        super().__init__()
        self.net = net
        self.training_config, self.seed, self.inputs = training, seed, inputs
        self.settings = settings or {}
        self.register_buffer("membership", membership, persistent=False)
        self.loss_function = loss_function
        self.automatic_optimization = False
        self.sums: dict[str, tuple[Any, int]] = {}  # of losses and weights, by kind

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the logits of redshift outputs (n, R, K) and gate (n, R)."""
        x = batch["inputs"]
        if self.inputs is not None:
            unit = torch.randn_like(x[:, 0], dtype=torch.float32) if self.training and x.ndim == 3 else None
            x = self.inputs(x, batch["view"], unit)
        if x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        logits: tuple[Tensor, Tensor | None] = self.net(x, batch["ebv"])
        return logits

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """Mean loss of a batch (Lin et al. 2022, section 4)."""
        return self.loss_function(self(batch), batch | {"member": self.membership[batch["r_slice"]]})

    def training_step(self, block: dict[str, Tensor], batch_idx: int) -> None:
        """Take the steps of a block of batches, (steps, n, ...), at once: a step of Lightning costs 2 ms."""
        optimiser, scheduler = self.optimizers(), self.lr_schedulers()
        for i in range(len(block["ebv"])):
            self.begin_step()
            loss = self.loss({name: values[i] for name, values in block.items()})
            optimiser.zero_grad()  # type: ignore[union-attr]
            self.manual_backward(loss)
            optimiser.step()  # type: ignore[union-attr]
            scheduler.step()  # type: ignore[union-attr]
            torch.clear_autocast_cache()  # of weights as they were before this step
            self.tally(loss, 1)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Note the loss of a validation batch."""
        self.tally(self.loss(batch), len(batch["ebv"]))

    def tally(self, loss: Tensor, weight: int) -> None:
        """Add a loss to the mean, on the device: nothing waits for it."""
        kind = "train" if self.training else "val"
        total, weights = self.sums.get(kind, (0.0, 0))
        self.sums[kind] = (total + weight * loss.detach().double(), weights + weight)

    def tell(self, kind: str) -> float:
        """Log the mean loss since the last time, and return it."""
        total, weights = self.sums.pop(kind)
        loss = total / weights
        self.log_dict({f"{kind}_loss": loss, "step": float(self.global_step)}, sync_dist=True)
        return float(loss)

    def begin_step(self) -> None:
        """Make what is random in this step a function of (seed, step): a resumed run is the same.

        Not once an epoch: loaders draw from the same generator, and others when a run is resumed.
        """
        seed = self.seed * 1_000_003 + self.global_step
        if self.device.type == "cpu":  # `torch.manual_seed` also prepares GPUs: a tenth of a small step
            torch.default_generator.manual_seed(seed)
        else:
            torch.manual_seed(seed)

    def on_train_epoch_end(self) -> None:
        """Log the training loss."""
        self.tell("train")

    def on_validation_epoch_end(self) -> None:
        """Log the loss, and stop a training that has diverged while its last good checkpoint stands."""
        loss = self.tell("val")
        if not math.isfinite(loss):
            raise DataError(
                f"the validation loss is {loss} at step {self.global_step}: training has diverged. "
                f"Lower its learning rate ({self.training_config.lr:g}), or type trainer.precision=32-true"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the resolved settings beside the weights."""
        checkpoint["settings"] = self.settings

    def configure_optimizers(self) -> Any:
        """Adam with decoupled weight decay over what trains, with the schedule of the settings."""
        t = self.training_config
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=t.lr, weight_decay=t.weight_decay, fused=True)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        match t.schedule:
            case "one_cycle":
                # Of 5 steps none would be left to rise in: a division by zero.
                total = max(t.max_steps + 1, 6)
                scheduler = torch.optim.lr_scheduler.OneCycleLR(
                    optimiser, max_lr=t.lr, total_steps=total, pct_start=0.2, cycle_momentum=False
                )
            case "halfway_drop":
                scheduler = torch.optim.lr_scheduler.StepLR(optimiser, max(1, t.max_steps // 2), gamma=0.2)
            case _:
                scheduler = torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
