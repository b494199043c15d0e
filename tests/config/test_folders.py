from dataclasses import replace

import pytest
from command import parsed

from photoz_lit import config as settings
from photoz_lit.config.folders import folder_names


def folder(stage: str, *words: str) -> str:
    return parsed(f"stage={stage}", *words).folder(stage).name


def test_run_folder_is_a_function_of_the_settings() -> None:
    assert folder("representation") == "head=multi,seed=1"
    assert folder("representation", "head=single", "seed=3") == "head=single,seed=3"
    assert folder("classifier", "correction=full") == "correction=full,seed=1"
    assert folder("classifier", "correction=full", "correction.subset.threshold=7") == (
        "correction=full,correction.subset.threshold=7,seed=1"
    )
    assert folder("classifier", "head=single") == "correction=none,head=single,seed=1"


def test_typing_a_default_names_no_other_folder() -> None:
    for stage in ("representation", "classifier"):
        assert folder(stage, "encoder=fast", "head=multi", "data=mock", "survey=sdss") == folder(stage)
    full = folder("classifier", "correction=full")
    assert folder("classifier", "correction=full", "correction.subset.threshold=20") == full


def test_order_of_the_words_does_not_matter() -> None:
    words = ["encoder=net_t", "data.n_galaxies=50", "seed=2"]
    assert folder("representation", *words) == folder("representation", *words[::-1])


def test_settings_of_the_classifier_leave_the_representation_where_it_is() -> None:
    words = ["correction=full", "correction.subset.threshold=20", "training.step3.lr=0.1"]
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
        assert config.correction.subset is not None
        return config.correction.subset.threshold, config.survey.extend_left, config.survey.extend_right

    assert numbers() == (20, 30, 30)
    assert numbers("survey.n_bins=20", "data.n_train=0.5") == (30, 10, 10)
    assert numbers("survey.n_bins=5000") == (1, 2500, 2500)
    assert numbers("size=paper") == (200, 90, 90)
    paper = parsed("experiment=bins", "size=paper", "correction=full")
    own = parsed(
        "stage=classifier", "experiment=paper_sdss", "correction=full", "data.path=x.csv", "data.images=x.npy"
    )
    for part in ("training", "encoder", "survey"):
        assert getattr(paper, part) == getattr(own, part)
    assert paper.correction == own.correction
    split = 1 - paper.data.val_fraction - paper.data.test_fraction
    assert paper.data.n_galaxies * split == pytest.approx(393_219, abs=1)
    words = ("experiment=bins", "correction=full")
    assert folder("classifier", *words, "size=paper") == "correction=full,size=paper,seed=1"
    # Defaults that follow other settings, typed: they name none.
    assert folder(
        "classifier", *words, "size=quick", "correction.subset.threshold=20", "survey.extend_left=30"
    ) == ("correction=full,seed=1")
    assert folder("classifier", *words, "data.thin=[0.1,0.2,0.5]", "sweep.axis={data.thin: a range}") == (
        "correction=full,data.thin=0.1_0.2_0.5,seed=1"
    )
    assert folder("classifier", *words, "data.thin=[]", "fit_missing=false") == "correction=full,seed=1"
    assert folder("classifier", *words, "data=semi_real", "data.path=a/real.csv") == (
        "correction=full,data=semi_real,data.path=real,seed=1"
    )


def test_hardware_loggers_and_places_name_no_folder() -> None:
    words = ["trainer.num_workers=2", "logger=wandb", "data_dir=elsewhere", "n_bootstrap=7", "trainer=auto"]
    assert folder("representation", *words) == folder("representation")


RESULTS = (
    *("estimate=median", "n_bootstrap=7", "survey.outlier_cut=0.1", "survey.slope_high_from=0.2"),
    *("target.unit=km", "target.label=z", "target.symbol=x", "target.residual=difference"),
)


@pytest.mark.parametrize("word", RESULTS)
def test_settings_of_results_alone_name_and_train_nothing(word: str) -> None:
    for stage, words in (("representation", []), ("classifier", ["correction=full"])):
        plain, other = (parsed(f"stage={stage}", *words, *more) for more in ([], [word]))
        assert other.folder(stage) == plain.folder(stage)
        assert settings.science(other, stage) == settings.science(plain, stage)
        changed = settings.differences(settings.results(plain), settings.results(other))
        assert [line.partition(":")[0] for line in changed] == [word.partition("=")[0]]


