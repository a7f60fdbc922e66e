"""What a run writes of its training while it goes on: metrics, scalars and figures."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from torch import Tensor

from gss_train.data import PreparedSubject
from gss_train.runs import EpochRecord, RunFolder, StepRecord, ValidationRecord, read_records
from gss_train.training.plan import TrainingPlan
from gss_train.training.tensorboard import ScalarWriter


class Journal:
    """Writes to the run folder, in the process that has one; in the others it only remembers.

    Attributes:
        epochs: all of the run so far.
        validations: likewise.
        validated_stages: names of the stages after which all validation subjects were scored.

    Args:
        plan: of the run.
        folder: of the run, None in all processes but the first.
    """

    def __init__(self, plan: TrainingPlan, folder: RunFolder | None) -> None:
        self.folder = folder
        self.epochs: list[EpochRecord] = []
        self.validations: list[ValidationRecord] = []
        self.validated_stages: set[str] = set()
        self._plan = plan
        self._scalars: ScalarWriter | None = None

    def begin(self, step: int, metrics_length: int) -> None:
        """Take the files back to what they were at a step, and go on from there.

        Args:
            step: steps that the run has taken.
            metrics_length: of `metrics.jsonl` then, in bytes.
        """
        if self.folder is None:
            return
        self.folder.cut_metrics(metrics_length)
        records = read_records(self.folder.metrics)
        self.epochs, self.validations = records.epochs, records.validations
        self.validated_stages = {record.stage for record in records.stage_validations}
        if self._plan.config.record.tensorboard:
            self._scalars = ScalarWriter(self.folder.tensorboard, step)

    def write_steps(self, record: StepRecord) -> None:
        """Of some steps."""
        self._log("steps", asdict(record))
        if self._scalars is not None:
            self._scalars.write_steps(record)

    def write_bad_step(self, record: dict[str, Any]) -> None:
        """Of a step with a loss or gradient that is not finite."""
        self._log("bad_step", record)

    def write_epoch(self, record: EpochRecord, seconds: float) -> None:
        """Of an epoch, and how long the run has trained for."""
        self.epochs.append(record)
        self._log("epoch", {**asdict(record), "seconds": round(seconds, 3)})
        if self._scalars is not None:
            self._scalars.write_epoch(record)

    def write_validation(self, record: ValidationRecord) -> None:
        """Of a validation."""
        self.validations.append(record)
        self._log("validation", asdict(record))
        if self._scalars is not None:
            self._scalars.write_validation(record)

    def write_stage_validation(self, record: ValidationRecord) -> None:
        """Of a validation at the end of a stage."""
        self.validated_stages.add(record.stage)
        self._log("stage_validation", asdict(record))
        if self._scalars is not None:
            self._scalars.write_stage_validation(record)

    @property
    def best(self) -> ValidationRecord | None:
        """The best validation so far; None before the first that has a Dice."""
        return next((record for record in reversed(self.validations) if record.best), None)

    def draw_epoch(self, subject: PreparedSubject, image: Tensor, truth: Tensor, prediction: Tensor) -> None:
        """The figure of the last epoch; for the tensors see `gss_train.report.save_epoch_figure`."""
        if self.folder is None:
            return
        last = self.epochs[-1]
        path = self.folder.epoch_figure(last.epoch)
        self._plan.drawing.epoch(
            path, subject, image, truth, prediction, self._plan.dataset, self.epochs, self.validations
        )
        if self._scalars is not None:
            self._scalars.write_figure(last.step, path)

    def _log(self, kind: str, record: dict[str, Any]) -> None:
        if self.folder is not None:
            self.folder.log_metrics({"kind": kind, **record})

    def flush(self) -> None:
        """Before a checkpoint."""
        if self._scalars is not None:
            self._scalars.flush()

    def close(self) -> None:
        """After the last step."""
        if self._scalars is not None:
            self._scalars.close()
