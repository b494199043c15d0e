from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from photoz_lit.correction.losses.functions import hard_label_loss
from photoz_lit.correction.losses.sample import Sample
from photoz_lit.correction.losses.trend import Loss, Settings, trend_penalty
from photoz_lit.errors import ConfigError


def test_it_is_cross_entropy_and_the_penalty(problem: Any, train: Sample) -> None:
    logits, batch = problem
    loss = Loss(Settings(strength=3.0), train)
    np.testing.assert_array_equal(loss.columns(train)["spec_z"], train.spec_z.astype(np.float32))
    spec_z = torch.linspace(0, 0.5, 7)
    plain = hard_label_loss(*logits, batch["z_bin"], batch["member"])
    penalty = trend_penalty(*logits, spec_z, torch.from_numpy(train.grid.centres).float())
    torch.testing.assert_close(loss(logits, batch | {"spec_z": spec_z}), plain + 3 * penalty)
    assert Loss(Settings(strength=0.0), train)(logits, batch | {"spec_z": spec_z}).item() == plain.item()


def test_a_strength_below_0_is_refused() -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        Settings(strength=-1.0).check("none")


def test_trend_is_the_slope_of_the_residuals() -> None:
    """Sharp p(z) at 0.3 + a (z - 0.3) have the slope a - 1."""
    centres = torch.linspace(0.0, 0.6, 61)
    spec_z = centres[5:56:5]
    for a in (1.0, 0.8, 0.0):
        at = (0.3 + a * (spec_z - 0.3)).mul(100).round().long()
        logits = 100 * torch.nn.functional.one_hot(at, 61)[:, None].float()
        assert trend_penalty(logits, None, spec_z, centres).item() == pytest.approx((a - 1) ** 2, abs=1e-6)
    alone = trend_penalty(logits[:3], None, torch.full((3,), 0.2), centres)
    assert alone.item() == 0


def test_penalty_removes_the_pull_towards_the_mean(minimised: Any) -> None:
    """A linear fit to noisy inputs is attenuated by 1/2; with the penalty its residuals have little trend."""
    generator = torch.Generator().manual_seed(7)
    spec_z = 0.3 + 0.05 * torch.randn(2000, generator=generator)
    measured = (spec_z - 0.3) / 0.05 + torch.randn(2000, generator=generator)
    centres = torch.linspace(0.0, 0.6, 61)
    z_bin, member = (spec_z * 100).round().long().clamp(0, 60), torch.ones(2000, 1, dtype=torch.bool)

    def fit(strength: float) -> float:
        def loss(parameter: Tensor) -> Tensor:
            mean = 0.3 + 0.05 * parameter[0] * measured
            z_logits = (-0.5 * ((centres - mean[:, None]) / 0.04) ** 2)[:, None]
            penalty = trend_penalty(z_logits, None, spec_z, centres)
            return hard_label_loss(z_logits, None, z_bin, member) + strength * penalty

        return float(minimised(loss, torch.tensor([0.1])).item())

    assert fit(0.0) == pytest.approx(0.5, abs=0.03)
    assert fit(100.0) == pytest.approx(1.0, abs=0.03)
