"""Cross-entropy and the squared slope of the batch's residuals, mean of p(z) minus spec_z, along spec_z.

The slope is cov(residual, spec_z) / var(spec_z), -1 for an estimate that ignores the galaxy and 0 for one
without trend. Lee & Chen (arXiv:2405.15950) describe the same linear pull towards the mean and forbid it by
constraints on the training residuals; this is their aim as a term to add, times a strength, to the loss.
Noise adds its variance, sigma^2 / (n var(spec_z)), to the squared slope: batches should be large.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.correction.losses import cross_entropy
from photoz_lit.correction.losses.sample import Batch, Logits, Sample, Tensor
from photoz_lit.errors import ConfigError


@dataclass
class Settings(cross_entropy.Settings):
    """Strength of the penalty beside the cross-entropy."""

    name: str = "trend"
    strength: float = 100.0

    def check(self, weights: str) -> None:
        """Refuse a strength below 0."""
        if self.strength < 0:
            raise ConfigError(f"correction.step2.loss.strength={self.strength} must not be negative")


class Loss(cross_entropy.Loss):
    """Cross-entropy plus strength times the penalty."""

    def columns(self, sample: Sample) -> dict[str, NDArray[Any]]:
        """Return the redshifts."""
        return {"spec_z": sample.spec_z.astype(np.float32)}

    def __call__(self, logits: Logits, batch: Batch) -> Tensor:
        """Map logits and batch to a scalar."""
        import torch

        centres = torch.from_numpy(self.train.grid.centres).float().to(logits[0].device)
        penalty = trend_penalty(*logits, batch["spec_z"], centres)
        return super().__call__(logits, batch) + float(self.settings.strength) * penalty


def trend_penalty(z_logits: Tensor, gate_logits: "Tensor | None", spec_z: Tensor, centres: Tensor) -> Tensor:
    """Squared slope of the residuals of redshifts (n,) on bins with centres (K,); 0 where all are alike."""
    import torch

    from photoz_lit.correction.losses.functions import mixture

    z = spec_z.float()
    residual = (mixture(z_logits, gate_logits) * centres.float()).sum(dim=1) - z
    offset = z - z.mean()
    variance = (offset**2).mean()
    slope = (offset * residual).mean() / torch.where(variance > 0, variance, 1.0)
    return slope**2
