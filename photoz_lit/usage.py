"""What `--help` prints; imports nothing, to answer at once."""

import textwrap
from pathlib import Path

USAGE = """\
photoz_lit: photometric redshifts from galaxy images, without the biases that deep classifiers add.

  python -m photoz_lit experiment=demo stage=representation head=single   the Baseline, on a simulated survey
  python -m photoz_lit experiment=demo stage=representation               Step 1, the representation
  python -m photoz_lit experiment=demo stage=classifier correction=full   its biases removed
  python -m photoz_lit experiment=demo stage=report                       one page with all results
  python -m photoz_lit stage=predict model=FOLDER data=stamps data.images=FOLDER   photo-z of other galaxies
  python -m photoz_lit stage=predict model=sdss_main position="10:00:00 +12:42:00"   of a place on the sky

Settings are words, key=value, as many as you like:
  --cfg job          print all settings with their values, and do nothing
  -m, --multirun     several values are several jobs: -m correction=none,full seed=1,2,3
  --config-dir DIR   configurations of your own, e.g. DIR/survey/mine.yaml for survey=mine
  --version          print the version

Choices, each a file of conf/GROUP, whose README says more:
"""
GROUPS = {
    "stage": "what is done",
    "data": "where galaxies come from",
    "survey": "images, bins, slices",
    "target": "what is estimated",
    "encoder": "the network",
    "correction": "of which biases",
    "experiment": "settings that go together",
    "size": "of experiments",
    "trainer": "hardware",
    "logger": "training curves",
}


def conf_folder() -> Path:
    """Return the folder of configurations: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def usage() -> str:
    """Return the ways to use the package, with the choices of every group."""
    conf, lines = conf_folder(), []
    for group, what in GROUPS.items():
        names = ", ".join(sorted(path.stem for path in (conf / group).glob("*.yaml")))
        head = f"  {group + '=':<13}{what}: "
        lines.append(textwrap.fill(names, 118, initial_indent=head, subsequent_indent=" " * 15))
    return USAGE + "\n".join(lines)
