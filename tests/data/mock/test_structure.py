import numpy as np
import pytest

from photoz_lit.data.mock.structure import map_young_stars


def test_young_stars_have_unit_sum_and_two_arms():
    galaxy = {
        "true_disc_radius": 6.0,
        "true_disc_axis_ratio": 0.5,
        "true_disc_angle": 0.3,
        "true_arms": 2,
        "true_pitch": 0.3,
        "true_arm_phase": 0.0,
        "true_arm_contrast": 1.5,
        "true_clumps": 0.0,
        "true_lopsided": 0.0,
        "true_lopsided_angle": 0.0,
    }
    where = map_young_stars(galaxy, (127.5, 127.5), 256, 1.0, np.random.default_rng(0))
    assert where.sum() == pytest.approx(1, abs=0.005)
    assert where.min() >= 0
    np.testing.assert_allclose(
        where, where[::-1, ::-1], atol=1e-4 * where.max()
    )  # two arms, half a turn apart
    lopsided = galaxy | {"true_lopsided": 0.5}
    skewed = map_young_stars(lopsided, (127.5, 127.5), 256, 1.0, np.random.default_rng(0))
    assert skewed.sum() == pytest.approx(1, abs=0.005)
    assert np.abs(skewed - skewed[::-1, ::-1]).sum() > 0.2
