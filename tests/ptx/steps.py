"""Instructions as functions that change the state of the threads: what is done at each, but the flow of control."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from tests.ptx import arithmetic, conversions, warps
from tests.ptx.arithmetic import Operation
from tests.ptx.memory import Access
from tests.ptx.number_formats import DTYPES, Array, BoolArray, as_bits, bits_of
from tests.ptx.operands import Operands
from tests.ptx.program import Address, Instruction, Parameter, Program, PTXError, Symbol, Vector
from tests.ptx.threads import Threads

Step = Callable[[Threads, BoolArray | None], None]

# How long caches keep a line changes no value.
_CACHE = r"(?:\.(?:nc|ca|cg|cs|wb|wt))?(?:\.L1::(?:evict_\w+|no_allocate))?(?P<policy>\.L2::cache_hint)?"
_ACCESS = re.compile(
    rf"(?P<name>ld|st)\.(?P<space>global|shared|shared::cta){_CACHE}(?:\.v(?P<number>[248]))?\.(?P<kind>[busf]\d+)"
)
_PAIRED_COMPARISON = re.compile(r"(setp\.\w+\.b?f16)x2")
_PARAMETER = re.compile(r"ld\.param\.([busf]\d+)")
_POLICY = re.compile(r"createpolicy\.fractional\.L2::evict_(first|last)\.b64")


class UnspecifiedResultError(PTXError):
    """An operation that PTX leaves open, as a division by 0."""


def step_of(program: Program, instruction: Instruction) -> Step:
    """The function of an instruction; an error that names it if it is not known."""
    operands = Operands(program, instruction)
    name = instruction.name
    operation = arithmetic.TABLE.get(name) or conversions.TABLE.get(name)
    if len(instruction.operands) == 4:
        operation = arithmetic.OF_THREE.get(name, operation)
    if operation is not None:
        packs = name.startswith("mov.") and any(isinstance(operand, Vector) for operand in instruction.operands)
        return _packing(operands, operation.result) if packs else _computing(operands, operation)
    if (found := _PAIRED_COMPARISON.fullmatch(name)) and found[1] in arithmetic.TABLE:
        return _comparing_pairs(operands, arithmetic.TABLE[found[1]])
    if found := _PARAMETER.fullmatch(name):
        return _reading_a_parameter(program, operands, found[1])
    if (found := _ACCESS.fullmatch(name)) and found["kind"] in DTYPES:
        return _accessing(operands, found)
    if _POLICY.fullmatch(name):
        destination = operands.destination(operands.count(2)[0], "b64")
        return lambda threads, active: destination(threads, np.asarray(np.uint64(0)), active, None)
    return warps.step_of(operands)


def _computing(operands: Operands, operation: Operation) -> Step:
    result, *taken = operands.count(1 + len(operation.operands))
    sources = [
        operands.source(operand, kind, widens=operation.widens)
        for operand, kind in zip(taken, operation.operands, strict=True)
    ]
    destination = operands.destination(result, operation.result, widens=operation.widens)

    def step(threads: Threads, active: BoolArray | None) -> None:
        values = [source.values(threads) for source in sources]
        masks = [source.undefined(threads) for source in sources]
        undefined = None if all(mask is None for mask in masks) else operation.spread(values, masks)
        if operation.unspecified is not None:
            _require_specified(threads, operation.unspecified(*values), active, operands.instruction)
        destination(threads, np.asarray(operation.compute(*values)), active, undefined)

    return step


def _comparing_pairs(operands: Operands, operation: Operation) -> Step:
    """The comparison of both halves: of the lower ones for the first predicate."""
    result, *taken = operands.count(3)
    parts = operands.parts(result)
    if len(parts) != 2:
        operands.reject(f"{len(parts)} predicates", "2, joined by a bar")
    destinations = [operands.destination(part, "pred") for part in parts]
    sources = [operands.source(operand, "b32") for operand in taken]
    kind = DTYPES[operation.operands[0]]

    def step(threads: Threads, active: BoolArray | None) -> None:
        values = [source.values(threads) for source in sources]
        masks = [source.undefined(threads) for source in sources]
        for destination, place in zip(destinations, (np.uint32(0), np.uint32(16)), strict=True):
            halves = [(value >> place).astype(np.uint16) for value in values]
            missing = [None if mask is None else (mask >> place).astype(np.uint16) for mask in masks]
            undefined = None if all(mask is None for mask in missing) else operation.spread(halves, missing)
            destination(threads, operation.compute(*(half.view(kind) for half in halves)), active, undefined)

    return step


def _require_specified(
    threads: Threads, unspecified: BoolArray, active: BoolArray | None, instruction: Instruction
) -> None:
    wrong = np.broadcast_to(unspecified, threads.size)
    wrong = wrong if active is None else wrong & active
    if wrong.any():
        raise UnspecifiedResultError(
            f"{instruction}: the operands of {threads.describe(int(np.argmax(wrong)))} have no specified result"
        )


def _packing(operands: Operands, kind: str) -> Step:
    """`mov` between a register and the parts it is made of, the lowest first."""
    result, taken = operands.count(2)
    whole = f"b{bits_of(kind)}"
    parts = operands.parts(taken if isinstance(taken, Vector) else result)
    bits = bits_of(whole) // len(parts)
    part = f"b{bits}"
    if isinstance(result, Vector):
        source = operands.source(taken, whole)
        destinations = [operands.destination(own, part) for own in parts]

        def unpack(threads: Threads, active: BoolArray | None) -> None:
            values = source.values(threads)
            undefined = source.undefined(threads)
            for number, destination in enumerate(destinations):
                place = DTYPES[whole](bits * number)
                missing = None if undefined is None else (undefined >> place).astype(DTYPES[part])
                destination(threads, (values >> place).astype(DTYPES[part]), active, missing)

        return unpack
    sources = [operands.source(own, part) for own in parts]
    destination = operands.destination(result, whole)
    dtype = DTYPES[whole]

    def pack(threads: Threads, active: BoolArray | None) -> None:
        values = undefined = np.zeros((), dtype)
        for number, source in enumerate(sources):
            place = dtype(bits * number)
            values = values | source.values(threads).astype(dtype) << place
            if (missing := source.undefined(threads)) is not None:
                undefined = undefined | missing.astype(dtype) << place
        destination(threads, np.asarray(values), active, undefined if undefined.ndim else None)

    return pack


def _reading_a_parameter(program: Program, operands: Operands, kind: str) -> Step:
    result, address = operands.count(2)
    parameters = {Symbol(parameter.name): parameter for parameter in program.parameters}
    if not isinstance(address, Address) or address.base not in parameters:
        operands.reject(address, "a parameter of the kernel")
    assert isinstance(address, Address)
    parameter: Parameter = parameters[address.base]  # type: ignore[index]
    if not 0 <= 8 * address.offset <= bits_of(parameter.kind) - bits_of(kind):
        operands.reject(f".{kind} at {address.offset}", f"a part of the parameter, which is .{parameter.kind}")
    destination = operands.destination(result, kind, widens=True)
    unsigned, dtype = DTYPES[f"u{bits_of(kind)}"], DTYPES[kind]

    def step(threads: Threads, active: BoolArray | None) -> None:
        part = threads.launch.arguments[parameter.name] >> 8 * address.offset & (1 << bits_of(kind)) - 1
        destination(threads, np.asarray(unsigned(part)).view(dtype), active, None)

    return step


def _accessing(operands: Operands, form: re.Match[str]) -> Step:
    number, kind, shared = int(form["number"] or 1), form["kind"], form["space"] != "global"
    taken = operands.count(3 if form["policy"] else 2)
    address, data = taken[:2] if form["name"] == "st" else (taken[1], taken[0])
    parts = operands.parts(data)
    if len(parts) != number:
        operands.reject(f"{len(parts)} registers", str(number))
    addresses = operands.address(address, widths=(32, 64) if shared else (64,))
    size = bits_of(kind) // 8
    instruction = operands.instruction

    def access(threads: Threads, active: BoolArray | None) -> tuple[Access, Array]:
        values = addresses.values(threads)
        threads.require(addresses.registers, active, instruction)
        own = threads.numbers(active)
        return Access(instruction, values[own], number * size, threads.stamps[own]), own

    if form["name"] == "ld":
        destinations = [operands.destination(part, kind, widens=True) for part in parts]

        def load(threads: Threads, active: BoolArray | None) -> None:
            wanted, own = access(threads, active)
            memory = threads.launch.memory
            rows = threads.shared.load(wanted, threads.ctas[own]) if shared else memory.load(wanted)
            columns = np.ascontiguousarray(rows).view(DTYPES[kind])
            for column, destination in enumerate(destinations):
                values = np.zeros(threads.size, DTYPES[kind])
                values[own] = columns[:, column]
                destination(threads, values, active, None)

        return load
    sources = [operands.source(part, kind, widens=True) for part in parts]
    registers = tuple(name for source in sources for name in source.registers)

    def store(threads: Threads, active: BoolArray | None) -> None:
        wanted, own = access(threads, active)
        columns = [np.broadcast_to(as_bits(source.values(threads)), threads.size)[own] for source in sources]
        threads.require(registers, active, instruction)
        rows = np.stack(columns, axis=1).view(np.uint8)
        if shared:
            threads.shared.store(wanted, threads.ctas[own], rows)
        else:
            threads.launch.memory.store(wanted, rows)

    return store
