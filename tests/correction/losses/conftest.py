from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from photoz_lit.correction.losses.sample import Sample
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

GRID, SLICES = RedshiftGrid(0.0, 0.5, 5), MagnitudeSlices(12.5, 1.0, 5)
Batch = dict[str, Tensor]
Logits = tuple[Tensor, Tensor | None]


@pytest.fixture
def train() -> Sample:
    """60 training galaxies in 5 bins and 5 slices, of 3 outputs."""
    rng = np.random.default_rng(1)
    z = rng.uniform(0, 0.5, 60)
    embeddings = np.stack([z, rng.normal(size=60)], axis=1).astype(np.float32)
    return Sample(embeddings, z, rng.integers(0, 5, 60), GRID, SLICES.membership)


@pytest.fixture
def problem() -> tuple[Logits, Batch]:
    """Logits of 7 galaxies, 3 outputs and 5 bins, and their batch."""
    generator = torch.Generator().manual_seed(1)
    z_logits = 3 * torch.randn(7, 3, 5, generator=generator)
    r_slice = torch.arange(7) % 5
    z_bin = torch.randint(5, (7,), generator=generator)
    batch = {"z_bin": z_bin, "r_slice": r_slice, "member": torch.from_numpy(SLICES.membership)[r_slice]}
    return (z_logits, torch.randn(7, 3, generator=generator)), batch


@pytest.fixture
def minimised() -> Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]:
    """Return what finds the logits where a loss is least."""

    def found(loss: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
        logits = start.clone().requires_grad_()
        optimiser = torch.optim.LBFGS(
            [logits], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-12
        )

        def closure() -> float:
            optimiser.zero_grad()
            value = loss(logits)
            value.backward()  # type: ignore[no-untyped-call]
            return value.item()

        optimiser.step(closure)
        return logits.detach()

    return found
