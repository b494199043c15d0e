"""The table of corrections in a browser: headings sort it."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SLOPE = 3  # column of the slope, after correction, seeds and n
BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")


def shown(finished: Path, folder: Path, script: str) -> tuple[list[str], list[str]]:
    """Open the page, run a script, and return the labels in their order and the state of each heading."""
    assert BROWSER is not None
    page = folder / "page.html"
    text = (finished / "report.html").read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'browser'}")
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    table = done.stdout[done.stdout.index('<table class="sortable">') :]
    table = table[: table.index("</table>")]
    return re.findall(r'data-label="([^"]+)"', table), re.findall(r'aria-sort="(\w+)"', table)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no browser here")
def test_headings_sort_the_table(finished: Path, tmp_path: Path) -> None:
    click = 'document.querySelectorAll("table.sortable th button")[{}].click();'
    labels, state = shown(finished, tmp_path, "")
    assert labels == ["trainz", "Baseline", "Step 1", "balanced", "hard", "full"]
    assert set(state) == {"none"}
    labels, state = shown(finished, tmp_path, click.format(SLOPE))
    assert labels == ["trainz", "Step 1", "Baseline", "balanced", "full", "hard"]  # by the slope
    assert state[SLOPE] == "ascending"
    assert state.count("none") == len(state) - 1
    labels, state = shown(finished, tmp_path, click.format(SLOPE) * 2)
    assert labels == ["hard", "full", "balanced", "Baseline", "Step 1", "trainz"]
    assert state[SLOPE] == "descending"
    assert shown(finished, tmp_path, click.format(0))[0] == sorted(labels, key=str.lower)
    # trainz has no time: it is last both ways.
    for times in (1, 2):
        assert shown(finished, tmp_path, click.format(len(state) - 1) * times)[0][-1] == "trainz"
