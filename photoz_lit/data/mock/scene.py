"""Sources through seeing and pixel, without noise: a scene is summed over wave vectors, in Fourier space.

The transform of an exponential disc is (1 + k^2 h^2)^(-3/2), that of a de Vaucouleurs bulge a tabulated
curve; an inclination is a linear map of the wave vector, a position is a phase, seeing and pixel are factors.
Bulge and disc are evaluated once and shared by the five bands.

The sum is that of a periodic grid whose sides are long enough for the galaxy. Only the stamp is wanted of it:
two matrix products over waves of either parity give it. Of a large galaxy the long waves alone need the long
period; the others are summed over a shorter one (after Ewald 1921, Ann. Phys. 369, 253).
"""

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import erfc

from photoz_lit.data.mock import instrument
from photoz_lit.data.mock.profiles import PROFILES, SCALES, exp_in_place
from photoz_lit.grids import Bools, Floats

Image = NDArray[np.float32]

# Sides of the grid, pixels. The smallest that holds so many half-light radii of bulge and disc serves:
# light that leaves on one side returns on the other, and must be faint by then.
GRIDS = (80, 96, 128, 160, 192, 256, 384, 512)
RADII_ON_GRID = {"devaucouleurs": 19.0, "exponential": 7.0, "gaussian": 5.0, "point": 0.0}
MARGIN = 8  # pixels around the stamp from which light still shines in
ALL = slice(None)  # bands

SPLIT_FROM = 128  # pixels: sides whose long waves are summed apart
CENTRAL = 6.0  # pixels from the middle of a stamp within which sources may be split
# Long waves end where the weight (1 - erf((k - 4 d) / d)) / 2 does; of the others, what returns from a
# distance r is less by exp(-(r d / 2)^2).
RETURNING = 17.0
RINGING = 0.007  # nanomaggies
FAINT = 13.0  # -ln of a flux, nanomaggies, that is lost in the noise by far


class Source(NamedTuple):
    """One component of a scene: a profile of `PROFILES`, or a point."""

    flux: Image  # (5,), nanomaggies, as observed
    x: float  # pixels from the centre of the first pixel
    y: float
    radius: float = 0.0  # half-light radius along the major axis, pixels
    axis_ratio: float = 1.0
    angle: float = 0.0  # of the major axis, rad, from x towards y
    profile: str = "point"


class Psf(NamedTuple):
    """Seeing and its shape, by band."""

    seeing: Floats  # (5,), full width at half maximum, pixels
    ellipticity: Floats | float = 0.0  # (5,), 1 - axis ratio
    angle: float = 0.0  # of the major axis, rad, from x towards y


class Waves(NamedTuple):
    """Wave vectors (kx, ky) and (kx, -ky) of a periodic grid, and cosines and sines of them at pixels."""

    kx: Image  # (K,), radians per pixel, from 0
    ky: Image  # (R, 1), from 0
    weight: Image  # (2, R, K), by the sign of ky: how often a wave counts, seen through a pixel
    window: Image  # (R, K), of sources of which only some waves are summed here
    to_y: Image  # (2, half the pixels, R), of a stamp's lines before its middle
    to_x: Image  # (2 K, pixels), with minus the sine
    of_y: Image  # (2 R, pixels), of a map that reaches `MARGIN` pixels further
    of_x: Image  # (pixels, 2 K)


Drawn = tuple[Sequence[Source], Psf, tuple[Image, Image] | None]  # what `draw_scene` takes


class Part(NamedTuple):
    """Sources of one scene, those of a profile together, points last."""

    kind: NDArray[Any]  # (n,), place in KINDS
    flux: NDArray[Any]  # (n, 5)
    place: NDArray[Any]  # (n, 2): x, y from the middle of the stamp, pixels
    form: NDArray[Any]  # (n, 3): (k times the radius)^2 is xx kx^2 + xy kx ky + yy ky^2
    split: NDArray[Any]  # (n,): of which only some waves are summed


KINDS = (*PROFILES, "point")


def draw_scene(
    sources: Sequence[Source], psf: Psf, pixels: int, extra: tuple[Image, Image] | None = None
) -> Image:
    """Draw sources through seeing and pixel: nanomaggies per pixel, (5, pixels, pixels), without noise.

    `extra` is a flux (5,) and a map of unit sum that reaches `MARGIN` pixels beyond the stamp.
    """
    return next(draw_scenes([(sources, psf, extra)], pixels))


