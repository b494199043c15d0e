"""What is wrong with the pixels of cutouts, and the repair of single ones."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photoz_lit.grids import Bools, Floats

MASKS = (-99.0, -999.0, -9999.0, -10000.0, -32768.0)  # where there is no flux; float16 knows no -9999
FAR_BELOW = 1e4  # sigma below the sky that no flux is
BELOW = 50.0  # sigma below the sky from which a number of MASKS is a mask among whole numbers
LEAST = -1e20  # no flux in any unit
SAMPLE = 64  # pixels of a plane that tell its sky
MOST_REPAIRED = 0.05  # of a plane: more is no single pixel
HALF = np.finfo(np.float16)


@dataclass(frozen=True)
class Inspected:
    """Inputs of some galaxies, and what is wrong with them."""

    inputs: NDArray[Any]  # (m, ...), to be kept
    faults: Mapping[str, Bools]  # why galaxies cannot be used: masks (m,)
    repaired: Bools  # (m,): which have pixels that were interpolated
    fits_half: bool = True  # whether float16 can hold what can be used

    @property
    def bad(self) -> Bools:
        """Which cannot be used, (m,)."""
        return np.asarray(np.any(list(self.faults.values()), axis=0))


def inspect_numbers(inputs: NDArray[Any]) -> Inspected:
    """Say which galaxies have magnitudes or vectors that are not finite."""
    finite = np.isfinite(inputs).all(axis=tuple(range(1, inputs.ndim)))
    return Inspected(inputs, {"NaN or infinite values": ~finite}, np.zeros(len(inputs), bool))


def inspect_cutouts(cutouts: NDArray[Any], scale: float = 1.0, repair: bool = False) -> Inspected:
    """Say which cutouts (m, bands, y, x) have pixels without a flux, or a band without any.

    `scale` is one unit of them in nanomaggies: what is to be kept is in nanomaggies. `repair` interpolates
    pixels without a flux, where they are few.
    """
    with np.errstate(over="ignore"):  # beyond float32: infinite
        flat = (*cutouts.shape[:2], math.prod(cutouts.shape[2:]))
        planes: NDArray[Any] = np.asarray(cutouts, dtype=np.float32).reshape(flat)
    lost = ~np.isfinite(planes)
    masked = _masked(planes, lost)
    lost |= masked
    ours: NDArray[Any] = cutouts if scale == 1 else (planes * np.float32(scale)).reshape(cutouts.shape)
    repaired = lost.any(axis=(1, 2)) & (lost.mean(axis=2) <= MOST_REPAIRED).all(axis=1) & repair
    if repaired.any():
        ours = np.array(ours, dtype=np.float32)
        for i in np.flatnonzero(repaired):
            ours[i] = _interpolated(ours[i], lost[i].reshape(ours[i].shape))
        lost[repaired] = masked[repaired] = False
        planes = ours.reshape(planes.shape) / np.float32(scale)
    low, high = _extremes(planes, lost)
    blank, is_masked, is_lost = (low == high).any(axis=1), masked.any(axis=(1, 2)), lost.any(axis=(1, 2))
    faults = {
        "blank, a band being constant": blank,
        "masked pixels (a number such as -9999, or 10^4 sigma below the sky)": is_masked & ~blank,
        "NaN or infinite pixels": is_lost & ~is_masked & ~blank,
    }
    peak = (np.maximum(np.abs(low), np.abs(high)) * scale)[~(is_lost | blank)]
    return Inspected(ours, faults, repaired, bool(((peak <= HALF.max) & (peak >= HALF.tiny)).all()))


def _extremes(planes: NDArray[np.float32], lost: Bools) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the least and the largest flux of each plane (m, bands); infinite where there is none."""
    if not lost.any():
        return planes.min(axis=2), planes.max(axis=2)
    return np.where(lost, np.inf, planes).min(axis=2), np.where(lost, -np.inf, planes).max(axis=2)


def _masked(planes: NDArray[np.float32], lost: Bools) -> Bools:
    """Which pixels are masked by a number, (m, bands, n)."""
    step = max(1, planes.shape[2] // SAMPLE) | 1  # odd: not along a column
    sample = np.where(lost[:, :, ::step], np.nan, planes[:, :, ::step]).astype(np.float64)
    sky = _quantile(sample, 0.5)
    # From the quarter of the pixels next to the sky: galaxies and masks may be in the others.
    sigma = _quantile(np.abs(sample - sky[:, :, None]), 0.25) / 0.3186
    low, high = _extremes(planes, lost)
    with np.errstate(invalid="ignore"):  # planes without any number
        suspect = (low <= MASKS[0]) | ((sky - low > FAR_BELOW * sigma) & (sigma > 0))
    masked = np.zeros(planes.shape, bool)
    for i, j in np.argwhere(suspect):
        depth = sky[i, j] - planes[i, j].astype(np.float64)
        far = (depth > FAR_BELOW * sigma[i, j]) & (depth > high[i, j] - sky[i, j]) & (sigma[i, j] > 0)
        number = np.isin(planes[i, j], MASKS)
        if number.any() and sigma[i, j] > 0 and (planes[i, j] == np.round(planes[i, j])).all():
            number &= depth > BELOW * sigma[i, j]  # counts: the number may be a flux
        masked[i, j] = (far | number | (planes[i, j] < LEAST)) & ~lost[i, j]
    return masked


def _quantile(sample: Floats, level: float) -> Floats:
    """Return a quantile of the numbers along the last axis; NaN, which sorts last, where there are none."""
    last = np.maximum(np.isfinite(sample).sum(axis=-1, keepdims=True) - 1, 0)
    place = np.round(level * last).astype(np.int64)
    return np.take_along_axis(np.sort(sample, axis=-1), place, axis=-1)[..., 0]


def _interpolated(cutout: NDArray[np.float32], lost: Bools) -> NDArray[np.float32]:
    """Fill pixels of a cutout (bands, y, x) from their neighbours."""
    from astropy.convolution import Gaussian2DKernel, interpolate_replace_nans

    filled = cutout.copy()
    for plane, gaps in zip(filled, lost, strict=True):
        if gaps.any():
            holed = np.where(gaps, np.nan, plane)
            # A hole wider than the kernel takes several passes.
            while np.isnan(holed).any():
                holed = interpolate_replace_nans(holed, Gaussian2DKernel(1))
            plane[:] = holed
    return filled
