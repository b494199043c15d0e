import base64
import re
from pathlib import Path

import numpy as np
import pytest
from simulated_runs import KINDS, write_calibrated, write_run

from photoz_lit import metrics
from photoz_lit.errors import ConfigError
from photoz_lit.report import curves
from photoz_lit.report.figures import data
from photoz_lit.report.page import write_report
from photoz_lit.report.runs import gather, read_run
from photoz_lit.report.table import columns_for
from photoz_lit.target import REDSHIFT, Target

MASS = {
    "column": "log_mass", "label": "stellar mass", "symbol": "log M", "unit": "dex",
    "residual": "difference",
}  # fmt: skip


def test_redshift_has_the_words_of_the_field() -> None:
    assert (REDSHIFT.true, REDSHIFT.estimated, REDSHIFT.pdf, REDSHIFT.n_of) == (
        "spec z",
        "photo z",
        "p(z)",
        "n(z)",
    )
    assert REDSHIFT.true_axis == r"spectroscopic redshift $z_\mathrm{spec}$"
    assert REDSHIFT.definition_math == (
        r"$\Delta z = (z_\mathrm{photo}-z_\mathrm{spec})/(1+z_\mathrm{spec})$"
    )
    assert REDSHIFT.estimate == "photo_z"


def test_other_quantities_are_called_by_their_label_symbol_and_unit() -> None:
    mass = Target(**MASS)
    assert (mass.true, mass.estimated, mass.pdf) == (
        "true stellar mass",
        "estimated stellar mass",
        "p(log M)",
    )
    assert mass.true_axis == r"true stellar mass $\mathrm{log\ M}_\mathrm{true}$  [dex]"
    assert mass.definition_math == (
        r"$\Delta \mathrm{log\ M} = \mathrm{log\ M}_\mathrm{est}-\mathrm{log\ M}_\mathrm{true}$"
    )
    assert mass.estimate == "photo_log_mass"
    headings = {c.key: c.heading for c in columns_for(mass)}
    assert headings["slope_spec_z"] == "slope true stellar mass"
    assert {c.key: c.heading for c in columns_for(REDSHIFT)}["slope_spec_z"] == "slope spec z"


def test_unknown_definition_of_the_residual_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of: relative, difference"):
        Target(**(MASS | {"residual": "ratio"}))
    folder = write_run(tmp_path, KINDS[-1], 1, n=50, target=MASS | {"residual": "ratio"})
    assert gather(tmp_path).broken[0][0] == folder


def test_residuals_of_other_quantities_are_differences(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, KINDS[0], 1, n=1500, target=MASS))
    numbers = metrics.evaluate(
        run.spec_z, run.photo_z, run.dered_petro_r, None, run.survey.grid, run.survey.slices,
        outlier_cut=0.05, rng=np.random.default_rng(0), n_bootstrap=2, relative=False,
    )  # fmt: skip
    assert curves.against_spec_z("Baseline", [run]).fit.slope == pytest.approx(numbers["slope_spec_z"])
    assert curves.against_photo_z("Baseline", [run]).fit.slope == pytest.approx(numbers["slope_photo_z"])


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


def test_distributions_of_a_data_set_show_the_target_by_split() -> None:
    rng = np.random.default_rng(0)
    split = np.repeat(["train", "test"], 100)
    columns = {name: rng.uniform(size=200) for name in ("log_mass", "spec_z")}
    mass, spec_z = data.figure_distributions(columns, split, Target(**MASS)).axes
    assert (mass.get_xlabel(), spec_z.get_xlabel()) == ("stellar mass  [dex]", "spectroscopic redshift")
    assert [t.get_text() for t in mass.get_legend().get_texts()] == ["train", "test"]
    assert spec_z.get_legend() is None


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
