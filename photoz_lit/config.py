"""Every setting and its type, and the way from the command line to them; alone in knowing OmegaConf."""

import difflib
import hashlib
import re
import shlex
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from photoz_lit.errors import ConfigError
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

STAGES = ("prepare", "representation", "classifier", "predict", "calibrate", "report")
SOURCES = ("mock", "catalogue", "arrays", "sdss", "stamps", "published", "embeddings", "store")
LAYOUTS = ("pasquet", "npy_folder", "cfhtls", "galaxies_ml")
IMAGE_ENCODERS = ("net_p", "net_t", "net_s1", "net_s2", "net_s3", "fast")
ENCODERS = (*IMAGE_ENCODERS, "mlp", "precomputed")
ESTIMATES = ("mode", "median", "mean")
PARTS = 5  # of the training galaxies, of which a member of an ensemble on all data leaves one out
CORRECTIONS = (
    *("none", "balanced", "full", "hard", "unshifted", "skip_balanced"),
    *("balanced_softmax", "crps_loss", "lds", "dense_weight", "trend"),
    *("logit_adjustment", "prior_swap", "temperature", "pit", "full_pit"),
    *("sord", "clap", "tau_norm", "learnt_scales", "local_pit"),
    *("ensemble", "harmonic_ensemble", "best"),
)

