"""Arithmetic that Triton lowers to many instructions, in one where the target has one.

`PTX` says whether inline PTX may be used: on NVIDIA hardware, not on AMD and not in Triton's interpreter. The
approximations are those that `exp2` uses anyway: good to about two units in the last place of float32, or, for
logarithms near 0, to 2**-22 in all; denormal numbers count as 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

_LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)


@triton.jit
def _instruction(x, TEXT: tl.constexpr):
    return tl.inline_asm_elementwise(TEXT, "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def reciprocal(x, PTX: tl.constexpr):
    """1 / x."""
    return _instruction(x, "rcp.approx.ftz.f32 $0, $1;") if PTX else 1.0 / x


@triton.jit
def log2(x, PTX: tl.constexpr):
    """Logarithm to base 2."""
    return _instruction(x, "lg2.approx.ftz.f32 $0, $1;") if PTX else tl.log2(x)


@triton.jit
def rounded_product(x, y, PTX: tl.constexpr):
    """X * y, which the compiler may not merge with an addition: then it would not be rounded in between."""
    if PTX:
        result = tl.inline_asm_elementwise(
            "mul.rn.f32 $0, $1, $2;", "=f,f,f", [x, y], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        result = x * y
    return result


@triton.jit
def at_least(x, bound: tl.constexpr):
    """The larger of x and a constant; the constant where x is NaN, also in the interpreter, unlike `tl.maximum`."""
    return tl.where(x > bound, x, bound)


class Softmaxes(NamedTuple):
    """Of one modality, C blocks each: q, log2 q, sharp exponentials; and the sum of the latter."""

    student: Any
    student_log: Any
    sharp: Any
    sharp_sum: Any


@triton.jit
def softmaxes(logits, log2_scale, form: tl.constexpr):
    """Both softmaxes of one modality. For T = 2**squarings the sharp exponential is a power of the tempered one.

    That spares half of the special-function instructions.
    """
    C: tl.constexpr = form.C
    SQUARINGS: tl.constexpr = form.squarings
    highest = logits[0]
    for c in tl.static_range(1, C):
        highest = tl.maximum(highest, logits[c])
    scaled = ()
    tempered = ()
    sharp = ()
    total = tl.zeros_like(highest)
    sharp_sum = tl.zeros_like(highest)
    for c in tl.static_range(C):
        # Not one multiply-add with `highest * log2_scale`: its rounding would matter for huge logits.
        shifted = logits[c] - highest
        exponent = shifted * log2_scale
        value = tl.exp2(exponent)
        if SQUARINGS > 0:
            power = value
            for _ in tl.static_range(SQUARINGS):
                power = power * power
        else:
            power = tl.exp2(shifted * _LOG2_E)
        scaled = scaled + (exponent,)
        tempered = tempered + (value,)
        sharp = sharp + (power,)
        total += value
        sharp_sum += power
    inverse = reciprocal(total, form.ptx)
    total_log = log2(total, form.ptx)
    student = ()
    student_log = ()
    for c in tl.static_range(C):
        # With and without missing modalities, other code follows: the same bits need the same rounding.
        student = student + (rounded_product(tempered[c], inverse, form.ptx),)
        student_log = student_log + (scaled[c] - total_log,)
    return Softmaxes(student, student_log, sharp, sharp_sum)
