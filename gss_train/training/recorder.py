"""Follows a training: has it written down, validates, saves, and says when to end."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from gss_train.common import Interrupted, Interruption, Meter, UserError, duration, peak_memory_bytes
from gss_train.data import MODALITY_SUBSETS, PreparedSubject
from gss_train.inference import evaluation_mode, segment_tumour_crop
from gss_train.runs import EpochRecord, RunFolder, StepRecord, ValidationRecord
from gss_train.training.bad_steps import dump_bad_step
from gss_train.training.batches import TrainingBatches
from gss_train.training.gathering import TERMS, FetchedStep, longest_bad_row
from gss_train.training.journal import Journal
from gss_train.training.log import ProgressLines, TrainingLog
from gss_train.training.pace import Pace
from gss_train.training.plan import TrainingPlan
from gss_train.training.saver import Saver
from gss_train.training.schedule import Stage
from gss_train.training.state import TrainingState
from gss_train.training.validation import (
    ValidationState,
    ValidationSubjects,
    keep_quiet,
    validate,
    validation_subsets,
)

_MAX_DUMPS = 16  # each holds a batch of whole crops


class Recorder:
    """Follows the training of a run, from its first step to its last, as a context.

    Args:
        plan: of the run.
        batches: of the training subjects.
        subjects: for validation.
        folder: of the run, in the process that writes; None in the others.
        interruption: that may end the training.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        batches: TrainingBatches,
        subjects: ValidationSubjects,
        folder: RunFolder | None,
        interruption: Interruption,
    ) -> None:
        self.plan = plan
        self.batches = batches
        self.subjects = subjects
        self.folder = folder
        self.interruption = interruption
        self.log = TrainingLog(folder, plan.clock)
        self.journal = Journal(plan, folder)
        self.validation = ValidationState()
        self.pace = Pace(plan.clock)
        self.saver = Saver(plan, folder, self.journal, self.pace)
        self._lines = ProgressLines(plan, self.pace, self.log)
        self._last_record = self.pace.mark()

    def begin(self, state: TrainingState, progress: dict[str, Any] | None) -> None:
        """Before the first step.

        Args:
            state: of the training.
            progress: what the saver wrote beside it, if it goes on from a checkpoint.
        """
        if progress is not None:
            self.log.note(f"going on after step {state.step}")
            self.validation = ValidationState(**progress["validation"])
            self.pace.seconds_before = progress["seconds"]
            self.saver.begin(state.step, progress)
        self.journal.begin(state.step, 0 if progress is None else progress["metrics_length"])
        if state.stage > 0 and state.stage_step == 0:
            # It may have been killed while it validated the stage before.
            self.validate_stage(self.plan.stages[state.stage - 1], state)

    @property
    def interrupted(self) -> bool:
        """Whether a signal came."""
        return self.interruption.signal is not None

    def on_step(self, state: TrainingState, stage: Stage) -> None:
        """Show it, if nothing was shown for long."""
        self.pace.steps += 1
        self._lines.on_step(state, stage)

    def on_fetch(self, state: TrainingState, stage: Stage) -> None:
        """Count bad steps and write a record, where one is due.

        Raises:
            UserError: too many bad steps in a row.
        """
        fetched = state.gathered.fetch()
        for step in fetched:
            if step.bad:
                state.bad_steps += 1
                self._report_bad_step(step, state, stage)
        longest, state.bad_row = longest_bad_row(state.bad_row, fetched)
        if longest > self.plan.config.training.max_bad_steps:
            # The first process that ends may take the others with it.
            self.plan.processes.barrier()
            raise UserError(_too_many_bad_steps(longest, fetched[-1], self.folder))
        if not fetched:
            return
        self.pace.remember()
        self._lines.on_fetch(state)
        if state.step % self.plan.steps_per_record == 0:
            self._write_steps(state, stage, state.epoch + 1)

    def _report_bad_step(self, step: FetchedStep, state: TrainingState, stage: Stage) -> None:
        if self.folder is None:
            return
        terms = dict(zip(TERMS, step.terms, strict=True))
        record = {"stage": stage.name, "step": step.step + 1, "terms": terms, "gradient_norm": step.gradient_norm}
        where = f"not kept, as {_MAX_DUMPS} are already"
        if state.bad_steps <= _MAX_DUMPS:
            path, subjects = dump_bad_step(
                self.folder.bad_steps, step, self.batches, self.plan.computation.augmentation
            )
            where = str(path.relative_to(self.folder.path))
            record |= {"subjects": subjects, "file": where}
        self.journal.write_bad_step(record)
        said = "loss or gradient is not finite, weights left alone"
        self.log.say(f"Step {step.step + 1}: {said}; its batch: {where}")

    def _write_steps(self, state: TrainingState, stage: Stage, epoch: int) -> None:
        recent = state.gathered.recent
        assert state.update is not None
        record = StepRecord(
            stage=stage.name,
            epoch=epoch,
            step=state.step,
            steps=recent.steps,
            learning_rate=state.update.learning_rate,
            terms=recent.terms(),
            gss_weight=stage.objective_at(state.stage_epoch, state.stage_step - 1).gss,
            gradient_norm=recent.gradient_norm,
            skipped_steps=recent.skipped,
            samples_per_second=self.pace.steps_per_second(self._last_record) * self.batches.plan.batch_size,
            peak_memory_mb=peak_memory_bytes(self.plan.device) / 1e6,
        )
        state.gathered.begin_record()
        self._last_record = self.pace.mark()
        self.journal.write_steps(record)

    def on_epoch(self, state: TrainingState, stage: Stage) -> bool:
        """Write an epoch down, validate and draw where it is due; whether the stage shall end for want of progress."""
        if state.stage_epoch == 1:
            self.validation = self.validation.begin_stage()
        assert state.update is not None
        record = EpochRecord(
            stage=stage.name,
            stage_epoch=state.stage_epoch,
            epoch=state.epoch,
            step=state.step,
            learning_rate=state.update.learning_rate,
            terms=state.gathered.epoch.terms(),
            vote=state.gathered.vote(),
        )
        state.gathered.begin_epoch()
        self.journal.write_epoch(record, self.pace.seconds_of_run)
        ends = self._validate_if_due(state, stage)
        is_last = ends or state.stage_epoch >= stage.epochs
        if is_last and state.gathered.recent.steps:
            # A record is about one stage.
            self._write_steps(state, stage, state.epoch)
        if self.folder is not None and _is_due(state.epoch, self.plan.config.record.figure_every):
            with self.pace.interlude("figure"):
                self._draw(state)
        self._lines.on_epoch(state, stage, record.terms, self.journal.best, is_last=is_last)
        return ends

    def _validate_if_due(self, state: TrainingState, stage: Stage) -> bool:
        """Whether the stage shall end for want of progress."""
        options = self.plan.config.validation
        if not self.subjects.often or not _is_due(state.epoch, options.validate_every):
            return False
        with self.pace.interlude("validation"):
            record = self._validate(state, stage, self.subjects.often, validation_subsets(options.validation_subsets))
        self.validation = self.validation.update(record.mean_dice)
        if record.best:
            self.saver.keep_best(state, self.validation)
        self.journal.write_validation(record)
        self._lines.on_validation(record)
        return self.validation.should_stop(options.early_stopping)

    def validate_stage(self, stage: Stage, state: TrainingState) -> None:
        """Validate on all validation subjects and subsets after the checkpoint at a stage's end, unless that was done.

        Raises:
            Interrupted: a signal came; the run is saved, and validates when it goes on.
        """
        subjects = self.subjects.at_stage_ends
        # The first process alone knows what was done.
        if not subjects or not self.plan.processes.any(
            self.folder is not None and stage.name not in self.journal.validated_stages
        ):
            return
        self.log.say(f"end of {stage.name}: validating on {len(subjects)} subjects, with all subsets")
        with self.pace.interlude("stage validation"):
            record = self._validate(state, stage, subjects, MODALITY_SUBSETS, self._look_for_signals)
        # Of other subjects and subsets than those that it would be compared with.
        record = replace(record, best=False)
        self.journal.write_stage_validation(record)
        self._lines.on_stage_validation(record)

    def _look_for_signals(self, *_: object) -> None:
        # Several processes wait for each other's scores.
        if self.interruption.signal is not None and self.plan.processes.size == 1:
            raise Interrupted(self.interruption.signal)

    def _validate(
        self,
        state: TrainingState,
        stage: Stage,
        subjects: Sequence[PreparedSubject],
        subsets: Sequence[Sequence[bool]],
        progress: Meter = keep_quiet,
    ) -> ValidationRecord:
        plan = self.plan
        with plan.computation.autocast():
            return validate(
                state.evaluated,
                subjects,
                plan.dataset,
                plan.config.data.crop,
                plan.device,
                stage=stage.name,
                epoch=state.epoch,
                step=state.step,
                progress=progress,
                subsets=subsets,
                processes=plan.processes,
                best_before=self.validation.best_dice,
                vote_settings=plan.config.self_support.settings(),
            )

    def _draw(self, state: TrainingState) -> None:
        subject = (*self.subjects.often, *self.batches.crops.subjects)[0]
        network, crop = state.evaluated, self.plan.config.data.crop
        with evaluation_mode(network), self.plan.computation.autocast():
            self.journal.draw_epoch(subject, *segment_tumour_crop(network, subject, crop, self.plan.device))

    def on_stage(self, state: TrainingState, stage: Stage) -> None:
        """Keep the weights of a finished stage, to be written before the checkpoint with which the next one begins."""
        self.pace.forget()
        self.saver.keep_stage(stage.name, state, self.validation)

    def save_if_due(self, state: TrainingState) -> None:
        """Write a checkpoint every so many minutes, and between stages.

        Raises:
            OSError: the one before could not be written.
        """
        self.saver.save_if_due(state, self.validation)

    def stop(self, state: TrainingState, stage: Stage) -> None:
        """Save, and end the training.

        Raises:
            Interrupted: always; with SIGTERM where the signal came to another process.
            OSError: a checkpoint could not be written.
        """
        self.on_fetch(state, stage)
        self.saver.save(state, self.validation)
        self.saver.wait()
        # The first process that ends may take the others with it.
        self.plan.processes.barrier()
        raise Interrupted(self.interruption.signal or signal.SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """After the last step: wait for the last checkpoint, but not after a second Ctrl-C.

        Raises:
            OSError: it could not be written.
        """
        try:
            self.journal.close()
        finally:
            if kind is not KeyboardInterrupt:
                self.saver.wait()
        spent = ", ".join(f"{name} {duration(all_of.seconds)}" for name, all_of in self.pace.interludes.items())
        # What ended it may be that nothing can be written.
        with suppress(OSError):
            steps = duration(self.pace.mark().seconds)
            self.log.note(f"{self.pace.steps:,} steps took {steps}" + (f", beside them {spent}" if spent else ""))
            if error is not None:
                self.log.note(f"ended: {error}")


def _is_due(epoch: int, every: int) -> bool:
    return every > 0 and epoch % every == 0


def _too_many_bad_steps(row: int, last: FetchedStep, folder: RunFolder | None) -> str:
    kept = "" if folder is None else f"; {folder.bad_steps} has the batches, the checkpoints before are intact"
    return (
        f"--max-bad-steps: {row} steps in a row, until step {last.step + 1}, had a loss or gradient that is not "
        f"finite: check the scans, or begin a run in another --output, from a checkpoint before by --init-from, with a "
        f"lower --learning-rate, --clip-gradient or --precision float32{kept}"
    )
