"""One block of voxels: who has been scanned, the logits, the voxel mask.

Everything of a voxel lives in registers: functions take and return tuples of blocks, unrolled at compile time.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Mask modes.
KEEP_ALL: tl.constexpr = tl.constexpr(0)
KEEP_DRAWN: tl.constexpr = tl.constexpr(1)
KEEP_GIVEN: tl.constexpr = tl.constexpr(2)


@triton.jit
def load_presence(available_pointer, sample, M: tl.constexpr, HAS_AVAILABLE: tl.constexpr):
    """For each modality whether the sample has it, and whether it has the two that learning takes."""
    present = ()
    count = 0
    for m in tl.static_range(M):
        if HAS_AVAILABLE:
            has_it = tl.load(available_pointer + sample * M + m) != 0
            count += has_it.to(tl.int32)
        else:
            has_it = True
            count += 1
        present = present + (has_it,)
    return present, count >= 2


@triton.jit
def inside_volume(start, offsets, num_voxels):
    """Which voxels of the block that starts at `start` exist."""
    # Offsets within a block fit 32 bits, whatever the size of the volume; only its base does not.
    return offsets < tl.minimum(num_voxels - start, offsets.shape[0]).to(tl.int32)


@triton.jit
def positions_of(start, offsets, stride_v):
    """Where the voxels of a block are in a volume, in 64 bits: strides may be large, as of a slice through a volume."""
    return start * stride_v + offsets * tl.cast(stride_v, tl.int64)


@triton.jit
def load_logits(pointer, stride_c, positions, readable, C: tl.constexpr):
    """Logits of one modality in float32, one block for each category; 0 where not readable."""
    logits = ()
    for c in tl.static_range(C):
        row = pointer + tl.cast(stride_c, tl.int64) * c
        logits = logits + (tl.load(row + positions, mask=readable, other=0.0).to(tl.float32),)
    return logits


@triton.jit
def keep_voxels(
    keep_pointer,
    seed_pointer,
    last_masked_word,
    sample,
    start,
    offsets,
    inside,
    present,
    enough,
    num_voxels,
    like,
    M: tl.constexpr,
    MASK: tl.constexpr,
    PTX: tl.constexpr,
):
    """Per modality, which voxels of the block count: inside the volume, present, not masked."""
    keep = ()
    if MASK == KEEP_DRAWN:
        seed = tl.load(seed_pointer)
        first = sample.to(tl.int64) * num_voxels + start
        first_low = (first & 0xFFFFFFFF).to(tl.uint32)
        low = first_low + in_layout_of(like, offsets, PTX).to(tl.uint32)
        high = (first >> 32).to(tl.uint32) + (low < first_low).to(tl.uint32)
        zero = low * 0
        words = ()
        for block in tl.static_range((M + 3) // 4):
            words = words + tl.philox(seed, low, high, zero + block, zero, 10)
    for m in tl.static_range(M):
        kept = inside & present[m] & enough
        if MASK == KEEP_DRAWN:
            kept = kept & (words[m] > tl.cast(last_masked_word, tl.uint32))
        if MASK == KEEP_GIVEN:
            row = (sample * M + m).to(tl.int64) * num_voxels + start
            kept = kept & (tl.load(keep_pointer + row + offsets, mask=inside, other=0) != 0)
        keep = keep + (kept,)
    return keep


@triton.jit
def in_layout_of(like, offsets, PTX: tl.constexpr):
    """The offsets, computed by the threads that hold `like`, a block of floats."""
    if PTX:
        # The unused operand ties the two layouts together and costs nothing.
        result = tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=r,r,f", [offsets, like], dtype=tl.int32, is_pure=True, pack=1
        )
    else:
        result = offsets
    return result
