"""Every source is whole: what it needs, what its store depends on, and how another one is added."""

import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.sources import SOURCES
from photoz_lit.data.sources.settings import SPLITTING
from photoz_lit.target import Target

# Settings that decide nothing of a store, beside those of the split.
NOTHING = {"mock": {"labelled"}, "sdss": {"frames_url", "connections"}}
OTHER: dict[str, Any] = {"float16": "float32", "none": "interpolate", False: True, True: False}


def changed(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool) or value in ("float16", "none"):
        return OTHER[value]
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, dict):
        return {**value, "ebv": "other"}
    return ["other"] if isinstance(value, list) else f"{value}-other"


def facts(name: str, settings: Any, **survey: Any) -> dict[str, Any]:
    return dict(SOURCES[name].facts(settings, replace(SurveyConfig(), **survey), Target()))


@pytest.mark.parametrize("name", SOURCES)
def test_every_setting_is_a_fact_or_is_named_as_deciding_nothing(name: str) -> None:
    settings = SOURCES[name].Settings()
    assert settings.source == name
    assert set(SOURCES[name].KINDS) <= {"images", "features", "vectors"}
    before = facts(name, settings)
    for f in fields(settings):
        value = getattr(settings, f.name)
        if is_dataclass(value):
            assert f.name in NOTHING[name]
            continue
        same = before == facts(name, replace(settings, **{f.name: changed(value)}))
        assert same == (f.name in SPLITTING | NOTHING.get(name, set())), f.name


@pytest.mark.parametrize("name", [n for n in SOURCES if "images" in SOURCES[n].KINDS and n != "store"])
def test_cutouts_depend_on_the_survey_s_pixels(name: str) -> None:
    settings = SOURCES[name].Settings()
    assert facts(name, settings) != facts(name, settings, pixels=32)
    assert facts(name, settings) != facts(name, settings, z_max=0.3)


PATHS = [
    (name, f.name)
    for name in SOURCES
    for f in fields(SOURCES[name].Settings)
    # A folder of frames may grow: galaxies that lacked one are tried again in the same store.
    if "kind" in f.metadata and f.name != "frames"
]


@pytest.mark.parametrize(("name", "key"), PATHS)
@pytest.mark.parametrize("how", ["file", "folder", "pattern", "part"])
def test_files_behind_every_path_are_facts(name: str, key: str, how: str, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    file = tmp_path / "a" / "b" / "x.fits"
    file.write_text("1")
    path = {"file": file, "folder": tmp_path / "a", "pattern": tmp_path / "*" / "b" / "*.fits"}.get(how)
    settings = SOURCES[name].Settings(**{key: str(path or f"{file}[1]")})
    seen = [facts(name, settings)]
    file.write_text("22")
    seen.append(facts(name, settings))
    if how in ("folder", "pattern"):
        (tmp_path / "a" / "b" / "y.fits").write_text("1")
        seen.append(facts(name, settings))
    file.unlink()
    seen.append(facts(name, settings))
    assert all(one != other for i, one in enumerate(seen) for other in seen[:i])


def test_many_files_are_counted_and_not_spelt_out(tmp_path: Path) -> None:
    for i in range(30):
        (tmp_path / f"{i}.fits").write_text("1")
    settings = SOURCES["stamps"].Settings(images=str(tmp_path))
    assert facts("stamps", settings)["images"][1][0] == 30


def test_sources_import_nothing_heavy() -> None:
    code = "import photoz_lit.data.sources, sys; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "pytorch_lightning", "astropy", "scipy", "h5py", "matplotlib", "pyarrow"}
    assert not heavy & set(told.split())
