"""What a survey measures on the cutouts: magnitudes, errors and radii, as the pipeline of SDSS does.

The steps are those of `photo` (Lupton et al. 2001, ASPC 238, 269; Stoughton et al. 2002, AJ 123, 485): a
deblender that trusts in symmetry, Petrosian magnitudes (Strauss et al. 2002, AJ 124, 1810), and model
magnitudes: the better of an exponential and a de Vaucouleurs profile, fitted in r, of which the other bands
take the shape. The fit is done in Fourier space, where both profiles, seeing and pixel are known curves and a
galaxy about its centre is real: the few hundred modes that the seeing leaves hold all that a stamp says.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft2, rfft2
from scipy.ndimage import maximum_filter, uniform_filter
from scipy.special import gamma, gammainc

from photoz_lit.data.mock import instrument
from photoz_lit.data.mock.profiles import devaucouleurs_table, exp_in_place
from photoz_lit.data.mock.scene import ALL, Image, width_of_narrow_gaussian
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.grids import Bools, Floats

R = BANDS.index("r")
GRI = slice(R - 1, R + 2)
CHUNK = 64  # galaxies measured together; their modes stay in the processor's cache

# A pixel gives way to its mirror image when, smoothed, it is brighter by so many sigma of the noise and by
# this share of the mirror image's own light, within which real galaxies are lopsided.
SIGNIFICANT, LOPSIDED = 4.0, 0.5
GROWN = 2  # pixels around such a pixel that give way too: there the wings of a neighbour are

RADIUS_STEP = 0.125  # pixels, of growth curves
PETROSIAN_RATIO, PETROSIAN_APERTURE = 0.2, 2.0
ANNULUS = (0.8, 1.25)  # of the radius, where its surface brightness is taken

LARGEST_WAVENUMBER = 1.5  # radians per pixel; beyond, the seeing leaves little
# Half-light radii where the model's light ends: bulge, disc. `photo` lets it end from 7 to 8 and from 3 to 4.
MODEL_EDGES = 7.5, 3.5
STEPS = 6  # of Gauss and Newton, for each profile
LEAST_RADIUS, MOST_RADIUS, MOST_ELLIPTICITY = 0.2, 60.0, 0.97  # of profiles; pixels


class Modes(NamedTuple):
    """Wave vectors of a stamp below the largest wavenumber, all (m,); the first is zero."""

    side: int  # of the stamp, pixels
    place: NDArray[np.intp]  # in the flattened transform
    kx: Image  # radians per pixel
    ky: Image
    k2: Image
    cosine: Image  # kx^2 - ky^2
    sine: Image  # 2 kx ky
    often: Image  # square root of how often the mode counts
    pixel: Image  # transform of a pixel, times `often`


class Shape(NamedTuple):
    """An elliptical profile f(s) of s = size (k^2 + e1 (kx^2 - ky^2) + 2 e2 kx ky), all (n,)."""

    size: Image  # squared radius, pixels: mean of both axes; scale length (disc) or half-light radius (bulge)
    e1: Image
    e2: Image


def measure(
    cutouts: NDArray[np.floating],
    seeing: Floats,
    sky: Floats,
    ebv: Floats,
    *,
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    bands: slice = ALL,
) -> dict[str, Floats]:
    """Measure galaxies at the middle of their cutouts.

    Parameters
    ----------
    cutouts : (n, 5, pixels, pixels), nanomaggies per pixel, bands u g r i z or some, gri among them, no sky
    seeing, sky : (n, 5), FWHM in arcsec; nanomaggies per square arcsec
    ebv : (n,), mag; galactic extinction to remove
    x, y : (n,), pixels from the middle of the stamp, or None: found in g + r + i

    Returns
    -------
    Columns (n,): dered_petro_r, mag_u to mag_z (model magnitudes), mag_err_u to mag_err_z, all mag, and
    petro_r50, petro_r90 (arcsec, seeing included). Where the Petrosian aperture is larger than the stamp's
    largest circle, the fitted model says what lies outside.
    """
    parts = []
    for first in range(0, len(cutouts), CHUNK):
        rows = slice(first, first + CHUNK)
        images = np.array(cutouts[rows], np.float32)
        centre = None if x is None or y is None else np.stack([np.asarray(x)[rows], np.asarray(y)[rows]])
        parts.append(_measure_chunk(images, np.asarray(seeing)[rows], np.asarray(sky)[rows], centre, bands))
    if not parts:
        parts.append((*np.empty((2, 0, len(BANDS[bands]))), *np.empty((3, 0))))
    return _columns(np.asarray(ebv), bands, *(np.concatenate(part) for part in zip(*parts, strict=True)))


def _columns(
    ebv: Floats, bands: slice, flux: Floats, error: Floats, petro: Floats, r50: Floats, r90: Floats
) -> dict[str, Floats]:
    """Turn fluxes (nanomaggies) and radii (pixels) into the catalogue's columns."""
    extinction, r = instrument.EXTINCTION[bands] * ebv[:, None], BANDS[bands].index("r")
    # A magnitude needs a positive flux: no galaxy is fainter than one sigma.
    positive = np.maximum(flux, error)
    mag = instrument.ZERO_POINT - 2.5 * np.log10(positive) - extinction
    mag_err = 2.5 / np.log(10) * error / positive
    petro_r = instrument.ZERO_POINT - 2.5 * np.log10(np.maximum(petro, error[:, r])) - extinction[:, r]
    return {
        "dered_petro_r": petro_r,
        **{f"mag_{band}": mag[:, j] for j, band in enumerate(BANDS[bands])},
        **{f"mag_err_{band}": mag_err[:, j] for j, band in enumerate(BANDS[bands])},
        "petro_r50": r50 * instrument.PIXEL,
        "petro_r90": r90 * instrument.PIXEL,
    }


