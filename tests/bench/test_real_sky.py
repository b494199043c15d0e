"""The numbers by which simulated cutouts are judged, on images whose answer is known."""

import numpy as np
import pytest
import real_sky
from morphology import PIXEL, SIDE, TITLES, R, X, Y, asymmetry, gini_m20, measure, shift, sky_numbers
from telling_apart import auc, folds, tell_by_numbers, tell_by_pixels, views

NOISE = 0.02  # nanomaggies


def blob(x: float = 0.0, y: float = 0.0, *, width: float = 3.0, ratio: float = 1.0) -> np.ndarray:
    """A Gaussian of unit peak around a place relative to the middle."""
    return np.exp(-((X - x) ** 2 + ((Y - y) / ratio) ** 2) / (2 * width**2)).astype(np.float32)


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return NOISE * np.random.default_rng(seed).standard_normal(shape, np.float32)


def cutouts(n: int, seed: int = 0) -> np.ndarray:
    """Galaxies of one colour, of axis ratio 0.6, each with a neighbour."""
    galaxy = 5 * blob(ratio=0.6) + blob(-20, 15, width=1.5)
    flux = 10 ** (0.4 * np.array([-1.5, -0.5, 0.0, 0.3, 0.5], np.float32))
    return flux[:, None, None] * galaxy + noise((n, 5, SIDE, SIDE), seed)


def test_a_shift_moves_light() -> None:
    moved = shift(blob()[None], np.array([2.25]), np.array([-1.5]))
    np.testing.assert_allclose(moved[0], blob(2.25, -1.5), atol=1e-5)


def test_asymmetry_is_of_the_galaxy_not_of_the_noise_nor_the_centring() -> None:
    lopsided = blob() + 0.5 * blob(8, 0, width=2)
    images = np.stack([blob(), blob(0.4, -0.3), lopsided]) + noise((3, SIDE, SIDE))
    values = asymmetry(images, np.repeat(R[None] < 15, 3, 0), np.full(3, NOISE))
    np.testing.assert_allclose(values[:2], 0, atol=0.03)
    assert values[2] > 0.2


def test_gini_and_m20_of_even_light_and_of_a_point() -> None:
    inside = R < 10
    gini, m20 = gini_m20(np.ones((SIDE, SIDE), np.float32), inside)
    assert gini == pytest.approx(0, abs=1e-6)
    assert m20 > -1  # a fifth of the light has about a fifth of the moment
    gini, m20 = gini_m20(blob(width=1) + 0.03 * blob(width=6), inside)
    assert gini > 0.6
    assert m20 < -1.7


def test_sky_numbers_see_correlated_noise() -> None:
    white = noise((2, 5, SIDE, SIDE))
    along_x = (white + np.roll(white, 1, -1)) / np.sqrt(2)  # half of each pixel's noise is its neighbour's
    _, numbers = sky_numbers(along_x + np.float32(0.1), np.repeat(R[None] > 12, 2, 0))
    for band in "ugriz":
        np.testing.assert_allclose(numbers[f"corr_x_{band}"], 0.5, atol=0.06)
        np.testing.assert_allclose(numbers[f"corr_y_{band}"], 0, atol=0.06)
        np.testing.assert_allclose(numbers[f"level_{band}"], 0.1 / NOISE, rtol=0.05)
        np.testing.assert_allclose(10 ** numbers[f"noise_{band}"], NOISE, rtol=0.05)


def test_measures_a_galaxy_beside_its_neighbour() -> None:
    pytest.importorskip("sep")
    numbers = measure(cutouts(4))
    assert numbers.keys() == {*TITLES, "r"}
    assert all(np.isfinite(values).all() and values.shape == (4,) for values in numbers.values())
    np.testing.assert_array_equal(numbers["objects"], 1)
    np.testing.assert_allclose(numbers["r"], 22.5 - 2.5 * np.log10(5 * 2 * np.pi * 9 * 0.6), atol=0.03)
    np.testing.assert_allclose(numbers["g-r"], 0.5 * 2.5 * 0.4, atol=0.03)
    np.testing.assert_allclose(numbers["axis_ratio"], 0.6, atol=0.06)
    np.testing.assert_allclose(10 ** numbers["r50"], 2.7 * PIXEL, rtol=0.06)
    np.testing.assert_allclose(numbers["asymmetry"], 0, atol=0.03)


def test_matches_magnitudes_without_taking_one_twice() -> None:
    rng = np.random.default_rng(0)
    wanted, pool = rng.uniform(17, 20, 30), rng.uniform(16, 21, 2000)
    rows = real_sky.match(wanted, pool, 3, rng)
    assert len(set(rows)) == 90
    np.testing.assert_allclose(np.sort(pool[rows]), np.repeat(np.sort(wanted), 3), atol=0.05)


def test_area_under_the_curve_and_folds() -> None:
    real = np.arange(100) < 25
    assert auc(real, real.astype(float))[0] == 1
    assert auc(real, np.zeros(100)) == (0.5, pytest.approx(0.066, abs=0.002))
    fold = folds(real, 1)
    assert [(real & (fold == k)).sum() for k in range(5)] == [5] * 5


def test_trees_find_the_number_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setattr("telling_apart.REPEATS", 1)
    real = np.arange(120) < 40
    table = np.random.default_rng(0).standard_normal((120, 3))
    table[real, 1] += 2.5
    score, falls = tell_by_numbers(table, real, 1)
    assert auc(real, score)[0] > 0.9
    assert falls.argmax() == 1


def test_a_network_sees_what_differs() -> None:
    images, real = cutouts(40), np.arange(40) < 20
    images[real] *= 2
    assert auc(real, tell_by_pixels(views(images)["r alone"], real, 1, epochs=3))[0] > 0.9
