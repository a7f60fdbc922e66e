"""How much a run is expected to write, where, and which settings write less."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from gss_train.common import DiskRoom, amount, folder_bytes
from gss_train.config import Config
from gss_train.subjects import ExpectedVolumes, Source
from gss_train.training.plan import TrainingPlan

_FLOAT_BYTES = 4
# Of a tensor in a checkpoint besides its values: names, headers, alignment, the optimiser's count of steps.
_BYTES_PER_TENSOR = 280
# A figure of a crop of 128^3 of noise, more than any picture of a scan, had 124 kB. In a run of 8 epochs on real scans
# (`--preset quick --spacing 2 --network uhved`) one had up to 37 kB, and 65 kB in TensorBoard's file, of which as many
# more are set aside. A record of steps had 0.45 and 0.66 kB, an epoch 0.6 and 0.1, a validation of 5 subsets 2.0 and
# 3.8; a test subject 19 kB of scores and, where it is one of the 4 to look at, 2.0 bytes for each voxel.
_FIGURE_BYTES, _FIGURE_IN_TENSORBOARD_BYTES = 125_000, 220_000
_STEPS_BYTES, _EPOCH_BYTES, _VALIDATION_BYTES = 1_200, 700, 12_000
_SUBJECT_BYTES, _BYTES_PER_VIEWED_VOXEL, _VIEWED_SUBJECTS = 19_000, 2.0, 4
_OTHER_BYTES = 1_000_000
_CHECKPOINTS, _PREPARED = "checkpoints", "prepared scans"


@dataclass(frozen=True)
class RunSize:
    """What decides over what a run writes.

    Attributes:
        config: its settings.
        weights: bytes of the network's.
        parameters: of the network.
        tensors: that these are.
        stages: that are trained.
        epochs: of all stages.
        step_records: of all stages.
        source: of its subjects.
        volumes: that they are prepared to; None where that is not known.
        written: bytes that the run's folder has already.
    """

    config: Config
    weights: int
    parameters: int
    tensors: int
    stages: int
    epochs: int
    step_records: int
    source: Source
    volumes: ExpectedVolumes | None
    written: int = 0

    @classmethod
    def of(cls, plan: TrainingPlan, network: nn.Module, source: Source, volumes: ExpectedVolumes | None) -> RunSize:
        """Of a run, its network, its subjects and what these are expected to become."""
        tensors = list(network.state_dict().values())
        return cls(
            config=plan.config,
            weights=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
            parameters=sum(parameter.numel() for parameter in network.parameters()),
            tensors=len(tensors),
            stages=len(plan.stages),
            epochs=sum(stage.epochs for stage in plan.stages),
            step_records=plan.total_steps // plan.steps_per_record + len(plan.stages),
            source=source,
            volumes=volumes,
            written=folder_bytes(plan.output),
        )

    @property
    def stage_end_bytes(self) -> int:
        """A checkpoint at the end of a stage: weights, averaged ones too."""
        copies = 1 + (self.config.training.ema is not None)
        return copies * (self.weights + self.tensors * _BYTES_PER_TENSOR)

    @property
    def checkpoint_bytes(self) -> int:
        """A checkpoint within a stage: with Adam's moments as well, each of all weights."""
        moments = 2 + self.config.training.amsgrad
        values = moments * self.parameters * _FLOAT_BYTES
        # And the count of steps, for each tensor.
        return self.stage_end_bytes + values + (moments + 1) * self.tensors * _BYTES_PER_TENSOR

    @property
    def run_bytes(self) -> dict[str, int]:
        """Of the run folder, by what takes them."""
        record, validates = self.config.record, self._validations > 0
        # One more while it is written; the best is weights alone.
        checkpoints = (record.keep_checkpoints + 1) * self.checkpoint_bytes
        return {
            _CHECKPOINTS: checkpoints + validates * self.stage_end_bytes,
            "ends of stages": self.stages * self.stage_end_bytes,
            "figures and records": self._figure_bytes + self._record_bytes,
            "evaluation": self._evaluation_bytes,
        }

    @property
    def prepared_bytes(self) -> int:
        """Of the subjects that are not prepared yet."""
        return 0 if self.volumes is None else self.volumes.missing_bytes

    @property
    def _validations(self) -> int:
        every = self.config.validation.validate_every
        return self.epochs // every if every and self.source.validation else 0

    @property
    def _figure_bytes(self) -> int:
        record = self.config.record
        each = _FIGURE_BYTES + record.tensorboard * _FIGURE_IN_TENSORBOARD_BYTES
        return self.epochs // record.figure_every * each if record.figure_every else 0

    @property
    def _record_bytes(self) -> int:
        # At the end of a stage it is of all subsets, three times as many.
        validations = self._validations + 3 * self.stages
        steps = self.step_records * _STEPS_BYTES + self.epochs * _EPOCH_BYTES
        return steps + validations * _VALIDATION_BYTES + _OTHER_BYTES

    @property
    def _evaluation_bytes(self) -> int:
        if self.config.record.final_evaluation == "none":
            return 0
        test = len(self.source.split.test)
        voxels = 0 if self.volumes is None else math.prod(self.volumes.shape)
        each = test * _SUBJECT_BYTES + round(min(test, _VIEWED_SUBJECTS) * voxels * _BYTES_PER_VIEWED_VOXEL)
        # The last weights; or those of each stage, of which the last are the same, and the best.
        return each * (1 if self.config.record.final_weights == "last" else self.stages + 1)

    def with_record(self, **changes: Any) -> RunSize:
        """With other settings of what is written."""
        record = dataclasses.replace(self.config.record, **changes)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, record=record))

    def with_training_subjects(self, count: int) -> RunSize:
        """With so many of the training subjects."""
        split = dataclasses.replace(self.source.split, train=self.source.split.train[:count])
        source = dataclasses.replace(self.source, split=split)
        volumes = None if self.volumes is None else self.volumes.of(source.used.names)
        return dataclasses.replace(self, source=source, volumes=volumes)


