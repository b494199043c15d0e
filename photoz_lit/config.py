"""Every setting, its type and the checks between settings; the only file that knows OmegaConf."""

import difflib
import hashlib
import math
import re
import shlex
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from hydra import compose
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from photoz_lit.errors import ConfigError
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid

STAGES = ("prepare", "representation", "classifier", "predict", "calibrate", "report")
SOURCES = ("mock", "catalogue", "arrays", "sdss", "stamps", "published", "embeddings", "store")
LAYOUTS = ("pasquet", "npy_folder", "cfhtls", "galaxies_ml")
IMAGE_ENCODERS = ("net_p", "net_t", "net_s1", "net_s2", "net_s3", "fast")
ENCODERS = (*IMAGE_ENCODERS, "mlp", "precomputed")
ESTIMATES = ("mode", "median", "mean")
CORRECTIONS = (
    *("none", "balanced", "full", "hard", "unshifted", "skip_balanced"),
    *("balanced_softmax", "crps_loss", "lds", "dense_weight", "trend"),
    *("logit_adjustment", "prior_swap", "temperature", "pit", "full_pit"),
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
)
_CLASSIFIER_ONLY = ("correction", "training.step2", "training.step3")
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
    prior: str = "none"
    temperature: bool = False
    recalibrate: str = "none"

    @property
    def relabels(self) -> bool:
        """Whether Step 3 runs: new outputs are fitted to new labels."""
        return self.soften or self.extend or self.shift != "none"

    @property
    def finishes(self) -> bool:
        """Whether finished p(z) is changed: prior, temperature, PIT recalibration."""
        return self.prior != "none" or self.temperature or self.recalibrate != "none"


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
    """The three trainings of the method."""

    representation: TrainingConfig = field(default_factory=TrainingConfig)
    step2: TrainingConfig = field(default_factory=TrainingConfig)
    step3: TrainingConfig = field(default_factory=TrainingConfig)


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
class Config:
    """The root of all settings."""

    stage: StageConfig = field(default_factory=StageConfig)
    survey: SurveyConfig = field(default_factory=SurveyConfig)
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
    model: str | None = None
    seed: int = 1
    estimate: str = "mode"
    n_bootstrap: int = 100
    run: str = "main"
    output_dir: str = "runs"
    data_dir: str = "data"
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_survey(self.survey)
        _check_data(self)
        _check_numbers(self)
        _check_combinations(self)

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
                    _one_of(key, one, valid)


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
        and not _is_mapping(composed, key)
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


def _is_mapping(composed: DictConfig, key: str) -> bool:
    return isinstance(OmegaConf.select(composed, key.partition("@")[0]), DictConfig)


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
        typed = OmegaConf.select(composed, key.partition("@")[0])
        if not isinstance(typed, DictConfig):
            value = str(typed)  # not as it was written: 5e-3 and 0.005 are one setting
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


def _one_of(key: str, value: Any, valid: tuple[str, ...]) -> None:
    if value not in valid:
        close = difflib.get_close_matches(str(value), valid, n=1)
        guess = f" Did you mean {key}={close[0]}?" if close else ""
        raise ConfigError(f"{key}={value} is not valid.{guess} Valid values: {', '.join(valid)}")


def _check_choices(c: Config) -> None:
    if c.stage.name is not None:
        _one_of("stage", c.stage.name, STAGES)
    _one_of("head", c.head, ("single", "multi"))
    _one_of("data.source", c.data.source, SOURCES)
    _one_of("data.dtype", c.data.dtype, ("float16", "float32"))
    _one_of("encoder", c.encoder.name, ENCODERS)
    _one_of("correction.name", c.correction.name, CORRECTIONS)
    _one_of("correction.shift", c.correction.shift, ("mirror", "centre_of_mass", "none"))
    _one_of("correction.loss", c.correction.loss, ("cross_entropy", "balanced_softmax", "crps"))
    _one_of("correction.weights", c.correction.weights, ("none", "lds", "dense"))
    _one_of("correction.prior", c.correction.prior, ("none", "flat", "training"))
    _one_of("correction.recalibrate", c.correction.recalibrate, ("none", "global", "slices"))
    _one_of("estimate", c.estimate, ESTIMATES)
    _one_of("calibration.name", c.calibration.name, ("none", "photo_z"))
    _one_of("calibration.target", c.calibration.target, ("training", "photo", "deconvolved"))
    _one_of("calibration.sample", c.calibration.sample, ("held_out", "all", "val"))
    _one_of("calibration.smoothing", c.calibration.smoothing, ("auto", "none"))
    _one_of("logger", c.logger.name, ("csv", "wandb", "none"))
    _one_of("trainer.precision", c.trainer.precision, ("auto", "bf16-mixed", "32-true"))
    _one_of("trainer.accelerator", c.trainer.accelerator, ("auto", "cpu", "gpu", "cuda"))
    _one_of("trainer.strategy", c.trainer.strategy, ("auto", "ddp"))
    for name, training in _trainings(c):
        _one_of(f"training.{name}.schedule", training.schedule, ("one_cycle", "halfway_drop", "constant"))


