"""Settings: schema, checks, the way from the command line to them, and the names of run folders."""

from photoz_lit.config.folders import differences, science, to_container
from photoz_lit.config.parse import check_key, check_overrides, parse, save
from photoz_lit.config.schema import (
    IMAGE_ENCODERS,
    PARTS,
    STAGES,
    Config,
    CorrectionConfig,
    DataConfig,
    LoggerConfig,
    StageConfig,
    TrainerConfig,
    TrainingConfig,
)

__all__ = [
    "IMAGE_ENCODERS",
    "PARTS",
    "STAGES",
    "Config",
    "CorrectionConfig",
    "DataConfig",
    "LoggerConfig",
    "StageConfig",
    "TrainerConfig",
    "TrainingConfig",
    "check_key",
    "check_overrides",
    "differences",
    "parse",
    "save",
    "science",
    "to_container",
]
