"""Embeddings of galaxies, computed once by a frozen encoder and kept on disk."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from photoz_lit.errors import DataError
from photoz_lit.files import beside

Encode = Callable[[NDArray[np.int64], int], Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]]

SAVE_EVERY = 60.0  # s: how much work an interruption loses


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
        if not self.mask_path.is_file():
            np.lib.format.open_memmap(self.path, mode="w+", dtype=np.float32, shape=shape).flush()
        try:
            none = np.zeros(shape[:2], dtype=bool)
            self.filled = np.load(self.mask_path) if self.mask_path.is_file() else none
            np.load(self.path, mmap_mode="r")  # to write would silently lengthen a truncated file
            self.array = np.load(self.path, mmap_mode="r+")
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{folder}: cannot be read ({error}): delete it and run again") from error
        if [getattr(a, "shape", None) for a in (self.array, self.filled)] != [shape, shape[:2]]:
            raise DataError(f"{folder}: embeddings of another shape: delete it and run again")

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
        _reserve(self.path, self.array.offset + self.array[:n_views].nbytes)
        saved = time.monotonic()
        for done, embeddings in encode(missing, n_views):
            self.array[:n_views, done] = embeddings
            self.filled[:n_views, done] = True
            if time.monotonic() - saved > SAVE_EVERY:
                self._save()
                saved = time.monotonic()
        self._save()

    def _save(self) -> None:
        """Say what is filled, once it is on disk."""
        self.array.flush()
        with beside(self.mask_path) as partial:
            np.save(partial, self.filled)


def _reserve(path: Path, n_bytes: int) -> None:
    """Reserve the beginning of a file, so that a full disk is an error here and not a crash of a later write.

    Views come first in it: those that nobody asks for take no space.
    """
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, n_bytes)
