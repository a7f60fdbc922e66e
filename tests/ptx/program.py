"""Parses the PTX of a kernel, as Triton's compiler or a person writes it: one entry, no calls, no nested scopes."""

from __future__ import annotations

import functools
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple


class PTXError(Exception):
    """Something wrong with a kernel, or with how it is launched."""


class UnknownInstructionError(PTXError):
    """An instruction, a modifier or a form of operand that the executor does not know."""


class Register(NamedTuple):
    """A register, also a special one as `%tid.x`."""

    name: str


class Immediate(NamedTuple):
    """A number in the text; of a floating one its bits."""

    value: int


class Symbol(NamedTuple):
    """A label, a parameter or a variable in shared memory."""

    name: str


class Address(NamedTuple):
    """`[base + offset]`."""

    base: Register | Immediate | Symbol
    offset: int


class Vector(NamedTuple):
    """Operands in braces, or joined by a bar."""

    parts: tuple[Operand, ...]


Operand = Register | Immediate | Symbol | Address | Vector


@dataclass(frozen=True)
class Parameter:
    """Of the kernel; `kind` is its type without the dot."""

    name: str
    kind: str


@dataclass(frozen=True)
class Instruction:
    """One instruction.

    Attributes:
        number: its index in the program.
        name: with all modifiers, as "fma.rn.f32".
        operands: in order.
        predicate: the register that guards it, if any.
        negated: it runs where the predicate is false.
        text: as written.
        source: file and line that it was compiled from, where the text says so.
    """

    number: int
    name: str
    operands: tuple[Operand, ...]
    predicate: str | None
    negated: bool
    text: str
    source: str

    def __str__(self) -> str:
        return f"`{self.text}`{self.source and f' ({self.source})'}"


@dataclass(frozen=True)
class Program:
    """A parsed kernel.

    Attributes:
        name: of the entry.
        parameters: in order.
        registers: their types without the dot, by name.
        labels: instructions that they precede, by number.
        instructions: in order.
        shared: names of variables in shared memory whose size the launch sets.
        threads: of a CTA, if the text requires a number.
    """

    name: str
    parameters: tuple[Parameter, ...]
    registers: Mapping[str, str]
    labels: Mapping[str, int]
    instructions: tuple[Instruction, ...]
    shared: tuple[str, ...]
    threads: int | None


_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{")
_PARAMETER = re.compile(r"\.param\s+\.([bsuf]\d+)(?:\s+\.ptr(?:\s+\.global)?(?:\s+\.align\s+\d+)?)?\s+([\w$]+)")
_SHARED = re.compile(r"\.extern\s+\.shared\s+\.align\s+\d+\s+\.b8\s+([\w$]+)\[\]\s*;")
_THREADS = re.compile(r"\.reqntid\s+(\d+)(?:\s*,\s*1)*")
_FILE = re.compile(r'\.file\s+(\d+)\s+"(?:[^"]*/)?([^"/]+)"')
_STATEMENT = re.compile(
    r"\s*(?:(?P<label>[\w$]+):|\.loc\s+(?P<file>\d+)\s+(?P<line>\d+)[^\n]*|\.reg\s+(?P<registers>[^;]+);|\.pragma[^;]*;"
    r"|(?:@(?P<negated>!?)(?P<predicate>%?[\w$]+)\s+)?(?P<name>[a-z][\w.:]*)(?P<operands>[^;]*);)"
)
_OPERAND = re.compile(r"\s*(\{[^}]*\}|\[[^\]]*\]|[^,\s]+)\s*(?:,|$)")
_REGISTER = re.compile(r"%[\w$.]+")
_ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\d+)\s*)?\]")


