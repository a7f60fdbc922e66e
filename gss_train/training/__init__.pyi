from gss_train.training.batches import BatchPlan as BatchPlan, Pass as Pass, TrainingBatches as TrainingBatches
from gss_train.training.checkpoint_writer import CheckpointWriter as CheckpointWriter
from gss_train.training.computation import Computation as Computation
from gss_train.training.draws import (
    mask_seed as mask_seed,
    network_seed as network_seed,
    sample_generator as sample_generator,
)
from gss_train.training.gathering import (
    TERMS as TERMS,
    FetchedStep as FetchedStep,
    Gathered as Gathered,
    Means as Means,
    StepResult as StepResult,
)
from gss_train.training.loop import training_step as training_step
from gss_train.training.objective import (
    BASELINE as BASELINE,
    GROUP_SELF_SUPPORT as GROUP_SELF_SUPPORT,
    Objective as Objective,
    ObjectiveSettings as ObjectiveSettings,
    ObjectiveTerms as ObjectiveTerms,
    baseline_objective as baseline_objective,
)
from gss_train.training.parallel import ParallelNetwork as ParallelNetwork
from gss_train.training.plan import Drawing as Drawing
from gss_train.training.run import run_training as run_training
from gss_train.training.schedule import Stage as Stage
from gss_train.training.state import TrainingState as TrainingState
from gss_train.training.update import AdamSettings as AdamSettings, GuardedUpdate as GuardedUpdate
