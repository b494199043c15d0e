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
    scale, mean = torch.std_mean(train, dim=0)
    scale[0] = 1.0
    tree = cKDTree((train - mean) / scale)
    expected = torch.from_numpy(tree.query((others - mean) / scale, [k])[0][:, 0]).float()
    torch.testing.assert_close(Neighbours(train, k)(others), expected, rtol=1e-4, atol=1e-4)


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
