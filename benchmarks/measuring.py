"""Time, memory and bandwidth of a call, on the CPU or a GPU."""

from __future__ import annotations

import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

import torch

Call = Callable[[], object]
Size = Literal["small", "full"]


class Measure(Protocol):
    """What the fixture `measure` is: measures a call and records the result."""

    def __call__(
        self, call: Call, *, group: str, name: str, floor_bytes: int | None = None, samples: int | None = None
    ) -> None:
        """Measure a call.

        Args:
            call: what is measured.
            group: benchmarks that are compared with each other.
            name: of this one within the group.
            floor_bytes: bytes that have to move whatever the implementation; on a GPU they give GB/s.
            samples: handled by one call; they give samples per second.
        """


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


def device_seconds(call: Call, calls: int = 20, repeats: int = 5) -> float:
    """Seconds per call on the GPU's own clock when calls are queued back to back: the median over repeats.

    Unlike the wall time of a single call it leaves out the launch latency that the host hides in a training step.
    """
    durations: list[float] = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        durations.append(start.elapsed_time(end) / 1000 / calls)
    return statistics.median(durations)


@functools.cache
def copy_bytes_per_second() -> float:
    """What a device-to-device copy of 1 GiB moves, read and written bytes together."""
    source = torch.empty(2**28, dtype=torch.float32, device="cuda").normal_()
    target = torch.empty_like(source)
    device_seconds(lambda: target.copy_(source), calls=5, repeats=1)
    return float(2 * source.nbytes / device_seconds(lambda: target.copy_(source)))


def peak_extra_megabytes(call: Call, device: torch.device) -> float:
    """Most tensor memory that one call holds at a time beyond what was allocated before it, in MB (1e6 bytes)."""
    if device.type == "cpu":
        return _peak_allocated(call) / 1e6
    call()  # workspaces that a library keeps from its first call on do not count
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _peak_allocated(call: Call) -> int:
    """Running peak of PyTorch's CPU allocations and frees, as its profiler reports them."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = [event for event in events if event.get("name") == "[memory]"]
    held = peak = 0
    for change in sorted(changes, key=lambda event: event["ts"]):
        held += change["args"]["Bytes"]
        peak = max(peak, held)
    return peak
