"""What is compared is the same thing, and the benchmark says what it measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from api_rate import drawn
from command import ROOT
from rates import plain
from rates.parts import flops
from rates.table import Row, line, write
from rates.turns import Runner, program

from photoz_lit.models.encoders import build_encoder, encoder_class


@torch.no_grad()
def test_the_plain_port_of_net_p_is_the_same_network() -> None:
    ours = build_encoder("net_p", 5, 32, generator=torch.Generator().manual_seed(1))
    weights = ours.state_dict()
    first = weights["fc.0.weight"]  # ours flattens rows, columns, channels; a plain one channels first
    image = first[:, :-1].reshape(1024, 4, 4, -1).permute(0, 3, 1, 2).flatten(1)
    weights["fc.0.weight"] = torch.cat([image, first[:, -1:]], dim=1)
    port = plain.NetP(5, 32)
    port.load_state_dict(weights)
    x, ebv = torch.randn(3, 5, 32, 32), torch.tensor([0.0, 0.05, 0.3])
    torch.testing.assert_close(port(x, ebv), ours(x, ebv), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_plain_port_of_fast_measures_the_same() -> None:
    x, ebv = torch.from_numpy(drawn(6)), torch.full((6,), 0.05)
    x[0, :, 20:26, 40:46] += 0.5  # a neighbour
    settings = encoder_class("fast").Settings("fast")
    columns = encoder_class("fast").inputs(settings, "images", False)(x, None)
    torch.testing.assert_close(plain.photometry(x), columns, rtol=1e-3, atol=1e-3)
    ours, port = build_encoder("fast", columns.shape[1], 64, settings), plain.Fast(columns.shape[1])
    port.layers.load_state_dict(ours.layers.state_dict())
    torch.testing.assert_close(port(x, ebv), ours(columns, ebv), rtol=1e-3, atol=1e-3)


def test_a_ratio_is_that_of_rounds_and_a_goal_is_held_against_its_median() -> None:
    row = Row("a", "b", "galaxies/s", [2.0, 6.0, 8.0], "other", [1.0, 2.0, 2.0], 2.9)
    assert row.ratios == [2.0, 3.0, 4.0]
    assert (row.counts, row.met) == (3.0, True)
    assert line(row) == "| b | 6 galaxies/s | other: 2 | 3 (2.5-3.5) | >= 2.9 |"
    start = Row("a", "b", "s", [5.2, 4.9, 9.0], goal=5, at_most=True)
    assert (start.counts, start.met) == (5.2, False)
    assert line(Row("a", "b", "s", [5.2], goal=5, at_most=True)).endswith("| <= 5 **no** |")


def test_a_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- x: begin -->\nold\n<!-- x: end -->\nafter\n")
    for content in ("one", "two"):
        write(page, "x", content)
    assert page.read_text() == "before\n<!-- x: begin -->\ntwo\n<!-- x: end -->\nafter\n"
    with pytest.raises(SystemExit, match="no <!-- y: begin -->"):
        write(page, "y", "one")


def test_a_process_takes_its_turn_and_says_what_it_took() -> None:
    with Runner("rates.plain", "gemm", "float32", "64") as runner:
        taken = runner.turn(3)
    assert taken.done == 3 * 2 * 64**3
    assert 0 < taken.wall < 10
    with pytest.raises(RuntimeError, match=r"rates\.plain nothing ended"):
        Runner("rates.plain", "nothing")


def test_memory_is_that_of_a_process_and_its_children() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', '{0}']); {0}"
    held = "import time; x = bytes(100_000_000); time.sleep(0.6)".replace("bytes(", "bytearray(")
    taken = program(sys.executable, "-c", code.format(held))
    assert 1e8 < taken.memory < 2e8  # one after the other


def test_a_share_of_the_peak_counts_every_product() -> None:
    """The convolutions of a single layer, by hand: 2 x 25 x 5 x 64 x 64^2 for the first."""
    training, inference = flops()
    first = 2 * 25 * 5 * 64 * 64**2
    assert 20 * first < inference < 100 * first
    assert training / inference == pytest.approx(3, abs=0.1)  # the images need no gradient


@pytest.mark.slow
def test_the_quick_form_measures_its_parts(tmp_path: Path) -> None:
    kept = tmp_path / "bench.json"
    script = str(ROOT / "tests" / "bench" / "speed.py")
    parts = ("--quick", "--parts", "reading,start,predict")
    taken = program(sys.executable, script, *parts, "--json", str(kept))
    content = json.loads(kept.read_text())
    assert content["failed"] == []
    assert {row["part"] for row in content["rows"]} == {"reading", "start", "predict"}
    assert all(np.isfinite(row["ratio"]) for row in content["rows"])
    assert "| ratio (quartiles) |" in taken.said
