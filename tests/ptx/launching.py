"""Executes what a stub card is launched with, so that the public functions give results on the CPU."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from benchmarks.stub_card import Launch, stub_card
from tests.ptx.execution import Counts, execute
from tests.ptx.memory import GlobalMemory
from tests.ptx.program import PTXError, parse


class Executed(NamedTuple):
    """A launch, and how often its warps executed which instructions."""

    launch: Launch
    counts: Counts


@contextlib.contextmanager
def executing_card(target: str, multiprocessors: int = 132) -> Iterator[list[Executed]]:
    """Let backend "triton" take tensors on the CPU and run its PTX for a target; the launches, filled meanwhile."""
    executed: list[Executed] = []

    def execute_and_note(launch: Launch) -> None:
        executed.append(Executed(launch, execute_launch(launch)))

    with stub_card(target, multiprocessors, on_launch=execute_and_note):
        yield executed


def execute_launch(launch: Launch, ptx: str | None = None) -> Counts:
    """Run a launch on the memory of its tensors; of another text than the compiled one if given."""
    ptx = ptx or launch.kernel.asm["ptx"]
    memory = GlobalMemory()
    for number, value in enumerate(launch.arguments):
        if isinstance(value, torch.Tensor):
            memory.add(value, f"parameter {number} of {launch.name}")
    arguments = [bits_of_argument(value, kind) for value, kind in zip(launch.arguments, launch.types, strict=True)]
    # Triton appends pointers to scratch memory, which these kernels have none of.
    arguments += [0] * (len(parse(ptx).parameters) - len(arguments))
    metadata = launch.kernel.metadata
    return execute(
        ptx,
        grid=launch.grid,
        num_warps=metadata.num_warps,
        shared_bytes=metadata.shared,
        arguments=arguments,
        memory=memory,
    )


def bits_of_argument(value: Any, kind: str) -> int:
    """An argument of one of Triton's types as PTX's parameter holds it."""
    if kind.startswith("*"):
        return int(value.data_ptr())
    if kind == "fp32":
        return int.from_bytes(struct.pack("<f", value), "little")
    if kind[0] in "iu":
        return int(value)
    raise PTXError(f"argument: got {value!r} of type {kind}, need a pointer, an integer or fp32")
