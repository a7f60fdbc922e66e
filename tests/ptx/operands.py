"""Operands of instructions, checked against the types that an instruction takes, as functions of the threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tests.ptx.memory import SHARED_BASE
from tests.ptx.number_formats import DTYPES, Array, BoolArray, as_bits, bits_of
from tests.ptx.program import (
    Address,
    Immediate,
    Instruction,
    Operand,
    Program,
    Register,
    Symbol,
    UnknownInstructionError,
    Vector,
)
from tests.ptx.threads import SPECIAL_REGISTERS, Threads

SINK = Symbol("_")


class Source(NamedTuple):
    """Values that an instruction takes.

    Attributes:
        values: of all threads, or the one of all.
        undefined: which of their bits are, as ones; None if none is. To be asked after `values`.
        registers: names of those that the values come from.
    """

    values: Callable[[Threads], Array]
    undefined: Callable[[Threads], Array | None]
    registers: tuple[str, ...]


Destination = Callable[[Threads, Array, BoolArray | None, Array | None], None]


class Operands:
    """The operands of one instruction of a program."""

    def __init__(self, program: Program, instruction: Instruction) -> None:
        self._program = program
        self.instruction = instruction

    def count(self, *allowed: int) -> tuple[Operand, ...]:
        """The operands, as many as allowed."""
        if len(self.instruction.operands) not in allowed:
            self.reject(f"{len(self.instruction.operands)} operands", " or ".join(map(str, allowed)))
        return self.instruction.operands

    def reject(self, got: object, need: str) -> None:
        """Raise the error that says so."""
        raise UnknownInstructionError(f"{self.instruction}: got {got}, need {need}")

    def source(self, operand: Operand, kind: str, *, widens: bool = False) -> Source:
        """An operand of a type; its register may be wider if `widens`."""
        dtype = DTYPES[kind]
        if isinstance(operand, Immediate):
            constant = self._constant(operand, kind)
            return _constantly(constant)
        if self._is_shared(operand) and kind in ("b32", "u32", "b64", "u64"):
            return _constantly(np.asarray(dtype(SHARED_BASE)))
        name, width = self._register(operand, kind, widens=widens)
        if width == bits_of(kind):
            return Source(
                lambda threads: threads.read(name).view(dtype), lambda threads: threads.undefined_bits(name), (name,)
            )
        narrow = DTYPES[f"u{bits_of(kind)}"]

        def undefined(threads: Threads) -> Array | None:
            mask = threads.undefined_bits(name)
            return None if mask is None else mask.astype(narrow)

        return Source(lambda threads: threads.read(name).astype(narrow).view(dtype), undefined, (name,))

    def destination(self, operand: Operand, kind: str, *, widens: bool = False) -> Destination:
        """Writes values of a type; to a wider register, if `widens`, they are extended by zeros or their sign."""
        if operand == SINK:
            return lambda threads, values, active, undefined: None
        name, width = self._register(operand, kind, widens=widens)
        if name.startswith(SPECIAL_REGISTERS):
            self.reject(name, "a register that can be written")
        wide = DTYPES[f"{'s' if kind.startswith('s') else 'u'}{width}"] if width != bits_of(kind) else None

        def write(threads: Threads, values: Array, active: BoolArray | None, undefined: Array | None) -> None:
            bits = values.astype(wide) if wide else values
            threads.write(name, as_bits(bits), active, undefined)

        return write

    def address(self, operand: Operand, *, widths: tuple[int, ...]) -> Source:
        """Addresses as 64-bit unsigned integers; their register is of one of the widths."""
        if not isinstance(operand, Address):
            self.reject(operand, "an address in brackets")
        assert isinstance(operand, Address)
        base, offset = operand
        if self._is_shared(base):
            address = np.uint64(SHARED_BASE + offset)
            return Source(lambda threads: np.full(threads.size, address), lambda _: None, ())
        width = bits_of(self._program.registers.get(getattr(base, "name", ""), "b32"))
        if not isinstance(base, Register) or width not in widths:
            self.reject(operand, f"a register of {' or '.join(map(str, widths))} bits as base")
        source = self.source(base, f"u{width}")
        shift = np.int64(offset)
        return source._replace(values=lambda threads: (source.values(threads).astype(np.int64) + shift).view(np.uint64))

    def parts(self, operand: Operand) -> tuple[Operand, ...]:
        """Those of a vector, or the operand itself."""
        return operand.parts if isinstance(operand, Vector) else (operand,)

    def _is_shared(self, operand: Operand) -> bool:
        return isinstance(operand, Symbol) and operand.name in self._program.shared

    def _constant(self, operand: Immediate, kind: str) -> Array:
        bits, dtype = bits_of(kind), DTYPES[kind]
        if not -(1 << (bits - 1)) <= operand.value < 1 << bits or kind.endswith("x2"):
            self.reject(operand.value, f"a number of {bits} bits, or a register for a pair")
        if kind == "pred":
            return np.asarray(operand.value != 0)
        unsigned = DTYPES[f"u{bits}"](operand.value & ((1 << bits) - 1))
        return np.asarray(unsigned).view(dtype)

    def _register(self, operand: Operand, kind: str, *, widens: bool) -> tuple[str, int]:
        """Name and width."""
        if not isinstance(operand, Register):
            self.reject(operand, f"a register or number of type .{kind}")
        assert isinstance(operand, Register)
        base, _, axis = operand.name.partition(".")
        if base in SPECIAL_REGISTERS and axis in ("x", "y", "z"):
            declared = "b32"
        elif operand.name in self._program.registers:
            declared = self._program.registers[operand.name]
        else:
            raise UnknownInstructionError(f"{self.instruction}: got register {operand.name}, which is not declared")
        width = bits_of(declared)
        fits = width >= bits_of(kind) if widens else width == bits_of(kind)
        if not fits or (declared == "pred") != (kind == "pred"):
            self.reject(f"{operand.name}, declared .{declared}", f"a register for .{kind}")
        return operand.name, width


def _constantly(value: Array) -> Source:
    return Source(lambda _: value, lambda _: None, ())
