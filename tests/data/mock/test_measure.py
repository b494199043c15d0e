import numpy as np
import pytest

from photoz_lit.data.mock import measure as module
from photoz_lit.data.mock.instrument import EXTINCTION, PIXEL, SEEING, SKY
from photoz_lit.data.mock.measure import growth_curve, measure
from photoz_lit.data.mock.render import draw_noise
from photoz_lit.data.mock.scene import Psf, Source, draw_scene
from photoz_lit.data.mock.templates import BANDS

# A red galaxy: band - r, mag.
COLOURS = np.array([2.6, 0.9, 0.0, -0.4, -0.7])
STAR = np.array([0.2, 0.6, 1.0, 1.2, 1.3])
# A model's light ends at so many half-light radii: that much is missing, mag.
MISSING = {"exponential": 0.021, "devaucouleurs": 0.069}


def flux(r, colours=COLOURS):
    return (10 ** (-0.4 * (r + colours - 22.5))).astype(np.float32)


def draw(n, r, profile, arcsec, *, seed=1, noise=True, star=None):
    """Draw n galaxies of one kind, turned and inclined at will; a star is its r and distance in arcsec."""
    rng = np.random.default_rng(seed)
    places, ratios, angles, directions = rng.uniform(-0.5, 0.5, (2, n)), *rng.uniform(size=(3, n))
    cutouts = np.empty((n, 5, 64, 64), np.float32)
    for i, (x, y) in enumerate(places.T + 31.5):
        ratio, angle = 0.2 + 0.8 * ratios[i], np.pi * angles[i]
        sources = [Source(flux(r), x, y, arcsec / PIXEL, ratio, angle, profile)]
        if star:
            step = star[1] / PIXEL * np.exp(2j * np.pi * directions[i])
            sources.append(Source(flux(star[0], -2.5 * np.log10(STAR)), x + step.real, y + step.imag))
        cutouts[i] = draw_scene(sources, Psf(SEEING / PIXEL), 64)
        if noise:
            cutouts[i] += draw_noise(cutouts[i], SKY * PIXEL**2, rng)
    return cutouts, places


def take(cutouts, places=None, ebv=0.0):
    """Measure; return the table, magnitudes and errors (n, 5)."""
    n = len(cutouts)
    known = {} if places is None else {"x": places[0], "y": places[1]}
    columns = measure(cutouts, np.tile(SEEING, (n, 1)), np.tile(SKY, (n, 1)), np.full(n, ebv), **known)
    return columns, *(
        np.stack([columns[f"{name}_{b}"] for b in BANDS], axis=1) for name in ("mag", "mag_err")
    )


def test_columns():
    columns, _, _ = take(*draw(3, 17.0, "exponential", 2.0))
    names = [f"{name}_{b}" for name in ("mag", "mag_err") for b in BANDS]
    assert list(columns) == ["dered_petro_r", *names, "petro_r50", "petro_r90"]
    assert all(c.shape == (3,) and c.dtype == np.float64 and np.isfinite(c).all() for c in columns.values())
    assert list(take(np.empty((0, 5, 64, 64)))[0]) == list(columns)
    assert take(np.empty((0, 5, 64, 64)))[1].shape == (0, 5)


@pytest.mark.parametrize("profile", ["exponential", "devaucouleurs"])
@pytest.mark.parametrize("arcsec", [1.0, 2.5])
def test_model_magnitudes_without_noise(profile, arcsec):
    cutouts, places = draw(20, 17.0, profile, arcsec, noise=False)
    _, mag, _ = take(cutouts, places)
    np.testing.assert_allclose(mag - 17.0 - COLOURS, MISSING[profile], atol=0.025)
    colours = np.diff(mag, axis=1)
    np.testing.assert_allclose(colours, np.tile(np.diff(COLOURS), (20, 1)), atol=0.001)


def test_petrosian_of_an_exponential_disc():
    """The closed form without seeing: r_P = 2.16 R_e; r50 and r90 from the incomplete gamma function."""
    source = Source(np.full(5, 100, np.float32), 31.5, 31.5, 3.0 / PIXEL, profile="exponential")
    image = draw_scene([source], Psf(np.full(5, 0.1)), 64)[None]
    columns = measure(image, np.full((1, 5), 0.1 * PIXEL), np.tile(SKY, (1, 1)), np.zeros(1))
    assert columns["dered_petro_r"][0] == pytest.approx(22.5 - 5 + 0.006, abs=0.004)
    assert columns["petro_r50"][0] == pytest.approx(3.0 * 0.993, rel=0.01)
    assert columns["petro_r90"][0] == pytest.approx(3.0 * 2.28, rel=0.02)


