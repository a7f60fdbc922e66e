"""Instructions of arithmetic and logic against Python's integers, exact fractions and what the standard says."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch

from tests.ptx.handwritten import apply, every_pair
from tests.ptx.number_formats import Array
from tests.ptx.program import UnknownInstructionError
from tests.ptx.steps import UnspecifiedResultError

SIGNED = {16: np.int16, 32: np.int32, 64: np.int64}
UNSIGNED = {16: np.uint16, 32: np.uint32, 64: np.uint64}
FLOATS = [0.0, -0.0, 1.0, -1.0, 1 / 3, 16777215.0, 3e38, -3e38, 1e-38, 2.0**-149, -(2.0**-127), math.inf, -math.inf]
FLOATS += [math.nan, 2.0**-126, 1 + 2.0**-23, 6.25e-2]


def edges(kind: str) -> Array:
    """Numbers about the ends and the middle of a type's range."""
    bits, signed = int(kind[1:]), kind.startswith("s")
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    values = {low, low + 1, high, high - 1, 0, 1, 2, 3, 7, high // 2, high // 3, *((-1, -2, -7) if signed else ())}
    return np.array(sorted(values), (SIGNED if signed else UNSIGNED)[bits])


def wrapped(value: int, kind: str) -> int:
    bits = int(kind[1:])
    value &= (1 << bits) - 1
    return value - (1 << bits) if kind.startswith("s") and value >> (bits - 1) else value


def single(value: float) -> float:
    """The nearest float32."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def nearest_single(value: Fraction) -> float:
    """The nearest float32 of an exact number, the even one of two; zero is positive."""
    if value == 0:
        return 0.0
    exponent = max(abs(value).numerator.bit_length() - abs(value).denominator.bit_length() - 24, -149)
    while abs(value) / Fraction(2) ** exponent >= 1 << 24:
        exponent += 1
    # Python rounds a fraction to the nearest integer, the even one of two.
    return single(math.ldexp(round(value / Fraction(2) ** exponent), exponent))


def flushed(value: float) -> float:
    return math.copysign(0.0, value) if abs(value) < 2.0**-126 else value


def assert_same(got: Array, want: object) -> None:
    """Equal bits, but for those of NaN."""
    expected = np.asarray(want, got.dtype)
    if got.dtype.kind == "f":
        assert np.array_equal(np.isnan(got), np.isnan(expected))
        got, expected = np.nan_to_num(got, nan=1.0), np.nan_to_num(expected, nan=1.0)
        got, expected = (value.view(f"u{value.dtype.itemsize}") for value in (got, expected))
    np.testing.assert_array_equal(got, expected)


TWO_INTEGERS: dict[str, Callable[[int, int], int]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul.lo": lambda x, y: x * y,
    "min": min,
    "max": max,
}


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
@pytest.mark.parametrize("name", TWO_INTEGERS)
def test_integers(name: str, kind: str) -> None:
    dtype = edges(kind).dtype.type
    x, y = every_pair(edges(kind), dtype)
    want = [wrapped(TWO_INTEGERS[name](int(a), int(b)), kind) for a, b in zip(x, y, strict=True)]
    assert_same(apply(f"{name}.{kind}", dtype, x, y), want)


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
def test_upper_half_of_a_product(kind: str) -> None:
    dtype = edges(kind).dtype.type
    x, y = every_pair(edges(kind), dtype)
    want = [wrapped(int(a) * int(b) >> int(kind[1:]), kind) for a, b in zip(x, y, strict=True)]
    assert_same(apply(f"mul.hi.{kind}", dtype, x, y), want)


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32"])
def test_wide_products(kind: str) -> None:
    wide_kind = f"{kind[0]}{2 * int(kind[1:])}"
    x, y = every_pair(edges(kind), edges(kind).dtype.type)
    wide = edges(wide_kind).dtype.type
    want = [int(a) * int(b) for a, b in zip(x, y, strict=True)]
    assert_same(apply(f"mul.wide.{kind}", wide, x, y), want)
    addend = np.resize(edges(wide_kind), len(x))
    sums = [wrapped(product + int(c), wide_kind) for product, c in zip(want, addend, strict=True)]
    assert_same(apply(f"mad.wide.{kind}", wide, x, y, addend), sums)


@pytest.mark.parametrize("kind", ["s32", "u32", "s64"])
def test_product_and_sum(kind: str) -> None:
    dtype = edges(kind).dtype.type
    x, y = every_pair(edges(kind), dtype)
    z = np.resize(edges(kind), len(x))
    want = [wrapped(int(a) * int(b) + int(c), kind) for a, b, c in zip(x, y, z, strict=True)]
    assert_same(apply(f"mad.lo.{kind}", dtype, x, y, z), want)


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
def test_division_truncates(kind: str) -> None:
    dtype = edges(kind).dtype.type
    x, y = every_pair(edges(kind), dtype)
    specified = (y != 0) & ~((y.astype(object) == -1) & (x == edges(kind)[0]))
    x, y = x[specified], y[specified]
    quotients = [abs(int(a)) // abs(int(b)) * (1 if (a < 0) == (b < 0) else -1) for a, b in zip(x, y, strict=True)]
    assert_same(apply(f"div.{kind}", dtype, x, y), quotients)
    remainders = [int(a) - q * int(b) for a, b, q in zip(x, y, quotients, strict=True)]
    assert_same(apply(f"rem.{kind}", dtype, x, y), remainders)


@pytest.mark.parametrize("name", ["div.s32", "rem.u32"])
def test_division_by_zero_is_an_error(name: str) -> None:
    dtype = np.int32 if name.endswith("s32") else np.uint32
    with pytest.raises(UnspecifiedResultError, match=rf"{name} .*thread 1 of CTA 0"):
        apply(name, dtype, np.array([1, 1], dtype), np.array([1, 0], dtype))


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_shifts_beyond_the_width(bits: int) -> None:
    by = np.array([0, 1, bits - 1, bits, bits + 1, 255, 2**31, 2**32 - 1], np.uint32)
    for kind in (f"u{bits}", f"s{bits}"):
        x = np.repeat(edges(kind), len(by))
        amounts = np.tile(by, len(edges(kind)))
        capped = [(int(a), min(int(n), bits)) for a, n in zip(x, amounts, strict=True)]
        assert_same(apply(f"shr.{kind}", x.dtype.type, x, amounts), [a >> n for a, n in capped])
        assert_same(apply(f"shl.b{bits}", x.dtype.type, x, amounts), [wrapped(a << n, kind) for a, n in capped])


@pytest.mark.parametrize("kind", ["u32", "s32", "u64", "s64"])
def test_bit_fields(kind: str) -> None:
    bits = int(kind[1:])
    lists = np.meshgrid(np.arange(len(edges(kind))), [0, 1, 5, bits - 1, bits, 255], [0, 1, 4, 31, bits, 255])
    which, position, length = (values.ravel() for values in lists)
    x = edges(kind)[which]
    want = []
    for a, start, number in zip(x.tolist(), position.tolist(), length.tolist(), strict=True):
        # As PTX's manual has it: beyond the highest bit are zeros, or copies of the highest bit of the field.
        end = min(start + number - 1, bits - 1)
        unsigned = a & ((1 << bits) - 1)
        fill = int(kind.startswith("s") and number > 0 and unsigned >> end & 1)
        field = [(unsigned >> start + i & 1) if i < number and start + i < bits else fill for i in range(bits)]
        want.append(wrapped(sum(bit << i for i, bit in enumerate(field)), kind))
    got = apply(f"bfe.{kind}", x.dtype.type, x, position.astype(np.uint32), length.astype(np.uint32))
    assert_same(got, want)


def test_permuted_bytes() -> None:
    x, y = 0x83_02_F1_70, 0x07_86_05_94
    selectors = [0x7531, 0x0000, 0x3210, 0x7654, 0xFB3C, 0x9999, 0x7701, 0xFFFF_3210]
    pool = x.to_bytes(4, "little") + y.to_bytes(4, "little")
    want = []
    for selector in selectors:
        chosen = [selector >> 4 * i & 0xF for i in range(4)]
        own = bytes(0xFF * (pool[c & 7] >> 7) if c & 8 else pool[c] for c in chosen)
        want.append(int.from_bytes(own, "little"))
    arrays = (np.full(len(selectors), value, np.uint32) for value in (x, y))
    assert_same(apply("prmt.b32", np.uint32, *arrays, np.array(selectors, np.uint32)), want)


@pytest.mark.parametrize("name", ["and", "or", "xor"])
def test_logic(name: str) -> None:
    function = {"and": int.__and__, "or": int.__or__, "xor": int.__xor__}[name]
    for bits in (16, 32, 64):
        x, y = every_pair(edges(f"u{bits}"), UNSIGNED[bits])
        want = [function(int(a), int(b)) for a, b in zip(x, y, strict=True)]
        assert_same(apply(f"{name}.b{bits}", UNSIGNED[bits], x, y), want)
    x, y = every_pair([False, True], np.bool_)
    assert_same(apply(f"{name}.pred", np.bool_, x, y), [function(int(a), int(b)) for a, b in zip(x, y, strict=True)])


def test_population() -> None:
    for bits in (32, 64):
        x = edges(f"u{bits}")
        assert_same(apply(f"popc.b{bits}", np.uint32, x), [int(a).bit_count() for a in x])


def test_negations() -> None:
    x = edges("s32")
    assert_same(apply("neg.s32", np.int32, x), [wrapped(-int(a), "s32") for a in x])
    assert_same(apply("abs.s32", np.int32, x), [wrapped(abs(int(a)), "s32") for a in x])
    assert_same(apply("not.b32", np.int32, x), [~int(a) for a in x])
    assert_same(apply("not.pred", np.bool_, np.array([False, True])), [True, False])
    assert_same(apply("neg.f32", np.float32, np.array([0.0, -1.5], np.float32)), [-0.0, 1.5])
    assert_same(apply("abs.f32", np.float32, np.array([-0.0, -1.5], np.float32)), [0.0, 1.5])


TWO_FLOATS: dict[str, Callable[[float, float], float]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
}


@pytest.mark.parametrize("rounding", ["", ".rn"])
@pytest.mark.parametrize("name", TWO_FLOATS)
def test_floats(name: str, rounding: str) -> None:
    """A float64 holds enough digits for its rounding not to matter."""
    x, y = every_pair(FLOATS, np.float32)
    function = TWO_FLOATS[name]
    want = [single(function(float(a), float(b))) for a, b in zip(x, y, strict=True)]
    assert_same(apply(f"{name}{rounding}.f32", np.float32, x, y), want)
    flat = [flushed(single(function(flushed(float(a)), flushed(float(b))))) for a, b in zip(x, y, strict=True)]
    assert_same(apply(f"{name}{rounding}.ftz.f32", np.float32, x, y), flat)
    pairs = apply(f"{name}{rounding}.f32x2", np.uint64, *(np.append(v, v[:1]).view(np.uint64) for v in (x, y)))
    assert_same(pairs.view(np.float32)[:-1], want)


def test_arithmetic_gives_the_canonical_nan() -> None:
    x = np.array([0xFFC0_1234], np.uint32)
    assert apply("add.f32", np.uint32, x, x).tolist() == [0x7FFF_FFFF]
    assert apply("max.f32", np.uint32, x, x).tolist() == [0x7FFF_FFFF]
    assert apply("neg.f32", np.uint32, x).tolist() == [0x7FC0_1234]


def test_fused_multiply_add_rounds_once() -> None:
    rng = np.random.default_rng(0)
    x, y, z = rng.standard_normal((3, 400)).astype(np.float32)
    z[200:] *= np.float32(2.0**-40)
    # Results that are denormal.
    x[:50] *= np.float32(2.0**-80)
    y[:50] *= np.float32(2.0**-60)
    z[:50] = 0
    exact = [Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)) for a, b, c in zip(x, y, z, strict=True)]
    assert_same(np.abs(apply("fma.rn.f32", np.float32, x, y, z)), np.abs([nearest_single(value) for value in exact]))


def test_fused_multiply_add_is_not_rounded_to_float64_first() -> None:
    """Which would take sums next to the middle between two float32 for the middle, and it to the even one."""
    x, y = np.float32([1 + 2.0**-12] * 2), np.float32([1 + 2.0**-12, 1 - 2.0**-12])
    # Products of 1 + 2**-11 + 2**-24, the middle, and of 1 - 2**-24.
    z = np.float32([2.0**-80, -(2.0**-80)])
    assert_same(apply("fma.rn.f32", np.float32, x, y, z), [1 + 2.0**-11 + 2.0**-23, 1 - 2.0**-24])
    assert_same(apply("fma.rn.f32", np.float32, x[:1], y[:1], -z[:1]), [1 + 2.0**-11])


def test_fused_multiply_add_of_special_numbers() -> None:
    x = np.float32([math.inf, math.inf, 0.0, 3e38, math.nan, -0.0])
    y = np.float32([0.0, 1.0, -1.0, 10.0, 1.0, 1.0])
    z = np.float32([1.0, -math.inf, 0.0, -1.0, 1.0, -0.0])
    assert_same(apply("fma.rn.f32", np.float32, x, y, z), [math.nan, math.nan, 0.0, math.inf, math.nan, -0.0])
    denormal = np.float32([2.0**-127])
    assert_same(apply("fma.rn.ftz.f32", np.float32, denormal, np.float32([2.0]), np.float32([0.0])), [0.0])


@pytest.mark.parametrize(("half", "name"), [("bf16", "sub.rn.f32.bf16"), ("f16", "sub.rn.f32.f16")])
def test_sums_with_half_precision(half: str, name: str) -> None:
    values = np.float32([1.5, -2.0, 0.25])
    bits = (
        (values.view(np.uint32) >> 16).astype(np.uint16)
        if half == "bf16"
        else values.astype(np.float16).view(np.uint16)
    )
    assert_same(apply(name, np.float32, bits, np.float32([1e-3, 5.0, 0.25])), values - np.float32([1e-3, 5.0, 0.25]))


def test_extremes() -> None:
    x = np.float32([math.nan, 1.0, math.nan, -0.0, 0.0, -math.inf, 2.0])
    y = np.float32([1.0, math.nan, math.nan, 0.0, -0.0, 3.0, 1.0])
    assert_same(apply("max.f32", np.float32, x, y), [1.0, 1.0, math.nan, 0.0, 0.0, 3.0, 2.0])
    assert_same(apply("min.f32", np.float32, x, y), [1.0, 1.0, math.nan, -0.0, -0.0, -math.inf, 1.0])
    assert_same(apply("max.NaN.f32", np.float32, x, y), [math.nan, math.nan, math.nan, 0.0, 0.0, 3.0, 2.0])
    z = np.float32([5.0, math.nan, math.nan, 7.0, -1.0, 4.0, math.inf])
    assert_same(apply("max.f32", np.float32, x, y, z), [5.0, 1.0, math.nan, 7.0, 0.0, 4.0, math.inf])


@pytest.mark.parametrize("kind", ["bf16", "f16"])
def test_half_precision(kind: str) -> None:
    dtype = torch.bfloat16 if kind == "bf16" else torch.float16
    values = torch.tensor([math.nan, 1.0, 0.0, -0.0, -math.inf, 3.0, 2.0**-16], dtype=dtype)
    bits = values.view(torch.uint16).numpy()
    x, y = every_pair(bits, np.uint16)
    wide = every_pair(values.float().numpy(), np.float32)
    for name in ("max", "min", "max.NaN"):
        want = torch.from_numpy(apply(f"{name}.f32", np.float32, *wide)).to(dtype).view(torch.uint16).numpy()
        want = np.where(np.isnan(wide[0]) & np.isnan(wide[1]), 0x7FFF, want)
        if name == "max.NaN":
            want = np.where(np.isnan(wide[0]) | np.isnan(wide[1]), 0x7FFF, want)
        assert_same(apply(f"{name}.{kind}", np.uint16, x, y), want)
        odd = (np.append(v, v[:1]).view(np.uint32) for v in (x, y))
        assert_same(apply(f"{name}.{kind}x2", np.uint32, *odd).view(np.uint16)[:-1], want)
    for name in ("le", "gtu", "ne", "nan"):
        assert_same(apply(f"setp.{name}.{kind}", np.bool_, x, y), apply(f"setp.{name}.f32", np.bool_, *wide))
    assert_same(apply(f"neg.{kind}", np.uint16, bits[1:]), (-values).view(torch.uint16).numpy()[1:])
    assert_same(apply(f"abs.{kind}", np.uint16, bits[1:]), values.abs().view(torch.uint16).numpy()[1:])


def test_quotients_and_reciprocals() -> None:
    x, y = every_pair([1.0, -3.0, 7.0, 0.0, math.inf, 2.0**-127], np.float32)
    with np.errstate(all="ignore"):
        want = x / y
    for name in ("div.rn.f32", "div.full.f32"):
        assert_same(apply(name, np.float32, x, y), want)
    assert_same(apply("div.approx.f32", np.float32, np.float32([5.0]), np.float32([2.0**127])), [0.0])
    inputs = np.float32([4.0, 3.0, 2.0**-127, -0.0, math.inf, 2.0**127])
    assert_same(apply("rcp.approx.ftz.f32", np.float32, inputs), [0.25, single(1 / 3), math.inf, -math.inf, 0.0, 0.0])


def test_powers_and_logarithms() -> None:
    powers = np.float32([0.0, 10.0, -126.0, -127.0, 0.5, 128.0, -math.inf, math.nan])
    want = [1.0, 1024.0, 2.0**-126, 0.0, single(math.sqrt(2)), math.inf, 0.0, math.nan]
    assert_same(apply("ex2.approx.ftz.f32", np.float32, powers), want)
    want[3] = 2.0**-127
    assert_same(apply("ex2.approx.f32", np.float32, powers), want)
    inputs = np.float32([1.0, 1024.0, 3.0, 0.0, -1.0, 2.0**-127, math.inf])
    want = [0.0, 10.0, single(math.log2(3)), -math.inf, math.nan, -math.inf, math.inf]
    assert_same(apply("lg2.approx.ftz.f32", np.float32, inputs), want)


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "eq": lambda x, y: x == y,
    "ne": lambda x, y: x != y,
    "lt": lambda x, y: x < y,
    "le": lambda x, y: x <= y,
    "gt": lambda x, y: x > y,
    "ge": lambda x, y: x >= y,
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons(name: str) -> None:
    compare = COMPARISONS[name]
    for kind in ("s16", "u16", "s32", "u32", "s64", "u64"):
        x, y = every_pair(edges(kind), edges(kind).dtype.type)
        want = [compare(int(a), int(b)) for a, b in zip(x, y, strict=True)]
        assert_same(apply(f"setp.{name}.{kind}", np.bool_, x, y), want)
    x, y = every_pair(FLOATS, np.float32)
    nan = np.isnan(x) | np.isnan(y)
    ordered = np.array([compare(float(a), float(b)) for a, b in zip(x, y, strict=True)])
    assert_same(apply(f"setp.{name}.f32", np.bool_, x, y), ordered & ~nan)
    assert_same(apply(f"setp.{name}u.f32", np.bool_, x, y), ordered | nan)


def test_comparisons_that_ask_for_nan() -> None:
    x, y = every_pair([1.0, math.nan], np.float32)
    assert_same(apply("setp.nan.f32", np.bool_, x, y), [False, True, True, True])
    assert_same(apply("setp.num.f32", np.bool_, x, y), [True, False, False, False])


def test_selection() -> None:
    where = np.array([True, False])
    for dtype, kind in ((np.uint16, "b16"), (np.uint32, "b32"), (np.float32, "f32"), (np.uint64, "b64")):
        got = apply(f"selp.{kind}", dtype, np.array([1, 2], dtype), np.array([3, 4], dtype), where)
        assert_same(got, [1, 4])


@pytest.mark.parametrize(
    "name",
    ["add.sat.f32", "add.rz.f32", "mul.rm.f32", "fma.f32", "div.ftz.f32", "max.xorsign.abs.f32", "sin.approx.f32"],
)
def test_other_modifiers_are_errors(name: str) -> None:
    one = np.float32([1.0])
    with pytest.raises(UnknownInstructionError, match=name):
        apply(name, np.float32, one, one)
