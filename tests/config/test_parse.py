import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import ROOT, parsed

from photoz_lit import config as settings
from photoz_lit.config import Config
from photoz_lit.data.sources import SOURCES
from photoz_lit.data.sources.settings import SourceSettings
from photoz_lit.errors import ConfigError
from photoz_lit.setting import setting

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
    "data=mmu": ["data.images=x"],
    "stage=predict": ["model=x"],
    "stage=export": ["model=x"],
    "stage=calibrate": ["model=x"],
    "survey=hsc": ["data=galaxies_ml", "data.path=x.hdf5"],
    "data=semi_real": ["data.path=x.csv"],
    "experiment=embeddings": ["data.path=x.csv", "data.images=x.npy"],
    "encoder=precomputed": ["data=embeddings", "data.path=x.csv", "data.images=x.npy"],
    "encoder=mlp": ["data=catalogue", "data.path=x.csv"],
    "survey=cfhtls_wide": ["data=arrays", "data.path=x.csv", "data.images=x.npy"],
    "survey=cfhtls_deep": ["data=arrays", "data.path=x.csv", "data.images=x.npy"],
    "experiment=paper_sdss": ["data.path=x.csv", "data.images=x.npy"],
    "experiment=paper_cfhtls_wide": ["data.path=x.csv", "data.images=x.npy"],
    "experiment=paper_cfhtls_deep": ["data.path=x.csv", "data.images=x.npy"],
    "experiment=real_catalogue": ["data.path=x.csv"],
    "experiment=rail": ["data.path=x.csv", "data.magnitude_errors=[a,b,c,d,e]"],
    "experiment=few_spectra": ["data.path=x.csv"],
}
CHOICES = sorted(
    f"{path.parent.name}={path.stem}"
    for path in (ROOT / "conf").glob("*/*.yaml")
    if path.parent.name != "hydra"
)


MAGNITUDES = ("data=catalogue", "data.path=x.csv", "encoder=mlp")


@pytest.mark.parametrize("name", ["demo", "paper_sdss", "smoke"])
def test_the_threshold_of_an_experiment_is_that_of_its_subsets(name: str) -> None:
    written = yaml.safe_load((ROOT / "conf" / "experiment" / f"{name}.yaml").read_text())
    words = NEEDS.get(f"experiment={name}", [])
    subset = parsed(f"experiment={name}", "stage=classifier", "correction=full", *words).correction.subset
    assert subset is not None
    assert subset.threshold == written["values"]["threshold"]
    assert parsed(f"experiment={name}", "stage=classifier", *words).correction.subset is None


@pytest.mark.parametrize("choice", CHOICES)
def test_every_config_composes_and_says_what_is_set(choice: str) -> None:
    stage = [] if choice.startswith("stage=") else ["stage=classifier"]
    config = parsed(choice, *stage, *NEEDS.get(choice, []))
    group, _, value = choice.partition("=")
    text = (ROOT / "conf" / group / f"{value}.yaml").read_text()
    written, held = yaml.safe_load(text), settings.to_container(config)
    held = held if "@package _global_" in text else held[group]
    typed = [word.partition("=")[0].rpartition(".")[2] for word in NEEDS.get(choice, [])]
    for key in written.keys() - {"defaults", "hydra", "sweep", "values", "representation", *typed}:
        assert_holds(held[key], written[key])


