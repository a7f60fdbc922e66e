"""The Triton kernels compiled for GPUs that this machine need not have, and what their machine code needs.

The numbers are properties of the code, not measurements of time: registers, stack, instructions, widths of loads.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.sass import machine_code, nvidia_tool
from benchmarks.stub_card import noted_specialisations
from gss_kernels import (
    BRATS_2015,
    BRATS_2018,
    CategoryGroups,
    fused_gss_loss,
    fused_gss_objective,
    fused_segmentation_loss,
    gss_soft_targets,
)
from gss_kernels.triton.configuration import TABLE, Configuration, KernelName
from gss_kernels.triton.launch import FINISH

SIZES = ((4, 4), (4, 5), (2, 2), (3, 4), (4, 3))
"""Modalities and categories."""

_SAMPLES, _EDGE, _MULTIPROCESSORS = 2, 80, 132
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Kernel:
    """A kernel as the public functions launch it on an H100 or H200, for two dense volumes of 80^3 voxels.

    Attributes:
        name: of the function.
        modalities: M.
        categories: C.
        dtype: of logits and gradients, as Triton names it.
        supervised: with the supervised loss.
        statistics: with the statistics of the vote.
        available: with missing modalities.
    """

    name: str
    modalities: int = 4
    categories: int = 4
    dtype: str = "fp32"
    supervised: bool = False
    statistics: bool = False
    available: bool = False

    @property
    def configuration(self) -> Configuration:
        """The one of the table."""
        if self.name == "gss_finish_kernel":
            return FINISH
        if self.name.startswith("segmentation"):
            return TABLE.segmentation
        kernel: KernelName = "forward" if self.name == "gss_forward_kernel" else "backward"
        return TABLE.of(kernel, self.modalities, self.categories, segmented=self.supervised)

    def launch(self) -> None:
        """Call the public function that launches it, and differentiate that, on memory that nobody touches."""
        space = (_EDGE,) * 3
        shape = (_SAMPLES, self.modalities, self.categories, *space)
        logits = torch.empty(shape, dtype=_DTYPES[self.dtype], requires_grad=True)
        value = self._value(logits, torch.zeros((_SAMPLES, *space), dtype=torch.uint8))
        torch.autograd.grad(value, logits, allow_unused=True)

    def _value(self, logits: Tensor, labels: Tensor) -> Tensor:
        M, C = self.modalities, self.categories
        if self.name.startswith("segmentation"):
            return torch.stack(fused_segmentation_loss(logits[:, 0], labels, backend="triton")).sum()
        made_up = CategoryGroups((*((c % M,) for c in range(C - 1)), (0, M - 1)))
        groups = {(4, 4): BRATS_2018, (4, 5): BRATS_2015}.get((M, C), made_up)
        options: dict[str, Any] = {"backend": "triton"}
        if self.available:
            options["available"] = torch.ones(_SAMPLES, M, dtype=torch.bool)
        if self.name == "gss_target_kernel":
            gss_soft_targets(logits, groups, **options)
            return logits.sum()
        options |= {"seed": 0, "return_stats": self.statistics}
        if self.supervised:
            result = fused_gss_objective(logits, labels, groups, **options)
        else:
            result = fused_gss_loss(logits, groups, **options)
        return result[0] if self.statistics else result


@functools.cache
def compiled(kernel: Kernel, target: str) -> Any:
    """Triton's compiled kernel, as a card would launch it."""
    with noted_specialisations(target, _MULTIPROCESSORS) as noted:
        kernel.launch()
    (found,) = (own for own in noted if own.name == kernel.name)
    return found.compile()


@dataclass(frozen=True)
class Resources:
    """What a kernel's machine code needs.

    Attributes:
        registers: per thread.
        spilled_bytes: of stack per thread.
        instructions: per voxel, of the loop over blocks, or where there is none of the whole kernel; None for AMD, as
            the special functions.
        special_functions: of these the exponentials, logarithms and reciprocals.
        loads: how many bits global loads take at a time, and how many loads of that width, per thread and block; for
            AMD vector loads of the whole kernel, as what all threads share comes by scalar loads.
        stores: the same.
    """

    registers: int
    spilled_bytes: int
    instructions: float | None = None
    special_functions: float | None = None
    loads: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    stores: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)


def resources(kernel: Kernel, target: str) -> Resources:
    """The resources of a kernel compiled for `target`."""
    code = compiled(kernel, target).asm
    if target.startswith("gfx"):
        return _amd_resources(code["amdgcn"])
    found = machine_code(code["cubin"])
    voxels = kernel.configuration.voxels_per_thread
    return Resources(
        registers=found.registers,
        spilled_bytes=found.spilled_bytes,
        instructions=found.loop.instructions / voxels,
        special_functions=found.loop.special_functions / voxels,
        loads=found.loop.loads,
        stores=found.loop.stores,
    )


def spilled_bytes(kernel: Kernel, target: str) -> int:
    """Of stack per thread, as in `resources`, for a hundredth of the time: NVIDIA's code is not disassembled."""
    code = compiled(kernel, target).asm
    if target.startswith("gfx"):
        return _amd_resources(code["amdgcn"]).spilled_bytes
    usage = nvidia_tool("cuobjdump", code["cubin"], "--dump-resource-usage")
    (stack,) = re.findall(r"STACK:(\d+)", usage)
    return int(stack)


def _amd_resources(assembly: str) -> Resources:
    values = {
        key: int(value) for key, value in re.findall(r"\.(vgpr_count|private_segment_fixed_size):\s+(\d+)", assembly)
    }
    return Resources(
        registers=values["vgpr_count"],
        spilled_bytes=values["private_segment_fixed_size"],
        loads=_amd_widths(assembly, "load"),
        stores=_amd_widths(assembly, "store"),
    )


def _amd_widths(assembly: str, kind: str) -> collections.Counter[int]:
    bits = {
        "ubyte": 8,
        "sbyte": 8,
        "byte": 8,
        "ushort": 16,
        "short": 16,
        "dword": 32,
        "dwordx2": 64,
        "dwordx3": 96,
        "dwordx4": 128,
    }
    found = re.findall(rf"^\s+(?:global|buffer|flat)_{kind}_(\w+)\s", assembly, flags=re.MULTILINE)
    return collections.Counter(bits[name.removesuffix("_d16").removesuffix("_d16_hi")] for name in found)
