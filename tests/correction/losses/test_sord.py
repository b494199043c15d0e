from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from photoz_lit.correction.labels import gaussian_labels
from photoz_lit.correction.losses.functions import galaxy_label_loss
from photoz_lit.correction.losses.sample import Sample
from photoz_lit.correction.losses.sord import Loss, Settings, ordinal_labels
from photoz_lit.errors import ConfigError
from photoz_lit.grids import RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 40)


def test_labels_are_the_gaussians_of_step_3() -> None:
    np.testing.assert_allclose(
        ordinal_labels(GRID, 2.5), gaussian_labels(np.arange(40), 2.5, GRID), atol=1e-12
    )


def test_a_small_width_is_one_hot() -> None:
    np.testing.assert_allclose(ordinal_labels(GRID, 0.02), np.eye(40), atol=1e-12)


def test_loss_is_that_of_the_labels_of_the_bins(problem: Any, train: Sample) -> None:
    logits, batch = problem
    loss = Loss(Settings(width=1.5), train)
    label = torch.from_numpy(ordinal_labels(train.grid, 1.5))[batch["z_bin"]]
    torch.testing.assert_close(loss(logits, batch), galaxy_label_loss(*logits, label, batch["member"]))


def test_implicit_prior_is_the_mean_label_by_slice(train: Sample) -> None:
    sample = replace(train, spec_z=train.grid.centres[[0, 0, 0, 4]], r_slice=np.array([1, 1, 3, 3]))
    table, expected = ordinal_labels(train.grid, 1.0), np.zeros((5, 5))
    expected[[1, 3]] = 0.5 * table[0], 0.25 * table[0] + 0.25 * table[4]
    np.testing.assert_allclose(Loss(Settings(), sample).implicit_prior(), expected)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="width=0 must be positive"):
        Settings(width=0).check("none")
