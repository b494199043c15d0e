"""The arithmetic of the plan for many galaxies."""

import json
import sys
from pathlib import Path

import plan
import pytest

BENCH = {
    "machine": {"cores": "2"},
    "rows": [
        {"what": "`stage=predict`, 32,768 galaxies, after start-up", "values": [4000.0, 5000.0, 9000.0]},
        {"what": "bytes written a galaxy", "values": [500.0]},
        {"what": "memory, 4,096 galaxies", "values": [0.8]},
    ],
}


def test_hours_are_those_of_the_slowest_part() -> None:
    computing, reading, writing = plan.Plan("", 8, 2, 5000.0).hours(1e9, 500.0, 2e9, 1e9)
    assert computing == pytest.approx(1e9 / 40_000 / 3600)
    assert reading == pytest.approx(40.96e12 / 4e9 / 3600)
    assert writing == pytest.approx(0.5e12 / 2e9 / 3600)
    assert plan.Plan("", 8, 2, 5000.0).line(1e9, 500.0, 2e9, 1e9).count("**") == 2


def test_a_gpu_has_a_rate_only_where_one_is_given_or_was_measured() -> None:
    cores = plan.plans(BENCH, None, 8)
    assert [(p.units, p.nodes, p.rate) for p in cores] == [(1, 1, 5000), (32, 1, 5000), (512, 16, 5000)]
    given = plan.plans(BENCH, 50_000, 8)[3:]
    assert [(p.units, p.nodes, p.rate) for p in given] == [(1, 1, 50_000), (8, 1, 50_000), (64, 8, 50_000)]
    on_gpu = BENCH | {"machine": {"cores": "16", "GPU": "X"}}
    assert [(p.units, p.rate) for p in plan.plans(on_gpu, None, 8)] == [(1, 5000), (8, 5000), (64, 5000)]
    assert plan.plans({"machine": {"cores": "2"}, "rows": []}, None, 8) == []


def test_the_command_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bench.json").write_text(json.dumps(BENCH))
    monkeypatch.setattr(sys, "argv", ["plan.py", str(tmp_path / "bench.json"), "--gpu-rate=50000"])
    plan.main()
    said = capsys.readouterr().out
    assert "41 TB to read" in said
    assert "| 64 GPU at 50,000/s | 64 | 8 | 3,200,000 | 0.1 | **0.7** | 0.0 |" in said
