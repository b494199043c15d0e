"""What cutouts tell of themselves: noise, depth, brightness, centring. Wrong units or bands show in it.

Cutouts are arrays (n, bands, y, x) in nanomaggies, n > 0; `bands` has their names, a letter each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import median_abs_deviation, spearmanr

from photoz_lit.data.dust import EXTINCTION_PER_EBV
from photoz_lit.grids import Bools, Floats, Texts
from photoz_lit.report import limits

ZERO_POINT = 22.5  # mag of a nanomaggy
BY_WAVELENGTH = "ugrizy"
DEPTH_DIAMETER = 2.0  # arcsec
FEW = 20  # galaxies, too few for a correlation
SMOOTHING = 1.5  # pixels, before looking for a peak

Cutouts = NDArray[np.float32]


@dataclass(frozen=True)
class BandFacts:
    """What a band's n cutouts are like; medians over galaxies."""

    band: str
    noise: float  # standard deviation of a pixel, nanomaggies, from the border
    depth: float  # magnitude of 5 sigma in an aperture of 2 arcsec, without correlations between pixels
    sky: float  # level of the border, in units of the noise
    negative: float  # fractions of the pixels
    zero: float
    shift: tuple[float, float]  # of the median galaxy from the centre in x and y, pixels; NaN if too faint
    lowest: Floats  # (n,), lowest pixel of each cutout below its sky, in units of the noise
    blank: Bools  # (n,), whether all pixels are of one value
    plateau: tuple[float, int]  # highest value of all, and how many pixels have it


@dataclass(frozen=True)
class CutoutFacts:
    """What a sample of n cutouts is like."""

    bands: tuple[BandFacts, ...]
    reference: int  # index of the band that sets the aperture: r where there is one
    magnitudes: Floats  # (n, bands), in the Petrosian aperture of that band; NaN without positive flux
    seen: float  # fraction in which something stands out from the noise in that band
    off_centre: float  # median distance of that from the centre, pixels
    stack: Cutouts  # (bands, y, x), median


def measure(cutouts: Cutouts, bands: str, pixel_scale: float) -> CutoutFacts:
    """Measure a sample of cutouts with pixels of `pixel_scale` arcsec."""
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
    skies = np.median(images[:, _border(images.shape[-1])], axis=1)
    sky, pixels = float(np.median(skies)), np.pi * (DEPTH_DIAMETER / 2 / pixel_scale) ** 2
    least, most = images.min(axis=(1, 2)), images.max(axis=(1, 2))
    return BandFacts(
        band,
        noise,
        depth=ZERO_POINT - 2.5 * np.log10(5 * noise * np.sqrt(pixels)) if noise > 0 else np.inf,
        sky=sky / noise if noise > 0 else 0.0,
        negative=float((images < 0).mean()),
        zero=float((images == 0).mean()),
        shift=peak_shift(stack),
        lowest=(skies - least).astype(np.float64) / noise if noise > 0 else np.zeros(len(images)),
        blank=least == most,
        plateau=(float(most.max()), int((images == most.max()).sum())),
    )


def border_noise(images: Cutouts) -> float:
    """Return the noise of a pixel, the median of images (n, y, x): from the border's absolute deviation."""
    border = images[:, _border(images.shape[-1])].astype(np.float64)
    return float(1.4826 * np.median(median_abs_deviation(border, axis=1)))