@dataclass(frozen=True)
class FileSystemNeed:
    """What is to be written to one file system.

    Attributes:
        room: there.
        run: bytes of the run folder that are still to come.
        prepared: bytes of prepared scans that are.
    """

    room: DiskRoom
    run: int = 0
    prepared: int = 0

    @property
    def missing(self) -> int:
        """Bytes that are too many; 0 where all have room."""
        return max(0, self.run + self.prepared - self.room.free)

    def __str__(self) -> str:
        """For people."""
        parts = [f"{amount(self.run)} for the run"] * (self.run > 0)
        parts += [f"{amount(self.prepared)} for {_PREPARED}"] * (self.prepared > 0)
        return f"{' and '.join(parts) or 'nothing'} expected of {amount(self.room.free)} free at {self.room.folder}"


@dataclass(frozen=True)
class Disks:
    """The file systems that a run writes to.

    Attributes:
        output: where the run folder is, or is to be.
        cache: where the prepared scans are.
    """

    output: DiskRoom
    cache: DiskRoom

    @classmethod
    def of(cls, output: Path, cache: Path, room: Callable[[Path], DiskRoom]) -> Disks:
        """Of two folders, by what tells the room there."""
        return cls(room(output), room(cache))

    def needs(self, size: RunSize) -> list[FileSystemNeed]:
        """By file system, that of the run folder first."""
        run = max(0, sum(size.run_bytes.values()) - size.written)
        if self.output.file_system == self.cache.file_system:
            return [FileSystemNeed(self.output, run, size.prepared_bytes)]
        return [FileSystemNeed(self.output, run), FileSystemNeed(self.cache, prepared=size.prepared_bytes)]

    def have_room(self, size: RunSize) -> bool:
        """Whether there is room for all of a run."""
        return not any(need.missing for need in self.needs(size))


def describe_lack(size: RunSize, disks: Disks) -> list[str]:
    """Where there is too little room, for what, and what would do; a line each, nothing where there is enough."""
    lacking = [need for need in disks.needs(size) if need.missing]
    if not lacking:
        return []
    lines = [f"Disk: {need}: {amount(need.missing)} too little" for need in lacking]
    parts = ", ".join(f"{amount(count)} {name}" for name, count in size.run_bytes.items() if count)
    lines.append(f"  The run is {parts}; prepared are {_describe_prepared(size.volumes)}")
    lines.append("  What would do:")
    return lines + [f"    {remedy}" for remedy in (*_other_places(lacking), *_smaller_runs(size, disks))]


def _describe_prepared(volumes: ExpectedVolumes | None) -> str:
    if volumes is None:
        return "an unknown number of bytes, as no header can be read"
    return f"{len(volumes.missing)} subjects of {amount(volumes.bytes_each)} each"


def _other_places(lacking: list[FileSystemNeed]) -> Iterator[str]:
    for need in lacking:
        parts = {"--output": need.run, "--cache": need.prepared}
        # One of them elsewhere, if that is enough; else both.
        enough = {flag: part for flag, part in parts.items() if part >= need.missing}
        for flag, part in enough.items():
            yield f"another {flag}, on a file system with {amount(part)} free"
        if not enough:
            both = f"{amount(need.run)} and {amount(need.prepared)}"
            yield f"another --output and --cache, on file systems with {both} free"


def find_smaller_runs(size: RunSize, disks: Disks) -> Iterator[tuple[str, RunSize]]:
    """Settings with which there is room, as on the command line, and the run with them; what changes least first."""
    record = size.config.record
    fewer = {"keep_checkpoints": 1} if record.keep_checkpoints > 1 else {}
    unseen = {"figure_every": 0} if record.figure_every else {}
    flags = {"keep_checkpoints": "--keep-checkpoints 1", "figure_every": "--figure-every 0"}
    changes: list[dict[str, int]] = [fewer, unseen] + ([{**fewer, **unseen}] if fewer and unseen else [])
    for change in changes:
        smaller = size.with_record(**change)
        if change and disks.have_room(smaller):
            yield " ".join(flags[name] for name in change), smaller
            break
    for count in range(len(size.source.split.train) - 1, 0, -1):
        smaller = size.with_training_subjects(count)
        if disks.have_room(smaller):
            yield f"--max-training-subjects {count}", smaller
            return


def _smaller_runs(size: RunSize, disks: Disks) -> Iterator[str]:
    for flags, smaller in find_smaller_runs(size, disks):
        total = sum(need.run + need.prepared for need in disks.needs(smaller))
        caveat = " (fewer subjects: another training)" if "subjects" in flags else ""
        yield f"{flags}: {amount(total)}{caveat}"
