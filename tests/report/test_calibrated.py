import re
from pathlib import Path

import pytest
from simulated_runs import KINDS, write_calibrated, write_run

from photoz_lit.report.calibrated import calibrated_rows, read_calibrated
from photoz_lit.report.page import write_report
from photoz_lit.report.runs import gather
from photoz_lit.report.table import by_correction

FULL = KINDS[-1]


def test_rows_are_medians_over_the_seeds_of_a_correction(tmp_path: Path) -> None:
    for seed, slope in ((1, 0.001), (2, 0.002), (3, 0.007)):
        write_run(tmp_path, FULL, seed, n=50)
        write_calibrated(tmp_path, FULL, seed, slope=slope)
    found, broken = read_calibrated(tmp_path)
    assert broken == []
    (before,), (after,) = calibrated_rows(found, by_correction(gather(tmp_path).runs))
    assert (after["label"], after["seeds"]) == ("full, calibrated", 3)
    assert (after["slope_photo_z"], after["slope_photo_z_spread"]) == (0.002, pytest.approx(0.003))
    assert before["slope_photo_z"] == pytest.approx(FULL.tilt / 4 - 0.03)
    assert (before["bulk_max"], after["bulk_max"]) == (0.015, 0.002)


def test_page_shows_before_and_after_and_who_is_best(tmp_path: Path, without_drawing: None) -> None:
    for kind in (KINDS[0], FULL):
        write_run(tmp_path, kind, 1, n=200)
    write_calibrated(tmp_path, FULL, 1)
    text = write_report(tmp_path)[0].read_text(encoding="utf-8")
    (table,) = re.findall(r'<table class="changes">.*?</table>', text, re.S)
    cells = re.findall(r"<td>([^<]*) → ([^<]*)</td>", table)
    assert cells[0] == ("0.0040", "0.0005")
    assert cells[3] == ("+0.008 ± 0.001", "\N{MINUS SIGN}0.110 ± 0.001")
    assert re.search(r"The same with calibrated photo z</td><td[^>]*>full, calibrated<small>", text)
    assert (tmp_path / "figures/demo/calibrated-photo-z.svg").is_file()


def test_other_ways_of_calibration_are_rows_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path, FULL, 1, n=50)
    for name in ("target=auto", "target=auto,sample=all", "target=photo"):
        folder = write_calibrated(tmp_path, FULL, 1)
        folder.rename(folder.with_name(f"{name} "))
    for folder in (tmp_path / "demo/calibrate").glob("*/* "):
        folder.rename(folder.with_name(folder.name.strip()))
    before, _ = calibrated_rows(read_calibrated(tmp_path)[0], by_correction(gather(tmp_path).runs))
    assert [row["title"] for row in before] == ["full", "full (sample=all)", "full (target=photo)"]


def test_estimates_of_a_table_are_shown_by_its_name(tmp_path: Path, without_figures: None) -> None:
    write_run(tmp_path, FULL, 1, n=50)
    folder = write_calibrated(tmp_path, FULL, 9)
    folder.parent.rename(folder.parent.with_name("boosted_trees"))
    text = write_report(tmp_path)[0].read_text(encoding="utf-8")
    assert "<td>boosted_trees</td>" in text


def test_without_the_truth_there_is_nothing_to_show(tmp_path: Path, without_figures: None) -> None:
    write_run(tmp_path, FULL, 1, n=50)
    (write_calibrated(tmp_path, FULL, 1) / "metrics_before.json").unlink()
    assert read_calibrated(tmp_path) == ([], [])
    assert '<table class="changes">' not in write_report(tmp_path)[0].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "cannot be read"), ("{}", "lacks bulk_mean"), ('{"bulk_mean": "x"', "cannot")],
)
def test_broken_estimates_are_named(tmp_path: Path, without_figures: None, content: str, reason: str) -> None:
    write_run(tmp_path, FULL, 1, n=50)
    folder = write_calibrated(tmp_path, FULL, 1)
    (folder / "metrics.json").write_text(content)
    ((path, said),) = read_calibrated(tmp_path)[1]
    assert path == folder
    assert said.startswith("metrics.json")
    assert reason in said
    assert f"<code>demo/calibrate/correction=full,seed=1/target=auto</code>: {said[:12]}" in write_report(
        tmp_path
    )[0].read_text(encoding="utf-8")
