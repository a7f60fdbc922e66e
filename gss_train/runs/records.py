"""What a run notes about itself while it trains, for `metrics.jsonl`, TensorBoard and figures."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gss_train.common import UserError


@dataclass(frozen=True)
class StepRecord:
    """Means over the steps since the last such record.

    Attributes:
        stage: name of the stage.
        epoch: 1 for the first of the run, counted through all stages.
        step: optimiser steps so far.
        steps: how many of them this record is about.
        learning_rate: of the last of them.
        terms: the objective ("total") and its terms before weighting, over the steps that were finite; None where none
            was.
        gss_weight: of the GSS loss in the objective, at the last of them.
        gradient_norm: of the last step that was finite, before clipping; None where none was.
        skipped_steps: those whose loss or gradient was not finite; they left the weights alone.
        samples_per_second: crops of all processes.
        peak_memory_mb: of this process since it started, in 1e6 bytes: on a GPU what PyTorch's allocator held, else the
            resident memory.
    """

    stage: str
    epoch: int
    step: int
    steps: int
    learning_rate: float
    terms: dict[str, float | None]
    gss_weight: float
    gradient_norm: float | None
    skipped_steps: int
    samples_per_second: float
    peak_memory_mb: float


@dataclass(frozen=True)
class EpochRecord:
    """Means over one epoch's steps.

    Attributes:
        stage: name of the stage.
        stage_epoch: 1 for the first of the stage.
        epoch: 1 for the first of the run, counted through all stages.
        step: optimiser steps so far.
        learning_rate: of the epoch.
        terms: the objective and its terms before weighting, over the steps that were finite; None where none was.
        vote: with GSS the statistics of the vote, of some steps: "routes", for each category the shares of the voxels
            by `gss_kernels.ROUTES`, and "agreement", for each modality. None without.
    """

    stage: str
    stage_epoch: int
    epoch: int
    step: int
    learning_rate: float
    terms: dict[str, float | None]
    vote: dict[str, list[Any]] | None = None


@dataclass(frozen=True)
class ValidationRecord:
    """Dice on the validation subjects.

    Attributes:
        stage: name of the stage.
        epoch: that it came after, 1 for the first of the run.
        step: optimiser steps so far.
        mean_dice: over subjects, subsets and regions, from 0 to 1; None if no subject has the scans of a subset.
        dice: by the subset's name, such as "FLAIR+T1ce", then by region; None where no subject has the scans.
        best: whether no validation of the run before had a higher mean.
    """

    stage: str
    epoch: int
    step: int
    mean_dice: float | None
    dice: dict[str, dict[str, float | None]]
    best: bool


@dataclass(frozen=True)
class Records:
    """What a run has noted of its training.

    Attributes:
        steps: records of some steps each.
        epochs: a record each.
        validations: likewise.
        seconds: that it had trained for after the last epoch; None before the first.
    """

    steps: list[StepRecord]
    epochs: list[EpochRecord]
    validations: list[ValidationRecord]
    seconds: float | None


def read_records(path: Path) -> Records:
    """Read a run's `metrics.jsonl`.

    Raises:
        UserError: it cannot be understood; the message names it and the line.
    """
    records = Records([], [], [], None)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read, need the metrics that the run has written: {error}") from error
    for number, text in enumerate(lines, start=1):
        try:
            records = _add(records, json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}, line {number}: is not what a run writes: {error}") from error
    return records


def _add(records: Records, line: dict[str, Any]) -> Records:
    kind, seconds = line.pop("kind"), line.pop("seconds", records.seconds)
    if kind == "steps":
        records.steps.append(StepRecord(**line))
    elif kind == "epoch":
        records.epochs.append(EpochRecord(**line))
    elif kind == "validation":
        records.validations.append(ValidationRecord(**line))
    return replace(records, seconds=seconds)
