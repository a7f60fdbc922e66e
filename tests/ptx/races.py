"""Finds accesses of different warps to the same byte, one of them a write, with nothing in between that orders them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.ptx.number_formats import Array, BoolArray
from tests.ptx.program import Instruction, PTXError

_WARP = np.int64(0xFFFF_FFFF)
_EPOCH = 32


class RaceError(PTXError):
    """Two warps access the same byte without a barrier between them, and one writes."""


def stamps(warps: Array, epochs: Array) -> Array:
    """Who accesses, and when: numbers of warps in the whole grid, and how many barriers their CTA has passed."""
    found: Array = epochs << _EPOCH | (warps + 1)
    return found


class WatchedBytes:
    """A stretch of memory and, for one launch, the accesses to each byte: the last write, and two warps that have read.

    A barrier orders what the warps of one CTA do, nothing orders what different CTAs do. Warps of a CTA may write the
    same value by the same instruction, as they do where several hold what is stored. What is reported is a race, but
    one between more than two CTAs may stay unseen.
    """

    def __init__(self, memory: NDArray[np.uint8], warps_per_cta: int, instructions: Sequence[Instruction]) -> None:
        self._memory = memory
        self._warps_per_cta = warps_per_cta
        self._instructions = instructions
        self._written, self._read, self._read_by_another = (_Entries(memory.size) for _ in range(3))

    def read(self, places: Array, stamp: Array, instruction: Instruction) -> NDArray[np.uint8]:
        """The bytes at `places`, a row for each thread; `stamp` says who reads, and when."""
        where, who = places.ravel(), np.repeat(stamp, places.shape[1])
        self._check(self._written, where, who, instruction)
        found = self._read.stamps[where]
        free = (found == 0) | (self._same_cta(found, who) & (found >> _EPOCH != who >> _EPOCH))
        self._read.note(where[free], who[free], instruction)
        other = self._read.stamps[where] & _WARP != who & _WARP
        self._read_by_another.note(where[other], who[other], instruction)
        values: NDArray[np.uint8] = self._memory[places]
        return values

    def write(self, places: Array, stamp: Array, instruction: Instruction, values: NDArray[np.uint8]) -> None:
        """Write the values, a row for each thread."""
        where, who = places.ravel(), np.repeat(stamp, places.shape[1])
        for earlier in (self._written, self._read, self._read_by_another):
            self._check(earlier, where, who, instruction)
        self._written.note(where, who, instruction)
        self._memory[places] = values
        # Of several threads that have just written the same byte, one has prevailed.
        differs = self._memory[where] != values.ravel()
        unequal = differs | ~self._same_cta(self._written.stamps[where], who)
        self._check(self._written, where[unequal], who[unequal], instruction)

    def _same_cta(self, one: Array, other: Array) -> BoolArray:
        ctas = [((stamp & _WARP) - 1) // self._warps_per_cta for stamp in (one, other)]
        return np.asarray(ctas[0] == ctas[1])

    def _check(self, earlier: _Entries, places: Array, stamp: Array, instruction: Instruction) -> None:
        found = earlier.stamps[places]
        races = (found != 0) & (found & _WARP != stamp & _WARP)
        if not races.any():
            return
        races &= (found >> _EPOCH == stamp >> _EPOCH) | ~self._same_cta(found, stamp)
        if races.any():
            at = int(np.argmax(races))
            other = self._instructions[earlier.instructions[places[at]]]
            one, another = (int(value[at] & _WARP) - 1 for value in (stamp, found))
            raise RaceError(
                f"race: {instruction} of {self._described(one)} and {other} of {self._described(another)} access the "
                "same byte without a barrier between them"
            )

    def _described(self, warp: int) -> str:
        return f"warp {warp % self._warps_per_cta} of CTA {warp // self._warps_per_cta}"


class _Entries:
    """One access for each byte: who and when, 0 for nobody, and by which instruction."""

    def __init__(self, size: int) -> None:
        self.stamps: NDArray[np.int64] = np.zeros(size, np.int64)
        self.instructions: NDArray[np.int32] = np.zeros(size, np.int32)

    def note(self, places: Array, stamp: Array, instruction: Instruction) -> None:
        self.stamps[places] = stamp
        self.instructions[places] = instruction.number
