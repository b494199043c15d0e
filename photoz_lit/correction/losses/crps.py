"""CRPS of the mixture's p(z), in bins, and the gate's membership.

sum_k (F_k - 1[k >= z_bin])^2 with F_k the probability up to and with bin k (D'Isanto & Polsterer 2018, A&A
609, A111, arXiv:1706.02467): times the bin width, `metrics.crps` of steps. Least where F is the
distribution of the label, as a cross-entropy, but a miss costs more the farther it is.
"""

from dataclasses import dataclass

from photoz_lit.correction.losses import cross_entropy
from photoz_lit.correction.losses.sample import Batch, Logits, Tensor


@dataclass
class Settings(cross_entropy.Settings):
    """No settings of its own."""

    name: str = "crps"


class Loss(cross_entropy.Loss):
    """Mean CRPS over galaxies, which may have weights."""

    def __call__(self, logits: Logits, batch: Batch) -> Tensor:
        """Map logits and batch to a scalar."""
        import torch

        from photoz_lit.correction.losses.functions import mixture, with_gate

        cdf, weight = mixture(*logits).cumsum(dim=1), batch.get("weight")
        reached = torch.arange(cdf.shape[1], device=cdf.device) >= batch["z_bin"][:, None]
        rows = ((cdf - reached.float()) ** 2).sum(dim=1)
        loss = (rows if weight is None else weight.float() * rows).mean()
        return with_gate(loss, logits[1], batch["member"])
