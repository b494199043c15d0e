import base64
import csv
import json
import math
import re
from html.parser import HTMLParser
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import ClassVar

import pytest
from rich.console import Console
from simulated_runs import KINDS, Kind, write_run

from photoz_lit.errors import PhotozError
from photoz_lit.report.page import corrections_table, print_table, write_report
from photoz_lit.report.runs import ADDED, METRICS, NoResultsError, gather
from photoz_lit.report.table import by_correction


class Page(HTMLParser):
    """Collects the rows of the table of corrections, what is fetched, and checks that tags are balanced."""

    VOID: ClassVar[set[str]] = {"meta", "img", "br", "link", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.rows: dict[str, dict[str, float]] = {}
        self.row: dict[str, float] = {}
        self.downloads: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        values = {name: value or "" for name, value in attrs}
        self.fetched += [values[name] for name in ("src", "href", "data", "poster") if name in values]
        if "download" in values:
            self.downloads[values["download"]] = values["href"]
        if "data-label" in values:
            self.row = self.rows.setdefault(values["data-label"], {})
        if "data-key" in values:
            self.row[values["data-key"]] = float(values["data-value"])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page(finished: Path) -> str:
    return (finished / "report.html").read_text(encoding="utf-8")


def test_page_needs_nothing_but_itself(page: str) -> None:
    parsed = Page(page)
    assert all(target.startswith(("data:", "#")) for target in parsed.fetched)
    assert not re.search(r"https?://|@import|url\(|<script[^>]|<link|fetch\(|XMLHttpRequest|import\(", page)


def test_embedded_figures_fetch_nothing(page: str) -> None:
    pictures = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    assert len(pictures) >= 8
    for picture in pictures:
        svg = base64.b64decode(picture).decode("utf-8")
        assert "</svg>" in svg
        assert not re.search(r'(href|src)="(?!#|data:)', svg)


def test_numbers_equal_those_on_disk(finished: Path, page: str) -> None:
    rows = Page(page).rows
    assert list(rows) == ["trainz", "Baseline", "Step 1", "balanced", "hard", "full"]
    seeds = [
        json.loads((finished / f"demo/classifier/correction=full,seed={seed}/metrics.json").read_text())
        for seed in (1, 2)
    ]
    for key in ("slope_spec_z", "total_variation", "sigma_mad", "crps"):
        assert rows["full"][key] == pytest.approx((seeds[0][key] + seeds[1][key]) / 2)


def test_download_is_the_table_with_all_digits(finished: Path, page: str) -> None:
    parsed = Page(page)
    ((name, address),) = parsed.downloads.items()
    assert name == "corrections-demo.csv"
    start = "data:text/csv;charset=utf-8;base64,"
    assert address.startswith(start)
    text = base64.b64decode(address.removeprefix(start)).decode("utf-8")
    table = {row["correction"]: row for row in csv.DictReader(StringIO(text))}
    assert list(table) == list(parsed.rows)
    for label, shown in parsed.rows.items():
        assert {k for k in table[label] if k in shown} == set(shown)
        for key, value in shown.items():
            assert table[label][key] == ("" if math.isnan(value) else repr(value))
    row = next(r for r in corrections_table(finished) if r["label"] == "full")
    assert float(table["full"]["slope_spec_z_spread"]) == row["slope_spec_z_spread"]
    assert (table["full"]["seeds"], float(table["full"]["seconds"])) == ("2", 10.5)


def test_every_cell_has_the_value_that_it_sorts_by(page: str) -> None:
    body = page[page.index('<table class="sortable">') :]
    rows = re.findall(r"<tr.*?</tr>", body[body.index("<tbody>") : body.index("</tbody>")], re.DOTALL)
    assert len(rows) == 6
    headings = body[: body.index("<tbody>")].count("<th ")
    assert {len(re.findall(r'<td[^>]* data-value="[^"]+"', row)) for row in rows} == {headings}


def test_writing_twice_gives_the_same_page(results: Path) -> None:
    first = write_report(results)[0].read_text(encoding="utf-8")
    assert write_report(results)[0].read_text(encoding="utf-8") == first
    assert sorted(p.name for p in results.iterdir()) == ["demo", "figures", "report.html", "summary.csv"]


def test_figures_are_files_too(finished: Path) -> None:
    figures = [p.name for p in (finished / "figures" / "demo").iterdir()]
    assert "n-z-mode-collapse-at-a-glance.svg" in figures
    assert all(name.endswith(".svg") for name in figures)


def test_summary_round_trips(finished: Path) -> None:
    with (finished / "summary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    runs = gather(finished).runs
    assert len(rows) == len(runs) == 10
    for row, run in zip(rows, runs, strict=True):
        assert (row["run"], row["stage"], row["label"], row["group"]) == (
            run.run,
            run.stage,
            run.label,
            run.group,
        )
        assert int(row["seed"]) == run.seed
        assert float(row["seconds"]) == run.seconds
        for key in METRICS:
            assert row[key] == "" if math.isnan(run.metrics[key]) else float(row[key]) == run.metrics[key]


def test_incomplete_run_is_listed(results: Path) -> None:
    (results / "demo/classifier/correction=full,seed=3").mkdir()
    (results / "demo/classifier/embeddings").mkdir()
    text = write_report(results)[0].read_text()
    assert "<li><code>demo/classifier/correction=full,seed=3</code></li>" in text
    assert "embeddings" not in text


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda f: (f / "metrics.json").write_text('{"n": 4'), "metrics.json cannot be read"),
        (lambda f: (f / "metrics.json").write_text("[]"), "metrics.json holds no table"),
        (lambda f: (f / "metrics.json").write_text("{}"), "metrics.json lacks n, bias"),
        (lambda f: (f / "trainz.json").unlink(), "trainz.json is missing"),
        (lambda f: (f / "survey.json").write_text('{"name": "x"}'), "survey.json: no entry"),
        (lambda f: (f / "photo_z.fits").unlink(), "photo_z.fits is missing"),
        (
            lambda f: (f / "photo_z.fits").write_bytes((f / "photo_z.fits").read_bytes()[:9000]),
            "photo_z.fits cannot",
        ),
        (lambda f: (f / "photo_z.fits").write_bytes(b""), "photo_z.fits cannot be read"),
        (lambda f: (f / "done.json").write_text("{}"), "done.json: no entry"),
        (lambda f: (f / "done.json").write_text(""), "done.json cannot be read"),
    ],
)
def test_broken_run_is_named_and_the_others_are_shown(tmp_path: Path, damage: object, named: str) -> None:
    for kind in (KINDS[0], KINDS[-1]):
        folder = write_run(tmp_path, kind, 1, n=200)
    assert callable(damage)
    damage(folder)
    gathered = gather(tmp_path)
    assert [r.label for r in gathered.runs] == ["Baseline"]
    ((broken, reason),) = gathered.broken
    assert broken == folder
    assert named in reason


