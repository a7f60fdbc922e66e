"""The training loop, from a batch to the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, distributed

from gss_kernels import CategoryGroups
from gss_train.augmentation import PUBLISHED_AUGMENTATION, AugmentationSettings, augment
from gss_train.config.options import PrecisionName, TrainingOptions
from gss_train.engine.gathering import StepResult
from gss_train.engine.objective import Objective, ObjectiveTerms
from gss_train.engine.parallel import ParallelNetwork
from gss_train.engine.schedule import Stage
from gss_train.engine.state import TrainingState
from gss_train.engine.update import GuardedUpdate
from gss_train.errors import UserError
from gss_train.processes import ALONE, Processes


class TrainingError(UserError):
    """Training cannot go on."""


class Pass(NamedTuple):
    """The samples of one forward and backward pass, on the host, and what was drawn for them.

    Attributes:
        image: `[B, 4, D, H, W]` float16 or float32.
        label: `[B, D, H, W]` uint8.
        available: `[B, 4]` bool, the scans that exist.
        fused_modalities: `[B, 4]` bool, those that the fusion sees.
        subjects: `[B]` int64, which subjects they are.
        generators: of each sample's augmentation.
        mask_seed: of the GSS loss's voxel mask, for the whole batch.
        network_seed: of what the network draws.
        first_sample: number of the first one in the whole batch.
    """

    image: Tensor
    label: Tensor
    available: Tensor
    fused_modalities: Tensor
    subjects: Tensor
    generators: Sequence[torch.Generator]
    mask_seed: int
    network_seed: int
    first_sample: int


@dataclass(frozen=True)
class StepSettings:
    """How a step is computed.

    Attributes:
        device: of the network.
        autocast: bfloat16 or float16 for the network's forward pass; None: float32.
        channels_last: keep the channels of a voxel together.
        augmentation: how crops are varied.
    """

    device: torch.device
    autocast: torch.dtype | None = None
    channels_last: bool = False
    augmentation: AugmentationSettings = PUBLISHED_AUGMENTATION


def pick_autocast(precision: PrecisionName, device: torch.device) -> torch.dtype | None:
    """What the network's forward pass computes in under autocast; None: float32."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else None
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


class Batches(Protocol):
    """Where batches come from; see `gss_train.engine.batches`."""

    def steps(self, epoch: int, first_step: int = 0) -> Iterator[list[Pass]]:
        """The passes of each step of an epoch, from a step on."""
        ...


class Watcher(Protocol):
    """Who follows the training: shows it, writes it down, and may end it; see `gss_train.engine.recorder`."""

    @property
    def interrupted(self) -> bool:
        """Whether the training shall end after this step."""
        ...

    def on_step(self, state: TrainingState, stage: Stage) -> None:
        """Take note of a step, without waiting for the device."""
        ...

    def on_fetch(self, state: TrainingState, stage: Stage) -> None:
        """Wait for the steps until now, and write them down; raises TrainingError if they cannot go on."""
        ...

    def on_epoch(self, state: TrainingState, stage: Stage) -> bool:
        """Write an epoch down; whether the stage shall end here."""
        ...

    def on_stage(self, state: TrainingState, stage: Stage) -> None:
        """Save a finished stage."""
        ...

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint."""
        ...

    def save_if_due(self, state: TrainingState) -> None:
        """Write a checkpoint at the end of an epoch."""
        ...

    def stop(self, state: TrainingState, stage: Stage) -> None:
        """Save, and raise Interrupted."""
        ...


def train(
    state: TrainingState,
    stages: Sequence[Stage],
    batches: Batches,
    groups: CategoryGroups,
    options: TrainingOptions,
    settings: StepSettings,
    watcher: Watcher,
    *,
    gather_every: int = 10,
    processes: Processes = ALONE,
) -> None:
    """Train all stages, or what is left of them.

    Args:
        state: what changes: at the start of a run, or as a checkpoint left it.
        stages: all of the run.
        batches: of the training subjects.
        groups: the category groups of the GSS loss.
        options: the schedule.
        settings: how a step is computed.
        watcher: who is told.
        gather_every: steps after which the device's scalars are read; each reading holds it up.
        processes: that train together.

    Raises:
        TrainingError: too many steps in a row had bad numbers.
        Interrupted: a signal came; the state is saved.
    """
    network = ParallelNetwork(state.network, processes, compiled=options.compile)
    while state.stage < len(stages):
        stage = stages[state.stage]
        update = state.begin_or_continue_stage(options, settings)
        ended = False
        while not ended:
            update.learning_rate = options.learning_rate * stage.decay(state.stage_epoch)
            for passes in batches.steps(state.epoch, state.step_of_epoch):
                objective = Objective(
                    groups,
                    stage.weights_at(state.stage_epoch, state.stage_step),
                    per_sample=options.dice == "per-sample",
                    process_group=processes.group,
                )
                return_stats = state.step % gather_every == 0 or state.step_of_epoch == 0
                result = training_step(
                    network, passes, objective, update, settings, processes, return_stats=return_stats
                )
                state.count_step(result)
                watcher.on_step(state, stage)
                if state.step % gather_every == 0:
                    watcher.on_fetch(state, stage)
                if processes.any(watcher.interrupted):
                    watcher.stop(state, stage)
            watcher.on_fetch(state, stage)
            state.count_epoch()
            ended = watcher.on_epoch(state, stage) or state.stage_epoch >= stage.epochs
            if ended:
                state.end_stage()
                watcher.on_stage(state, stage)
            watcher.save_if_due(state)
            if processes.any(watcher.interrupted):
                watcher.stop(state, stage)


def training_step(
    network: ParallelNetwork,
    passes: Sequence[Pass],
    objective: Objective,
    update: GuardedUpdate,
    settings: StepSettings,
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
        settings: how it is computed.
        processes: that train together.
        return_stats: with the statistics of the first pass's vote.
    """
    device = settings.device
    update.forget_gradients()
    terms: list[ObjectiveTerms] = []
    for number, part in enumerate(passes):
        torch.manual_seed(part.network_seed)
        image, label = part.image.to(device, non_blocking=True), part.label.to(device, non_blocking=True)
        image, label = augment(image, label, part.generators, settings.augmentation)
        if settings.channels_last:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        fused_modalities = part.fused_modalities.to(device, non_blocking=True)
        available = part.available.to(device, non_blocking=True)

        with network.accumulating(more=number + 1 < len(passes)):
            with torch.autocast(device.type, settings.autocast, enabled=settings.autocast is not None):
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
