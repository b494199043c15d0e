import numpy as np
import pytest

from photoz_lit.data.mock import scene as module
from photoz_lit.data.mock.instrument import PIXEL, SEEING, WIDE_OVER_NARROW, WIDE_SHARE
from photoz_lit.data.mock.profiles import PROFILES, SCALES
from photoz_lit.data.mock.scene import (
    MARGIN,
    Psf,
    Source,
    draw_scene,
    width_of_narrow_gaussian,
)

NOISE = 0.02  # nanomaggies: of a pixel in g, the least
PSF = Psf(SEEING / PIXEL, np.linspace(0.05, 0.2, 5), 1.2)


def galaxy(radius):
    """Return bulge, bar, dust lane and disc, two neighbours, a star and young stars."""
    flux = np.array([2.0, 8.0, 20.0, 30.0, 40.0], np.float32)
    map_ = np.random.default_rng(0).random((64 + 2 * MARGIN,) * 2).astype(np.float32) ** 8
    sources = [
        Source(flux, 31.3, 31.8, radius, 0.6, 0.4, "devaucouleurs"),
        Source(flux, 31.3, 31.8, 1.4 * radius, 0.3, 0.6, "exponential"),
        Source(-0.1 * flux, 31.0, 32.6, radius, 0.1, 0.6, "exponential"),
        Source(0.1 * flux, 31.3, 31.8, 0.5 * radius, 0.3, 1.5, "gaussian"),
        Source(0.05 * flux, 5.2, 60.1, 1.1, 0.5, 2.0, "exponential"),
        Source(0.05 * flux, 69.2, 20.1, 0.8, 0.9, 0.0, "exponential"),
        Source(0.05 * flux, 40.0, -6.0),
    ]
    return sources, (0.2 * flux, map_ / map_.sum())


def plain_scene(sources, extra, pixels, side):
    """Draw the scene by one transform of the whole grid, in double precision."""
    kx, ky = 2 * np.pi * np.fft.rfftfreq(side), 2 * np.pi * np.fft.fftfreq(side)[:, None]
    planes = []
    for s in sources:
        along = kx * np.cos(s.angle) + ky * np.sin(s.angle)
        across = s.axis_ratio * (ky * np.cos(s.angle) - kx * np.sin(s.angle))
        squared = (along**2 + across**2) * (s.radius * SCALES[s.profile]) ** 2
        transform = PROFILES[s.profile](squared) if s.profile in PROFILES else 1.0
        planes.append(s.flux[:, None, None] * transform * np.exp(-1j * (kx * s.x + ky * s.y)))
    if extra is not None:
        padded = np.zeros((side, side))
        reach = np.arange(-MARGIN, pixels + MARGIN)
        padded[np.ix_(reach, reach)] = extra[1]
        planes.append(extra[0][:, None, None] * np.fft.rfft2(padded))
    sigma = width_of_narrow_gaussian() * PSF.seeing[:, None, None]
    ratio = 1 - PSF.ellipticity[:, None, None]
    along, across = (
        kx * np.cos(PSF.angle) + ky * np.sin(PSF.angle),
        ky * np.cos(PSF.angle) - kx * np.sin(PSF.angle),
    )
    narrow = np.exp(-0.5 * sigma**2 * (along**2 / ratio + across**2 * ratio))
    psf = (1 - WIDE_SHARE) * narrow + WIDE_SHARE * narrow ** (WIDE_OVER_NARROW**2)
    pixel = np.sinc(kx / (2 * np.pi)) * np.sinc(ky / (2 * np.pi))
    return np.fft.irfft2(sum(planes) * psf * pixel, s=(side, side))[:, :pixels, :pixels]


@pytest.mark.parametrize(
    ("radius", "side", "split"),
    [(2.0, 80, False), (4.9, 96, False), (6.5, 128, True), (12.0, 256, True), (26.0, 512, True)],
)
def test_a_scene_is_the_transform_of_its_whole_grid(radius, side, split, monkeypatch):
    sources, extra = galaxy(radius)
    sides = []
    make_waves = module.make_waves
    monkeypatch.setattr(module, "make_waves", lambda *a: sides.append(a[0]) or make_waves(*a))
    scene = draw_scene(sources, PSF, 64, extra)
    assert sides == ([96, side] if split else [side])
    np.testing.assert_allclose(scene, plain_scene(sources, extra, 64, side), atol=5e-4 * NOISE, rtol=1e-5)


@pytest.mark.parametrize("pixels", [24, 33, 65])
def test_stamps_of_any_size(pixels):
    middle = (pixels - 1) / 2
    sources = [Source(np.ones(5, np.float32), middle + 0.3, middle - 0.2, 2.0, 0.5, 1.0, "exponential")]
    side = 80 if pixels + 2 * MARGIN <= 80 else 96
    map_ = np.random.default_rng(1).random((pixels + 2 * MARGIN,) * 2).astype(np.float32) / pixels**2
    extra = np.ones(5, np.float32), map_
    ours = draw_scene(sources, PSF, pixels, extra)
    np.testing.assert_allclose(ours, plain_scene(sources, extra, pixels, side), atol=1e-6)
