from gss_train.runs.checkpoint_file import CheckpointError, save_checkpoint
from gss_train.runs.checkpoint_store import CheckpointStore
from gss_train.runs.environment import describe_environment
from gss_train.runs.folder import (
    RunFolder,
    RunStatus,
    StoredRun,
    check_output,
    read_json,
    refuse_other_settings,
    run_status,
)
from gss_train.runs.records import EpochRecord, StepRecord, ValidationRecord, read_records
from gss_train.runs.stored_networks import StoredNetwork, read_stored
from gss_train.runs.weights import (
    LoadedWeights,
    TrainedNetwork,
    build_trained,
    export_network,
    load_trained,
    load_weights,
)

__all__ = [
    "CheckpointError",
    "CheckpointStore",
    "EpochRecord",
    "LoadedWeights",
    "RunFolder",
    "RunStatus",
    "StepRecord",
    "StoredNetwork",
    "StoredRun",
    "TrainedNetwork",
    "ValidationRecord",
    "build_trained",
    "check_output",
    "describe_environment",
    "export_network",
    "load_trained",
    "load_weights",
    "read_json",
    "read_records",
    "read_stored",
    "refuse_other_settings",
    "run_status",
    "save_checkpoint",
]