def assert_holds(held: Any, written: Any) -> None:
    if isinstance(written, dict):
        for key, value in written.items():
            if value is not None and "${" not in str(value):
                assert_holds(held[key], value)
    else:
        assert held == written


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stage=representation", "seeed=1"], ["seeed", "Did you mean seed?", "Valid keys"]),
        (["stage=representation", "++data.typo=1"], ["data.typo", "under 'data'", "n_galaxies"]),
        (["stage=representation", "training.step2.lrr=1"], ["training.step2.lrr", "training.step2.lr?"]),
        (["stage=represent"], ["stage=represent", "prepare", "stage=representation?"]),
        (["stage=representation", "encoder=fats"], ["encoder=fats", "encoder=fast?", "net_p"]),
        (["stage=representation", "encoder.name=vit"], ["encoder=vit", "net_s3"]),
        (["stage=classifier", "correction=fulll"], ["correction=fulll", "skip_balanced"]),
        (["stage=classifier", "survey=lsst"], ["survey=lsst", "cfhtls_deep, cfhtls_wide, hsc, sdss"]),
        (["stage=classifier", "experiment=dmeo"], ["experiment=demo?"]),
        (
            ["stage=classifier", "logger=tensorboard"],
            ["logger=tensorboard", "csv, none, wandb, wandb_online"],
        ),
        (["stage=classifier", "head=triple"], ["head=triple", "single, multi"]),
        (["stage=classifier", "seed=one"], ["seed", "'one'"]),
        (["stage=classifier", "seed=1.5"], ["seed", "1.5"]),
        (["stage=classifier", "seed=null"], ["seed", "None"]),
        (["stage=classifier", "seed=-1"], ["seed=-1"]),
        (["stage=classifier", "training.step2.lr=[1]"], ["training.step2.lr"]),
        (["stage=classifier", "training.step2.lr=0"], ["training.step2.lr=0"]),
        (["stage=classifier", "data.n_galaxies=many"], ["data.n_galaxies", "'many'"]),
        (["stage=classifier", "data.val_fraction=0.9"], ["data.val_fraction=0.9", "sum below 1"]),
        (
            ["stage=classifier", "data=stamps", "data.images=x", "data.repair=all"],
            ["data.repair=all", "none, interpolate"],
        ),
        (["stage=classifier", "data.n_train=0"], ["data.n_train=0"]),
        (["stage=classifier", "data.n_train=20.5"], ["data.n_train=20.5", "up to 1, or a number of them"]),
        (["stage=classifier", "values.threshold=5"], ["no settings", "correction.subset.threshold"]),
        (["stage=classifier", "data.thin=[0.1,0.2]"], ["data.thin=[0.1, 0.2]", "[z_low,z_high,fraction]"]),
        (["stage=classifier", "data.thin=[0.2,0.1,0.5]"], ["data.thin=[0.2, 0.1, 0.5]"]),
        (["stage=classifier", "data.label_error=-1"], ["data.label_error=-1"]),
        (["stage=classifier", "sweep.axis=seed"], ["sweep.axis=seed", "pairs"]),
        (["stage=classifier", "size=papr"], ["size=paper?", "paper, quick"]),
        (["stage=prepare", "data=semi_real"], ["type data.path=VALUE"]),
        (
            ["stage=classifier", "correction=full", "correction.step3.shift=left"],
            ["mirror, centre_of_mass, none"],
        ),
        (
            ["stage=classifier", "correction=full", "correction.subset.threshold=0"],
            ["correction.subset.threshold=0"],
        ),
        (["stage=classifier", "correction.subset.fold=2"], ["correction.subset=null", "correction=balanced"]),
        (
            ["stage=classifier", "correction=balanced", "correction.step2=null"],
            ["changes nothing: type correction=none"],
        ),
        (
            ["stage=classifier", "correction=full", "survey.extend_left=0", "survey.extend_right=0"],
            ["correction.step3.extend=true", "survey.extend_left=90"],
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
        (["stage=calibrate", "calibration=photo_z"], ["one of its settings: calibration.galaxies, "]),
        (["stage=classifier", "correction.subset=3"], ["correction.subset=3", "correction.subset.threshold"]),
        (["stage=calibrate"], ["model is not set", "data.vectors=[COLUMN]"]),
        (["stage=representation", "survey=cfhtls_wide", "survey.bands=griz"], ["data=mock", "survey=sdss"]),
        (["stage=representation", "data=catalogue"], ["data.path is not set", "data.path=galaxies.csv"]),
        (["stage=representation", "data.path=a.csv"], ["a.csv is not read with data=mock", "data=semi_real"]),
        (["stage=representation", "data=catalogue", "data.path=a.csv"], ["type encoder=mlp"]),
        (["stage=representation", "encoder=precomputed"], ["encoder=precomputed", "type encoder=fast"]),
        (["stage=representation", "data=arrays", "data.path=a.csv"], ["data.images is not set"]),
        (
            ["stage=representation", "data=arrays", "data.path=a", "data.images=b", "data.test_path=c"],
            ["data.test_path and data.test_images go together"],
        ),
        (
            ["stage=representation", "training.representation.check_every=7"],
            ["training.representation.max_steps=2000", "multiple of training.representation.check_every=7"],
        ),
        (
            ["stage=classifier", "training.hidden.check_every=7"],
            ["training.hidden.max_steps=2000", "multiple of training.hidden.check_every=7"],
        ),
        (
            ["stage=classifier", "training.step2.check_every=10"],
            ["'training.step2.check_every'", "max_steps"],
        ),
        (["stage=representation", "trainer.precision=16"], ["trainer.precision", "bf16-mixed"]),
        (
            ["stage=representation", "trainer.accelerator=tpuu"],
            ["tpuu", "auto, cpu, gpu"],
        ),
        (
            ["stage=representation", "trainer.strategy=ddp"],
            ["trainer.strategy", "under 'trainer'"],
        ),
        (["stage=representation", "trainer.devices=0"], ["trainer.devices=0"]),
        (["stage=representation", "trainer.devices=3"], ["trainer.devices=3", "batch_size=128", "evenly"]),
        (["stage=representation", "trainer.threads=0"], ["trainer.threads=0"]),
        (["stage=representation", "trainer.num_workers=-1"], ["trainer.num_workers=-1"]),
        (["stage=representation", *MAGNITUDES, "encoder.hidden=[0]"], ["encoder.hidden=[0]"]),
        (["stage=representation", *MAGNITUDES, "encoder.noise=-1"], ["encoder.noise=-1"]),
        (["stage=representation", *MAGNITUDES, "encoder.noise=1"], ["data.magnitude_errors"]),
        (["stage=representation", "+encoder.hidden=[8]"], ["encoder.hidden", "fast", "Valid keys"]),
        (["stage=representation", "n_bootstrap=1"], ["n_bootstrap=1"]),
        (["stage=report", "data=catalogue", "data.columns=z"], ["data.columns=z", "pairs"]),
        (["stage=representation", "run=a/b"], ["run=a/b", "plain folder name"]),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_wrong_settings_stop_with_one_message(words: list[str], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(*words)
    for part in said:
        assert part in str(caught.value)


def folder(stage: str, *words: str) -> str:
    return parsed(f"stage={stage}", *words).folder(stage).name


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


def test_a_check_later_than_the_end_is_made_at_the_end() -> None:
    words = ("training.representation.max_steps=30", "training.hidden.max_steps=20")
    t = parsed("stage=classifier", *words).training
    assert (t.representation.check_every, t.hidden.check_every) == (30, 20)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (6, 3), (7, 7), (1000, 500)])
