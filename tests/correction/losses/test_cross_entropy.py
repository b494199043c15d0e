from dataclasses import replace
from typing import Any

import numpy as np
import torch

from photoz_lit.correction.losses.cross_entropy import Loss, Settings
from photoz_lit.correction.losses.functions import hard_label_loss
from photoz_lit.correction.losses.sample import Sample


def test_it_is_the_one_hot_loss_with_weights(problem: Any, train: Sample) -> None:
    logits, batch = problem
    loss = Loss(Settings(), train)
    assert loss.columns(train) == {}
    expected = hard_label_loss(*logits, batch["z_bin"], batch["member"])
    assert torch.equal(loss(logits, batch), expected)
    weight = torch.arange(7.0)
    expected = hard_label_loss(*logits, batch["z_bin"], batch["member"], weight)
    assert torch.equal(loss(logits, batch | {"weight": weight}), expected)


def test_implicit_prior_is_the_weighted_n_of_z_by_slice(train: Sample) -> None:
    counts = np.bincount(train.r_slice * 5 + train.z_bin, minlength=25).reshape(5, 5)
    np.testing.assert_allclose(Loss(Settings(), train).implicit_prior(), counts / 60)
    weight = np.where(train.z_bin == 2, 3.0, 1.0).astype(np.float32)
    counts[:, 2] *= 3
    found = Loss(Settings(), replace(train, weight=weight)).implicit_prior()
    np.testing.assert_allclose(found, counts / counts.sum())
