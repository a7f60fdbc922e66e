"""Time and bandwidth of a call, on the CPU or a GPU."""

from __future__ import annotations

import functools
import itertools
import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.steps import LossStep

Call = Callable[[], object]

_LONGEST_HOLD = 0.05


class PassSeconds(NamedTuple):
    """Durations of a loss's passes."""

    forward: float
    backward: float


def synchronised(call: Call, device: torch.device) -> Call:
    """The call, which on a GPU then waits until its kernels have ended."""
    if device.type == "cpu":
        return call

    def wait_for_call() -> None:
        call()
        torch.cuda.synchronize(device)

    return wait_for_call


def wall_seconds(call: Call) -> float:
    """Duration of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def seconds_in_a_row(call: Call, device: torch.device, calls: int) -> float:
    """Wall time of each of several calls in a row; a GPU is waited for at the end only, so that the host runs ahead."""

    def row() -> None:
        for _ in range(calls):
            call()

    synchronised(lambda: None, device)()
    return wall_seconds(synchronised(row, device)) / calls


def host_pass_seconds(step: LossStep, repeats: int) -> PassSeconds:
    """Wall times of the passes on the CPU: the fastest of the repeats of each."""
    times: list[PassSeconds] = []
    for _ in range(repeats):
        start = time.perf_counter()
        value, leaf = step.forward()
        middle = time.perf_counter()
        step.backward(value, leaf)
        end = time.perf_counter()
        times.append(PassSeconds(middle - start, end - middle))
    return PassSeconds(*map(min, zip(*times, strict=True)))


def device_seconds(call: Call, calls: int = 20, repeats: int = 5) -> float:
    """Seconds per call on the GPU's own clock when calls are queued back to back: the median over repeats.

    The GPU is held back until the host has queued the calls: the time of their kernels and the gaps between them is
    measured, not the host's. A call that waits for the GPU itself shows the time of both.
    """
    hold = _host_seconds(call, calls)
    durations: list[float] = []
    for _ in range(repeats):
        _hold_gpu_back(hold)
        start = _record_event()
        for _ in range(calls):
            call()
        end = _record_event()
        end.synchronize()
        durations.append(start.elapsed_time(end) / 1000 / calls)
    return statistics.median(durations)


def device_pass_seconds(step: LossStep, calls: int = 20, repeats: int = 5) -> PassSeconds:
    """As `device_seconds`, of each pass by itself; they alternate as in training."""
    hold = _host_seconds(step, calls)
    durations: list[PassSeconds] = []
    for _ in range(repeats):
        _hold_gpu_back(hold)
        events = [_record_event()]
        for _ in range(calls):
            value, leaf = step.forward()
            events.append(_record_event())
            step.backward(value, leaf)
            events.append(_record_event())
        events[-1].synchronize()
        gaps = [one.elapsed_time(other) / 1000 for one, other in itertools.pairwise(events)]
        durations.append(PassSeconds(sum(gaps[::2]) / calls, sum(gaps[1::2]) / calls))
    return PassSeconds(*map(statistics.median, zip(*durations, strict=True)))


@functools.cache
def copy_bytes_per_second() -> float:
    """What a device-to-device copy of 1 GiB moves, read and written bytes together; measured once in a process."""
    source, target = _copy_buffers()
    device_seconds(lambda: target.copy_(source), calls=100, repeats=1)  # the clocks of an idle GPU are low
    return float(2 * source.nbytes / device_seconds(lambda: target.copy_(source)))


def _record_event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _host_seconds(call: Call, calls: int) -> float:
    """How long the host takes to queue the calls."""
    torch.cuda.synchronize()
    return wall_seconds(lambda: [call() for _ in range(calls)])


def _hold_gpu_back(seconds: float) -> None:
    """Queue copies that last about so long, within reason; they also leave none of the inputs in the L2 cache."""
    source, target = _copy_buffers()
    for _ in range(math.ceil(min(1.5 * seconds, _LONGEST_HOLD) / _seconds_of_copy())):
        target.copy_(source)


@functools.cache
def _copy_buffers() -> tuple[Tensor, Tensor]:
    """Two of 1 GiB, the first random: zeros may move faster."""
    source = torch.empty(2**28, dtype=torch.float32, device="cuda").normal_()
    return source, torch.empty_like(source)


@functools.cache
def _seconds_of_copy() -> float:
    """About how long a copy between the buffers takes."""
    source, target = _copy_buffers()
    target.copy_(source)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        target.copy_(source)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / 10
