"""The paper's experiment in pieces."""

import json
import subprocess
import sys
from pathlib import Path

import paper_size
import pytest
from command import ROOT, parsed, places


def words(scale: float, name: str) -> list[str]:
    """Return a stage's words, of a sweep those of one job."""
    found = [word for word in paper_size.stages(scale, [])[name] if word != "-m"]
    return [word.replace(paper_size.CORRECTIONS, "full") for word in found]


def test_the_whole_is_the_papers() -> None:
    sizes = (["correction=full", f"size={size}"] for size in ("paper", "large_batch"))
    config, paper, large = (parsed(*own) for own in (words(1.0, "corrections"), *sizes))
    assert config.data.n_galaxies == paper_size.GALAXIES == paper.data.n_galaxies
    own, papers, larger = (c.training for c in (config, paper, large))
    assert (own.representation, own.hidden) == (papers.representation, papers.hidden)
    for step in ("step2", "step3"):  # of as many galaxies, in larger batches
        steps = [getattr(t, step) for t in (own, larger, papers)]
        assert steps[0] == steps[1]
        assert len({s.max_steps * s.batch_size for s in steps}) == 1
        assert steps[0].lr == pytest.approx(
            steps[2].lr * (steps[0].batch_size / steps[2].batch_size) ** 0.5, rel=0.01
        )
    assert config.correction == paper.correction
    assert config.correction.subset is not None
    assert (config.correction.subset.threshold, config.correction.views) == (200, 8)
    assert config.encoder.name == "net_p"


@pytest.mark.parametrize("scale", [0.0005, 0.01, 0.3])
def test_a_part_of_it_is_smaller_throughout(scale: float) -> None:
    config = parsed(*words(scale, "corrections"))
    step1, step3 = config.training.representation, config.training.step3
    assert config.data.n_galaxies == round(paper_size.GALAXIES * scale)
    assert config.correction.subset is not None
    assert config.correction.subset.threshold == max(1, round(200 * scale))
    assert step1.max_steps == pytest.approx(max(1, 120_000 * scale**2), rel=0.05)
    assert step3.max_steps == round(5_000 * scale)
    assert step1.max_steps % step1.check_every == 0
    for name in paper_size.stages(scale, []):
        assert parsed(*words(scale, name))


@pytest.mark.parametrize("scale", ["0", "-1", "1.5"])
def test_a_scale_that_cannot_be_is_refused(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        paper_size.main([f"--scale={scale}"])
    assert "above 0, and 1 at most" in capsys.readouterr().err


def typed(folder: Path, *own: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "tests" / "bench" / "paper_size.py"), *own, *places(folder)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def finished(folder: Path, scale: str) -> None:
    """Every stage is there, once."""
    family = folder / "runs" / f"paper_size_{scale}"
    timings = json.loads((family / "timings.json").read_text())
    assert set(timings) == set(paper_size.stages(1.0, []))
    assert all(one["done"] for one in timings.values())
    corrections = {p.parent.name.split(",")[0] for p in family.glob("classifier/*/done.json")}
    assert corrections == {f"correction={name}" for name in paper_size.CORRECTIONS.split(",")}
    assert len(list(family.glob("representation/*/done.json"))) == 2
    assert list(family.glob("calibrate/*/*/done.json"))
    assert list(folder.glob("runs/**/report.html"))


@pytest.mark.slow
def test_a_hundredth_of_the_paper_stops_in_time_and_goes_on_to_the_end(tmp_path: Path) -> None:
    """As `make paper-size scale=0.01` types it, of cutouts that a core encodes seven times as fast."""
    words = ("--scale=0.01", "survey.pixels=24")
    first = typed(tmp_path, *words, "--minutes=0.36")  # the grace, and a second
    assert first.returncode == paper_size.MORE, first.stdout + first.stderr
    assert "more to do" in first.stdout
    second = typed(tmp_path, *words)
    assert second.returncode == 0, second.stdout + second.stderr
    finished(tmp_path, "0.01")
    assert typed(tmp_path, *words).stdout.startswith("the whole")