def _measure_chunk(
    images: Image, seeing: Floats, sky: Floats, centre: Floats | None, bands: slice
) -> tuple[Floats, ...]:
    """Return model fluxes and errors (n, 5), Petrosian flux, r50, r90 (pixels; (n,)); changes images."""
    count, gain = instrument.NANOMAGGIES_PER_COUNT, instrument.GAIN
    noise2 = sky * instrument.PIXEL**2 * count / gain + instrument.DARK_VARIANCE * count**2
    weight, r = (1 / np.sqrt(3 * noise2[:, GRI])).astype(np.float32), BANDS[bands].index("r")
    bright = np.einsum("nb,nbyx->nyx", weight, images[:, r - 1 : r + 2])
    x, y = (_find_centres(bright) if centre is None else centre) + (images.shape[-1] - 1) / 2
    deblend(images, bright, x, y)
    growth = growth_curve(images[:, r], x, y)
    pixels = images.shape[-1]
    aperture = PETROSIAN_APERTURE * _petrosian_radius(growth, pixels)
    inside = np.minimum(aperture, np.min([x, y, pixels - 1 - x, pixels - 1 - y], axis=0) + 0.5)
    petro = _flux_within(growth, inside)
    r50 = _radius_within(growth, 0.5 * petro)
    width, noise2 = seeing[:, bands] / instrument.PIXEL, noise2[:, bands]
    flux, error, half_light, bulge = _fit_models(images, x, y, width, noise2, r50, bands)
    petro *= np.divide(*(_share_within(radius, half_light, bulge)[0] for radius in (aperture, inside)))
    radii = (np.minimum(_radius_within(growth, share * petro), inside) for share in (0.5, 0.9))
    return flux, error, petro, *radii


def _find_centres(bright: Image) -> Floats:
    """Return centroids under a Gaussian window that follows them, pixels from the middle, (2, n)."""
    middle, half = bright.shape[-1] // 2, 8
    core = bright[:, middle - half : middle + half, middle - half : middle + half]
    grid = np.arange(2 * half) - half + 0.5 - (bright.shape[-1] % 2) / 2
    centre = np.zeros((2, len(bright)))
    for _ in range(8):
        offset = grid - centre[:, :, None]
        window = np.exp(-0.5 * (offset / 2.0) ** 2)
        in_x, in_y = np.stack([window, window * offset], axis=2)
        moments = in_y @ core @ in_x.transpose(0, 2, 1)
        # Twice: the window pulls the centroid half-way back.
        step = 2 * np.stack([moments[:, 0, 1], moments[:, 1, 0]]) / np.maximum(moments[:, 0, 0], 1e-3)
        centre = np.clip(centre + np.clip(step, -1, 1), -3, 3)
    return centre


