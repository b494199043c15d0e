import numpy as np
import pytest
from scipy.stats import norm

from photoz_lit import metrics
from photoz_lit.correction.finishing.link import Facts, Galaxies
from photoz_lit.correction.finishing.unshrink import Unshrink, check, fit, median_and_width, moved
from photoz_lit.correction.settings import CorrectionConfig, Step3Config
from photoz_lit.errors import ConfigError
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 80, 80, 80)
SLICES = MagnitudeSlices(12.5, 0.5, 11)


def gaussian_pdf(mean: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """p(z) (n, n_outputs) of Gaussians."""
    cdf = norm.cdf(GRID.edges[None], mean[:, None], sigma[:, None])
    return np.diff(cdf, axis=1) / (cdf[:, -1:] - cdf[:, :1])


def gaussian_survey(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posteriors of a Gaussian n(z) under noise of two sizes: p(z), spec_z, r."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0.2, 0.05, n)
    noise = np.where(rng.random(n) < 0.5, 0.02, 0.04)
    seen = z + noise * rng.standard_normal(n)
    shrink = 0.05**2 / (0.05**2 + noise**2)
    pdf = gaussian_pdf(0.2 + shrink * (seen - 0.2), np.sqrt(shrink) * noise)
    return pdf, z, rng.uniform(14, 17.5, n)


def test_full_strength_undoes_the_pull_on_gaussians() -> None:
    pdf, z, _ = gaussian_survey(40_000, 1)
    m, s = median_and_width(pdf, GRID)
    before, after = (np.polyfit(z, p - z, 1)[0] for p in (m, Unshrink(1.0, 0.2, 0.05**2, GRID).photo_z(m, s)))
    assert before == pytest.approx(-0.26, abs=0.01)  # mean of 4/29 and 16/41
    assert abs(after) < 0.01


def test_strength_0_leaves_and_the_share_is_limited() -> None:
    m, s = np.array([0.1, 0.3]), np.array([0.02, 10.0])
    np.testing.assert_array_equal(Unshrink(0.0, 0.2, 0.01, GRID).photo_z(m, s), m)
    np.testing.assert_allclose(
        Unshrink(1.0, 0.2, 0.01, GRID).photo_z(m, s)[1], 0.4
    )  # twice as far, no further


def test_moved_pdf_keeps_its_shape_and_goes_where_it_should() -> None:
    pdf = gaussian_pdf(np.array([0.1, 0.2, 0.3]), np.array([0.01, 0.02, 0.03]))
    out = moved(pdf, np.array([3.0, -2.5, 0.0]))
    np.testing.assert_allclose(out[0, 3:], pdf[0, :-3], atol=1e-12)
    np.testing.assert_allclose(out[2], pdf[2], atol=1e-12)
    shift = metrics.median(out, GRID) - metrics.median(pdf, GRID)
    np.testing.assert_allclose(shift, np.array([3.0, -2.5, 0.0]) * GRID.width, atol=2e-5)
    np.testing.assert_allclose(out.sum(axis=1), 1)


def test_what_leaves_the_grid_gathers_at_its_end() -> None:
    out = moved(gaussian_pdf(np.array([0.2]), np.array([0.01])), np.array([1000.0]))
    np.testing.assert_allclose(out[0, -1], 1)


def test_median_of_the_moved_pdf_is_the_estimate() -> None:
    pdf, _, _ = gaussian_survey(200, 2)
    unshrink = Unshrink(0.8, 0.2, 0.05**2, GRID)
    np.testing.assert_allclose(
        metrics.median(unshrink(pdf), GRID),
        unshrink.photo_z(*median_and_width(pdf, GRID)),
        atol=GRID.width / 20,
    )


def fitted_to(pdf: np.ndarray, z: np.ndarray, r: np.ndarray, train: np.ndarray, rise: float) -> Unshrink:
    galaxies = Galaxies(pdf, z, r, np.empty((len(z), 0), np.float32))
    return fit(rise, galaxies, Facts(GRID, SLICES, spec_z_train=train))


@pytest.mark.parametrize("rise", [0.02, 0.1, 10.0])
def test_fit_goes_as_far_as_it_may(rise: float) -> None:
    pdf, z, r = gaussian_survey(20_000, 3)
    fitted = fitted_to(pdf, z, r, z, rise)
    m, s = median_and_width(pdf, GRID)
    scatter = [metrics.sigma_mad(metrics.residual(z, p)) for p in (m, fitted.photo_z(m, s))]
    assert scatter[1] <= (1 + rise) * scatter[0]
    if rise < 1:
        assert 0 < fitted.strength < 0.9
    else:  # only flatness stops it
        assert fitted.strength == pytest.approx(1, abs=0.15)


def test_equal_training_redshifts_are_refused() -> None:
    pdf, z, r = gaussian_survey(100, 4)
    with pytest.raises(ValueError, match="all the same"):
        fitted_to(pdf, z, r, np.full(10, 0.1), 0.1)


@pytest.mark.parametrize("rise", [0, -0.1, True, "much", None])
def test_a_rise_of_nothing_is_refused(rise: object) -> None:
    with pytest.raises(ConfigError, match="by which share sigma_mad may rise"):
        check(rise, CorrectionConfig("mine", step3=Step3Config()))


def test_room_beyond_the_survey_is_needed() -> None:
    with pytest.raises(ConfigError, match=r"correction\.step3\.extend=true"):
        check(0.07, CorrectionConfig("mine", step3=Step3Config(extend=False)))
