from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import wasserstein_distance

from photoz_lit import metrics
from photoz_lit.correction.losses.functions import galaxy_label_loss
from photoz_lit.correction.losses.nearest import (
    Loss,
    Settings,
    choose_numbers,
    distance_to_uniform,
    nearest,
    neighbour_pdf,
    neighbour_pit,
)
from photoz_lit.correction.losses.sample import Sample
from photoz_lit.grids import RedshiftGrid

GRID = RedshiftGrid(0.0, 0.4, 40, 2, 3)


def draws(n: int, seed: int) -> np.ndarray:
    """Embeddings whose dimensions have very different scales, one of them constant."""
    x = np.random.default_rng(seed).normal(size=(n, 6)) * np.logspace(-2, 2, 6) + 5
    x[:, 0] = 7.0
    return x.astype(np.float32)


def loss_of(embeddings: np.ndarray, spec_z: np.ndarray) -> Loss:
    every = np.ones((1, 1), dtype=bool)
    return Loss(Settings(), Sample(embeddings, spec_z, np.zeros(len(spec_z), int), GRID, every))


def labels_of(loss: Loss, embeddings: np.ndarray) -> np.ndarray:
    return loss.columns(replace(loss.train, embeddings=embeddings))["label"]


@pytest.mark.parametrize("distances", [2**25, 1000])
def test_nearest_are_those_of_all_distances(monkeypatch: pytest.MonkeyPatch, distances: int) -> None:
    monkeypatch.setattr(
        "photoz_lit.correction.losses.nearest.DISTANCES", distances
    )  # chunks of 5 galaxies and of all
    train, queries = draws(200, 1), draws(33, 2)
    scale = train.std(axis=0)
    scale[0] = 1
    gap = ((queries[:, None] - train) / scale).astype(np.float64)
    np.testing.assert_array_equal(nearest(queries, train, 7), (gap**2).sum(axis=2).argsort(axis=1)[:, :7])
    own = (((train[:, None] - train) / scale) ** 2).sum(axis=2)
    np.testing.assert_array_equal(nearest(train, train, 7), own.argsort(axis=1)[:, :7])
    np.fill_diagonal(own, np.inf)
    np.testing.assert_array_equal(nearest(train, train, 7, leave_one_out=True), own.argsort(axis=1)[:, :7])


def test_nearest_needs_enough_training_galaxies() -> None:
    with pytest.raises(ValueError, match="take fewer"):
        nearest(draws(5, 1), draws(5, 1), 5, leave_one_out=True)
    with pytest.raises(ValueError, match="do not fit together"):
        nearest(draws(5, 1)[:, :2], draws(5, 1), 1)


def test_pit_is_the_fraction_below() -> None:
    z = np.array([0.2, 0.05, 0.1, 0.2, 0.2, 0.3])
    near = np.array([[2, 3, 5, 4], [5, 4, 3, 2]])[[0, 1, 0, 0, 0, 0]]
    pit = neighbour_pit(z, near, numbers=(1, 2, 4))
    np.testing.assert_allclose(pit[:2], [[1, 0.75, 0.5], [0, 0, 0]])


def test_distance_to_uniform_is_wassersteins() -> None:
    values = np.random.default_rng(1).beta(0.5, 2, (20, 17))
    fine = (np.arange(17 * 1000) + 0.5) / 17_000
    expected = [wasserstein_distance(row, fine) for row in values]
    np.testing.assert_allclose(distance_to_uniform(values), expected, rtol=1e-4)
    assert distance_to_uniform([[0.5]])[0] == pytest.approx(0.25)


def test_number_is_the_one_of_least_distance() -> None:
    """Choices of 2 and 4: the PIT under two neighbours piles up, that under four does not."""
    pit_train = np.array([[0.0, 0.1], [0.0, 0.4], [0.0, 0.6], [0.1, 0.9]])
    assert choose_numbers(pit_train, [[0, 1, 2, 3]], (2, 4)) == [4]
    assert choose_numbers(pit_train[:, ::-1], [[0, 3, 1, 2]], (2, 4)) == [2]


