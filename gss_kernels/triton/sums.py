"""Sums in a fixed order: over a thread's voxels, over a program's threads, over programs."""

from __future__ import annotations

import triton
import triton.language as tl

_CHUNK: tl.constexpr = tl.constexpr(128)


@triton.jit
def own_sum(x, VOXELS: tl.constexpr):
    """Sum over the voxels that one thread holds: `[BLOCK]` to `[BLOCK / VOXELS]`, without leaving the thread."""
    return tl.sum(tl.reshape(x, (x.shape[0] // VOXELS, VOXELS)), axis=1)


@triton.jit
def store_sums(partials, sums, programs, COUNT: tl.constexpr):
    """Reduce a program's accumulators and store them, one to a row of its sample."""
    # Divided anew, in 64 bits, so that the sample takes no register in the loop before.
    number = tl.program_id(0).to(tl.int64)
    column = partials + number // programs * (COUNT * programs) + number % programs
    for i in tl.static_range(COUNT):
        tl.store(column + i * programs, tl.sum(sums[i], axis=0))


@triton.jit
def row_sums(partials, rows, valid, programs, COUNTS: tl.constexpr = False):
    """Sums over the programs of some rows, a block `[A, B]` of row numbers; in int64 if they are counts."""
    # Reduced once, after the loop: a sum of loaded values inside one is what Triton before 3.9 rewrites wrongly.
    total = tl.zeros((rows.shape[0], rows.shape[1], _CHUNK), tl.int64 if COUNTS else tl.float32)
    for first in tl.range(0, programs, _CHUNK):
        program = first + tl.arange(0, _CHUNK)
        positions = rows[:, :, None] * programs + program[None, None, :]
        exists = valid[:, :, None] & (program < programs)[None, None, :]
        values = tl.load(partials + positions, exists, other=0.0)
        if COUNTS:
            values = values.to(tl.int64)
        total += values
    return tl.sum(total, axis=2)
