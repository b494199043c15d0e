import pytest
import torch

from photoz_lit.config import TrainingConfig
from photoz_lit.models.objective import rate


@pytest.mark.parametrize("steps", [1, 3, 5, 6, 10, 200, 999])
def test_the_rate_of_one_cycle_is_that_of_torch(steps: int) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=1.0, total_steps=max(steps + 1, 6), pct_start=0.2, cycle_momentum=False
    )
    for step in range(steps):
        expected = optimiser.param_groups[0]["lr"]
        assert rate(TrainingConfig(max_steps=steps), step) == pytest.approx(expected, rel=1e-12)
        optimiser.step()
        cycle.step()