def draw_scenes(scenes: Sequence[Drawn], pixels: int, bands: slice = ALL) -> Iterator[Image]:
    """Draw scenes as `draw_scene` does, one after the other; in some of the bands alone, the same there."""
    if not scenes:
        return
    sources = [s for scene in scenes for s in sorted(scene[0], key=lambda s: KINDS.index(s.profile))]
    of_scene = np.repeat(np.arange(len(scenes)), [len(scene[0]) for scene in scenes])
    seeing = width_of_narrow_gaussian() * np.array([psf.seeing for _, psf, _ in scenes])
    ratio = np.array([1 - psf.ellipticity + np.zeros_like(psf.seeing) for _, psf, _ in scenes])
    angle = np.array([[psf.angle] for _, psf, _ in scenes])
    psfs = (-0.5 * _forms(seeing / np.sqrt(ratio), ratio, angle)).astype(np.float32)  # of the same area
    sides, bases, split = _choose_grids(sources, of_scene, seeing, pixels)
    numbers = np.array([(*s[1:6], SCALES[s.profile]) for s in sources])
    whole = Part(
        np.array([KINDS.index(s.profile) for s in sources]),
        np.array([s.flux for s in sources], np.float32)[:, bands],
        (numbers[:, :2] - (pixels - 1) / 2).astype(np.float32),
        _forms(numbers[:, 2] * numbers[:, 5], numbers[:, 3], numbers[:, 4]).T.astype(np.float32),
        split,
    )
    ends = np.searchsorted(of_scene, np.arange(len(scenes) + 1)).tolist()
    for i, (start, stop) in enumerate(pairwise(ends)):
        part, psf, extra = Part(*(a[start:stop] for a in whole)), psfs[:, i, bands], scenes[i][2]
        extra = (extra[0][bands], extra[1]) if extra else None
        image = _sum_waves(make_waves(bases[i], bases[i], pixels), part, psf, extra)
        if part.split.any():
            few = Part(*(a[part.split] for a in part))
            image += _sum_waves(make_waves(sides[i], bases[i], pixels), few, psf)
        yield image


def _forms(radius: Floats, ratio: Floats, angle: Floats) -> Floats:
    """Return xx, xy, yy of (k times the radius)^2 in the frame of an ellipse, (3, ...)."""
    cosine, sine, q2 = np.cos(angle), np.sin(angle), ratio**2
    moments = cosine**2 + q2 * sine**2, 2 * cosine * sine * (1 - q2), sine**2 + q2 * cosine**2
    return np.asarray(radius**2 * np.stack(moments))


def _choose_grids(
    sources: Sequence[Source], of_scene: NDArray[np.intp], seeing: Floats, pixels: int
) -> tuple[list[int], list[int], Bools]:
    """Return the sides of each scene's grid, for all waves and for short ones, and which sources are split.

    What a split source sends would return on the grid of short waves; it lies in the middle. `seeing` is the
    width of the narrow Gaussian, pixels, by scene and band.
    """
    x, y, radius, ratio = np.array([s[1:5] for s in sources]).T
    flux, h, width = np.abs([s.flux for s in sources]), radius / instrument.EXPONENTIAL, seeing[of_scene]
    away = np.maximum(np.abs(x - (pixels - 1) / 2), np.abs(y - (pixels - 1) / 2))
    # What is still there at the shortest wave rings over the grid.
    edge = (flux * np.exp(-((np.pi * width) ** 2) / 2)).max(axis=1)
    rings = edge / (1 + (np.pi * h * ratio) ** 2) ** 1.5 > RINGING
    # Where exp(-r / h) through a Gaussian has faded; a point is as a disc that is hardly seen.
    loud, wide = (
        FAINT + np.log(np.maximum(flux.max(axis=1), 1)),
        instrument.WIDE_OVER_NARROW * width.max(axis=1),
    )
    h = np.maximum(h, wide / np.sqrt(2 * loud))
    period = (pixels - 1) / 2 + away + h * loud + wide**2 / (2 * h)
    period[rings | [s.profile in ("devaucouleurs", "gaussian") for s in sources]] = np.inf
    side, base = np.full(len(seeing), pixels + 2 * MARGIN), np.full(len(seeing), pixels + 4.0 * MARGIN)
    np.maximum.at(side, of_scene, np.ceil(radius * [RADII_ON_GRID[s.profile] for s in sources]).astype(int))
    np.maximum.at(base, of_scene, np.where((away < CENTRAL) & (radius > 0), 0, period))
    side, base = (np.array([*GRIDS, GRIDS[-1]])[np.searchsorted(GRIDS, a)] for a in (side, base))
    base = np.where(side < SPLIT_FROM, side, np.minimum(base, side))
    return side.tolist(), base.tolist(), (period > base[of_scene]) & (base < side)[of_scene]


