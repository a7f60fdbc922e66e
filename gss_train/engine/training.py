"""The training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from gss_kernels import CategoryGroups, GSSStatistics
from gss_train.config import TrainingOptions
from gss_train.data import PUBLISHED_AUGMENTATION, AugmentationSettings, Crop, TrainingCrops, augment, draw_subsets
from gss_train.engine.objective import BASELINE, GROUP_SELF_SUPPORT, Objective, ObjectiveTerms, ObjectiveWeights
from gss_train.errors import UserError
from gss_train.models import SegmentationNetwork

_DECAY_POWER = 0.9
_STEPS_BETWEEN_GATHERS = 10


class TrainingError(UserError):
    """Training cannot go on."""


@dataclass(frozen=True)
class Stage:
    """A stretch of training with a fresh optimiser and a learning rate that decays to zero.

    Attributes:
        name: for people.
        weights: of the objective.
        epochs: how many.
        fusion_warmup_epochs: the first ones, in which the fused prediction does not count.
    """

    name: str
    weights: ObjectiveWeights
    epochs: int
    fusion_warmup_epochs: int = 0


@dataclass(frozen=True)
class EpochRecord:
    """Means over one epoch's steps.

    Attributes:
        stage: name of the stage.
        stage_epoch: 1 for the first of the stage.
        epoch: 1 for the first of the run, counted through all stages.
        step: optimiser steps so far.
        learning_rate: of the epoch.
        terms: the objective and its terms before weighting.
        vote: with GSS the statistics of the vote, of every tenth step: "routes", for each category the shares of the
            voxels by `gss_kernels.ROUTES`, and "agreement", for each modality. None without.
    """

    stage: str
    stage_epoch: int
    epoch: int
    step: int
    learning_rate: float
    terms: dict[str, float]
    vote: dict[str, list[Any]] | None = None


def plan_stages(options: TrainingOptions, baseline: ObjectiveWeights = BASELINE) -> list[Stage]:
    """The stages of a run: the baseline, and with GSS the rounds that start from it or from `init_from`.

    Args:
        options: the schedule.
        baseline: the objective of the baseline.
    """
    if not options.gss:
        return [Stage("baseline", baseline, options.epochs, options.fusion_warmup_epochs)]
    stages = [Stage(f"GSS round {number + 1}", GROUP_SELF_SUPPORT, options.epochs) for number in range(options.rounds)]
    if options.init_from is None and options.baseline_epochs > 0:
        stages.insert(0, Stage("baseline", baseline, options.baseline_epochs, options.fusion_warmup_epochs))
    return stages


def train(
    network: SegmentationNetwork,
    crops: TrainingCrops,
    groups: CategoryGroups,
    options: TrainingOptions,
    *,
    workers: int,
    device: torch.device,
    seed: int,
    augmentation: AugmentationSettings = PUBLISHED_AUGMENTATION,
    baseline: ObjectiveWeights = BASELINE,
    on_step: Callable[[Stage, int, float | None], None],
    on_epoch: Callable[[Stage, EpochRecord, torch.optim.Optimizer], None],
) -> None:
    """Train all stages.

    Args:
        network: on `device`; trained in place.
        crops: as many per epoch as `options` takes.
        groups: the category groups of the GSS loss.
        options: the schedule.
        workers: loader processes.
        device: to train on.
        seed: of augmentation, modality subsets and voxel masks.
        augmentation: how crops are varied.
        baseline: the objective of the baseline.
        on_step: called after each step with the stage, the steps done in all and, every tenth step, the mean objective
            since the last time: reading it from the device more often would hold the device up.
        on_epoch: called after each epoch.

    Raises:
        TrainingError: the objective is no longer finite.
    """
    epoch = step = 0
    loader = _loader(crops, options.batch_size, workers, device)
    for stage in plan_stages(options, baseline):
        optimiser = torch.optim.Adam(
            network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay, amsgrad=True
        )
        for stage_epoch in range(stage.epochs):
            learning_rate = options.learning_rate * (1 - stage_epoch / stage.epochs) ** _DECAY_POWER
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
            objective = Objective(groups, _weights_in_epoch(stage, stage_epoch))
            gathered = _Gathered()
            crops.set_epoch(epoch)
            for number, batch in enumerate(loader):
                return_stats = number % _STEPS_BETWEEN_GATHERS == 0
                generator = step_generator(seed, step)
                gathered.add(
                    _train_step(
                        network,
                        batch,
                        objective,
                        optimiser,
                        device,
                        generator,
                        augmentation,
                        bfloat16=options.precision == "bfloat16",
                        return_stats=return_stats,
                    )
                )
                step += 1
                on_step(stage, step, gathered.gather() if step % _STEPS_BETWEEN_GATHERS == 0 else None)
            epoch += 1
            means = gathered.means()
            record = EpochRecord(stage.name, stage_epoch + 1, epoch, step, learning_rate, means, gathered.vote())
            on_epoch(stage, record, optimiser)


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one step, the same wherever and whenever the step is taken."""
    state = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state))


