"""What the machine code of a kernel for sm_90 (SASS) says about its pace, read without a card.

All counts are of instructions as they stand in the code, for one warp: an instruction counts once, whether a predicate
switches it off, a branch skips it or a call repeats it. So code that only some programs need, such as the long way of a
division that stands in line, counts as the rest. Subroutines are counted apart; the compiler makes them of long ways
that hardly anyone takes.
"""

from __future__ import annotations

import collections
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import triton

_REGISTERS, _REGISTERS_STEP, _MOST_REGISTERS = 65_536, 8, 255
_SCHEDULERS, _WARP = 4, 32
_MOST_THREADS, _MOST_PROGRAMS = 2048, 32
_SHARED_BYTES, _SHARED_STEP, _RESERVED_BYTES = 228 * 1024, 128, 1024
_LINE = re.compile(
    r"^\s*(?P<label>[.$\w]+):[ \t]*$"
    r"|^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?(?P<name>[A-Z][\w.]*)(?P<operands>[^;\n]*);"
    r"\s+/\* 0x[0-9a-f]{16} \*/\s+/\* 0x(?P<high>[0-9a-f]{16}) \*/",
    flags=re.MULTILINE,
)
_TARGET = re.compile(r"`\(([.$\w]+)\)")
_LOADS, _STORES = ("LDG", "LDGSTS"), ("STG",)


@dataclass(frozen=True)
class Instruction:
    """An instruction that a warp issues.

    Attributes:
        name: with its modifiers, without a predicate.
        stall_cycles: that the warp waits at least before it issues its next instruction.
        target: where a branch or a call goes, the number of an instruction in the order of the code.
    """

    name: str
    stall_cycles: int
    target: int | None = None

    @property
    def kind(self) -> str:
        """The name without modifiers."""
        return self.name.split(".")[0]


@dataclass(frozen=True)
class Counts:
    """Of a part of the code.

    Attributes:
        instructions: issue slots that a warp takes.
        stall_cycles: the least time in which a warp that is alone issues them. What takes a time that the compiler does
            not know (memory, special functions, shuffles, barriers) makes it wait beyond that.
        special_functions: exponentials, logarithms and reciprocals.
        shuffles: exchanges within the warp.
        barriers: of the program.
        loads: how many bits per thread global loads take at a time, and how many loads of that width there are.
        stores: the same.
    """

    instructions: int
    stall_cycles: int
    special_functions: int
    shuffles: int
    barriers: int
    loads: collections.Counter[int]
    stores: collections.Counter[int]


@dataclass(frozen=True)
class MachineCode:
    """Of a kernel.

    Attributes:
        registers: per thread.
        spilled_bytes: of stack per thread.
        loop: one turn of the main loop, the longest that loads global memory; the whole kernel where there is none.
        outside: what is before and after the main loop; nothing where there is none.
        called: subroutines.
    """

    registers: int
    spilled_bytes: int
    loop: Counts
    outside: Counts
    called: Counts


def machine_code(cubin: bytes) -> MachineCode:
    """The machine code of a file with one kernel."""
    usage = nvidia_tool("cuobjdump", cubin, "--dump-resource-usage")
    found = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
    if len(found) != 1:
        raise ValueError(f"cuobjdump: got {usage!r}, expected registers and stack (REG:, STACK:) of one kernel")
    loop, outside, called = parts(decode(nvidia_tool("nvdisasm", cubin, "-c", "-hex")))
    return MachineCode(int(found[0][0]), int(found[0][1]), counts(loop), counts(outside), counts(called))


def decode(disassembly: str) -> list[Instruction]:
    """The instructions in what `nvdisasm -c -hex` writes of one kernel, without the filling behind the last."""
    lines = list(_LINE.finditer(disassembly))
    found = [line for line in lines if line["label"] is None]
    labels: dict[str, int] = {}
    number = 0
    for line in lines:
        if line["label"] is None:
            number += 1
        else:
            labels[line["label"]] = number
    kernels = [label for label in labels if label.startswith(".text.")]
    addresses = len(re.findall(r"/\*[0-9a-f]{4,}\*/", disassembly))
    if len(kernels) != 1 or len(found) != addresses or not found:
        raise ValueError(
            f"nvdisasm: got {len(kernels)} kernels (labels .text.NAME) and {addresses} addresses, {len(found)} of them"
            " with an instruction and two words of encoding, expected one kernel and an instruction at each address"
        )
    return _without_filling([_instruction(line, labels) for line in found])


