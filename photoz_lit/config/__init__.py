"""Settings: schema, checks, the way from the command line to them, and the names of run folders."""

from photoz_lit.config.folders import differences, finished_runs, results, science, to_container
from photoz_lit.config.parse import as_yaml, parse, restored
from photoz_lit.config.schema import (
    IMAGE_ENCODERS,
    PARTS,
    STAGES,
    VERSION,
    Config,
    CorrectionConfig,
    LoggerConfig,
    StageConfig,
    TrainerConfig,
    TrainingConfig,
)
from photoz_lit.config.words import for_hydra

__all__ = [
    "IMAGE_ENCODERS",
    "PARTS",
    "STAGES",
    "VERSION",
    "Config",
    "CorrectionConfig",
    "LoggerConfig",
    "StageConfig",
    "TrainerConfig",
    "TrainingConfig",
    "as_yaml",
    "differences",
    "finished_runs",
    "for_hydra",
    "parse",
    "restored",
    "results",
    "science",
    "to_container",
]