@functools.lru_cache(maxsize=64)
def parse(ptx: str) -> Program:
    """Read the only entry of a PTX text."""
    text = re.sub(r"//[^\n]*", "", ptx)
    entries = list(_ENTRY.finditer(text))
    if len(entries) != 1:
        raise PTXError(f"PTX: got {len(entries)} entries, need one kernel")
    (entry,) = entries
    registers: dict[str, str] = {}
    labels: dict[str, int] = {}
    files = dict(_FILE.findall(text))
    instructions: list[Instruction] = []
    source = ""
    for found in _statements(text, entry.end()):
        if found["label"]:
            labels[found["label"]] = len(instructions)
        elif found["file"]:
            source = f"{files.get(found['file'], 'file ' + found['file'])}:{found['line']}"
        elif found["registers"]:
            registers.update(_registers(found["registers"]))
        elif found["name"]:
            instructions.append(_instruction(found, len(instructions), source))
    shared = tuple(_SHARED.findall(text[: entry.start()]))
    parameters = tuple(map(_parameter, entry[2].split(","))) if entry[2].strip() else ()
    return Program(
        entry[1], parameters, registers, labels, tuple(instructions), shared, _required_threads(entry[3].strip())
    )


def _statements(text: str, position: int) -> Iterator[re.Match[str]]:
    """The statements of a body, up to its closing brace."""
    while found := _STATEMENT.match(text, position):
        yield found
        position = found.end()
    rest = text[position:].lstrip()
    if not rest.startswith("}"):
        raise UnknownInstructionError(f"PTX: got {rest.splitlines()[0]!r}, which is no known statement")


def _required_threads(directives: str) -> int | None:
    found = _THREADS.fullmatch(directives)
    if directives and found is None:
        raise PTXError(f"directives of the entry: got {directives!r}, need .reqntid of one dimension or none")
    return int(found[1]) if found else None


def _parameter(declaration: str) -> Parameter:
    found = _PARAMETER.fullmatch(declaration.strip())
    if found is None:
        raise PTXError(f"parameter: got {declaration.strip()!r}, need a number or a pointer")
    return Parameter(found[2], found[1])


def _registers(declaration: str) -> Iterator[tuple[str, str]]:
    kind, names = declaration.split(maxsplit=1)
    for name in names.split(","):
        if found := re.fullmatch(r"([%\w$]+)<(\d+)>", name.strip()):
            yield from ((f"{found[1]}{number}", kind[1:]) for number in range(int(found[2])))
        else:
            yield name.strip(), kind[1:]


def _instruction(found: re.Match[str], number: int, source: str) -> Instruction:
    text = " ".join(found[0].split())
    position, operands, written = 0, [], found["operands"].rstrip()
    while position < len(written):
        operand = _OPERAND.match(written, position)
        if operand is None:
            raise UnknownInstructionError(f"`{text}`: got operands {written.strip()!r}, which are of no known form")
        operands.append(_operand(operand[1], text))
        position = operand.end()
    return Instruction(number, found["name"], tuple(operands), found["predicate"], bool(found["negated"]), text, source)


def _operand(text: str, instruction: str) -> Operand:
    if _REGISTER.fullmatch(text):
        return Register(text)
    if text.startswith("{") or "|" in text:
        return Vector(tuple(_operand(part.strip(), instruction) for part in re.split(r"[,|]", text.strip("{} "))))
    if text.startswith("["):
        found = _ADDRESS.fullmatch(text)
        base = _operand(found[1], instruction) if found else None
        if found is None or not isinstance(base, Register | Immediate | Symbol):
            raise UnknownInstructionError(f"`{instruction}`: got address {text!r}, which is of no known form")
        return Address(base, int(found[2] or 0))
    if re.fullmatch(r"0[fd][0-9A-Fa-f]+", text):
        return Immediate(int(text[2:], 16))
    if re.fullmatch(r"-?\d+\.\d+", text):
        return Immediate(struct.unpack("<Q", struct.pack("<d", float(text)))[0])
    if re.fullmatch(r"-?(0x[0-9A-Fa-f]+|\d+)U?", text):
        return Immediate(int(text.removesuffix("U"), 0))
    if re.fullmatch(r"[A-Za-z$_][\w$]*", text):
        return Symbol(text)
    raise UnknownInstructionError(f"`{instruction}`: got operand {text!r}, which is of no known form")
