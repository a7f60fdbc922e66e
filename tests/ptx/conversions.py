"""What the conversions compute, by their full names; see `tests.ptx.arithmetic`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tests.ptx import undefined
from tests.ptx.arithmetic import Compute, Named, Operation
from tests.ptx.number_formats import (
    DTYPES,
    Array,
    bits_of,
    flush,
    from_bfloat16,
    from_float16,
    to_bfloat16,
    to_float16,
)

_INTEGERS = [f"{sign}{bits}" for sign in "su" for bits in (8, 16, 32, 64)]
_ROUNDINGS: dict[str, Compute] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def _operation(result: str, operand: str, compute: Compute) -> Operation:
    return Operation(result, (operand,), compute, widens=True)


def _cast(kind: str) -> Compute:
    return lambda x: x.astype(DTYPES[kind])


def _to_integer(kind: str, rounding: Compute) -> Compute:
    """Clamped to what the type holds; NaN is 0, in 64 bits the highest bit alone."""
    dtype = DTYPES[kind]
    limits = np.iinfo(dtype)
    of_nan = dtype(0) if bits_of(kind) < 64 else np.uint64(1 << 63).astype(dtype)

    def convert(x: Array) -> Array:
        # Powers of two, so exact in float64, as all of float32 is.
        rounded = rounding(np.asarray(x).astype(np.float64))
        inside = (rounded >= float(limits.min)) & (rounded < float(limits.max + 1))
        clamped = np.where(rounded < 0, dtype(limits.min), dtype(limits.max))
        converted = np.where(inside, rounded, 0.0).astype(dtype)
        return np.where(np.isnan(x), of_nan, np.where(inside, converted, clamped))

    return convert


def _between_integers() -> Named:
    for result in _INTEGERS:
        for operand in _INTEGERS:
            cast = _cast(result)
            moved = undefined.of_moved_bits(cast, 1)
            yield f"cvt.{result}.{operand}", _operation(result, operand, cast)._replace(spread=moved)


def _with_float32() -> Named:
    for kind in _INTEGERS:
        yield f"cvt.rn.f32.{kind}", _operation("f32", kind, _cast("f32"))
        for name, rounding in _ROUNDINGS.items():
            convert = _to_integer(kind, rounding)
            yield f"cvt.{name}.{kind}.f32", _operation(kind, "f32", convert)
            yield f"cvt.{name}.ftz.{kind}.f32", _operation(kind, "f32", _of_flushed(convert))


def _of_flushed(convert: Compute) -> Compute:
    return lambda x: convert(flush(x))


def _packed(convert: Compute) -> Compute:
    """Two numbers in 32 bits, the first in the upper half."""
    return lambda x, y: convert(x).astype(np.uint32) << np.uint32(16) | convert(y).astype(np.uint32)


def _with_halves() -> Named:
    for half, widen, narrow in (("bf16", from_bfloat16, to_bfloat16), ("f16", from_float16, to_float16)):
        yield f"cvt.f32.{half}", Operation("f32", (half,), widen)
        yield f"cvt.rn.{half}.f32", Operation("b16", ("f32",), narrow)
        yield (
            f"cvt.rn.{half}x2.f32",
            Operation("b32", ("f32", "f32"), _packed(narrow), spread=undefined.of_packed_halves),
        )
        for kind in ("s8", "u8", "s16", "u16"):
            # Exact in float32, so rounded once.
            yield (
                f"cvt.rn.{half}.{kind}",
                _operation("b16", kind, lambda x, narrow=narrow: narrow(x.astype(np.float32))),
            )


def _all() -> Iterator[tuple[str, Operation]]:
    for part in (_between_integers, _with_float32, _with_halves):
        yield from part()


TABLE: dict[str, Operation] = dict(_all())
