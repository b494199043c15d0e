"""Fixtures shared by the whole suite."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import IMAGES, Finished, catalogue_words, places, run_well, write_catalogue
from threadpoolctl import threadpool_limits

torch.set_num_threads(1)  # tests run side by side, and small products wait long for a second thread
threadpool_limits(1, "blas")

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish() -> None:
    """Keep what was imported out of garbage collections, which would go through it again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what trials of compilation find out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def golden_folder() -> Path:
    """Folder with the golden arrays; another set of the same names can take its place."""
    return Path(os.environ.get("PHOTOZ_LIT_GOLDEN", ROOT / "tests" / "golden"))


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """Load one file of golden arrays by its name without the suffix."""

    def load(name: str) -> dict[str, Any]:
        with np.load(golden_folder() / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with real SDSS data; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("PHOTOZ_LIT_REAL_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found in {folder}; set PHOTOZ_LIT_REAL_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def mock_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a representation trained for a few steps on simulated cutouts."""
    folder = tmp_path_factory.mktemp("mock")
    words = (*IMAGES, *places(folder))
    run_well("stage=representation", *words)
    return Finished(folder, words)


@pytest.fixture(scope="session")
def catalogue_run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return a representation, and `full` on it, trained for a few steps on a table of magnitudes."""
    folder = tmp_path_factory.mktemp("catalogue")
    path = write_catalogue(tmp_path_factory.mktemp("tables"))
    words = (*catalogue_words(path), *places(folder))
    run_well("stage=representation", *words)
    run_well("stage=classifier", "correction=full", *words)
    return Finished(folder, words)
