"""Executes a kernel's PTX on the CPU: an instruction for all threads of many CTAs at a time, memory accesses checked.

Of threads at different places those at the first place in the text go on, so that all meet again where branches join.
Threads of one warp may part; an instruction that needs all of a warp says so if some are elsewhere.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tests.ptx.memory import GlobalMemory
from tests.ptx.number_formats import BoolArray, bits_of
from tests.ptx.operands import Operands
from tests.ptx.program import Immediate, Instruction, Program, PTXError, Symbol, UnknownInstructionError, parse
from tests.ptx.steps import Step, step_of
from tests.ptx.threads import WARP, Launch, Threads

Counts = collections.Counter[str]
"""How often warps execute instructions, by their names."""

# Together registers of so many threads stay in a processor's cache.
_THREADS_AT_ONCE = 4096
_BRANCHES = ("bra", "bra.uni")
_ENDS = ("ret", "exit")
_BARRIERS = ("bar.sync", "bar.cta.sync", "barrier.sync.aligned", "barrier.cta.sync.aligned")


class Branch(NamedTuple):
    """Go on at another instruction."""

    target: int


class Barrier(NamedTuple):
    """Wait for all threads of the CTA."""


class End(NamedTuple):
    """The thread ends."""


Action = Step | Branch | Barrier | End


@dataclass(frozen=True)
class Executable:
    """A program, and what is done at each instruction."""

    program: Program
    actions: tuple[Action, ...]


@functools.lru_cache(maxsize=64)
def executable(ptx: str) -> Executable:
    """All of a kernel's instructions, understood; an error names one that is not known."""
    program = parse(ptx)
    return Executable(program, tuple(_action(program, instruction) for instruction in program.instructions))


def _action(program: Program, instruction: Instruction) -> Action:
    operands = Operands(program, instruction)
    if instruction.predicate is not None and program.registers.get(instruction.predicate) != "pred":
        raise UnknownInstructionError(f"{instruction}: got predicate {instruction.predicate}, need a declared one")
    if instruction.name in _BRANCHES:
        (label,) = operands.count(1)
        if not isinstance(label, Symbol) or label.name not in program.labels:
            raise UnknownInstructionError(f"{instruction}: got {label}, need a label of the kernel")
        return Branch(program.labels[label.name])
    if instruction.name in _ENDS:
        operands.count(0)
        return End()
    if instruction.name in _BARRIERS:
        if operands.count(1) != (Immediate(0),):
            operands.reject("a barrier among some threads, or with another number", "barrier 0 of all threads")
        return Barrier()
    return step_of(program, instruction)


