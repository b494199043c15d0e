import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from command import (
    IMAGES,
    QUICK,
    Finished,
    begin,
    catalogue_words,
    cutouts,
    only,
    places,
    run_well,
    state,
    write_arrays,
    write_catalogue,
)

from photoz_lit.data.store import open_store


def test_prepared_data_are_used_again(mock_run: Finished) -> None:
    run_well("stage=prepare", *mock_run.words)
    assert only(mock_run.folder, "data_report.html").is_file()
    before = state(mock_run.folder)
    outcome = run_well("stage=prepare", *mock_run.words)
    assert "preparing" not in outcome.out
    assert "120 galaxies (84 train, 12 val, 24 test), images of shape (120, 5, 24, 24)" in outcome.out
    assert state(mock_run.folder) == before


def test_changed_table_is_prepared_again(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path)
    run_well("stage=prepare", *catalogue_words(path), *places(tmp_path))
    write_catalogue(tmp_path, n=70)
    outcome = run_well("stage=prepare", *catalogue_words(path), *places(tmp_path))
    assert "70 galaxies" in outcome.out


def test_arrays_and_their_test_arrays(tmp_path: Path) -> None:
    words = write_arrays(tmp_path)
    (tmp_path / "test").mkdir()
    write_arrays(tmp_path / "test", n=15)
    np.save(tmp_path / "test" / "cutouts.npy", cutouts(15, 12, seed=9))
    table = (tmp_path / "test" / "table.csv").read_text().replace("0.05\n", "0.06\n")
    (tmp_path / "test" / "table.csv").write_text(table)
    more = (
        f"data.test_path={tmp_path / 'test' / 'table.csv'}",
        f"data.test_images={tmp_path / 'test' / 'cutouts.npy'}",
    )
    outcome = run_well("stage=prepare", *QUICK, *words, *more, *places(tmp_path))
    assert "15 test" in outcome.out
    store = open_store(only(tmp_path / "data", "store.json").parent)
    np.testing.assert_array_equal(
        store.inputs, np.concatenate([cutouts(), cutouts(15, 12, seed=9)]).astype(np.float16)
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_preparation_goes_on_to_the_same_bytes(
    workers: int, mock_run: Finished, tmp_path: Path
) -> None:
    words = [
        w for w in IMAGES if not w.startswith(("data.n_galaxies", "trainer.render_workers", "survey.pixels"))
    ]
    words += ["data.n_galaxies=600", "survey.pixels=32"]
    process = begin(
        "stage=prepare", *words, f"trainer.render_workers={workers}", *places(tmp_path / "killed")
    )
    until = time.monotonic() + 120
    while sum(p.stat().st_size for p in (tmp_path / "killed").rglob("*.partial/inputs.npy")) < 1_500_000:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)  # its workers hold these pipes: they must have ended too
    outcome = run_well("stage=prepare", *words, *places(tmp_path / "killed"))
    assert "going on at galaxy" in outcome.out
    run_well("stage=prepare", *words, "trainer.render_workers=1", *places(tmp_path / "whole"))
    for name in ("inputs.npy", "catalogue.fits"):
        killed, whole = (only(tmp_path / f, name).read_bytes() for f in ("killed", "whole"))
        assert killed == whole
