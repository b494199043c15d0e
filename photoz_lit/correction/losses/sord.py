"""Ordinal soft labels: a label that fades with the distance from its bin (SORD).

q_k ~ exp(-phi(z, z_k)) with phi = ((z - z_k) / width)^2 / 2 and z_k the bin centres (Diaz & Marathe 2019,
CVPR, "Soft labels for ordinal regression", where the scale is part of phi). That is the softening of Step 3
with one width for all outputs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from photoz_lit.correction.losses import cross_entropy
from photoz_lit.correction.losses.sample import Batch, Logits, Sample, Tensor
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Floats, RedshiftGrid


@dataclass
class Settings(cross_entropy.Settings):
    """Width of the labels, in bins."""

    name: str = "sord"
    width: float = 1.0

    def check(self, weights: str) -> None:
        """Refuse a width that is none."""
        if not self.width > 0:
            raise ConfigError(f"correction.step2.loss.width={self.width} must be positive: it is in bins")


class Loss(cross_entropy.Loss):
    """Cross-entropy with the label of each galaxy's bin."""

    def __init__(self, settings: Any, train: Sample) -> None:
        super().__init__(settings, train)
        self.labels = ordinal_labels(train.grid, settings.width)

    def __call__(self, logits: Logits, batch: Batch) -> Tensor:
        """Map logits and batch to a scalar."""
        import torch

        from photoz_lit.correction.losses.functions import galaxy_label_loss

        labels = torch.from_numpy(self.labels).float().to(logits[0].device)[batch["z_bin"]]
        return galaxy_label_loss(*logits, labels, batch["member"], batch.get("weight"))

    def implicit_prior(self) -> Floats:
        """Return the mean label by slice, (S, K)."""
        return super().implicit_prior() @ self.labels


def ordinal_labels(grid: RedshiftGrid, width: float) -> Floats:
    """Labels of galaxies at the centre of each bin, shape (K, K); rows sum to 1. The width is in bins."""
    from scipy.special import softmax

    distance = (grid.centres - grid.centres[:, None]) / (width * grid.width)
    return np.asarray(softmax(-0.5 * distance**2, axis=1))
