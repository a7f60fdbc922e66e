from gss_train.runs.checkpoint_file import CheckpointError as CheckpointError, save_checkpoint as save_checkpoint
from gss_train.runs.checkpoint_store import CheckpointStore as CheckpointStore
from gss_train.runs.environment import describe_environment as describe_environment
from gss_train.runs.folder import (
    RunFolder as RunFolder,
    RunStatus as RunStatus,
    StoredRun as StoredRun,
    check_output as check_output,
    read_json as read_json,
    refuse_other_settings as refuse_other_settings,
    run_status as run_status,
)
from gss_train.runs.records import (
    EpochRecord as EpochRecord,
    StepRecord as StepRecord,
    ValidationRecord as ValidationRecord,
    read_records as read_records,
)
from gss_train.runs.stored_networks import StoredNetwork as StoredNetwork, read_stored as read_stored
from gss_train.runs.weights import (
    LoadedWeights as LoadedWeights,
    TrainedNetwork as TrainedNetwork,
    build_trained as build_trained,
    export_network as export_network,
    load_trained as load_trained,
    load_weights as load_weights,
)