def test_page_names_broken_runs(tmp_path: Path, without_figures: None) -> None:
    for kind in (KINDS[0], KINDS[-1]):
        folder = write_run(tmp_path, kind, 1, n=200)
    (folder / "metrics.json").write_text("{")
    text = write_report(tmp_path)[0].read_text()
    assert "<code>demo/classifier/correction=full,seed=1</code>: metrics.json cannot be read" in text
    assert "Baseline" in text


def test_nothing_finished_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(NoResultsError, match="make demo") as caught:
        write_report(tmp_path / "absent")
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, PhotozError)
    with pytest.raises(NoResultsError, match="stage=representation"):
        corrections_table(tmp_path)


def test_one_correction_alone_makes_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, KINDS[2], 1, n=200)
    assert list(Page(write_report(tmp_path)[0].read_text()).rows) == ["trainz", "none"]


def test_table_has_medians_and_half_ranges(finished: Path) -> None:
    rows = {row["label"]: row for row in corrections_table(finished)}
    assert rows["full"]["seeds"] == 2
    assert rows["full"]["slope_spec_z"] == pytest.approx(0.010 - 0.001)
    assert rows["full"]["slope_spec_z_spread"] == pytest.approx(0.001)
    assert rows["full"]["spread"] == "seeds"
    assert rows["full"]["seconds"] == pytest.approx(10.5)
    assert math.isnan(rows["full"]["wasserstein"])


