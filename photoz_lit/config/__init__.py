"""Settings: schema, checks, the way from the command line to them, and the names of run folders."""

from photoz_lit.config.folders import (
    differences,
    finished_runs,
    portable,
    results,
    science,
    to_container,
)
from photoz_lit.config.parse import as_yaml, of_representation, parse, restored, saved
from photoz_lit.config.schema import STAGES, VERSION, Config, LoggerConfig, TrainerConfig, TrainingConfig
from photoz_lit.config.words import for_hydra

__all__ = [
    "STAGES",
    "VERSION",
    "Config",
    "LoggerConfig",
    "TrainerConfig",
    "TrainingConfig",
    "as_yaml",
    "differences",
    "finished_runs",
    "for_hydra",
    "of_representation",
    "parse",
    "portable",
    "restored",
    "results",
    "saved",
    "science",
    "to_container",
]
