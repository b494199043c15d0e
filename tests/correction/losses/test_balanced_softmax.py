from typing import Any

import numpy as np
import pytest
import torch

from photoz_lit.correction.losses.balanced_softmax import Loss, Settings
from photoz_lit.correction.losses.functions import gate_cross_entropy, hard_label_loss
from photoz_lit.correction.losses.sample import Sample
from photoz_lit.errors import ConfigError
from photoz_lit.grids import RedshiftGrid


def test_logits_have_no_prior_left(minimised: Any) -> None:
    """Logits alike for all galaxies: a plain loss learns their n(z), the adjusted one that it is flat."""
    counts = torch.tensor([40, 30, 20, 10])
    z_bin = torch.repeat_interleave(torch.arange(4), counts)
    grid, member = RedshiftGrid(0.0, 0.4, 4), torch.ones(100, 1, dtype=torch.bool)
    slices = np.zeros(100, dtype=np.int64)
    sample = Sample(np.zeros((100, 1), np.float32), grid.centres[z_bin], slices, grid, np.ones((1, 1), bool))
    loss, batch = Loss(Settings(), sample), {"z_bin": z_bin, "member": member}
    start = torch.tensor([[[0.3, -0.2, 0.5, 0.0]]])
    flat = minimised(lambda x: loss((x.expand(100, 1, 4), None), batch), start)
    own = minimised(lambda x: hard_label_loss(x.expand(100, 1, 4), None, z_bin, member), start)
    torch.testing.assert_close(torch.softmax(flat, 2)[0, 0], torch.full((4,), 0.25), atol=4e-3, rtol=0)
    torch.testing.assert_close(torch.softmax(own, 2)[0, 0], counts / 100, atol=1e-3, rtol=0)


def test_loss_is_that_of_the_counts(problem: Any, train: Sample) -> None:
    """-log(n_y e^f_y / sum_k n_k e^f_k) in member outputs; outputs of others are plain."""
    (z_logits, gate_logits), batch = problem
    loss = Loss(Settings(), train)
    weighted = torch.from_numpy(np.exp(loss.log_prior)) * z_logits.exp()
    one_hot = torch.nn.functional.one_hot(batch["z_bin"], 5)[:, None].bool()
    balanced = -(weighted / weighted.sum(2, keepdim=True)).log().masked_select(one_hot).view(7, 3)
    uniform = -torch.log_softmax(z_logits, 2).mean(2)
    expected = torch.where(batch["member"], balanced, uniform).sum(1).mean()
    expected = expected + gate_cross_entropy(gate_logits, batch["member"])
    torch.testing.assert_close(loss((z_logits, gate_logits), batch), expected)


def test_each_output_has_the_prior_of_its_own_members(train: Sample) -> None:
    found = np.exp(Loss(Settings(), train).log_prior)
    for i, prior in enumerate(found):
        members = train.membership[train.r_slice, i]
        counts = np.bincount(train.z_bin[members], minlength=5)
        np.testing.assert_allclose(prior, (counts + 0.2) / (counts.sum() + 1), rtol=1e-6)


def test_implicit_prior_is_flat_in_each_slice(train: Sample) -> None:
    share = np.bincount(train.r_slice, minlength=5) / 60
    np.testing.assert_allclose(Loss(Settings(), train).implicit_prior(), np.outer(share, np.full(5, 0.2)))


def test_weights_would_balance_twice() -> None:
    Settings().check("none")
    with pytest.raises(ConfigError, match="balance twice"):
        Settings().check("lds")