@cache
def make_waves(side: int, base: int, pixels: int) -> Waves:
    """Return the waves of a periodic grid; if it is larger than the base, the long ones only.

    The windows of both grids sum to 1.
    """
    number = np.arange(side // 2 + 1)
    k = 2 * np.pi * number / side
    d = 2 * np.sqrt(RETURNING) / (base - pixels / 2)
    window = erfc((np.hypot(k, k[:, None]) - 4 * d) / d) / 2
    often = np.where((number == 0) | (2 * number == side), 1.0, 2.0)  # the others have a twin of opposite k
    # Zero is of both signs, the last of the negative one.
    by_sign = np.array([np.where(number == 0, 0.5, 2 * number < side), np.where(number == 0, 0.5, 1.0)])
    through = np.sinc(number / side)
    weight = (by_sign * through)[:, :, None] * (often * through) / side**2
    keep = slice(None) if side == base else slice(int(np.searchsorted(k, 8 * d)))
    window = 1 - window if side == base else np.where(window > 1e-12, window, 0)
    k, weight, window = k[keep], weight[:, keep, keep], window[keep, keep]
    of_stamp, of_map = (np.outer(k, np.arange(n) - (n - 1) / 2) for n in (pixels, pixels + 2 * MARGIN))
    turned = [np.concatenate([np.cos(a), np.sin(a)]) for a in (of_stamp, of_map)]
    to_x = np.concatenate([np.cos(of_stamp), -np.sin(of_stamp)])
    to_y = turned[0].reshape(2, len(k), pixels)[:, :, : (pixels + 1) // 2].transpose(0, 2, 1)
    arrays = (k, k[:, None], weight, window, to_y, to_x, turned[1], turned[1].T)
    return Waves(*(np.ascontiguousarray(a, np.float32) for a in arrays))


def _sum_waves(waves: Waves, part: Part, psf: Image, extra: tuple[Image, Image] | None = None) -> Image:
    """Return the light of sources, of split ones what passes the window, (5, pixels, pixels)."""
    n, rows, columns = len(part.kind), len(waves.ky), len(waves.kx)
    flux, count = part.flux, n + (extra is not None)
    # By source and sign of ky; real parts stand before the imaginary ones.
    planes = _memory("planes", count, 2, rows, 2 * columns)
    _draw_phases(part.place, waves, planes[:n])
    ends = np.searchsorted(part.kind, np.arange(len(KINDS))).tolist()
    if shaped := ends[-1]:
        profile = _quadratic(part.form[:shaped], waves)
        for (first, last), transform in zip(pairwise(ends), PROFILES.values(), strict=True):
            if first < last:
                transform(profile[first:last])
        if part.split.any():
            profile[part.split[:shaped]] *= waves.window
        of_profile = planes[:shaped].reshape(-1, 2, rows, 2, columns)
        of_profile *= profile[:, :, :, None]
    if extra is not None:
        flux = np.concatenate([flux, extra[0][None]])
        _transform_map(extra[1], waves, planes[n])
    total = _memory("total", flux.shape[1], 2, rows, 2, columns)
    np.matmul(flux.T, planes.reshape(count, -1), out=total.reshape(flux.shape[1], -1))
    total *= _transform_psf(psf.T, waves)[:, :, :, None]
    return _to_pixels(total, waves)


def _memory(name: str, *shape: int) -> Image:
    """Return memory, the same each time: new memory costs more than what is done with it."""
    size = math.prod(shape)
    if name not in _memories or _memories[name].size < size:
        _memories[name] = np.empty(2 * size, np.float32)
    return _memories[name][:size].reshape(shape)


_memories: dict[str, Image] = {}


def _draw_phases(place: Image, waves: Waves, out: Image) -> None:
    """Write exp(-i (kx x + ky y)) and exp(-i (kx x - ky y)) to (n, 2, R, 2 K)."""
    n, columns = len(place), len(waves.kx)
    x, y = place[:, :1] * waves.kx, place[:, 1:] * waves.ky[:, 0]
    of_x, of_y = np.empty((n, 1, 2, 2 * columns), np.float32), np.empty((n, 2, len(waves.ky), 2), np.float32)
    of_x[:, 0, 0, :columns] = of_x[:, 0, 1, columns:] = np.cos(x)
    np.sin(x, out=of_x[:, 0, 1, :columns])
    np.negative(of_x[:, 0, 1, :columns], out=of_x[:, 0, 0, columns:])
    of_y[..., 0] = np.cos(y)[:, None]
    np.sin(y, out=of_y[:, 1, :, 1])
    np.negative(of_y[:, 1, :, 1], out=of_y[:, 0, :, 1])
    np.matmul(of_y, of_x, out=out)


def _quadratic(form: Image, waves: Waves) -> Image:
    """Return xx kx^2 + xy kx ky + yy ky^2 of either sign of ky, (n, 2, R, K)."""
    xx, xy, yy = form.T[:, :, None, None]
    n, rows, columns = len(form), len(waves.ky), len(waves.kx)
    values, (even, odd) = _memory("form", n, 2, rows, columns), _memory("folded", 2, n, rows, columns)
    np.add(xx * waves.kx**2, yy * waves.ky**2, out=even)
    np.multiply(xy * waves.ky, waves.kx, out=odd)
    np.add(even, odd, out=values[:, 0])
    np.subtract(even, odd, out=values[:, 1])
    return values


def _transform_map(image: Image, waves: Waves, out: Image) -> None:
    """Write the transform of a map to (2, R, 2 K)."""
    rows, columns = len(waves.ky), len(waves.kx)
    (cc, sc), (cs, ss) = (waves.of_y @ image @ waves.of_x).reshape(2, rows, 2, columns).transpose(2, 0, 1, 3)
    out[0, :, :columns], out[1, :, :columns] = cc - ss, cc + ss
    out[0, :, columns:], out[1, :, columns:] = -cs - sc, sc - cs


def _to_pixels(total: Image, waves: Waves) -> Image:
    """Return what waves (5, 2, R, 2, K) sum to, (5, pixels, pixels); its lines mirror each other."""
    bands, _, rows, _, columns = total.shape
    half, pixels = waves.to_y.shape[1], waves.to_x.shape[1]
    even, odd = _memory("folded", 2, bands, rows, 2, columns)
    np.add(total[:, 0], total[:, 1], out=even)
    np.subtract(total[:, 1, :, 1], total[:, 0, :, 1], out=odd[:, :, 0])  # times i
    np.subtract(total[:, 0, :, 0], total[:, 1, :, 0], out=odd[:, :, 1])
    cosine, sine = _memory("halves", 2, bands, half, 2 * columns)
    np.matmul(waves.to_y[0], even.reshape(bands, rows, -1), out=cosine)
    np.matmul(waves.to_y[1], odd.reshape(bands, rows, -1), out=sine)
    lines = _memory("lines", bands, pixels, 2 * columns)
    np.add(cosine, sine, out=lines[:, :half])
    np.subtract(cosine, sine, out=lines[:, ::-1][:, :half])
    return np.asarray((lines.reshape(-1, 2 * columns) @ waves.to_x).reshape(bands, pixels, pixels))


@cache
def width_of_narrow_gaussian() -> float:
    """Return the standard deviation of the PSF's narrow Gaussian over the width at half maximum of both."""
    weights = np.array([1 - instrument.WIDE_SHARE, instrument.WIDE_SHARE / instrument.WIDE_OVER_NARROW**2])
    widths = np.array([1.0, instrument.WIDE_OVER_NARROW])
    half = brentq(lambda r: weights @ np.exp(-(r**2) / (2 * widths**2)) - weights.sum() / 2, 0.5, 3.0)
    return float(1 / (2 * half))


def _transform_psf(form: Image, waves: Waves) -> Image:
    """Return the transform of the point spread function, with the weight of waves, (5, 2, R, K)."""
    xx, xy, yy = form.T[:, :, None, None]
    shape = len(form), len(waves.ky), len(waves.kx)
    turn, round_ = _memory("turn", *shape), _memory("round", *shape)
    np.exp(np.multiply(xy * waves.ky, waves.kx, out=turn), out=turn)
    np.multiply(exp_in_place(yy * waves.ky**2), exp_in_place(xx * waves.kx**2), out=round_)
    narrow, wide, root = (_memory(name, shape[0], 2, *shape[1:]) for name in ("narrow", "wide", "root"))
    np.multiply(round_, turn, out=narrow[:, 0])
    np.divide(round_, turn, out=narrow[:, 1])
    np.maximum(narrow, 1e-8, out=wide)
    np.sqrt(wide, out=root)
    np.square(wide, out=wide)  # its power WIDE_OVER_NARROW^2, 5.5, over itself
    np.square(wide, out=wide)
    wide *= root
    wide *= np.float32(instrument.WIDE_SHARE)
    wide += np.float32(1 - instrument.WIDE_SHARE)
    narrow *= wide
    narrow *= waves.weight
    return narrow
