"""Every setting: its type, its default, what values it may have and what it decides.

Settings of sources and encoders are declared beside what they set; `Config` says which choice brings them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from photoz_lit.correction.settings import CorrectionConfig
from photoz_lit.grids import MagnitudeSlices, RedshiftGrid
from photoz_lit.setting import Decides, branch, chosen, setting
from photoz_lit.target import Target

VERSION = 3  # of saved settings: raise it when they cannot be read as before, or mean something else

STAGES = ("prepare", "representation", "classifier", "predict", "export", "calibrate", "report")
ESTIMATES = ("mode", "median", "mean")
FORMATS = ("qp", "parquet", "hats", "fits", "ecsv", "quantiles", "mixture")


@dataclass
class StageConfig:
    """What this job does."""

    name: str | None = setting(None, choices=STAGES)


@dataclass
class SurveyConfig:
    """The survey's images, redshift bins, magnitude slices (Lin et al. 2022, section 3) and conventions."""

    name: str = "sdss"
    bands: str = "ugriz"  # one letter a band
    pixels: int = setting(64, least=2)
    pixel_scale: float = setting(0.396, above=0)  # arcsec
    z_min: float = 0.0
    z_max: float = 0.4
    n_bins: int = setting(180, least=2)
    extend_left: int = setting(90, least=0, decides="classifier")  # bins that Step 3 adds below z_min
    extend_right: int = setting(90, least=0, decides="classifier")  # and above z_max
    r_min: float = 12.5  # mag, bright edge of the first slice
    r_width: float = setting(0.5, above=0)  # mag
    n_slices: int = setting(11, least=1)  # odd: 2 R - 1 for R outputs
    outlier_cut: float = setting(0.05, above=0, decides="results")  # on abs(dz)
    slope_high_from: float = setting(0.15, decides="results")  # fits slope_spec_z_high above

    def grid(self) -> RedshiftGrid:
        """Return the survey's own redshift bins."""
        return RedshiftGrid(self.z_min, self.z_max, self.n_bins)

    def slices(self) -> MagnitudeSlices:
        """Return the survey's slices of r."""
        return MagnitudeSlices(self.r_min, self.r_width, self.n_slices)


@dataclass
class PredictConfig:
    """How photo-z are given to galaxies without spec_z."""

    symmetries: int = setting(1, least=1, most=8)  # average p(z) over so many of the 8 symmetries
    # Convert p(z) to this prior; a path names a table with columns z and n_of_z.
    prior: str = setting("none", choices=("none", "flat"), kind="path")
    # I/N: the I-th of N parts of the galaxies alone, I from 0; rank: as the launcher of processes says.
    shard: str = setting("none", kind="part")


PROGRAMS = ("torch", "onnx")


@dataclass
class ExportConfig:
    """What is made of a trained model to hand on."""

    programs: list[str] = setting(["torch"], choices=PROGRAMS)  # model.pt2, model.onnx: without this package
    push: str | None = setting(None)  # OWNER/NAME on the Hugging Face Hub; null: nothing is sent


@dataclass
class CalibrationConfig:
    """The calibration of photo_z against the bulk bias (Step 4), by stage=calibrate."""

    # Whose photo_z: results of stage=predict; null: the run's own test split.
    galaxies: str | None = setting(None, kind="path")
    # spec_z distribution that is expected of them (auto: training's, or deconvolved where their n(photo_z)
    # differs from it), and the galaxies that the calibration is measured on.
    target: str = setting("auto", choices=("auto", "training", "photo", "deconvolved"))
    sample: str = setting("held_out", choices=("held_out", "all", "val"))
    # The paper's: galaxies drawn anew and plain means in bins of 0.01, instead of weighted and smoothed.
    paper: bool = False


SCHEDULES = ("one_cycle", "halfway_drop", "constant")  # halfway_drop: the paper's, lr / 5 at half-way


@dataclass
class TrainingConfig:
    """One training: its length, optimiser and schedule."""

    max_steps: int = setting(2000, least=1)
    check_every: int = setting(250, least=1)  # steps between validation, checkpoint and log
    batch_size: int = setting(128, least=1)
    lr: float = setting(2e-3, above=0)
    weight_decay: float = setting(0.01, least=0)
    schedule: str = setting("one_cycle", choices=SCHEDULES)

    def __post_init__(self) -> None:
        self.check_every = min(self.check_every, self.max_steps)


