from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit import metrics
from photoz_lit.correction.calibration.deconvolution import Expected
from photoz_lit.correction.calibration.sample import Sample
from photoz_lit.correction.calibration.smoothing import fit_binned
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

Golden = Callable[[str], dict[str, Any]]
Floats = NDArray[np.float64]

EXPECTED: tuple[Expected, ...] = ("auto", "training", "photo", "deconvolved")

GRID = RedshiftGrid(0.0, 0.4, 80, 20, 20)
SLICES = MagnitudeSlices(15.0, 1.0, 3)
SDSS = RedshiftGrid(0.0, 0.4, 180)
SDSS_SLICES = MagnitudeSlices(12.5, 0.5, 11)


def survey(n: int, seed: int, tilt: float = 0.0) -> tuple[Floats, Floats, Floats]:
    """Draw spec_z, photo_z, r: biased estimates whose scatter grows; a tilt moves spec_z up or down."""
    rng = np.random.default_rng(seed)
    z = rng.gamma(4.0, 0.03, 8 * n)
    z = z[z < 0.4]
    keep = np.exp(tilt * (z - 0.12))
    z = rng.choice(z, n, p=keep / keep.sum())
    r = np.clip(15.2 + 8 * z + rng.normal(0, 0.5, n), 15, 17.99)
    return z, z + 0.1 * (z - 0.1) + rng.normal(0, 0.012 + 0.05 * z), r


def sample(n: int = 20000, seed: int = 1) -> Sample:
    return Sample(*survey(n, seed), weights=np.ones(n))


def mean_residuals(spec_z: Floats, photo_z: Floats) -> float:
    """Mean over galaxies of abs(mean dz) of their photo_z bin."""
    binned = metrics.residuals_by_photo_z(spec_z, photo_z, GRID, min_count=100)
    return float(np.average(np.abs(binned.mean), weights=binned.count))


class Reference:
    """Golden training and target galaxies of one kind of estimates.

    The reference leaves out estimates that lie on the edge of a 0.01 bin; where rounding puts them on one
    side of it, they count there. Here bins are half-open and rounding does not decide. So the training
    galaxies on an edge are left out by hand and those beside it are moved off by 1e-10.
    """

    def __init__(self, golden: Golden, tag: str) -> None:
        self.step4, metrics_ = golden("a1_step4"), golden("a1_metrics")
        _, bins, sign, _ = self.step4["edge_coincidences"].T
        nudge, on_edge = np.zeros(SDSS.n_bins), np.zeros(SDSS.n_bins, dtype=bool)
        if tag == "quant":
            nudge[bins], on_edge[bins] = 1e-10 * sign, sign == 0
        self.spec_z, self.r = metrics_["zspec"], metrics_["r"]
        photo_z = metrics_[f"zphoto_{tag}"]
        self.photo_z, self.left_out = photo_z + nudge[SDSS.index(photo_z)], on_edge[SDSS.index(photo_z)]
        self.target_z, self.target_r = self.step4[f"test_zphoto_{tag}"], self.step4["test_r"]
        self.nudged = self.target_z + nudge[SDSS.index(self.target_z)]
        self.target_on_edge = on_edge[SDSS.index(self.target_z)]

    def corrected(self, multiplicity: Floats) -> Floats:
        """Correct the target with training galaxies that count so many times."""
        weights = np.where(self.left_out, 0.0, multiplicity)
        fit = fit_binned(Sample(self.spec_z, self.photo_z, self.r, weights), SDSS_SLICES)
        return fit.correct(self.nudged, self.target_r)
