"""Every source is whole: what it needs, what its store depends on, and how another one is added."""

import importlib
import subprocess
import sys
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from command import QUICK, places, run, run_well

from photoz_lit.config.schema import SurveyConfig
from photoz_lit.data.sources import SOURCES
from photoz_lit.data.sources.settings import SPLITTING
from photoz_lit.target import Target

# Settings that decide nothing of a store, beside those of the split.
NOTHING = {"mock": {"labelled"}}
OTHER: dict[str, Any] = {"none": "interpolate", False: True, True: False}


def changed(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool) or value == "none":
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
    if "kind" in f.metadata and (name, f.name) != ("sdss", "images")
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


TOY = """
from dataclasses import dataclass
import numpy as np
from photoz_lit.data.sources.settings import Plan, SourceSettings, facts_of

KINDS = ("vectors",)

@dataclass
class Settings(SourceSettings):
    source: str = "toy"
    n: int = 40

def check(settings, survey):
    pass

def facts(settings, survey, target):
    return facts_of(settings, survey, target)

def plan(settings, survey, target, workers):
    from astropy.table import Table
    z = np.linspace(0.01, 0.39, settings.n)
    table = Table({"object_id": np.arange(settings.n), "spec_z": z, "dered_petro_r": 15 + z, "ebv": 0 * z})
    return Plan(table, (settings.n, 1), "vectors", lambda start: [z[start:, None]])
"""


def test_another_source_is_one_file_one_yaml_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "toy.yaml").write_text("source: toy\n")
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(SOURCES, "toy", importlib.import_module("toy"))
    words = ["--config-dir", str(tmp_path / "conf"), "stage=prepare", "data=toy", "encoder=precomputed"]
    words += ["logger=none", *places(tmp_path)]
    assert "40 galaxies" in run_well(*words).out
    assert "50 galaxies" in run_well(*words, "data.n=50").out
    assert "Valid keys under 'data' with source=toy: " in run(*words, "data.path=x.csv").message


def test_an_experiment_s_simulated_galaxies_do_not_concern_other_sources(tmp_path: Path) -> None:
    words = [*QUICK, "stage=prepare", "data=arrays", *places(tmp_path)]
    assert "data.path is not set" in run(*words).message
    assert "unknown setting 'data.n_galaxies'" in run(*words, "data.n_galaxies=30").message
