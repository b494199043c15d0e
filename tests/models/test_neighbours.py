import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from photoz_lit.models.neighbours import Neighbours


def draws(n: int, d: int = 20, seed: int = 0) -> torch.Tensor:
    """Draw embeddings whose dimensions have very different scales, one of them constant."""
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * torch.logspace(-3, 3, d) + 5
    x[:, 0] = 7.0
    return x


@pytest.mark.parametrize("k", [1, 5])
def test_distance_is_that_of_a_search_tree(k: int) -> None:
    train, others = draws(300), draws(50, seed=1)
    whitening = np.linalg.cholesky(np.linalg.inv(np.cov(train[:, 1:].double().numpy().T)))
    tree = cKDTree(train[:, 1:].numpy() @ whitening)
    expected = torch.from_numpy(tree.query(others[:, 1:].numpy() @ whitening, [k])[0][:, 0]).float()
    torch.testing.assert_close(Neighbours(train, k)(others), expected, rtol=1e-3, atol=1e-3)


def test_galaxies_off_a_narrow_relation_are_far() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, 1, generator=generator).repeat(1, 3)
    x += 0.03 * torch.randn(600, 3, generator=generator)
    distance = Neighbours(x[:500], 5)
    off = x[500:] + torch.tensor([0.3, -0.3, 0.0])  # well within the range of each dimension
    assert distance(off).median() > 3 * distance(x[500:]).median()


@pytest.mark.parametrize("train", [torch.zeros(1, 4), torch.tensor([[0.0, 1.0], [torch.nan, 1.0]])])
def test_a_sample_that_tells_nothing_is_refused(train: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="two embeddings, all of them finite"):
        Neighbours(train, 1)


def test_a_sample_of_equal_galaxies_gives_no_distances_that_are_not_numbers() -> None:
    assert torch.isfinite(Neighbours(torch.ones(5, 3), 2)(torch.randn(4, 3))).all()


def test_fewer_training_galaxies_than_neighbours() -> None:
    train = draws(3)
    assert torch.equal(Neighbours(train, 5)(draws(10, seed=1)), Neighbours(train, 3)(draws(10, seed=1)))


def test_threshold_leaves_the_wanted_part_of_validation_galaxies() -> None:
    validation = draws(1000, seed=2)
    neighbours = Neighbours(draws(500), 5).set_threshold(validation, 0.9)
    assert int((neighbours(validation) > neighbours.threshold).sum()) == 100
    unlike = validation.clone()
    unlike[:, 3] += 100 * validation[:, 3].std()
    assert (neighbours(unlike) > neighbours.threshold).all()


def test_galaxies_unlike_training_in_a_small_dimension_are_far() -> None:
    train, other = draws(500), draws(500, seed=3)
    distance = Neighbours(train, 5)
    moved = other.clone()
    moved[:, 1] += 30 * train[:, 1].std()  # a thousandth of the largest dimension's scale
    assert distance(moved).min() > distance(other).max()
