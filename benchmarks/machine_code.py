"""The Triton kernels compiled for GPUs that this machine need not have, and what their machine code needs.

The numbers are properties of the code, not measurements of time: registers, stack, instructions, widths of loads.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from gss_kernels import CategoryGroups
from gss_kernels.triton import finish, loss, segmentation
from gss_kernels.triton.configuration import TABLE, Configuration, KernelName, num_sums
from gss_kernels.triton.group import leader_bits
from gss_kernels.triton.launch import FINISH, FINISH_CHUNK, compile_options
from gss_kernels.triton.voxels import KEEP_DRAWN

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
SIZES = ((4, 4), (4, 5), (2, 2), (3, 4), (4, 3))
"""Modalities and categories."""

_ALIGNED = [["tt.divisibility", 16]]
_MODULES = {
    "forward_kernel": loss,
    "backward_kernel": loss,
    "target_kernel": loss,
    "finish_kernel": finish,
    "segmentation_forward_kernel": segmentation,
    "segmentation_backward_kernel": segmentation,
}
_NUMBERS = {
    "last_masked_word": "i64",
    **dict.fromkeys(("blocks", "programs", "num_samples", "upstream_stride"), "i32"),
}
_TUPLES = {"vote": ("fp32",) * 4, "scales": ("fp32",) * 2, "weights": ("fp32",) * 2, "upstream_strides": ("i32",) * 2}
_POINTERS = {"available_pointer": "*u8", "keep_pointer": "*u8", "seed_pointer": "*i64", "label_pointer": "*u8"}
_PREDICTIONS = ("pointer", "gradient_pointer")


@dataclass(frozen=True)
class Kernel:
    """A kernel to compile, as a launch on dense volumes of a multiple of 16 voxels would.

    Attributes:
        name: of the function.
        modalities: M.
        categories: C.
        dtype: of logits and gradients, as Triton names it.
        supervised: with the supervised loss.
        statistics: with the statistics of the vote.
        available: with missing modalities.
        integers: of strides and numbers of voxels, "i64" beyond 32 bits.
    """

    name: str
    modalities: int = 4
    categories: int = 4
    dtype: str = "fp32"
    supervised: bool = False
    statistics: bool = False
    available: bool = False
    integers: str = "i32"

    @property
    def sums(self) -> int:
        """That the forward pass keeps."""
        return num_sums(self.modalities, self.categories, supervised=self.supervised, statistics=self.statistics)

    @property
    def configuration(self) -> Configuration:
        """The one of the table."""
        if self.name == "finish_kernel":
            return FINISH
        if self.name.startswith("segmentation"):
            return TABLE.segmentation
        kernel: KernelName = "forward" if self.name == "forward_kernel" else "backward"
        return TABLE.of(kernel, self.modalities, self.categories, supervised=self.supervised)

    def constants(self) -> dict[str, Any]:
        """What the kernel is compiled for."""
        M, C = self.modalities, self.categories
        groups = CategoryGroups((*((c % M,) for c in range(C - 1)), (0, M - 1)))
        return {
            "M": M,
            "C": C,
            "LEADERS": leader_bits(groups, M),
            "RELEASED": False,
            "HAS_AVAILABLE": self.available,
            "SQUARINGS": 3,
            "LOG2_CLAMP": math.log2(0.005),
            "MASK": KEEP_DRAWN.value,
            "KL": True,
            "SUPERVISED": self.supervised,
            "STATISTICS": self.statistics,
            "DISTILLATION": True,
            "CLASS_WEIGHTING": True,
            "FROM_LOGITS": True,
            "ROWS": self.sums,
            "M_PADDED": triton.next_power_of_2(M),
            "C_PADDED": triton.next_power_of_2(C),
            "CHUNK": FINISH_CHUNK,
            "VOXELS": self.configuration.voxels_per_thread,
        }


@functools.cache
def compiled(kernel: Kernel, target: str, overrides: tuple[tuple[str, Any], ...] = ()) -> Any:
    """Triton's compiled kernel; `overrides` replace constants, and make constants of other arguments."""
    function = getattr(_MODULES[kernel.name], kernel.name)
    block = kernel.configuration.block(TARGETS[target].warp_size)
    values = kernel.constants() | {"BLOCK": block, "PTX": target.startswith("sm")} | dict(overrides)
    signature: dict[str, Any] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for i, name in enumerate(function.arg_names):
        if name in values:
            signature[name], constants[i,] = "constexpr", values[name]
        elif name in ("pointers", "gradient_pointers"):
            signature[name] = (f"*{kernel.dtype}",) * kernel.modalities
            attributes.update({(i, m): _ALIGNED for m in range(kernel.modalities)})
        elif name in ("strides", "gradient_strides"):
            signature[name] = (kernel.integers, kernel.integers, "constexpr")
            constants[i, 2] = 1
            attributes[i, 0] = attributes[i, 1] = _ALIGNED
        elif name == "num_voxels":
            signature[name], attributes[i,] = kernel.integers, _ALIGNED
        elif name.endswith("pointer"):
            signature[name] = f"*{kernel.dtype}" if name in _PREDICTIONS else _POINTERS.get(name, "*fp32")
            attributes[i,] = _ALIGNED
        else:
            signature[name] = _TUPLES.get(name) or _NUMBERS.get(name, "fp32")
    source = ASTSource(function, signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=TARGETS[target], options=compile_options(kernel.configuration))


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
    return _amd_resources(code["amdgcn"]) if target.startswith("gfx") else _nvidia_resources(kernel, code["cubin"])


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


