from gss_train.runs.checkpoints import (
    CheckpointError as CheckpointError,
    CheckpointStore as CheckpointStore,
    save_checkpoint as save_checkpoint,
)
from gss_train.runs.environment import describe_environment as describe_environment
from gss_train.runs.folder import (
    RunFolder as RunFolder,
    RunStatus as RunStatus,
    check_output as check_output,
    refuse_other_settings as refuse_other_settings,
    run_status as run_status,
)
from gss_train.runs.lock import LOCK as LOCK, locked as locked
from gss_train.runs.records import (
    EpochRecord as EpochRecord,
    StepRecord as StepRecord,
    ValidationRecord as ValidationRecord,
    VoteRecord as VoteRecord,
    read_records as read_records,
)
from gss_train.runs.stored import (
    UNNAMED_SUBJECTS as UNNAMED_SUBJECTS,
    StoredNetwork as StoredNetwork,
    StoredRun as StoredRun,
    read_json as read_json,
    read_stored as read_stored,
)
from gss_train.runs.weights import (
    LoadedWeights as LoadedWeights,
    TrainedNetwork as TrainedNetwork,
    build_trained as build_trained,
    export_network as export_network,
    load_trained as load_trained,
    load_weights as load_weights,
    read_different as read_different,
    weights_digest as weights_digest,
)