@dataclass
class StepConfig:
    """The training of linear outputs, without weight decay."""

    max_steps: int = setting(2000, least=1)
    batch_size: int = setting(256, least=1)
    lr: float = setting(2e-3, above=0)
    schedule: str = setting("one_cycle", choices=SCHEDULES)

    def training(self, checks: int) -> TrainingConfig:
        """Return the whole of it, with so many checks, the best of which counts; or one at the end alone."""
        checks = 1 if self.max_steps % checks else checks
        return TrainingConfig(check_every=self.max_steps // checks, weight_decay=0.0, **vars(self))


@dataclass
class HiddenConfig:
    """The training of outputs behind a hidden layer."""

    max_steps: int = setting(2000, least=1)
    check_every: int = setting(200, least=1)
    batch_size: int | None = setting(None, least=1)  # null: that of Step 3
    lr: float = setting(2e-3, above=0)

    def __post_init__(self) -> None:
        self.check_every = min(self.check_every, self.max_steps)

    def training(self, batch_size: int) -> TrainingConfig:
        """Return the whole of it, with the rate in one cycle, and weight decay against learning by heart."""
        own = vars(self) | {"batch_size": self.batch_size or batch_size}
        return TrainingConfig(weight_decay=0.01, schedule="one_cycle", **own)


@dataclass
class TrainingsConfig:
    """The three trainings of the method, and that of Step 3's outputs behind a hidden layer."""

    representation: TrainingConfig = branch(TrainingConfig)
    step2: StepConfig = branch(lambda: StepConfig(max_steps=1000, lr=1e-3), "classifier")
    step3: StepConfig = branch(StepConfig, "classifier")
    hidden: HiddenConfig = branch(HiddenConfig, "classifier")


@dataclass
class TrainerConfig:
    """The hardware and how it is used."""

    accelerator: str = setting("auto", choices=("auto", "cpu", "gpu", "cuda"))
    devices: int = setting(1, least=1)
    precision: str = setting("auto", choices=("auto", "bf16-mixed", "32-true"))
    compile: bool | None = None  # encoders; null: by a short trial, where it can pay
    # Processes that read cutouts; 0: the main process; null: as many as serve.
    num_workers: int | None = setting(None, least=0)
    threads: int | None = setting(None, least=1)  # of the CPU; null: the libraries' own choice
    progress: bool = True  # progress bars, where there is a terminal


@dataclass
class LoggerConfig:
    """Where training curves go."""

    name: str = setting("csv", choices=("csv", "wandb", "wandb_online", "none"))


@dataclass
class SweepConfig:
    """What a sweep varies, for the report."""

    axis: dict[str, str] = setting({})  # one setting's key, with words for it


@dataclass
class Config:
    """The root of all settings."""

    stage: StageConfig = branch(StageConfig, "nothing")
    survey: SurveyConfig = branch(SurveyConfig, "representation")
    target: Target = branch(Target, "representation")
    data: Any = chosen("photoz_lit.data.sources:SOURCES", "source", "mock", decides="representation")
    encoder: Any = chosen("photoz_lit.models.encoders:ENCODERS", "name", "fast", decides="representation")
    head: str = setting("multi", choices=("single", "multi"), decides="representation")
    # Run folder of a representation of other data: its encoder is taken as it is, with new outputs.
    representation: str | None = setting(None, kind="path", decides="representation")
    correction: CorrectionConfig = branch(CorrectionConfig, "classifier")
    training: TrainingsConfig = branch(TrainingsConfig, "representation")
    trainer: TrainerConfig = branch(TrainerConfig, "nothing")
    logger: LoggerConfig = branch(LoggerConfig, "nothing")
    predict: PredictConfig = branch(PredictConfig, "nothing")
    export: ExportConfig = branch(ExportConfig, "nothing")
    calibration: CalibrationConfig = branch(CalibrationConfig, "nothing")
    sweep: SweepConfig = branch(SweepConfig, "nothing")
    # Train the representation too where a classifier finds none.
    fit_missing: bool = setting(False, decides="nothing")
    # Run folder of a trained classifier; a pattern with * names an ensemble.
    model: str | None = setting(None, kind="path", decides="nothing")
    # Of initial weights, the order of the data, augmentation, balanced subset.
    seed: int = setting(1, least=0, most=2**63 - 1, decides="representation")
    estimate: str = setting("mode", choices=ESTIMATES, decides="results")  # photo_z from p(z)
    # Results in another format too (`photoz_lit.products`); qp: photo_z.fits and pdf.hdf5 alone.
    format: str = setting("qp", choices=FORMATS, decides="nothing")
    n_bootstrap: int = setting(100, least=2, decides="results")  # resamplings, for errors of metrics
    run: str = setting("main", decides="nothing")  # name of the family of runs below output_dir
    output_dir: str = setting("runs", kind="path", decides="nothing")
    data_dir: str = setting("data", kind="path", decides="nothing")  # where prepared data sets are kept
    names: dict[str, str] = field(default_factory=dict)  # of run folders, and the words typed: no setting

    @property
    def idle(self) -> tuple[str, ...]:
        """Beginnings of keys that decide nothing here: of what this correction does not do."""
        c = self.correction
        linear, hidden = (c.step3 and bool(c.step3.hidden) == behind for behind in (False, True))
        runs = {
            "survey.extend_": c.step3 and c.step3.extend,
            "training.step2": c.step2,
            "training.step3.batch_size": linear or (hidden and self.training.hidden.batch_size is None),
            **{f"training.step3.{key}": linear for key in ("max_steps", "lr", "schedule")},
            "training.hidden": hidden,
        }
        return tuple(key for key, does in runs.items() if not does)

    def output_grid(self) -> RedshiftGrid:
        """Return the bins of a classifier's p(z): the survey's, extended where Step 3 adds bins."""
        s, step3 = self.survey, self.correction.step3
        return s.grid().extended(s.extend_left, s.extend_right) if step3 and step3.extend else s.grid()

    def folder(self, stage: str) -> Path:
        """Run folder of a stage under these settings: a pure function of the settings."""
        return Path(self.output_dir) / self.run / stage / self.names[stage]


@dataclass(frozen=True)
class Leaf:
    """One setting of a tree of settings: its key `a.b.c`, its value, and what is declared of it."""

    key: str
    value: Any
    holder: Any
    declared: dict[str, Any]
    decides: Decides

    def set(self, value: Any) -> None:
        """Give it another value."""
        setattr(self.holder, self.key.rpartition(".")[2], value)


def leaves(branch: Any, prefix: str = "", decides: Decides = "nothing") -> Iterator[Leaf]:
    """Yield every setting below a branch; one that is absent is a setting of its own, null."""
    for f in fields(branch):
        if prefix == "" and f.name == "names":
            continue
        key, value, declared = f"{prefix}{f.name}", getattr(branch, f.name), dict(f.metadata)
        mine: Decides = declared.get("decides", decides)
        if is_dataclass(value):
            yield from leaves(value, f"{key}.", mine)
        else:
            yield Leaf(key, value, branch, declared, mine)
