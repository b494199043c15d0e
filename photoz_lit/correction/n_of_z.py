"""n(z) of a sample from its p(z): their sum, and what is left when their implicit prior is divided out.

The sum of p(z), `stacked`, is right where their prior is the sample's own n(z) and no wider than it. For
another sample, or p(z) of a balanced or softened head, the n(z) that makes all p(z) most likely is inferred
instead, as by the hierarchical model of Malz & Hogg (2020, arXiv:2007.12178), here its maximum: p(z) over
their prior are likelihoods, whose mixture weights expectation maximisation finds. Each step is followed by
smoothing (EMS; Silverman et al. 1990, JRSS B 52, 271), without which n(z) breaks into spikes.
"""

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.correction.prior import OLD_FLOOR, Priors, gaussian_smoothed, slices_of, with_floor
from photoz_lit.grids import Floats, RedshiftGrid

SMOOTHED = 0.2  # width of the Gaussian that smooths, over that of the 68 % interval of p(z)
STEPS, CLOSE = 300, 1e-5  # most steps, and the change of n(z), in total variation, at which they end


def stacked(pdf: ArrayLike) -> Floats:
    """Sum of p(z) (n, K), normalised, (K,)."""
    p = np.asarray(pdf, dtype=np.float64)
    total = (p / p.sum(axis=1, keepdims=True)).mean(axis=0)
    return np.asarray(total)


def inferred(pdf: ArrayLike, dered_petro_r: ArrayLike | None, priors: Priors) -> Floats:
    """n(z) of a sample, (K,), from p(z) (n, K), r (n,), mag, and the priors that stand beside p(z).

    Galaxies of one redshift are taken to be as bright as in training. The smoothing is a fifth as wide as
    the median 68 % interval of p(z), which cannot tell finer structure.
    """
    p = np.asarray(pdf, dtype=np.float64)
    cdf = np.cumsum(p / p.sum(axis=1, keepdims=True), axis=1)
    within = 1 + ((cdf > 0.16) & (cdf < 0.84)).sum(axis=1)
    start = np.maximum(priors.training.sum(axis=0), 1e-6)
    return ems(likelihood_of(p, dered_petro_r, priors), start, SMOOTHED * float(np.median(within)))


def likelihood_of(pdf: ArrayLike, dered_petro_r: ArrayLike | None, priors: Priors) -> Floats:
    """p(z) over their prior, times the share of training galaxies of each redshift that are as bright.

    (n, K), of largest value 1 in each row; next to nothing where there are no training galaxies: what p(z)
    have there says nothing. Galaxies as none in training, of nothing anywhere, have 1: any n(z) suits them.
    """
    p = np.asarray(pdf, dtype=np.float64)
    joint, share = priors.training, priors.training.sum(axis=0, keepdims=True)
    # The last row is of galaxies of unknown r; a slice without training galaxies tells no more.
    rows = np.concatenate([np.where(joint.any(axis=1, keepdims=True), joint, share), share])
    brightness = rows / (share + OLD_FLOOR / joint.shape[1])
    of = slices_of(dered_petro_r, priors.slices, len(p))
    likelihood = p / with_floor(priors.of(dered_petro_r, len(p)), OLD_FLOOR) * brightness[of]
    largest = likelihood.max(axis=1, keepdims=True)
    return np.asarray(np.divide(likelihood, largest, out=np.ones_like(likelihood), where=largest > 0))


def ems(likelihood: Floats, start: Floats, width: float) -> Floats:
    """n(z), (K,), of galaxies with likelihoods (n, K), each step smoothed by a Gaussian of so many bins."""
    n = start / start.sum()
    for _ in range(STEPS):
        share = n * (likelihood.T @ (1 / (likelihood @ n))) / len(likelihood)
        new = gaussian_smoothed(share, width)
        new /= new.sum()
        if 0.5 * np.abs(new - n).sum() < CLOSE:
            return np.asarray(new)
        n = new
    return np.asarray(n)


def tv_and_mean_error(n_of_z: Floats, spec_z: ArrayLike, grid: RedshiftGrid) -> tuple[float, float]:
    """Total variation of n(z), (K,), from the histogram of spec_z, and the error of its mean redshift."""
    z = np.asarray(spec_z, dtype=np.float64)
    true = np.bincount(grid.output_index(z), minlength=grid.n_outputs) / len(z)
    return float(0.5 * np.abs(n_of_z - true).sum()), float(n_of_z @ grid.centres - z.mean())
