import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from photoz_lit.data.batches import Galaxies, Stream, in_order, loader

Batch = tuple[NDArray[np.int64], NDArray[np.int64]]


def batches(epoch: int = 0, rank: int = 0, world_size: int = 1, seed: int = 3, n: int = 50) -> list[Batch]:
    stream = Stream(n, 8, 10, seed, 8, rank, world_size)
    stream.set_epoch(epoch)
    return list(stream)


def pairs(batch: Batch) -> list[tuple[int, int]]:
    return sorted(zip(*(part.tolist() for part in batch), strict=True))


def galaxies(n: int = 50) -> Galaxies:
    inputs = np.random.default_rng(0).normal(size=(n + 5, 2, 3)).astype(np.float32)
    return Galaxies(inputs, {"number": np.arange(n)}, np.arange(n) + 5)


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("epoch", [0, 3])
def test_devices_share_out_the_single_stream(world_size: int, epoch: int) -> None:
    single = batches(epoch)
    shares = [batches(epoch, rank, world_size) for rank in range(world_size)]
    assert len(single) == 10
    for i, batch in enumerate(single):
        assert sorted(p for share in shares for p in pairs(share[i])) == pairs(batch)
        assert {len(share[i][0]) for share in shares} == {8 // world_size}


def test_epochs_differ_and_each_can_be_had_alone() -> None:
    first, second = batches(0), batches(1)
    assert [pairs(b) for b in first] != [pairs(b) for b in second]
    stream = Stream(50, 8, 10, 3, 8)
    _ = list(stream)
    stream.set_epoch(1)
    for resumed, straight in zip(stream, second, strict=True):
        np.testing.assert_array_equal(resumed[0], straight[0])
        np.testing.assert_array_equal(resumed[1], straight[1])


def test_seeds_differ() -> None:
    assert [pairs(b) for b in batches(seed=1)] != [pairs(b) for b in batches(seed=2)]


def test_every_galaxy_comes_once_a_pass() -> None:
    members = np.concatenate([m for epoch in range(5) for m, _ in batches(epoch)])
    for start in range(0, 400, 50):
        assert sorted(members[start : start + 50]) == list(range(50))


def test_more_in_a_batch_than_there_are_galaxies() -> None:
    stream = Stream(3, 8, 4, 0, 8)
    members = np.concatenate([m for m, _ in stream])
    assert len(members) == 32
    assert np.bincount(members).tolist() == [11, 11, 10] or np.bincount(members).max() <= 11


def test_views_are_uniform_and_independent_of_the_galaxy() -> None:
    stream = Stream(200, 100, 400, 7, 8)
    members, views = (np.concatenate(parts) for parts in zip(*stream, strict=True))
    assert stats.chisquare(np.bincount(views, minlength=8)).pvalue > 1e-3
    table = np.histogram2d(members % 10, views, bins=(10, 8))[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3
    one = views[members == 0]
    assert len(set(one)) == 8


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_are_the_same_whatever_the_workers(workers: int) -> None:
    stream = Stream(50, 8, 10, 3, 8)
    stream.set_epoch(2)
    got = list(loader(galaxies(), stream, workers))
    for batch, (members, views) in zip(got, batches(2), strict=True):
        assert batch["number"].tolist() == members.tolist()
        assert batch["view"].tolist() == views.tolist()
        assert torch.equal(batch["inputs"], torch.from_numpy(galaxies().inputs[members + 5]))


def test_validation_is_every_galaxy_once_in_order_and_unturned() -> None:
    order = in_order(10, 4)
    assert len(order) == 3
    assert np.concatenate([m for m, _ in order]).tolist() == list(range(10))
    assert not np.concatenate([v for _, v in order]).any()


def test_galaxies_on_a_device_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("photoz_lit.data.batches.READ", 7)
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(60, 2, 3)).astype(np.float16)
    some = Galaxies(inputs, {"number": np.arange(50)}, rng.permutation(60)[:50])
    picks = rng.integers(0, 50, (4, 8)), rng.integers(0, 8, (4, 8))
    there = some.on(torch.device("cpu"))[picks]
    assert there.keys() == some[picks].keys()
    for name, values in some[picks].items():
        assert torch.equal(there[name], values), name
        assert there[name].dtype == values.dtype
