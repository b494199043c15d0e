"""The wheel as users get it: with its own conf, from any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import QUICK, ROOT, run_apart

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and install it, without what it needs, into a folder of its own."""
    dist, target = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("target")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout
    (wheel,) = dist.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True)
    return target


def test_wheel_runs_from_another_folder_with_its_own_conf(installed: Path, tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(installed)}
    where = [sys.executable, "-c", "from photoz_lit.__main__ import conf_folder; print(conf_folder())"]
    found = subprocess.run(
        where, cwd=tmp_path, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    assert Path(found.stdout.strip()) == installed / "photoz_lit" / "conf"
    outcome = run_apart(cwd=tmp_path, env=env)
    assert outcome.code == 0
    assert "python -m photoz_lit" in outcome.out
    words = (*QUICK, "data.n_galaxies=20", "survey.pixels=16", "data.val_fraction=0.2")
    outcome = run_apart("stage=prepare", *words, cwd=tmp_path, env=env)
    assert (outcome.code, outcome.err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert "20 galaxies" in outcome.out


def test_wheel_holds_every_config_and_template(installed: Path) -> None:
    package = installed / "photoz_lit"
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert (package / "conf" / path.relative_to(ROOT / "conf")).read_bytes() == path.read_bytes()
    own = [path for path in (ROOT / "photoz_lit" / "pretrained").rglob("*") if path.is_file()]
    assert len(own) > 10
    for path in [*own, *(ROOT / "photoz_lit").rglob("*.jinja")]:
        assert (package / path.relative_to(ROOT / "photoz_lit")).is_file()
    assert not (installed / "tests").exists()
