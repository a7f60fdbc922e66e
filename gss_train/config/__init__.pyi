from gss_train.config.changes import refuse_changes
from gss_train.config.command_line import parse_config
from gss_train.config.json_options import config_from_json
from gss_train.config.options import (
    Config,
    DataOptions,
    DatasetName,
    NetworkName,
    PhantomOptions,
    PrecisionName,
    RecordOptions,
    TrainingOptions,
    ValidationOptions,
)
from gss_train.config.presets import PickedPreset, preset_config

__all__ = [
    "Config",
    "DataOptions",
    "DatasetName",
    "NetworkName",
    "PhantomOptions",
    "PickedPreset",
    "PrecisionName",
    "RecordOptions",
    "TrainingOptions",
    "ValidationOptions",
    "config_from_json",
    "parse_config",
    "preset_config",
    "refuse_changes",
]
