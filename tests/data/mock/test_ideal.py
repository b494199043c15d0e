import numpy as np
import pytest

from photoz_lit.data.mock import instrument, render, scene
from photoz_lit.data.mock.ideal import COMPONENTS, add_ideal_columns, flux_covariance
from photoz_lit.data.mock.population import draw_galaxies
from photoz_lit.data.mock.templates import BANDS

G, R = BANDS.index("g"), BANDS.index("r")


@pytest.fixture(scope="module")
def galaxies():
    return draw_galaxies(3000, seed=3)


def covariance_on_pixels(row, j):
    """Of the fluxes of bulge and disc in band j: the Fisher matrix of the images that the renderer draws."""
    psf = scene.Psf(row["seeing"] / instrument.PIXEL, row["psf_ellipticity"], row["true_psf_angle"])
    place = [31.5 + row["true_x"], 31.5 + row["true_y"]]
    images = []
    for name, profile in COMPONENTS.items():
        shape = (row[f"true_{name}_radius"] / instrument.PIXEL, row[f"true_{name}_axis_ratio"])
        source = scene.Source(np.ones(5, np.float32), *place, *shape, row[f"true_{name}_angle"], profile)
        images.append(scene.draw_scene([source], psf, 64)[j].astype(float))
    flux = [row[name][j] * 10 ** (-0.4 * instrument.EXTINCTION[j] * row["ebv"]) for name in COMPONENTS]
    light = np.maximum(flux[0] * images[0] + flux[1] * images[1], 0)
    photon = instrument.NANOMAGGIES_PER_COUNT[j] / instrument.GAIN[j]
    variance = light * photon + render.sky_variance(row["sky"] * instrument.PIXEL**2)[j]
    return np.linalg.inv([[(a * b / variance).sum() for b in images] for a in images])


def test_errors_are_those_of_the_pixels(galaxies):
    few = galaxies[:40]
    found = flux_covariance(few)
    bands = {name: render.by_band(few, f"true_{name}") for name in render.BY_BAND}
    ratios = []
    for i, row in enumerate(few):
        own = dict(row) | {name: values[i] for name, values in bands.items()}
        for j in (G, R):
            true, ours = covariance_on_pixels(own, j), found[i, j]
            ratios.append([ours[0, 0] / true[0, 0], ours[1, 1] / true[1, 1], ours.sum() / true.sum()])
    np.testing.assert_allclose(np.sqrt(np.median(ratios, axis=0)), 1, atol=0.12)
    assert np.quantile(np.sqrt(ratios), 0.9) < 1.8


def test_columns_scatter_by_their_errors_around_the_truth(galaxies):
    for j in (G, R):
        band = BANDS[j]
        bulge, disc = (np.asarray(galaxies[f"true_{name}_{band}"]) for name in COMPONENTS)
        dimming = 10 ** (-0.4 * instrument.EXTINCTION[j] * np.asarray(galaxies["ebv"]))
        error = np.sqrt(flux_covariance(galaxies)[:, j].sum((1, 2))) / dimming
        fitted = 10 ** (-0.4 * (galaxies[f"ideal_mag_{band}"] - instrument.ZERO_POINT))
        pull = (fitted - bulge - disc) / error
        assert np.std(pull) == pytest.approx(1, abs=0.06)
        assert abs(np.mean(pull)) < 0.08
        share = galaxies[f"ideal_share_{band}"] - bulge / (bulge + disc)
        assert abs(np.median(share)) < 0.005


def test_rows_do_not_depend_on_how_many_there_are(galaxies):
    few = galaxies[:7].copy()
    add_ideal_columns(few, seed=3)
    np.testing.assert_allclose(few["ideal_share_u"], galaxies["ideal_share_u"][:7])
    add_ideal_columns(few, seed=4)
    assert not np.isclose(few["ideal_share_u"], galaxies["ideal_share_u"][:7]).any()
