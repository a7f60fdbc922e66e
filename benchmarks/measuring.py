"""What is measured of a call, and the figures that come of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple, Protocol

import torch

from benchmarks.memory import peak_extra_bytes
from benchmarks.steps import FloorBytes, LossStep
from benchmarks.timing import (
    Call,
    PassSeconds,
    copy_bytes_per_second,
    device_pass_seconds,
    device_seconds,
    host_pass_seconds,
    seconds_in_a_row,
    wall_seconds,
)

Size = Literal["small", "full"]
Figures = dict[str, float]


class Measure(Protocol):
    """What the fixture `measure` is: measures a call and records the result."""

    def __call__(
        self,
        call: Call | LossStep,
        *,
        group: str,
        name: str,
        samples: int | None = None,
        voxels: int | None = None,
        share_of_copy: bool = True,
        memory: bool = True,
        steps: bool = False,
        once: bool = False,
        parts: Mapping[str, Call] | None = None,
        figures: Figures | None = None,
    ) -> None:
        """Measure a call.

        Args:
            call: what is measured; the passes of a `LossStep` are also measured by themselves.
            group: benchmarks that are compared with each other.
            name: of this one within the group.
            samples: handled by one call; they give samples per second.
            voxels: handled by one call; they give the time per voxel.
            share_of_copy: whether to relate a `LossStep` on a GPU to its copy bandwidth; pointless if its input fits
                in the cache.
            memory: whether to measure it.
            steps: whether calls follow each other as in training: their rates are then of several in a row, with what
                the host takes beyond the GPU.
            once: whether it is called a single time, without one before: it takes minutes, in a process of its own. It
                has its wall time only, and `memory` is not measured.
            parts: of the call, by name; they give their time and share.
            figures: others, measured elsewhere; read after the call, which may add to them.
        """


class Work(NamedTuple):
    """What one call handles; None where that is of no interest."""

    samples: int | None
    voxels: int | None
    share_of_copy: bool
    steps: bool


def time_figures(call: Call | LossStep, work: Work, device: torch.device, wall: float) -> Figures:
    """Times and rates of a call whose fastest wall time is known, in the order in which they are shown."""
    figures = {"wall_ms": wall * 1e3}
    seconds = wall
    calls, repeats = min(max(int(0.2 / wall), 1), 20), 5 if wall < 0.05 else 1
    if device.type == "cuda":
        seconds = device_seconds(call, calls, repeats)
        figures["gpu_ms"] = seconds * 1e3
    if isinstance(call, LossStep):
        if device.type == "cuda":
            passes = device_pass_seconds(call, calls, repeats)
        else:
            passes = host_pass_seconds(call, repeats=3)
        figures |= {"forward_ms": passes.forward * 1e3, "backward_ms": passes.backward * 1e3}
        if device.type == "cuda" and work.share_of_copy:
            figures |= _rates(call.floor, passes, seconds)
    if work.steps:
        if device.type == "cuda":
            seconds = seconds_in_a_row(call, device, max(calls, 5))
        figures["steps_per_s"] = 1 / seconds
    if work.samples is not None:
        figures["samples_per_s"] = work.samples / seconds
    if work.voxels is not None:
        figures["ns_per_voxel"] = seconds * 1e9 / work.voxels
    return figures


def part_figures(parts: Mapping[str, Call], device: torch.device, whole: Figures) -> Figures:
    """Times of the parts of a call, and their shares of its own, by the same clock."""
    figures: Figures = {}
    for name, part in parts.items():
        part()  # compiles
        seconds = device_seconds(part) if device.type == "cuda" else min(wall_seconds(part) for _ in range(3))
        own = seconds * 1e3
        figures |= {f"{name}_ms": own, f"{name}_percent_of_step": 100 * own / whole.get("gpu_ms", whole["wall_ms"])}
    return figures


def memory_figures(call: Call | LossStep, device: torch.device) -> Figures:
    """Peak memory of a call."""
    peak = peak_extra_bytes(call, device)
    figures = {"peak_extra_mb": peak / 1e6}
    if isinstance(call, LossStep):
        figures["beyond_gradient_mb"] = (peak - call.gradient_bytes) / 1e6
    return figures


def _rates(floor: FloorBytes, passes: PassSeconds, seconds: float) -> Figures:
    """Bytes of the floor over time, and over what a copy moves in that time."""
    rates = {
        "": sum(floor) / seconds,
        "forward_": floor.forward / passes.forward,
        "backward_": floor.backward / passes.backward,
    }
    percentages = {f"{name}percent_of_copy": 100 * rate / copy_bytes_per_second() for name, rate in rates.items()}
    return {"gb_per_s": rates[""] / 1e9} | percentages
