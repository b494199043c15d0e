"""PIT recalibration: p(z) whose PIT is uniform, over all galaxies, by r slice or by place in the embedding.

With F the cumulative distribution of p(z) and G that of the PIT of validation galaxies, F'(z) = G(F(z)) has
a uniform PIT; as a density, p'(z) = p(z) N(F(z)) with N = dG/du (Bordoloi et al. 2010, MNRAS 406, 881). It
is applied here to F at the bin edges, so that p'(z) sums to 1 without another normalisation.

The map over all galaxies takes the PIT u to v = G(u). What is left of a group of galaxies is the
distribution of v in that group, shrunk towards the uniform one by a number of prior galaxies. Groups are r
slices, or the neighbours of a galaxy in the embedding (`pit_local`). The number of knots, bins, neighbours
and prior galaxies maximise the mean log density of the PIT of held-out validation galaxies, which is the
gain in mean log p'(spec_z). Inside a bin p(z) stays flat: p(z) much narrower than a bin cannot be
calibrated.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
from photoz_lit.correction.finishing.pit_local import LocalMap, cdf_at, choose_local_map
from photoz_lit.correction.prior import Priors
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Floats, MagnitudeSlices

if TYPE_CHECKING:
    from torch import Tensor

# Choices of numbers: equal parts of the PIT distribution (1 changes nothing), galaxies of a slice between two
# knots of its map, prior galaxies of a slice. Some hundreds of galaxies measure their own coverage to 2 or
# 3 %: a stronger prior or fewer knots, which the likelihood of so few often prefers, leave half of the global
# map's error of coverage in place.
KNOTS = (1, 2, 3, 5, 8, 12, 20, 30, 50)
GALAXIES_PER_KNOT = (15, 30, 60)
SLICE_PRIOR_COUNTS = (10.0, 30.0, 100.0)

FOLDS = 5  # parts of the validation galaxies, of which each is held out once


def nature(value: Any) -> Nature:
    """Calibrates: p(z) that were calibrated on the training galaxies have their n(z) for prior."""
    return Nature(held_out=value == "held_out", keeps_prior=value == "held_out")


def check(value: Any, correction: CorrectionConfig) -> None:
    """Refuse groups that there are not."""
    valid = ("overall", "slices", "local", "held_out")
    if value not in valid:
        raise ConfigError(f"correction.finish: pit={value} is not valid. Valid values: {', '.join(valid)}")


def fit(value: str, galaxies: Galaxies, facts: Facts) -> "Recalibration":
    """Fit the map over all galaxies and, but for `overall`, those of the groups.

    `held_out` is `slices`, fitted on the training galaxies that each head left out.
    """
    from photoz_lit import metrics

    u = metrics.pit(galaxies.pdf, galaxies.spec_z, facts.grid)
    overall = choose_pit_map(u, facts.rng)
    by_slice: tuple[PitMap, ...] = ()
    if value in ("slices", "held_out"):
        of = facts.slices.index(galaxies.dered_petro_r)
        by_slice = choose_slice_maps(overall.cdf(u), of, facts.slices.n_slices, facts.rng)
    local = choose_local_map(overall.cdf(u), galaxies.embeddings) if value == "local" else None
    return Recalibration(overall, facts.slices, by_slice, local, value == "held_out")


def link_from(arrays: Arrays, facts: Facts) -> "Recalibration":
    """Build the link again."""
    n_maps = sum(name.startswith("knots_") for name in arrays)
    overall, *by_slice = (
        PitMap(arrays[f"knots_{i}"], arrays[f"levels_{i}"], float(arrays[f"uniform_{i}"]))
        for i in range(n_maps)
    )
    of_training = bool(arrays.get("of_training", False))
    return Recalibration(overall, facts.slices, tuple(by_slice), LocalMap.from_arrays(arrays), of_training)


@dataclass(frozen=True, eq=False)
class PitMap:
    """Smooth monotone estimate of the cumulative distribution of the PIT.

    A monotone cubic through quantiles, mixed with the uniform distribution, so that p'(z) is nowhere zero
    where p(z) is not.
    """

    knots: Floats  # (m,), PIT values, ascending from 0 to 1
    levels: Floats  # (m,), the fraction of galaxies below them, from 0 to 1
    uniform: float  # share of the uniform distribution

    def cdf(self, u: ArrayLike) -> Floats:
        """Fraction of galaxies of a PIT below u, any shape."""
        values = np.asarray(u, dtype=np.float64)
        # The cubic is flat at worst, but rounding may turn it by 1e-17: p'(z) must not be negative.
        return np.asarray((1 - self.uniform) * np.clip(self._curve(values), 0, 1) + self.uniform * values)

    def density(self, u: ArrayLike) -> Floats:
        """Density N of the PIT at u, any shape."""
        curve = self._curve.derivative()
        return np.asarray((1 - self.uniform) * np.maximum(curve(u), 0) + self.uniform)

    @cached_property
    def _curve(self) -> Any:
        from scipy.interpolate import PchipInterpolator

        return PchipInterpolator(self.knots, self.levels)


def on_tensors(maps: Sequence[PitMap]) -> OnTensors:
    """Return what `cdf` gives of u (n, m) by the map that each galaxy (n,) has, on tensors."""
    import torch

    most = max(len(one.knots) for one in maps)
    starts = torch.full((len(maps), most - 1), torch.inf, dtype=torch.float64)  # of the pieces of each curve
    cubics = torch.zeros(len(maps), most - 1, 4, dtype=torch.float64)
    for i, one in enumerate(maps):
        starts[i, : len(one.knots) - 1] = torch.from_numpy(one.knots[:-1])
        cubics[i, : len(one.knots) - 1] = torch.from_numpy(one._curve.c.T)
    uniform = torch.tensor([one.uniform for one in maps], dtype=torch.float64)

    def cdf(u: "Tensor", which: "Tensor") -> "Tensor":
        piece = (u[:, :, None] >= starts[which][:, None, 1:]).sum(dim=2)
        a, b, c, d = cubics[which[:, None], piece].unbind(dim=2)
        t, share = u - starts[which[:, None], piece], uniform[which][:, None]
        return (1 - share) * (((a * t + b) * t + c) * t + d).clamp(0, 1) + share * u

    return cdf


@dataclass(frozen=True, eq=False)
class Recalibration(Link):
    """The map over all galaxies, and what it leaves of each r slice or around each place in the embedding."""

    overall: PitMap
    slices: MagnitudeSlices
    by_slice: tuple[PitMap, ...] = ()
    local: LocalMap | None = None
    of_training: bool = False  # fitted on training galaxies, whose n(z) is then the prior

    def __call__(self, pdf: ArrayLike, dered_petro_r: Maybe = None, embeddings: Maybe = None) -> Floats:
        """Return p(z), (n, n_outputs), rows of sum 1; galaxies of unknown group by the map over all only."""
        from photoz_lit import metrics

        v = self.overall.cdf(metrics.cumulative(pdf))
        if self.local is not None and embeddings is not None:
            v = cdf_at(self.local.density(embeddings), v)
        if self.by_slice and dered_petro_r is not None:
            r = np.asarray(dered_petro_r, dtype=np.float64)
            of = np.full(len(r), -1)
            of[np.isfinite(r)] = self.slices.index(r[np.isfinite(r)])
            for s in np.unique(of[of >= 0]):
                v[of == s] = self.by_slice[s].cdf(v[of == s])
        return np.maximum(np.diff(v, axis=1), 0)

    def on_tensors(self) -> OnTensors | None:
        """Return the same for a program, but for neighbours in the embedding."""
        if self.local is not None:
            return None
        import torch

        overall, unknown = on_tensors([self.overall]), PitMap(np.array([0.0, 1]), np.array([0.0, 1]), 0.0)
        by_slice = on_tensors([*self.by_slice, unknown]) if self.by_slice else None

        def recalibrate(pdf: "Tensor", r: "Tensor") -> "Tensor":
            cdf = pdf.cumsum(dim=1)
            v = overall(cdf / cdf[:, -1:], torch.zeros_like(r, dtype=torch.long))
            if by_slice is not None:
                v = by_slice(v, slice_of(r, self.slices))
            return v.diff(dim=1, prepend=v[:, :1] * 0).clamp_min(0)

        return recalibrate

    def arrays(self) -> dict[str, ArrayLike]:
        """Return all maps."""
        out: dict[str, ArrayLike] = {} if self.local is None else self.local.arrays()
        for i, one in enumerate((self.overall, *self.by_slice)):
            out |= {f"knots_{i}": one.knots, f"levels_{i}": one.levels, f"uniform_{i}": one.uniform}
        return out | ({"of_training": np.array(True)} if self.of_training else {})

    def priors(self, before: Priors) -> Priors:
        """Return those of p(z) that are calibrated on training galaxies, or what was known before."""
        return replace(before, implicit=before.training) if self.of_training else before


def fit_pit_map(pit: ArrayLike, n_knots: int) -> PitMap:
    """Fit the map to PIT values (n,) of validation galaxies at `n_knots` equal parts; 1 gives the identity.

    The knots are quantiles, so that they are dense where p(z) far too narrow piles up the PIT near 0 and 1.
    """
    u = np.asarray(pit, dtype=np.float64)
    if u.ndim != 1 or u.size == 0 or not ((u >= 0) & (u <= 1)).all():
        raise ValueError(f"a PIT map needs values in [0, 1], got {u.shape}")
    levels = np.arange(1, n_knots) / n_knots
    # Galaxies at exactly 0 or 1 lie where p(z) = 0: their share goes to the nearest place where it is not.
    knots = np.round(np.quantile(u, levels, method="hazen"), 12)
    inside = (knots > 0) & (knots < 1)
    knots, which = np.unique(knots[inside], return_inverse=True)
    levels = np.bincount(which, weights=levels[inside]) / np.bincount(which) if len(knots) else levels[:0]
    return PitMap(np.r_[0.0, knots, 1.0], np.r_[0.0, levels, 1.0], 1 / (u.size + 1))


def choose_pit_map(pit: ArrayLike, rng: np.random.Generator) -> PitMap:
    """Fit the map to PIT values (n,) with the number of parts that describes those held out best."""
    u = np.asarray(pit, dtype=np.float64)
    fold = rng.permutation(len(u)) % FOLDS
    folds = [f for f in range(FOLDS) if 0 < np.count_nonzero(fold == f) < len(u)]

    def score(n: int) -> float:
        held_out = [np.log(fit_pit_map(u[fold != f], n).density(u[fold == f])).sum() for f in folds]
        return float(np.sum(held_out))

    return fit_pit_map(u, max(KNOTS, key=score))


def choose_slice_maps(
    v: ArrayLike, slice_index: ArrayLike, n_slices: int, rng: np.random.Generator
) -> tuple[PitMap, ...]:
    """Fit each slice's map with the knots and the shrinkage that describe held-out galaxies best.

    v (n,) is the PIT of validation galaxies after the map over all, `slice_index` (n,) their slice.
    """
    values, s = np.asarray(v, dtype=np.float64), np.asarray(slice_index, dtype=np.int64)
    fold = rng.permutation(len(values)) % FOLDS
    gains = dict.fromkeys(itertools.product(GALAXIES_PER_KNOT, SLICE_PRIOR_COUNTS), 0.0)
    for i, f in itertools.product(range(n_slices), range(FOLDS)):
        fitted, held_out = values[(s == i) & (fold != f)], values[(s == i) & (fold == f)]
        for per_knot, prior_count in gains:
            density = _slice_map(fitted, per_knot, prior_count).density(held_out)
            gains[per_knot, prior_count] += float(np.log(density).sum()) / len(values)
    per_knot, prior_count = max(gains, key=gains.__getitem__)
    return tuple(_slice_map(values[s == i], per_knot, prior_count) for i in range(n_slices))


def _slice_map(v: Floats, galaxies_per_knot: int, prior_count: float) -> PitMap:
    """Map of one slice, the identity where it has no galaxies."""
    n_knots = min(max(len(v) // galaxies_per_knot, 1), max(KNOTS))
    fitted = fit_pit_map(v if len(v) else np.array([0.5]), n_knots)
    return replace(fitted, uniform=prior_count / (len(v) + prior_count))