@pytest.mark.parametrize(("profile", "arcsec"), [("exponential", 2.0), ("devaucouleurs", 1.5)])
def test_noise_biases_nothing_and_errors_are_right(profile, arcsec):
    cutouts, places = draw(150, 17.5, profile, arcsec)
    clean, _ = draw(150, 17.5, profile, arcsec, noise=False)
    columns, mag, error = take(cutouts, places)
    truth, expected, _ = take(clean, places)
    assert abs(np.mean(columns["dered_petro_r"] - truth["dered_petro_r"])) < 0.005
    assert np.abs(np.mean(mag - expected, axis=0)[1:]).max() < 0.005
    colours, pull = np.diff(mag - expected, axis=1), np.hypot(error[:, 1:], error[:, :-1])
    assert np.abs(np.mean(colours, axis=0)[1:]).max() < 0.004
    np.testing.assert_allclose(np.std(colours / pull, axis=0), 1.0, atol=0.2)
    assert 0.05 < np.median(error[:, 0]) < 0.2
    assert 0.003 < np.median(error[:, 2]) < 0.01


def test_neighbours_are_taken_away(monkeypatch):
    for star in ((17.0, 8.0), (15.0, 12.0)):
        cutouts, places = draw(40, 17.0, "exponential", 2.0, star=star)
        alone, _ = draw(40, 17.0, "exponential", 2.0)
        (columns, mag, _), (lonely, expected, _) = take(cutouts, places), take(alone, places)
        assert np.median(np.abs(mag - expected)[:, 2]) < 0.01
        assert np.mean(np.abs(mag - expected)[:, 2] < 0.03) > 0.8
        assert np.median(np.abs(columns["dered_petro_r"] - lonely["dered_petro_r"])) < 0.02
        with monkeypatch.context() as patch:
            patch.setattr(module, "deblend", lambda *_: None)
            assert np.median(np.abs(take(cutouts, places)[1] - expected)[:, 2]) > 0.1


def test_isolated_galaxies_stay_as_they_are(monkeypatch):
    cutouts, places = draw(40, 16.0, "exponential", 1.0)
    mag = take(cutouts, places)[1]
    monkeypatch.setattr(module, "deblend", lambda *_: None)
    np.testing.assert_allclose(mag, take(cutouts, places)[1], atol=0.002)


def test_centres_are_found():
    cutouts, places = draw(100, 17.5, "exponential", 2.0)
    (_, found, error), (_, known, _) = take(cutouts), take(cutouts, places)
    assert np.abs(np.mean(found - known, axis=0)).max() < 0.002
    assert np.mean(np.abs(found - known) < 0.3 * error) > 0.9


def test_growth_curve_agrees_with_sep():
    sep = pytest.importorskip("sep")
    cutouts, places = draw(5, 16.0, "devaucouleurs", 2.0, noise=False)
    x, y = places + 31.5
    curves = growth_curve(cutouts[:, 2], x, y)
    for i, radius in np.ndindex(5, 27):
        sums, _, _ = sep.sum_circle(cutouts[i, 2], x[i : i + 1], y[i : i + 1], 4.0 + radius, subpix=0)
        assert curves[i, 8 * (4 + radius)] == pytest.approx(sums[0], rel=1e-3)


def test_extinction_and_single_precision_do_what_they_should():
    cutouts, places = draw(3, 17.0, "exponential", 2.0)
    (plain, mag, _), (dusty, brighter, _) = take(cutouts, places), take(cutouts, places, ebv=0.1)
    np.testing.assert_allclose(mag - brighter, np.tile(0.1 * EXTINCTION, (3, 1)))
    np.testing.assert_allclose(plain["dered_petro_r"] - dusty["dered_petro_r"], 0.1 * EXTINCTION[2])
    np.testing.assert_allclose(take(cutouts.astype(np.float16), places)[1][:, 1:], mag[:, 1:], atol=0.002)


def test_no_galaxy_is_fainter_than_its_error():
    noise = np.random.default_rng(2).normal(0, 0.05, (20, 5, 64, 64)).astype(np.float32)
    columns, mag, error = take(noise)
    assert np.isfinite(mag).all()
    assert error.max() <= 2.5 / np.log(10) * 1.0001
    assert all(np.isfinite(c).all() for c in columns.values())


def test_galaxies_do_not_depend_on_their_company():
    cutouts, places = draw(70, 17.0, "exponential", 2.0)
    whole = take(cutouts, places)[0]
    for name, column in take(cutouts[60:], places[:, 60:])[0].items():
        np.testing.assert_allclose(column, whole[name][60:], rtol=1e-5)
