"""Embeddings of galaxies, computed once by a frozen encoder and kept on disk."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Encode = Callable[[NDArray[np.int64], int], Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]]


class EmbeddingCache:
    """Embeddings (views, N, d) of a store's galaxies under one encoder; rows are filled when asked for.

    Parameters
    ----------
    folder : Path
        Where they lie; its name says which encoder and which data they belong to.
    shape : (int, int, int)
        Views, galaxies of the store, size of the embedding.
    """

    def __init__(self, folder: Path, shape: tuple[int, int, int]) -> None:
        self.folder, self.shape = folder, shape
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.mask_path = folder / "embeddings.npy", folder / "filled.npy"
        if self.mask_path.is_file():
            self.filled = np.load(self.mask_path)
        else:
            self.filled = np.zeros(shape[:2], dtype=bool)
            _allocate(self.path, shape)
        self.array = np.load(self.path, mmap_mode="r+")

    def ensure(self, rows: NDArray[np.int64], n_views: int, encode: Encode) -> None:
        """Fill what is missing of `rows` in the first `n_views` views.

        Parameters
        ----------
        rows : array (n,)
            Rows of the store.
        n_views : int
            Views wanted.
        encode : callable
            Given sorted rows and the number of views, yields (rows, embeddings (views, m, d)) in pieces.
        """
        missing = np.sort(rows[~self.filled[:n_views, rows].all(axis=0)])
        if missing.size == 0:
            return
        for done, embeddings in encode(missing, n_views):
            self.array[:n_views, done] = embeddings
            self.filled[:n_views, done] = True
        self._save()

    def _save(self) -> None:
        self.array.flush()
        beside = self.mask_path.with_name("filled.partial.npy")
        np.save(beside, self.filled)
        os.replace(beside, self.mask_path)


def _allocate(path: Path, shape: tuple[int, int, int]) -> None:
    """Reserve the whole file, so that a full disk is an error here and not a crash of a later write."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape).flush()
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
