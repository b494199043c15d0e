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
from simulated_runs import KINDS, MASS, Kind, write_calibrated, write_labels, write_newer, write_run

from photoz_lit.errors import DataError
from photoz_lit.files import digest
from photoz_lit.report.figures.labels import FIGURES
from photoz_lit.report.figures.style import colour_of
from photoz_lit.report.page import write_report
from photoz_lit.report.runs import METRICS, gather, sets_of_runs
from photoz_lit.report.table import (
    by_correction,
    columns_for,
    corrections_table,
    estimates_table,
    print_table,
)
from photoz_lit.target import REDSHIFT, Target


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
    assert list(parsed.downloads) == ["corrections-demo.csv", "estimates-demo.csv", "paired-demo.csv"]
    address = parsed.downloads["corrections-demo.csv"]
    start = "data:text/csv;charset=utf-8;base64,"
    assert address.startswith(start)
    text = base64.b64decode(address.removeprefix(start)).decode("utf-8")
    table = {row["correction"]: row for row in csv.DictReader(StringIO(text))}
    assert list(table) == list(parsed.rows)
    for label, shown in parsed.rows.items():
        assert {k for k in table[label] if k in shown} == set(shown)
        for key, value in shown.items():
            assert table[label][key] == ("" if math.isnan(value) else repr(value))
    row = next(r for r in corrections_table(gather(finished).runs) if r["label"] == "full")
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
    assert sorted(p.name for p in results.iterdir()) == [
        *("demo", "figures", "paired-demo.csv", "report.html", "summary.csv")
    ]


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
        (lambda f: (f / "metrics.json").write_text('{"n": 4'), "metrics.json: cannot be read"),
        (lambda f: (f / "metrics.json").write_text("[]"), "metrics.json: holds no JSON object"),
        (lambda f: (f / "metrics.json").write_text("{}"), "metrics.json: lacks n, bias"),
        (lambda f: (f / "trainz.json").unlink(), "trainz.json: cannot be read"),
        (lambda f: (f / "survey.json").write_text('{"name": "x"}'), "survey.json: no entry"),
        (lambda f: (f / "photo_z.fits").unlink(), "photo_z.fits: cannot be read"),
        (
            lambda f: (f / "photo_z.fits").write_bytes((f / "photo_z.fits").read_bytes()[:9000]),
            "photo_z.fits: cannot",
        ),
        (lambda f: (f / "photo_z.fits").write_bytes(b""), "photo_z.fits: cannot be read"),
        (lambda f: (f / "done.json").write_text("{}"), "done.json: no entry"),
        (lambda f: (f / "done.json").write_text(""), "done.json: cannot be read"),
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
    assert "<code>demo/classifier/correction=full,seed=1</code>: metrics.json: cannot be read" in text
    assert "Baseline" in text


def test_nothing_finished_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make demo"):
        write_report(tmp_path / "absent")


def test_one_correction_alone_makes_a_page(tmp_path: Path) -> None:
    write_run(tmp_path, KINDS[2], 1, n=200)
    assert list(Page(write_report(tmp_path)[0].read_text()).rows) == ["trainz", "none"]


def test_table_has_medians_and_half_ranges(finished: Path) -> None:
    rows = {row["label"]: row for row in corrections_table(gather(finished).runs)}
    assert rows["full"]["seeds"] == 2
    assert rows["full"]["slope_spec_z"] == pytest.approx(0.010 - 0.001)
    assert rows["full"]["slope_spec_z_spread"] == pytest.approx(0.001)
    assert rows["full"]["spread"] == "seeds"
    assert rows["full"]["seconds"] == pytest.approx(10.5)
    assert math.isnan(rows["full"]["wasserstein"])


def test_one_seed_falls_back_to_the_bootstrap(tmp_path: Path) -> None:
    write_run(tmp_path, KINDS[0], 1, n=200)
    row = corrections_table(gather(tmp_path).runs)[1]
    assert (row["spread"], row["slope_spec_z_spread"]) == ("bootstrap", 0.001)


def test_best_is_the_nearest_to_the_ideal_and_the_lowest_loss(results: Path) -> None:
    text = write_report(results)[0].read_text()
    marked = dict(
        re.findall(r'<td class="best" data-key="(coverage_68|cde_loss)" data-value="([^"]+)"', text)
    )
    rows = [row for row in corrections_table(gather(results).runs) if row["label"] != "trainz"]
    coverages, losses = [row["coverage_68"] for row in rows], [row["cde_loss"] for row in rows]
    assert float(marked["coverage_68"]) == min(coverages, key=lambda x: abs(x - 0.68)) > min(coverages)
    assert float(marked["cde_loss"]) == min(losses)


