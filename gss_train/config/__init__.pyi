from gss_train.config.changes import refuse_changes as refuse_changes
from gss_train.config.command_line import parse_config as parse_config
from gss_train.config.json_options import (
    CONFIG_FILE as CONFIG_FILE,
    ENVIRONMENT_FILE as ENVIRONMENT_FILE,
    config_from_json as config_from_json,
)
from gss_train.config.options import (
    BoxName as BoxName,
    ComputedPrecision as ComputedPrecision,
    Config as Config,
    DataOptions as DataOptions,
    DatasetName as DatasetName,
    NetworkName as NetworkName,
    PhantomOptions as PhantomOptions,
    PrecisionName as PrecisionName,
    ProtocolName as ProtocolName,
    RecordOptions as RecordOptions,
    SelfSupportOptions as SelfSupportOptions,
    SplitName as SplitName,
    TrainingOptions as TrainingOptions,
    ValidationOptions as ValidationOptions,
    with_defaults as with_defaults,
)
from gss_train.config.presets import PickedPreset as PickedPreset, preset_config as preset_config
