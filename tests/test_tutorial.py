"""The tutorial, as a notebook would run it."""

import re
import runpy
import sys
from pathlib import Path

import pytest
from command import ROOT, parsed

TUTORIAL = ROOT / ".github" / "tutorial.py"


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tutorial.py", str(tmp_path)])
    names = runpy.run_path(str(TUTORIAL), run_name="__main__")
    assert {path.stem for path in tmp_path.glob("*.png")} == {"p_of_z", "photo_z"}
    assert names["judge"]("cutouts", names["result"], names["spec_z"]) < 0.02
    assert names["doubted"].flag.tolist()[1:] == ["pixels", "far", "ebv"]
    assert names["judge"]("vectors", names["others"], names["many_z"][2000:]) < 0.03


def test_its_commands_are_taken(tmp_path: Path) -> None:
    text = re.sub(r"\\\n#\s*", "", TUTORIAL.read_text())
    commands = re.findall(r"#     python -m photoz_lit (.*)", text)
    assert len(commands) == 2
    for command in commands:
        assert parsed(*command.split()).correction.name == "few"