def _train_step(
    network: SegmentationNetwork,
    batch: Crop,
    objective: Objective,
    optimiser: torch.optim.Optimizer,
    device: torch.device,
    generator: torch.Generator,
    augmentation: AugmentationSettings,
    *,
    bfloat16: bool = False,
    return_stats: bool = False,
) -> ObjectiveTerms:
    image, labels = batch["image"].to(device, non_blocking=True), batch["label"].to(device, non_blocking=True)
    image, labels = augment(image, labels, generator, augmentation)
    fused_modalities = draw_subsets(batch["available"], generator).to(device, non_blocking=True)
    available = batch["available"].to(device, non_blocking=True)
    mask_seed = int(torch.randint(2**63 - 1, (), generator=generator))

    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        output = network(image, fused_modalities, available)
    terms = objective(output, labels, available, mask_seed, return_stats=return_stats)
    optimiser.zero_grad(set_to_none=True)
    terms.total.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return terms._replace(total=terms.total.detach())


def _weights_in_epoch(stage: Stage, stage_epoch: int) -> ObjectiveWeights:
    if stage_epoch >= stage.fusion_warmup_epochs:
        return stage.weights
    return replace(stage.weights, fused=0.0)


def _loader(crops: TrainingCrops, batch_size: int, workers: int, device: torch.device) -> Iterable[Crop]:
    return DataLoader(
        crops, batch_size, num_workers=workers, pin_memory=device.type == "cuda", persistent_workers=workers > 0
    )


class _Gathered:
    """Terms of an epoch's steps, kept on the device and fetched together, so that no step waits for the host."""

    def __init__(self) -> None:
        self.pending: list[Tensor] = []
        self.fetched: list[Sequence[float]] = []
        self.statistics: list[GSSStatistics] = []

    def add(self, terms: ObjectiveTerms) -> None:
        self.pending.append(terms.scalars())
        if terms.statistics is not None:
            self.statistics.append(terms.statistics)

    def gather(self) -> float:
        """Fetch what is pending; the mean objective of it."""
        if not self.pending:
            return math.nan
        values = torch.stack(self.pending).tolist()
        self.pending.clear()
        self.fetched.extend(values)
        mean: float = sum(value[0] for value in values) / len(values)
        if not math.isfinite(mean):
            raise TrainingError(
                f"the objective became {mean} within the last {len(values)} steps: lower --learning-rate, or check the "
                "scans for NaN and infinite voxels"
            )
        return mean

    def means(self) -> dict[str, float]:
        """Means over all steps, by term."""
        self.gather()
        columns = zip(*self.fetched, strict=True)
        return {
            name: sum(column) / len(self.fetched) for name, column in zip(ObjectiveTerms._fields, columns, strict=False)
        }

    def vote(self) -> dict[str, list[Any]] | None:
        """The mean statistics of the vote, None if there was none."""
        if not self.statistics:
            return None
        routes, agreement = (torch.stack(parts).mean(dim=0).tolist() for parts in zip(*self.statistics, strict=True))
        return {"routes": routes, "agreement": agreement}
