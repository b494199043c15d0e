"""What cutouts tell of themselves: noise, depth, brightness, centring. Wrong units or bands show in it."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import spearmanr

from photoz_lit.data.dust import EXTINCTION_PER_EBV

ZERO_POINT = 22.5  # mag of a nanomaggy
BY_WAVELENGTH = "ugrizy"
DEPTH_DIAMETER = 2.0  # arcsec
LARGE_OFFSET = 0.5  # mag between cutouts and table
FAR = 2.0  # pixels from the centre
FEW = 20  # galaxies, too few for a correlation
SMOOTHING = 1.5  # pixels, before looking for a peak

Values = NDArray[np.float64]
Cutouts = NDArray[np.float32]


@dataclass(frozen=True)
class BandFacts:
    """What a band's cutouts are like; medians over galaxies.

    Parameters
    ----------
    band : str
        Its name.
    noise : float
        Standard deviation of a pixel, nanomaggies, from the border's median absolute deviation.
    depth : float
        Magnitude of 5 sigma in an aperture of 2 arcsec, for noise without correlations between pixels.
    sky : float
        Level of the border, in units of the noise.
    negative, zero : float
        Fractions of the pixels.
    shift : (float, float)
        Where the median galaxy lies from the centre in x and y, pixels; NaN if too faint to tell.
    """

    band: str
    noise: float
    depth: float
    sky: float
    negative: float
    zero: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class CutoutFacts:
    """What a sample of cutouts is like.

    Parameters
    ----------
    bands : tuple of BandFacts
    reference : int
        Index of the band that sets the aperture: r where there is one.
    magnitudes : array (n, bands)
        In the Petrosian aperture of the reference band, mag; NaN without positive flux.
    seen : float
        Fraction of the cutouts in which something stands out from the noise in the reference band.
    off_centre : float
        Median distance of those from the centre in the reference band, pixels.
    stack : array (bands, y, x)
        Median of the cutouts.
    """

    bands: tuple[BandFacts, ...]
    reference: int
    magnitudes: Values
    seen: float
    off_centre: float
    stack: Cutouts


def measure(cutouts: Cutouts, bands: str, pixel_scale: float) -> CutoutFacts:
    """Measure a sample of cutouts.

    Parameters
    ----------
    cutouts : array (n, bands, y, x)
        Nanomaggies, n > 0.
    bands : str
        Names of the bands, a letter each.
    pixel_scale : float
        arcsec per pixel.

    Returns
    -------
    CutoutFacts
    """
    reference = bands.index("r") if "r" in bands else len(bands) // 2
    stack = np.median(cutouts, axis=0)
    facts = tuple(_band_facts(b, cutouts[:, i], stack[i], pixel_scale) for i, b in enumerate(bands))
    flux = petrosian_fluxes(cutouts, reference)
    magnitudes = ZERO_POINT - 2.5 * np.log10(np.where(flux > 0, flux, np.nan))
    distances = np.array([np.hypot(*peak_shift(image)) for image in cutouts[:, reference]])
    seen = np.isfinite(distances)
    off_centre = float(np.median(distances[seen])) if seen.any() else np.nan
    return CutoutFacts(facts, reference, magnitudes, float(seen.mean()), off_centre, stack)


def _band_facts(band: str, images: Cutouts, stack: Cutouts, pixel_scale: float) -> BandFacts:
    noise = border_noise(images)
    sky = float(np.median(images[:, _border(images.shape[-1])]))
    pixels = np.pi * (DEPTH_DIAMETER / 2 / pixel_scale) ** 2
    return BandFacts(
        band,
        noise,
        depth=ZERO_POINT - 2.5 * np.log10(5 * noise * np.sqrt(pixels)) if noise > 0 else np.inf,
        sky=sky / noise if noise > 0 else 0.0,
        negative=float((images < 0).mean()),
        zero=float((images == 0).mean()),
        shift=peak_shift(stack),
    )


def border_noise(images: Cutouts) -> float:
    """Return the noise of a pixel at the border, the median of images (n, y, x), in their unit."""
    border = images[:, _border(images.shape[-1])].astype(np.float64)
    deviation = np.abs(border - np.median(border, axis=1, keepdims=True))
    return float(1.4826 * np.median(np.median(deviation, axis=1)))


def _border(pixels: int) -> NDArray[np.bool_]:
    """Return which pixels lie at the edge, far from the galaxy."""
    width = max(1, pixels // 10)
    border = np.ones((pixels, pixels), bool)
    border[width:-width, width:-width] = False
    return border


def petrosian_fluxes(cutouts: Cutouts, reference: int) -> Values:
    """Return the flux within two Petrosian radii of the reference band, as SDSS does, in whole pixels.

    Parameters
    ----------
    cutouts : array (n, bands, y, x)
    reference : int
        Band that sets the aperture; it ends at the edge of the cutout.

    Returns
    -------
    array (n, bands)
        In the unit of the cutouts.
    """
    n, n_bands, pixels, _ = cutouts.shape
    y, x = np.indices((pixels, pixels)) - (pixels - 1) / 2
    ring = np.hypot(x, y).astype(np.int64)
    n_rings = max(2, pixels // 2)
    inside = ring < n_rings
    member = np.zeros((n_rings, pixels, pixels), np.float32)
    member[ring[inside], *np.nonzero(inside)] = 1
    sums = np.tensordot(cutouts, member, axes=([2, 3], [1, 2])).astype(np.float64)  # (n, bands, rings)
    area = member.sum(axis=(1, 2), dtype=np.float64)
    growth = np.cumsum(sums, axis=2)
    local, mean = sums[:, reference] / area, growth[:, reference] / np.cumsum(area)
    # The radius where the local surface brightness is a fifth of the mean within (Petrosian 1976).
    beyond = (local < 0.2 * mean) & (np.arange(n_rings) >= 2)
    radius = np.where(beyond.any(axis=1), beyond.argmax(axis=1), n_rings)
    last = np.minimum(2 * radius, n_rings) - 1
    return np.asarray(growth[np.arange(n)[:, None], np.arange(n_bands), last[:, None]])


def peak_shift(image: Cutouts) -> tuple[float, float]:
    """Return where the brightest object of an image lies from its centre in x and y, pixels.

    NaN if nothing stands out from the noise of the border.
    """
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float64), SMOOTHING)
    border = smooth[_border(len(smooth))]
    level = np.median(border)
    noise = 1.4826 * np.median(np.abs(border - level))
    smooth -= level
    peak = np.unravel_index(np.argmax(smooth), smooth.shape)
    if not smooth[peak] > 5 * noise:
        return np.nan, np.nan
    labels, _ = ndimage.label(smooth > smooth[peak] / 2)
    y, x = ndimage.center_of_mass(smooth, labels, labels[peak])
    middle = (len(smooth) - 1) / 2
    return float(x - middle), float(y - middle)


@dataclass(frozen=True)
class Comparison:
    """Magnitudes in r measured on cutouts, against those of the table.

    Parameters
    ----------
    table, measured : arrays (n,)
        dered_petro_r, and that of the cutouts corrected for ebv, mag; at least one.
    offset : float
        Median of measured - table, mag.
    correlation : float
        Spearman's, of the ranks; NaN for few galaxies.
    """

    table: Values
    measured: Values
    offset: float
    correlation: float


def compare_r(facts: CutoutFacts, dered_petro_r: Values, ebv: Values) -> Comparison | None:
    """Compare the cutouts' brightness in r with the table's (n,); None where no galaxy has both."""
    if facts.bands[facts.reference].band != "r":
        return None
    measured = facts.magnitudes[:, facts.reference] - EXTINCTION_PER_EBV["r"] * ebv
    known = np.isfinite(measured) & np.isfinite(dered_petro_r)
    if not known.any():
        return None
    table, measured = dered_petro_r[known], measured[known]
    varied = known.sum() >= FEW and np.ptp(table) > 0 and np.ptp(measured) > 0
    correlation = float(spearmanr(table, measured).statistic) if varied else np.nan
    return Comparison(table, measured, float(np.median(measured - table)), correlation)


def suspicions(facts: CutoutFacts, comparison: Comparison | None) -> list[str]:
    """Say in words what looks wrong, a sentence each.

    Parameters
    ----------
    facts : CutoutFacts
        Of a sample.
    comparison : Comparison, optional
        Of the same sample with its table.

    Returns
    -------
    list of str
        Empty if nothing does.
    """
    against_table = [] if comparison is None else _table_suspicions(comparison)
    return [
        *against_table,
        *_brightness_suspicions(facts),
        *_centre_suspicions(facts),
        *_pixel_suspicions(facts),
    ]


def _table_suspicions(comparison: Comparison) -> list[str]:
    found = []
    if abs(offset := comparison.offset) > LARGE_OFFSET:
        side = "fainter" if offset > 0 else "brighter"
        found.append(
            f"The cutouts are {abs(offset):.1f} mag {side} than dered_petro_r (median): "
            "are they in nanomaggies (zero point 22.5)?"
        )
    if comparison.correlation < 0.5:
        found.append(
            "Galaxies that are bright in the table are not bright in the cutouts (rank correlation "
            f"{comparison.correlation:.2f}): do rows and cutouts belong together?"
        )
    return found


def _brightness_suspicions(facts: CutoutFacts) -> list[str]:
    found = []
    dark = float(np.isnan(facts.magnitudes[:, facts.reference]).mean())
    if dark > 0.05:
        band = facts.bands[facts.reference].band
        found.append(f"{dark:.0%} of the galaxies have no positive flux at the centre in {band}.")
    order = "".join(f.band for f in facts.bands)
    known = [i for b in BY_WAVELENGTH if (i := order.find(b)) >= 0]
    wrong = []
    for blue, red in pairwise(known):
        colours = facts.magnitudes[:, blue] - facts.magnitudes[:, red]
        colours = colours[np.isfinite(colours)]
        if colours.size and (colour := float(np.median(colours))) < -0.1:
            wrong.append(f"{-colour:.1f} mag brighter in {order[blue]} than in {order[red]}")
    if wrong:
        found.append(
            f"Galaxies are {', '.join(wrong)} (median), and should be brighter in redder bands: "
            f"are the bands in the order {order}?"
        )
    return found


def _centre_suspicions(facts: CutoutFacts) -> list[str]:
    if facts.seen < 0.5:
        band = facts.bands[facts.reference].band
        return [f"Nothing stands out from the noise in {1 - facts.seen:.0%} of the cutouts in {band}."]
    if facts.off_centre > FAR:
        return [f"Galaxies lie {facts.off_centre:.1f} pixels off the centre of their cutouts (median)."]
    shifts = {f.band: f.shift for f in facts.bands if np.hypot(*f.shift) > FAR}
    return [
        f"Band {band} is shifted by {x:+.1f} pixels in x and {y:+.1f} in y.".replace("-", "−")
        for band, (x, y) in shifts.items()
    ]


def _pixel_suspicions(facts: CutoutFacts) -> list[str]:
    flat = [f.band for f in facts.bands if f.noise == 0]
    bright = [f.band for f in facts.bands if f.sky > 1]
    zero = [f.band for f in facts.bands if f.zero > 0.05]
    positive = [f.band for f in facts.bands if f.negative < 0.01]
    return [
        f"Cutouts in {', '.join(bands)} {words}"
        for bands, words in (
            (flat, "have no noise at their border: are they masked or padded?"),
            (bright, "have a border brighter than its noise: is the sky subtracted?"),
            (zero, "have many pixels that are exactly zero: are they masked or padded?"),
            (positive, "have hardly any negative pixel: is the sky subtracted, and noise kept as it is?"),
        )
        if bands
    ]
