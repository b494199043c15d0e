"""An estimate for one galaxy of given spec_z, beside p(z), which stays as it is.

The median m of an honest p(z) is pulled towards the crowded redshifts: its mean over galaxies of one spec_z,
the response, is m = A + B spec_z with B below 1 (attenuation; Ting 2024, arXiv:2412.05806). It is measured
on training galaxies that no head saw, A and B linear in r and, between knots, in the logarithm of the half
width s of p(z), since blurred galaxies are pulled more than sharp ones, and inverted: T = (m - A) / B has no
slope against spec_z, and more scatter. `response: 0.8` makes 80 % of the move from m to T. For Gaussians the
scatter of T at given spec_z is s / sqrt(B); its size is set so that 68 % of those galaxies lie within the
error.

Where T itself is not linear in spec_z, a monotone curve through its means in bins of spec_z is inverted too;
galaxies weigh as 1 / s^2 in these, lest those of two redshifts that cannot be told apart bend sharp ones.
Where the response is weaker than `WEAKEST`, p(z) hardly follow spec_z: there is no estimate, but NaN.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from photoz_lit.correction.finishing.link import Arrays, Facts, Galaxies, Link, Maybe, Nature, OnTensors
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Bools, Floats, RedshiftGrid

WEAKEST = 0.4  # response below which there is no estimate: its inverse would scatter as 1 / sqrt(0.4) s
WITHIN = (0.01, 0.99)  # quantiles of r and s between which A and B vary: no extrapolation
LINEAR_ENOUGH = 0.3  # mean of T - spec_z in a bin of spec_z over its scatter, up to which T is linear
BINS, LEAST_COUNT = 12, 50  # bins of the curve, and the fewest galaxies of one
KNOTS = 5  # of A and B in log s: with a straight line, what two-peaked p(z) do is done to sharp ones too
NARROWEST = 1e-6  # half width of p(z), lest its logarithm fail

log = logging.getLogger(__name__)


def nature(value: Any) -> Nature:
    """Leaves p(z) alone."""
    return Nature(held_out=True, keeps_prior=True)


def check(value: Any, correction: CorrectionConfig) -> None:
    """Refuse a strength that is none."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise ConfigError(
            f"correction.finish: response={value} is not valid: type which share of the move to make, above "
            "0 up to 1, e.g. response: 1.0"
        )
    if "response" in [name for name, _ in correction.links[:-1]]:
        raise ConfigError("correction.finish: response is measured on finished p(z): put it last")


def fit(value: float, galaxies: Galaxies, facts: Facts) -> "Response":
    """Measure the response of galaxies that p(z) were not fitted to."""
    z, r = galaxies.spec_z, np.asarray(galaxies.dered_petro_r, dtype=np.float64)
    m, s = median_and_width(galaxies.pdf, facts.grid)
    limits = np.array([np.quantile(r, WITHIN), np.quantile(np.log(s), WITHIN)])
    none = np.zeros((2, 0))
    response = Response(np.zeros((2, 1 + KNOTS)), limits, none, 1.0, float(value), facts.grid)
    x = response.features(s, r)
    terms = np.concatenate([x, x * z[:, None]], axis=1)
    response = replace(response, coefficients=np.linalg.lstsq(terms, m, rcond=None)[0].reshape(2, -1))
    t, b = response.linear(m, s, r)
    wide = np.maximum(s, np.exp(limits[1, 0]))  # that one galaxy does not outweigh all
    response = replace(response, curve=curve_of(*(values[b >= WEAKEST] for values in (z, t, wide))))
    estimate, error = replace(response, strength=1.0).of(m, s, r)
    known = np.isfinite(estimate)
    if (share := known.mean()) < 0.5:
        said = "individual estimates: p(z) hardly follow the truth, %.0f %% of the galaxies get none"
        log.warning(said, 100 * (1 - share))
    if not known.any():
        return response
    ratio = np.abs(response.of(m, s, r)[0] - z)[known] / error[known]
    return replace(response, scale=float(np.quantile(ratio, 0.68)))


def link_from(arrays: Arrays, facts: Facts) -> "Response":
    """Build the link again."""
    coefficients, limits, curve = (arrays[name] for name in ("coefficients", "limits", "curve"))
    scale, strength = float(arrays["scale"]), float(arrays["strength"])
    return Response(coefficients, limits, curve, scale, strength, facts.grid)