def test_same_label_with_other_settings_is_another_row(tmp_path: Path) -> None:
    write_run(tmp_path, KINDS[-1], 1, n=200)
    group = "correction=full,correction.subset.threshold=20"
    write_run(tmp_path, Kind("full · threshold=20", "classifier", group, 0.0, 0.014, 0.1), 1, n=200)
    assert list(by_correction(gather(tmp_path).runs)) == ["full", "full · threshold=20"]
    write_run(tmp_path, Kind("full", "classifier", "correction=full,head=single", 0.0, 0.014, 0.1), 1, n=200)
    names = list(by_correction(gather(tmp_path).runs))
    assert names == ["full", "full · head=single", "full · threshold=20"]


def test_each_set_of_runs_has_its_section(results: Path) -> None:
    write_run(results, KINDS[2], 1, run="real <catalogue>", n=200)
    text = write_report(results)[0].read_text()
    assert re.findall(r"<h2>(.*)</h2>", text) == ["demo", "real &lt;catalogue&gt;"]
    kinds = {"demo": ("corrections", "estimates", "paired"), "real <catalogue>": ("corrections", "estimates")}
    assert list(Page(text).downloads) == [f"{kind}-{name}.csv" for name, of in kinds.items() for kind in of]
    assert "name: &lt;full&gt;" in text


@pytest.mark.parametrize("width", [60, 200])
def test_printed_table_is_never_cut(finished: Path, width: int) -> None:
    stream = StringIO()
    print_table(Console(file=stream, width=width), corrections_table(gather(finished).runs))
    text = stream.getvalue()
    assert "…" not in text
    assert "−0.094" in text
    for label in ("trainz", "Baseline", "Step 1", "balanced", "hard", "full"):
        assert text.count(f"\n {label} ") == 2
    assert max(map(len, text.splitlines())) <= 120


def test_each_data_set_has_its_section_and_its_own_trainz(tmp_path: Path, without_figures: None) -> None:
    for kind in (KINDS[0], KINDS[-1]):
        write_run(tmp_path, kind, 1, n=200)
    other = write_run(tmp_path / "other", KINDS[-1], 2, n=300, store="catalogue-2")
    other.rename(tmp_path / "demo/classifier" / other.name)
    trainz = json.loads((tmp_path / "demo/classifier" / other.name / "trainz.json").read_text())
    text = write_report(tmp_path)[0].read_text()
    assert re.findall(r"<h2>(.*)</h2>", text) == ["demo: mock-1", "demo: catalogue-2"]
    assert "Survey mock, data set mock-1:" in text
    tables = re.findall(r'<table class="sortable">.*?</table>', text, re.DOTALL)
    cells = [re.findall(r"<td[^>]*>(?:<span[^>]*></span>)?([^<]*)", table) for table in tables]
    width = tables[0].count("<th ")
    shown = [[tuple(row[i : i + 3]) for i in range(0, len(row), width)] for row in cells]
    assert shown == [
        [("trainz", "1", "200"), ("Baseline", "1", "200"), ("full", "1", "200")],
        [("trainz", "1", "300"), ("full", "1", "300")],
    ]
    assert Page(tables[1]).rows["trainz"]["sigma_mad"] == trainz["sigma_mad"]


@pytest.mark.parametrize("key", ["name", "z_max", "n_bins", "r_min", "n_slices"])
def test_runs_of_other_surveys_are_other_sets(tmp_path: Path, key: str) -> None:
    for kind in (KINDS[0], KINDS[-1]):
        folder = write_run(tmp_path, kind, 1, n=50)
    survey = json.loads((folder / "survey.json").read_text())
    survey[key] = "other" if key == "name" else survey[key] + 2
    (folder / "survey.json").write_text(json.dumps(survey))
    sets = sets_of_runs(gather(tmp_path).runs)
    assert [[run.label for run in same] for same in sets.values()] == [["Baseline"], ["full"]]
    assert len({*sets}) == 2


def test_step_1_and_its_own_output_are_one_row_with_the_seeds_of_both(tmp_path: Path) -> None:
    for kind, seeds in ((KINDS[1], (1, 2)), (KINDS[2], (2, 3))):
        for seed in seeds:
            write_run(tmp_path, kind, seed, n=50)
    named = by_correction(gather(tmp_path).runs)
    assert {label: [(run.stage[0], run.seed) for run in same] for label, same in named.items()} == {
        "Step 1": [("r", 1), ("r", 2), ("c", 3)]
    }


