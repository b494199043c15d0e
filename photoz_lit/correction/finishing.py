"""What a correction does to finished p(z), fitted on validation galaxies and kept with the run.

Four steps in this order, each optional: another prior (`posthoc.swap_prior`), a temperature
(`posthoc.temper`), PIT recalibration overall and by r slice or by place in the embedding (`recalibration`),
estimates moved back from the mean of the sample (`unshrink`, fitted on training galaxies that were left out).
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photoz_lit import metrics
from photoz_lit.correction.posthoc import fit_prior_power, fit_temperature, smoothed_prior, swap_prior, temper
from photoz_lit.correction.recalibration import (
    LocalChoice,
    LocalMap,
    PitMap,
    SliceMaps,
    choose_local_map,
    choose_pit_map,
    choose_slice_maps,
    recalibrate,
)
from photoz_lit.correction.unshrink import Unshrink
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

Floats = NDArray[np.float64]
Prior = Literal["none", "flat", "training"]
Recalibration = Literal["none", "global", "slices", "local"]


@dataclass(frozen=True, eq=False)
class Finishing:
    """The fitted steps; those that are left out are None.

    Parameters
    ----------
    old_prior, new_prior : ndarray, shape (n_outputs,), or None
        Implicit prior of the p(z) that comes in, and of the one that goes out.
    temperature : float
        1 leaves p(z).
    pit_map : PitMap or None
        Recalibration over all galaxies.
    slice_maps : SliceMaps or None
        Recalibration of what is left by r slice.
    slices : MagnitudeSlices
        Magnitude slices.
    unshrink : Unshrink or None
        Estimates moved back from the mean, the last step; needs the `grid` of p(z).
    grid : RedshiftGrid or None
        Bins of p(z), extension included.
    local_map : LocalMap or None
        Recalibration of what is left by place in the embedding.
    """

    old_prior: Floats | None
    new_prior: Floats | None
    temperature: float
    pit_map: PitMap | None
    slice_maps: SliceMaps | None
    slices: MagnitudeSlices
    unshrink: Unshrink | None = None
    grid: RedshiftGrid | None = None
    local_map: LocalMap | None = None

    def __call__(
        self,
        pdf: ArrayLike,
        dered_petro_r: ArrayLike | None = None,
        embeddings: ArrayLike | None = None,
    ) -> NDArray[np.float32]:
        """Finish p(z), (n, n_outputs); without r (n,), mag, or embeddings (n, d) by the map over all only."""
        p = _reprior(pdf, self.old_prior, self.new_prior)
        if self.temperature != 1:
            p = temper(p, self.temperature)
        if self.pit_map is not None:
            p = self._recalibrated(p, self.pit_map, dered_petro_r, embeddings)
        if self.unshrink is not None and self.grid is not None:
            p = self.unshrink(p, self.grid)
        return np.asarray(p, dtype=np.float32)

    def _recalibrated(
        self, p: Floats, pit_map: PitMap, dered_petro_r: ArrayLike | None, embeddings: ArrayLike | None
    ) -> Floats:
        if self.local_map is not None and embeddings is not None:
            return recalibrate(p, pit_map, density=self.local_map.density(embeddings))
        out = recalibrate(p, pit_map)
        if self.slice_maps is not None and dered_petro_r is not None:
            r = np.asarray(dered_petro_r, dtype=np.float64)
            known = np.isfinite(r)
            which = self.slices.index(r[known])
            out[known] = recalibrate(p[known], pit_map, self.slice_maps, which)
        return out

    def arrays(self) -> dict[str, ArrayLike]:
        """Return everything as named arrays, for a file without pickles."""
        out: dict[str, ArrayLike] = {"temperature": self.temperature}
        if self.old_prior is not None and self.new_prior is not None:
            out |= {"old_prior": self.old_prior, "new_prior": self.new_prior}
        if self.unshrink is not None:
            out["unshrink"] = [self.unshrink.strength, self.unshrink.centre, self.unshrink.variance]
        if self.local_map is not None:
            out |= {"local_embeddings": self.local_map.embeddings, "local_pit": self.local_map.v}
            out["local_choice"] = astuple(self.local_map.choice)
        maps = [] if self.pit_map is None else [self.pit_map]
        if self.slice_maps is not None:
            maps += self.slice_maps.maps
            out["by_slice"] = [self.slice_maps.galaxies_per_knot, self.slice_maps.prior_count]
        for i, one in enumerate(maps):
            out |= {f"knots_{i}": one.knots, f"levels_{i}": one.levels, f"uniform_{i}": one.uniform}
        return out

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[Any]], slices: MagnitudeSlices, grid: RedshiftGrid
    ) -> Self:
        """Build it again from `arrays`."""
        n_maps = sum(name.startswith("knots_") for name in arrays)
        maps = [
            PitMap(arrays[f"knots_{i}"], arrays[f"levels_{i}"], float(arrays[f"uniform_{i}"]))
            for i in range(n_maps)
        ]
        by_slice = None
        if "by_slice" in arrays:
            per_knot, count = arrays["by_slice"]
            by_slice = SliceMaps(tuple(maps[1:]), int(per_knot), float(count), 0.0)
        local_map = None
        if "local_choice" in arrays:
            k, m, count, gain = arrays["local_choice"].tolist()
            choice = LocalChoice(int(k), int(m), count, gain)
            local_map = LocalMap(arrays["local_embeddings"], arrays["local_pit"], choice)
        return cls(
            arrays.get("old_prior"),
            arrays.get("new_prior"),
            float(arrays["temperature"]),
            maps[0] if maps else None,
            by_slice,
            slices,
            Unshrink(*arrays["unshrink"].tolist()) if "unshrink" in arrays else None,
            grid,
            local_map,
        )


def fit_finishing(
    pdf: ArrayLike,
    spec_z: ArrayLike,
    dered_petro_r: ArrayLike,
    grid: RedshiftGrid,
    slices: MagnitudeSlices,
    *,
    implicit_prior: ArrayLike,
    training_prior: ArrayLike,
    n_fitted: int,
    prior: Prior,
    temperature: bool,
    recalibration: Recalibration,
    rng: np.random.Generator,
    embeddings: ArrayLike | None = None,
) -> Finishing:
    """Fit the steps on validation galaxies.

    Parameters
    ----------
    pdf : array_like, shape (n, n_outputs)
        p(z) of validation galaxies, as the head gives it.
    spec_z, dered_petro_r : array_like, shape (n,)
        Their redshifts, and magnitudes, mag.
    grid, slices
        Bins of p(z), extension included, and slices of r.
    implicit_prior : array_like, shape (n_outputs,)
        Mean label that p(z) was trained with.
    training_prior : array_like, shape (K,)
        Redshift distribution of all training galaxies, on the survey's own bins.
    n_fitted : int
        Galaxies that the labels of the implicit prior belong to.
    prior : {"none", "flat", "training"}
        Prior that p(z) is converted to: flat, with a power of the implicit prior divided out that is best for
        validation galaxies of equal weight at all redshifts (logit adjustment); or the training n(z).
    temperature : bool
        Whether to fit a temperature.
    recalibration : {"none", "global", "slices", "local"}
        PIT recalibration: none, over all galaxies, or also by r slice or by place in the embedding.
    rng : numpy.random.Generator
        Divides the galaxies into folds, to choose the number of knots.
    embeddings : array_like, shape (n, d), optional
        Their embeddings, for "local".
    """
    z = np.asarray(spec_z, dtype=np.float64)
    z_bin = grid.index(z) + grid.extend_left
    old = new = None
    if prior != "none":
        # Bins that hardly a galaxy reaches have no p(z) to be divided: every bin gets one galaxy more.
        old = smoothed_prior(np.asarray(implicit_prior) * n_fitted, grid.n_outputs)
        new = np.ones(grid.n_outputs) / grid.n_outputs
        if prior == "flat":  # only so far as it helps galaxies that count alike at all redshifts
            power = fit_prior_power(pdf, z_bin, old, 1 / old[z_bin], bounds=(0.0, 1.0))
            old = old**power / (old**power).sum()
        else:
            whole = np.zeros(grid.n_outputs)
            whole[grid.extend_left : grid.extend_left + grid.n_bins] = np.asarray(training_prior)
            new = smoothed_prior(whole * n_fitted, 1.0)
    p = _reprior(pdf, old, new)
    t = fit_temperature(p, z_bin) if temperature else 1.0
    if t != 1:
        p = temper(p, t)
    pit_map = by_slice = local_map = None
    if recalibration != "none":
        u = metrics.pit(p, z, grid)
        pit_map = choose_pit_map(u, rng)
        if recalibration == "slices":
            by_slice = choose_slice_maps(pit_map.cdf(u), slices.index(dered_petro_r), slices.n_slices, rng)
        if recalibration == "local" and embeddings is not None:
            local_map = choose_local_map(pit_map.cdf(u), embeddings)
    return Finishing(old, new, t, pit_map, by_slice, slices, local_map=local_map)


def _reprior(pdf: ArrayLike, old: Floats | None, new: Floats | None) -> Floats:
    p = np.asarray(pdf, dtype=np.float64)
    return p if old is None else swap_prior(p, old, new)
