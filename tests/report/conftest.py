"""Output folders with finished runs: one for tests that only read, and new ones to change."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from simulated_runs import KINDS, write_run

from photoz_lit.report.html import Block
from photoz_lit.report.page import write_report


def write_some(output_dir: Path) -> Path:
    """Write Baseline, Step 1 and three corrections, two seeds each."""
    for kind in KINDS:
        for seed in (1, 2):
            if kind.label in ("Baseline", "Step 1", "balanced", "hard", "full"):
                write_run(output_dir, kind, seed, n=300)
    return output_dir


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an output folder with a report, which tests must not change."""
    output_dir = write_some(tmp_path_factory.mktemp("finished"))
    write_report(output_dir)
    return output_dir


@pytest.fixture
def without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out of the page, which take most of the time."""
    empty = Block("no figure")
    for name, left in (
        ("build_blocks", lambda corrections: []),
        ("comparison_blocks", lambda rows, target: []),
        ("sweep_block", lambda sweep, target: empty),
        ("calibrated_block", lambda before, after, target: empty),
    ):
        monkeypatch.setattr(f"photoz_lit.report.page.{name}", left)


@pytest.fixture
def without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all figures, but leave their files empty; tests of figures draw each."""

    def savefig(figure: Figure, place: object, **options: object) -> None:
        if isinstance(place, Path):
            place.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)


@pytest.fixture
def results(tmp_path: Path, without_figures: None) -> Path:
    """Return an output folder of one's own; its page has no figures."""
    return write_some(tmp_path / "runs")