def execute(
    ptx: str, *, grid: int, num_warps: int, shared_bytes: int, arguments: Sequence[int], memory: GlobalMemory
) -> Counts:
    """Run a kernel.

    Args:
        ptx: its text.
        grid: number of CTAs.
        num_warps: of a CTA.
        shared_bytes: of each CTA, for variables whose size the text leaves open.
        arguments: the parameters in order: addresses, integers, bits of floating-point numbers.
        memory: what the kernel may touch.

    Returns:
        How often warps executed instructions, by their names.

    Raises:
        PTXError: of a kind that says what is wrong.
    """
    code = executable(ptx)
    program = code.program
    if program.threads not in (None, num_warps * WARP):
        raise PTXError(
            f"num_warps: got {num_warps}, need {(program.threads or 0) // WARP}, as kernel {program.name} says"
        )
    launch = Launch(program, grid, num_warps * WARP, shared_bytes, _arguments(program, arguments), memory)
    memory.begin_launch(num_warps, program.instructions)
    counts: Counts = collections.Counter()
    at_once = max(1, _THREADS_AT_ONCE // launch.threads_per_cta)
    # What threads that do not take part compute is not used.
    with np.errstate(all="ignore"):
        for first in range(0, grid, at_once):
            _Run(code, Threads(launch, first, min(at_once, grid - first)), counts).to_the_end()
    return counts


def _arguments(program: Program, values: Sequence[int]) -> dict[str, int]:
    if len(values) != len(program.parameters):
        raise PTXError(f"arguments: got {len(values)}, need {len(program.parameters)} for kernel {program.name}")
    found = {}
    for parameter, value in zip(program.parameters, values, strict=True):
        bits = bits_of(parameter.kind)
        if not -(1 << (bits - 1)) <= value < 1 << bits:
            raise PTXError(f"argument {parameter.name}: got {value}, need a number of {bits} bits")
        found[parameter.name] = value & ((1 << bits) - 1)
    return found


class _Run:
    """The way of some CTAs' threads through a program."""

    def __init__(self, code: Executable, threads: Threads, counts: Counts) -> None:
        self._code = code
        self._threads = threads
        self._counts = counts
        self._places: dict[int, BoolArray] = {0: np.ones(threads.size, np.bool_)}
        self._alive = np.ones(threads.size, np.bool_)
        self._at_barrier = np.full(threads.size, -1)

    def to_the_end(self) -> None:
        """Until all threads have ended."""
        while self._places:
            place = min(self._places)
            self._go_on(place, self._places.pop(place))
        if self._alive.any():
            thread = int(np.argmax(self._alive))
            instruction = self._code.program.instructions[self._at_barrier[thread]]
            raise PTXError(
                f"{instruction}: {self._threads.describe(thread)} waits for threads that have ended or wait elsewhere"
            )

    def _go_on(self, place: int, present: BoolArray) -> None:
        """From a place to where threads part, end, wait or meet others."""
        everyone = None if present.all() else present
        warps = int(present.reshape(-1, WARP).any(axis=1).sum())
        meeting = min(self._places, default=-1)
        instructions, actions = self._code.program.instructions, self._code.actions
        while place != meeting:
            if place == len(actions):
                raise PTXError(f"kernel {self._code.program.name}: the text ends without ret")
            instruction, action = instructions[place], actions[place]
            active = self._active(instruction, everyone)
            self._counts[instruction.name] += warps
            place += 1
            if isinstance(action, Branch | Barrier | End):
                self._part(place, action, present, present if active is None else active)
                return
            if active is None or active.any():
                action(self._threads, active)
        self._join(place, present)

    def _active(self, instruction: Instruction, present: BoolArray | None) -> BoolArray | None:
        """Where the predicate lets an instruction run; None for all threads."""
        if instruction.predicate is None:
            return present
        values = self._threads.read(instruction.predicate)
        self._threads.require((instruction.predicate,), present, instruction)
        active = ~values if instruction.negated else values
        if present is not None:
            active = active & present
        return None if active.all() else active

    def _part(self, place: int, action: Branch | Barrier | End, present: BoolArray, active: BoolArray) -> None:
        """The active threads act; the others that are present go on at a place."""
        self._join(place, present & ~active)
        if isinstance(action, Branch):
            self._join(action.target, active)
        elif isinstance(action, End):
            self._alive &= ~active
        else:
            self._wait(place, active)

    def _join(self, place: int, threads: BoolArray) -> None:
        if threads.any():
            self._places[place] = self._places[place] | threads if place in self._places else threads

    def _wait(self, place: int, active: BoolArray) -> None:
        """At a barrier, until all threads of a CTA are at one."""
        self._threads.whole_warps(active, self._code.program.instructions[place - 1])
        self._at_barrier[active] = place - 1
        threads_per_cta = self._threads.launch.threads_per_cta
        complete = np.repeat((self._at_barrier >= 0).reshape(-1, threads_per_cta).all(axis=1), threads_per_cta)
        if not complete.any():
            return
        self._threads.pass_barrier(complete)
        for barrier in np.unique(self._at_barrier[complete]).tolist():
            self._join(barrier + 1, complete & (self._at_barrier == barrier))
        self._at_barrier[complete] = -1