# Numbers that follow others in conf/: `${half:${survey.n_bins}}`, `${per_cell:200,180,${survey.n_bins}}`.
OmegaConf.register_new_resolver("half", lambda n: int(n) // 2, replace=True)
# A threshold that suits so many bins, for others and for a part of the training galaxies.
OmegaConf.register_new_resolver(
    "per_cell",
    lambda threshold, n_bins, now, part=1.0: max(1, round(threshold * n_bins / now * part)),
    replace=True,
)

# Settings that say where and how a job runs, never what it computes: they name no run folder.
_NOT_SCIENCE = (
    "stage",
    "experiment",
    "run",
    "output_dir",
    "data_dir",
    "trainer",
    "logger",
    "hydra",
    "model",
    "predict",
    "calibration",
    "archive",
    "fit_missing",
    "sweep",
)
_CLASSIFIER_ONLY = ("correction", "training.step2", "training.step3", "training.hidden")
_PATHS = (
    "path",
    "test_path",
    "images",
    "test_images",
    "mock_catalogue",
    "frames",
    "positions",
    "ebv_maps",
)


@dataclass
class StageConfig:
    """What this job does."""

    name: str | None = None


@dataclass
class SurveyConfig:
    """The survey's images, redshift bins, magnitude slices (Lin et al. 2022, section 3) and conventions."""

    name: str = "sdss"
    bands: str = "ugriz"
    pixels: int = 64
    pixel_scale: float = 0.396
    z_min: float = 0.0
    z_max: float = 0.4
    n_bins: int = 180
    extend_left: int = 90
    extend_right: int = 90
    r_min: float = 12.5
    r_width: float = 0.5
    n_slices: int = 11
    outlier_cut: float = 0.05
    slope_high_from: float = 0.15

    def grid(self) -> RedshiftGrid:
        """Return the survey's own redshift bins."""
        return RedshiftGrid(self.z_min, self.z_max, self.n_bins)

    def slices(self) -> MagnitudeSlices:
        """Return the survey's slices of r."""
        return MagnitudeSlices(self.r_min, self.r_width, self.n_slices)


@dataclass
class TargetConfig:
    """The quantity that is estimated, any column of numbers; its range and bins are the survey's."""

    name: str = "redshift"
    column: str = "spec_z"
    label: str = "redshift"
    symbol: str = "z"
    unit: str = ""
    residual: str = "relative"

    def __post_init__(self) -> None:
        if self.is_redshift:
            self.name = "redshift"
        elif self.name == "redshift":  # a column without words is its own name
            self.name = self.column
            self.label = self.column if self.label == "redshift" else self.label
            self.symbol = self.column if self.symbol == "z" else self.symbol

    @property
    def relative(self) -> bool:
        """Whether residuals are divided by 1 + the true value."""
        return self.residual == "relative"

    @property
    def is_redshift(self) -> bool:
        """Whether it is the redshift, whose range is the survey's of spec_z."""
        return self.column == "spec_z"

    @property
    def estimate(self) -> str:
        """Column of the results with the estimate."""
        return "photo_z" if self.is_redshift else f"photo_{self.column}"


@dataclass
class DataConfig:
    """Where galaxies come from and how they are split by object."""

    source: str = "mock"
    n_galaxies: int = 20000
    mock_seed: int = 0
    mock_catalogue: str | None = None
    path: str | None = None
    test_path: str | None = None
    images: str | None = None
    test_images: str | None = None
    images_key: str | None = None
    layout: str | None = None
    zero_point: float | None = None
    pattern: str | None = None
    vectors: list[str] = field(default_factory=list)
    frames: str | None = None
    positions: str | None = None
    limit: int | None = None
    region: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    r_max: float = 17.8
    north_up: bool = False
    max_missing: float = 0.05
    ebv_maps: str | None = None
    labelled: bool = True
    columns: dict[str, str | None] = field(default_factory=dict)
    magnitudes: list[str] = field(default_factory=list)
    magnitude_errors: list[str] = field(default_factory=list)
    drop_invalid: bool = False
    dtype: str = "float16"
    val_fraction: float = 0.05
    test_fraction: float = 0.2
    split_seed: int = 0
    n_train: int | None = None
    train_fraction: float = 1.0
    thin: list[float] = field(default_factory=list)
    label_error: float = 0.0


@dataclass
class ArchiveConfig:
    """The SDSS archive and how politely it is asked."""

    frames_url: str = "https://data.sdss.org/sas/dr17/eboss/photoObj/frames"
    catalogue_url: str = "https://skyserver.sdss.org"
    data_release: int = 17
    connections: int = 4
    timeout: float = 60.0
    retries: int = 6
    backoff: float = 1.0
    patience: float = 600.0


@dataclass
class PredictConfig:
    """How photo-z are given to galaxies without spec_z."""

    symmetries: int = 1
    neighbours: int = 5
    far_quantile: float = 0.99
    prior: str = "none"
    chunk: int = 8192


@dataclass
class EncoderConfig:
    """The network that turns an image (or magnitudes) and E(B-V) into an embedding."""

    name: str = "fast"
    stretch_scale: float = 1.0
    hidden: list[int] = field(default_factory=lambda: [256, 256])
    dropout: float = 0.0
    noise: float = 0.0


@dataclass
class CorrectionConfig:
    """The switches that make a correction; `name` is what the report calls it."""

    name: str = "none"
    fine_tune: bool = False
    balance: bool = False
    threshold: int = 200
    fold: int = 1
    soften: bool = False
    shift: str = "none"
    shift_strength: float = 1.0
    extend: bool = False
    views: int = 8
    loss: str = "cross_entropy"
    weights: str = "none"
    trend_penalty: float = 0.0
    rescale: str = "none"
    prior: str = "none"
    temperature: bool = False
    recalibrate: str = "none"
    n_hidden: int = 0
    label_width: float = 0.0
    members: int = 1
    mean: str = "arithmetic"
    unshrink: float = 0.0
    estimate: str | None = None

    @property
    def relabels(self) -> bool:
        """Whether Step 3 runs: new outputs are fitted to new labels."""
        return self.soften or self.extend or self.shift != "none"

    @property
    def changes(self) -> bool:
        """Whether anything of Step 1's output is changed."""
        return self.fine_tune or self.relabels or self.finishes or self.rescale != "none"

    @property
    def finishes(self) -> bool:
        """Whether finished p(z) is changed: prior, temperature, PIT recalibration, moved estimates."""
        return self.prior != "none" or self.temperature or self.recalibrate != "none" or self.unshrink > 0

    @property
    def leaves_out(self) -> bool:
        """Whether each member leaves a part of the training galaxies out, unseen by its outputs."""
        return not self.balance and (self.members > 1 or self.unshrink > 0)


@dataclass
class CalibrationConfig:
    """The calibration of photo_z against the bulk bias (Step 4)."""

    name: str = "none"
    galaxies: str | None = None
    target: str = "training"
    sample: str = "held_out"
    smoothing: str = "auto"
    resampled: bool = False


@dataclass
class TrainingConfig:
    """One training: its length, optimiser and schedule."""

    max_steps: int = 1000
    check_every: int = 200
    batch_size: int = 128
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: str = "one_cycle"


@dataclass
class TrainingsConfig:
    """The three trainings of the method, and that of Step 3's outputs behind a hidden layer."""

    representation: TrainingConfig = field(default_factory=TrainingConfig)
    step2: TrainingConfig = field(default_factory=TrainingConfig)
    step3: TrainingConfig = field(default_factory=TrainingConfig)
    hidden: TrainingConfig = field(default_factory=TrainingConfig)


@dataclass
class TrainerConfig:
    """The hardware and how it is used."""

    accelerator: str = "auto"
    devices: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    compile: bool = False
    num_workers: int = 0
    threads: int | None = None
    predict_batch_size: int = 512
    render_workers: int | None = None
    progress: bool = True


@dataclass
class LoggerConfig:
    """Where training curves go."""

    name: str = "csv"
    project: str = "photoz_lit"
    offline: bool = True


@dataclass
class SweepConfig:
    """What a sweep varies, for the report, and the values that it goes through at this size of data."""

    axis: str | None = None
    label: str = ""
    scale: str = "linear"
    values: dict[str, str] = field(default_factory=dict)


@dataclass
class Config:
    """The root of all settings."""

    stage: StageConfig = field(default_factory=StageConfig)
    survey: SurveyConfig = field(default_factory=SurveyConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: str = "multi"
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)
    training: TrainingsConfig = field(default_factory=TrainingsConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    archive: ArchiveConfig = field(default_factory=ArchiveConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    fit_missing: bool = False
    model: str | None = None
    seed: int = 1
    estimate: str = "mode"
    n_bootstrap: int = 100
    run: str = "main"
    output_dir: str = "runs"
    data_dir: str = "data"
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from photoz_lit.config_checks import check  # which knows the settings

        check(self)

    @property
    def photo_z(self) -> str:
        """Which estimate of p(z) is photo_z: the correction's own, or the settings'."""
        return self.correction.estimate or self.estimate

    def folder(self, stage: str) -> Path:
        """Run folder of a stage under these settings: a pure function of the settings."""
        return Path(self.output_dir) / self.run / stage / self.names[stage]


def parse(composed: DictConfig, overrides: list[str] | None = None) -> Config:
    """Turn what Hydra composed into checked settings.

    Parameters
    ----------
    composed : DictConfig
        The composed configuration.
    overrides : list of str, optional
        The command line's `key=value` words: those that change what is computed name the run folder.

    Raises
    ------
    ConfigError
        A key that does not exist, a value of the wrong type, or settings that cannot work together.
    """
    container = OmegaConf.to_container(composed, resolve=True)
    assert isinstance(container, dict)
    for key in _leaves(container):
        check_key(key)
    if OmegaConf.select(composed, "stage.name") not in (None, "report"):
        for key in sorted(OmegaConf.missing_keys(composed)):  # written ??? in conf/
            raise ConfigError(f"{key} is not set, and there is no default: type {key}=VALUE")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), container)
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        message = str(error).splitlines()[0]
        raise ConfigError(f"{key}: {message}") from error
    assert isinstance(config, Config)
    config.output_dir = str(Path(config.output_dir).expanduser().absolute())
    config.data_dir = str(Path(config.data_dir).expanduser().absolute())
    for key in _PATHS:
        if (value := getattr(config.data, key)) is not None:
            setattr(config.data, key, str(Path(value).expanduser().absolute()))
    config.data.columns = {ours: yours for ours, yours in config.data.columns.items() if yours is not None}
    if config.stage.name == "predict":
        config.data.labelled = False
    words = overrides or []
    config.names = {"words": _words_without_classifier(words)}
    if config.stage.name not in (
        "prepare",
        "predict",
        "calibrate",
        "report",
    ):  # these have no folders by settings
        config.names |= _folder_names(config, _naming(words, composed), composed)
    return config


def to_container(config: Config) -> dict[str, Any]:
    """Return the settings as plain dicts, lists and scalars (safe in a checkpoint)."""
    return asdict(config)


def save(config: Config, path: Path) -> None:
    """Write the settings as YAML."""
    OmegaConf.save(OmegaConf.create(to_container(config)), path)


def science(config: Config, stage: str) -> dict[str, Any]:
    """Settings that decide the result of a stage, for comparing with a finished run's."""
    plain = to_container(config)
    for key in _PATHS:
        plain["data"].pop(key)  # what they hold counts, not where they lie: a run knows its store
    for key in (*_NOT_SCIENCE, "names", "n_bootstrap"):
        plain.pop(key, None)
    if stage == "representation":
        plain.pop("correction")
        plain["training"] = {"representation": plain["training"]["representation"]}
    return plain


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Name the settings that differ: `key: old -> new`."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines


def check_key(key: str) -> None:
    """Raise ConfigError, with the valid keys, unless `a.b.c` is a setting."""
    node: Any = Config
    done: list[str] = []
    for part in key.split("."):
        if not is_dataclass(node):
            return  # inside a free mapping such as data.columns
        hints = get_type_hints(node)
        if part not in hints or (node is Config and part == "names"):
            valid = sorted(name for name in hints if name != "names")
            close = difflib.get_close_matches(part, valid, n=1)
            guess = f" Did you mean {'.'.join([*done, close[0]])}?" if close else ""
            where = f"under '{'.'.join(done)}'" if done else "at the top level"
            raise ConfigError(f"unknown setting '{key}'.{guess} Valid keys {where}: {', '.join(valid)}")
        done.append(part)
        hint = hints[part]
        node = next((t for t in get_args(hint) if is_dataclass(t)), hint)


def check_overrides(words: list[str], folders: list[Path]) -> None:
    """Check the command line before Hydra reads it: every key must exist, every group must have the value.

    Parameters
    ----------
    words : list of str
        The command line.
    folders : list of Path
        Folders of configurations: ours, and what `--config-dir` names.

    Raises
    ------
    ConfigError
        With the valid keys or values, and the nearest one.
    """
    from photoz_lit.config_checks import one_of  # which knows the settings

    groups = {p.name for folder in folders for p in folder.iterdir() if p.is_dir()}
    for word in words:
        key, equals, value = word.lstrip("+~").partition("=")
        if word.startswith("-") or not equals or key.split(".")[0].split("/")[0] == "hydra":
            continue
        if key not in groups:
            check_key(key)
            continue
        valid = tuple(sorted(p.stem for folder in folders for p in (folder / key).glob("*.yaml")))
        if re.fullmatch(r"[\w,]+", value):
            for one in value.split(","):
                if one != "null":
                    one_of(key, one, valid)


def _naming(overrides: list[str], composed: DictConfig) -> list[str]:
    """Keep the words of the command line that change a setting: one that repeats a default names none."""
    keys = [word.partition("=")[0] for word in overrides]
    # A word that sets one value changes nothing but that value. One composition, of a quarter of a second,
    # tells what all of them would be without their words; each group needs one of its own.
    values = {
        word: key
        for word, key in zip(overrides, keys, strict=True)
        if keys.count(key) == 1
        and key[:1] not in "+~"
        and not _says_where(word)
        and not _sets_many(composed, key)
    }
    default = compose("config", [w for w in overrides if w not in values]) if values else composed
    kept = []
    for word in overrides:
        if _says_where(word):
            continue
        if word in values:
            before, after = (_unresolved(c, values[word]) for c in (default, composed))
        if word in values and "${" not in f"{before}{after}":
            changes = before != after
        else:
            changes = _changes(word, overrides, composed)
        if changes:
            kept.append(word)
    return kept


def _says_where(word: str) -> bool:
    return word.lstrip("+~").startswith(_NOT_SCIENCE)


def _sets_many(composed: DictConfig, key: str) -> bool:
    """Whether a word chooses a file of settings: of a group in Config, or of another such as size."""
    name = key.partition("@")[0]
    return isinstance(OmegaConf.select(composed, name), DictConfig) or name.split(".")[0] not in composed


def _unresolved(composed: DictConfig, key: str) -> Any:
    """Return the value of `a.b.c`, or the whole list it is in; interpolations stay as they are written."""
    node: Any = OmegaConf.to_container(composed, resolve=False)
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else node
    return node


def _changes(word: str, overrides: list[str], composed: DictConfig) -> bool:
    """Whether the settings would be others without a word."""
    try:
        without = compose("config", [w for w in overrides if w != word])
    except HydraException:  # another word needs this one, e.g. data.path needs data=catalogue
        return True
    return OmegaConf.to_container(without, resolve=True) != OmegaConf.to_container(composed, resolve=True)


def _words_without_classifier(overrides: list[str]) -> str:
    """Return the words that the representation's own command needs."""
    return shlex.join(w for w in overrides if not w.startswith(("stage=", *_CLASSIFIER_ONLY)))


def _leaves(container: dict[Any, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in container.items():
        if isinstance(value, dict) and value:
            keys += _leaves(value, f"{prefix}{key}.")
        else:
            keys.append(f"{prefix}{key}")
    return keys


def _folder_names(config: Config, overrides: list[str], composed: DictConfig) -> dict[str, str]:
    """Names of the run folders: head, seed (and correction), then every override that changes results."""
    pairs = dict(word.lstrip("+~").split("=", 1) for word in overrides if "=" in word)
    representation: dict[str, str] = {}
    classifier: dict[str, str] = {}
    for key, value in sorted(pairs.items()):
        top = key.split(".")[0]
        if top in _NOT_SCIENCE or key in ("head", "seed", "correction", "n_bootstrap"):
            continue
        if not _sets_many(composed, key):
            typed = OmegaConf.select(composed, key.partition("@")[0])
            # Not as it was written: 5e-3 and 0.005 are one setting.
            value = "_".join(map(str, typed)) if isinstance(typed, ListConfig) else str(typed)
        value = Path(value).stem if "/" in value else value
        (classifier if key.startswith(_CLASSIFIER_ONLY) else representation)[key] = value
    common, own = _joined(representation), _joined(classifier)
    head = "" if config.head == "multi" else f",head={config.head}"
    switches = ", ".join(
        f"{k.removeprefix('correction.')}={v}" for k, v in classifier.items() if k.startswith("correction.")
    )
    return {
        "label": config.correction.name + (f" · {switches}" if switches else ""),
        "representation": f"head={config.head}{common},seed={config.seed}",
        "classifier": f"correction={config.correction.name}{head}{common}{own},seed={config.seed}",
    }


def _joined(settings: dict[str, str], longest: int = 80) -> str:
    """Spell the settings out, or name them by a digest where a folder's name would grow too long."""
    words = "".join(f",{key}={value}" for key, value in settings.items())
    if len(words) <= longest:
        return words
    return f",settings={hashlib.sha256(words.encode()).hexdigest()[:10]}"
