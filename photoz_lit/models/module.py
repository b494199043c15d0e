"""The LightningModule: a network, its labels, its optimiser. Stages differ by these, not by branches."""

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from photoz_lit.config import TrainingConfig
from photoz_lit.data.transforms import Inputs
from photoz_lit.errors import DataError
from photoz_lit.models.heads import PhotozNet
from photoz_lit.models.losses import (
    crps_loss,
    galaxy_label_loss,
    hard_label_loss,
    logit_adjusted_loss,
    soft_label_loss,
    trend_penalty,
)


@dataclass(frozen=True)
class OneHotLoss:
    """How outputs with labels by redshift bin or by galaxy are judged.

    Parameters
    ----------
    name : {"cross_entropy", "balanced_softmax", "crps", "sord", "nearest"}
        See `photoz_lit.models.losses`. With `nearest` a batch holds the `label` (n, K) of its galaxies.
    log_prior : Tensor (R, K), optional
        Logarithm of the training n(z) of each output, for `balanced_softmax`.
    trend : float
        Strength of the penalty on the trend of residuals with spec_z.
    centres : Tensor (K,), optional
        Bin centres, for the penalty.
    labels : Tensor (K, K), optional
        Label of each redshift bin, for `sord`.
    """

    name: str = "cross_entropy"
    log_prior: Tensor | None = None
    trend: float = 0.0
    centres: Tensor | None = None
    labels: Tensor | None = None


class PhotozModule(pl.LightningModule):
    """Trains whatever parameters of the network ask for gradients.

    Parameters
    ----------
    net : PhotozNet
        Encoder and head; frozen parts are frozen already.
    membership : Tensor (S, R), bool
        Which output covers which r slice.
    training : TrainingConfig
        Optimiser and schedule.
    seed : int
        Seed of what is random in a step (dropout, noise).
    inputs : ImageInputs, CatalogueInputs or None
        What happens to a batch first; None for embeddings.
    targets : Tensor (n_cells, R, n_bins), optional
        Soft labels of each occupied cell, indexed by the batch's `cell`; without them labels are one-hot.
    settings : dict, optional
        Resolved settings, plain containers, kept in every checkpoint.
    one_hot : OneHotLoss
        How one-hot labels are judged, where there are no soft ones. A batch may hold the `weight` of its
        galaxies; the penalty on a trend needs their `spec_z`.
    """

    membership: Tensor
    targets: Tensor | None
    log_prior: Tensor | None
    centres: Tensor | None
    labels: Tensor | None

    def __init__(
        self,
        net: PhotozNet,
        membership: Tensor,
        training: TrainingConfig,
        seed: int,
        inputs: Inputs | None = None,
        targets: Tensor | None = None,
        settings: dict[str, Any] | None = None,
        one_hot: OneHotLoss = OneHotLoss(),
    ) -> None:
        super().__init__()
        self.net = net
        self.training_config, self.seed, self.inputs = training, seed, inputs
        self.settings = settings or {}
        self.register_buffer("membership", membership, persistent=False)
        self.register_buffer("targets", targets, persistent=False)
        self.one_hot = one_hot
        self.register_buffer("log_prior", one_hot.log_prior, persistent=False)
        self.register_buffer("centres", one_hot.centres, persistent=False)
        self.register_buffer("labels", one_hot.labels, persistent=False)

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
        z_logits, gate_logits = self(batch)
        member = self.membership[batch["r_slice"]]
        if self.targets is not None:
            return soft_label_loss(z_logits, gate_logits, self.targets[batch["cell"]], member)
        return self._one_hot_loss(z_logits, gate_logits, batch, member)

    def _one_hot_loss(
        self, z_logits: Tensor, gate_logits: Tensor | None, batch: dict[str, Tensor], member: Tensor
    ) -> Tensor:
        z_bin, weight = batch["z_bin"], batch.get("weight")
        match self.one_hot.name:
            case "balanced_softmax":
                assert self.log_prior is not None
                loss = logit_adjusted_loss(z_logits, gate_logits, z_bin, member, self.log_prior)
            case "crps":
                loss = crps_loss(z_logits, gate_logits, z_bin, member, weight)
            case "sord":
                assert self.labels is not None
                loss = galaxy_label_loss(z_logits, gate_logits, self.labels[z_bin], member, weight)
            case "nearest":
                loss = galaxy_label_loss(z_logits, gate_logits, batch["label"], member, weight)
            case _:
                loss = hard_label_loss(z_logits, gate_logits, z_bin, member, weight)
        if self.one_hot.trend > 0:
            assert self.centres is not None
            penalty = trend_penalty(z_logits, gate_logits, batch["spec_z"], self.centres)
            loss = loss + self.one_hot.trend * penalty
        return loss

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Loss of a training batch."""
        loss = self.loss(batch)
        self.log(
            "train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch["ebv"])
        )
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Log the loss of a validation batch."""
        self.log(
            "val_loss",
            self.loss(batch),
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            sync_dist=True,
            batch_size=len(batch["ebv"]),
        )

    def on_train_batch_start(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Make what is random in this step a function of (seed, step): a resumed run is the same.

        Not once an epoch: loaders draw from the same generator, and others when a run is resumed.
        """
        torch.manual_seed(self.seed * 1_000_003 + self.global_step)

    def on_validation_epoch_end(self) -> None:
        """Stop a training that has diverged, while its last good checkpoint stands."""
        loss = self.trainer.callback_metrics.get("val_loss")
        if loss is not None and not bool(torch.isfinite(loss)):
            raise DataError(
                f"the validation loss is {float(loss)} at step {self.global_step}: training has diverged. "
                f"Lower its learning rate ({self.training_config.lr:g}), or type trainer.precision=32-true"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the resolved settings beside the weights."""
        checkpoint["settings"] = self.settings

    def configure_optimizers(self) -> Any:
        """Adam with decoupled weight decay over what trains, with the schedule of the settings."""
        t = self.training_config
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=t.lr, weight_decay=t.weight_decay)
        scheduler: torch.optim.lr_scheduler.LRScheduler
        match t.schedule:
            case "one_cycle":
                total = max(
                    t.max_steps + 1, 6
                )  # of 5 steps none would be left to rise in: a division by zero
                scheduler = torch.optim.lr_scheduler.OneCycleLR(
                    optimiser, max_lr=t.lr, total_steps=total, pct_start=0.2, cycle_momentum=False
                )
            case "halfway_drop":
                scheduler = torch.optim.lr_scheduler.StepLR(optimiser, max(1, t.max_steps // 2), gamma=0.2)
            case _:
                scheduler = torch.optim.lr_scheduler.ConstantLR(optimiser, factor=1.0)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
