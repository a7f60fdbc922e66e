"""Arithmetic that Triton lowers to many instructions, in one where the target has one.

`PTX` says whether inline PTX may be used: on NVIDIA hardware, not on AMD and not in Triton's interpreter. The
approximations are those that `exp2` uses anyway: good to about two units in the last place of float32, or, for
logarithms near 0, to 2**-22 in all; denormal numbers count as 0.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def reciprocal(x, PTX: tl.constexpr):
    """1 / x."""
    if PTX:
        result = tl.inline_asm_elementwise(
            "rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        result = 1.0 / x
    return result


@triton.jit
def log2(x, PTX: tl.constexpr):
    """Logarithm to base 2."""
    if PTX:
        result = tl.inline_asm_elementwise(
            "lg2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        result = tl.log2(x)
    return result


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


@triton.jit
def own_sum(x, VOXELS: tl.constexpr):
    """Sum over the voxels that one thread holds: `[BLOCK]` to `[BLOCK / VOXELS]`, without leaving the thread."""
    return tl.sum(tl.reshape(x, (x.shape[0] // VOXELS, VOXELS)), axis=1)
