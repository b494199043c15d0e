"""Numbers that say what a galaxy and the sky around it look like, the same for real and simulated cutouts.

Cutouts are (n, 5, 64, 64), nanomaggies a pixel, bands u g r i z, with the galaxy in the middle. Needs sep.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

Floats = NDArray[np.float64]
Image = NDArray[np.float32]
Mask = NDArray[np.bool_]
Numbers = dict[str, Floats]

BANDS, PIXEL, SIDE = "ugriz", 0.396, 64
Y, X = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
R = np.hypot(X, Y)
STEP = 4  # radii a pixel
RADII = np.arange(4, 30 * STEP + 1) / STEP  # pixels, of circular apertures
APERTURES = np.clip(RADII[:, None, None] - R + 0.5, 0, 1).reshape(len(RADII), -1).astype(np.float32)
CORE, CORE_TOTAL, COLOUR = (np.argmin(np.abs(RADII - r)) for r in (1.5, 4.0, 3.0 / PIXEL))

TITLES = {
    **{f"{a}-{b}": f"{a} − {b} within 3″, mag" for a, b in zip("ugri", "griz", strict=True)},
    "gradient": "g − r inside less outside r50",
    "r50": "log r50, arcsec",
    "concentration": "5 log r80/r20",
    "axis_ratio": "axis ratio",
    "asymmetry": "asymmetry in r",
    "asymmetry_g": "asymmetry in g",
    "gini": "Gini, r",
    "m20": "M20, r",
    "clumpiness": "clumpiness, r",
    "neighbours": "log neighbours' flux in r, nmgy",
    "objects": "neighbours in the stamp",
    **{f"core_{b}": f"light in 1.5 over 4 px, {b}" for b in "griz"},
    **{f"level_{b}": f"sky level over noise, {b}" for b in BANDS},
    **{f"noise_{b}": f"log noise a pixel in {b}, nmgy" for b in BANDS},
    **{f"corr_x_{b}": f"noise correlation, x + 1, {b}" for b in BANDS},
    **{f"corr_y_{b}": f"noise correlation, y + 1, {b}" for b in BANDS},
}
NOISE = tuple(name for name in TITLES if name.startswith(("level", "noise", "corr")))


def segment(r: Image) -> tuple[Mask, Mask, Floats]:
    """Find what shines in stamps of the r band: the galaxy in the middle, others, and how many these are."""
    import sep

    galaxy, others, number = np.zeros(r.shape, bool), np.zeros(r.shape, bool), np.zeros(len(r))
    for i, stamp in enumerate(np.ascontiguousarray(r, np.float32)):
        sky = sep.Background(stamp, bw=SIDE, bh=SIDE)
        light = stamp - sky.globalback
        objects, labels = sep.extract(
            light, 2.0, err=sky.globalrms, minarea=6, deblend_cont=0.01, segmentation_map=True
        )
        away = np.hypot(objects["x"] - (SIDE - 1) / 2, objects["y"] - (SIDE - 1) / 2)
        own = 1 + int(away.argmin()) if len(away) and away.min() < 5 else -1
        galaxy[i], others[i] = labels == own, (labels > 0) & (labels != own)
        number[i] = len(objects) - (own > 0)
    return galaxy, others, number


def shift(images: Image, dx: Floats, dy: Floats) -> Image:
    """Move images (..., side, side) by fractions of a pixel, in Fourier space; what leaves comes back."""
    return np.asarray(fft.irfft2(fft.rfft2(images) * _phase(dx, dy), s=(SIDE, SIDE)))


def _phase(dx: Floats, dy: Floats) -> NDArray[np.complex64]:
    kx, ky = 2 * np.pi * fft.rfftfreq(SIDE), 2 * np.pi * fft.fftfreq(SIDE)
    along_x, along_y = np.exp(-1j * kx * dx[..., None]), np.exp(-1j * ky * dy[..., None])
    return (along_y[..., :, None] * along_x[..., None, :]).astype(np.complex64)


def asymmetry(images: Image, inside: Mask, rms: Floats) -> Floats:
    """Return the asymmetry under half a turn about the best centre (Lotz et al. 2004, AJ 128, 163, eq. 2).

    That of the noise is subtracted: two pixels of the sky differ by 2/sqrt(pi) rms on average.
    """
    turned = fft.rfft2(images[:, ::-1, ::-1])
    best, at = np.full(len(images), np.inf), np.zeros((2, len(images)))
    for step in (0.6, 0.2):
        middle = at.copy()
        for i, j in np.ndindex(3, 3):
            offset = middle + step * (np.array([[i], [j]]) - 1)
            other = fft.irfft2(turned * _phase(*offset), s=(SIDE, SIDE))
            value = np.where(inside, np.abs(images - other), 0).sum((1, 2))
            better = value < best
            best[better], at[:, better] = value[better], offset[:, better]
    noise = inside.sum((1, 2)) * rms * 2 / np.sqrt(np.pi)
    return np.asarray((best - noise) / np.where(inside, np.abs(images), 0).sum((1, 2)))


def gini_m20(image: Image, inside: Mask) -> tuple[float, float]:
    """Return Gini coefficient and M20 of a galaxy's pixels (Lotz et al. 2004, AJ 128, 163, eqs. 6 and 8)."""
    flux = np.abs(image[inside]).astype(float)
    order = np.argsort(flux)
    rank = np.arange(1, len(flux) + 1)
    gini = (2 * rank - len(flux) - 1) @ flux[order] / (flux.sum() * max(len(flux) - 1, 1))
    x, y = (axis[inside] - flux @ axis[inside] / flux.sum() for axis in (X, Y))
    moment = (flux * (x**2 + y**2))[order][::-1]
    brightest = np.cumsum(flux[order][::-1]) <= 0.2 * flux.sum()
    brightest[0] = True
    return float(gini), float(np.log10(moment[brightest].sum() / moment.sum()))


