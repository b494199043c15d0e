"""The paper's experiments as a user types them: `python -m photoz_lit -m experiment=NAME`, tiny."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.table import Table
from command import Finished, magnitude_table, parsed, run_well
from omegaconf import OmegaConf

from photoz_lit.correction.prior import Priors
from photoz_lit.files import read_json
from photoz_lit.frozen import FILE, FIRST_BLIND, unseen
from photoz_lit.report.runs import gather, sets_of_runs

CONF = Path(__file__).parents[1] / "conf"
SLOW = pytest.mark.slow
TINY = (
    *("n_bootstrap=5", "logger=none", "trainer.accelerator=cpu", "trainer.threads=1"),
    "training.representation.check_every=3",
    *("data.n_galaxies=120", "data.val_fraction=0.1", "data.test_fraction=0.2"),
    *("survey.pixels=24", "survey.n_bins=20"),
    *(
        f"training.{name}.{key}={value}"
        for name in ("representation", "step2", "step3")
        for key, value in (("max_steps", 6), ("batch_size", 32))
    ),
)


def typed(experiment: str, folder: Path, data: Path, *words: str) -> list[str]:
    """Words that run an experiment tiny; its own `words` come first."""
    own = {word.partition("=")[0] for word in words}
    tiny = [word for word in TINY if word.partition("=")[0] not in own]
    return ["-m", f"experiment={experiment}", *tiny, *words, f"output_dir={folder}", f"data_dir={data}"]


def swept(
    experiment: str, folder: Path, data: Path, *words: str
) -> dict[tuple[Any, str], tuple[Path, dict[str, Any]]]:
    """Type an experiment; return folder and settings of its classifiers by (swept value, correction)."""
    run_well(*typed(experiment, folder, data, *words))
    found = {}
    for done in folder.glob(f"{experiment}/classifier/*/done.json"):
        own = OmegaConf.load(done.parent / "config.yaml")
        value = next((OmegaConf.select(own, str(key)) for key in own.sweep.axis), None)
        key = (tuple(value) if OmegaConf.is_list(value) else value, own.correction.name)
        assert key not in found
        found[key] = done.parent, OmegaConf.to_container(own)
    return found


@pytest.mark.parametrize(
    ("experiment", "words", "values", "corrections", "n_representations"),
    [
        ("bins", ["survey.n_bins=20,30", "correction=full"], {20, 30}, {"full"}, 2),
        pytest.param(
            "threshold", ["correction.subset.threshold=2,5"], {2, 5}, {"balanced", "full"}, 1, marks=SLOW
        ),
        pytest.param("training_size", ["data.n_train=0.5,1"], {0.5, 1.0}, {"none", "full"}, 2, marks=SLOW),
        pytest.param(
            *("label_errors", ["data.label_error=0,0.1"], {0.0, 0.1}, {"none", "full"}, 2), marks=SLOW
        ),
        pytest.param(
            *("iterations", ["training.representation.max_steps=3,6"], {3, 6}, {"none", "full"}, 2),
            marks=SLOW,
        ),
        pytest.param(
            *("networks", ["encoder=fast,net_s1"], {"fast", "net_s1"}, {"none", "full"}, 2), marks=SLOW
        ),
        pytest.param(
            *("thinned", [], {(), (0.08, 0.16, 0.1)}, {"none", "balanced", "full"}, 2),
            marks=SLOW,
        ),
        pytest.param("folds", ["correction.subset.fold=1,2"], {1, 2}, {"balanced", "full"}, 1, marks=SLOW),
        pytest.param(
            *("switches", [], {None}, {"none", "balanced", "hard", "unshifted", "skip_balanced", "full"}, 1),
            marks=SLOW,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_experiment_is_one_command_that_goes_on(
    experiment: str,
    words: list[str],
    values: set[Any],
    corrections: set[str],
    n_representations: int,
    mock_run: Finished,
    tmp_path: Path,
) -> None:
    data = mock_run.folder / "data"
    found = swept(experiment, tmp_path, data, *words)
    assert set(found) == {(value, correction) for value in values for correction in corrections}
    assert len(list(tmp_path.glob(f"{experiment}/representation/*/done.json"))) == n_representations
    for folder, own in found.values():
        assert own["survey"]["extend_left"] == own["survey"]["n_bins"] // 2
        done = json.loads((folder / "done.json").read_text())
        assert (done["run"], done["stage"]) == (experiment, "classifier")
    outcome = run_well(*typed(experiment, tmp_path, data, *words))
    assert outcome.out.count("is complete: skipped") == len(found)
    assert not re.search(r"^(training|fitting) ", outcome.out, re.MULTILINE)


@pytest.mark.slow
def test_label_errors_are_the_same_in_every_stage_and_spare_the_test_split(
    mock_run: Finished, tmp_path: Path
) -> None:
    words = ("correction=none", "data.label_error=0,0.1")
    swept("label_errors", tmp_path, mock_run.folder / "data", *words)
    told: dict[tuple[str, float], Any] = {}
    truths = []
    for done in sorted(tmp_path.glob("label_errors/*/*/done.json")):
        error = OmegaConf.load(done.parent / "config.yaml").data.label_error
        truths.append(np.asarray(Table.read(done.parent / "photo_z.fits")["spec_z"]))
        told[done.parents[1].name, error] = Priors.read(done.parent).implicit.sum(axis=0)
    assert len(told) == 4
    assert all((truth == truths[0]).all() for truth in truths)
    for error in (0.0, 0.1):
        np.testing.assert_array_equal(told["representation", error], told["classifier", error])
    clean, noisy = told["classifier", 0.0], told["classifier", 0.1]
    assert noisy[0] > 1.5 * clean[0]  # both are smoothed
    assert noisy[12:].sum() > clean[12:].sum() + 0.1
    assert np.abs(noisy - clean).sum() > 0.3


@SLOW
def test_experiments_run_on_a_semi_real_survey(tmp_path: Path) -> None:
    magnitude_table(60).write(tmp_path / "real.csv")
    words = ("data=semi_real", f"data.path={tmp_path / 'real.csv'}")
    found = swept("bins", tmp_path / "runs", tmp_path / "data", *words, "survey.n_bins=20,30")
    assert len(found) == 4
    for folder, _ in found.values():
        split = Table.read(next(folder.parents[1].glob("representation/*/split.fits")))
        parted = {i for i in split["object_id"] if len(set(split["split"][split["object_id"] == i])) > 1}
        assert parted == set()


def test_baseline_joins_a_sweep_by_a_word(mock_run: Finished, tmp_path: Path) -> None:
    run_well(*typed("bins", tmp_path, mock_run.folder / "data", "head=single", "correction=none"))
    done = [json.loads(p.read_text()) for p in sorted(tmp_path.glob("bins/*/*/done.json"))]
    assert [d["label"] for d in done] == ["none", "Baseline"]


def test_one_sweep_names_every_correction() -> None:
    conf, sweep = CONF, OmegaConf.load(CONF / "experiment" / "alternatives.yaml")
    named = sweep.hydra.sweeper.params.correction.split(",")
    known = {path.stem for path in (conf / "correction").glob("*.yaml")}
    assert sorted(named) == sorted(known - {"few"})  # which needs another model


def test_blind_surveys_are_five_that_no_setting_was_chosen_on() -> None:
    params = OmegaConf.load(CONF / "experiment" / "blind.yaml").hydra.sweeper.params
    seeds = [int(seed) for seed in params["++seed"].split(",")]
    assert seeds == [FIRST_BLIND + i for i in range(1, 6)]
    for words in ((), *((f"seed={seed}",) for seed in seeds)):
        config = parsed("experiment=blind", *words)
        assert config.data.mock_seed == config.seed
        assert unseen(config)
        assert (config.run, config.stage.name, config.fit_missing) == ("blind", "classifier", True)
    corrections = params.correction.split(",")
    assert set(corrections) < {path.stem for path in (CONF / "correction").glob("*.yaml")}
    assert {"baseline", "none", "full", "best"} < set(corrections)


@SLOW
def test_blind_runs_of_two_surveys_are_one_set_of_the_report(tmp_path: Path) -> None:
    words = ("seed=101,102", "encoder=fast,mlp", "correction=baseline,none,full")
    run_well(*typed("blind", tmp_path / "runs", tmp_path / "data", *words))
    gathered = gather(tmp_path / "runs")
    assert gathered.broken == gathered.incomplete == ()
    runs = [run for run in gathered.runs if run.stage == "classifier"]
    assert len(runs) == 12
    assert len(gathered.runs) - len(runs) == 8  # one output or several, two encoders, two surveys
    assert len({run.store for run in runs}) == len(list((tmp_path / "data").glob("*/store.json"))) == 2
    for run in gathered.runs:
        assert run.setting("data.mock_seed") == run.seed
        frozen = read_json(run.folder / FILE)
        assert frozen["unseen"]
        assert len(frozen["code"]) == 1
    (same,) = sets_of_runs(gathered.runs).values()
    assert len(same) == len(gathered.runs)
    by_seed = {seed: {(run.group, run.store) for run in runs if run.seed == seed} for seed in (101, 102)}
    assert [len(of) for of in by_seed.values()] == [6, 6]
    assert {group for group, _ in by_seed[101]} == {group for group, _ in by_seed[102]}
    truths = [next(run.spec_z for run in runs if run.seed == seed) for seed in by_seed]
    assert not np.array_equal(*truths)
    outcome = run_well(*typed("blind", tmp_path / "runs", tmp_path / "data", *words))
    assert outcome.out.count("is complete: skipped") == 12
