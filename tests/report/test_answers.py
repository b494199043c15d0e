from typing import Any

import pytest

from photoz_lit.report.answers import answers, contestants
from photoz_lit.target import REDSHIFT

KEYS = ("slope_spec_z", "slope_photo_z", "total_variation", "crps", "coverage_68", "sigma_mad")


def row(label: str, spread: float, *values: float) -> dict[str, Any]:
    numbers = dict(zip(KEYS, values, strict=True))
    return {"label": label} | numbers | {f"{key}_spread": spread for key in KEYS}


ROWS = [
    row("trainz", 0.0, 0.0, 0.0, 0.0, 0.0, 0.68, 0.05),
    row("Step 1", 0.002, -0.11, 0.004, 0.24, 0.0100, 0.75, 0.0142),
    row("full", 0.002, -0.02, 0.12, 0.080, 0.0110, 0.86, 0.0150),
    row("trend", 0.002, 0.001, 0.15, 0.230, 0.0112, 0.74, 0.0168),
    row("unshifted", 0.002, -0.06, 0.07, 0.083, 0.0106, 0.681, 0.0140),
]


def by_question(rows: list[dict[str, Any]], calibrated: list[dict[str, Any]]) -> dict[str, Any]:
    return {row[0].text: row for row in answers(rows, calibrated, REDSHIFT)}


def test_the_best_is_nearest_to_the_ideal_whatever_its_sign() -> None:
    found = list(by_question(ROWS, []).values())
    assert [best.text for _, best, *_ in found] == ["trend", "Step 1", "full", "Step 1", "unshifted"]
    _, best, scatter, second, verdict = found[0]
    assert (best.small, scatter.text) == ("+0.001 ± 0.002", "0.0168 ± 0.0020")
    assert (second.text, second.small) == ("full", "\N{MINUS SIGN}0.020 ± 0.002")
    assert verdict.kind == "apart"
    assert verdict.text == "ahead by 0.019, more than both spreads together"


def test_a_lead_within_the_spread_names_all_that_are_not_told_apart() -> None:
    collapse = by_question(ROWS, [])["Mode collapse: total variation"]
    assert collapse[-1].kind == "alike"
    assert collapse[-1].text == "not told apart from unshifted: within the spread"


def test_a_lead_of_both_spreads_exactly_does_not_count() -> None:
    rows = [row("a", 0.25, *[0.5] * 6), row("b", 0.25, *[1.0] * 6)]
    assert by_question(rows, [])["Mode collapse: total variation"][-1].kind == "alike"
    rows[1]["total_variation"] = 1.001
    assert by_question(rows, [])["Mode collapse: total variation"][-1].kind == "apart"


def test_many_that_are_alike_are_counted() -> None:
    rows = [row(label, 0.1, *[0.5] * 6) for label in "abcdef"]
    verdict = by_question(rows, [])["p(z): CRPS"][-1].text
    assert verdict == "not told apart from b, c, d and 2 more: within the spread"


def test_without_a_spread_nothing_is_told_apart() -> None:
    rows = [row("a", float("nan"), *[0.1] * 6), row("b", 0.0, *[0.9] * 6)]
    assert by_question(rows, [])["p(z): CRPS"][-1].kind == "alike"


def test_calibrated_estimates_compete_for_the_bulk_bias_only() -> None:
    calibrated = [row("full, calibrated", 0.001, -0.1, 0.0, 0.1, 0.0, 0.68, 0.014)]
    del calibrated[0]["total_variation"]  # not theirs to win
    found = by_question(ROWS, calibrated)
    assert found["Bias against photo z, a sample: |slope|"][1].text == "Step 1"
    assert found["The same with calibrated photo z"][1].text == "full, calibrated"
    assert "The same with calibrated photo z" not in by_question(ROWS, [])


def test_trainz_does_not_compete() -> None:
    assert [r["label"] for r in contestants(ROWS)] == ["Step 1", "full", "trend", "unshifted"]


@pytest.mark.parametrize("n", [0, 1])
def test_one_correction_alone_is_no_contest(n: int) -> None:
    assert answers(ROWS[1 : 1 + n], [], REDSHIFT) == []
