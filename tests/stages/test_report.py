import csv
import shutil
from pathlib import Path

import pytest
from command import Finished, only, run, run_well


@pytest.mark.slow
def test_report_of_real_runs(catalogue_run: Finished, tmp_path: Path) -> None:
    shutil.copytree(catalogue_run.folder / "runs", tmp_path / "runs")
    outcome = run_well("stage=report", f"output_dir={tmp_path / 'runs'}")
    assert str(tmp_path / "runs" / "report.html") in outcome.out.replace("\n", "")
    assert "full" in outcome.out
    assert "<html" in (tmp_path / "runs" / "report.html").read_text()
    with only(tmp_path / "runs", "summary.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2


def test_report_of_one_name_looks_for_it_alone(tmp_path: Path) -> None:
    outcome = run("stage=report", "run=gone", f"output_dir={tmp_path}")
    assert outcome.code == 1
    assert "no finished run of run=gone" in outcome.message


def test_report_on_nothing_says_so(tmp_path: Path) -> None:
    outcome = run("stage=report", f"output_dir={tmp_path}")
    assert outcome.code == 1
    assert str(tmp_path) in outcome.message