def test_pdf_is_the_histogram_of_the_chosen_neighbours() -> None:
    z_train = GRID.centres[2 + np.array([0, 1, 1, 39])]
    pdf = neighbour_pdf(z_train, [[0, 1, 2, 3], [3, 2, 1, 0]], [3, 1], GRID)
    expected = np.zeros((2, 45))
    expected[0, [2, 3]], expected[1, 41] = [1 / 3, 2 / 3], 1
    np.testing.assert_allclose(pdf, expected, rtol=1e-6)


def test_neighbours_give_calibrated_pdfs() -> None:
    """Galaxies with spec_z scattered about a curve through the embedding, narrowly on one side."""
    rng, grid = np.random.default_rng(3), RedshiftGrid(0.0, 0.4, 200)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        x = rng.uniform(-1, 1, (n, 2))
        return x, 0.2 + 0.06 * x[:, 0] + rng.normal(0, 0.01 + 0.01 * (x[:, 1] > 0))

    (x, z), (x_test, z_test), numbers = draw(6000), draw(3000), (10, 20, 40, 80, 160, 320)
    among = nearest(x, x, 320, leave_one_out=True)
    pit_train = neighbour_pit(z, among, numbers)
    near = nearest(x_test, x, 320)
    k = choose_numbers(pit_train, near, numbers)
    pdf = neighbour_pdf(z, near, k, grid)
    np.testing.assert_allclose(pdf.sum(axis=1), 1, rtol=1e-5)
    inside = np.abs(metrics.pit(pdf, z_test, grid) - 0.5) < 0.34
    for part in (x_test[:, 1] > 0, x_test[:, 1] <= 0):
        assert inside[part].mean() == pytest.approx(0.68, abs=0.06)
    assert np.std(metrics.mean(pdf, grid) - z_test) < 1.1 * np.sqrt((0.01**2 + 0.02**2) / 2)


def test_labels_are_those_of_the_neighbours_step_by_step() -> None:
    train, queries = draws(150, 3), draws(20, 4)
    z = np.random.default_rng(5).uniform(0, 0.4, 150)
    loss = loss_of(train, z)
    assert loss.numbers == (5, 10, 15, 20, 30, 40, 60, 80, 120)
    own = nearest(train, train, 120, leave_one_out=True)
    pit = neighbour_pit(z, own, loss.numbers)
    for near, made in (
        (own, loss.of_train),
        (nearest(queries, train, 120), labels_of(loss, queries)),
    ):
        chosen = choose_numbers(pit, near, loss.numbers)
        np.testing.assert_array_equal(made, neighbour_pdf(z, near, chosen, GRID))


def test_spec_z_of_a_training_galaxy_is_not_in_its_own_label() -> None:
    train, z = draws(60, 6), np.full(60, 0.1)
    z[7] = 0.3
    loss = loss_of(train, z)
    at = GRID.index(0.3) + GRID.extend_left
    assert loss.of_train[7, at] == 0
    assert loss.of_train[:, at].max() > 0
    assert labels_of(loss, train[7:8])[0, at] > 0  # another galaxy at its place has it for a neighbour


def test_few_training_galaxies_have_few_neighbours() -> None:
    loss = loss_of(draws(4, 7), np.array([0.1, 0.1, 0.2, 0.2]))
    assert loss.numbers == (3,)
    np.testing.assert_allclose(loss.of_train.sum(axis=1), 1)


def test_loss_has_the_labels_of_training_and_validation_galaxies(problem: Any, train: Sample) -> None:
    loss = Loss(Settings(), train)
    np.testing.assert_array_equal(loss.columns(train)["label"], loss.of_train)
    assert labels_of(loss, train.embeddings[:7] + 0.01).shape == (7, 5)
    logits, batch = problem
    label = torch.from_numpy(loss.of_train[:7])
    expected = galaxy_label_loss(*logits, label, batch["member"])
    torch.testing.assert_close(loss(logits, batch | {"label": label}), expected)


def test_implicit_prior_is_the_weighted_mean_label_by_slice(train: Sample) -> None:
    weight = np.arange(60, dtype=np.float32)
    loss = Loss(Settings(), replace(train, weight=weight))
    found, expected = loss.implicit_prior(), np.average(loss.of_train, axis=0, weights=weight)
    assert found.sum(axis=0) == pytest.approx(expected)
    members = train.r_slice == 2
    np.testing.assert_allclose(found[2], weight[members] @ loss.of_train[members] / weight.sum(), rtol=1e-5)
