"""The estimate for galaxies of given spec_z, on p(z) whose pull is known."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from photoz_lit.correction.finishing.link import Facts, Galaxies
from photoz_lit.correction.finishing.response import Response, check, fit, link_from, median_and_width
from photoz_lit.correction.settings import CorrectionConfig, Step3Config
from photoz_lit.errors import ConfigError
from photoz_lit.grids import Bools, Floats, MagnitudeSlices, RedshiftGrid
from photoz_lit.metrics import plain_slope

GRID = RedshiftGrid(0.0, 0.4, 80, 20, 20)
FACTS = Facts(GRID, MagnitudeSlices(14.0, 1.0, 3))
N = 20_000  # 68 % of so many scatter by 0.33 %, and so does the size of the errors, fitted to as many


def gaussian_pdf(mean: Floats, sigma: Floats | float) -> Floats:
    """p(z) (n, n_outputs) of Gaussians."""
    cdf = norm.cdf(GRID.edges, mean[:, None], np.broadcast_to(sigma, len(mean))[:, None])
    return np.asarray(np.diff(cdf, axis=1) + 1e-12)


def gaussians(seed: int) -> tuple[Floats, Floats, Floats]:
    """Exact posteriors of a Gaussian n(z) under noise of two sizes: p(z), spec_z, r."""
    rng = np.random.default_rng(seed)
    z, noise = rng.normal(0.2, 0.04, N), rng.choice([0.015, 0.03], N)
    pull = 0.04**2 / (0.04**2 + noise**2)
    mean = 0.2 + pull * (z + noise * rng.standard_normal(N) - 0.2)
    return gaussian_pdf(mean, np.sqrt(pull) * noise), z, rng.uniform(14, 17, N)


def curved(seed: int) -> tuple[Floats, Floats, Floats]:
    """Medians that follow spec_z in a curve, which rises everywhere."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(0.04, 0.36, N)
    m = 0.2 + 0.15 * np.tanh((z - 0.2) / 0.15) + 0.01 * rng.standard_normal(N)
    return gaussian_pdf(m, 0.01), z, rng.uniform(14, 17, N)


def deep(share: float, seed: int) -> tuple[Floats, Floats, Floats, Bools]:
    """Among sharp p(z), a share, which is told too, of two redshifts that cannot be told apart."""
    rng = np.random.default_rng(seed)
    z, lost = rng.uniform(0.05, 0.35, N), rng.random(N) < share
    two = gaussian_pdf(np.array([0.1, 0.3]), 0.02).mean(axis=0)
    sharp = gaussian_pdf(z + 0.01 * rng.standard_normal(N), 0.01)
    return np.where(lost[:, None], two, sharp), z, rng.uniform(14, 17, N), lost


def fitted(sample: tuple[Any, ...], strength: float = 1.0) -> Response:
    return fit(strength, Galaxies(*sample[:3], np.empty((N, 0), np.float32)), FACTS)


def honest(z: Floats, off: Floats, error: Floats) -> bool:
    """Whether estimates have no slope, within its error in fit and test together, and honest errors."""
    slope_err = np.sqrt(2) * off.std() / z.std() / np.sqrt(len(z))
    return abs(plain_slope(z, off)) < 3 * slope_err and 0.66 < np.mean(np.abs(off) < error) < 0.70


def test_gaussians_of_one_spec_z_are_in_the_mean_there_with_honest_errors() -> None:
    (pdf, z, r), link = gaussians(1), fitted(gaussians(2))
    estimate, error = link.individual(pdf, r)
    m, s = median_and_width(pdf, GRID)
    assert plain_slope(z, m - z) < -0.2
    assert link.curve.shape == (2, 0)
    for part in (s > 0, r < 15.5, s < s.mean(), s > s.mean()):
        assert honest(z[part], (estimate - z)[part], error[part])


def test_half_the_strength_is_half_the_way_within_the_survey() -> None:
    (pdf, z, r), half, whole = gaussians(1), fitted(gaussians(2), 0.5), fitted(gaussians(2))
    m, near, far = median_and_width(pdf, GRID)[0], *(link.individual(pdf, r)[0] for link in (half, whole))
    free = (far > 0) & (far < 0.4)  # not held at an end of the survey
    np.testing.assert_allclose((near - m)[free], 0.5 * (far - m)[free], atol=1e-12)
    assert 0.66 < np.mean(np.abs(near - z) < half.individual(pdf, r)[1]) < 0.70
    for link in (half, whole):
        np.testing.assert_array_equal(link.individual(np.eye(GRID.n_outputs)[[0, -1]])[0], [0.0, 0.4])


def test_a_curve_is_flattened_where_a_line_is_not_enough() -> None:
    (pdf, z, r), link = curved(1), fitted(curved(2))
    line, (estimate, error) = replace(link, curve=np.zeros((2, 0))), link.individual(pdf, r)
    part = np.digitize(z, np.linspace(0.04, 0.36, 9)[1:-1])
    off = [np.bincount(part, t - z) / np.bincount(part) for t in (line.individual(pdf, r)[0], estimate)]
    before, after = np.abs(off).max(axis=1)
    assert after < 0.3 * before
    assert 0.66 < np.mean(np.abs(estimate - z) < error) < 0.70
    assert (np.diff(link.curve) >= 0).all()


@pytest.mark.parametrize("share", [0.3, 0.7, 1.0])
def test_p_that_do_not_follow_spec_z_have_no_estimate(share: float, caplog: pytest.LogCaptureFixture) -> None:
    """And do not disturb sharp ones among them."""
    with caplog.at_level(logging.WARNING):
        link = fitted(deep(share, 2))
    assert ("hardly follow the truth" in caplog.text) == (share > 0.5)
    pdf, z, r, lost = deep(share, 1)
    estimate, error = link.individual(pdf, r)
    np.testing.assert_array_equal(np.isnan([estimate, error]), [lost, lost])
    np.testing.assert_array_equal(link(pdf, r), pdf)
    if share < 1:
        assert honest(z[~lost], (estimate - z)[~lost], error[~lost])


@pytest.mark.parametrize("sample", [gaussians, curved])
def test_arrays_hold_all_of_it_and_unknown_r_is_the_middle(sample: Any) -> None:
    pdf, r, link = sample(1)[0][:50], sample(1)[2][:50], fitted(sample(2), 0.7)
    again = link_from({name: np.asarray(values) for name, values in link.arrays().items()}, FACTS)
    np.testing.assert_array_equal(again.individual(pdf, r), link.individual(pdf, r))
    middle = link.individual(pdf, np.full(50, link.limits[0].mean()))
    np.testing.assert_array_equal(link.individual(pdf), middle)
    np.testing.assert_array_equal(link.individual(pdf, np.full(50, np.nan)), middle)


@pytest.mark.parametrize(
    ("finish", "said"),
    [
        *(([{"response": strength}], "above 0 up to 1") for strength in (0, 1.5, True, "x", None)),
        ([{"response": 1.0}, {"pit": "held_out"}], "put it last"),
        ([{"response": 0.5}, {"response": 1.0}], "put it last"),
    ],
    ids=str,
)
def test_no_share_and_another_place_than_the_last_are_refused(finish: list[Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check(finish[0]["response"], CorrectionConfig("mine", step3=Step3Config(), finish=finish))