def test_a_training_of_outputs_is_checked_at_even_distances(steps: int, every: int) -> None:
    words = ("stage=classifier", f"training.step2.max_steps={steps}")
    assert parsed(*words).training.step2.training(checks=2).check_every == every


@pytest.mark.parametrize(("own", "size"), [("null", 32), ("64", 64)])
def test_outputs_behind_a_hidden_layer_have_batches_of_their_own_or_those_of_step_3(
    own: str, size: int
) -> None:
    words = ("stage=classifier", "correction=best", f"training.hidden.batch_size={own}")
    t = parsed(*words, "training.step3.batch_size=32").training
    assert t.hidden.training(t.step3.batch_size).batch_size == size


def test_relative_paths_start_at_the_current_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    config = parsed("stage=predict", "data=stamps", "data.images=a b", "model=~/m", "predict.prior=flat")
    assert (config.output_dir, config.data_dir) == (str(tmp_path / "runs"), str(tmp_path / "data"))
    assert (config.data.images, config.model) == (str(tmp_path / "a b"), str(Path.home() / "m"))
    assert config.predict.prior == "flat"


def test_saved_settings_hold_plain_containers_and_come_back() -> None:
    config = parsed("stage=classifier", "correction=full", "seed=4", "run=${x}", "data.columns.ebv=E(B-V)")

    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(type(k) is str and plain(v) for k, v in value.items())
        if isinstance(value, list):
            return all(plain(v) for v in value)
        return value is None or type(value) in (str, int, float, bool)

    assert plain(settings.to_container(config))
    again = settings.restored(yaml.safe_load(settings.as_yaml(config)))
    assert settings.to_container(again) == settings.to_container(config)
    assert again.run == "${x}"


