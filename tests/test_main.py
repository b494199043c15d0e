import json
import logging
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import yaml
from astropy.table import Table
from command import (
    IMAGES,
    QUICK,
    ROOT,
    Finished,
    Outcome,
    catalogue_words,
    nothing_done,
    only,
    places,
    run,
    run_apart,
    run_well,
    write_arrays,
    write_catalogue,
)

from photoz_lit import __version__
from photoz_lit.__main__ import conf_folder
from photoz_lit.config import Config

SLOW = pytest.mark.slow
TWO_STEPS = tuple(
    f"training.{name}.{key}={value}"
    for name in ("representation", "step2", "step3")
    for key, value in (("max_steps", 2), ("batch_size", 8))
)


def check_run(folder: Path) -> dict[str, float]:
    """Return the metrics of the one complete run below a folder; nothing unfinished may lie there."""
    done = only(folder / "runs", "done.json")
    assert not list(folder.rglob("*.partial*"))
    metrics: dict[str, float] = json.loads((done.parent / "metrics.json").read_text())
    assert metrics["n"] == len(Table.read(done.parent / "photo_z.fits"))
    return metrics


def test_no_words_tell_what_to_type() -> None:
    outcome = run()
    assert outcome.code == 0
    assert "stage=representation" in outcome.out
    assert "stage=classifier correction=full" in outcome.out


def test_help_fits_a_screen_lists_every_choice_and_answers_at_once() -> None:
    script = "import sys; sys.argv[1:] = ['--help']; from photoz_lit.__main__ import main; main();"
    script += "print(sorted({'numpy', 'hydra', 'omegaconf', 'torch'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    *lines, imported = done.stdout.splitlines()
    assert imported == "[]"
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    for path in conf_folder().glob("*/*.yaml"):
        assert path.stem in done.stdout or path.parent.name == "hydra"


def test_version_is_that_of_the_package() -> None:
    assert run("--version").out == f"photoz_lit {__version__}\n"
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert declared["project"]["version"] == __version__


def test_settings_are_printed_with_their_values() -> None:
    outcome = run_well("--cfg", "job", "data=catalogue", "data.path=a b.csv", "seed=3")
    held = yaml.safe_load(outcome.out)
    assert (held["seed"], held["data"]["source"], held["survey"]["n_bins"]) == (3, "catalogue", 180)
    assert Path(held["data"]["path"]).name == "a b.csv"
    assert "leave -m out" in run("-m", "--cfg", "job", "seed=1,2").message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"name: [x", "mine.yaml"),
        (b"name: \xff\xfe", "no valid YAML"),
        (b"name: mine\nname: mine", "mine.yaml"),
        (b"name: mine\npixel: 3", "survey.pixels?"),
        (b"name: mine\npixels: many", "survey.pixels"),
        (b"- 1", "mine"),
    ],
)
def test_own_configuration_that_is_wrong_is_a_message(text: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "survey").mkdir()
    (tmp_path / "survey" / "mine.yaml").write_bytes(text)
    outcome = run("--config-dir", str(tmp_path), "survey=mine", "stage=prepare", *places(tmp_path))
    assert outcome.code == 2
    assert said in outcome.message


def test_a_terminal_without_some_letters_shows_question_marks(tmp_path: Path) -> None:
    words = ("stage=prepare", "data=catalogue", "encoder=mlp", "data.path=日本.csv", *places(tmp_path))
    outcome = run_apart(*words, cwd=tmp_path, env={"PYTHONIOENCODING": "latin-1"})
    assert outcome.code in (1, 2)
    assert "??.csv" in outcome.message


def test_in_a_sweep_the_same_mistake_is_told_once(tmp_path: Path) -> None:
    outcome = run("-m", "stage=prepare", "seed=1,2,3", "dta=x", *places(tmp_path))
    assert outcome.code == 2
    assert outcome.err.count("Did you mean data?") == 1
    assert "jobs that failed: 3: " in outcome.err
    assert "++" not in outcome.err


