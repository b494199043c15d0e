"""Noise of a galaxy's views: a function of the row and the view."""

import numpy as np
import torch

from photoz_lit.stages.embed import NOISE_BLOCK, row_noise


def test_noise_depends_on_row_and_view_alone() -> None:
    rows = np.arange(3 * NOISE_BLOCK)
    whole = row_noise(rows, 1, 5)
    some = rows[[0, 7, NOISE_BLOCK, 2 * NOISE_BLOCK + 3]]
    assert torch.equal(row_noise(some, 1, 5), whole[some])
    assert torch.equal(row_noise(some[::-1].copy(), 1, 5), whole[some[::-1].copy()])
    assert not torch.equal(row_noise(some, 2, 5), whole[some])


def test_noise_is_standard_normal() -> None:
    draws = row_noise(np.arange(20_000), 3, 5)
    assert abs(float(draws.mean())) < 0.02
    assert abs(float(draws.std()) - 1) < 0.02
