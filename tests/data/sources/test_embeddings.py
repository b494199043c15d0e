"""Vectors of another method, with a table beside them or as its columns."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from astropy.table import Table
from command import QUICK, magnitude_table, only, places, run, run_well

from photoz_lit.data.catalogue import TableRules
from photoz_lit.data.sources import embeddings
from photoz_lit.data.store import open_store
from photoz_lit.errors import DataError

RULES = TableRules(columns={"dered_petro_r": "mag_r"}, z_range=(0.0, 0.4))


def write(folder: Path, n: int = 120, seed: int = 0) -> tuple[Path, Path]:
    """Write a table and vectors that tell of the redshift; the vectors are columns of the table as well."""
    table = magnitude_table(n, seed)
    rng = np.random.default_rng(seed)
    z = np.asarray(table["spec_z"])
    vectors = np.column_stack([z, z**2, *rng.normal(size=(3, n))]).astype(np.float32)
    for i in range(5):
        table[f"f{i}"] = vectors[:, i]
    table.write(folder / "galaxies.fits", overwrite=True)
    np.save(folder / "vectors.npy", vectors)
    return folder / "galaxies.fits", folder / "vectors.npy"


def test_array_and_columns_give_the_same_vectors(tmp_path: Path) -> None:
    path, array = write(tmp_path)
    table, from_array = embeddings.load(path, array, None, [], RULES)
    _, from_columns = embeddings.load(path, None, None, ["f[01]", "f?"], RULES)
    assert len(table) == 120
    assert from_array.dtype == np.float32
    np.testing.assert_array_equal(from_array, np.load(array))
    np.testing.assert_allclose(from_columns, from_array, rtol=1e-6)


def test_dropped_rows_drop_their_vectors(tmp_path: Path) -> None:
    path, array = write(tmp_path)
    table = Table.read(path)
    table["spec_z"][3] = -1
    table.write(path, overwrite=True)
    rules = TableRules(columns=RULES.columns, z_range=RULES.z_range, drop_invalid=True)
    kept, vectors = embeddings.load(path, array, None, [], rules)
    assert len(kept) == len(vectors) == 119
    np.testing.assert_array_equal(vectors, np.delete(np.load(array), 3, axis=0))


def save_parquet(path: Path, vectors: np.ndarray, labels: Table) -> None:
    columns = {name: labels[name] for name in labels.colnames}
    pa.parquet.write_table(pa.table({**columns, "aion_mean_embedding": list(vectors)}), path)


def save_astroclip(path: Path, vectors: np.ndarray, labels: Table) -> None:
    with h5py.File(path, "w") as file:
        file["image_embeddings"], file["spectrum_embeddings"] = vectors, vectors + 1
        file["object_id"] = np.arange(len(vectors)) + 39627000000000000
        file["image"], file["spectrum"] = np.zeros((len(vectors), 3, 4, 4)), np.zeros((len(vectors), 9, 1))


def save_zoobot(path: Path, vectors: np.ndarray, labels: Table) -> None:
    with h5py.File(path.parent / "representations.hdf5", "w") as file:
        file["predictions"] = vectors[:, :, None]
        file.create_dataset("id_str", data=[f"g{i}" for i in range(len(vectors))], dtype=h5py.string_dtype())
    with h5py.File(path.parent / "representations.hdf5") as file:
        np.save(path, file["predictions"][..., 0])


@pytest.mark.parametrize(
    ("name", "width", "save", "key", "columns"),
    [
        ("aion.npy", 768, lambda p, v, t: np.save(p, np.stack([v - 1, v + 1], 1).mean(axis=1)), None, []),
        ("legacysurvey.parquet", 768, save_parquet, None, ["aion_mean_embedding"]),
        ("zss_64t.npy", 1024, lambda p, v, t: np.save(p, v), None, []),
        ("astroclip.hdf5", 1024, save_astroclip, "image_embeddings", []),
        ("zoobot.npy", 1280, save_zoobot, None, []),
    ],
)
def test_vectors_of_foundation_models(
    name: str, width: int, save: Callable[..., None], key: str | None, columns: list[str], tmp_path: Path
) -> None:
    """As each saves them, and as the page says that they come in."""
    table = magnitude_table(30)
    vectors = np.random.default_rng(3).normal(size=(30, width)).astype(np.float32)
    save(tmp_path / name, vectors, table)
    table.write(tmp_path / "galaxies.fits")
    path = str(tmp_path / (name if columns else "galaxies.fits"))
    read, found = embeddings.load(path, None if columns else str(tmp_path / name), key, columns, RULES)
    np.testing.assert_allclose(found, vectors, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(read["spec_z"], table["spec_z"])


def test_bad_vectors_are_named(tmp_path: Path) -> None:
    path, array = write(tmp_path)
    with pytest.raises(DataError, match=r"data.vectors=\['g\*'\] names no column. Its columns are: spec_z"):
        embeddings.load(path, None, None, ["g*"], RULES)
    np.save(array, np.load(array)[:-1])
    with pytest.raises(DataError, match=r"119 rows for 120 rows of .*galaxies.fits"):
        embeddings.load(path, array, None, [], RULES)
    np.save(array, np.zeros((120, 2, 2)))
    with pytest.raises(DataError, match=r"shape \(120, 2, 2\), \(n, d\) expected"):
        embeddings.load(path, array, None, [], RULES)
    table = magnitude_table(4)
    table["f0"] = ["a", "b", "c", "d"]
    table.write(tmp_path / "text.csv")
    with pytest.raises(DataError, match=r"column f0, .*holds text"):
        embeddings.load(tmp_path / "text.csv", None, None, ["f0"], RULES)


@pytest.mark.parametrize("encoder", ["precomputed", "mlp"])
def test_vectors_are_corrected_in_one_command(encoder: str, tmp_path: Path) -> None:
    path, array = write(tmp_path)
    words = [
        *(w for w in QUICK if not w.startswith("experiment")),
        "experiment=embeddings",
        f"encoder={encoder}",
        f"data.path={path}",
        f"data.images={array}",
        "data.columns.dered_petro_r=mag_r",
        "survey.n_bins=20",
        "correction.subset.threshold=5",
        "n_bootstrap=5",
        *(f"training.{s}.max_steps=6" for s in ("representation", "step2", "step3")),
        "training.representation.check_every=3",
        "logger=none",
        *places(tmp_path),
    ]
    if encoder == "mlp":  # layers on top are a representation of their own
        assert "no finished representation" in run("stage=classifier", "correction=full", *words).message
        run_well("stage=representation", *(word for word in words if not word.startswith("correction")))
    run_well("stage=classifier", "correction=full", *words)
    done = {p.parent.parent.name for p in (tmp_path / "runs").rglob("done.json")}
    assert done == {"representation", "classifier"}
    store = open_store(only(tmp_path / "data", "store.json").parent)
    assert store.kind == "vectors"
    np.testing.assert_array_equal(store.inputs, np.load(array))


def test_encoder_of_images_is_refused(tmp_path: Path) -> None:
    path, array = write(tmp_path)
    words = ["data=embeddings", f"data.path={path}", f"data.images={array}", "encoder=fast"]
    outcome = run("stage=classifier", *words, *places(tmp_path))
    assert "type encoder=mlp or encoder=precomputed" in outcome.message
    both = [*words[:3], "encoder=precomputed", "data.vectors=[f0]"]
    assert "data=embeddings needs either" in run("stage=classifier", *both, *places(tmp_path)).message