def sky_numbers(cutouts: Image, sky: Mask) -> tuple[Floats, Numbers]:
    """Return the sky's level (n, bands), and by name level, log rms, correlation of neighbouring pixels."""
    masked = np.where(sky[:, None], cutouts, np.nan).astype(float)
    level = np.nanmedian(masked, (2, 3))
    masked -= level[:, :, None, None]
    masked[np.abs(masked) > 6 * np.nanmedian(np.abs(masked), (2, 3), keepdims=True)] = np.nan  # 4 sigma
    variance = np.nanmean(masked**2, (2, 3))
    along_x = np.nanmean(masked[..., 1:] * masked[..., :-1], (2, 3)) / variance
    along_y = np.nanmean(masked[..., 1:, :] * masked[..., :-1, :], (2, 3)) / variance
    values = {
        "level": level / np.sqrt(variance),
        "noise": np.log10(variance) / 2,
        "corr_x": along_x,
        "corr_y": along_y,
    }
    return level, {f"{name}_{b}": v[:, i] for name, v in values.items() for i, b in enumerate(BANDS)}


def petrosian_radius(growth: Floats) -> Floats:
    """Return where the surface brightness is a fifth of that within, pixels, from the light within RADII."""
    inner, at, outer = RADII[: -2 * STEP], RADII[STEP:-STEP], RADII[2 * STEP :]
    local = (growth[:, 2 * STEP :] - growth[:, : -2 * STEP]) / (outer**2 - inner**2)
    below = local < 0.2 * growth[:, STEP:-STEP] / at**2
    return np.asarray(at[np.where(below.any(1), below.argmax(1), -1)])


def measure(cutouts: Image) -> Numbers:
    """Measure the galaxies of cutouts (n, 5, 64, 64): the numbers of `TITLES`, and r in mag, (n,) each."""
    galaxy, others, objects = segment(cutouts[:, 2])
    square = np.ones((1, 3, 3))
    sky = ~ndimage.binary_dilation(galaxy | others, square, iterations=4)
    level, numbers = sky_numbers(cutouts, sky & (R > 12))
    rms = np.stack([10 ** numbers[f"noise_{band}"] for band in BANDS], 1)
    light = (cutouts - level[:, :, None, None]).astype(np.float32)
    numbers["neighbours"] = np.log10(np.maximum(np.where(others, light[:, 2], 0).sum((1, 2)), 0.3))
    numbers["objects"] = objects
    # What belongs to others is replaced by what lies across the galaxy.
    hidden = ndimage.binary_dilation(others, square, iterations=2) & ~galaxy & (R > 3)
    across = np.where(hidden[:, None, ::-1, ::-1], 0, light[..., ::-1, ::-1])
    clean = np.where(hidden[:, None], across, light)
    at = np.zeros((2, len(clean)))
    for _ in range(5):  # the centroid under a narrow window moves half as far as the window
        window = (
            np.exp(-((X - at[0, :, None, None]) ** 2 + (Y - at[1, :, None, None]) ** 2) / 8) * clean[:, 2]
        )
        total = np.maximum(window.sum((1, 2)), 1e-3)
        moved = np.stack([(window * axis).sum((1, 2)) / total for axis in (X, Y)])
        at = np.clip(at + 2 * (moved - at), -3, 3)
    clean = shift(clean, -at[0][:, None], -at[1][:, None])
    growth = clean.reshape(*clean.shape[:2], -1) @ APERTURES.T  # (n, bands, radii)
    petrosian = petrosian_radius(growth[:, 2])
    return numbers | _light(growth, rms, petrosian) | _shapes(clean, rms, petrosian)


