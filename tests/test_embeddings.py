import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command import Finished, parsed, run_well
from numpy.typing import NDArray

from photoz_lit.embeddings import NOISE_BLOCK, EmbeddingCache, embed, row_noise
from photoz_lit.errors import DataError
from photoz_lit.network import inputs_of, load
from photoz_lit.stages.prepare import prepare

SHAPE = (8, 20, 4)
TRUTH = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
Piece = tuple[NDArray[np.int64], NDArray[np.float32]]


class Encoder:
    """Yields what is asked for, three galaxies at a time, and remembers; may stop half-way."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.asked: list[tuple[list[int], int]] = []
        self.stop_after = stop_after

    def __call__(self, rows: NDArray[np.int64], n_views: int) -> Iterator[Piece]:
        self.asked.append((rows.tolist(), n_views))
        for i in range(0, len(rows), 3):
            if i == self.stop_after:
                raise KeyboardInterrupt
            yield rows[i : i + 3], TRUTH[:n_views, rows[i : i + 3]]


def test_only_what_is_missing_is_filled(tmp_path: Path) -> None:
    cache, encoder = EmbeddingCache(tmp_path, SHAPE), Encoder()
    cache.ensure(np.array([5, 1, 9]), 1, encoder)
    cache.ensure(np.array([1, 9]), 1, encoder)
    cache.ensure(np.array([9, 2]), 1, encoder)
    assert encoder.asked == [([1, 5, 9], 1), ([2], 1)]
    cache.ensure(np.array([5, 2]), 8, encoder)
    cache.ensure(np.array([2, 5]), 8, encoder)
    assert encoder.asked[2:] == [([2, 5], 8)]
    np.testing.assert_array_equal(cache.array[0, [1, 2, 5, 9]], TRUTH[0, [1, 2, 5, 9]])
    np.testing.assert_array_equal(cache.array[:, [2, 5]], TRUTH[:, [2, 5]])
    assert cache.filled.sum() == 2 + 2 * 8


def test_another_process_finds_what_was_filled(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, SHAPE).ensure(np.arange(4), 8, Encoder())
    encoder, cache = Encoder(), EmbeddingCache(tmp_path, SHAPE)
    cache.ensure(np.arange(6), 8, encoder)
    assert encoder.asked == [([4, 5], 8)]
    np.testing.assert_array_equal(cache.array[:, :6], TRUTH[:, :6])
    assert not list(tmp_path.glob("*partial*"))


@pytest.mark.parametrize("save_every", [0.0, 60.0])
def test_interrupted_cache_never_says_more_than_it_holds(
    save_every: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("photoz_lit.embeddings.SAVE_EVERY", save_every - 1e-9)
    with pytest.raises(KeyboardInterrupt):
        EmbeddingCache(tmp_path, SHAPE).ensure(np.arange(10), 2, Encoder(stop_after=6))
    encoder, cache = Encoder(), EmbeddingCache(tmp_path, SHAPE)
    cache.ensure(np.arange(10), 2, encoder)
    assert encoder.asked == [([6, 7, 8, 9] if save_every == 0 else list(range(10)), 2)]
    np.testing.assert_array_equal(cache.array[:2, :10], TRUTH[:2, :10])


@pytest.mark.parametrize("name", ["embeddings.npy", "filled.npy"])
def test_damaged_cache_is_named(name: str, tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, SHAPE).ensure(np.arange(4), 8, Encoder())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:140])
    with pytest.raises(DataError, match="delete it and run again"):
        EmbeddingCache(tmp_path, SHAPE)


def test_cache_of_another_shape_is_refused(tmp_path: Path) -> None:
    EmbeddingCache(tmp_path, SHAPE).ensure(np.arange(4), 8, Encoder())
    with pytest.raises(DataError, match="another shape"):
        EmbeddingCache(tmp_path, (8, 20, 5))


def test_views_that_nobody_asks_for_take_no_space(tmp_path: Path) -> None:
    def encode(rows: NDArray[np.int64], n_views: int) -> Iterator[Piece]:
        yield rows, np.zeros((n_views, len(rows), 64), dtype=np.float32)

    cache = EmbeddingCache(tmp_path, (8, 5000, 64))
    cache.ensure(np.arange(10), 2, encode)
    of_a_view = 5000 * 64 * 4
    assert 2 * of_a_view <= cache.path.stat().st_blocks * 512 < 3 * of_a_view
    assert cache.path.stat().st_size > 8 * of_a_view


@pytest.mark.parametrize(("precision", "kept"), [("bf16-mixed", np.float16), ("32-true", np.float32)])
def test_what_comes_in_bfloat16_is_kept_in_half_the_space(
    precision: str, kept: type, mock_run: Finished, tmp_path: Path
) -> None:
    copied = mock_run.copy(tmp_path)
    for place in tmp_path.rglob("embeddings-*"):
        shutil.rmtree(place)
    words = ("stage=classifier", "correction=balanced", *copied.words, f"trainer.precision={precision}")
    config = parsed(*words)
    run_well(*words)
    store = prepare(config)
    net, inputs = load(config, store.kind, store.inputs.shape), inputs_of(config, store.kind)
    (path,) = tmp_path.rglob("embeddings-*/embeddings.npy")
    cached, filled = np.load(path), np.load(path.with_name("filled.npy"))
    assert cached.dtype == kept
    rows = np.flatnonzero(filled[0])
    with torch.inference_mode():
        raw, ebv = torch.from_numpy(np.array(store.inputs[rows])), torch.tensor(store.column("ebv")[rows])
        own = embed(net.encoder, inputs, raw, ebv.float(), 0, config.trainer).numpy()
    np.testing.assert_allclose(cached[0, rows].astype(np.float32), own, rtol=0, atol=3e-8)


def test_embeddings_that_do_not_fit_are_told(tmp_path: Path) -> None:
    def encode(rows: NDArray[np.int64], n_views: int) -> Iterator[Piece]:
        yield rows, np.full((n_views, len(rows), 4), 70_000, dtype=np.float32)

    EmbeddingCache(tmp_path / "wide", SHAPE).ensure(np.arange(4), 1, encode)
    with pytest.raises(DataError, match="32-true"):
        EmbeddingCache(tmp_path, SHAPE, np.float16).ensure(np.arange(4), 1, encode)


def test_noise_depends_on_row_and_view_alone() -> None:
    rows = np.arange(3 * NOISE_BLOCK)
    whole = row_noise(rows, 1, 5)
    some = rows[[0, 7, NOISE_BLOCK, 2 * NOISE_BLOCK + 3]]
    assert torch.equal(row_noise(some, 1, 5), whole[some])
    assert torch.equal(row_noise(some[::-1].copy(), 1, 5), whole[some[::-1].copy()])
    assert not torch.equal(row_noise(some, 2, 5), whole[some])


def test_noise_is_standard_normal() -> None:
    draws = row_noise(np.arange(20_000), 3, 5)
    assert abs(float(draws.mean())) < 0.02
    assert abs(float(draws.std()) - 1) < 0.02


def test_what_is_measured_of_a_store_is_measured_once_whatever_is_trained(
    mock_run: Finished, tmp_path: Path
) -> None:
    copied = mock_run.copy(tmp_path)
    (place,) = tmp_path.rglob("measured/*")
    shutil.rmtree(place)
    said = [run_well(f"stage={stage}", *copied.words).out for stage in ("representation", "classifier")]
    assert "measuring" not in "".join(said)  # the first is complete, and the other reads its embeddings
    other = run_well("stage=representation", "head=single", *copied.words).out
    assert other.count("measuring") == 2  # galaxies to train on, then those of the test
    assert (
        "measuring" not in run_well("stage=classifier", "head=single", "correction=full", *copied.words).out
    )
    os.utime(next(tmp_path.rglob("data/*/inputs.npy")))
    assert run_well("stage=representation", "seed=2", *copied.words).out.count("measuring") == 2
    first, second = (np.load(f / "embeddings.npy")[0] for f in tmp_path.rglob("measured/*"))
    np.testing.assert_array_equal(first, second)
