"""Heads whose weights get other lengths."""

import numpy as np
import pytest
import torch

from photoz_lit.correction.losses.sample import Sample
from photoz_lit.correction.rescaling import tau_normalised
from photoz_lit.fitting import rescaled
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.models.heads import Head, mixture

GRID, SLICES = RedshiftGrid(0.0, 0.6, 6), MagnitudeSlices(12.0, 1.0, 5)


def galaxies(n: int, seed: int, membership: np.ndarray = SLICES.membership) -> Sample:
    """Draw embeddings (n, 4) and cells."""
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(n, 4)).astype(np.float32)
    z = GRID.centres[rng.integers(0, 6, n)]
    return Sample(embeddings, z, rng.integers(0, 5, n), GRID, membership)


@pytest.mark.parametrize("kind", ["tau", "learnt"])
def test_rescaled_heads_keep_the_direction_of_every_bin(kind: str) -> None:
    head = Head(4, 3, 6, torch.Generator().manual_seed(1))
    with torch.no_grad():
        head.redshift.bias.normal_(generator=torch.Generator().manual_seed(2))
        head.redshift.weight.mul_(torch.linspace(0.2, 4, 18)[:, None])  # lengths that mean nothing
    before = {k: v.clone() for k, v in head.state_dict().items()}
    after = rescaled(kind, head, galaxies(80, 3), galaxies(60, 4))  # type: ignore[arg-type]
    for key, values in head.state_dict().items():
        assert torch.equal(values, before[key]), key  # others share this head
    old, new = before["redshift.weight"], after.redshift.weight.detach()
    length = new.norm(dim=1) / old.norm(dim=1)
    sign = torch.sign((new * old).sum(dim=1, keepdim=True))
    torch.testing.assert_close(new, sign * length[:, None] * old)
    assert length.std() > 0.01
    kept = torch.zeros(18) if kind == "tau" else before["redshift.bias"]
    assert torch.equal(after.redshift.bias, kept)


def test_tau_norm_is_that_of_the_best_likelihood() -> None:
    """Validation galaxies drawn from a head of equal norms; its lengths are wrong before."""
    true = Head(4, 1, 6, torch.Generator().manual_seed(1))
    with torch.no_grad():
        true.redshift.weight.normal_(generator=torch.Generator().manual_seed(5))
        true.redshift.weight.div_(true.redshift.weight.norm(dim=1, keepdim=True))
        true.redshift.bias.zero_()
    drawn = galaxies(4000, 6)
    p = mixture(*true(torch.from_numpy(drawn.embeddings))).detach().numpy()
    u = np.random.default_rng(7).uniform(size=(len(p), 1))
    z = GRID.centres[(p.cumsum(axis=1) < u).sum(axis=1)]
    val = Sample(drawn.embeddings, z, drawn.r_slice, GRID, np.ones((5, 1), dtype=bool))
    wrong = Head(4, 1, 6)
    with torch.no_grad():
        lengths = torch.tensor([0.2, 0.5, 1.0, 1.0, 2.0, 4.0])
        wrong.redshift.weight.copy_(true.redshift.weight * lengths[:, None])
    found = rescaled("tau", wrong, galaxies(5, 8), val)
    expected = tau_normalised(wrong.redshift.weight.detach().numpy(), 1.0)
    np.testing.assert_allclose(found.redshift.weight.detach().numpy(), expected, atol=1e-6)
