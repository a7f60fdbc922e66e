"""Bits of registers as the numbers of PTX's types, and floating-point arithmetic as hardware rounds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BoolArray = NDArray[np.bool_]

DTYPES: dict[str, Any] = {
    "pred": np.bool_,
    **{f"{kind}{bits}": getattr(np, f"uint{bits}") for kind in "bu" for bits in (8, 16, 32, 64)},
    **{f"s{bits}": getattr(np, f"int{bits}") for bits in (8, 16, 32, 64)},
    "f16": np.float16,
    "bf16": np.uint16,  # NumPy has none: its bits
    "f16x2": np.uint32,
    "bf16x2": np.uint32,
    "f32": np.float32,
    "f32x2": np.uint64,
}
_SMALLEST_NORMAL = np.float32(2.0**-126)
_NAN = np.uint32(0x7FFF_FFFF)


def bits_of(kind: str) -> int:
    """Width of a type; of a predicate 1."""
    return 1 if kind == "pred" else 8 * np.dtype(DTYPES[kind]).itemsize


def as_bits(values: Array) -> Array:
    """The bits of numbers, as unsigned integers; predicates as they are."""
    return values if values.dtype == np.bool_ else values.view(f"u{values.dtype.itemsize}")


def flush(x: Array) -> Array:
    """Denormal numbers as 0 of their sign."""
    return np.where(np.abs(x) < _SMALLEST_NORMAL, np.copysign(np.float32(0), x), x)


def canonical(x: Array) -> Array:
    """The one NaN that arithmetic in float32 gives."""
    return np.where(np.isnan(x), _NAN.view(np.float32), x)


def fused_multiply_add(x: Array, y: Array, z: Array) -> Array:
    """X * y + z, rounded once: the product is exact in float64, and the sum is rounded to odd before it is narrowed."""
    product = x.astype(np.float64) * y.astype(np.float64)
    addend = z.astype(np.float64)
    total = np.asarray(product + addend)
    # What the sum lost, exactly; a NaN where it is not finite.
    virtual = total - product
    lost = np.asarray((product - (total - virtual)) + (addend - virtual))
    bits = total.view(np.int64)
    inexact = np.isfinite(lost) & (lost != 0) & (bits & 1 == 0)
    towards = np.where((lost > 0) == (total > 0), 1, -1)
    return np.where(inexact, bits + towards, bits).view(np.float64).astype(np.float32)


def to_bfloat16(x: Array) -> Array:
    """The bits of the nearest bfloat16, the even one of two; of NaN 0x7FFF."""
    bits = np.asarray(x).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(x), np.uint32(0x7FFF), rounded).astype(np.uint16)


def to_float16(x: Array) -> Array:
    """The bits of the nearest float16, the even one of two; of NaN 0x7FFF."""
    return np.where(np.isnan(x), np.uint16(0x7FFF), np.asarray(x).astype(np.float16).view(np.uint16))


def from_bfloat16(bits: Array) -> Array:
    """The float32 of the same value."""
    return (np.asarray(bits).astype(np.uint32) << np.uint32(16)).view(np.float32)


def from_float16(values: Array) -> Array:
    """The float32 of the same value."""
    return values.astype(np.float32)


def flushing(function: Callable[..., Array]) -> Callable[..., Array]:
    """The `.ftz` form of a function of float32."""
    return lambda *operands: flush(function(*map(flush, operands)))


def in_pairs(function: Callable[..., Array], kind: str) -> Callable[..., Array]:
    """The form of a function of one type for pairs in registers of twice the width."""
    return lambda *operands: function(*(operand.view(DTYPES[kind]) for operand in operands)).view(operands[0].dtype)