def test_only_the_runs_of_one_name(results: Path) -> None:
    write_run(results, KINDS[-1], 1, run="new [1]", n=50)
    write_calibrated(results, KINDS[-1], 1, run="demo")
    page, summary, rows = write_report(results, "new [1]")
    assert re.findall(r"<h2>(.*)</h2>", page.read_text()) == ["new [1]"]
    assert {row["run"] for row in rows} == {"new [1]"}
    assert len(summary.read_text().splitlines()) == 2
    with pytest.raises(DataError, match=r"no finished run of run=gone under .*\(there are demo, new \[1\]\)"):
        write_report(results, "gone")


def test_labels_of_classifiers_are_drawn_once(
    tmp_path: Path, without_figures: None, without_drawing: None
) -> None:
    folder = write_run(tmp_path, KINDS[-1], 1, n=50)
    write_labels(folder)
    write_report(tmp_path)
    assert {path.name for path in folder.glob("*.png")} == set(FIGURES)
    (folder / "labels.npz").write_bytes(b"")
    (folder / "labels.png").unlink()
    text = write_report(tmp_path)[0].read_text()
    assert f"<code>demo/classifier/{folder.name}</code>: labels.npz: cannot be read" in text


def test_unwritable_folder_is_a_clear_error(results: Path) -> None:
    (results / "report.html").mkdir()
    with pytest.raises(DataError, match="cannot write"):
        write_report(results)
    assert not list(results.glob(".report.html*"))


def test_template_ships_with_the_package() -> None:
    assert files("photoz_lit.report").joinpath("page.html.jinja").is_file()


@pytest.mark.slow
def test_page_of_another_quantity_never_speaks_of_redshift(tmp_path: Path) -> None:
    for kind in (KINDS[0], KINDS[-1]):
        write_run(tmp_path, kind, 1, n=300, target=MASS)
    write_calibrated(tmp_path, KINDS[-1], 1)
    text = write_report(tmp_path)[0].read_text(encoding="utf-8")
    words = re.sub(
        r'base64,[^"]+|<script>.*?</script>|<style>.*?</style>|data-key="\w+"', "", text, flags=re.S
    )
    assert not re.search(r"redshift|spec z|photo z|p\(z\)|n\(z\)|Δz|[^a-z]z<sub>", words)
    assert "Δlog M = log M<sub>est</sub> − log M<sub>true</sub>," in words
    assert "stellar mass 0 to 0.4 dex in 90 bins" in words
    assert "Estimated stellar mass against true stellar mass" in words
    assert "The same with calibrated estimated stellar mass" in words


def test_two_targets_in_one_folder_are_two_sections(tmp_path: Path, without_figures: None) -> None:
    write_run(tmp_path, KINDS[0], 1, n=50)
    mass = write_run(tmp_path / "other", KINDS[-1], 1, n=50, target=MASS)
    destination = tmp_path / "demo" / "classifier" / mass.name
    destination.parent.mkdir()
    mass.rename(destination)
    text = write_report(tmp_path)[0].read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*)</h2>", text) == ["demo: redshift", "demo: stellar mass"]
    assert "Photometric estimates and their biases" in text
    downloads = re.findall(r'download="([^"]+)" href="[^,]+,([^"]+)"', text)
    tables = {name: base64.b64decode(data).decode().splitlines() for name, data in downloads}
    assert [line.split(",")[0] for line in tables["corrections-demo: redshift.csv"]] == [
        "correction",
        "trainz",
        "Baseline",
    ]


def test_columns_are_called_by_the_words_of_the_target() -> None:
    headings = {c.key: c.heading for c in columns_for(Target(**MASS))}
    assert headings["slope_spec_z"] == "slope true stellar mass"
    assert {c.key: c.heading for c in columns_for(REDSHIFT)}["slope_spec_z"] == "slope spec z"


def test_run_with_a_target_that_is_not_defined_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, KINDS[-1], 1, n=50, target=MASS | {"residual": "ratio"})
    assert gather(tmp_path).broken[0][0] == folder


