"""Another model's p(z), mixed in as far as galaxies ask for it."""

import numpy as np
import pytest
import torch

from photoz_lit.correction.finishing.borrowed import Borrowed, check, fit, link_from
from photoz_lit.correction.finishing.link import Facts, Galaxies
from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.errors import ConfigError
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.models.heads import FARTHEST, Ensemble, HiddenHead, mixture

GRID, SLICES = RedshiftGrid(0.0, 0.4, 20), MagnitudeSlices(14.0, 2.0, 3)


def heads() -> tuple[Ensemble, dict[str, np.ndarray]]:
    """Three heads with random weights, and their arrays."""
    generator = torch.Generator().manual_seed(0)
    members = [HiddenHead(4, 20, 8, generator) for _ in range(3)]
    for head in members:
        for value in head.state_dict().values():
            value.copy_(torch.rand(value.shape, generator=generator) + 0.1)
    arrays = {
        name: np.stack([head.state_dict()[name].numpy() for head in members])
        for name in members[0].state_dict()
    }
    return Ensemble(members), {**arrays, "farthest": np.array(FARTHEST), "edges": GRID.edges}


X = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)


def of_torch() -> np.ndarray:
    with torch.inference_mode():
        return np.asarray(mixture(*heads()[0].eval()(torch.from_numpy(X))).numpy())


def test_p_of_z_is_that_of_the_heads() -> None:
    link = Borrowed(1.0, heads()[1], GRID)
    np.testing.assert_allclose(link(np.full((50, 20), 0.05), None, X), of_torch(), atol=1e-6)


@pytest.mark.parametrize(
    "grid", [RedshiftGrid(0.0, 0.4, 40), RedshiftGrid(0.0, 0.4, 10), RedshiftGrid(0.0, 0.4, 20, 5, 5)]
)
def test_other_bins_hold_the_same_probability(grid: RedshiftGrid) -> None:
    p = Borrowed(1.0, heads()[1], grid).theirs(X)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    cumulative = np.concatenate([np.zeros((50, 1)), np.cumsum(p, axis=1)], axis=1)
    for z in (0.08, 0.2, 0.36):  # edges of all
        below = cumulative[:, np.argmin(abs(grid.edges - z))]
        np.testing.assert_allclose(below, of_torch()[:, : round(z / GRID.width)].sum(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("true", "low", "high"), [("theirs", 0.9, 1.0), ("own", 0.0, 0.1), ("both", 0.3, 0.7)]
)
def test_the_share_is_that_of_the_likelihood(true: str, low: float, high: float) -> None:
    rng, n = np.random.default_rng(2), 4000
    x = rng.normal(size=(n, 4)).astype(np.float32)
    theirs = Borrowed(1.0, heads()[1], GRID).theirs(x)
    own = rng.dirichlet(np.ones(20), n)
    p = {"theirs": theirs, "own": own, "both": (theirs + own) / 2}[true]
    z_bin = (rng.random((n, 1)) > np.cumsum(p, axis=1)).sum(axis=1).clip(0, 19)
    facts = Facts(GRID, SLICES, borrowed=heads()[1])
    link = fit("fitted", Galaxies(own, GRID.centres[z_bin], np.full(n, 16.0), x), facts)
    assert low <= link.share <= high
    again = link_from({name: np.asarray(values) for name, values in link.arrays().items()}, facts)
    np.testing.assert_array_equal(again(own, None, x), link(own, None, x))


def test_another_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="type borrowed: fitted"):
        check(0.5, CorrectionConfig())
