"""What a training minimises, and how fast: one-hot or soft labels, the schedule of the learning rate."""

import math
from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from photoz_lit.correction.losses.functions import hard_label_loss, soft_label_loss, soft_label_losses
from photoz_lit.errors import DataError

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
        return soft_label_loss(*logits, self.targets.index_select(0, batch["cell"]), batch["member"])

    def of_heads(
        self, logits: tuple[Tensor, Tensor | None], batch: dict[str, Tensor], n_heads: int
    ) -> Tensor:
        """Map logits and a batch of as many galaxies of each head to the loss of each, (n_heads,)."""
        targets = self.targets.index_select(0, batch["cell"])
        return soft_label_losses(*logits, targets, batch["member"], n_heads)


def rate(training: Training, step: int) -> float:
    """Learning rate of a step, as a share of `lr`.

    One cycle rises from 1/25 over the first fifth of the steps and falls to almost nothing, along cosines
    (Smith & Topin 2018, arXiv:1708.07120).
    """
    match training.schedule:
        case "one_cycle":
            last = max(training.max_steps, 5)  # of 5 steps none would be left to rise in
            top = 0.2 * (last + 1) - 1
            start, end, way = (
                (0.04, 1.0, step / top) if step <= top else (1.0, 4e-6, (step - top) / (last - top))
            )
            return end + (start - end) / 2 * (1 + math.cos(math.pi * way))
        case "halfway_drop":
            return float(0.2 ** (step // max(1, training.max_steps // 2)))
        case _:
            return 1.0


def check_loss(loss: float, step: int, lr: float) -> None:
    """Raise DataError where a training has diverged."""
    if not math.isfinite(loss):
        raise DataError(
            f"the validation loss is {loss} at step {step}: training has diverged. "
            f"Lower its learning rate ({lr:g}), or type trainer.precision=32-true"
        )
