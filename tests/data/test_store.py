import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from command import state

from photoz_lit.data.pixels import inspect_cutouts
from photoz_lit.data.sources.settings import Plan
from photoz_lit.data.splits import assign_splits
from photoz_lit.data.store import (
    Store,
    finish_store,
    is_complete,
    open_rows,
    open_store,
    partial_folder,
    rows_written,
    write_store,
)
from photoz_lit.errors import DataError

SHAPE = (10, 2, 3, 3)
INPUTS = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def catalogue() -> Table:
    return Table({"object_id": [f"g{i}" for i in range(10)], "spec_z": np.linspace(0, 0.3, 10)})


def write(folder: Path, inputs: np.ndarray = INPUTS, start: int = 0, dtype: str = "float32") -> Store:
    chunks = (inputs[i : i + 3] for i in range(start, len(inputs), 3))
    return write_store(
        folder, catalogue(), chunks, shape=SHAPE, dtype=dtype, kind="images", settings={"a": 1}
    )


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_written_is_read_by_memory_map(dtype: str, tmp_path: Path) -> None:
    store = write(tmp_path / "s", dtype=dtype)
    assert isinstance(store.inputs, np.memmap)
    np.testing.assert_array_equal(store.inputs, INPUTS.astype(dtype))
    assert list(store.catalogue["object_id"]) == [f"g{i}" for i in range(10)]
    assert store.kind == "images"
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_inputs_of_any_layout_are_written_in_order(dtype: str, tmp_path: Path) -> None:
    turned = np.asfortranarray(INPUTS.astype(np.float32))
    turned.flags.writeable = False
    np.testing.assert_array_equal(write(tmp_path / "s", turned, dtype=dtype).inputs, INPUTS.astype(dtype))


def test_interrupted_write_goes_on_byte_for_byte(tmp_path: Path) -> None:
    write(tmp_path / "whole")

    def stop_after(n: int):  # type: ignore[no-untyped-def]
        yield INPUTS[:n]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(
            tmp_path / "s",
            catalogue(),
            stop_after(4),
            shape=SHAPE,
            dtype="float32",
            kind="images",
            settings={},
        )
    assert not is_complete(tmp_path / "s")
    partial = partial_folder(tmp_path / "s") / "inputs.npy"
    with partial.open("ab") as file:
        file.write(b"half a row")
    assert rows_written(tmp_path / "s", SHAPE, "float32") == 4
    write(tmp_path / "s", start=4)
    assert (tmp_path / "s" / "inputs.npy").read_bytes() == (tmp_path / "whole" / "inputs.npy").read_bytes()
    assert not partial.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_cannot_be_kept_name_their_galaxy(value: float, tmp_path: Path) -> None:
    bad = INPUTS.copy()
    bad[7, 1, 0, 0] = value
    with pytest.raises(DataError, match=r"NaN or infinite values: 1 galaxies, first in row 7 \(object_id g7"):
        write(tmp_path / "s", bad)
    assert not is_complete(tmp_path / "s")


def test_fewer_inputs_than_galaxies_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="9 rows of inputs were given for 10 galaxies"):
        write(tmp_path / "s", INPUTS[:9])
    assert not is_complete(tmp_path / "s")


@pytest.mark.parametrize("name", ["inputs.npy", "store.json", "catalogue.fits"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.95])
def test_truncated_store_is_refused_and_left_alone(name: str, kept: float, tmp_path: Path) -> None:
    write(tmp_path / "s")
    content = (tmp_path / "s" / name).read_bytes()
    (tmp_path / "s" / name).write_bytes(content[: int(kept * len(content))])
    before = state(tmp_path)
    with pytest.raises(DataError, match=r"truncated.*Prepare it again.*stage=prepare"):
        open_store(tmp_path / "s")
    assert state(tmp_path) == before


@pytest.mark.parametrize("facts", ['{"version": 99, "kind": "images", "shape": []}', "[]", "{}", "3"])
def test_store_of_another_kind_or_version_is_refused(facts: str, tmp_path: Path) -> None:
    write(tmp_path / "s")
    (tmp_path / "s" / "store.json").write_text(facts)
    with pytest.raises(DataError, match="stage=prepare"):
        open_store(tmp_path / "s")


def test_settings_are_on_record(tmp_path: Path) -> None:
    write(tmp_path / "s")
    assert json.loads((tmp_path / "s" / "store.json").read_text())["settings"] == {"a": 1}


@pytest.mark.parametrize("stop", [None, 2, 5, 7])
def test_faulty_galaxies_are_flagged_and_zero_even_after_an_interruption(
    stop: int | None, tmp_path: Path
) -> None:
    bad = INPUTS.copy()
    bad[[1, 4], 0, 0, 0] = np.nan, np.inf
    bad[8, 0] = 0
    table = catalogue()
    table["flag"] = ["", "", "", "table", *[""] * 6]
    facts: dict[str, Any] = {
        "shape": SHAPE,
        "dtype": "float32",
        "kind": "images",
        "settings": {},
        "keep_faulty": True,
    }
    facts["inspect"] = inspect_cutouts

    def until(n: int):  # type: ignore[no-untyped-def]
        yield bad[:n]
        raise KeyboardInterrupt

    if stop is not None:
        with pytest.raises(KeyboardInterrupt):
            write_store(tmp_path / "s", table, until(stop), **facts)
    start = rows_written(tmp_path / "s", SHAPE, "float32")
    assert start == (stop or 0)
    store = write_store(tmp_path / "s", table, [bad[start:]], **facts)
    assert store.flags.tolist() == ["", "pixels", "", "table", "pixels", "", "", "", "pixels", ""]
    assert not store.inputs[[1, 4, 8]].any()
    np.testing.assert_array_equal(store.inputs[[0, 2, 3]], INPUTS[[0, 2, 3]])


