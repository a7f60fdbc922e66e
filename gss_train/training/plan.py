"""What a run trains, on what and where: decided once from its settings, before any scan is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import torch

from gss_train.common import CLOCK, Clock, Processes
from gss_train.config import Config
from gss_train.data import Dataset
from gss_train.inference import pick_precision
from gss_train.runs import CheckpointStore, RunStatus, check_output, refuse_other_settings, run_status
from gss_train.training.batches import BatchPlan
from gss_train.training.computation import Computation
from gss_train.training.pace import Interlude
from gss_train.training.schedule import Stage, plan_stages

_MOST_STEP_RECORDS = 10_000


@dataclass(frozen=True)
class Drawing:
    """Draws a run's figures to PNG files. The command hands it in: `gss_train.report` is not known here.

    Attributes:
        epoch: as `gss_train.report.save_epoch_figure`.
        summary: as `gss_train.report.save_summary`.
    """

    epoch: Callable[..., None]
    summary: Callable[..., None]


@dataclass(frozen=True)
class TrainingPlan:
    """All that is known of a run before its data is touched; nothing of it changes while it trains.

    Attributes:
        config: all settings, with the name of the edition in place of `auto`.
        dataset: that it trains on.
        computation: how a step is computed, and on which device.
        processes: that train together.
        output: path of the run folder.
        checkpoints: of the run.
        status: how far the run in the folder is.
        stages: all that are to be trained, in order.
        batch_plan: how a step's samples are divided.
        drawing: draws its figures.
        clock: by which it writes.
    """

    config: Config
    dataset: Dataset
    computation: Computation
    processes: Processes
    output: Path
    checkpoints: CheckpointStore
    status: RunStatus
    stages: tuple[Stage, ...]
    batch_plan: BatchPlan
    drawing: Drawing
    clock: Clock = CLOCK

    @property
    def device(self) -> torch.device:
        """That it trains on."""
        return self.computation.device

    @property
    def total_steps(self) -> int:
        """Of all stages."""
        return self.batch_plan.steps * sum(stage.epochs for stage in self.stages)

    def interludes_left(self, epoch: int, stage: int) -> dict[Interlude, int]:
        """How many of each are still to come after so many epochs, in a stage of this number, if none ends early."""
        validation, epochs = self.config.validation, sum(stage.epochs for stage in self.stages)

        def left(every: int) -> int:
            return epochs // every - epoch // every if every else 0

        at_stages = validation.stage_validation and validation.validate_every > 0
        return {
            "validation": left(validation.validate_every),
            "figure": left(self.config.record.figure_every),
            "stage validation": len(self.stages) - stage if at_stages else 0,
        }

    @property
    def steps_per_record(self) -> int:
        """From one record of steps to the next: of a long run there are as many as people and programs can look at."""
        gather_every = self.config.record.gather_every
        return gather_every * math.ceil(self.total_steps / gather_every / _MOST_STEP_RECORDS)


def plan_training(
    config: Config, dataset: Dataset, device: torch.device, processes: Processes, drawing: Drawing
) -> TrainingPlan:
    """Decide what a run does, and refuse what cannot work.

    Args:
        config: settings, with the name of the edition in place of `auto`.
        dataset: that it trains on.
        device: that this process trains on.
        processes: that train together.
        drawing: draws its figures.

    Raises:
        UserError: `--output` is taken or has a run with other settings, or `--batch-size` cannot be divided.
    """
    options = config.training
    output = config.run.output or _default_output(config)
    check_output(output, resume=config.record.resume == "auto")
    refuse_other_settings(config, output)
    status = run_status(output)
    checkpoints = CheckpointStore(output / "checkpoints", config.record.keep_checkpoints)
    if processes.any(status == "finished"):
        status = "finished"
    return TrainingPlan(
        config,
        dataset,
        Computation(
            device,
            pick_precision(options.precision, device),
            options.channels_last,
            config.augmentation.settings(),
            options.deterministic,
        ),
        processes,
        output,
        checkpoints,
        status,
        tuple(plan_stages(options, config.self_support)),
        BatchPlan(options.batch_size, options.accumulate, options.steps_per_epoch, processes),
        drawing,
    )


def _default_output(config: Config) -> Path:
    objective = "gss" if config.training.gss else "baseline"
    return Path("runs") / f"{config.data.dataset}-{config.network.network}-{objective}-{datetime.now():%Y%m%d-%H%M%S}"