def test_each_estimate_of_a_correction_is_a_row(tmp_path: Path, without_figures: None) -> None:
    for kind in (KINDS[0], KINDS[-1]):
        for seed, slope in ((1, 0.001), (2, 0.003)):
            folder = write_run(tmp_path, kind, seed, n=200)
            if kind.label == "full":  # the Baseline is of an earlier version
                write_newer(folder, slope)
    runs = gather(tmp_path).runs
    rows = {(row["label"], row["estimate"]): row for row in estimates_table(runs)}
    kinds = ("mode", "median", "individual")
    assert list(rows) == [("trainz", "mode"), ("Baseline", "mode"), *(("full", kind) for kind in kinds)]
    full = rows["full", "individual"]
    assert (full["slope_spec_z"], full["slope_spec_z_spread"]) == (0.002, pytest.approx(0.001))
    assert full["total_variation_excess"] == pytest.approx(0.2 * KINDS[-1].collapse - 0.001)
    assert full["within_error"] == 0.68
    assert math.isnan(rows["Baseline", "mode"]["slope_spec_z_plain"])
    print_table(Console(file=(stream := StringIO()), width=200), corrections_table(runs))
    lines = [line.split()[0] for line in stream.getvalue().splitlines() if line.split()]
    assert {"median", "individual"} <= {*lines}  # below the name, which stands once
    assert "not blind" in stream.getvalue()
    text = write_report(tmp_path)[0].read_text(encoding="utf-8")
    assert "<td>full</td><td>individual</td><td>2</td><td>+0.002<small>± 0.001</small></td>" in text
    assert "Baseline to full, individual: |slope| × 0.02" in text
    assert re.search(r"one galaxy: \|slope\|</td><td>full, individual<small>\+0.002", text)


def test_numbers_are_blind_where_all_runs_are(tmp_path: Path, without_figures: None) -> None:
    for kind in (KINDS[0], KINDS[-1]):
        folder = write_run(tmp_path, kind, 1, n=50)
        write_newer(folder, commit="0123456789abcdef")
    text = write_report(tmp_path)[0].read_text(encoding="utf-8")
    assert "Blind: no setting was chosen on these galaxies; settings committed as 0123456." in text
    blind = json.loads((tmp_path / "blind.json").read_text())["demo"]
    assert blind["commits"] == ["0123456789abcdef"]
    assert blind["config_sha256"][f"demo/classifier/{folder.name}"] == digest(folder / "config.yaml")
    assert {row["blind"] for row in csv.DictReader((tmp_path / "summary.csv").open())} == {"yes"}
    (folder / "frozen.json").unlink()
    text = write_report(tmp_path)[0].read_text(encoding="utf-8")
    assert "Not blind: settings may have been chosen with such numbers in sight." in text
    assert not (tmp_path / "blind.json").exists()
    rows = {row["label"]: row["blind"] for row in corrections_table(gather(tmp_path).runs)}
    assert rows == {"trainz": "yes", "Baseline": "yes", "full": "no"}


def test_broken_n_of_z_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path, KINDS[0], 1, n=50)
    (folder / "n_of_z.ecsv").write_text("z_low")
    assert gather(tmp_path).broken[0][1].startswith("n_of_z.ecsv: cannot be read")


def test_magnitudes_beside_images_are_called_so(tmp_path: Path) -> None:
    def write(label: str, group: str, run: str = "demo", config: str = "") -> None:
        stage = "classifier" if group.startswith("correction") else "representation"
        write_run(tmp_path, Kind(label, stage, group, 0.0, 0.014, 0.1), 1, run=run, n=50, config=config)

    def names(run: str) -> list[str]:
        return list(by_correction(gather(tmp_path, run).runs))

    for end in ("", ",encoder=mlp"):
        write("Baseline", f"head=single{end}")
        write("none", f"correction=none,head=single{end}")  # which is the Baseline's own output
        write("full", f"correction=full,data.mock_seed=1{end}")  # a survey of the seed's own
    write("hard", "correction=hard,encoder=mlp")
    both = [name for label in ("Baseline", "full") for name in (label, f"{label} · magnitudes")]
    assert names("demo") == [*both[:2], "hard · magnitudes", *both[2:]]
    assert colour_of("full · magnitudes") == colour_of("full")
    write("full", "correction=full,encoder=mlp", "alone")
    assert names("alone") == ["full"]
    write("full", "correction=full", "vectors", config="encoder: {name: precomputed}\n")
    write("full", "correction=full,encoder=mlp", "vectors", config="encoder: {name: mlp}\n")
    assert names("vectors") == ["full", "full · encoder=mlp"]


def test_surveys_of_seeds_are_one_set_whichever_version_wrote_them(tmp_path: Path) -> None:
    for seed, nested in ((1, ""), (2, ", nested: none")):
        config = f"data: {{source: mock, mock_seed: {seed}{nested}}}\n"
        group = f"correction=full,data.mock_seed={seed}"
        kind = Kind("full", "classifier", group, 0.0, 0.014, 0.1)
        write_run(tmp_path, kind, seed, n=50, config=config, store=f"mock-{seed}")
    (same,) = sets_of_runs(gather(tmp_path).runs).values()
    assert {label: len(runs) for label, runs in by_correction(same).items()} == {"full": 2}