def _light(growth: Floats, rms: Floats, petrosian: Floats) -> Numbers:
    """Magnitude, colours and radii, from the light within RADII."""
    rows = np.arange(len(growth))
    r = growth[:, 2]
    total = np.maximum(r[rows, np.searchsorted(RADII, 2 * petrosian).clip(max=len(RADII) - 1)], 1e-2)
    reached = np.maximum.accumulate(r, 1) / total[:, None]
    r20, r50, r80 = np.array([np.interp((0.2, 0.5, 0.8), row, RADII) for row in reached]).T
    half, twice = (np.searchsorted(RADII, radius).clip(max=len(RADII) - 1) for radius in (r50, 2 * r50))
    inner = growth[rows, :, half]
    least = rms * np.sqrt(np.pi) * RADII[COLOUR]
    within, core, ring = (
        -2.5 * np.log10(np.maximum(light, least))
        for light in (growth[:, :, COLOUR], inner, growth[rows, :, twice] - inner)
    )
    sharp = (growth[:, :, CORE] / np.maximum(growth[:, :, CORE_TOTAL], 1e-2)).clip(0, 1)
    return {
        "r": 22.5 - 2.5 * np.log10(total),
        **{f"{BANDS[i]}-{BANDS[i + 1]}": within[:, i] - within[:, i + 1] for i in range(4)},
        "gradient": (core[:, 1] - core[:, 2]) - (ring[:, 1] - ring[:, 2]),
        "r50": np.log10(r50 * PIXEL),
        "concentration": 5 * np.log10(r80 / r20),
        **{f"core_{band}": sharp[:, i] for i, band in enumerate(BANDS) if band != "u"},
    }


def _shapes(clean: Image, rms: Floats, petrosian: Floats) -> Numbers:
    """Asymmetry, Gini, M20, axis ratio and clumpiness, of galaxies in the middle without neighbours."""
    r, edge = clean[:, 2], petrosian[:, None, None]
    wide = np.minimum(1.5 * edge, SIDE / 2 - 2) > R
    ring = np.abs(edge - R) < 1
    faintest = np.maximum(np.where(ring, r, 0).sum((1, 2)) / ring.sum((1, 2)), 0.5 * rms[:, 2])
    inside = (ndimage.gaussian_filter(r, (0, 1, 1)) > faintest[:, None, None]) & wide | (R < 3)
    gini, m20 = np.array([gini_m20(*pair) for pair in zip(r, inside, strict=True)]).T
    light = np.where(inside, np.maximum(r, 0), 0)
    xx, yy, xy = ((light * axis).sum((1, 2)) for axis in (X * X, Y * Y, X * Y))
    root = np.hypot(xx - yy, 2 * xy)
    # Light in what is narrower than 2 pixels, outside the core, less that of the sky.
    rough = np.maximum(r - ndimage.gaussian_filter(r, (0, 2, 2)), 0)
    ring = wide & (np.maximum(0.25 * edge, 3) < R)
    noise = 0.9 * rms[:, 2] / np.sqrt(2 * np.pi) * ring.sum((1, 2))
    return {
        "asymmetry": asymmetry(r, wide, rms[:, 2]),
        "asymmetry_g": asymmetry(clean[:, 1], wide, rms[:, 1]),
        "gini": gini,
        "m20": m20,
        "axis_ratio": np.sqrt((xx + yy - root) / (xx + yy + root)),
        "clumpiness": (np.where(ring, rough, 0).sum((1, 2)) - noise)
        / np.where(wide, np.abs(r), 0).sum((1, 2)),
    }