@pytest.mark.parametrize(
    "words",
    [
        "experiment=bins ++survey.n_bins=30 correction=balanced,full",
        "experiment=paper_order stage=classifier correction=none ++seed=range(1,3)",
        "stage=prepare seed=choice(3,1) run='a,b',c",
        "stage=prepare",
    ],
)
def test_a_sweep_is_that_of_hydra(words: str, tmp_path: Path) -> None:
    """A sweep is parted into jobs here; a word for Hydra lets it do so itself."""
    found: list[list[Config]] = []
    for own in ([], ["hydra.job.name=hydra"]):
        with nothing_done() as configs:
            outcome = run("-m", *words.split(), f"output_dir={tmp_path}", *own)
        assert outcome.code == 0, outcome.err
        found.append(configs)
    assert found[0] == found[1]
    assert found[0]


def test_another_launcher_of_an_experiment_is_not_passed_over(tmp_path: Path) -> None:
    shutil.copytree(conf_folder(), tmp_path / "conf")
    mine = tmp_path / "conf" / "experiment" / "mine.yaml"
    mine.write_text("# @package _global_\nhydra: {launcher: {_target_: of.a.Cluster}}\n")
    with mock.patch("photoz_lit.__main__.conf_folder", return_value=tmp_path / "conf"):
        outcome = run("-m", "experiment=mine", "stage=prepare", "seed=1,2")
    assert "of.a.Cluster" in outcome.message
    assert "hydra/launcher=NAME" in outcome.message


