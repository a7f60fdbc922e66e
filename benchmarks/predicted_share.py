"""What share of the copy's bandwidth a kernel will reach on an H200, predicted from its machine code alone.

A prediction written down before any card has run, to be compared when one has; no number here but the pace of the copy
is measured. It assumes:

- The clock is the highest, and memory moves the fewest bytes that must move, at the pace of a device-to-device copy.
- Each of a multiprocessor's four schedulers issues one instruction in a cycle, from whichever resident warp is ready. A
  warp that is alone takes its stall cycles, so W warps issue at most W times as many in that time. It is ready again
  when they have passed: waits for memory, special functions, shuffles and barriers are hidden. That is optimistic,
  most of all for `outside`, where reductions follow each other; `spare_cycles` says how much wait of a turn is hidden.
- A scheduler begins four lanes of a special function in a cycle, so a warp's takes eight. No other unit is scarce: of
  the instructions, less than half are integers, comparisons and selections, which begin at half the pace.
- All code outside the loop runs once per program, and no subroutine is called.
- Programs come in waves that fill the card, and all of a wave take as long as one with the most turns. A last wave that
  is not full takes as long as a full one.
- Memory and computation overlap in full; launches take no time. Nothing is found in a cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.machine_code import Kernel
from benchmarks.sass import MachineCode

_SCHEDULERS = 4
_SPECIAL_CYCLES = 8
_ITEM_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_PASSES_OVER_LOGITS = {"gss_forward_kernel": 1, "gss_backward_kernel": 2}


@dataclass(frozen=True)
class Card:
    """What a card of sm_90 has.

    Attributes:
        multiprocessors: of the card.
        clock: cycles per second.
        copy_bytes_per_second: that a large device-to-device copy moves, bytes read and written.
    """

    multiprocessors: int
    clock: float
    copy_bytes_per_second: float


H200 = Card(multiprocessors=132, clock=1.98e9, copy_bytes_per_second=4.3e12)


@dataclass(frozen=True)
class Launch:
    """Of a kernel.

    Attributes:
        programs: of the grid.
        turns: of the main loop in the program with the most; 1 for a kernel without a loop.
        num_warps: of a program.
        resident: programs that a multiprocessor holds at a time.
        floor_bytes: that must be read and written.
    """

    programs: int
    turns: int
    num_warps: int
    resident: int
    floor_bytes: int


@dataclass(frozen=True)
class Prediction:
    """Of a launch.

    Attributes:
        seconds: that it takes.
        share: of the copy's bandwidth, 1 at most.
        limit: what takes the time: memory, instructions, special functions or latency.
        waves: of programs.
        spare_cycles: that a warp may wait in one turn of the loop without a cycle in which its scheduler issues
            nothing; below 0 that many cycles are lost even without a wait.
    """

    seconds: float
    share: float
    limit: str
    waves: int
    spare_cycles: float


def predict(code: MachineCode, launch: Launch, card: Card = H200) -> Prediction:
    """The time of a launch, see the module."""
    if min(launch.programs, launch.turns, launch.num_warps, launch.resident) < 1:
        raise ValueError(f"launch: got {launch}, expected at least one program, turn, warp and resident program")
    together = min(launch.resident, math.ceil(launch.programs / card.multiprocessors))
    waves = math.ceil(launch.programs / (together * card.multiprocessors))
    warps = together * launch.num_warps / _SCHEDULERS
    loop, outside, turns = code.loop, code.outside, launch.turns
    special_functions = turns * loop.special_functions + outside.special_functions
    cycles = {
        "instructions": warps * (turns * loop.instructions + outside.instructions),
        "special functions": warps * _SPECIAL_CYCLES * special_functions,
        "latency": turns * loop.stall_cycles + outside.stall_cycles,
    }
    memory = launch.floor_bytes / card.copy_bytes_per_second
    seconds = {"memory": memory} | {name: waves * own / card.clock for name, own in cycles.items()}
    limit = max(seconds, key=lambda name: seconds[name])
    spare_cycles = warps * loop.instructions - loop.stall_cycles
    return Prediction(seconds[limit], memory / seconds[limit], limit, waves, spare_cycles)


def launch_of(kernel: Kernel, resident: int, samples: int, voxels: int, card: Card = H200) -> Launch:
    """How the table's configuration launches a pass over `samples` volumes of `voxels` voxels."""
    if kernel.name not in _PASSES_OVER_LOGITS:
        raise ValueError(f"kernel: got {kernel.name!r}, expected one of {list(_PASSES_OVER_LOGITS)}")
    configuration = kernel.configuration
    programs = blocks = math.ceil(voxels / configuration.block(threads_per_warp=32))
    if kernel.name == "gss_forward_kernel":
        wanted = math.ceil(configuration.programs_per_multiprocessor * card.multiprocessors / samples)
        programs = min(wanted, blocks)
    logits = samples * kernel.modalities * kernel.categories * voxels * _ITEM_BYTES[kernel.dtype]
    labels = samples * voxels if kernel.supervised else 0
    floor_bytes = _PASSES_OVER_LOGITS[kernel.name] * logits + labels
    return Launch(samples * programs, math.ceil(blocks / programs), configuration.num_warps, resident, floor_bytes)
