from gss_train.config.command_line import parse_config
from gss_train.config.options import (
    AugmentationOptions,
    Config,
    DataOptions,
    DatasetName,
    NetworkName,
    NetworkOptions,
    PhantomOptions,
    PrecisionName,
    RecordOptions,
    RunOptions,
    TrainingOptions,
    ValidationOptions,
)
from gss_train.config.presets import PickedPreset, preset_config
from gss_train.config.resuming import refuse_changes
from gss_train.config.settings import SettingsError, config_from_json

__all__ = [
    "AugmentationOptions",
    "Config",
    "DataOptions",
    "DatasetName",
    "NetworkName",
    "NetworkOptions",
    "PhantomOptions",
    "PickedPreset",
    "PrecisionName",
    "RecordOptions",
    "RunOptions",
    "SettingsError",
    "TrainingOptions",
    "ValidationOptions",
    "config_from_json",
    "parse_config",
    "preset_config",
    "refuse_changes",
]
