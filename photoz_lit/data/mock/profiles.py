"""Fourier transforms of the profiles of galaxies: de Vaucouleurs bulges, exponential discs, Gaussian bars."""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fht
from scipy.special import gamma

from photoz_lit.data.mock import instrument
from photoz_lit.grids import Floats


def exp_in_place(exponent: NDArray[Any]) -> NDArray[Any]:
    """Return exponentials in place; less than exp(-30) is nothing, and numbers below 1e-38 are slow."""
    np.maximum(exponent, -30, out=exponent)
    return np.asarray(np.exp(exponent, out=exponent))


def _transform_devaucouleurs(squared: NDArray[Any]) -> NDArray[Any]:
    first, step, transform, slope = _devaucouleurs_steps(squared.dtype)
    squared += 1e-7  # zero frequency lies below the table, where the transform is 1
    place: NDArray[Any] = np.log(squared, out=squared)
    place -= first
    place *= 1 / step
    np.maximum(place, 0, out=place)
    np.minimum(place, len(transform) - 1, out=place)
    below = place.astype(np.intp)
    place -= below.astype(place.dtype)
    place *= slope.take(below, mode="clip")
    place += transform.take(below, mode="clip")
    return place


def _transform_exponential(squared: NDArray[Any]) -> NDArray[Any]:
    squared += 1
    squared *= np.sqrt(squared)
    np.reciprocal(squared, out=squared)
    return squared


def _transform_gaussian(squared: NDArray[Any]) -> NDArray[Any]:
    squared *= -0.5
    return exp_in_place(squared)


# By profile: its transform as a function of (k scale)^2, whose memory it takes, and the scale over the
# half-light radius.
PROFILES = {
    "devaucouleurs": _transform_devaucouleurs,
    "exponential": _transform_exponential,
    "gaussian": _transform_gaussian,
}
SCALES = {
    "devaucouleurs": 1.0,
    "exponential": 1 / instrument.EXPONENTIAL,
    "gaussian": 1 / np.sqrt(2 * np.log(2)),
    "point": 0.0,
}


@cache
def devaucouleurs_table() -> tuple[Floats, Floats]:
    """Return ln (k R_e)^2 and the transform of the r^(1/4) law at unit flux, by FFTLog (Hamilton 2000)."""
    step = 0.01
    ln_r = step * (np.arange(4096) - 2047.5)
    r = np.exp(ln_r)
    profile = np.exp(-instrument.DEVAUCOULEURS * r**0.25)
    total = 4 * gamma(8) * instrument.DEVAUCOULEURS**-8
    ln_k = ln_r
    transform = fht(profile * r, step, mu=0) / np.exp(ln_k) / total
    keep = (ln_k > -6) & (ln_k < 8)
    return np.asarray(2 * ln_k[keep]), np.asarray(transform[keep])


@cache
def _devaucouleurs_steps(dtype: Any) -> tuple[float, float, NDArray[Any], NDArray[Any]]:
    """Return the first ln (k R_e)^2 and its even step, the transform, and how it changes to the next."""
    ln_k2, transform = devaucouleurs_table()
    slope = np.diff(transform, append=transform[-1])
    return float(ln_k2[0]), float(ln_k2[1] - ln_k2[0]), transform.astype(dtype), slope.astype(dtype)
