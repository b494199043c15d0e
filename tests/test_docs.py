"""What a person reads: links lead somewhere, commands are taken, the example runs."""

import re
import runpy
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import yaml
from astropy.table import Table
from command import ROOT, nothing_done, run

import photoz_lit

PAGES = sorted(
    path
    for path in (
        *ROOT.glob("*.md"),
        *ROOT.glob("conf/*/*.md"),
        *ROOT.glob("photoz_lit/*/*.md"),
        *ROOT.glob("data/*.md"),
        *ROOT.glob(".github/*.md"),
    )
)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def headings(path: Path) -> set[str]:
    """Anchors of a page's headings, as web hosts make them."""
    lines = re.sub(r"```.*?```", "", path.read_text(), flags=re.S).splitlines()
    words = [line.lstrip("# ").lower() for line in lines if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in words}


def commands(pages: Iterable[Path] = PAGES) -> list[str]:
    """Return every command of pages, continued lines joined, without comments."""
    found = []
    for page in pages:
        for block in re.findall(r"```\n(.*?)```", page.read_text(), re.S):
            joined = re.sub(r"\\\n\s*", " ", block)
            found += [
                line.split(" #")[0].strip()
                for line in joined.splitlines()
                if line.startswith("python -m photoz_lit ")
            ]
    return sorted(set(found))


FIRST = commands([ROOT / "README.md"])


def test_the_pages_are_found() -> None:
    assert {"README.md", "conf/data/README.md", ".github/CONTRIBUTING.md"} <= {named(page) for page in PAGES}
    assert len(commands()) > 30


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{named(page)}: {link}"
        assert not anchor or anchor in headings(target), f"{named(page)}: {link}: no such heading"


@pytest.mark.parametrize(
    "command",
    # A sweep is composed job by job, up to a hundred.
    [
        pytest.param(line, marks=() if line in FIRST and " -m " not in line[10:] else pytest.mark.slow)
        for line in commands()
    ],
)
def test_commands_are_taken(command: str, tmp_path: Path) -> None:
    """Every setting is one, and has a value that can be; nothing runs."""
    words = [re.sub(r"^(seed=\d+)[\d,]*$", r"\1", word) for word in shlex.split(command)[3:]]
    borrow = mock.patch("photoz_lit.config.parse._borrow")  # from a run that is not there
    with nothing_done() as ran, borrow:
        outcome = run(*words, f"output_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert ran


def test_the_example_of_another_method_writes_what_the_experiment_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["regression.py", "300", "3"])
    runpy.run_path(str(ROOT / "conf" / "data" / "regression.py"), run_name="__main__")
    table, vectors = Table.read("galaxies.fits"), np.load("vectors.npy")
    assert vectors.shape == (300, 64)
    assert {"spec_z", "dered_petro_r", "split"} == set(table.colnames)
    outcome = run(
        "experiment=embeddings",
        "stage=prepare",
        f"data.path={tmp_path / 'galaxies.fits'}",
        f"data.images={tmp_path / 'vectors.npy'}",
        f"data_dir={tmp_path / 'data'}",
    )
    assert outcome.code == 0, outcome.err
    assert "60 test" in outcome.out


def test_the_citation_is_of_this_version_and_names_the_papers() -> None:
    cited = yaml.safe_load((ROOT / ".github" / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert (cited["title"], cited["version"]) == ("photoz_lit", photoz_lit.__version__)
    assert cited["license"] == "BSD-3-Clause"
    assert cited["authors"] == [{"name": "photoz_lit maintainers"}]
    for paper in cited["references"]:
        assert re.fullmatch(r"10\.1051/0004-6361/\d{9}", paper["doi"])
        assert {"type", "title", "authors", "journal", "year", "volume", "start"} < paper.keys()