def _nvidia_resources(kernel: Kernel, cubin: bytes) -> Resources:
    usage = _tool("cuobjdump", cubin, "--dump-resource-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise ValueError(f"cuobjdump: got no register count in {usage!r}")
    body = _main_loop(_tool("nvdisasm", cubin, "-c"))
    voxels = kernel.configuration.voxels_per_thread
    operations = [instruction.removeprefix("@").split(maxsplit=1) for instruction in body]
    names = [parts[1].split()[0] if parts[0].lstrip("!").startswith(("P", "UP")) else parts[0] for parts in operations]
    return Resources(
        registers=int(found[1]),
        spilled_bytes=int(found[2]),
        instructions=len(names) / voxels,
        special_functions=sum(name.startswith("MUFU") for name in names) / voxels,
        loads=_widths(names, "LDG"),
        stores=_widths(names, "STG"),
    )


def _widths(names: list[str], kind: str) -> collections.Counter[int]:
    widths: collections.Counter[int] = collections.Counter()
    for name in names:
        if name.split(".")[0] == kind:
            found = re.search(r"\.(?:[US])?(8|16|64|128)(?:\.|$)", name)
            widths[int(found[1]) if found else 32] += 1
    return widths


def _main_loop(disassembly: str) -> list[str]:
    """The instructions of the longest loop that loads anything, or all if there is none."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    longest: list[str] = []
    for line in disassembly.splitlines():
        if label := re.match(r"\s*(\.L_x_\d+):", line):
            labels[label[1]] = len(instructions)
        elif found := re.match(r"\s+/\*[0-9a-f]+\*/\s+(.*?)\s*;", line):
            instruction = found[1]
            jump = re.search(r"BRA.*(\.L_x_\d+)", instruction)
            instructions.append(instruction)
            if jump and jump[1] in labels:
                loop = instructions[labels[jump[1]] :]
                if any("LDG" in own for own in loop):
                    longest = max(longest, loop, key=len)
    return longest or [instruction for instruction in instructions if not instruction.startswith("NOP")]


def _tool(name: str, cubin: bytes, *options: str) -> str:
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        return subprocess.run([path, *options, file], capture_output=True, text=True, check=True).stdout
