"""The calibration of the simulated survey: what it compares, what it moves, and where to."""

import calibrate_survey
import numpy as np
import pytest
from calibrate_survey import ARRAYS, Parameter, pack, restoring, unpack

N, SHIFT = 500, 0.05
SHIFTED = [Parameter("BAND_CORRECTIONS", (1, 1, 0), 0.02)]  # g - r of the later types, mag


def test_numbers_are_set_and_given_back() -> None:
    every = (*calibrate_survey.POPULATIONS, *calibrate_survey.IN_BANDS, *calibrate_survey.SMOOTH)
    arrays = {name: values.copy() for name, values in ARRAYS.items()}
    with restoring(every):
        unpack(every, moved := np.arange(len(every), dtype=float))
        np.testing.assert_array_equal(pack(every), moved)  # no two share a place
    for name, values in arrays.items():
        np.testing.assert_array_equal(ARRAYS[name], values)


@pytest.mark.slow
def test_a_sample_is_like_itself_and_a_fit_finds_what_differs() -> None:
    pytest.importorskip("sklearn")
    survey = calibrate_survey.Survey(np.arange(N), np.random.default_rng(0).normal(0, 0.02, (N, 5)))
    old = pack(SHIFTED)
    with restoring(SHIFTED):
        unpack(SHIFTED, old + SHIFT)
        sample = survey.draw()
    comparison = calibrate_survey.Comparison(sample, resamplings=10)
    np.testing.assert_array_equal(comparison.residuals(sample), 0)
    assert np.square(comparison.residuals(survey.draw())).sum() > 1
    found = calibrate_survey.fit(comparison, survey.draw, SHIFTED, steps=2)
    np.testing.assert_allclose(found, old + SHIFT, atol=0.01)
    np.testing.assert_array_equal(pack(SHIFTED), old)
