"""Follows a training: has it written down, validates, saves, and says when to end."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from gss_train.common import Interrupted, Interruption, Meter, UserError, peak_memory_bytes
from gss_train.data import PreparedSubject
from gss_train.inference import evaluation_mode, segment_tumour_crop
from gss_train.runs import EpochRecord, RunFolder, StepRecord, save_checkpoint
from gss_train.training.bad_steps import dump_bad_step
from gss_train.training.batches import TrainingBatches
from gss_train.training.gathering import TERMS, FetchedStep, longest_bad_row
from gss_train.training.journal import Journal
from gss_train.training.plan import TrainingPlan
from gss_train.training.schedule import Stage
from gss_train.training.state import TrainingState
from gss_train.training.validation import ValidationState, validate, validation_subsets

_MAX_DUMPS = 16  # each holds a batch of whole crops


class Recorder:
    """Follows the training of a run.

    Args:
        plan: of the run.
        batches: of the training subjects.
        validation: the validation subjects that are used.
        folder: of the run, in the process that writes; None in the others.
        interruption: that may end the training.
        meter: for people.
    """

    def __init__(
        self,
        plan: TrainingPlan,
        batches: TrainingBatches,
        validation: Sequence[PreparedSubject],
        folder: RunFolder | None,
        interruption: Interruption,
        meter: Meter,
    ) -> None:
        self.plan = plan
        self.batches = batches
        self.subjects = validation
        self.folder = folder
        self.interruption = interruption
        self.meter = meter
        self.journal = Journal(plan, folder)
        self.store = None if folder is None else plan.checkpoints
        self.validation = ValidationState()
        self._best_step: int | None = None
        self._seconds_before = 0.0
        self._started = time.monotonic()
        self._rate = _Rate()
        self._note = ""

    def begin(self, state: TrainingState, progress: dict[str, Any] | None) -> None:
        """Before the first step.

        Args:
            state: of the training.
            progress: what `save` wrote beside it, if it goes on from a checkpoint.
        """
        if progress is not None:
            self.validation = ValidationState(**progress["validation"])
            self._best_step = progress["best_step"]
            self._seconds_before = progress["seconds"]
            # A run that was killed between a checkpoint and what follows it would be left without the latter.
            self._mark_if_best(state)
            if self.store is not None:
                self.store.tidy(state.step)
        self.journal.begin(state.step, 0 if progress is None else progress["metrics_length"])
        self._started = time.monotonic()
        self._rate = _Rate()
        self.meter(state.step, self.plan.total_steps)

    @property
    def interrupted(self) -> bool:
        """Whether a signal came."""
        return self.interruption.signal is not None

    @property
    def seconds(self) -> float:
        """That the run has trained for, before a stop and since."""
        return self._seconds_before + time.monotonic() - self._started

    def on_step(self, state: TrainingState) -> None:
        """Show it."""
        self._rate.steps += 1
        self.meter(state.step, self.plan.total_steps, self._note)

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
        if fetched and state.step % self.plan.config.record.gather_every == 0:
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
        print(f"Step {step.step + 1}: {said}; its batch: {where}", flush=True)

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
            samples_per_second=self._rate.steps_per_second() * self.batches.plan.batch_size,
            peak_memory_mb=peak_memory_bytes(self.plan.device) / 1e6,
        )
        state.gathered.begin_record()
        self._rate = _Rate()
        total = record.terms["total"]
        self._note = stage.name if total is None else f"{stage.name}, loss {total:.3f}"
        self.journal.write_steps(record)

    def on_epoch(self, state: TrainingState, stage: Stage) -> bool:
        """Write an epoch down, validate and draw where it is due; whether the stage shall end for want of progress."""
        began = time.monotonic()
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
        self.journal.write_epoch(record, self.seconds)
        config = self.plan.config
        ends = False
        if self.subjects and _is_due(state.epoch, config.validation.validate_every):
            self._validate(state, stage)
            ends = self.validation.should_stop(config.validation.early_stopping)
        if self.folder is not None and _is_due(state.epoch, config.record.figure_every):
            self._draw(state)
        if (ends or state.stage_epoch >= stage.epochs) and state.gathered.recent.steps:
            # A record is about one stage.
            self._write_steps(state, stage, state.epoch)
        self._rate.pause(time.monotonic() - began)
        return ends

    def _validate(self, state: TrainingState, stage: Stage) -> None:
        plan = self.plan
        with plan.computation.autocast():
            record = validate(
                state.evaluated,
                self.subjects,
                plan.dataset,
                plan.config.data.crop,
                plan.device,
                stage=stage.name,
                epoch=state.epoch,
                step=state.step,
                subsets=validation_subsets(plan.config.validation.validation_subsets),
                processes=plan.processes,
                best_before=self.validation.best_dice,
                vote_settings=plan.config.self_support.settings(),
            )
        self.validation = self.validation.update(record.mean_dice)
        if record.best:
            self._best_step = state.step
        self.journal.write_validation(record)

    def _draw(self, state: TrainingState) -> None:
        subject = (*self.subjects, *self.batches.crops.subjects)[0]
        network, crop = state.evaluated, self.plan.config.data.crop
        with evaluation_mode(network), self.plan.computation.autocast():
            self.journal.draw_epoch(subject, *segment_tumour_crop(network, subject, crop, self.plan.device))

    def on_stage(self, state: TrainingState, stage: Stage) -> None:
        """Keep the weights of a finished stage, before the checkpoint with which the next one begins."""
        if self.folder is not None:
            save_checkpoint(self.folder.stage_checkpoint(stage.name), self._content(state))

    def save_if_due(self, state: TrainingState) -> None:
        """At the end of an epoch: every so often, between stages, and if no validation was better."""
        every = self.plan.config.record.checkpoint_every
        if state.stage_epoch == 0 or self._best_step == state.step or _is_due(state.epoch, every):
            self.save(state)

    def save(self, state: TrainingState) -> None:
        """Write a checkpoint, from which the run can go on as if nothing had happened."""
        if self.store is None:
            return
        self.journal.flush()
        self.store.save(state.step, self._content(state))
        self._mark_if_best(state)

    def _mark_if_best(self, state: TrainingState) -> None:
        if self.store is not None and self._best_step == state.step:
            self.store.mark_best(state.step)

    def _content(self, state: TrainingState) -> dict[str, Any]:
        assert self.folder is not None
        progress = {
            "training_subjects": sorted(state.training_subjects),
            "precision": self.plan.computation.precision,
            "validation": asdict(self.validation),
            "best_step": self._best_step,
            "seconds": self.seconds,
            "finished": state.stage == len(self.plan.stages),
            "metrics_length": self.folder.metrics_length(),
        }
        return {**state.state_dict(), "progress": progress}

    def stop(self, state: TrainingState, stage: Stage) -> None:
        """Save, and end the training.

        Raises:
            Interrupted: always; with SIGTERM where the signal came to another process.
        """
        self.on_fetch(state, stage)
        self.save(state)
        # The first process that ends may take the others with it.
        self.plan.processes.barrier()
        raise Interrupted(self.interruption.signal or signal.SIGTERM)

    def close(self) -> None:
        """After the last step."""
        self.journal.close()


class _Rate:
    """Steps in a second since it was made, pauses left out."""

    def __init__(self) -> None:
        self.steps = 0
        self._began = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Time that went into something else."""
        self._began += seconds

    def steps_per_second(self) -> float:
        """Until now."""
        return self.steps / max(time.monotonic() - self._began, 1e-9)


def _is_due(epoch: int, every: int) -> bool:
    return every > 0 and epoch % every == 0


def _too_many_bad_steps(row: int, last: FetchedStep, folder: RunFolder | None) -> str:
    kept = "" if folder is None else f"; {folder.bad_steps} has the batches, the checkpoints before are intact"
    return (
        f"--max-bad-steps: {row} steps in a row, until step {last.step + 1}, had a loss or gradient that is not "
        f"finite: check the scans, or begin a run in another --output, from a checkpoint before by --init-from, with a "
        f"lower --learning-rate, --clip-gradient or --precision float32{kept}"
    )
