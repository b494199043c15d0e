"""Published data sets through the command line: every layout, and a large one killed half-way."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from command import PEAK, QUICK, begin, only, places, run, run_well
from layouts import cubes, sdss_labels, write_cfhtls, write_galaxies_ml, write_npy_folder, write_pasquet

from photoz_lit.data.store import open_store

SURVEYS = {
    "pasquet": (write_pasquet, ["survey.pixels=12"]),
    "npy_folder": (write_npy_folder, ["survey.pixels=12"]),
    "cfhtls": (write_cfhtls, ["survey=cfhtls_wide", "survey.pixels=12"]),
    "galaxies_ml": (write_galaxies_ml, ["survey=hsc", "survey.pixels=16"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("layout", SURVEYS)
def test_every_layout_is_prepared_and_trained_on(layout: str, tmp_path: Path) -> None:
    write, survey = SURVEYS[layout]
    words = [
        *QUICK,
        f"data={layout}",
        f"data.path={write(tmp_path)}",
        *survey,
        "logger=none",
        *places(tmp_path),
    ]
    outcome = run_well("stage=prepare", *words)
    assert "images of shape" in outcome.out
    store = open_store(only(tmp_path / "data", "store.json").parent)
    assert (np.asarray(store.catalogue["spec_z"]) > 0).all()
    assert (store.flags == "").all()
    run_well("stage=representation", *words)
    assert only(tmp_path / "runs", "metrics.json").is_file()


@pytest.mark.slow
def test_published_cutouts_keep_order_units_and_labels(tmp_path: Path) -> None:
    path = write_pasquet(tmp_path)
    run_well("stage=prepare", "data=pasquet", f"data.path={path}", "survey.pixels=12", *places(tmp_path))
    store = open_store(only(tmp_path / "data", "store.json").parent)
    expected = cubes(40, 12).transpose(0, 3, 1, 2).astype(np.float16)
    np.testing.assert_array_equal(store.inputs, expected)
    for ours, theirs in {"spec_z": "z", "ebv": "EBV", "dered_petro_r": "dered_petro_r", "ra": "ra"}.items():
        np.testing.assert_array_equal(store.catalogue[ours], sdss_labels(40)[theirs])


def test_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path = write_npy_folder(tmp_path)
    proof = tmp_path / "executed"
    (path / "label").write_bytes(f"cos\nsystem\n(S'touch {proof}'\ntR.".encode())
    words = ["stage=prepare", "data=npy_folder", f"data.path={path}", "survey.pixels=12", *places(tmp_path)]
    message = run(*words).message
    assert "label" in message
    assert "os.system" in message
    assert not proof.exists()


def write_large(path: Path, n: int, step: int = 500) -> None:
    """Write a `.npz` of n galaxies as the authors did, in little memory."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, 64, 64, 5)}
    cube = np.random.default_rng(0).normal(size=(step, 64, 64, 5)).astype(np.float32)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        with archive.open("cube.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for start in range(0, n, step):
                cube[:, 0, 0, 0] = np.arange(start, start + step) % 1000
                file.write(cube.tobytes())
        with archive.open("labels.npy", "w") as file:
            np.lib.format.write_array(file, sdss_labels(n))


@pytest.mark.slow
def test_two_gigabytes_in_flat_memory_killed_half_way_are_the_same_bytes(tmp_path: Path) -> None:
    n = 26_000
    path = tmp_path / "sdss_vagc.npz"
    write_large(path, n)
    words = ["stage=prepare", "data=pasquet", f"data.path={path}", "trainer.progress=false"]
    code = (
        "import atexit; from photoz_lit.__main__ import main\n"
        f"atexit.register(lambda: print('peak', {PEAK})); main()"
    )
    whole = [sys.executable, "-c", code, *words, *places(tmp_path / "whole")]
    told = subprocess.run(whole, capture_output=True, text=True, check=True, cwd=tmp_path)
    peak = float(told.stdout.rpartition("peak ")[2])
    print(f"peak memory of the whole command for a 2.1 GB .npz: {peak:.2f} GiB")
    assert peak < 0.8

    process = begin(*words, *places(tmp_path / "killed"))
    until = time.monotonic() + 600
    while sum(p.stat().st_size for p in (tmp_path / "killed").rglob("*.partial/inputs.npy")) < 5e8:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    outcome = run_well(*words, *places(tmp_path / "killed"))
    assert "going on at galaxy" in outcome.out
    for name in ("inputs.npy", "catalogue.fits"):
        first, second = (only(tmp_path / f, name) for f in ("whole", "killed"))
        assert subprocess.run(["cmp", first, second]).returncode == 0
    for file in tmp_path.rglob("inputs.npy"):
        file.unlink()
    path.unlink()