def _trainings(c: Config) -> list[tuple[str, TrainingConfig]]:
    return [(f.name, getattr(c.training, f.name)) for f in fields(TrainingsConfig)]


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)


def _check_survey(s: SurveyConfig) -> None:
    _require(
        s.z_max > s.z_min >= 0 and math.isfinite(s.z_max),
        f"survey.z_min={s.z_min}, survey.z_max={s.z_max}: z_min must be >= 0 and below z_max",
    )
    for key in ("n_bins", "pixels"):
        _require(getattr(s, key) >= 2, f"survey.{key}={getattr(s, key)} must be at least 2")
    for key in ("extend_left", "extend_right"):
        _require(getattr(s, key) >= 0, f"survey.{key}={getattr(s, key)} must not be negative")
    for key in ("r_width", "pixel_scale", "outlier_cut"):
        _require(getattr(s, key) > 0, f"survey.{key}={getattr(s, key)} must be positive")
    _require(
        s.n_slices >= 1 and s.n_slices % 2 == 1,
        f"survey.n_slices={s.n_slices} does not fit the multi-output head: it must be odd "
        "(2 R - 1 slices for R outputs), e.g. 11",
    )
    _require(
        0 < len(s.bands) == len(set(s.bands)),
        f"survey.bands={s.bands} must name each band once, one letter a band, e.g. ugriz",
    )


def _check_data(c: Config) -> None:
    d = c.data
    _require(
        0 < d.val_fraction < 1 and 0 < d.test_fraction < 1 and d.val_fraction + d.test_fraction < 1,
        f"data.val_fraction={d.val_fraction} and data.test_fraction={d.test_fraction} must be positive "
        "and leave a training split (sum below 1)",
    )
    _require(d.n_galaxies >= 10, f"data.n_galaxies={d.n_galaxies} must be at least 10")
    for key in ("limit", "n_train"):
        value = getattr(d, key)
        _require(value is None or value >= 1, f"data.{key}={value} must be at least 1")
    _require(0 <= d.max_missing < 1, f"data.max_missing={d.max_missing} must be in [0, 1)")
    _require(
        len(d.region) in (0, 4),
        f"data.region={d.region} must be four numbers in degrees: [ra_min,ra_max,dec_min,dec_max]",
    )
    if d.layout is not None:
        _one_of("data.layout", d.layout, LAYOUTS)
    if c.stage.name in (None, "report"):
        return
    _check_source(d)
    if c.stage.name != "predict":  # there the model has its own encoder, survey and columns
        _check_encoder(c)
    if d.source == "mock":
        _require(
            c.survey.name == "sdss" and c.survey.bands == "ugriz",
            f"data=mock simulates SDSS in ugriz but the survey is {c.survey.name} in {c.survey.bands}: "
            "type survey=sdss, or bring cutouts with data=arrays",
        )