def _instruction(line: re.Match[str], labels: dict[str, int]) -> Instruction:
    # Bits 105 to 108 of the 128: the first field of what the compiler tells the scheduler. A warp issues no more than
    # one instruction in a cycle, also where it says 0.
    stall_cycles = max(1, int(line["high"], 16) >> 41 & 15)
    target = None
    if re.match("BRA|BRX|JMP|JMX|CALL", line["name"]):
        label = _TARGET.search(line["operands"])
        if label is None or label[1] not in labels:
            raise ValueError(f"nvdisasm: got {line['name']}{line['operands']}, expected a label of the code")
        target = labels[label[1]]
    return Instruction(line["name"], stall_cycles, target)


def _without_filling(instructions: list[Instruction]) -> list[Instruction]:
    """Behind the last instruction are a branch to itself, which nothing reaches, and NOPs."""
    end = len(instructions)
    while end and instructions[end - 1].kind == "NOP":
        end -= 1
    if end and instructions[end - 1].kind == "BRA" and instructions[end - 1].target == end - 1:
        end -= 1
    return instructions[:end]


def parts(instructions: list[Instruction]) -> tuple[list[Instruction], list[Instruction], list[Instruction]]:
    """The main loop, or the whole kernel without one; what is outside; subroutines, which follow the kernel."""
    entries = [own.target for own in instructions if own.kind == "CALL" and own.target is not None]
    end = min(entries, default=len(instructions))
    kernel, called = instructions[:end], instructions[end:]
    loops = [(own.target, i + 1) for i, own in enumerate(kernel) if own.target is not None and own.target <= i]
    loading = [(start, stop) for start, stop in loops if _widths(kernel[start:stop], _LOADS)]
    start, stop = max(loading, key=lambda loop: loop[1] - loop[0], default=(0, end))
    return kernel[start:stop], kernel[:start] + kernel[stop:], called


def counts(instructions: list[Instruction]) -> Counts:
    """Of a part of the code."""
    kinds = collections.Counter(own.kind for own in instructions)
    return Counts(
        instructions=len(instructions),
        stall_cycles=sum(own.stall_cycles for own in instructions),
        special_functions=kinds["MUFU"],
        shuffles=kinds["SHFL"],
        barriers=kinds["BAR"],
        loads=_widths(instructions, _LOADS),
        stores=_widths(instructions, _STORES),
    )


def _widths(instructions: list[Instruction], kinds: tuple[str, ...]) -> collections.Counter[int]:
    names = [own.name for own in instructions if own.kind in kinds]
    found = [re.search(r"\.[US]?(8|16|64|128|256)(?:\.|$)", name) for name in names]
    return collections.Counter(int(width[1]) if width else 32 for width in found)


def resident_programs(registers: int, num_warps: int, shared_bytes: int) -> int:
    """How many programs of a kernel a multiprocessor of sm_90 holds at a time; 0 where it holds none.

    A quarter of the registers belongs to each of four schedulers, and a warp takes its own in steps of 8 per thread. A
    program takes 1 KiB of shared memory beyond its own.
    """
    if not 1 <= registers <= _MOST_REGISTERS or num_warps < 1 or shared_bytes < 0:
        raise ValueError(
            f"got registers={registers}, num_warps={num_warps}, shared_bytes={shared_bytes}, expected 1 to"
            f" {_MOST_REGISTERS} registers, at least one warp, and no negative number of bytes"
        )
    registers_of_warp = _WARP * _up(registers, _REGISTERS_STEP)
    warps = _SCHEDULERS * (_REGISTERS // _SCHEDULERS // registers_of_warp)
    by_shared_memory = _SHARED_BYTES // (_up(shared_bytes, _SHARED_STEP) + _RESERVED_BYTES)
    return min(warps // num_warps, _MOST_THREADS // (_WARP * num_warps), by_shared_memory, _MOST_PROGRAMS)


def _up(number: int, step: int) -> int:
    return -(-number // step) * step


def nvidia_tool(name: str, cubin: bytes, *options: str) -> str:
    """What a tool of Triton's wheel writes about a file of machine code."""
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        return subprocess.run([path, *options, file], capture_output=True, text=True, check=True).stdout
