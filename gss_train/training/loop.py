"""The training loop, from a batch to the log."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import distributed

from gss_train.common import ALONE, Processes
from gss_train.data import augment
from gss_train.training.batches import Pass, TrainingBatches
from gss_train.training.computation import Computation
from gss_train.training.gathering import StepResult
from gss_train.training.objective import Objective, ObjectiveTerms
from gss_train.training.parallel import ParallelNetwork
from gss_train.training.plan import TrainingPlan
from gss_train.training.recorder import Recorder
from gss_train.training.state import TrainingState
from gss_train.training.update import GuardedUpdate


def train(plan: TrainingPlan, state: TrainingState, batches: TrainingBatches, recorder: Recorder) -> None:
    """Train all stages, or what is left of them.

    Args:
        plan: of the run.
        state: what changes: at the start of a run, or as a checkpoint left it.
        batches: of the training subjects.
        recorder: is told of everything, and says when to end.

    Raises:
        UserError: too many steps in a row had bad numbers.
        Interrupted: a signal came; the state is saved.
    """
    options, computation, processes = plan.config.training, plan.computation, plan.processes
    gather_every = plan.config.record.gather_every
    network = ParallelNetwork(state.network.train(), processes, compiled=options.compile)
    while state.stage < len(plan.stages):
        stage = plan.stages[state.stage]
        update = state.begin_or_continue_stage(options, computation)
        ended = False
        while not ended:
            update.learning_rate = options.learning_rate * stage.decay(state.stage_epoch)
            for passes in batches.steps(state.epoch, state.step_of_epoch):
                objective = Objective(
                    plan.dataset.groups,
                    stage.objective_at(state.stage_epoch, state.stage_step),
                    per_sample=options.dice == "per-sample",
                    process_group=processes.group,
                )
                return_stats = state.step % gather_every == 0 or state.step_of_epoch == 0
                result = training_step(
                    network, passes, objective, update, computation, processes, return_stats=return_stats
                )
                state.count_step(result)
                recorder.on_step(state, stage)
                if state.step % gather_every == 0:
                    recorder.on_fetch(state, stage)
                    if state.step_of_epoch < batches.plan.steps:
                        recorder.save_if_due(state)
                if processes.any(recorder.interrupted):
                    recorder.stop(state, stage)
            recorder.on_fetch(state, stage)
            state.count_epoch()
            ended = recorder.on_epoch(state, stage) or state.stage_epoch >= stage.epochs
            if ended:
                state.end_stage()
                recorder.on_stage(state, stage)
            recorder.save_if_due(state)
            if processes.any(recorder.interrupted):
                recorder.stop(state, stage)
            if ended:
                recorder.validate_stage(stage, state)


def training_step(
    network: ParallelNetwork,
    passes: Sequence[Pass],
    objective: Objective,
    update: GuardedUpdate,
    computation: Computation,
    processes: Processes = ALONE,
    *,
    return_stats: bool = False,
) -> StepResult:
    """Change the weights once; the host waits for nothing.

    Args:
        network: to train.
        passes: of this process, each an equal part of the step's batch.
        objective: to minimise, its mean over the passes.
        update: the optimiser.
        computation: how it is computed.
        processes: that train together.
        return_stats: with the statistics of the first pass's vote.
    """
    device = computation.device
    update.forget_gradients()
    terms: list[ObjectiveTerms] = []
    for number, part in enumerate(passes):
        torch.manual_seed(part.network_seed)
        image, label = part.image.to(device, non_blocking=True), part.label.to(device, non_blocking=True)
        image, label = augment(image, label, part.generators, computation.augmentation)
        if computation.channels_last:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        fused_modalities = part.fused_modalities.to(device, non_blocking=True)
        available = part.available.to(device, non_blocking=True)

        with network.accumulating(more=number + 1 < len(passes)):
            with computation.autocast():
                output = network(image, fused_modalities, available)
            own = objective(
                output,
                label,
                available,
                part.mask_seed,
                first_sample=part.first_sample,
                return_stats=return_stats and number == 0,
            )
            update.backward(own.total / len(passes))
        terms.append(own._replace(total=own.total.detach()))
    scalars = torch.stack([own.scalars() for own in terms]).mean(dim=0)
    finite = scalars[0].isfinite()
    if processes.group is not None:
        worst = (~finite).float()
        distributed.all_reduce(worst, group=processes.group)
        finite = worst == 0
    report = update.step(finite)
    return StepResult(torch.cat([scalars, torch.stack(report)]), terms[0].statistics)
