"""What a tree of settings may hold; the table of what may not, as it is typed."""

from dataclasses import asdict
from pathlib import Path

import pytest
from command import places, run

from photoz_lit.correction.settings import PARTS, CorrectionConfig, Step3Config, SubsetConfig


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("correction=none correction.finish=[{pit:slices}]", "correction.name=mine"),
        ("correction=none correction.rescale=tau", "no longer none"),
        ("correction=pit correction.finish=[]", "changes nothing: type correction=none"),
        ("correction=tau_norm correction.rescale=none", "changes nothing"),
        ("correction=balanced correction.step2=null", "changes nothing"),
        ("correction=full correction.step2=null correction.step3=null", "changes nothing"),
        ("correction=learnt_scales correction.rescale=tau", "correction.subset=null"),
        ("correction=full correction.rescale=tau", "correction.step3=null"),
        ("correction=hard correction.step3.width=2", "correction.step3.soften=true"),
        ("correction=full correction.step3.width=0", "above 0"),
        ("correction=full correction.step3.strength=3", "at most 2"),
        ("correction=full correction.step3.shift=mirrored", "Did you mean correction.step3.shift=mirror"),
        ("correction=full correction.subset.threshold=0", "at least 1"),
        ("correction=full correction.subset.treshold=2", "Did you mean correction.subset.threshold"),
        ("correction=pit correction.members=2", "neither step2 nor step3"),
        ("correction=ensemble correction.members=0", "at least 1"),
        ("correction=ensemble correction.mean=geometric", "arithmetic, harmonic"),
        (f"correction=best correction.members={PARTS + 1}", f"there are {PARTS} at most"),
        ("correction=best estimate=peak", "mode, median, mean"),
        ("correction=balanced_softmax correction.step2.weights=lds", "balance twice"),
        ("correction=trend correction.step2.loss.strength=-1", "must not be negative"),
        ("correction=sord correction.step2.loss.width=0", "must be positive"),
        ("correction=clap correction.step2.loss.width=1", "width"),
        ("correction=clap correction.step2.loss.name=neares", "nearest"),
        ("correction=pit correction.finish=[{pit:slice}]", "Valid values: overall, slices, local, held_out"),
        ("correction=pit correction.finish=[{pot:slices}]", "pot is no link"),
        ("correction=pit correction.finish=[{unshrink:0.1}]", "unshrink is no link"),
        ("correction=full correction.finish=[{response:0.1}]", "correction.subset=null"),
        ("correction=full correction.finish=[{pit:held_out}]", "correction.subset=null"),
        ("correction=pit correction.finish=[{pit:held_out}]", "with step2 or step3"),
        ("correction=best correction.finish=[{response:-1}]", "above 0 up to 1"),
        ("correction=best correction.finish=[{response:1.0},{pit:held_out}]", "put it last"),
        ("correction=pit correction.finish=[{pit:slices},{prior:flat}]", "put it first"),
        ("correction=tau_norm correction.finish=[{prior:flat}]", "correction.rescale=none"),
    ],
)
def test_what_does_not_fit_is_told_with_what_to_type(words: str, said: str, tmp_path: Path) -> None:
    assert said in run("stage=classifier", *words.split(), *places(tmp_path)).message


def test_an_absent_branch_has_no_settings() -> None:
    plain = asdict(CorrectionConfig("mine", step3=Step3Config()))
    assert plain["subset"] is plain["step2"] is None
    assert plain["finish"] == []


@pytest.mark.parametrize(
    ("correction", "leaves_out", "lost"),
    [
        (CorrectionConfig("a", SubsetConfig(), step3=Step3Config(), members=5), False, None),
        (CorrectionConfig("b", step3=Step3Config(), members=5), True, None),
        (CorrectionConfig("c", step3=Step3Config()), False, None),
        (CorrectionConfig("d", step3=Step3Config(), finish=[{"response": 0.1}]), True, None),
        (CorrectionConfig("e", finish=[{"prior": "flat"}, {"pit": "local"}]), False, "pit"),
        (CorrectionConfig("f", finish=[{"prior": "flat"}]), False, None),
        (CorrectionConfig("g", rescale="tau"), False, "rescale"),
        (CorrectionConfig("h", finish=[{"temperature": "fitted"}]), False, "temperature"),
        (CorrectionConfig("i", step3=Step3Config(), finish=[{"pit": "held_out"}]), True, None),
        (CorrectionConfig("j", step3=Step3Config(), finish=[{"pit": "slices"}]), False, "pit"),
    ],
    ids=lambda value: value.name if isinstance(value, CorrectionConfig) else "",
)
def test_what_follows_from_the_tree(correction: CorrectionConfig, leaves_out: bool, lost: str | None) -> None:
    correction.check()
    assert correction.leaves_out == leaves_out
    assert correction.loses_prior == lost
