"""Every setting, its type and its default."""

from dataclasses import dataclass, field
from pathlib import Path

from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.target import Target

STAGES = ("prepare", "representation", "classifier", "predict", "calibrate", "report")
SOURCES = (
    *("mock", "catalogue", "arrays", "sdss", "stamps", "embeddings", "store"),
    *("pasquet", "npy_folder", "cfhtls", "galaxies_ml"),
)
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
    zero_point: float | None = None
    repair: str = "none"
    extension: str | None = None
    pattern: str | None = None
    vectors: list[str] = field(default_factory=list)
    frames: str | None = None
    positions: str | None = None
    limit: int | None = None
    region: list[float] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    r_max: float = 17.8
    frames_url: str = "https://data.sdss.org/sas/dr17/eboss/photoObj/frames"
    catalogue_url: str = "https://skyserver.sdss.org/dr17"
    connections: int = 4
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
    paper: bool = False


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
    target: Target = field(default_factory=Target)
    data: DataConfig = field(default_factory=DataConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: str = "multi"
    correction: CorrectionConfig = field(default_factory=CorrectionConfig)
    training: TrainingsConfig = field(default_factory=TrainingsConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
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

    @property
    def photo_z(self) -> str:
        """Which estimate of p(z) is photo_z: the correction's own, or the settings'."""
        return self.correction.estimate or self.estimate

    def folder(self, stage: str) -> Path:
        """Run folder of a stage under these settings: a pure function of the settings."""
        return Path(self.output_dir) / self.run / stage / self.names[stage]
