"""Another implicit prior in p(z): p'(z) ~ p(z) target(z) / prior(z)^power, Bayes' theorem for another n(z).

With a flat target and power tau this is post-hoc logit adjustment, f - tau log(prior) (Menon et al. 2021,
ICLR, arXiv:2007.07314); with a target, post-compensated softmax, f - log(prior) + log(target) (Hong et al.
2021, CVPR, arXiv:2012.00321). A p(z) of a balanced, softened or shifted head has the n(z) of its labels for
a prior, by slice of r, not that of the galaxies (`photoz_lit.correction.prior`).
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.correction.finishing.link import (
    Arrays,
    Facts,
    Galaxies,
    Link,
    Maybe,
    Nature,
    OnTensors,
    slice_of,
)
from photoz_lit.correction.finishing.temperature import least_nll
from photoz_lit.correction.prior import NEW_FLOOR, OLD_FLOOR, Priors, floored, prior_of, swap_prior
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Floats, MagnitudeSlices

if TYPE_CHECKING:
    from torch import Tensor


def nature(value: Any) -> Nature:
    """Swaps priors."""
    return Nature(needs_prior=True, keeps_prior=True)


def check(value: Any, correction: CorrectionConfig) -> None:
    """Refuse all but the two priors."""
    if value not in ("flat", "training"):
        raise ConfigError(f"correction.finish: prior={value} is not valid. Valid values: flat, training")


def fit(value: str, galaxies: Galaxies, facts: Facts) -> "NewPrior":
    """Fit the conversion to a flat prior, as far as it helps, or to that of the training split.

    The power of the implicit prior that is divided out for the flat one is best for validation galaxies of
    equal weight at all redshifts; those of the training n(z) would ask for 0.
    """
    assert facts.priors is not None
    grid, priors = facts.grid, facts.priors
    joint = floored(priors.implicit, OLD_FLOOR)
    if value == "flat":
        z_bin, r = grid.index(galaxies.spec_z) + grid.extend_left, galaxies.dered_petro_r
        rows, n_of_z = prior_of(joint, r, facts.slices, len(r)), joint.sum(axis=0)
        power = fit_prior_power(galaxies.pdf, z_bin, rows, 1 / n_of_z[z_bin])
        share = np.maximum(joint.sum(axis=1, keepdims=True), 1e-12)
        old, new = share * (joint / share) ** power, share * np.ones_like(joint)
        after = new * joint / np.where(old > 0, old, 1)  # which may be divided out in part
        after *= share / np.maximum(after.sum(axis=1, keepdims=True), 1e-12)
    else:
        old, new = joint, floored(priors.training, NEW_FLOOR)
        after = new
    return NewPrior(old, new, after / after.sum(), facts.slices)


def link_from(arrays: Arrays, facts: Facts) -> "NewPrior":
    """Build the link again."""
    return NewPrior(arrays["old"], arrays["new"], arrays["after"], facts.slices)


@dataclass(frozen=True, eq=False)
class NewPrior(Link):
    """What p(z) is divided by and multiplied with, and the implicit prior after it, (S, n_outputs) each."""

    old: Floats
    new: Floats
    after: Floats
    slices: MagnitudeSlices

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Return p(z), (n, n_outputs), of the new prior of each galaxy's slice."""
        p = np.asarray(pdf)
        old, new = (prior_of(prior, dered_petro_r, self.slices, len(p)) for prior in (self.old, self.new))
        return swap_prior(p, old, new)

    def on_tensors(self) -> OnTensors:
        """Return the same for a program."""
        import torch

        middles = np.append(self.slices.edges[:-1] + self.slices.width / 2, np.nan)  # then an unknown r
        old, new = (prior_of(prior, middles, self.slices, len(middles)) for prior in (self.old, self.new))
        ratio = torch.from_numpy(new / old)

        def swap(pdf: "Tensor", r: "Tensor") -> "Tensor":
            p = pdf * ratio[slice_of(r, self.slices)]
            return p / p.sum(dim=1, keepdim=True)

        return swap

    def arrays(self) -> dict[str, ArrayLike]:
        """Return the priors."""
        return {"old": self.old, "new": self.new, "after": self.after}

    def priors(self, before: Priors) -> Priors:
        """Return the new ones."""
        return replace(before, implicit=self.after)


def fit_prior_power(pdf: ArrayLike, z_bin: ArrayLike, prior: ArrayLike, weight: ArrayLike) -> float:
    """Power, 0 to 1, of the prior, (K,) or (n, K), to divide out for the least weighted log-likelihood loss.

    Of p(z) (n, K) at the bins of spec_z (n,), counted with the extension, with weights (n,).
    """
    log_prior = np.broadcast_to(np.log(np.asarray(prior, dtype=np.float64)), np.shape(pdf))

    def divided(log_p: Floats, power: float, rows: slice) -> Floats:
        return log_p - power * log_prior[rows]

    return least_nll(pdf, z_bin, divided, (0.0, 1.0), weight)
