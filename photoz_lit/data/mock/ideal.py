"""What photons allow: the fluxes of bulge and disc with the least errors that any measurement can have.

A fit that knows the shape of both components, the seeing and the sky has the covariance of Cramer and Rao:
the inverse of the Fisher matrix. Here galaxies are circular, of their own area, and the noise is white.
"""

import numpy as np
from astropy.table import Table

from photoz_lit.data.mock import instrument
from photoz_lit.data.mock.profiles import PROFILES, SCALES
from photoz_lit.data.mock.render import by_band, sky_variance
from photoz_lit.data.mock.scene import width_of_narrow_gaussian
from photoz_lit.data.mock.templates import BANDS
from photoz_lit.grids import Floats

COMPONENTS = {"bulge": "devaucouleurs", "disc": "exponential"}
NODES = 48  # wave numbers
CHUNK = 2000  # galaxies
LEAST = 1e-3  # nanomaggies: what a magnitude may fall to


def add_ideal_columns(table: Table, seed: int) -> None:
    """Add ideal_mag_*, mag, and ideal_share_*, the bulge's share, dereddened, as photons alone scatter them.

    Row i depends on the seed and i only.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(3,)))
    unit = rng.standard_normal((len(table), len(BANDS), 2))
    dimming = 10 ** (-0.4 * instrument.EXTINCTION * np.asarray(table["ebv"])[:, None])
    flux = np.stack([by_band(table, f"true_{name}") for name in COMPONENTS], axis=2)
    error = np.linalg.cholesky(flux_covariance(table))
    fitted = flux + (error @ unit[..., None])[..., 0] / dimming[..., None]
    total = np.maximum(fitted.sum(axis=2), LEAST)
    share = np.clip(fitted[..., 0] / total, -1, 2)
    for j, band in enumerate(BANDS):
        table[f"ideal_mag_{band}"] = instrument.ZERO_POINT - 2.5 * np.log10(total[:, j])
        table[f"ideal_share_{band}"] = share[:, j]


def flux_covariance(table: Table) -> Floats:
    """Return the covariance of the fluxes of bulge and disc, as observed, nanomaggies^2, (n, 5, 2, 2)."""
    parts = [table[i : i + CHUNK] for i in range(0, len(table), CHUNK)]
    return np.concatenate([np.empty((0, len(BANDS), 2, 2)), *map(_flux_covariance, parts)])


def _flux_covariance(table: Table) -> Floats:
    node, weight = np.polynomial.legendre.leggauss(NODES)
    # Large galaxies live near zero: k = pi t^2.
    t = (node + 1) / 2
    k, weight = np.pi * t**2, np.pi * t * weight
    width = width_of_narrow_gaussian() * by_band(table, "true_seeing") / instrument.PIXEL
    narrow = np.exp(-0.5 * (width[..., None] * k) ** 2)
    wide = narrow ** (instrument.WIDE_OVER_NARROW**2)
    pixel = np.sinc(k / (2 * np.sqrt(2) * np.pi)) ** 2
    psf = pixel * ((1 - instrument.WIDE_SHARE) * narrow + instrument.WIDE_SHARE * wide)
    blurred = psf**2 * (weight * k / (2 * np.pi))  # (n, 5, k)
    transforms = []
    for name, profile in COMPONENTS.items():
        area = np.asarray(table[f"true_{name}_radius"]) ** 2 * np.asarray(table[f"true_{name}_axis_ratio"])
        scale = np.sqrt(area) / instrument.PIXEL * SCALES[profile]
        transforms.append(PROFILES[profile]((scale[:, None] * k) ** 2))
    profiles = np.stack(transforms, axis=1)  # (n, 2, k)
    overlap = np.einsum("njk,nak,nbk->njab", blurred, profiles, profiles, optimize=True)
    dimming = 10 ** (-0.4 * instrument.EXTINCTION * np.asarray(table["ebv"])[:, None])
    flux = np.stack([by_band(table, f"true_{name}") * dimming for name in COMPONENTS], axis=2)
    brightness = np.einsum("nja,njab,njb->nj", flux, overlap, flux) / flux.sum(axis=2)
    photon = instrument.NANOMAGGIES_PER_COUNT / instrument.GAIN
    variance = sky_variance(by_band(table, "true_sky") * instrument.PIXEL**2) + brightness * photon
    information = overlap / variance[..., None, None]
    # Components of one shape cannot be told apart: either may have all the light.
    information += np.eye(2) * (1 / np.maximum(flux.sum(axis=2), LEAST) ** 2)[..., None, None]
    return np.asarray(np.linalg.inv(information))