def _border(pixels: int) -> Bools:
    """Return which pixels lie at the edge, far from the galaxy."""
    width = max(1, pixels // 10)
    border = np.ones((pixels, pixels), bool)
    border[width:-width, width:-width] = False
    return border


def petrosian_fluxes(cutouts: Cutouts, reference: int) -> Floats:
    """Return the flux (n, bands) within two Petrosian radii of the reference band, in whole pixels."""
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
    """Return where the brightest object lies from the centre in x and y, pixels; NaN if none stands out."""
    smooth = ndimage.gaussian_filter(np.asarray(image, np.float64), SMOOTHING)
    border = smooth[_border(len(smooth))]
    noise = 1.4826 * median_abs_deviation(border)
    smooth -= np.median(border)
    peak = np.unravel_index(np.argmax(smooth), smooth.shape)
    if not smooth[peak] > 5 * noise:
        return np.nan, np.nan
    labels, _ = ndimage.label(smooth > smooth[peak] / 2)
    y, x = ndimage.center_of_mass(smooth, labels, labels[peak])
    middle = (len(smooth) - 1) / 2
    return float(x - middle), float(y - middle)


@dataclass(frozen=True)
class Comparison:
    """Magnitudes in r (n,) measured on cutouts, corrected for ebv, against dered_petro_r of the table."""

    table: Floats
    measured: Floats
    offset: float  # median of measured - table, mag
    correlation: float  # of the ranks, NaN for few galaxies


def compare_r(facts: CutoutFacts, dered_petro_r: Floats, ebv: Floats) -> Comparison | None:
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


def suspicions(facts: CutoutFacts, comparison: Comparison | None, names: Texts) -> list[str]:
    """Say in words what looks wrong with a sample of cutouts, a sentence each; `names` are the galaxies'."""
    return [
        *([] if comparison is None else _table_suspicions(comparison)),
        *_brightness_suspicions(facts, comparison),
        *_centre_suspicions(facts),
        *_pixel_suspicions(facts),
        *_extreme_suspicions(facts, names),
    ]


def _table_suspicions(comparison: Comparison) -> Iterator[str]:
    if abs(offset := comparison.offset) > limits.OFFSET:
        side = "fainter" if offset > 0 else "brighter"
        zero_point = ZERO_POINT - offset
        unit, own = min(limits.ZERO_POINTS.items(), key=lambda item: abs(item[1] - zero_point))
        hint = f", as those in {unit} are" if abs(own - zero_point) < limits.OFFSET else ""
        yield (
            f"The cutouts are {abs(offset):.1f} mag {side} than dered_petro_r (median){hint}: are they in"
            f" nanomaggies (zero point {ZERO_POINT})? The table says data.zero_point={zero_point:.1f}."
        )
    if comparison.correlation < limits.CORRELATION:
        yield (
            "Galaxies that are bright in the table are not bright in the cutouts (rank correlation "
            f"{comparison.correlation:.2f}): do rows and cutouts belong together?"
        )


def _brightness_suspicions(facts: CutoutFacts, comparison: Comparison | None) -> Iterator[str]:
    band, own = facts.bands[facts.reference].band, facts.magnitudes[:, facts.reference]
    dark = float(np.isnan(own).mean())
    if dark > limits.DARK:
        yield f"{dark:.0%} of the galaxies have no positive flux at the centre in {band}."
    if comparison is None and dark < 1 and not limits.BRIGHT < (middle := np.nanmedian(own)) < limits.FAINT:
        yield (
            f"Galaxies have {middle:.1f} mag in {band} (median): are the cutouts in nanomaggies (zero point"
            f" {ZERO_POINT}), or is data.zero_point another?"
        )
    order = "".join(f.band for f in facts.bands)
    wrong = []
    for blue, red in pairwise(order.index(b) for b in BY_WAVELENGTH if b in order):
        colours = facts.magnitudes[:, blue] - facts.magnitudes[:, red]
        colours = colours[np.isfinite(colours)]
        if colours.size and (colour := float(np.median(colours))) < limits.COLOUR:
            wrong.append(f"{-colour:.1f} mag brighter in {order[blue]} than in {order[red]}")
    if wrong:
        yield (
            f"Galaxies are {', '.join(wrong)} (median), and should be brighter in redder bands: "
            f"are the bands in the order {order}?"
        )


def _centre_suspicions(facts: CutoutFacts) -> Iterator[str]:
    if facts.seen < 1 - limits.UNSEEN:
        band = facts.bands[facts.reference].band
        yield f"Nothing stands out from the noise in {1 - facts.seen:.0%} of the cutouts in {band}."
    elif facts.off_centre > limits.OFF_CENTRE:
        yield f"Galaxies lie {facts.off_centre:.1f} pixels off the centre of their cutouts (median)."
    else:
        for f in facts.bands:
            x, y = f.shift
            if np.hypot(x, y) > limits.OFF_CENTRE:
                yield f"Band {f.band} is shifted by {x:+.1f} pixels in x and {y:+.1f} in y.".replace("-", "−")


def _pixel_suspicions(facts: CutoutFacts) -> Iterator[str]:
    flat = [f.band for f in facts.bands if f.noise == 0]
    bright = [f.band for f in facts.bands if f.sky > limits.SKY]
    zero = [f.band for f in facts.bands if f.zero > limits.ZERO]
    positive = [f.band for f in facts.bands if f.negative < limits.NEGATIVE]
    for bands, words in (
        (flat, "have no noise at their border: are they masked or padded?"),
        (bright, "have a border brighter than its noise: is the sky subtracted?"),
        (zero, "have many pixels that are exactly zero: are they masked or padded?"),
        (positive, "have hardly any negative pixel: is the sky subtracted, and noise kept as it is?"),
    ):
        if bands:
            yield f"Cutouts in {', '.join(bands)} {words}"


def _extreme_suspicions(facts: CutoutFacts, names: Texts) -> Iterator[str]:
    """Name single cutouts that medians do not show."""
    for f in facts.bands:
        low, blank = np.flatnonzero(f.lowest > limits.FAR_BELOW), np.flatnonzero(f.blank)
        if low.size:
            yield (
                f"{low.size} of {len(names)} cutouts have pixels in {f.band} far below the sky, first"
                f" {f.lowest[low[0]]:.0f} times the noise in {names[low[0]]}: are they masked by a number?"
            )
        if blank.size:
            yield f"{blank.size} of {len(names)} cutouts are blank in {f.band}, first {names[blank[0]]}."
        value, count = f.plateau
        if count >= limits.PLATEAU and f.noise > 0 and value > limits.FAR_ABOVE * f.noise:
            yield (
                f"{count} pixels in {f.band} have the same value {value:g}, the highest of all: are they"
                " masked by a number, or saturated?"
            )
