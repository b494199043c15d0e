"""`photoz_lit.correct`: arrays in, a model out, whose numbers are those of the command."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table
from command import only, run_well, state

import photoz_lit
from photoz_lit.errors import ConfigError, DataError
from photoz_lit.results import read_pdf

N = 200
STEPS = [
    *("n_bootstrap=5", "trainer.accelerator=cpu", "trainer.threads=1"),
    *(f"training.{step}.max_steps=6" for step in ("representation", "step2", "step3", "hidden")),
    *(f"training.{step}.check_every=3" for step in ("representation", "hidden")),
]
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def galaxies() -> Arrays:
    """Vectors that tell of the redshift, spec_z and r."""
    rng = np.random.default_rng(3)
    z = rng.uniform(0.01, 0.3, N)
    return np.column_stack([z, z**2, *rng.normal(size=(3, N))]), z, rng.uniform(14.0, 17.7, N)


@pytest.mark.slow
def test_numbers_are_those_of_the_command(tmp_path: Path) -> None:
    vectors, z, r = galaxies()
    own = {"n_bins": 20, "r_range": (14, 17.85), "folder": tmp_path / "own"}
    model = photoz_lit.correct(torch.from_numpy(vectors), z, r, settings=STEPS, **own)
    table = Table.read(model.models[0].folder / "photo_z.fits")
    np.save(tmp_path / "v.npy", vectors.astype(np.float32))
    Table({"spec_z": z, "dered_petro_r": r}).write(tmp_path / "t.fits")
    run_well(
        *("experiment=embeddings", "stage=classifier", "correction=best", "logger=none", "data.split_seed=1"),
        *(f"data.path={tmp_path / 't.fits'}", f"data.images={tmp_path / 'v.npy'}", "survey.n_bins=20"),
        *("survey.r_min=14", f"survey.r_width={(17.85 - 14) / 11}", *STEPS),
        *(f"output_dir={tmp_path / 'runs'}", f"data_dir={tmp_path / 'data'}"),
    )
    folder = only(tmp_path / "runs", "classifier/*/done.json").parent
    pdf = np.concatenate(list(read_pdf(folder)))
    np.testing.assert_array_equal(pdf, np.concatenate(list(read_pdf(model.models[0].folder))))
    rows = np.asarray(table["object_id"])
    assert len(rows) == len(pdf) > 20
    result = model.predict(vectors[rows].astype(np.float32), r=r[rows])
    np.testing.assert_allclose(result.pdf, pdf, atol=1e-5)
    assert result.photo_z_individual is not None
    assert (result.flag != "ebv").all()
    before = state(tmp_path / "own")
    again = photoz_lit.correct(vectors, z, r, settings=STEPS, **own)
    assert again.models[0].digest == model.models[0].digest
    assert state(tmp_path / "own") == before


@pytest.mark.slow
def test_other_galaxies_are_another_run_of_a_folder(tmp_path: Path) -> None:
    vectors, z, r = galaxies()
    one, other = (
        photoz_lit.correct(
            vectors[:n], z[:n], r[:n], correction="none", n_bins=20, settings=STEPS, folder=tmp_path
        )
        for n in (N, N - 1)
    )
    assert one.models[0].folder != other.models[0].folder


def test_a_model_without_a_folder_lives_as_long_as_it_is_held() -> None:
    model = photoz_lit.correct(*galaxies(), correction="none", n_bins=20, settings=STEPS)
    folder = model.models[0].folder
    assert folder.is_dir()
    assert len(model.predict(galaxies()[0]).photo_z) == N
    del model
    gc.collect()
    assert not folder.exists()


def spoilt(place: int, row: int, value: float) -> Arrays:
    arrays = galaxies()
    arrays[place][row] = value
    return arrays


@pytest.mark.parametrize(
    ("arrays", "words", "error", "said"),
    [
        (tuple(a[:40] for a in galaxies()), {}, DataError, r"vectors are of shape \(40, 5\)"),
        ((galaxies()[1], *galaxies()[1:]), {}, DataError, r"vectors are of shape \(200,\): give \(n, d\)"),
        ((galaxies()[0], galaxies()[1][1:], galaxies()[2]), {}, DataError, r"spec_z is of shape \(199,\)"),
        ((*galaxies()[:2], 17.0), {}, DataError, r"r is of shape \(\) for 200 vectors"),
        (spoilt(0, 7, np.nan), {}, DataError, "vectors: no number in 1 of 200 rows, first in row 7"),
        (spoilt(1, 8, np.inf), {}, DataError, "spec_z: no number in 1 of 200 rows, first in row 8"),
        (spoilt(2, 9, np.nan), {}, DataError, "r: no number in 1 of 200 rows, first in row 9"),
        (spoilt(1, 3, 0.5), {}, DataError, "spec_z is outside 0 to 0.4 in 1 of .* give another z_range"),
        (galaxies(), {"r_range": (15, 18)}, DataError, "r is outside 15 to 18 in .* give another r_range"),
        (galaxies(), {"correction": "bset"}, ConfigError, "correction=best"),
        (galaxies(), {"settings": ["survey.bins=3"]}, ConfigError, "unknown setting 'survey.bins'"),
    ],
)
def test_what_cannot_be_is_named(
    arrays: Arrays, words: dict[str, object], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        photoz_lit.correct(*arrays, **words)