@pytest.mark.parametrize(
    ("correction", "word", "decides"),
    [
        ("full", "survey.extend_left=3", True),
        ("balanced", "survey.extend_left=3", False),
        ("none", "training.step2.lr=0.5", False),
        ("full", "training.step2.lr=0.5", True),
        ("balanced", "training.step3.lr=0.5", False),
        ("best", "training.step3.lr=0.5", False),
        ("best", "training.step3.batch_size=5", True),
        ("full", "training.step3.batch_size=5", True),
        ("best experiment=demo", "training.step3.batch_size=5", False),  # its own batches
        ("best experiment=demo", "training.hidden.batch_size=5", True),
        ("balanced", "training.step3.batch_size=5", False),
        ("best", "training.hidden.lr=0.5", True),
        ("full", "training.hidden.lr=0.5", False),
    ],
)
def test_settings_of_what_a_correction_does_not_do_decide_nothing(
    correction: str, word: str, decides: bool
) -> None:
    words = ("stage=classifier", *f"correction={correction}".split())
    plain, other = (parsed(*words, *more) for more in ([], [word]))
    assert (settings.science(plain, "classifier") != settings.science(other, "classifier")) == decides
    assert (plain.folder("classifier") != other.folder("classifier")) == decides
    assert plain.folder("representation") == other.folder("representation")


def test_a_name_that_would_be_too_long_is_a_digest_of_it() -> None:
    names = [
        f"data.columns.{ours}=a_very_long_name_of_a_column_of_this_table_{i}"
        for i, ours in enumerate(["ebv", "ra", "dec"])
    ]
    words = ("experiment=real_catalogue", "data.path=x.csv", *names)
    assert len(folder("representation", *words)) < 60
    spelt = parsed("stage=representation", *words).names["spelt"]
    assert spelt.splitlines() == sorted(["data.path=x.csv", *names])
    assert folder("representation", *words) != folder("representation", *words[:-1])


def test_settings_of_both_stages_fit_into_one_name() -> None:
    lengths = (
        f"training.representation.{what}" for what in ("max_steps=3000", "check_every=300", "lr=0.0123")
    )
    steps = [
        f"training.{step}.{what}" for step in ("step2", "step3") for what in ("max_steps=77", "lr=0.0077")
    ]
    words = ("correction=skip_balanced", "head=single", f"seed={2**63 - 1}", *lengths, "survey.n_bins=88")
    name = folder("classifier", *words, *steps[:2])
    assert all(word in name for word in words if not word.startswith("correction."))
    long, other = (
        folder("classifier", *words, *some) for some in (steps, [*steps[:3], "training.step3.lr=0.1"])
    )
    assert long != other
    assert all(
        len(n.encode()) <= 230 and ",settings=" in n and "survey.n_bins=88" in n for n in (long, other)
    )


def test_runs_of_a_sweep_of_seeds_are_named_alike_however_long_the_names() -> None:
    config = parsed("stage=classifier", "correction=skip_balanced", "head=single")
    common = {"training.representation.lr": 0.0123, "training.step2.lr": 0.0077}
    for n in range(1, 200):
        differs = common | {"training.step3.lr": "1" * n}
        names = [folder_names(replace(config, seed=s), differs, {})["classifier"] for s in (9, 10, 12345)]
        assert len({name.rpartition(",seed=")[0] for name in names}) == 1


def test_differences_name_the_keys() -> None:
    old = settings.science(parsed("stage=classifier", "correction=full"), "classifier")
    new = settings.science(
        parsed("stage=classifier", "correction=full", "training.step2.lr=0.5", "seed=2"), "classifier"
    )
    assert settings.differences(old, new) == ["seed: 1 -> 2", "training.step2.lr: 0.001 -> 0.5"]


@pytest.mark.parametrize(
    ("value", "spelt"),
    [
        ("tables/real.csv", "real"),
        ("runs/x/representation/head=multi,data.n_train=0.5,seed=1", "head_multi_data.n_train_0.5_seed_1"),
        ("runs/x/representation/head=multi,data.n_train=0.5,seed=2", "head_multi_data.n_train_0.5_seed_2"),
    ],
)
def test_a_path_is_spelt_without_its_suffix_and_with_all_settings_of_a_run(value: str, spelt: str) -> None:
    assert settings.folders._text(value) == spelt
