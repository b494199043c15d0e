import re
from pathlib import Path
from typing import Any

import pytest
from command import IMAGES, ROOT, Outcome, places, run
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from photoz_lit import config as settings
from photoz_lit.__main__ import conf_folder
from photoz_lit.config import Config, parse
from photoz_lit.errors import ConfigError

NEEDS = {
    "data=catalogue": ["data.path=x.csv", "encoder=mlp"],
    "data=arrays": ["data.path=x.csv", "data.images=x.npy"],
    "data=embeddings": ["data.path=x.csv", "data.images=x.npy", "encoder=precomputed"],
    "data=stamps": ["data.images=x"],
    "data=store": ["data.path=x"],
    "data=pasquet": ["data.path=x.npz"],
    "data=npy_folder": ["data.path=x"],
    "data=cfhtls": ["data.path=x"],
    "data=galaxies_ml": ["data.path=x.hdf5"],
    "stage=predict": ["model=x"],
    "stage=calibrate": ["model=x"],
    "survey=hsc": ["data=galaxies_ml", "data.path=x.hdf5"],
    "data=semi_real": ["data.mock_catalogue=x.csv"],
    "experiment=embeddings": ["data.path=x.csv", "data.images=x.npy"],
    "encoder=precomputed": ["data=embeddings", "data.path=x.csv", "data.images=x.npy"],
    "encoder=mlp": ["data=catalogue", "data.path=x.csv"],
    "survey=cfhtls_wide": ["data=arrays", "data.path=x.csv", "data.images=x.npy"],
    "survey=cfhtls_deep": ["data=arrays", "data.path=x.csv", "data.images=x.npy"],
    "experiment=paper_sdss": ["data.path=x.csv", "data.images=x.npy"],
    "experiment=paper_cfhtls_wide": ["data.path=x.csv", "data.images=x.npy"],
    "experiment=paper_cfhtls_deep": ["data.path=x.csv", "data.images=x.npy"],
    "experiment=real_catalogue": ["data.path=x.csv"],
}
CHOICES = sorted(
    f"{path.parent.name}={path.stem}"
    for path in (ROOT / "conf").glob("*/*.yaml")
    if path.parent.name != "hydra"
)


def parsed(*words: str) -> Config:
    with initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return parse(compose("config", list(words)), list(words))


def test_every_group_has_choices() -> None:
    groups = {choice.partition("=")[0] for choice in CHOICES}
    assert groups == {
        "stage",
        "survey",
        "target",
        "data",
        "encoder",
        "correction",
        "calibration",
        "size",
        "trainer",
        "logger",
        "experiment",
    }


@pytest.mark.parametrize("choice", CHOICES)
def test_every_config_composes_and_parses(choice: str) -> None:
    stage = [] if choice.startswith("stage=") else ["stage=classifier"]
    config = parsed(choice, *stage, *NEEDS.get(choice, []))
    group, _, value = choice.partition("=")
    if group in ("data", "experiment", "size", "trainer"):
        everywhere = group in ("experiment", "size")
        with initialize_config_dir(str(conf_folder()), version_base="1.3"):
            composed = compose("config", [choice, *NEEDS.get(choice, [])])
        own = OmegaConf.to_container(composed, resolve=True)
        assert isinstance(own, dict)
        written = OmegaConf.load(ROOT / "conf" / group / f"{value}.yaml")
        for key in set(written) - {"defaults", "hydra"}:
            part = own[key] if everywhere else own[group][key]
            ours = settings.to_container(config)
            held = ours[key] if everywhere else ours[group][key]
            if not isinstance(part, dict) and f"{group}.{key}=" not in " ".join(NEEDS.get(choice, [])):
                assert held == part
    elif group == "target":
        assert config.target.column == ("spec_z" if value == "redshift" else value)
    else:
        assert getattr(config, group).name == value