def _check_source(d: DataConfig) -> None:
    """Check that a source was given the files it reads."""
    what = {
        "catalogue": "a table with spec_z, e.g. data.path=galaxies.csv",
        "arrays": "a table with spec_z, e.g. data.path=galaxies.csv",
        "embeddings": "a table with spec_z, e.g. data.path=galaxies.csv",
        "published": "the data set's file or folder, e.g. data.path=sdss_vagc.npz",
        "store": "a prepared folder, e.g. data.path=data/mock-0123456789ab",
    }
    if d.source in what:
        _require(d.path is not None, f"data.path is not set: data={d.source} needs {what[d.source]}")
    match d.source:
        case "catalogue":
            _require(
                len(d.magnitudes) > 0,
                "data.magnitudes is empty: name the columns, e.g. data.magnitudes=[mag_g,mag_r,mag_i]",
            )
        case "arrays":
            _require(
                d.images is not None,
                "data.images is not set: name the cutouts, e.g. data.images=cutouts.npy",
            )
        case "stamps":
            _require(
                d.images is not None,
                "data.images is not set: name the folder of FITS stamps, e.g. data.images=stamps",
            )
        case "embeddings":
            _require(
                (d.images is None) != (len(d.vectors) == 0),
                "data=embeddings needs either data.images=vectors.npy (an array with a row a galaxy) "
                'or data.vectors=["f*"] (columns of the table)',
            )
        case "sdss":
            _require(
                d.frames is None or d.positions is not None,
                f"data.frames={d.frames} needs data.positions, a table with ra and dec",
            )
    _require(
        d.source != "arrays" or (d.test_path is None) == (d.test_images is None),
        "data.test_path and data.test_images go together: set both or neither",
    )


def _check_encoder(c: Config) -> None:
    """Check that the encoder reads what the source has; a store says only when it is opened."""
    source, name = c.data.source, c.encoder.name
    if source == "catalogue":
        _require(
            name == "mlp",
            f"encoder={name} reads images but data=catalogue has magnitudes only: type encoder=mlp",
        )
    elif source == "embeddings":
        _require(
            name in ("precomputed", "mlp"),
            f"encoder={name} reads images but data=embeddings has vectors: "
            "type encoder=precomputed (as they are) or encoder=mlp (layers on top)",
        )
    elif source != "store":
        _require(
            name in IMAGE_ENCODERS,
            f"encoder={name} reads {'magnitudes' if name == 'mlp' else 'vectors'} but data={source} has "
            f"images: type encoder=fast (or one of {', '.join(IMAGE_ENCODERS[:5])})",
        )
    _require(
        name != "net_t" or c.survey.pixels >= 49,
        f"encoder=net_t needs cutouts of at least 49 pixels, survey.pixels={c.survey.pixels}: "
        "type encoder=net_p or encoder=fast",
    )


