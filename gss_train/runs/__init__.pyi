from gss_train.runs.checkpoint_file import CheckpointError, LoadedWeights, load_weights, save_checkpoint
from gss_train.runs.checkpoint_store import CheckpointStore
from gss_train.runs.folder import RunFolder, check_output, describe_environment, is_finished, old_config, read_json
from gss_train.runs.records import EpochRecord, Records, StepRecord, ValidationRecord, read_records
from gss_train.runs.stored_networks import StoredNetwork, WeightsName, read_run_config, read_run_split, read_stored
from gss_train.runs.trained_networks import TrainedNetwork, build_trained, export_network, load_trained

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "EpochRecord",
    "LoadedWeights",
    "Records",
    "RunFolder",
    "StepRecord",
    "StoredNetwork",
    "TrainedNetwork",
    "ValidationRecord",
    "WeightsName",
    "build_trained",
    "check_output",
    "describe_environment",
    "export_network",
    "is_finished",
    "load_trained",
    "load_weights",
    "old_config",
    "read_json",
    "read_records",
    "read_run_config",
    "read_run_split",
    "read_stored",
    "save_checkpoint",
]
