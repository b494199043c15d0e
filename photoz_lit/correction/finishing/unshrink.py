"""Estimates pushed back from the mean of the sample, by as much as noise has pulled each of them there.

The median of an honest p(z) of width s is pulled towards the mean z0 of a sample of variance S^2: for
Gaussians by the factor 1 - s^2 / S^2 (attenuation; Ting 2024, arXiv:2412.05806, for networks). Widths
differ, so blurred galaxies are pulled more than sharp ones. The pull is the slope of the mean residual
against spec_z; undoing it costs scatter, and how much of it is undone is a choice between the two:
`unshrink: 0.07` lets sigma_mad rise by 7 % at most.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.correction.finishing.link import Arrays, Facts, Galaxies, Link, Maybe
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Floats, RedshiftGrid

KEEPS_PRIOR = False
HELD_OUT = True
NEEDS_PRIOR = False

# Largest share of S^2 that s^2 may take: no galaxy is moved by more than its distance from the mean.
LARGEST_SHARE = 0.5
STRENGTHS = np.linspace(0.0, 2.0, 81)  # choices


def check(value: Any, correction: CorrectionConfig) -> None:
    """Refuse a rise of sigma_mad that is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise ConfigError(
            f"correction.finish: unshrink={value} is not valid: type by which share sigma_mad may rise, e.g. "
            "unshrink: 0.07"
        )
    if correction.step3 is None or not correction.step3.extend:
        raise ConfigError(
            f"correction.finish: unshrink={value} moves p(z) beyond the survey's range: type "
            "correction.step3.extend=true"
        )


def fit(value: float, galaxies: Galaxies, facts: Facts) -> "Unshrink":
    """Choose the strength on galaxies that p(z) was not fitted to.

    It grows until the mean residual no longer falls with spec_z, or until sigma_mad has risen by the share.
    """
    from photoz_lit import metrics

    z, grid = galaxies.spec_z, facts.grid
    centre, variance = float(facts.spec_z_train.mean()), float(facts.spec_z_train.var())
    if not variance > 0:
        raise ValueError("training redshifts are all the same: there is no mean to be pulled to")
    m, s = median_and_width(galaxies.pdf, grid)
    limit = (1 + value) * metrics.sigma_mad(metrics.residual(z, m, facts.relative))
    chosen = 0.0
    for strength in STRENGTHS:
        estimate = Unshrink(float(strength), centre, variance, grid).photo_z(m, s)
        if metrics.sigma_mad(metrics.residual(z, estimate, facts.relative)) > limit:
            break
        chosen = float(strength)
        if _slope(z, estimate, galaxies.dered_petro_r, facts) >= 0:
            break
    return Unshrink(chosen, centre, variance, grid)


def link_from(arrays: Arrays, facts: Facts) -> "Unshrink":
    """Build the link again."""
    return Unshrink(float(arrays["strength"]), float(arrays["centre"]), float(arrays["variance"]), facts.grid)


@dataclass(frozen=True)
class Unshrink(Link):
    """photo_z = m + q / (1 - q) (m - z0) with q = min(strength s^2 / S^2, 0.5)."""

    strength: float  # 0 leaves p(z); 1 undoes the pull on Gaussians
    centre: float  # z0, mean spec_z of training galaxies
    variance: float  # S^2
    grid: RedshiftGrid  # of p(z), extension included

    def photo_z(self, m: Floats, s: Floats) -> Floats:
        """Return the estimates, (n,), from medians m and half 68 % widths s of p(z), (n,)."""
        q = np.minimum(self.strength * s**2 / self.variance, LARGEST_SHARE)
        return np.asarray(m + q / (1 - q) * (m - self.centre))

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Move each p(z), (n, n_outputs), as a whole, so that its median is the new estimate.

        What would leave the grid gathers in its last bins: give it an extension.
        """
        m, s = median_and_width(pdf, self.grid)
        return moved(pdf, (self.photo_z(m, s) - m) / self.grid.width)

    def arrays(self) -> dict[str, ArrayLike]:
        """Return the numbers."""
        return {"strength": self.strength, "centre": self.centre, "variance": self.variance}


def median_and_width(pdf: ArrayLike, grid: RedshiftGrid) -> tuple[Floats, Floats]:
    """Median and half of the 68 % interval of each p(z), two arrays (n,)."""
    from photoz_lit import metrics

    low, high = metrics.interval(pdf, grid).T
    return metrics.median(pdf, grid), (high - low) / 2


def moved(pdf: ArrayLike, bins: ArrayLike) -> Floats:
    """Move each p(z), (n, n_outputs), to the right by bins (n,), of which fractions spread a bin over two."""
    from photoz_lit import metrics

    cdf = metrics.cumulative(pdf)
    last = cdf.shape[1] - 1
    place = np.clip(np.arange(last + 1) - np.asarray(bins, dtype=np.float64)[:, None], 0, last)
    left = np.minimum(place.astype(np.int64), last - 1)
    low, high = (np.take_along_axis(cdf, left + step, axis=1) for step in (0, 1))
    out = low + (place - left) * (high - low)
    out[:, 0], out[:, -1] = 0.0, 1.0
    return np.diff(out, axis=1)


def _slope(z: Floats, estimate: Floats, r: Floats, facts: Facts) -> float:
    """Slope of the mean residual against spec_z, as the metrics have it."""
    from photoz_lit import metrics
    from photoz_lit.dispersion import variances

    variance, _ = variances(z, estimate, r, facts.grid, facts.slices)
    binned = metrics.residuals_by_spec_z(z, estimate, variance, facts.grid, relative=facts.relative)
    return metrics.fit_line(binned).slope
