import numpy as np
import pytest

from photoz_lit.report.cutout_checks import (
    Comparison,
    compare_r,
    measure,
    peak_shift,
    petrosian_fluxes,
    suspicions,
)

PIXELS, SCALE = 64, 0.396
BANDS = "ugriz"
Y, X = np.indices((PIXELS, PIXELS)) - (PIXELS - 1) / 2
NOISE = np.array([0.05, 0.02, 0.03, 0.04, 0.1])
COLOURS = np.array([2.0, 0.8, 0.0, -0.4, -0.7])  # mag relative to r


def disc(x: float = 0.0, y: float = 0.0, width: float = 4.0) -> np.ndarray:
    """A Gaussian of flux 1."""
    return np.exp(-((X - x) ** 2 + (Y - y) ** 2) / (2 * width**2)) / (2 * np.pi * width**2)


def survey(n: int = 40, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Draw cutouts (n, 5, y, x) of galaxies in the middle, and their magnitudes in r."""
    rng = np.random.default_rng(4)
    r = rng.uniform(15, 18, n)
    flux = 10 ** (0.4 * (22.5 - r[:, None] - COLOURS))
    images = flux[..., None, None] * disc() + noise * NOISE[:, None, None] * rng.normal(
        size=(n, 5, PIXELS, PIXELS)
    )
    return images.astype(np.float32), r


def words(cutouts: np.ndarray, r: np.ndarray, bands: str = BANDS) -> str:
    facts = measure(cutouts.astype(np.float32), bands, SCALE)
    names = np.array([f"object_id {i}" for i in range(len(r))])
    return "\n".join(suspicions(facts, compare_r(facts, r, np.zeros(len(r))), names))


def test_right_cutouts_raise_no_suspicion_and_are_measured() -> None:
    cutouts, r = survey()
    assert words(cutouts, r) == ""
    facts = measure(cutouts, BANDS, SCALE)
    assert [f.noise for f in facts.bands] == pytest.approx(NOISE, rel=0.05)
    pixels_in_2_arcsec = np.pi / SCALE**2
    depth = 22.5 - 2.5 * np.log10(5 * NOISE * np.sqrt(pixels_in_2_arcsec))
    assert [f.depth for f in facts.bands] == pytest.approx(depth, abs=0.06)
    np.testing.assert_allclose(np.median(facts.magnitudes - r[:, None], axis=0), COLOURS, atol=0.05)
    assert facts.off_centre < 0.5
    assert facts.seen == 1.0


def test_a_gaussian_loses_nothing_in_two_petrosian_radii() -> None:
    image = disc()[None, None].astype(np.float32)
    np.testing.assert_allclose(petrosian_fluxes(image, 0), 1, atol=0.01)
    neighbour = disc(25, 0, 1.5)
    np.testing.assert_allclose(petrosian_fluxes(image + neighbour[None, None], 0), 1, atol=0.02)


def test_extinction_is_taken_out_before_comparing() -> None:
    cutouts, r = survey(noise=0.01)
    ebv = np.full(len(r), 0.1)
    comparison = compare_r(measure(cutouts, BANDS, SCALE), r - 0.2751, ebv)
    assert comparison is not None
    assert comparison.offset == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (1e-2, "5.0 mag fainter than dered_petro_r (median): are they in nanomaggies"),
        (2.0, "0.8 mag brighter than"),
        (3.631, "1.4 mag brighter than dered_petro_r (median), as those in microjansky are"),
        (3631, "8.9 mag brighter than dered_petro_r (median), as those in nanojansky are"),
        (3.631e-6, "13.6 mag fainter than dered_petro_r (median), as those in jansky are"),
        (10 ** (0.4 * 7.5), "data.zero_point=30.0."),
    ],
)
def test_wrong_units(factor: float, said: str) -> None:
    cutouts, r = survey()
    assert said in words(factor * cutouts, r).splitlines()[0]


@pytest.mark.parametrize("factor", [1e-5, 1e5])
def test_wrong_units_without_a_table(factor: float) -> None:
    cutouts, r = survey()
    magnitude = f"{np.median(r) - 2.5 * np.log10(factor):.1f}"
    said = words(factor * cutouts, np.full(len(r), np.nan))
    assert f"Galaxies have {magnitude} mag in r (median): are the cutouts in nanomaggies" in said


@pytest.mark.parametrize(
    ("value", "pixels", "said"),
    [
        (-9999.0, 1, "1 of 40 cutouts have pixels in r far below the sky, first"),
        (-99.0, 30, "far below the sky"),
        (-5.0, 1, "times the noise in object_id 7: are they masked by a number?"),
        (1e6, 30, "30 pixels in r have the same value 1e+06, the highest of all"),
        (65535.0, 12, "12 pixels in r have the same value 65535"),
        (1e6, 1, ""),  # one bright pixel is a star or a cosmic ray
    ],
)
def test_pixels_masked_by_a_number(value: float, pixels: int, said: str) -> None:
    cutouts, r = survey()
    cutouts[7, 2, 3, 2 : 2 + pixels] = value
    found = words(cutouts, r)
    assert said in found
    assert bool(found) == bool(said)


@pytest.mark.parametrize("value", [0.0, 0.5, -1.0])
def test_blank_cutouts(value: float) -> None:
    cutouts, r = survey()
    cutouts[[5, 9], 1] = value
    assert "2 of 40 cutouts are blank in g, first object_id 5." in words(cutouts, r)


def test_wrong_order_of_bands() -> None:
    cutouts, r = survey()
    said = words(cutouts[:, ::-1], r)
    assert "0.3 mag brighter in u than in g" in said
    assert "are the bands in the order ugriz?" in said
    swapped = words(cutouts[:, [0, 1, 2, 4, 3]], r)
    assert "Galaxies are 0.3 mag brighter in i than in z (median)" in swapped


def test_one_band_or_all_off_the_centre() -> None:
    cutouts, r = survey()
    one = cutouts.copy()
    one[:, 3] = np.roll(one[:, 3], (-5, 3), axis=(1, 2))
    assert words(one, r) == "Band i is shifted by +3.0 pixels in x and −5.0 in y."
    assert "Galaxies lie 5.0 pixels off the centre" in words(np.roll(cutouts, 5, axis=2), r)


def test_rows_that_do_not_belong_together() -> None:
    cutouts, r = survey()
    assert "do rows and cutouts belong together?" in words(np.roll(cutouts, 7, axis=0), r)


def test_sky_zeros_and_noise() -> None:
    cutouts, r = survey()
    assert "in z have a border brighter than its noise" in words(
        cutouts + np.array([0, 0, 0, 0, 0.2])[:, None, None], r
    )
    assert "hardly any negative pixel" in words(np.maximum(cutouts, 1e-3), r)
    padded = cutouts.copy()
    padded[..., :8] = padded[..., -8:] = padded[..., :8, :] = padded[..., -8:, :] = 0
    assert "no noise at their border" in words(padded, r)
    assert "exactly zero" in words(padded, r)
    empty = words(cutouts - 1000 * disc(), r)
    assert "no positive flux at the centre in r" in empty
    noise = words(np.random.default_rng(0).normal(size=cutouts.shape), r)
    assert "Nothing stands out from the noise" in noise


def test_surveys_without_r_are_compared_with_nothing() -> None:
    cutouts, r = survey(4)
    facts = measure(cutouts[:, 3:], "iz", SCALE)
    assert compare_r(facts, r, 0 * r) is None
    facts = measure(cutouts, BANDS, SCALE)
    assert compare_r(facts, np.full(4, np.nan), 0 * r) is None
    few = compare_r(facts, r, 0 * r)
    assert isinstance(few, Comparison)
    assert np.isnan(few.correlation)


def test_peak_of_noise_is_none() -> None:
    assert np.isnan(peak_shift(np.zeros((16, 16), np.float32))).all()
    assert peak_shift(disc(3, -2).astype(np.float32)) == pytest.approx((3, -2), abs=0.05)
