"""What a run's numbers were frozen with, and whether they are blind: `frozen.json` in its folder.

Settings are chosen on simulated surveys of `mock_seed` below `FIRST_BLIND` and on inner splits of real
tables. Numbers of other surveys, and of outer splits, are blind if the code and the settings that come with
it were committed before. `config.yaml` beside it has the settings.
"""

import subprocess
from pathlib import Path
from typing import Any

import photoz_lit
from photoz_lit.config import Config
from photoz_lit.files import read_json, write_json

FIRST_BLIND = 100  # mock_seed of the first survey that no setting is chosen on
FILE = "frozen.json"


def write_frozen(config: Config, folder: Path) -> None:
    """Write what a run is worked on with; one that was interrupted may have been with several."""
    path, now = folder / FILE, code()
    before = read_json(path)["code"] if path.is_file() else []
    write_json(path, {"unseen": unseen(config), "code": [*(one for one in before if one != now), now]})


def unseen(config: Config) -> bool:
    """Whether no setting was chosen on the test galaxies of these settings."""
    d = config.data
    drawn = d.source == "mock" and d.path is None and d.mock_seed >= FIRST_BLIND
    return bool(drawn or d.nested == "outer")


def code() -> dict[str, Any]:
    """Return version, commit, and whether files differ from it; no commit where there is no repository."""
    version = {"version": photoz_lit.__version__}
    root = Path(photoz_lit.__file__).parents[1]
    try:
        _, commit, changed = (
            subprocess.run(["git", "-C", root, *words], capture_output=True, text=True, check=True).stdout
            for words in (
                # The repository may be a user's, around site-packages.
                ["ls-files", "--error-unmatch", "photoz_lit/__init__.py"],
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--", "photoz_lit", "conf"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return version | {"commit": None, "changed": True}
    return version | {"commit": commit.strip(), "changed": bool(changed.strip())}


def is_blind(frozen: dict[str, Any]) -> bool:
    """Whether the numbers of a run with this `frozen.json` are blind."""
    committed = all(one.get("commit") and not one.get("changed") for one in frozen.get("code", []))
    return bool(frozen.get("unseen") and frozen.get("code") and committed)