def deblend(images: Image, bright: Image, x: Floats, y: Floats) -> None:
    """Replace, in place, what is much brighter than its mirror image about the centre (pixels) by that image.

    `bright` is the sum of g, r, i over its noise (n, pixels, pixels). The decision is taken once for all
    bands and on smoothed light, so that single pixels of noise are neither preferred nor avoided.
    """
    pixels = bright.shape[-1]
    # About the nearest half pixel; the edge of the stamp stands for what lies beyond.
    twice = np.rint(2 * np.stack([x, y])).astype(int)[:, :, None]
    mirror_x, mirror_y = np.clip(twice - np.arange(pixels), 0, pixels - 1)
    smooth = uniform_filter(bright, (0, 3, 3), mode="constant")
    row = np.arange(len(bright))[:, None, None]
    # Of the mirror image the brightest pixel around, because in a core a fraction of a pixel matters.
    around = maximum_filter(smooth, (1, 3, 3))
    partner = np.maximum(around[row, mirror_y[:, :, None], mirror_x[:, None]], 0)
    limit = np.float32(SIGNIFICANT * np.sqrt(2) / 3) + np.float32(LOPSIDED) * partner
    brighter = (smooth - partner > limit).astype(np.float32)
    i, j, k = np.nonzero(uniform_filter(brighter, (0, *[2 * GROWN + 1] * 2), mode="constant") > 0.01)
    images[i, :, j, k] = images[i, :, mirror_y[i, j], mirror_x[i, k]]


