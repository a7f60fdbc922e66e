from gss_train.training.batches import BatchPlan, Pass, TrainingBatches
from gss_train.training.computation import Computation, pick_autocast
from gss_train.training.draws import mask_seed, network_seed, sample_generator
from gss_train.training.gathering import TERMS, FetchedStep, Gathered, Means, StepResult
from gss_train.training.loop import training_step
from gss_train.training.objective import BASELINE, GROUP_SELF_SUPPORT, Objective, ObjectiveTerms, published_baseline
from gss_train.training.parallel import ParallelNetwork
from gss_train.training.plan import Drawing
from gss_train.training.run import run_training
from gss_train.training.schedule import Stage
from gss_train.training.state import TrainingState
from gss_train.training.update import GuardedUpdate

__all__ = [
    "BASELINE",
    "GROUP_SELF_SUPPORT",
    "TERMS",
    "BatchPlan",
    "Computation",
    "Drawing",
    "FetchedStep",
    "Gathered",
    "GuardedUpdate",
    "Means",
    "Objective",
    "ObjectiveTerms",
    "ParallelNetwork",
    "Pass",
    "Stage",
    "StepResult",
    "TrainingBatches",
    "TrainingState",
    "mask_seed",
    "network_seed",
    "pick_autocast",
    "published_baseline",
    "run_training",
    "sample_generator",
    "training_step",
]
