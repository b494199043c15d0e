"""Step 2 of Lin et al. 2022, section 4.2: cross-entropy with one-hot labels. Other losses inherit from it."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from photoz_lit.correction.losses.sample import Batch, Logits, Sample, Tensor
from photoz_lit.grids import Floats


@dataclass
class Settings:
    """What stands under `correction.step2.loss`; all of it names the cached result of Step 2."""

    name: str = "cross_entropy"

    def check(self, weights: str) -> None:
        """Raise ConfigError unless the settings work, with these weights of the galaxies."""


class Loss:
    """The loss with its settings, on the training galaxies that Step 2 is fitted to."""

    def __init__(self, settings: Any, train: Sample) -> None:
        self.settings, self.train = settings, train

    def columns(self, sample: Sample) -> dict[str, NDArray[Any]]:
        """Return what a batch of training or validation galaxies holds for this loss alone, (n, ...)."""
        return {}

    def __call__(self, logits: Logits, batch: Batch) -> Tensor:
        """Map z_logits (n, R, K), gate_logits (n, R) or None, and a batch to a scalar.

        The batch holds z_bin and r_slice (n,), member (n, R), the columns above, and perhaps weight (n,).
        """
        from photoz_lit.correction.losses.functions import hard_label_loss

        return hard_label_loss(*logits, batch["z_bin"], batch["member"], batch.get("weight"))

    def implicit_prior(self) -> Floats:
        """Return the implicit prior of the p(z) that is fitted, (S, K): the mean label by slice of r.

        Its rows have the slices' weighted shares of the galaxies for sums.
        """
        return self.train.prior(self.train.weight)