def test_rows_are_read_without_a_memory_map(tmp_path: Path) -> None:
    store = write(tmp_path / "s", dtype="float16")
    part = store.read(3, 8)
    assert type(part) is np.ndarray
    np.testing.assert_array_equal(part, INPUTS[3:8].astype(np.float16))
    assert len(store.read(10, 10)) == 0


def test_rows_may_come_in_any_order_and_in_several_sessions(tmp_path: Path) -> None:
    for rows in ([7, 2], [0, 9], [3]):
        with open_rows(tmp_path / "s", SHAPE, "float32") as inputs:
            inputs[rows] = INPUTS[rows]
    store = finish_store(tmp_path / "s", catalogue(), shape=SHAPE, kind="images", settings={})
    written = [0, 2, 3, 7, 9]
    np.testing.assert_array_equal(store.inputs[written], INPUTS[written])
    assert not store.inputs[[1, 4, 5, 6, 8]].any()
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_no_room_for_the_rows_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    refused = pytest.raises(DataError, match=r"inputs.npy: no room for .* No space left")
    with refused, open_rows(tmp_path / "s", SHAPE, "float32"):
        pass
    monkeypatch.undo()
    with open_rows(tmp_path / "s", SHAPE, "float32") as inputs:
        assert not inputs.any()


def planned(inputs: np.ndarray, **how: Any) -> Plan:
    def chunks(start: int) -> list[np.ndarray]:
        return [inputs[i : i + 3] for i in range(start, len(inputs), 3)]

    return Plan(catalogue(), SHAPE, "images", chunks, inspect_cutouts, **how)


def quietly(n: int, total: int) -> None:
    """Progress that nobody watches."""


@pytest.mark.parametrize("row", [0, 7])
def test_bright_pixels_make_a_store_of_float32(row: int, tmp_path: Path) -> None:
    bright = INPUTS.copy()
    bright[row, 1, 1, 1] = 9e4
    store = planned(bright, dtype="float16").write(tmp_path / "s", {}, quietly)
    assert not store.flags.any()
    np.testing.assert_array_equal(store.inputs, bright)
    assert store.inputs.dtype == np.float32
    assert planned(INPUTS, dtype="float16").write(tmp_path / "t", {}, quietly).inputs.dtype == np.float16


def test_a_float32_store_goes_on_where_it_was(tmp_path: Path) -> None:
    bright = INPUTS.copy()
    bright[0, 1, 1, 1] = 9e4
    calls: list[int] = []

    def chunks(start: int) -> Iterator[np.ndarray]:
        calls.append(start)
        yield bright[start : start + 4]
        if len(calls) < 3:
            raise KeyboardInterrupt
        yield bright[start + 4 :]

    plan = replace(planned(bright, dtype="float16"), chunks=chunks)
    with pytest.raises(KeyboardInterrupt):
        plan.write(tmp_path / "s", {}, quietly)
    np.testing.assert_array_equal(plan.write(tmp_path / "s", {}, quietly).inputs, bright)
    assert calls == [0, 0, 4]


def test_an_array_that_is_there_is_not_copied_and_not_trusted_once_it_changes(tmp_path: Path) -> None:
    bad = INPUTS.copy()
    bad[4, 0, 0, 0] = np.nan
    path = tmp_path / "cutouts.npy"
    np.save(path, bad)
    plan = planned(bad, array=path, keep_faulty=True)
    store = plan.write(tmp_path / "s", {}, quietly)
    assert store.flags.tolist() == [*[""] * 4, "pixels", *[""] * 5]
    assert sorted(file.name for file in store.folder.iterdir()) == ["catalogue.fits", "store.json"]
    np.testing.assert_array_equal(open_store(tmp_path / "s").read(2, 7), bad[2:7])
    np.save(path, np.concatenate([INPUTS, INPUTS]))
    with pytest.raises(DataError, match=r"cutouts.npy are gone or have changed. Prepare it again"):
        open_store(tmp_path / "s")


def test_a_folder_that_is_no_store_is_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("!")
    with pytest.raises(DataError, match="no prepared data set") as caught:
        open_store(tmp_path)
    assert "elete" not in str(caught.value)


def test_the_finished_store_of_another_process_stays(tmp_path: Path) -> None:
    store = write(tmp_path / "s")
    before = state(store.folder)
    write(tmp_path / "s", INPUTS + 1)
    assert state(store.folder) == before


def test_a_repaired_galaxy_can_be_used_and_says_so(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(40, 2, 8, 8)).astype(np.float32)
    inputs[3, 1, 4, 4] = np.nan
    inputs[5, 0] = np.nan
    table = Table({"object_id": np.arange(40), "spec_z": np.linspace(0, 0.3, 40)})
    inspect = partial(inspect_cutouts, repair=True)
    plan = Plan(table, inputs.shape, "images", lambda i: [inputs[i:]], inspect, keep_faulty=True)
    store = plan.write(tmp_path / "s", {}, quietly)
    assert store.flags[[3, 5]].tolist() == ["repaired", "pixels"]
    assert np.flatnonzero(~store.usable).tolist() == [5]
    assert np.isfinite(store.inputs).all()
    split = assign_splits(store.catalogue, test_fraction=0.2, val_fraction=0.2, seed=0)
    assert np.flatnonzero(split == "unused").tolist() == [5]
