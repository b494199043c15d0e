"""One-hot loss of logits with the training prior added: the bare logits are then those of a flat prior.

Cross-entropy of f + tau log(prior) (Menon et al. 2021, ICLR, arXiv:2007.07314); tau = 1, taken here, is
balanced softmax, f + log(count) (Ren et al. 2020, NeurIPS, arXiv:2007.10740). Each output has the prior of
its own members. The uniform target of the others has no prior and keeps the bare logits.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from photoz_lit.correction.losses import cross_entropy
from photoz_lit.correction.losses.sample import Batch, Logits, Sample, Tensor
from photoz_lit.correction.prior import smoothed_prior
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Floats


@dataclass
class Settings(cross_entropy.Settings):
    """No settings of its own."""

    name: str = "balanced_softmax"

    def check(self, weights: str) -> None:
        """Refuse weights."""
        if weights != "none":
            raise ConfigError(
                f"correction.step2.loss.name=balanced_softmax with correction.step2.weights={weights} would "
                "balance twice: type correction.step2.weights=none"
            )


class Loss(cross_entropy.Loss):
    """Balanced softmax with the n(z) of each output's members in the training sample."""

    def __init__(self, settings: Any, train: Sample) -> None:
        super().__init__(settings, train)
        of_member = train.membership[train.r_slice].T
        counts = [np.bincount(train.z_bin[m], minlength=train.grid.n_bins) for m in of_member]
        self.log_prior = np.log(smoothed_prior(counts)).astype(np.float32)

    def __call__(self, logits: Logits, batch: Batch) -> Tensor:
        """Map logits and batch to a scalar."""
        import torch

        from photoz_lit.correction.losses.functions import hard_label_loss

        z_logits, gate_logits = logits
        log_prior = torch.from_numpy(self.log_prior).to(z_logits.device)
        adjusted = z_logits.float() + log_prior * batch["member"][:, :, None]
        return hard_label_loss(adjusted, gate_logits, batch["z_bin"], batch["member"])

    def implicit_prior(self) -> Floats:
        """Return a prior that is flat in each slice: the training n(z) is in the loss, not in p(z)."""
        prior = self.train.prior()
        return np.broadcast_to(prior.mean(axis=1, keepdims=True), prior.shape)
