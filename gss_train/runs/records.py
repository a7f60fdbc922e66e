"""What a run notes about itself while it trains: the records, and `metrics.jsonl`, which keeps them."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import Any

from gss_train.common import UserError, sync_folder


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
class VoteRecord:
    """What the vote knows of the validation subjects with two scans or more; see `gss_train.training.vote`.

    Attributes:
        subjects: how many these are.
        routes: by the name of each category the shares of its true voxels by `gss_kernels.ROUTES`, as the vote for that
            category went there; None where no subject has a voxel of it.
        dice: mean over the subjects from 0 to 1, of the "target" that is voted, of each modality's own prediction and
            of the "fusion" of all scans of a subject, then by the category's name; None where no subject has the scan.
    """

    subjects: int
    routes: dict[str, dict[str, float | None]]
    dice: dict[str, dict[str, float | None]]


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
        vote: what the vote knows; None without a subject or a network that has one, and in runs of earlier versions.
    """

    stage: str
    epoch: int
    step: int
    mean_dice: float | None
    dice: dict[str, dict[str, float | None]]
    best: bool
    vote: VoteRecord | None = None

    def region_mean(self, region: str) -> float | None:
        """Mean Dice of a region over the subsets; None where no subject has the scans of any."""
        values = [value for scores in self.dice.values() if (value := scores[region]) is not None]
        return sum(values) / len(values) if values else None


@dataclass(frozen=True)
class Records:
    """What a run has noted of its training.

    Attributes:
        steps: records of some steps each.
        epochs: a record each.
        validations: likewise.
        stage_validations: on all validation subjects and subsets, at the ends of stages.
        seconds: that it had trained for after the last epoch; None before the first.
    """

    steps: list[StepRecord]
    epochs: list[EpochRecord]
    validations: list[ValidationRecord]
    stage_validations: list[ValidationRecord]
    seconds: float | None


def read_records(path: Path) -> Records:
    """Read a run's `metrics.jsonl`.

    Raises:
        UserError: it cannot be understood; the message names it and the line.
    """
    records = Records([], [], [], [], None)
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
    elif kind in {"validation", "stage_validation"}:
        vote = line.pop("vote", None)
        record = ValidationRecord(**line, vote=None if vote is None else VoteRecord(**vote))
        (records.validations if kind == "validation" else records.stage_validations).append(record)
    return replace(records, seconds=seconds)


class MetricsLog:
    """Lines are added to it; going on from a checkpoint brings it back to the length that it had.

    One process at a time may write to it; see `gss_train.runs.folder.RunFolder`.

    Args:
        path: of the file; made when the first line, or a length, is needed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: FileIO | None = None
        self._closed = False

    def close(self) -> None:
        """Write no more."""
        self._closed = True
        if self._file is not None:
            self._file.close()

    def append(self, record: dict[str, Any]) -> None:
        """Add one line; a number that is not finite becomes null, as JSON has none.

        Raises:
            OSError: it cannot be written; the file ends with the line before.
        """
        rest = memoryview((json.dumps(_json_value(record), allow_nan=False) + "\n").encode())
        file = self._open()
        length = _length(file)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:
            file.truncate(length)
            raise OSError(f"{self.path}: cannot be written: {error.strerror}") from error

    def length(self) -> int:
        """Bytes of the file, once they are on the disk."""
        file = self._open()
        os.fsync(file.fileno())
        return _length(file)

    def cut(self, length: int) -> None:
        """Bring the file back to a length that it had.

        Args:
            length: in bytes, of `length`.

        Raises:
            UserError: it is shorter, or has no end of a line there.
        """
        file = self._open()
        found = _length(file)
        if found < length:
            raise UserError(f"{self.path}: has {found} bytes, had {length} at the checkpoint: it was changed")
        if length and os.pread(file.fileno(), 1, length - 1) != b"\n":
            raise UserError(
                f"{self.path}: has no line that ends at byte {length}, as at the checkpoint: it was changed"
            )
        file.truncate(length)
        os.fsync(file.fileno())

    def _open(self) -> FileIO:
        if self._closed:
            raise ValueError(f"{self.path}: is closed")
        if self._file is None:
            is_new = not self.path.exists()
            # Unbuffered: a line is in the file, or not, and nothing is left over for forked processes to write.
            self._file = self.path.open("a+b", buffering=0)
            if is_new:
                sync_folder(self.path.parent)
        return self._file


def _length(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def _json_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
