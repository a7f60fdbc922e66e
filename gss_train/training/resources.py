"""Whether there is the memory and the disk that a run is expected to need: seen before any scan is prepared."""

from __future__ import annotations

import socket
import zlib
from typing import NamedTuple

from torch import nn

from gss_train.common import UserError, amount, disk_room, memory_room
from gss_train.subjects import Source, expect_volumes
from gss_train.training.disk import Disks, RunSize, describe_lack
from gss_train.training.memory import StepSize, find_remedies, least_bytes
from gss_train.training.plan import TrainingPlan


class Resources(NamedTuple):
    """What a run is expected to need.

    Attributes:
        size: what decides over the memory.
        lines: that were said of memory and disk.
    """

    size: StepSize
    lines: list[str]


def check_resources(plan: TrainingPlan, network: nn.Module, source: Source) -> Resources:
    """Say what a run is expected to need and what there is; refuse to begin where that is too little.

    A run that goes on and one that trains on a phantom are warned, as is any with `--ignore-resources`. Loader
    processes are not counted; on a GPU, nor is main memory.

    Args:
        plan: of the run, the same in all processes.
        network: on its device.
        source: of its subjects.

    Raises:
        UserError: there is too little room, in this process or another one; it names the settings that would fit.
    """
    volumes = expect_volumes(source.used)
    size = StepSize.of(plan, network, None if volumes is None else volumes.shape)
    files = RunSize.of(plan, network, source, volumes)
    disks = Disks.of(plan.output, plan.config.data.cache, disk_room)
    room = _memory_of_this_process(plan)
    lines = [_describe_memory(plan, size, room), *(f"Disk: {need}" for need in disks.needs(files))]
    if volumes is None:
        lines.append("Disk: how much prepared scans will take is not known, as no header of a scan can be read")
    print("\n".join(lines), flush=True)
    lacks = _describe_lack_of_memory(plan, size, room)
    # All processes write to the same disks.
    if plan.processes.is_first:
        lacks += describe_lack(files, disks)
    _refuse_or_warn(plan, lacks)
    return Resources(size, lines)


def _memory_of_this_process(plan: TrainingPlan) -> int | None:
    """Those on a CPU share the memory of their machine."""
    room = memory_room(plan.device)
    if room is None or plan.device.type != "cpu":
        return room
    machines = plan.processes.gather(zlib.crc32(socket.gethostname().encode()))
    return room // machines.count(machines[plan.processes.rank])


def _describe_memory(plan: TrainingPlan, size: StepSize, room: int | None) -> str:
    expected = f"Memory: {amount(size.expected_bytes)} expected"
    if room is None:
        return f"{expected} on {plan.device} ({size.source}); the system does not say what is free, it is not compared"
    return f"{expected} of {amount(room)} free on {plan.device} ({size.source})"


def _describe_lack_of_memory(plan: TrainingPlan, size: StepSize, room: int | None) -> list[str]:
    if room is None or size.expected_bytes <= room:
        return []
    lines = [f"{_describe_memory(plan, size, room)}: {amount(size.expected_bytes - room)} too little"]
    remedies = find_remedies(size, room)
    if not remedies:
        return [*lines, f"  No setting would fit: by prediction {amount(least_bytes(size))} are the least"]
    return [*lines, "  What would fit, by prediction, the least change first:", *(f"    {one}" for one in remedies)]


def _refuse_or_warn(plan: TrainingPlan, lacks: list[str]) -> None:
    if not plan.processes.any(bool(lacks)):
        return
    text = "\n".join(lacks or ["Another of the processes that train together says of what"])
    if plan.status != "begun" and not plan.config.data.uses_phantom and not plan.config.run.ignore_resources:
        raise UserError(f"there is too little room to train:\n{text}\n--ignore-resources trains all the same")
    kept = "; of a run that goes on only --activation-checkpointing and what it records may change"
    print(f"Warning: there may be too little room to train{kept * (plan.status == 'begun')}:\n{text}", flush=True)
