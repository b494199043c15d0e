"""Three lines of Python, against the networks that they run."""

import time

import pytest
from api_rate import rates

import photoz_lit


@pytest.mark.slow
def test_three_lines_keep_the_rate_of_the_encoders() -> None:
    """By the processor's time: tests run beside others."""
    predict, encoders = rates(photoz_lit.load("sdss_main"), 512, 5, time.process_time)
    assert predict > 0.8 * encoders
