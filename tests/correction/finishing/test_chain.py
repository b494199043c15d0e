"""The chain of prior, temperature and PIT recalibration on p(z) of a known fault."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from photoz_lit import metrics
from photoz_lit.correction.finishing.chain import Chain, fit_chain
from photoz_lit.correction.finishing.link import Facts, Galaxies
from photoz_lit.correction.prior import NEW_FLOOR, OLD_FLOOR, Priors, floored
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 100, 20, 20)
SLICES = MagnitudeSlices(14.0, 2.0, 3)
FLAT = Priors(*np.full((2, 3, GRID.n_outputs), 1 / GRID.n_outputs / 3), SLICES)


def sample(n: int, seed: int, too_wide: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gaussian p(z) of a width that is wrong by a factor; true scatter grows with r."""
    rng = np.random.default_rng(seed)
    r = rng.uniform(14, 20, n)
    sigma = 0.01 * (1 + (r - 14) / 6)
    z = rng.uniform(0.1, 0.3, n)
    centre = z + rng.normal(0, sigma)
    cdf = norm.cdf((GRID.edges[None] - centre[:, None]) / (too_wide * sigma[:, None]))
    pdf = np.diff(cdf, axis=1)
    return pdf / pdf.sum(axis=1, keepdims=True), z, r


def fitted(*steps: tuple[str, Any], facts: Facts | None = None) -> Chain:
    pdf, z, r = sample(3000, 1)
    galaxies = Galaxies(pdf, z, r, np.empty((len(z), 0), np.float32))
    facts = facts or Facts(GRID, SLICES, FLAT, rng=np.random.default_rng(2))
    return fit_chain(steps, lambda: galaxies, lambda: galaxies, facts)


def coverage(pdf: np.ndarray, z: np.ndarray) -> float:
    low, high = metrics.interval(pdf, GRID).T
    return float(np.mean((z >= low) & (z <= high)))


def test_nothing_asked_for_changes_nothing() -> None:
    pdf, _, r = sample(50, 3)
    np.testing.assert_array_equal(fitted()(pdf, r), pdf.astype(np.float32))


def test_temperature_undoes_a_width() -> None:
    arrays = fitted(("temperature", "fitted")).arrays()
    assert arrays["0.temperature.temperature"] == pytest.approx(0.25, rel=0.05)  # of half the width


@pytest.mark.parametrize("groups", ["overall", "slices", "held_out"])
def test_recalibration_gives_the_coverage_of_unseen_galaxies(groups: str) -> None:
    pdf, z, r = sample(4000, 5)
    assert coverage(pdf, z) > 0.9
    out = fitted(("pit", groups))(pdf, r)
    assert coverage(out, z) == pytest.approx(0.68, abs=0.03)
    np.testing.assert_allclose(out.sum(axis=1), 1, rtol=1e-5)


def test_galaxies_of_unknown_r_get_the_map_over_all() -> None:
    pdf, _, r = sample(20, 6)
    both, overall = fitted(("pit", "slices")), fitted(("pit", "overall"))
    r[:5] = np.nan
    np.testing.assert_array_equal(both(pdf, r)[:5], overall(pdf)[:5])
    np.testing.assert_array_equal(both(pdf), overall(pdf))
    assert not np.array_equal(both(pdf, r)[5:], overall(pdf)[5:])


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [("prior", "flat")],
        [("prior", "training"), ("temperature", "fitted"), ("pit", "slices")],
        [("pit", "overall"), ("temperature", "fitted"), ("pit", "local")],
        [("temperature", "fitted"), ("response", 0.5)],
        [("prior", "flat"), ("pit", "held_out"), ("response", 1.0)],
    ],
    ids=str,
)
def test_arrays_hold_all_of_it_in_order(steps: list[tuple[str, Any]]) -> None:
    pdf, _, r = sample(30, 7)
    chain, place = fitted(*steps), np.zeros((30, 0), np.float32)
    arrays = {name: np.asarray(values) for name, values in chain.arrays().items()}
    assert all(values.dtype != object for values in arrays.values())
    again = Chain.from_arrays(arrays, SLICES, GRID)
    assert [name for name, _ in again.links] == [name for name, _ in steps]
    np.testing.assert_array_equal(again(pdf, r, place), chain(pdf, r, place))
    np.testing.assert_array_equal(again.priors(FLAT).implicit, chain.priors(FLAT).implicit)
    assert len(again.responses) == ("response" in dict(steps))
    for one, other in zip(again.responses, chain.responses, strict=True):
        np.testing.assert_array_equal(one.individual(pdf, r), other.individual(pdf, r))


def test_each_link_is_fitted_to_what_the_links_before_it_leave() -> None:
    """A second temperature finds nothing to do; the order of the links counts."""
    twice = fitted(("temperature", "fitted"), ("temperature", "fitted")).arrays()
    assert twice["1.temperature.temperature"] == pytest.approx(1.0, rel=1e-2)
    pdf, _, r = sample(30, 7)
    one, other = (
        fitted(*steps)(pdf, r)
        for steps in (
            [("temperature", "fitted"), ("pit", "slices")],
            [("pit", "slices"), ("temperature", "fitted")],
        )
    )
    assert not np.allclose(one, other, atol=1e-4)