def test_module_runs_from_any_folder(tmp_path: Path) -> None:
    write_catalogue(tmp_path)
    words = (*catalogue_words(Path("galaxies.csv")), "output_dir=out", "data_dir=prepared")
    outcome = run_apart("stage=prepare", *words, cwd=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "90 galaxies" in outcome.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["galaxies.csv", "prepared"]


def test_wrong_word_in_a_process_of_its_own() -> None:
    outcome = run_apart("stage=representation", "seeed=1")
    assert outcome.code == 2
    assert "Did you mean seed?" in outcome.message


def test_conf_folder_is_the_checkouts() -> None:
    assert conf_folder() == ROOT / "conf"


@pytest.mark.parametrize("interrupted", [KeyboardInterrupt, RuntimeError])
def test_interruption_is_a_message_and_a_fault_of_ours_is_not_hidden(
    interrupted: type[BaseException], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(config: object) -> None:
        raise interrupted("as if")

    monkeypatch.setattr("photoz_lit.stages.prepare.run", stop)
    if interrupted is RuntimeError:
        with pytest.raises(RuntimeError, match="as if"):
            run("stage=prepare", *places(tmp_path))
        return
    outcome = run("stage=prepare", *places(tmp_path))
    assert outcome.code == 130
    assert outcome.err == "interrupted: type the same command to go on\n"


def test_failed_job_does_not_stop_a_sweep_and_the_exit_code_says_so(tmp_path: Path) -> None:
    good, other = write_catalogue(tmp_path), write_catalogue(tmp_path, "other.csv", seed=1)
    bad = tmp_path / "bad.csv"
    bad.write_text("nonsense\n1\n")
    words = [word for word in catalogue_words(good) if not word.startswith("data.path")]
    outcome = run("-m", "stage=prepare", f"data.path='{good}','{bad}','{other}'", *words, *places(tmp_path))
    assert outcome.code == 1
    assert outcome.err.count("error: ") == 1
    assert "bad.csv" in outcome.err.splitlines()[-1]
    assert "other.csv" not in outcome.err
    assert len(list((tmp_path / "data").glob("*/store.json"))) == 2


@pytest.mark.parametrize("encoder", ["fast", "net_s1", "net_s2", "net_s3", pytest.param("net_t", marks=SLOW)])
def test_encoders_run(encoder: str, tmp_path: Path) -> None:
    words = write_arrays(tmp_path, n=24, pixels=64 if encoder == "net_t" else 16)
    run_well("stage=representation", f"encoder={encoder}", *QUICK, *TWO_STEPS, *words, *places(tmp_path))
    assert check_run(tmp_path)["sigma_mad"] > 0


@pytest.mark.parametrize(
    "experiment",
    ["paper_sdss", *(pytest.param(f"paper_cfhtls_{name}", marks=SLOW) for name in ("wide", "deep"))],
)
def test_experiments_of_the_paper_run_with_net_p(experiment: str, tmp_path: Path) -> None:
    z_max = 0.39 if experiment == "paper_sdss" else 3.9
    words = [w for w in write_arrays(tmp_path, n=20, pixels=16, z_max=z_max) if w != "data=arrays"]
    steps = [w.replace("batch_size=8", "batch_size=2") for w in TWO_STEPS]
    common = (f"experiment={experiment}", *QUICK[1:], *steps, "logger=none", *words, *places(tmp_path))
    run_well("stage=representation", *common)
    metrics = check_run(tmp_path)
    config = only(tmp_path, "config.yaml").read_text()
    assert "name: net_p" in config
    assert "schedule: halfway_drop" in config
    assert metrics["n"] == 4


def test_experiment_demo_runs(tmp_path: Path) -> None:
    words = [w for w in (*IMAGES, *TWO_STEPS) if w != "experiment=smoke"]
    words = [w.replace("survey.pixels=24", "survey.pixels=16") for w in words]
    run_well("stage=representation", "experiment=demo", "head=single", *words, *places(tmp_path))
    assert check_run(tmp_path)["n"] == 24


@pytest.mark.slow
def test_experiment_real_catalogue_runs(tmp_path: Path) -> None:
    path = write_catalogue(tmp_path, "galaxies.ecsv")
    words = ("experiment=real_catalogue", *QUICK[1:], *TWO_STEPS, f"data.path={path}", *places(tmp_path))
    run_well("stage=representation", *words)
    run_well("stage=classifier", "correction=full", *words)
    tables = [Table.read(p) for p in sorted((tmp_path / "runs").rglob("photo_z.fits"))]
    assert len(tables) == 2
    assert list(tables[0]["object_id"]) == list(tables[1]["object_id"])
    run_well("stage=representation", "seed=2", *words)
    other = Table.read(only(tmp_path / "runs", "*seed=2/photo_z.fits"))
    assert set(other["object_id"]) != set(tables[0]["object_id"])


@pytest.mark.parametrize("survey", ["sdss", "cfhtls_wide", pytest.param("cfhtls_deep", marks=SLOW)])
def test_surveys_run_through_both_stages(survey: str, tmp_path: Path) -> None:
    z_max = 0.39 if survey == "sdss" else 3.9
    words = (f"survey={survey}", *write_arrays(tmp_path, z_max=z_max), *QUICK, *places(tmp_path))
    run_well("stage=representation", *words)
    run_well("stage=classifier", "correction=unshifted", *words)
    folder = only(tmp_path / "runs", "correction=unshifted*")
    assert json.loads((folder / "survey.json").read_text())["name"] == survey
    assert Table.read(folder / "photo_z.fits").meta["Z_MAX"] == (0.4 if survey == "sdss" else 4.0)


def test_cfhtls_does_not_go_with_the_simulated_survey(tmp_path: Path) -> None:
    outcome = run("stage=representation", "survey=cfhtls_wide", *places(tmp_path))
    assert outcome.code == 2
    assert "data=arrays" in outcome.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("logger", ["csv", pytest.param("wandb", marks=pytest.mark.slow), "none"])
def test_loggers_run(logger: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    words = [w for w in catalogue_words(write_catalogue(tmp_path)) if not w.startswith("logger=")]
    outcome = run("stage=representation", f"logger={logger}", *words, *places(tmp_path))
    assert outcome.code == 0
    assert "rror" not in outcome.err
    check_run(tmp_path)
    logs = list((tmp_path / "runs").rglob("metrics.csv"))
    wandb_runs = list((tmp_path / "runs").rglob("run-*.wandb"))
    assert (len(logs), len(wandb_runs)) == {"csv": (1, 0), "wandb": (0, 1), "none": (0, 0)}[logger]
    if logger == "csv":
        header, *lines = logs[0].read_text().splitlines()
        assert {"train_loss", "val_loss", "step"} <= set(header.split(","))
        assert any(np.isfinite(float(v)) for line in lines for v in line.split(",") if v)


@pytest.mark.slow
def test_every_job_of_a_sweep_is_a_wandb_run_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    words = [w for w in catalogue_words(write_catalogue(tmp_path)) if not w.startswith("logger=")]
    outcome = run("-m", "stage=representation", "seed=1,2", "logger=wandb", *words, *places(tmp_path))
    assert outcome.code == 0
    found = sorted((tmp_path / "runs").rglob("run-*.wandb"))
    assert len(found) == 2
    assert len({path.name for path in found}) == 2
    assert wandb.setup().most_recent_active_run is None


@pytest.mark.parametrize("schedule", ["halfway_drop", "constant"])
def test_single_head_and_schedules_run(schedule: str, catalogue_run: Finished, tmp_path: Path) -> None:
    words = (*catalogue_run.words[:-2], *places(tmp_path), "head=single")
    run_well("stage=representation", f"training.representation.schedule={schedule}", *words)
    check_run(tmp_path)


def test_workers_that_read_cutouts_change_nothing(tmp_path: Path) -> None:
    words = (*write_arrays(tmp_path), *QUICK, "logger=none")
    results = []
    for workers in (0, 1):
        run_well(
            "stage=representation", f"trainer.num_workers={workers}", *words, *places(tmp_path / str(workers))
        )
        results.append(check_run(tmp_path / str(workers)))
    assert results[0] == results[1]


def test_own_survey_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "myconf" / "survey").mkdir(parents=True)
    text = (ROOT / "conf" / "survey" / "hsc.yaml").read_text().replace("name: hsc", "name: mine")
    (tmp_path / "myconf" / "survey" / "mine.yaml").write_text(text.replace("bands: grizy", "bands: gri"))
    words = ["stage=prepare", "survey=mine", "data=stamps", f"data.images={tmp_path}", *places(tmp_path)]
    assert "survey=mine is not valid" in run(*words).message
    for flag in (["--config-dir", f"{tmp_path / 'myconf'}"], [f"--config-dir={tmp_path / 'myconf'}"]):
        assert "holds no .fits" in run(*flag, *words).message  # read, and stopped at the missing stamps
    assert "no such folder" in run("--config-dir", f"{tmp_path / 'none'}", *words).message


def test_sweep_leaves_loggers_alive(tmp_path: Path) -> None:
    words = ["stage=prepare", "data=stamps", f"data.images={tmp_path}", *places(tmp_path)]
    run("-m", *words)
    assert not logging.getLogger("photoz_lit.data.catalogue").disabled
    assert logging.getLogger().level == logging.WARNING


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["seed=1"],
            "no stage is set: type stage=NAME, with NAME one of prepare, representation, classifier",
        ),
        (["stage"], "stage"),
        (["hydraa=1"], "hydraa"),
        (["seed=[1"], "seed=[1"),
        (["~stage=representation"], "stage=representation"),
        (["data.magnitudes=[a", "stage=prepare"], "data.magnitudes"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_words_that_hydra_refuses_give_one_message(words: list[str], said: str, tmp_path: Path) -> None:
    outcome = run(*words, *places(tmp_path))
    assert outcome.code == 2
    assert said in outcome.message
    assert "hydra.cc" not in outcome.message
    assert "HYDRA_FULL_ERROR" not in outcome.err


def test_classifier_without_a_representation_says_what_to_type(tmp_path: Path) -> None:
    words = (*IMAGES, *places(tmp_path))
    outcome = run("stage=classifier", "correction=full", "correction.subset.threshold=9", *words)
    assert outcome.code == 2
    assert "no finished representation" in outcome.message
    typed = outcome.message.partition("python -m photoz_lit ")[2].split()
    assert typed == ["stage=representation", *words]
    assert list(tmp_path.iterdir()) == []


def test_multirun_on_two_devices_is_refused(tmp_path: Path) -> None:
    outcome = run("-m", "stage=representation", "seed=1", "trainer.devices=2", *places(tmp_path))
    assert outcome.code == 2
    assert "trainer.devices=1" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "data").exists()


def test_outcome_of_these_tests_tells_messages_from_tracebacks() -> None:
    with pytest.raises(AssertionError):
        _ = Outcome(1, "", "Traceback (most recent call last)").message
    with pytest.raises(AssertionError):
        _ = Outcome(0, "", "error: nothing").message
