"""The threads of some CTAs, which run together: their registers, and what they know of themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from tests.ptx.memory import GlobalMemory, SharedMemory
from tests.ptx.number_formats import DTYPES, Array, BoolArray
from tests.ptx.program import Instruction, Program, PTXError
from tests.ptx.races import stamps

WARP = 32
SPECIAL_REGISTERS = ("%tid", "%ctaid", "%ntid", "%nctaid")


class UndefinedValueError(PTXError):
    """A value that depends on a register nobody wrote decides what a kernel does or stores."""


@dataclass(frozen=True)
class Launch:
    """What all threads of a launch share.

    Attributes:
        program: that they run.
        grid: number of CTAs.
        threads_per_cta: a multiple of 32.
        shared_bytes: of each CTA.
        arguments: bits of the parameters, by name.
        memory: global.
    """

    program: Program
    grid: int
    threads_per_cta: int
    shared_bytes: int
    arguments: dict[str, int]
    memory: GlobalMemory

    @property
    def warps_per_cta(self) -> int:
        """Warps of a CTA."""
        return self.threads_per_cta // WARP


class Threads:
    """All threads of CTAs `first` to `first + num_ctas - 1`.

    A register holds unsigned integers, or booleans, one per thread. Which of its bits were never written, or computed
    from such bits, is known too: a compiler may compute with them, as long as nothing comes of it.
    """

    def __init__(self, launch: Launch, first: int, num_ctas: int) -> None:
        self.launch = launch
        self.size = num_ctas * launch.threads_per_cta
        self.ctas = np.repeat(np.arange(num_ctas), launch.threads_per_cta)
        self.everyone = np.arange(self.size)
        self._first = first
        self._warps = self.everyone // WARP + first * launch.warps_per_cta
        self._epochs = np.zeros(self.size, np.int64)
        self.stamps = stamps(self._warps, self._epochs)
        self.shared = SharedMemory(launch.shared_bytes, num_ctas, launch.warps_per_cta, launch.program.instructions)
        self._values: dict[str, Array] = {}
        self._undefined: dict[str, BoolArray] = {}
        along_x = (self.everyone % launch.threads_per_cta, self.ctas + first, launch.threads_per_cta, launch.grid)
        for name, values in zip(SPECIAL_REGISTERS, along_x, strict=True):
            self._values[f"{name}.x"] = np.full(self.size, values, np.uint32)
            for axis in "yz":
                self._values[f"{name}.{axis}"] = np.full(self.size, int(name.startswith("%n")), np.uint32)

    def read(self, name: str) -> Array:
        """A register's bits; 0 where undefined."""
        if name not in self._values:
            kind = self.launch.program.registers[name]
            nothing = DTYPES[kind if kind == "pred" else f"u{kind[1:]}"](0)
            self._values[name] = np.full(self.size, nothing)
            self._undefined[name] = np.full(self.size, ~nothing)
        return self._values[name]

    def undefined_bits(self, name: str) -> Array | None:
        """The bits of a register that are undefined, as ones; None if there are none. It has been read."""
        return self._undefined.get(name)

    def undefined_in(self, names: Iterable[str]) -> BoolArray | None:
        """Where any of the registers, which have been read, has undefined bits; None if nowhere."""
        found: BoolArray | None = None
        for name in names:
            if (own := self._undefined.get(name)) is not None:
                found = own != 0 if found is None else found | (own != 0)
        return found

    def write(self, name: str, bits: Array, active: BoolArray | None, undefined: Array | None = None) -> None:
        """Give a register of the active threads, None for all, a value.

        `undefined` says which bits of it, or in which threads all of them, are undefined.
        """
        nothing, everything = bits.dtype.type(0), ~bits.dtype.type(0)
        if bits.ndim == 0:
            bits = np.full(self.size, bits)
        if undefined is not None and undefined.dtype != bits.dtype:
            undefined = np.where(undefined, everything, nothing)
        if active is not None:
            before = self.read(name)
            bits = np.where(active, bits, before)
            kept = self._undefined.get(name)
            if undefined is not None or kept is not None:
                undefined = np.where(
                    active, nothing if undefined is None else undefined, nothing if kept is None else kept
                )
        self._values[name] = bits
        if undefined is not None and undefined.any():
            self._undefined[name] = undefined
        else:
            self._undefined.pop(name, None)

    def require(self, names: Iterable[str], active: BoolArray | None, instruction: Instruction) -> None:
        """Raise an error where a register of an active thread is undefined; the registers have been read."""
        for name in names:
            undefined = self.undefined_in((name,))
            if undefined is None:
                continue
            if active is not None:
                undefined = undefined & active
            if undefined.any():
                raise UndefinedValueError(
                    f"{instruction}: {name} of {self.describe(int(np.argmax(undefined)))} is not initialised"
                )

    def describe(self, thread: int) -> str:
        """A thread in words."""
        own = thread % self.launch.threads_per_cta
        return f"thread {own} of CTA {self._first + int(self.ctas[thread])}"

    def numbers(self, active: BoolArray | None) -> Array:
        """The active threads, counted from the first of these."""
        return self.everyone if active is None else np.flatnonzero(active)

    def whole_warps(self, active: BoolArray | None, instruction: Instruction) -> Array:
        """The numbers of the active threads; an error where some of a warp are not active."""
        if active is not None:
            by_warp = active.reshape(-1, WARP)
            if (divided := by_warp.any(axis=1) != by_warp.all(axis=1)).any():
                thread = self.describe(int(np.argmax(divided)) * WARP)
                raise PTXError(f"{instruction}: not all threads of the warp of {thread} are here, need all")
        return self.numbers(active)

    def pass_barrier(self, passing: BoolArray | None) -> None:
        """All that these threads do from here on comes after what they have done."""
        self._epochs += 1 if passing is None else passing
        self.stamps = stamps(self._warps, self._epochs)