def test_one_seed_falls_back_to_the_bootstrap(tmp_path: Path) -> None:
    write_run(tmp_path, KINDS[0], 1, n=200)
    row = corrections_table(tmp_path)[1]
    assert (row["spread"], row["slope_spec_z_spread"]) == ("bootstrap", 0.001)


def test_runs_without_the_newer_numbers_are_read_and_leave_them_blank(
    tmp_path: Path, without_figures: None
) -> None:
    for kind in (KINDS[0], KINDS[-1]):
        folder = write_run(tmp_path, kind, 1, n=200)
    for name in ("metrics.json", "trainz.json"):
        content = json.loads((folder / name).read_text())
        old = {key: value for key, value in content.items() if not key.startswith(ADDED)}
        (folder / name).write_text(json.dumps(old))
    assert not gather(tmp_path).broken
    rows = Page(write_report(tmp_path)[0].read_text()).rows
    assert rows["Baseline"]["coverage_68"] == pytest.approx(0.54)
    for key in ("coverage_68", "cde_loss"):
        assert math.isnan(rows["full"][key])
    with (tmp_path / "summary.csv").open(newline="") as file:
        full = next(row for row in csv.DictReader(file) if row["label"] == "full")
    assert {full[name] for key in ADDED for name in (key, f"{key}_err")} == {""}
    assert full["crps"] != ""


def test_best_is_the_nearest_to_the_ideal_and_the_lowest_loss(results: Path) -> None:
    text = write_report(results)[0].read_text()
    marked = dict(
        re.findall(r'<td class="best" data-key="(coverage_68|cde_loss)" data-value="([^"]+)"', text)
    )
    rows = [row for row in corrections_table(results) if row["label"] != "trainz"]
    coverages, losses = [row["coverage_68"] for row in rows], [row["cde_loss"] for row in rows]
    assert float(marked["coverage_68"]) == min(coverages, key=lambda x: abs(x - 0.68)) > min(coverages)
    assert float(marked["cde_loss"]) == min(losses)


def test_same_label_with_other_settings_is_another_row(tmp_path: Path) -> None:
    write_run(tmp_path, KINDS[-1], 1, n=200)
    group = "correction=full,correction.threshold=20"
    write_run(tmp_path, Kind("full · threshold=20", "classifier", group, 0.0, 0.014, 0.1), 1, n=200)
    assert list(by_correction(gather(tmp_path).runs)) == ["full", "full · threshold=20"]
    write_run(tmp_path, Kind("full", "classifier", "correction=full,head=single", 0.0, 0.014, 0.1), 1, n=200)
    names = list(by_correction(gather(tmp_path).runs))
    assert names == ["full", "full · head=single", "full · threshold=20"]


def test_each_set_of_runs_has_its_section(results: Path) -> None:
    write_run(results, KINDS[2], 1, run="real <catalogue>", n=200)
    text = write_report(results)[0].read_text()
    assert re.findall(r"<h2>(.*)</h2>", text) == ["demo", "real &lt;catalogue&gt;"]
    assert list(Page(text).downloads) == ["corrections-demo.csv", "corrections-real <catalogue>.csv"]
    assert "name: &lt;full&gt;" in text


@pytest.mark.parametrize("width", [60, 200])
def test_printed_table_is_never_cut(finished: Path, width: int) -> None:
    stream = StringIO()
    print_table(Console(file=stream, width=width), corrections_table(finished))
    text = stream.getvalue()
    assert "…" not in text
    assert "−0.094" in text
    for label in ("trainz", "Baseline", "Step 1", "balanced", "hard", "full"):
        assert text.count(f"\n {label} ") == 2
    assert max(map(len, text.splitlines())) <= 110


def test_unwritable_folder_is_a_clear_error(results: Path) -> None:
    (results / "report.html").mkdir()
    with pytest.raises(PhotozError, match="cannot write"):
        write_report(results)
    assert not list(results.glob(".report.html*"))


def test_template_ships_with_the_package() -> None:
    assert files("photoz_lit.report").joinpath("template.html.jinja").is_file()
