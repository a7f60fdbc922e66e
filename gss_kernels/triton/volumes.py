"""Volumes as the kernels address them, a block of voxels at a time.

Everything of a voxel lives in registers: functions take and return tuples of blocks, unrolled at compile time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl


class Block(NamedTuple):
    """Some voxels of one sample."""

    sample: Any  # its index
    start: Any  # of the first voxel, 64 bits
    offsets: Any  # of all of them from there, 32 bits, which is enough within a block
    inside: Any  # which of them exist


class Presence(NamedTuple):
    """Whether a sample has each modality, M values, and whether it has the two that learning takes."""

    of: Any
    enough: Any


@triton.jit
def open_block(sample, number, offsets, num_voxels):
    """The block of that number of a sample, of consecutive voxels `offsets`."""
    BLOCK: tl.constexpr = offsets.shape[0]
    start = tl.cast(number, tl.int64) * BLOCK
    return Block(sample, start, offsets, offsets < tl.minimum(num_voxels - start, BLOCK).to(tl.int32))


@triton.jit
def load_presence(available, sample, M: tl.constexpr):
    """Who has been scanned."""
    present = ()
    count = 0
    for m in tl.static_range(M):
        if available is None:
            has_it = True
            count += 1
        else:
            has_it = tl.load(available + sample * M + m) != 0
            count += has_it.to(tl.int32)
        present = present + (has_it,)
    return Presence(present, count >= 2)


@triton.jit
def load_logits(volumes, block, present, m: tl.constexpr, C: tl.constexpr):
    """Logits of one modality in float32, C blocks; 0 outside the volume and where absent, whose memory is not read."""
    # A selection and not a conjunction, whose result Triton 3.9's interpreter does not take for a mask.
    readable = tl.where(present, block.inside, False)
    row, positions = row_of(volumes, block, m)
    logits = ()
    for c in tl.static_range(C):
        pointers = row + tl.cast(volumes.stride_c, tl.int64) * c + positions
        logits = logits + (tl.load(pointers, mask=readable, other=0.0).to(tl.float32),)
    return logits


@triton.jit
def row_of(volumes, block, m: tl.constexpr):
    """Where one modality of the block's sample begins, and where its voxels are from there, in 64 bits."""
    # Strides may be large, as of a slice through a volume.
    positions = block.start * volumes.stride_v + block.offsets * tl.cast(volumes.stride_v, tl.int64)
    return volumes.pointers[m] + block.sample.to(tl.int64) * volumes.stride_b, positions


@triton.jit
def store_gradient(volumes, block, gradient, m: tl.constexpr, c: tl.constexpr):
    """Store the gradient of one category of a modality, in its own dtype."""
    row, positions = row_of(volumes, block, m)
    pointers = row + tl.cast(volumes.stride_c, tl.int64) * c + positions
    tl.store(pointers, gradient.to(pointers.dtype.element_ty), mask=block.inside)


@triton.jit
def load_coefficients(coefficients, kind, m, block, num_samples, scale, form: tl.constexpr):
    """C coefficients of one modality of the block's sample, of `[kinds, B, M, C]`, times `scale`."""
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    row = coefficients + ((tl.cast(num_samples, tl.int64) * kind + block.sample) * M + m) * C
    result = ()
    for c in tl.static_range(C):
        result = result + (tl.load(row + c) * scale,)
    return result