def test_training_prior_takes_the_place_of_the_implicit_one_slice_by_slice() -> None:
    pdf, _, r = sample(2000, 8)
    implicit = np.linspace([1, 3, 2], [3, 1, 2], GRID.n_outputs, axis=1) / 6 / GRID.n_outputs
    training = np.zeros_like(implicit)
    training[:, 20:-20] = np.exp(-GRID.centres[20:-20] * [[20], [0], [-5]])
    training /= training.sum()
    priors = Priors(implicit, training, SLICES)
    finishing = fitted(("prior", "training"), facts=Facts(GRID, SLICES, priors))
    new, old = floored(training, NEW_FLOOR), floored(implicit, OLD_FLOOR)
    ratio = (new / old)[SLICES.index(r)]
    expected = pdf * ratio / (pdf * ratio).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(finishing(pdf, r), expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(finishing.priors(priors).implicit, training, atol=1e-5)


@pytest.mark.parametrize(
    ("steps", "from_training"),
    [
        ((("pit", "held_out"), ("response", 1.0)), True),
        ((("temperature", "fitted"), ("pit", "slices")), False),
    ],
    ids=["held_out", "validation"],
)
def test_links_are_fitted_on_the_galaxies_that_they_name(
    steps: tuple[tuple[str, Any], ...], from_training: bool
) -> None:
    """Training galaxies that no head saw, or the validation split, and never the others."""
    pdf, z, r = sample(500, 1)
    galaxies, asked = Galaxies(pdf, z, r, np.empty((len(z), 0), np.float32)), []
    of = {name: lambda name=name: asked.append(name) or galaxies for name in ("validation", "held_out")}
    fit_chain(steps, of["validation"], of["held_out"], Facts(GRID, SLICES))
    assert asked == ["held_out" if from_training else "validation"] * 2


def by_place(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """p(z) too wide on one side of the embedding (n, 2) and too narrow on the other, and spec_z."""
    place = np.random.default_rng(seed).uniform(-1, 1, (n, 2)).astype(np.float32)
    wide, narrow = (sample(n, seed, too_wide=width) for width in (2.0, 0.5))  # of the same galaxies
    return np.where(place[:, :1] > 0, wide[0], narrow[0]), wide[1], place


def fitted_by_place(n: int) -> Chain:
    pdf, z, place = by_place(n, 1)
    galaxies, facts = (
        Galaxies(pdf, z, np.full(n, 15.0), place),
        Facts(GRID, SLICES, rng=np.random.default_rng(2)),
    )
    return fit_chain([("pit", "local")], lambda: galaxies, lambda: galaxies, facts)


def test_local_recalibration_gives_the_coverage_on_either_side() -> None:
    pdf, z, place = by_place(4000, 5)
    finishing = fitted_by_place(3000)
    for side in (place[:, 0] > 0.1, place[:, 0] < -0.1):
        assert abs(coverage(pdf[side], z[side]) - 0.68) > 0.2
        assert abs(coverage(finishing(pdf)[side], z[side]) - 0.68) > 0.1  # by the map over all galaxies
        local = finishing(pdf, None, place)[side]
        assert coverage(local, z[side]) == pytest.approx(0.68, abs=0.06)
        np.testing.assert_allclose(local.sum(axis=1), 1, rtol=1e-5)


def test_arrays_hold_the_validation_galaxies_of_local_recalibration() -> None:
    pdf, _, place = by_place(30, 7)
    finishing = fitted_by_place(400)
    arrays = {name: np.asarray(values) for name, values in finishing.arrays().items()}
    again = Chain.from_arrays(arrays, SLICES, GRID)
    np.testing.assert_array_equal(again(pdf, None, place), finishing(pdf, None, place))
    assert not np.array_equal(again(pdf, None, place), again(pdf))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_validation_galaxies_are_no_obstacle_to_local_recalibration(n: int) -> None:
    pdf, _, place = by_place(10, 7)
    finishing = fitted_by_place(n)
    assert ("0.pit.choice" in finishing.arrays()) == (n > 1)
    np.testing.assert_allclose(finishing(pdf, None, place).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "step",
    [
        *[("temperature", "fitted"), ("prior", "flat"), ("prior", "training"), ("response", 1.0)],
        *[("pit", groups) for groups in ("overall", "slices", "held_out")],
    ],
)
def test_on_tensors_a_link_gives_the_same(step: tuple[str, Any]) -> None:
    """Of galaxies on edges of slices, beyond them and of unknown r, p(z) with empty bins among them."""
    pdf, _, r = sample(300, 5)
    pdf[:50, :70] = 0
    pdf /= pdf.sum(axis=1, keepdims=True)
    r[:8] = [14.0, 16.0, 18.0, 20.0, np.nan, -np.inf, 30.0, np.float32(17.99999)]
    rng = np.random.default_rng(4)
    uneven = rng.uniform(0.1, 1, (2, 3, GRID.n_outputs))
    priors = Priors(uneven[0] / uneven[0].sum(), uneven[1] / uneven[1].sum(), SLICES)
    chain = fitted(step, facts=Facts(GRID, SLICES, priors, rng=np.random.default_rng(2)))
    ((name, form),) = chain.on_tensors()
    assert name == step[0]
    assert form is not None
    on_tensors = form(torch.from_numpy(pdf), torch.from_numpy(r)).numpy()
    np.testing.assert_allclose(on_tensors, chain._exact(pdf, r, None), atol=1e-13)
    single = form(torch.from_numpy(pdf), torch.from_numpy(r).float().double()).numpy()
    np.testing.assert_allclose(single, chain._exact(pdf, r.astype(np.float32), None), atol=1e-13)
