"""Another implicit prior in p(z): p'(z) ~ p(z) target(z) / prior(z)^power, Bayes' theorem for another n(z).

With a flat target and power tau this is post-hoc logit adjustment, f - tau log(prior) (Menon et al. 2021,
ICLR, arXiv:2007.07314); with a target, post-compensated softmax, f - log(prior) + log(target) (Hong et al.
2021, CVPR, arXiv:2012.00321). A p(z) of a balanced, softened or shifted head has the n(z) of its labels for
a prior, not that of the galaxies.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.correction.finishing.link import Arrays, Facts, Galaxies, Link, Maybe
from photoz_lit.correction.finishing.temperature import least_nll
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Floats, n_of_z

KEEPS_PRIOR = True
HELD_OUT = False
NEEDS_PRIOR = True


def check(value: Any, correction: CorrectionConfig) -> None:
    """Refuse all but the two priors."""
    if value not in ("flat", "training"):
        raise ConfigError(f"correction.finish: prior={value} is not valid. Valid values: flat, training")


def fit(value: str, galaxies: Galaxies, facts: Facts) -> "NewPrior":
    """Fit the conversion to a flat prior, as far as it helps, or to the n(z) of the training split.

    The power of the implicit prior that is divided out for the flat one is best for validation galaxies of
    equal weight at all redshifts; those of the training n(z) would ask for 0.
    """
    grid, n = facts.grid, facts.n_fitted
    # Bins that hardly a galaxy reaches have no p(z) to be divided: every bin gets one galaxy more.
    implicit = smoothed_prior(facts.implicit_prior * n, grid.n_outputs)
    if value == "flat":
        z_bin = grid.index(galaxies.spec_z) + grid.extend_left
        old = implicit ** fit_prior_power(galaxies.pdf, z_bin, implicit, 1 / implicit[z_bin])
        old, new = old / old.sum(), np.ones(grid.n_outputs) / grid.n_outputs
    else:
        old, new = implicit, smoothed_prior(n_of_z(facts.spec_z_train, grid) * n)
    after = implicit * new / old  # which may be divided out in part
    return NewPrior(old, new, after / after.sum())


def link_from(arrays: Arrays, facts: Facts) -> "NewPrior":
    """Build the link again."""
    return NewPrior(arrays["old"], arrays["new"], arrays["after"])


@dataclass(frozen=True, eq=False)
class NewPrior(Link):
    """What p(z) is divided by and multiplied with, and the implicit prior it has then, (n_outputs,) each."""

    old: Floats
    new: Floats
    after: Floats

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Return p(z), (n, n_outputs), of the new prior."""
        return swap_prior(pdf, self.old, self.new)

    def implicit_prior(self, before: Floats) -> Floats:
        """Return the new one."""
        return self.after


def smoothed_prior(counts: ArrayLike, pseudo_count: float = 1.0) -> Floats:
    """Normalise counts of galaxies by redshift bin, (..., K), to priors without zeros, rows of sum 1.

    `pseudo_count` galaxies are added to each row, spread over its bins: an empty one has a finite logarithm.
    """
    n = np.asarray(counts, dtype=np.float64)
    filled = n + pseudo_count / n.shape[-1]
    prior: Floats = filled / filled.sum(axis=-1, keepdims=True)
    return prior


def swap_prior(pdf: ArrayLike, prior: ArrayLike, target: ArrayLike) -> Floats:
    """Convert p(z) (n, K) from its implicit prior to another, (K,) or (n, K); rows of sum 1."""
    old, new = np.asarray(prior, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if not (old > 0).all() or not (new >= 0).all():
        raise ValueError("the implicit prior must be positive in all bins and the target not negative")
    p = np.asarray(pdf, dtype=np.float64) * (new / old)
    total = p.sum(axis=1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("p(z) and the target prior have no bin in common")
    return np.asarray(p / total)


def fit_prior_power(pdf: ArrayLike, z_bin: ArrayLike, prior: ArrayLike, weight: ArrayLike) -> float:
    """Power, 0 to 1, of the prior (K,) to divide out for the least weighted negative log-likelihood.

    Of p(z) (n, K) at the bins of spec_z (n,), counted with the extension, with weights (n,).
    """
    log_prior = np.log(np.asarray(prior, dtype=np.float64))
    return least_nll(pdf, z_bin, lambda log_p, power: log_p - power * log_prior, (0.0, 1.0), weight)