def _check_numbers(c: Config) -> None:
    for name, t in _trainings(c):
        for key in ("max_steps", "check_every", "batch_size"):
            _require(getattr(t, key) >= 1, f"training.{name}.{key}={getattr(t, key)} must be at least 1")
        _require(
            t.max_steps % t.check_every == 0,
            f"training.{name}.max_steps={t.max_steps} must be a multiple of "
            f"training.{name}.check_every={t.check_every}",
        )
        _require(t.lr > 0, f"training.{name}.lr={t.lr} must be positive")
        _require(t.weight_decay >= 0, f"training.{name}.weight_decay={t.weight_decay} must not be negative")
    _require(c.correction.threshold >= 1, f"correction.threshold={c.correction.threshold} must be at least 1")
    _require(c.correction.views >= 1, f"correction.views={c.correction.views} must be at least 1")
    _require(c.correction.fold >= 1, f"correction.fold={c.correction.fold} must be at least 1")
    _require(
        0 <= c.correction.shift_strength <= 2,
        f"correction.shift_strength={c.correction.shift_strength} must be between 0 and 2",
    )
    p = c.predict
    _require(1 <= p.symmetries <= 8, f"predict.symmetries={p.symmetries} must be between 1 and 8")
    for key in ("neighbours", "chunk"):
        _require(getattr(p, key) >= 1, f"predict.{key}={getattr(p, key)} must be at least 1")
    _require(0 < p.far_quantile < 1, f"predict.far_quantile={p.far_quantile} must be in (0, 1)")
    a = c.archive
    for key in ("connections", "data_release"):
        _require(getattr(a, key) >= 1, f"archive.{key}={getattr(a, key)} must be at least 1")
    for key in ("timeout", "backoff", "patience"):
        _require(getattr(a, key) > 0, f"archive.{key}={getattr(a, key)} must be positive")
    _require(a.retries >= 0, f"archive.retries={a.retries} must not be negative")
    threads = c.trainer.threads
    _require(threads is None or threads >= 1, f"trainer.threads={threads} must be at least 1")
    for key, least in (("num_workers", 0), ("predict_batch_size", 1)):
        value = getattr(c.trainer, key)
        _require(value >= least, f"trainer.{key}={value} must be at least {least}")
    workers = c.trainer.render_workers
    _require(workers is None or workers >= 1, f"trainer.render_workers={workers} must be at least 1")
    _require(c.trainer.devices >= 1, f"trainer.devices={c.trainer.devices} must be at least 1")
    _require(
        c.encoder.noise == 0 or len(c.data.magnitude_errors) > 0 or c.stage.name in (None, "report"),
        f"encoder.noise={c.encoder.noise} perturbs magnitudes by their errors but there are none: "
        "set data.magnitude_errors, or encoder.noise=0",
    )
    _require(c.encoder.stretch_scale > 0, f"encoder.stretch_scale={c.encoder.stretch_scale} must be positive")
    _require(
        len(c.encoder.hidden) > 0 and min(c.encoder.hidden) >= 1,
        f"encoder.hidden={c.encoder.hidden} must name at least one layer, each of at least 1, e.g. [256,256]",
    )
    _require(c.encoder.noise >= 0, f"encoder.noise={c.encoder.noise} must not be negative")
    _require(0 <= c.encoder.dropout < 1, f"encoder.dropout={c.encoder.dropout} must be in [0, 1)")
    _require(c.n_bootstrap >= 2, f"n_bootstrap={c.n_bootstrap} must be at least 2")
    _require(c.seed >= 0, f"seed={c.seed} must not be negative")
    bad = set(c.run) & set('/\\:*?"<>| ')
    _require(not bad and c.run not in ("", ".", ".."), f"run={c.run} must be a plain folder name")


def _check_combinations(c: Config) -> None:
    k = c.correction
    if c.stage.name == "representation" and k.name != "none":
        raise ConfigError(
            f"stage=representation does not take correction={k.name}: "
            "corrections belong to the classifier. Type\n"
            f"  python -m photoz_lit stage=representation\n"
            f"  python -m photoz_lit stage=classifier correction={k.name}"
        )
    if c.stage.name in ("predict", "calibrate") and c.model is None:
        raise ConfigError(
            "model is not set: name the run folder of a trained classifier (a pattern with * names an "
            "ensemble), e.g. model=runs/main/classifier/correction=full,seed=1"
        )
    if k.name == "none" and (k.fine_tune or k.relabels or k.finishes):
        raise ConfigError(
            "correction=none with a switch turned on is no longer none: start from another one, e.g. "
            "correction=unshifted, and turn its switches"
        )
    if k.name != "none" and not (k.fine_tune or k.relabels or k.finishes):
        raise ConfigError(
            f"correction={k.name} with fine_tune=false soften=false extend=false shift=none changes nothing: "
            "type correction=none"
        )
    if k.balance and not (k.fine_tune or k.relabels):
        raise ConfigError(
            "correction.balance=true needs something to fit on the balanced subset: "
            "type correction=balanced, or correction.fine_tune=true"
        )
    own_loss = k.loss != "cross_entropy" or k.weights != "none" or k.trend_penalty > 0
    _require(k.trend_penalty >= 0, f"correction.trend_penalty={k.trend_penalty} must not be negative")
    if own_loss and not k.fine_tune:
        raise ConfigError(
            "correction.loss, correction.weights and correction.trend_penalty act in Step 2, which does not "
            "run: type correction.fine_tune=true"
        )
    if k.weights != "none" and k.loss == "balanced_softmax":
        raise ConfigError(
            f"correction.loss=balanced_softmax with correction.weights={k.weights} would balance twice: "
            "type correction.weights=none"
        )
    s = c.survey
    if k.extend and s.extend_left + s.extend_right == 0:
        raise ConfigError(
            "correction.extend=true but survey.extend_left=0 and survey.extend_right=0: "
            "type survey.extend_left=90 survey.extend_right=90, or correction.extend=false"
        )
