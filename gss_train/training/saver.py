"""What a run keeps of its training: checkpoints to go on from, the best weights, those at the ends of stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from gss_train.runs import RunFolder
from gss_train.training.checkpoint_writer import CheckpointWriter
from gss_train.training.journal import Journal
from gss_train.training.pace import Pace
from gss_train.training.plan import TrainingPlan
from gss_train.training.state import TrainingState
from gss_train.training.validation import ValidationState

_SECONDS_OF_A_LONG_RUN = 48 * 3600.0


class Saver:
    """Saves a run, in the process that has its folder; in the others it does nothing.

    Args:
        plan: of the run.
        folder: of the run, None in all processes but the first.
        journal: whose files belong to a checkpoint.
        pace: of the training.
    """

    def __init__(self, plan: TrainingPlan, folder: RunFolder | None, journal: Journal, pace: Pace) -> None:
        self._plan = plan
        self._folder = folder
        self._journal = journal
        self._pace = pace
        self._best_step: int | None = None
        self._writer = CheckpointWriter(plan.checkpoints, plan.config.record.checkpoint_minutes, plan.clock)

    def begin(self, step: int, progress: Mapping[str, Any]) -> None:
        """Go on from a checkpoint: do what the run may have been killed before it could.

        Args:
            step: of the checkpoint.
            progress: that is in it.

        Raises:
            OSError: a file cannot be renamed or removed.
        """
        self._best_step = progress["best_step"]
        if self._folder is not None:
            self._plan.checkpoints.tidy(step)
            self._plan.checkpoints.settle_best(self._best_step)

    def save_if_due(self, state: TrainingState, validation: ValidationState) -> None:
        """Every so many minutes, and between stages.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        if self._folder is not None:
            is_due = self._writer.is_due(epoch_ended=state.step_of_epoch == 0, stretch=self._stretch(state))
            between_stages = state.update is None
            if is_due or between_stages:
                self.save(state, validation)

    def _stretch(self, state: TrainingState) -> float:
        """Long runs write as many checkpoints as one of two days: what is written has a bound on slow devices too."""
        left = self._pace.seconds_left(
            self._plan.total_steps - state.step, self._plan.interludes_left(state.epoch, state.stage)
        )
        return 1.0 if left is None else max(1.0, (self._pace.seconds_of_run + left) / _SECONDS_OF_A_LONG_RUN)

    def save(self, state: TrainingState, validation: ValidationState) -> None:
        """Begin to write a checkpoint, from which the run can go on as if nothing had happened.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        if self._folder is not None:
            with self._pace.interlude("checkpoint"):
                self._journal.flush()
                progress = {**self._progress(state, validation), "metrics_length": self._folder.metrics_length()}
                self._writer.save(state.step, {**state.state_dict(), "progress": progress})

    def keep_best(self, state: TrainingState, validation: ValidationState) -> None:
        """The weights of the best validation, to be written with the next checkpoint."""
        self._best_step = state.step
        if self._folder is not None:
            with self._pace.interlude("checkpoint"):
                self._writer.keep_best(state.step, self._weights(state, validation))

    def keep_stage(self, stage: str, state: TrainingState, validation: ValidationState) -> None:
        """The weights of a finished stage, to be written before the next checkpoint."""
        if self._folder is not None:
            with self._pace.interlude("checkpoint"):
                self._writer.keep(self._folder.stage_checkpoint(stage), self._weights(state, validation))

    def _weights(self, state: TrainingState, validation: ValidationState) -> dict[str, Any]:
        """Of a checkpoint, that which is of use to others than this run."""
        content = state.state_dict()
        weights = {name: content[name] for name in ("weights", "averaged", "position")}
        return {**weights, "progress": self._progress(state, validation)}

    def _progress(self, state: TrainingState, validation: ValidationState) -> dict[str, Any]:
        return {
            "training_subjects": sorted(state.training_subjects),
            "precision": self._plan.computation.precision,
            "validation": asdict(validation),
            "best_step": self._best_step,
            "seconds": self._pace.seconds_of_run,
            "finished": state.stage == len(self._plan.stages),
        }

    def wait(self) -> None:
        """Until everything is on the disk.

        Raises:
            OSError: it could not be written; what was there before still is.
        """
        self._writer.wait()
