"""Pixels without a flux are found whatever they are written as; bright ones never are a fault."""

import numpy as np
import pytest
from numpy.typing import NDArray

from photoz_lit.data.pixels import inspect_cutouts


def cutouts(n: int = 6, pixels: int = 16) -> NDArray[np.float32]:
    """Return galaxies on a noisy sky."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:pixels, :pixels] - pixels / 2
    galaxy = np.exp(-(x**2 + y**2) / 8)
    flux = rng.uniform(1, 30, (n, 5, 1, 1))
    return (flux * galaxy + rng.normal(0, 0.05, (n, 5, pixels, pixels))).astype(np.float32)


@pytest.mark.parametrize("value", [-9999, -999, -99, -32768, -1e30, np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.7])
@pytest.mark.parametrize("scale", [1.0, 1e-3])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_pixels_without_a_flux_are_named(value: float, share: float, scale: float, dtype: str) -> None:
    images = cutouts() / scale * (1 if dtype != "float16" else scale)
    images[2, 1].flat[: max(1, int(share * 256))] = value
    with np.errstate(over="ignore"):
        seen = inspect_cutouts(images.astype(dtype), scale)
    assert np.flatnonzero(seen.bad).tolist() == [2]
    said = [what for what, mask in seen.faults.items() if mask[2]]
    finite = np.isfinite(value) and not (dtype == "float16" and value < -1e5)
    assert said == [what for what in seen.faults if what.startswith("masked" if finite else "NaN")]


@pytest.mark.parametrize("value", [0, 7.5, -9999, -1])
@pytest.mark.parametrize("bands", [[3], [0, 1, 2, 3, 4]])
def test_a_band_without_any_signal_is_blank(value: float, bands: list[int]) -> None:
    images = cutouts()
    images[4, bands] = value
    seen = inspect_cutouts(images)
    assert np.flatnonzero(seen.bad).tolist() == [4]
    (said,) = [what for what, mask in seen.faults.items() if mask.any()]
    assert said.startswith("masked" if value == -9999 else "blank, a band being constant")


@pytest.mark.parametrize("value", [65504, 9e4, 1e6, 1e30])
def test_a_bright_pixel_is_no_fault_but_does_not_fit_into_half(value: float) -> None:
    images = cutouts()
    images[1, 2, 8, 8] = value
    seen = inspect_cutouts(images)
    assert not seen.bad.any()
    assert seen.fits_half == (value <= 65504)


def test_faint_units_do_not_fit_into_half() -> None:
    assert inspect_cutouts(cutouts()).fits_half
    assert not inspect_cutouts(1e-7 * cutouts()).fits_half


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_counts_with_a_negative_sky_are_no_masks(scale: float) -> None:
    images = np.round(cutouts() * 4000 - 999)
    assert not inspect_cutouts(images, scale).bad.any()
    np.testing.assert_allclose(inspect_cutouts(images, scale).inputs, images * scale, rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -9999])
def test_single_pixels_are_repaired_on_request(value: float) -> None:
    images = cutouts()
    whole = images.copy()
    images[3, 1, 2, 2] = images[3, 4, 5:7, 5] = value
    images[5, 0, :8] = value
    seen = inspect_cutouts(images, repair=True)
    assert np.flatnonzero(seen.repaired).tolist() == [3]
    assert np.flatnonzero(seen.bad).tolist() == [5]
    np.testing.assert_allclose(seen.inputs[3, 1, 2, 2], whole[3, 1, 2, 2], atol=0.3)
    others = np.ones(len(images), bool)
    others[[3, 5]] = False
    np.testing.assert_array_equal(seen.inputs[others], whole[others])
