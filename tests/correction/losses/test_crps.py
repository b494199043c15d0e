from typing import Any

import numpy as np
import pytest
import torch

from photoz_lit import metrics
from photoz_lit.correction.losses.crps import Loss, Settings
from photoz_lit.correction.losses.functions import gate_cross_entropy, mixture
from photoz_lit.correction.losses.sample import Sample


def stepwise_crps(pdf: Any, k: Any) -> Any:
    """CRPS in bins, F being constant within a bin, where the metrics integrate straight lines."""
    reached = np.arange(pdf.shape[1]) >= k[:, None]
    return ((metrics.cumulative(pdf)[:, 1:] - reached) ** 2).sum(axis=1)


def test_it_is_that_of_steps(problem: Any, train: Sample) -> None:
    (z_logits, gate_logits), batch = problem
    loss, k = Loss(Settings(), train), batch["z_bin"].numpy()
    score = stepwise_crps(mixture(z_logits, gate_logits).numpy(), k)
    found = loss((z_logits, gate_logits), batch) - gate_cross_entropy(gate_logits, batch["member"])
    assert found.item() == pytest.approx(score.mean(), rel=1e-5)
    weight = torch.arange(7.0)
    single = stepwise_crps(torch.softmax(z_logits[:, 0], 1).numpy(), k)
    found = loss((z_logits[:, :1], None), batch | {"weight": weight})
    assert found.item() == pytest.approx((weight.numpy() * single).mean(), rel=1e-5)


def test_it_is_least_where_pdf_is_the_distribution_of_labels(minimised: Any, train: Sample) -> None:
    counts = torch.tensor([10, 40, 30, 20])
    batch = {
        "z_bin": torch.repeat_interleave(torch.arange(4), counts),
        "member": torch.ones(100, 1, dtype=torch.bool),
    }
    loss = Loss(Settings(), train)
    logits = minimised(lambda x: loss((x.expand(100, 1, 4), None), batch), torch.zeros(1, 1, 4))
    torch.testing.assert_close(torch.softmax(logits, 2)[0, 0], counts / 100, atol=2e-3, rtol=0)


def test_it_costs_more_the_farther_a_miss(train: Sample) -> None:
    logits = 20 * torch.nn.functional.one_hot(torch.tensor([3, 5]), 9)[:, None].float()
    batch = {"z_bin": torch.tensor([2]), "member": torch.ones(1, 1, dtype=torch.bool)}
    near, far = (Loss(Settings(), train)((row[None], None), batch).item() for row in logits)
    assert far == pytest.approx(3 * near, rel=1e-3)
