"""Instructions by which the threads of a warp exchange values: shuffles, reductions, matrices in shared memory."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tests.ptx.memory import Access
from tests.ptx.number_formats import DTYPES, Array, BoolArray
from tests.ptx.operands import Operands, Source
from tests.ptx.program import Instruction, PTXError, UnknownInstructionError
from tests.ptx.threads import WARP, Threads

Step = Callable[[Threads, BoolArray | None], None]

_MATRIX = re.compile(r"(ld|st)matrix\.sync\.aligned\.m8n8\.x([124])(\.trans)?\.shared(?:::cta)?\.b16")
_SHUFFLE = re.compile(r"shfl\.sync\.(bfly|idx|up|down)\.b32")
_REDUCTIONS: dict[str, tuple[str, np.ufunc]] = {
    **{f"redux.sync.add.{kind}": (kind, np.add) for kind in ("s32", "u32")},
    **{f"redux.sync.min.{kind}": (kind, np.minimum) for kind in ("s32", "u32")},
    **{f"redux.sync.max.{kind}": (kind, np.maximum) for kind in ("s32", "u32")},
    "redux.sync.and.b32": ("b32", np.bitwise_and),
    "redux.sync.or.b32": ("b32", np.bitwise_or),
    "redux.sync.xor.b32": ("b32", np.bitwise_xor),
}
_ALL = 0xFFFF_FFFF
_ROW = 16


def step_of(operands: Operands) -> Step:
    """The function of such an instruction; an error that names it if it is none."""
    instruction = operands.instruction
    if found := _SHUFFLE.fullmatch(instruction.name):
        return _shuffling(operands, found[1])
    if instruction.name in _REDUCTIONS:
        return _reducing(operands, *_REDUCTIONS[instruction.name])
    if found := _MATRIX.fullmatch(instruction.name):
        return _moving_matrices(operands, int(found[2]), loads=found[1] == "ld", transposed=found[3] is not None)
    if instruction.name == "bar.warp.sync":
        members = operands.source(operands.count(1)[0], "b32")
        return lambda threads, active: _require_all(threads, active, members, instruction)
    raise UnknownInstructionError(f"{instruction}: got {instruction.name}, which the executor does not know")


def _require_all(threads: Threads, active: BoolArray | None, members: Source, instruction: Instruction) -> None:
    threads.whole_warps(active, instruction)
    wrong = members.values(threads) != _ALL
    if (wrong if active is None else wrong & active).any():
        raise PTXError(f"{instruction}: got a mask of members that is not -1, need all threads of the warp")
    threads.require(members.registers, active, instruction)


def _shuffling(operands: Operands, mode: str) -> Step:
    result, taken, by, limit, mask = operands.count(5)
    into, *found = operands.parts(result)
    destination = operands.destination(into, "b32")
    flags = [operands.destination(own, "pred") for own in found]
    source, by_lane, limits = operands.source(taken, "b32"), operands.source(by, "u32"), operands.source(limit, "u32")
    members = operands.source(mask, "b32")

    def step(threads: Threads, active: BoolArray | None) -> None:
        values = np.broadcast_to(source.values(threads), threads.size)
        partner, inside = _partners(mode, threads.everyone % WARP, by_lane.values(threads), limits.values(threads))
        _require_all(threads, active, members, operands.instruction)
        threads.require((*by_lane.registers, *limits.registers), active, operands.instruction)
        whence = threads.everyone // WARP * WARP + partner
        undefined = threads.undefined_in(source.registers)
        destination(threads, values[whence], active, None if undefined is None else undefined[whence])
        for flag in flags:
            flag(threads, inside, active, None)

    return step


def _partners(mode: str, lane: Array, by: Array, limit: Array) -> tuple[Array, BoolArray]:
    """The lane that each lane reads, and whether it is within bounds, its own if not."""
    by, clamp, segment = (value.astype(np.int64) & 31 for value in (by, limit, limit >> np.uint32(8)))
    last = lane & segment | clamp & ~segment
    if mode == "up":
        partner = lane - by
        inside = partner >= last
    else:
        partner = {"down": lane + by, "bfly": lane ^ by, "idx": lane & segment | by & ~segment}[mode]
        inside = partner <= last
    return np.where(inside, partner, lane), inside


def _reducing(operands: Operands, kind: str, function: np.ufunc) -> Step:
    result, taken, mask = operands.count(3)
    destination, source = operands.destination(result, kind), operands.source(taken, kind)
    members = operands.source(mask, "b32")

    def step(threads: Threads, active: BoolArray | None) -> None:
        values = np.broadcast_to(source.values(threads), threads.size).reshape(-1, WARP)
        _require_all(threads, active, members, operands.instruction)
        undefined = threads.undefined_in(source.registers)
        if undefined is not None:
            undefined = np.repeat(undefined.reshape(-1, WARP).any(axis=1), WARP)
        reduced = function.reduce(values, axis=1, dtype=DTYPES[kind])
        destination(threads, np.repeat(reduced, WARP), active, undefined)

    return step


def _moving_matrices(operands: Operands, number: int, *, loads: bool, transposed: bool) -> Step:
    """Of 8 rows of 8 numbers of 16 bits: of matrix i thread 8 i + r has the address of row r.

    Of each matrix a thread has two neighbours: of row `lane / 4`, or column if transposed, those at `lane % 4`.
    """
    taken = operands.count(2)
    data, address = taken if loads else reversed(taken)
    parts = operands.parts(data)
    if len(parts) != number:
        operands.reject(f"{len(parts)} registers", str(number))
    addresses = operands.address(address, widths=(32, 64))
    lanes = np.arange(WARP)
    rows, columns = lanes[:, None] // 4, 2 * (lanes[:, None] % 4) + np.arange(2)
    if transposed:
        rows, columns = columns, rows
    instruction = operands.instruction

    def access(threads: Threads, active: BoolArray | None) -> tuple[Access, Array, Array]:
        own = threads.whole_warps(active, instruction)
        values = addresses.values(threads)
        holders = own[own % WARP < 8 * number]
        needed = np.zeros(threads.size, np.bool_)
        needed[holders] = True
        threads.require(addresses.registers, needed, instruction)
        return Access(instruction, values[holders], _ROW, threads.stamps[holders]), threads.ctas[holders], own

    if loads:
        destinations = [operands.destination(part, "b32") for part in parts]

        def load(threads: Threads, active: BoolArray | None) -> None:
            wanted, ctas, own = access(threads, active)
            matrices = np.ascontiguousarray(threads.shared.load(wanted, ctas)).view(np.uint16).reshape(-1, number, 8, 8)
            for index, destination in enumerate(destinations):
                values = np.zeros(threads.size, np.uint32)
                pairs = matrices[:, index, rows, columns]
                values[own] = np.ascontiguousarray(pairs).view(np.uint32).ravel()
                destination(threads, values, active, None)

        return load
    sources = [operands.source(part, "b32") for part in parts]

    def store(threads: Threads, active: BoolArray | None) -> None:
        wanted, ctas, own = access(threads, active)
        matrices = np.empty((len(own) // WARP, number, 8, 8), np.uint16)
        for index, source in enumerate(sources):
            values = np.broadcast_to(source.values(threads), threads.size)[own].reshape(-1, WARP, 1)
            threads.require(source.registers, active, instruction)
            matrices[:, index, rows, columns] = values.view(np.uint16)
        threads.shared.store(wanted, ctas, matrices.reshape(-1, 8).view(np.uint8))

    return store