def growth_curve(image: Image, x: Floats, y: Floats) -> Floats:
    """Return the flux within circles of radius 0, 1, 2 ... RADIUS_STEP about the centre (pixels), (n, radii).

    A pixel enters linearly while the circle grows from half a pixel before its centre to half a pixel after.
    """
    n, pixels = len(image), image.shape[-1]
    dx, dy = (np.arange(pixels, dtype=np.float32) - c[:, None].astype(np.float32) for c in (x, y))
    across = round(1 / RADIUS_STEP)
    bins = int(pixels / np.sqrt(2) / RADIUS_STEP) + 4 * across
    # A twelfth of a square pixel: so the pixels' shares sum to the area of the circle.
    place = np.sqrt(dx[:, None] ** 2 + dy[:, :, None] ** 2 + np.float32(1 / 12)) / np.float32(RADIUS_STEP)
    index = (np.minimum(place.astype(np.int64), bins - 1) + bins * np.arange(n)[:, None, None]).ravel()
    curves = []
    for weights in (image.ravel(), None):
        rings = np.bincount(index, weights, n * bins).reshape(n, bins)
        inside = np.pad(np.cumsum(rings, axis=1, dtype=float), ((0, 0), (across // 2 + 1, 0)))
        summed = np.pad(np.cumsum((inside[:, 1:] + inside[:, :-1]) / 2, axis=1), ((0, 0), (1, 0)))
        curves.append((summed[:, across:] - summed[:, :-across]) / across)
    # To within the luck of where pixels lie, which the light at the edge makes good; not in the corners.
    (light, area), half = curves, across // 2
    missing = np.pi * (RADIUS_STEP * np.arange(area.shape[1])) ** 2 - area
    edge = (light[:, across:] - light[:, :-across]) / np.maximum(area[:, across:] - area[:, :-across], 1)
    light[:, half:-half] += edge * np.where(np.abs(missing) < 0.05 * area, missing, 0)[:, half:-half]
    return np.asarray(light)


@cache
def _petrosian_grid(pixels: int, radii: int) -> tuple[Floats, Floats]:
    """Return trial radii (pixels) and a matrix (radii, 3 trials): from growth curves to their circles."""
    trial = np.arange(2.0, 0.5 * pixels / ANNULUS[1], 0.25)
    place = np.concatenate([trial, ANNULUS[0] * trial, ANNULUS[1] * trial]) / RADIUS_STEP
    return trial, np.maximum(1 - np.abs(np.arange(radii)[:, None] - place), 0)


def _petrosian_radius(growth: Floats, pixels: int) -> Floats:
    """Return where the surface brightness has first sunk to a fifth of the mean inside, pixels, (n,).

    Radii whose annulus leaves the stamp are out of reach: the last one within stands for them.
    """
    trial, matrix = _petrosian_grid(pixels, growth.shape[1])
    inside, low, high = np.split(growth @ matrix, 3, axis=1)
    ratio = (high - low) / (ANNULUS[1] ** 2 - ANNULUS[0] ** 2) - PETROSIAN_RATIO * inside
    below = ratio <= 0
    last = np.where(below.any(axis=1), np.clip(below.argmax(axis=1), 1, None), len(trial) - 1)
    row = np.arange(len(growth))
    before, after = ratio[row, last - 1], ratio[row, last]
    share = np.where(before > np.maximum(after, 0), before / np.maximum(before - after, 1e-30), 1.0)
    return np.asarray(trial[last - 1] + np.clip(share, 0, 1) * (trial[last] - trial[last - 1]))


def _flux_within(growth: Floats, radius: Floats) -> Floats:
    place = np.minimum(radius / RADIUS_STEP, growth.shape[1] - 1.001)
    lower, row = place.astype(int), np.arange(len(growth))
    return np.asarray(growth[row, lower] + (place - lower) * (growth[row, lower + 1] - growth[row, lower]))


def _radius_within(growth: Floats, flux: Floats) -> Floats:
    """Return the radius that first holds a flux, pixels, (n,); where none does, the last."""
    reached = growth >= flux[:, None]
    after = np.where(reached.any(axis=1), np.clip(reached.argmax(axis=1), 1, None), growth.shape[1] - 1)
    row = np.arange(len(growth))
    low, high = growth[row, after - 1], growth[row, after]
    share = np.clip((flux - low) / np.maximum(high - low, 1e-30), 0, 1)
    return np.asarray((after - 1 + share) * RADIUS_STEP)


@cache
def _make_modes(pixels: int) -> Modes:
    kx, ky = (2 * np.pi * k for k in (np.fft.rfftfreq(pixels)[None], np.fft.fftfreq(pixels)[:, None]))
    k2 = kx**2 + ky**2
    index = np.flatnonzero(k2 < LARGEST_WAVENUMBER**2)
    often = np.where(kx > 0, 2.0, 1.0) / pixels**2  # by Parseval, sums over modes are sums over pixels
    pixel = np.sinc(kx / (2 * np.pi)) * np.sinc(ky / (2 * np.pi)) * np.sqrt(often)
    maps = (kx, ky, k2, kx**2 - ky**2, 2 * kx * ky, np.sqrt(often), pixel)
    chosen = (np.broadcast_to(a, k2.shape).ravel()[index].astype(np.float32) for a in maps)
    return Modes(pixels, index, *chosen)


def _observe(images: Image, x: Floats, y: Floats, modes: Modes) -> Image:
    """Return the modes of images about their centres: their real parts, (n, 5, m)."""
    spectrum = rfft2(images).reshape(*images.shape[:2], -1)[..., modes.place]
    angle = np.outer(x, modes.kx).astype(np.float32) + np.outer(y, modes.ky).astype(np.float32)
    cosine, sine = (f(angle)[:, None] * modes.often for f in (np.cos, np.sin))
    return np.asarray(spectrum.real * cosine - spectrum.imag * sine)


def _response(seeing: Floats, modes: Modes) -> Image:
    """Return the transform of seeing (FWHM, pixels, (n, 5)) and pixel, (n, 5, m)."""
    exponent = ((width_of_narrow_gaussian() * seeing) ** 2 / -2).astype(np.float32)[..., None] * modes.k2
    wide = np.float32(instrument.WIDE_SHARE)
    narrow = np.exp(exponent)
    exponent *= np.float32(instrument.WIDE_OVER_NARROW**2)
    return np.asarray(((1 - wide) * narrow + wide * exp_in_place(exponent)) * modes.pixel)


@cache
def _devaucouleurs_curve() -> tuple[float, float, Image]:
    """Return the first and the step of ln s, and the transform f and s df/ds at each, (2, points)."""
    ln_s, f = devaucouleurs_table()
    fine = np.arange(ln_s[0], ln_s[-1], 0.0025)
    curves = np.stack([np.interp(fine, ln_s, f), np.interp(fine, ln_s, np.gradient(f, ln_s))])
    return float(fine[0]), 0.0025, curves.astype(np.float32)


def _profile(s: Image, bulge: bool) -> tuple[Image, Image]:
    """Return the transform of the de Vaucouleurs or exponential profile, and its derivative by s."""
    if not bulge:
        one = 1 / (1 + s)
        f = one * np.sqrt(one)
        return np.asarray(f), np.asarray(np.float32(-1.5) * f * one)
    first, step, curves = _devaucouleurs_curve()
    s = np.maximum(s, np.float32(1e-6))
    place = ((np.log(s) - np.float32(first)) * np.float32(1 / step) + np.float32(0.5)).astype(np.int32)
    place = np.clip(place, 0, curves.shape[1] - 1)
    return np.asarray(curves[0][place]), np.asarray(curves[1][place] / s)


def _half_light(shape: Shape, bulge: Bools | bool) -> Floats:
    """Return half-light radii of the circles of the same area, pixels, (n,)."""
    circular = np.sqrt(np.maximum(1 - shape.e1**2 - shape.e2**2, 0))
    return np.asarray(np.sqrt(shape.size * circular) * np.where(bulge, 1.0, instrument.EXPONENTIAL))


def _share_within(radius: Floats | float, half_light: Floats, bulge: Bools | bool) -> tuple[Floats, Floats]:
    """Return the share of light within circles, and its derivative by ln(half-light radius), (n,)."""
    order, power = np.where(bulge, 8, 2), np.where(bulge, 0.25, 1.0)
    x = np.where(bulge, instrument.DEVAUCOULEURS, instrument.EXPONENTIAL) * (radius / half_light) ** power
    return np.asarray(gammainc(order, x)), np.asarray(-power * x**order * np.exp(-x) / gamma(order))


def _evaluate(shape: Shape, bulge: bool, modes: Modes) -> tuple[Image, Image, Image]:
    """Return of each mode (n, m) the profile f, its derivative by ln(size), and df/ds times size.

    The transform of a stamp wraps around, and light outside comes back, spread thin and evenly. What misses
    it in reality is taken from the mode that knows of even light, the first.
    """
    size, e1, e2 = (a[:, None] for a in shape)
    s = size * (modes.k2 + e1 * modes.cosine + e2 * modes.sine)
    f, slope = _profile(s, bulge)
    by_size = slope * s
    share, by_radius = _share_within(modes.side / np.sqrt(np.pi), _half_light(shape, bulge), bulge)
    f[:, 0], by_size[:, 0] = share, by_radius / 2
    return f, by_size, slope * size


def _fit_shape(data: Image, response: Image, modes: Modes, start: Shape, bulge: bool) -> tuple[Shape, Floats]:
    """Fit a profile to modes (n, m); return also the chi^2 that it explains (but for the noise, (n,)).

    Gauss and Newton step in ln(size), e1 and e2; the flux is always the best one.
    """
    unit = 1.0 if bulge else 1 / instrument.EXPONENTIAL
    low, high = ((unit * r) ** 2 for r in (LEAST_RADIUS, MOST_RADIUS))
    shape = start._replace(size=np.clip(start.size, low, high).astype(np.float32))
    columns = np.empty((len(data), 5, data.shape[1]), np.float32)
    columns[:, 4] = data
    for _ in range(STEPS):
        f, by_size, slope = _evaluate(shape, bulge, modes)
        slope *= response
        columns[:, 0], columns[:, 1] = f * response, by_size * response
        columns[:, 2], columns[:, 3] = slope * modes.cosine, slope * modes.sine
        shape = _step(shape, columns, low, high)
    model = _evaluate(shape, bulge, modes)[0] * response
    flux = np.maximum(np.einsum("nm,nm->n", model, data), 0)
    return shape, flux**2 / np.einsum("nm,nm->n", model, model)


def _step(shape: Shape, columns: Image, low: float, high: float) -> Shape:
    """Take one step by the model, its three derivatives at unit flux, and the data: columns (n, 5, m)."""
    product = (columns @ columns.transpose(0, 2, 1)).astype(np.float64)
    model2 = product[:, 0, 0]
    flux = np.maximum(product[:, 0, 4] / model2, 1e-3)
    # Without the part of each derivative that another flux would do.
    along = product[:, 0, 1:4] / model2[:, None]
    matrix = product[:, 1:4, 1:4] - along[:, :, None] * product[:, 0, None, 1:4]
    vector = product[:, 1:4, 4] - along * product[:, 0, None, 4]
    matrix = matrix * (1 + 0.01 * np.eye(3)) + 1e-9 * model2[:, None, None] * np.eye(3)
    move = np.linalg.solve(matrix, vector[:, :, None])[:, :, 0] / flux[:, None]
    d_size, d_e1, d_e2 = np.clip(move, [-0.8, -0.3, -0.3], [0.8, 0.3, 0.3]).T
    size = np.clip(shape.size * np.exp(d_size), low, high)
    e1, e2 = shape.e1 + d_e1, shape.e2 + d_e2
    shrink = np.minimum(1, MOST_ELLIPTICITY / np.maximum(np.hypot(e1, e2), 1e-9))
    return Shape(*(a.astype(np.float32) for a in (size, e1 * shrink, e2 * shrink)))


def _fit_models(
    images: Image, x: Floats, y: Floats, seeing: Floats, noise2: Floats, radius: Floats, bands: slice
) -> tuple[Floats, Floats, Floats, Bools]:
    """Return flux and error (n, 5), half-light radius (pixels; (n,)) and whether it is a bulge, (n,)."""
    pixels, r = images.shape[-1], BANDS[bands].index("r")
    modes = _make_modes(pixels)
    data, response = _observe(images, x, y, modes), _response(seeing, modes)
    # Seeing widens an image about so much.
    size = np.maximum(radius**2 - (0.6 * seeing[:, r]) ** 2, 0.5) / instrument.EXPONENTIAL**2
    start = Shape(size.astype(np.float32), np.zeros(len(size), np.float32), np.zeros(len(size), np.float32))
    disc, explained = _fit_shape(data[:, r], response[:, r], modes, start, bulge=False)
    start = disc._replace(size=disc.size * np.float32(instrument.EXPONENTIAL**2))
    spheroid, more = _fit_shape(data[:, r], response[:, r], modes, start, bulge=True)
    bulge = more > explained
    profiles = _evaluate(spheroid, True, modes)[0], _evaluate(disc, False, modes)[0]
    profile = np.where(bulge[:, None], *profiles)
    half_light = np.where(bulge, _half_light(spheroid, True), _half_light(disc, False))
    model = profile[:, None] * response
    area = 1 / np.einsum("nbm,nbm->nb", model, model)  # effective area of the fit, pixels
    flux = area * np.einsum("nbm,nbm->nb", model, data)
    photon = (instrument.NANOMAGGIES_PER_COUNT / instrument.GAIN)[bands]
    own = np.maximum(flux, 0) * photon * _concentration(model[:, r] / modes.often, pixels)[:, None]
    edge = np.where(bulge, *MODEL_EDGES) * half_light
    light = _share_within(edge, half_light, bulge)[0][:, None]
    return light * flux, light * np.sqrt(noise2 * area + own), half_light, bulge


def _concentration(model: Image, pixels: int) -> Floats:
    """Return sum m^3 / (sum m^2)^2 over the pixels of models given by modes: their weight for own photons."""
    spectrum = np.zeros((len(model), pixels * (pixels // 2 + 1)), np.complex64)
    spectrum[:, _make_modes(pixels).place] = model
    image = irfft2(spectrum.reshape(len(model), pixels, -1), s=(pixels, pixels))
    square = image * image
    return np.asarray(np.einsum("nyx,nyx->n", square, image) / np.einsum("nyx->n", square) ** 2, float)