@pytest.mark.parametrize("plain", [None, {}, {"version": 1}, {"seed": 1}])
def test_settings_of_another_version_are_refused(plain: Any) -> None:
    with pytest.raises(ConfigError, match="another version"):
        settings.restored(plain)


@dataclass
class Toy:
    """A source with settings of its own."""

    KINDS = ("images",)

    @dataclass
    class Settings(SourceSettings):
        source: str = "toy"
        colour: str = "blue"
        depth: int = setting(3, least=1)

    KINDS = ("images",)

    @staticmethod
    def check(settings: Settings, survey: Any) -> None:
        """Allow all."""


def test_a_source_brings_its_settings_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, "toy", Toy)
    config = parsed("stage=prepare", "data.source=toy", "data.colour=red, or (green)", "data.depth=5")
    assert isinstance(config.data, Toy.Settings)
    assert (config.data.colour, config.data.depth) == ("red, or (green)", 5)
    for word in ("data.colour=red", "+data.colour=red", "++data.colour=red"):
        with pytest.raises(ConfigError, match=r"'data.colour'.* under 'data' with source=mock: .*n_galaxies"):
            parsed("stage=prepare", word)
    with pytest.raises(ConfigError, match=r"data.depth=0 must be at least 1"):
        parsed("stage=prepare", "data.source=toy", "data.depth=0")
    with pytest.raises(ConfigError, match=r"arrays.*toy"):
        parsed("stage=prepare", "data.source=tou")


def test_default_configuration_is_the_schema() -> None:
    composed = settings.to_container(parsed("stage=prepare"))
    declared = settings.to_container(Config())
    for place in ("output_dir", "data_dir"):
        declared[place] = composed[place]
    declared["stage"]["name"] = "prepare"
    assert composed == declared


def test_unknown_key_is_named_with_its_valid_siblings() -> None:
    with pytest.raises(ConfigError, match=re.escape("training.step4")) as caught:
        parsed("stage=prepare", "training.step4.lr=1")
    assert "representation, step2, step3" in str(caught.value)


def test_what_an_experiment_says_of_another_source_is_left_out() -> None:
    words = ("stage=classifier", "data=catalogue", "data.path=x.csv", "encoder=mlp")
    for choice in ("experiment=smoke", "size=quick"):
        config = parsed(*words, choice)
        assert not hasattr(config.data, "n_galaxies")
        assert "n_galaxies" not in config.folder("classifier").name
        with pytest.raises(ConfigError, match=r"'data.n_galaxies'.* with source=catalogue"):
            parsed(*words, choice, "data.n_galaxies=50")


@pytest.mark.parametrize(
    "choice", ["experiment=demo", "experiment=smoke", "experiment=paper_order", "experiment=bins size=paper"]
)
def test_how_many_galaxies_are_simulated_limits_no_archive(choice: str) -> None:
    words = ("stage=classifier", "data=sdss", *choice.split())
    config = parsed(*words)
    assert config.data.n_galaxies is None
    assert "n_galaxies" not in config.folder("classifier").name
    own = parsed(*words, "data.n_galaxies=50")
    assert own.data.n_galaxies == 50
    assert "data.n_galaxies=50" in own.folder("classifier").name