def test_defaults_of_the_yaml_are_documented_settings() -> None:
    loaded = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / "config.yaml"))
    assert isinstance(loaded, dict)
    for key in loaded.keys() - {"defaults"}:
        settings.check_key(str(key))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=representation", "seeed=1"], ["seeed", "Did you mean seed?", "Valid keys"]),
        (["stage=representation", "+typo=1"], ["typo", "top level: calibration, correction"]),
        (["stage=representation", "++data.typo=1"], ["data.typo", "under 'data'", "n_galaxies"]),
        (["stage=representation", "training.step2.lrr=1"], ["training.step2.lrr", "training.step2.lr?"]),
        (["stage=represent"], ["stage=represent", "prepare", "stage=representation?"]),
        (["stage=representation", "encoder=fats"], ["encoder=fats", "encoder=fast?", "net_p"]),
        (["stage=representation", "encoder.name=vit"], ["encoder=vit", "net_s3"]),
        (["stage=classifier", "correction=fulll"], ["correction=fulll", "skip_balanced"]),
        (["stage=classifier", "survey=lsst"], ["survey=lsst", "cfhtls_deep, cfhtls_wide, hsc, sdss"]),
        (["stage=classifier", "experiment=dmeo"], ["experiment=demo?"]),
        (["stage=classifier", "logger=tensorboard"], ["logger=tensorboard", "csv, none, wandb"]),
        (["stage=classifier", "head=triple"], ["head=triple", "single, multi"]),
        (["stage=classifier", "seed=one"], ["seed", "'one'"]),
        (["stage=classifier", "seed=1.5"], ["seed", "1.5"]),
        (["stage=classifier", "seed=null"], ["seed", "None"]),
        (["stage=classifier", "seed=-1"], ["seed=-1"]),
        (["stage=classifier", "training.step2.lr=[1]"], ["training.step2.lr"]),
        (["stage=classifier", "training.step2.lr=0"], ["training.step2.lr=0"]),
        (["stage=classifier", "data.n_galaxies=many"], ["data.n_galaxies", "'many'"]),
        (["stage=classifier", "data.val_fraction=0.9"], ["data.val_fraction=0.9", "sum below 1"]),
        (["stage=classifier", "data.dtype=int8"], ["data.dtype=int8", "float16, float32"]),
        (["stage=classifier", "data.n_train=0"], ["data.n_train=0"]),
        (["stage=classifier", "data.train_fraction=0"], ["data.train_fraction=0", "share of training"]),
        (["stage=classifier", "data.thin=[0.1,0.2]"], ["data.thin=[0.1, 0.2]", "[z_low,z_high,fraction]"]),
        (["stage=classifier", "data.thin=[0.2,0.1,0.5]"], ["data.thin=[0.2, 0.1, 0.5]"]),
        (["stage=classifier", "data.label_error=-1"], ["data.label_error=-1"]),
        (["stage=classifier", "sweep.scale=logarithmic"], ["linear, log, category"]),
        (["stage=classifier", "size=papr"], ["size=paper?", "paper, quick"]),
        (["stage=prepare", "data=semi_real"], ["type data.mock_catalogue=VALUE"]),
        (["stage=classifier", "correction=full", "correction.shift=left"], ["mirror, centre_of_mass, none"]),
        (["stage=classifier", "correction=full", "correction.threshold=0"], ["correction.threshold=0"]),
        (["stage=classifier", "correction.balance=true"], ["correction.balance=true", "correction=balanced"]),
        (["stage=classifier", "correction=balanced", "correction.fine_tune=false"], ["type correction=none"]),
        (
            ["stage=classifier", "correction=full", "survey.extend_left=0", "survey.extend_right=0"],
            ["correction.extend=true", "survey.extend_left=90"],
        ),
        (
            ["stage=representation", "correction=full"],
            [
                "stage=representation does not take correction=full",
                "python -m photoz_lit stage=classifier correction=full",
            ],
        ),
        (["stage=representation", "survey.n_slices=10"], ["survey.n_slices=10", "odd", "e.g. 11"]),
        (["stage=representation", "survey.z_max=0"], ["survey.z_max=0"]),
        (
            ["stage=representation", "survey.z_min=-1"],
            ["must be above -1", "target.residual=difference"],
        ),
        (["stage=representation", "target=log_mas"], ["target=log_mass?", "log_mass, redshift"]),
        (["stage=representation", "target.column=ebv"], ["target.column='ebv'", "taken: object_id"]),
        (["stage=representation", "target.column=''"], ["target.column=''"]),
        (["stage=representation", "target.residual=ratio"], ["relative, difference"]),
        (["stage=calibrate"], ["model is not set", "data.vectors=[COLUMN]"]),
        (["stage=representation", "survey=cfhtls_wide", "survey.bands=griz"], ["data=mock", "survey=sdss"]),
        (["stage=representation", "data=catalogue"], ["data.path is not set", "data.path=galaxies.csv"]),
        (["stage=representation", "data=catalogue", "data.path=a.csv"], ["type encoder=mlp"]),
        (["stage=representation", "encoder=mlp"], ["encoder=mlp", "type encoder=fast"]),
        (["stage=representation", "data=arrays", "data.path=a.csv"], ["data.images is not set"]),
        (
            ["stage=representation", "data=arrays", "data.path=a", "data.images=b", "data.test_path=c"],
            ["data.test_path and data.test_images go together"],
        ),
        (
            ["stage=representation", "training.representation.check_every=7"],
            ["training.representation.max_steps=2000", "multiple of training.representation.check_every=7"],
        ),
        (["stage=representation", "trainer.precision=16"], ["trainer.precision", "bf16-mixed"]),
        (
            ["stage=representation", "trainer.accelerator=tpuu"],
            ["tpuu", "auto, cpu, gpu"],
        ),
        (["stage=representation", "trainer.strategy=dp"], ["trainer.strategy=dp", "trainer.strategy=ddp?"]),
        (["stage=representation", "trainer.devices=0"], ["trainer.devices=0"]),
        (["stage=representation", "trainer.threads=0"], ["trainer.threads=0"]),
        (["stage=representation", "trainer.num_workers=-1"], ["trainer.num_workers=-1"]),
        (["stage=representation", "trainer.predict_batch_size=0"], ["trainer.predict_batch_size=0"]),
        (["stage=representation", "trainer.render_workers=0"], ["trainer.render_workers=0"]),
        (["stage=representation", "+encoder.hidden=[]"], ["encoder.hidden=[]", "[256,256]"]),
        (["stage=representation", "+encoder.noise=-1"], ["encoder.noise=-1"]),
        (["stage=representation", "n_bootstrap=1"], ["n_bootstrap=1"]),
        (["stage=representation", "run=a/b"], ["run=a/b", "plain folder name"]),
        (["seed=1"], ["no stage is set", "prepare, representation, classifier, predict, calibrate, report"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_wrong_settings_stop_with_one_message(words: list[str], said: list[str], tmp_path: Path) -> None:
    outcome = run(*words, *places(tmp_path))
    assert outcome.code == 2
    for part in said:
        assert part in outcome.message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage"], "stage"),
        (["hydraa=1"], "hydraa"),
        (["seed=[1"], "seed=[1"),
        (["~stage=representation"], "stage=representation"),
        (["data.magnitudes=[a]"], "data.magnitudes"),
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
    outcome = run("stage=classifier", "correction=full", "correction.threshold=9", *words)
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


def folder(stage: str, *words: str) -> str:
    return parsed(f"stage={stage}", *words).folder(stage).name


def test_run_folder_is_a_function_of_the_settings() -> None:
    assert folder("representation") == "head=multi,seed=1"
    assert folder("representation", "head=single", "seed=3") == "head=single,seed=3"
    assert folder("classifier", "correction=full") == "correction=full,seed=1"
    assert folder("classifier", "correction=full", "correction.threshold=7") == (
        "correction=full,correction.threshold=7,seed=1"
    )
    assert folder("classifier", "head=single") == "correction=none,head=single,seed=1"


def test_typing_a_default_names_no_other_folder() -> None:
    for stage in ("representation", "classifier"):
        assert folder(stage, "encoder=fast", "head=multi", "data=mock", "survey=sdss") == folder(stage)
    full = folder("classifier", "correction=full")
    assert folder("classifier", "correction=full", "correction.threshold=20") == full


def test_a_target_sets_range_and_bins_that_experiments_and_words_override() -> None:
    config = parsed("stage=classifier", "target=log_mass")
    assert (config.survey.z_min, config.survey.z_max, config.survey.n_bins) == (6.5, 12.5, 120)
    assert config.survey.r_min == 12.5  # the survey's
    assert config.folder("classifier").name == "correction=none,target=log_mass,seed=1"
    assert parsed("stage=classifier", "target=log_mass", "experiment=demo").survey.n_bins == 90
    own = parsed("stage=classifier", "target=log_mass", "experiment=demo", "survey.z_min=8")
    assert (own.survey.z_min, own.survey.z_max, own.target.estimate) == (8, 12.5, "photo_log_mass")
    assert folder("classifier", "target=redshift") == folder("classifier")


def test_a_target_without_words_is_called_by_its_column() -> None:
    words = ("target.column=feh", "target.residual=difference", "survey.z_min=-3", "survey.z_max=1")
    target = parsed("stage=classifier", *words).target
    assert (target.label, target.symbol, target.relative) == ("feh", "feh", False)
    assert "target.column=feh" in folder("classifier", *words)
    named = parsed("stage=classifier", *words, "target.label=metallicity", "target.symbol=Fe/H").target
    assert (named.label, named.symbol) == ("metallicity", "Fe/H")


def test_order_of_the_words_does_not_matter() -> None:
    words = ["encoder=net_t", "data.n_galaxies=50", "seed=2"]
    assert folder("representation", *words) == folder("representation", *words[::-1])


def test_settings_of_the_classifier_leave_the_representation_where_it_is() -> None:
    words = ["correction=full", "correction.threshold=20", "training.step3.lr=0.1"]
    own = parsed("stage=classifier", *words).folder("representation")
    assert own.name == "head=multi,seed=1"
    assert parsed("stage=classifier", "encoder=net_t").folder("representation") != own


def test_a_default_that_follows_another_setting_names_no_folder() -> None:
    words = ("experiment=real_catalogue", "data.path=x.csv", "seed=3")  # data.split_seed follows seed there
    assert folder("representation", *words, "data.split_seed=3") == folder("representation", *words)
    assert "data.split_seed=4" in folder("representation", *words, "data.split_seed=4")
    # What an experiment sets is a default too.
    smoke = ("experiment=smoke", "survey.n_bins=20")
    assert folder("representation", *smoke) == folder("representation", "experiment=smoke")


def test_sizes_scale_with_bins_and_galaxies_and_name_a_folder() -> None:
    def numbers(*words: str) -> tuple[int, int, int]:
        config = parsed("experiment=bins", "correction=full", *words)
        return config.correction.threshold, config.survey.extend_left, config.survey.extend_right

    assert numbers() == (20, 30, 30)
    assert numbers("survey.n_bins=20", "data.train_fraction=0.5") == (30, 10, 10)
    assert numbers("survey.n_bins=5000") == (1, 2500, 2500)
    assert numbers("size=paper") == (200, 90, 90)
    paper = parsed("experiment=bins", "size=paper")
    own = parsed("stage=classifier", "experiment=paper_sdss", *NEEDS["experiment=paper_sdss"])
    for part in ("training", "encoder", "survey"):
        assert getattr(paper, part) == getattr(own, part)
    assert (paper.correction.threshold, paper.correction.views) == (200, own.correction.views)
    split = 1 - paper.data.val_fraction - paper.data.test_fraction
    assert paper.data.n_galaxies * split == pytest.approx(393_219, abs=1)
    words = ("experiment=bins", "correction=full")
    assert folder("classifier", *words, "size=paper") == "correction=full,size=paper,seed=1"
    # Defaults that follow other settings, typed: they name none.
    assert folder("classifier", *words, "size=quick", "correction.threshold=20", "survey.extend_left=30") == (
        "correction=full,seed=1"
    )
    assert folder("classifier", *words, "data.thin=[0.1,0.2,0.5]", "sweep.scale=log") == (
        "correction=full,data.thin=0.1_0.2_0.5,seed=1"
    )
    assert folder("classifier", *words, "data.thin=[]", "fit_missing=false") == "correction=full,seed=1"
    assert folder("classifier", *words, "data=semi_real", "data.mock_catalogue=a/real.csv") == (
        "correction=full,data=semi_real,data.mock_catalogue=real,seed=1"
    )


def test_hardware_loggers_and_places_name_no_folder() -> None:
    words = ["trainer.num_workers=2", "logger=wandb", "data_dir=elsewhere", "n_bootstrap=7", "trainer=auto"]
    assert folder("representation", *words) == folder("representation")


def test_relative_folders_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = parsed("stage=prepare")
    assert (config.output_dir, config.data_dir) == (str(tmp_path / "runs"), str(tmp_path / "data"))


def test_saved_settings_hold_plain_containers_and_come_back(tmp_path: Path) -> None:
    config = parsed("stage=classifier", "correction=full", "seed=4")

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(k) is str and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(plain(v) for v in value)
        return value is None or type(value) in (str, int, float, bool)

    assert plain(settings.to_container(config))
    settings.save(config, tmp_path / "config.yaml")
    assert OmegaConf.to_container(OmegaConf.load(tmp_path / "config.yaml")) == settings.to_container(config)


def test_differences_name_the_keys() -> None:
    old = settings.science(parsed("stage=classifier"), "classifier")
    new = settings.science(parsed("stage=classifier", "training.step2.lr=0.5", "seed=2"), "classifier")
    assert settings.differences(old, new) == ["seed: 1 -> 2", "training.step2.lr: 0.001 -> 0.5"]


def test_unknown_key_is_named_with_its_valid_siblings() -> None:
    with pytest.raises(ConfigError, match=re.escape("training.step4.lr")) as caught:
        settings.check_key("training.step4.lr")
    assert "representation, step2, step3" in str(caught.value)


def test_outcome_of_these_tests_tells_messages_from_tracebacks() -> None:
    with pytest.raises(AssertionError):
        _ = Outcome(1, "", "Traceback (most recent call last)").message
    with pytest.raises(AssertionError):
        _ = Outcome(0, "", "error: nothing").message