@dataclass(frozen=True, eq=False)
class Response(Link):
    """A and B of the response, and what is made of the median of a finished p(z)."""

    coefficients: Floats  # (2, 1 + KNOTS), of A and of B, by `features`
    limits: Floats  # (2, 2), of r, mag, and log s, between which they vary
    curve: Floats  # (2, m), spec_z and what is then left of T, where that is not linear
    scale: float  # of the errors
    strength: float  # share of the move from m to T that is made
    grid: RedshiftGrid  # of p(z), extension included

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Return p(z) as they are."""
        return np.asarray(pdf, dtype=np.float64)

    def on_tensors(self) -> OnTensors:
        """Return the same for a program."""
        return lambda pdf, _: pdf

    def arrays(self) -> dict[str, ArrayLike]:
        """Return all but the grid."""
        return {name: value for name, value in vars(self).items() if name != "grid"}

    def individual(self, pdf: ArrayLike, dered_petro_r: Maybe = None) -> tuple[Floats, Floats]:
        """Estimate and error, (n,) each, from finished p(z) (n, n_outputs) and r (n,), mag; NaN where none.

        A galaxy of unknown r is taken to have the middle one.
        """
        m, s = median_and_width(pdf, self.grid)
        unknown = np.full(len(m), np.nan)
        return self.of(m, s, unknown if dered_petro_r is None else np.asarray(dered_petro_r, np.float64))

    def of(self, m: Floats, s: Floats, r: Floats) -> tuple[Floats, Floats]:
        """Estimate and error from medians and half widths of p(z), and r, (n,) each."""
        t, b = self.linear(m, s, r)
        inverted, holds = inverse(self.curve, t)
        holds &= b >= WEAKEST
        moved = np.clip(m + self.strength * (inverted - m), self.grid.z_min, self.grid.z_max)
        error = self.scale * s / np.sqrt(np.maximum(b, WEAKEST))
        return np.where(holds, moved, np.nan), np.where(holds, error, np.nan)

    def linear(self, m: Floats, s: Floats, r: Floats) -> tuple[Floats, Floats]:
        """Return T = (m - A) / B and B, (n,) each; of a B below `WEAKEST`, T is as if it were that."""
        a, b = self.features(s, r) @ self.coefficients[0], self.features(s, r) @ self.coefficients[1]
        return (m - a) / np.maximum(b, WEAKEST), b

    def features(self, s: Floats, r: Floats) -> Floats:
        """Return r, from -1 to 1 within its limits and not beyond, and how near log s is to each knot."""
        middle, half = self.limits.mean(axis=1), np.maximum(np.ptp(self.limits, axis=1) / 2, 1e-9)
        x = (np.stack([np.where(np.isfinite(r), r, middle[0]), np.log(s)], axis=1) - middle) / half
        knots = np.linspace(-1, 1, KNOTS)
        near = [np.interp(x[:, 1], knots, of_one) for of_one in np.eye(KNOTS)]  # of sum 1
        return np.stack([np.clip(x[:, 0], -1, 1), *near], axis=1)


def median_and_width(pdf: ArrayLike, grid: RedshiftGrid) -> tuple[Floats, Floats]:
    """Median and half of the 68 % interval of each p(z), two arrays (n,)."""
    from photoz_lit import metrics

    low, median, high = metrics.central(pdf, grid).T
    return median, np.maximum((high - low) / 2, NARROWEST)


def curve_of(spec_z: Floats, t: Floats, s: Floats) -> Floats:
    """Mean spec_z and mean T, made to rise, in bins of spec_z of as many galaxies of half widths s: (2, m).

    Nothing, (2, 0), where T is linear enough, or there are too few galaxies to tell.
    """
    from scipy.optimize import isotonic_regression

    if (n_bins := min(BINS, len(t) // LEAST_COUNT)) < 3:
        return np.zeros((2, 0))
    parts = np.array_split(np.argsort(spec_z, kind="stable"), n_bins)
    means = [[np.average(v[part], weights=s[part] ** -2) for part in parts] for v in (spec_z, t, t**2)]
    x, y, squares = np.array(means)
    if (np.abs(y - x) <= LINEAR_ENOUGH * np.sqrt(np.maximum(squares - y**2, 0))).all():
        return np.zeros((2, 0))
    return np.stack([x, isotonic_regression(y).x])


def inverse(curve: Floats, t: Floats) -> tuple[Floats, Bools]:
    """spec_z at which a curve (2, m) has the values t (n,), and whether it rises enough there.

    Beyond its ends it rises as spec_z does.
    """
    if not curve.shape[1]:
        return t, np.ones(len(t), dtype=bool)
    x, y = np.pad(curve, ((0, 0), (1, 1)), mode="edge")
    x[[0, -1]] += [-1, 1]
    y[[0, -1]] += [-1, 1]
    slope = np.diff(y) / np.maximum(np.diff(x), 1e-12)
    at = np.clip(np.searchsorted(y, t, side="right") - 1, 0, len(slope) - 1)
    return np.interp(t, y, x), slope[at] >= WEAKEST
