"""What the instructions of arithmetic, logic and selection compute, by their full names; conversions are elsewhere.

A name that is not in the tables is not known: no modifier is skipped. Approximations (`.approx`, `.full`) are computed
exactly and rounded, and a product and a sum are two instructions, though `ptxas` may merge them where neither says
`.rn`. A NaN that arithmetic gives is the canonical one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tests.ptx import undefined
from tests.ptx.number_formats import (
    DTYPES,
    Array,
    BoolArray,
    as_bits,
    bits_of,
    canonical,
    flushing,
    from_bfloat16,
    from_float16,
    fused_multiply_add,
    in_pairs,
    to_bfloat16,
    to_float16,
)

Compute = Callable[..., Array]


class Operation(NamedTuple):
    """An instruction without side effects.

    Attributes:
        result: type of the result.
        operands: types of the operands.
        compute: the result, of arrays of these types.
        unspecified: where PTX leaves the result open.
        widens: registers may be wider than the types.
        spread: how undefined bits of the operands make those of the result.
    """

    result: str
    operands: tuple[str, ...]
    compute: Compute
    unspecified: Callable[..., BoolArray] | None = None
    widens: bool = False
    spread: undefined.Rule = undefined.of_any_operand


Named = Iterator[tuple[str, Operation]]

_COMPARISONS: dict[str, Callable[[Array, Array], BoolArray]] = {
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
}
_OF_TWO_INTEGERS: dict[str, Compute] = {
    "add": np.add,
    "sub": np.subtract,
    "mul.lo": np.multiply,
    "min": np.minimum,
    "max": np.maximum,
}
_OPPOSITES = {"eq": "ne", "ne": "eq", "lt": "ge", "le": "gt", "gt": "le", "ge": "lt"}


def _same(kind: str, number: int, compute: Compute, spread: undefined.Rule = undefined.of_any_operand) -> Operation:
    return Operation(kind, (kind,) * number, compute, spread=spread)


def _pairs(kind: str, number: int, compute: Compute) -> Operation:
    return _same(kind, number, compute, undefined.of_halves)


def _moving(result: str, operands: tuple[str, ...], number: int, compute: Compute) -> Operation:
    """Moves bits of its first operands, so many, as the others say."""
    return Operation(result, operands, compute, spread=undefined.of_moved_bits(compute, number))


def _as(kind: str, compute: Compute) -> Compute:
    """Computed in a wider type."""
    return lambda *operands: compute(*(operand.astype(DTYPES[kind]) for operand in operands))


def _identity(x: Array) -> Array:
    return x


def _high(kind: str) -> Compute:
    """The upper half of a product."""
    bits, dtype = bits_of(kind), DTYPES[kind]
    # Python's integers are wide enough for every type.
    return lambda x, y: np.asarray(np.asarray(x).astype(object) * np.asarray(y).astype(object) >> bits).astype(dtype)


def _quotient(x: Array, y: Array) -> Array:
    """Truncated towards 0."""
    return (x - np.fmod(x, y)) // y


def _divides_badly(x: Array, y: Array) -> BoolArray:
    overflows = (x == np.iinfo(x.dtype).min) & (y == -1) if x.dtype.kind == "i" else False
    return np.asarray((y == 0) | overflows)


def _left(x: Array, by: Array) -> Array:
    bits = x.dtype.itemsize * 8
    shifted = x << np.minimum(by, bits - 1).astype(x.dtype)
    return np.where(by < bits, shifted, np.zeros_like(x))


def _right(x: Array, by: Array) -> Array:
    bits = x.dtype.itemsize * 8
    shifted = x >> np.minimum(by, bits - 1).astype(x.dtype)
    return np.asarray(shifted) if x.dtype.kind == "i" else np.where(by < bits, shifted, np.zeros_like(x))


def _integers() -> Named:
    for sign in "su":
        for bits in (16, 32, 64):
            kind = f"{sign}{bits}"
            for name, compute in _OF_TWO_INTEGERS.items():
                yield f"{name}.{kind}", _same(kind, 2, compute)
            yield f"mul.hi.{kind}", _same(kind, 2, _high(kind))
            yield f"mad.lo.{kind}", _same(kind, 3, lambda x, y, z: x * y + z)
            yield f"div.{kind}", Operation(kind, (kind, kind), _quotient, _divides_badly)
            yield f"rem.{kind}", Operation(kind, (kind, kind), np.fmod, _divides_badly)
            yield f"shr.{kind}", _moving(kind, (kind, "u32"), 1, _right)
        for bits in (16, 32):
            kind, wide = f"{sign}{bits}", f"{sign}{2 * bits}"
            yield f"mul.wide.{kind}", Operation(wide, (kind, kind), _as(wide, np.multiply))
            yield f"mad.wide.{kind}", Operation(wide, (kind, kind, wide), _as(wide, lambda x, y, z: x * y + z))
    for bits in (16, 32, 64):
        yield f"neg.s{bits}", _same(f"s{bits}", 1, np.negative)
        yield f"abs.s{bits}", _same(f"s{bits}", 1, np.abs)
        yield f"shl.b{bits}", _moving(f"b{bits}", (f"b{bits}", "u32"), 1, _left)
        yield f"shr.b{bits}", _moving(f"b{bits}", (f"b{bits}", "u32"), 1, _right)


def _bit_field(kind: str) -> Compute:
    """Bits from a position on, as many as a length says; beyond the highest bit zeros, or copies of the sign."""
    width, unsigned = bits_of(kind), DTYPES[f"u{bits_of(kind)}"]

    def extract(x: Array, position: Array, length: Array) -> Array:
        position, length = position & np.uint32(0xFF), np.minimum(length & np.uint32(0xFF), width)
        highest = np.where(length == 0, 0, np.minimum(position + length, width) - 1).astype(np.uint32)
        shifted = _right(x, position)
        beyond = _left(np.full_like(as_bits(x), ~unsigned(0)), length)
        found = as_bits(shifted) & ~beyond
        if kind.startswith("s"):
            negative = (_right(as_bits(x), highest) & unsigned(1) == 1) & (length > 0)
            found = np.where(negative, found | beyond, found)
        return found.view(DTYPES[kind])

    return extract


def _permuted(x: Array, y: Array, selector: Array) -> Array:
    """Each byte of the result is one of eight, or copies of its sign, as four bits of the selector say."""
    both = x.astype(np.uint64) | y.astype(np.uint64) << np.uint64(32)
    result = np.zeros((), np.uint32)
    for byte in range(4):
        choice = selector >> np.uint32(4 * byte) & np.uint32(0xF)
        value = (both >> ((choice & np.uint32(7)) * np.uint32(8)).astype(np.uint64)).astype(np.uint32) & np.uint32(0xFF)
        signs = np.where(value & np.uint32(0x80) != 0, np.uint32(0xFF), np.uint32(0))
        result = result | np.where(choice & np.uint32(8) != 0, signs, value) << np.uint32(8 * byte)
    return result


def _population(x: Array) -> Array:
    """How many bits are 1."""
    bits = np.unpackbits(np.atleast_1d(x)[:, None].view(np.uint8), axis=1)
    return np.asarray(bits.sum(axis=1, dtype=np.uint32))


def _bits() -> Named:
    for kind in ("pred", "b16", "b32", "b64"):
        yield f"and.{kind}", _same(kind, 2, np.bitwise_and, undefined.of_logic(np.invert))
        yield f"or.{kind}", _same(kind, 2, np.bitwise_or, undefined.of_logic(_identity))
        yield f"xor.{kind}", _same(kind, 2, np.bitwise_xor, undefined.of_logic(None))
        yield f"not.{kind}", _same(kind, 1, np.invert)
    for kind in ("u32", "s32", "u64", "s64"):
        yield f"bfe.{kind}", _moving(kind, (kind, "u32", "u32"), 1, _bit_field(kind))
    yield "prmt.b32", _moving("b32", ("b32", "b32", "b32"), 2, _permuted)
    for bits in (32, 64):
        yield f"popc.b{bits}", Operation("u32", (f"b{bits}",), _population)


def _larger(x: Array, y: Array) -> Array:
    """The number where one is NaN; 0 is larger than -0."""
    return np.where(x == y, (as_bits(x) & as_bits(y)).view(x.dtype), np.fmax(x, y))


def _smaller(x: Array, y: Array) -> Array:
    return np.where(x == y, (as_bits(x) | as_bits(y)).view(x.dtype), np.fmin(x, y))


def _or_nan(compute: Compute) -> Compute:
    """NaN where one is NaN."""
    return lambda x, y: np.where(np.isnan(x) | np.isnan(y), np.float32(np.nan), compute(x, y))


def _canonical(compute: Compute) -> Compute:
    return lambda *operands: canonical(compute(*operands))


_EXTREMES: dict[str, Compute] = {
    f"{name}{suffix}": form(_canonical(compute))
    for name, number in (("max", _larger), ("min", _smaller))
    for flushes, form in (("", lambda function: function), (".ftz", flushing))
    for suffix, compute in ((f"{flushes}.f32", number), (f"{flushes}.NaN.f32", _or_nan(number)))
}


def _approximate_quotient(x: Array, y: Array) -> Array:
    """`div.approx`: a divisor beyond 2**126 counts as infinite."""
    return np.where(np.isfinite(y) & (np.abs(y) > 2.0**126), x * np.copysign(np.float32(0), y), x / y)


def _through_double(compute: Compute) -> Compute:
    return lambda x: compute(x.astype(np.float64)).astype(np.float32)


def _reciprocal(x: Array) -> Array:
    return np.float32(1) / x


def _floats() -> Named:
    fma = fused_multiply_add
    functions: dict[str, tuple[int, Compute]] = {
        **{f"add{rounding}": (2, np.add) for rounding in ("", ".rn")},
        **{f"sub{rounding}": (2, np.subtract) for rounding in ("", ".rn")},
        **{f"mul{rounding}": (2, np.multiply) for rounding in ("", ".rn")},
        "fma.rn": (3, fma),
    }
    for name, (number, compute) in functions.items():
        own = _canonical(compute)
        yield f"{name}.f32", _same("f32", number, own)
        yield f"{name}.ftz.f32", _same("f32", number, flushing(own))
        yield f"{name}.f32x2", _pairs("f32x2", number, in_pairs(own, "f32"))
        yield f"{name}.ftz.f32x2", _pairs("f32x2", number, in_pairs(flushing(own), "f32"))
    others: dict[str, tuple[int, Compute]] = {
        "div.rn": (2, np.divide),
        "div.full": (2, np.divide),
        "div.approx": (2, _approximate_quotient),
        "rcp.rn": (1, _reciprocal),
        "rcp.approx": (1, _reciprocal),
        "ex2.approx": (1, _through_double(np.exp2)),
        "lg2.approx": (1, _through_double(np.log2)),
    }
    for name, (number, compute) in others.items():
        yield f"{name}.f32", _same("f32", number, _canonical(compute))
        yield f"{name}.ftz.f32", _same("f32", number, flushing(_canonical(compute)))
    for name, function in _EXTREMES.items():
        yield name, _same("f32", 2, function)
    # Of a NaN too only the sign changes.
    yield "neg.f32", _same("f32", 1, np.negative)
    yield "abs.f32", _same("f32", 1, np.abs)


def _mixed() -> Named:
    """Sums of 16-bit numbers and float32."""
    for half, widen in (("bf16", from_bfloat16), ("f16", from_float16)):
        for name, compute in (("add", np.add), ("sub", np.subtract)):
            for rounding in ("", ".rn"):
                own = _of_widened(_canonical(compute), widen, 1)
                yield f"{name}{rounding}.f32.{half}", Operation("f32", (half, "f32"), own)
        own = _of_widened(_canonical(fused_multiply_add), widen, 2)
        yield f"fma.rn.f32.{half}", Operation("f32", (half, half, "f32"), own)


def _halves() -> Named:
    """What compilers do in 16 bits rather than in float32: nothing that rounds."""
    for half, widen, narrow in (("bf16", from_bfloat16, to_bfloat16), ("f16", from_float16, to_float16)):
        for name, extreme in _EXTREMES.items():
            if ".ftz" not in name:
                own = _between(widen, extreme, narrow)
                yield name.replace(".f32", f".{half}"), _same(half, 2, own)
                yield name.replace(".f32", f".{half}x2"), _pairs(f"{half}x2", 2, in_pairs(own, half))
        for name, own in (("neg", lambda x: x ^ np.uint16(0x8000)), ("abs", lambda x: x & np.uint16(0x7FFF))):
            yield f"{name}.{half}", Operation("b16", ("b16",), own)
            yield f"{name}.{half}x2", _pairs("b32", 1, in_pairs(own, "b16"))


def _between(widen: Compute, compute: Compute, narrow: Compute) -> Compute:
    return lambda *operands: narrow(compute(*map(widen, operands)))


def _of_widened(compute: Compute, widen: Compute, number: int) -> Compute:
    """Of which the first operands, so many, are widened."""
    return lambda *operands: compute(*map(widen, operands[:number]), *operands[number:])


def _unequal(x: Array, y: Array) -> BoolArray:
    """Unequal numbers."""
    return (x < y) | (x > y)


def _both_are_numbers(x: Array, y: Array) -> BoolArray:
    return ~(np.isnan(x) | np.isnan(y))


def _negated(compare: Compute) -> Compute:
    """True also where one is NaN: where the opposite does not hold."""
    return lambda x, y: ~compare(x, y)


def _comparisons() -> Named:
    for name, compare in _COMPARISONS.items():
        for bits in (16, 32, 64):
            for sign in "sub" if name in ("eq", "ne") else "su":
                kind = f"{sign}{bits}"
                yield f"setp.{name}.{kind}", Operation("pred", (kind, kind), compare)
        opposite = _COMPARISONS[_OPPOSITES[name]]
        yield from _comparison_of_floats(name, _unequal if name == "ne" else compare)
        yield from _comparison_of_floats(f"{name}u", _negated(_unequal if name == "eq" else opposite))
    yield from _comparison_of_floats("nan", _negated(_both_are_numbers))
    yield from _comparison_of_floats("num", _both_are_numbers)


def _comparison_of_floats(name: str, compare: Compute) -> Named:
    yield f"setp.{name}.f32", Operation("pred", ("f32", "f32"), compare)
    for half, widen in (("bf16", from_bfloat16), ("f16", from_float16)):
        yield f"setp.{name}.{half}", Operation("pred", (half, half), _of_widened(compare, widen, 2))


def _selected(x: Array, y: Array, where: BoolArray) -> Array:
    return np.where(where, x, y)


def _moves() -> Named:
    kinds = [f"{kind}{bits}" for bits in (16, 32, 64) for kind in "bsu"] + ["f32"]
    for kind in kinds:
        yield f"selp.{kind}", _moving(kind, (kind, kind, "pred"), 2, _selected)
    for kind in (*kinds, "pred"):
        yield f"mov.{kind}", _moving(kind, (kind,), 1, _identity)


TABLE: dict[str, Operation] = dict(
    item for part in (_integers, _bits, _floats, _mixed, _halves, _comparisons, _moves) for item in part()
)

OF_THREE: dict[str, Operation] = {
    name: _same("f32", 3, lambda x, y, z, extreme=extreme: extreme(extreme(x, y), z))
    for name, extreme in _EXTREMES.items()
}
"""Forms with three operands of instructions that are in `TABLE` with two."""
