from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import norm

from photoz_lit import metrics
from photoz_lit.grids import Floats, Ints, MagnitudeSlices, RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 40)
EXTENDED = GRID.extended(20, 20)
SLICES = MagnitudeSlices(15.0, 1.0, 3)


class Reference:
    """The golden sample with the sizes that follow from the arrays."""

    def __init__(self, arrays: dict[str, Any], tag: str) -> None:
        self.arrays, self.tag = arrays, tag
        n_slices, n_bins = arrays[f"var_grid_{tag}"].shape
        self.grid = RedshiftGrid(0.0, 0.4, n_bins)
        self.slices = MagnitudeSlices(12.5, 0.5, n_slices)
        self.spec_z, self.r, self.photo_z = arrays["zspec"], arrays["r"], arrays[f"zphoto_{tag}"]
        self.n_wide = len(self["ressim_k1.0"])

    def __getitem__(self, name: str) -> Any:
        return self.arrays[f"{name}_{self.tag}"]

    def line(self, name: str) -> metrics.BinnedResiduals:
        z, mean, error = (self[f"{name}_{part}"] for part in ("z", "res", "err"))
        return metrics.BinnedResiduals(z, mean, error, np.ones(len(z), dtype=np.int64))


def within_seeds(value: Any, seeds: Any) -> None:
    """Check that a bootstrap mean, which scatters as the seeds do, lies within their scatter."""
    scatter = seeds.std(axis=0, ddof=1) + 1e-3 * np.abs(seeds.mean(axis=0))
    assert np.all(np.abs(value - seeds.mean(axis=0)) < 6 * scatter)


def gaussian_pdf(centre: Any, sigma: float, grid: RedshiftGrid) -> Any:
    return np.diff(norm.cdf(grid.edges[None, :], np.asarray(centre)[:, None], sigma), axis=1)


def sample(n: int, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    rng = np.random.default_rng(seed)
    spec_z = np.clip(rng.gamma(4.0, 0.03, n), 0.001, 0.399)
    photo_z = spec_z + rng.normal(0, 0.02, n)
    return spec_z, photo_z, rng.uniform(15, 18, n), gaussian_pdf(photo_z, 0.02, EXTENDED)


def bootstrap(statistic: Callable[[Ints], Any], n: int, n_bootstrap: int, rng: np.random.Generator) -> Floats:
    """Statistic of rows of n galaxies, drawn with replacement, of each draw: shape (n_bootstrap, ...)."""
    return np.array([statistic(rng.integers(0, n, n)) for _ in range(n_bootstrap)], dtype=np.float64)
