"""The LightningModule: a network, its labels, its optimiser. Stages differ by these, not by branches."""

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from photoz_lit.data.transforms import Inputs
from photoz_lit.models.heads import PhotozNet
from photoz_lit.models.objective import LossFunction, Training, check_loss, hard_labels, rate


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
            optimiser.zero_grad()  # type: ignore[union-attr]
            loss = self.loss({name: values[i] for name, values in block.items()})
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
            if self.net.compiled is not None:  # what a CUDA graph returned may be overwritten
                torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def on_train_epoch_end(self) -> None:
        """Log the training loss."""
        self.tell("train")

    def on_validation_epoch_end(self) -> None:
        """Log the loss, and stop a training that has diverged while its last good checkpoint stands."""
        check_loss(self.tell("val"), self.global_step, self.training_config.lr)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the resolved settings beside the weights."""
        checkpoint["settings"] = self.settings

    def configure_optimizers(self) -> Any:
        """Adam with decoupled weight decay over what trains, with the schedule of the settings."""
        t = self.training_config
        parameters = [p for p in self.net.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(parameters, lr=t.lr, weight_decay=t.weight_decay, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate(t, step))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
