"""What the kernels share: loading logits, the vote on one block of voxels, the voxel mask.

Everything of a voxel lives in registers: functions take and return tuples of blocks, entry `m * C + c` belonging to
modality m and category c, unrolled at compile time. Logarithms are to base 2, as the hardware has them.
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
def load_logits(pointers, present, base, stride_c, positions, inside, M: tl.constexpr, C: tl.constexpr):
    """Logits in float32; 0 outside the volume and for absent modalities, whose memory is not read."""
    logits = ()
    for m in tl.static_range(M):
        # A selection and not a conjunction, whose result Triton 3.9's interpreter does not take for a mask.
        readable = tl.where(present[m], inside, False)
        for c in tl.static_range(C):
            pointer = pointers[m] + (base + tl.cast(stride_c, tl.int64) * c)
            value = tl.load(pointer + positions, mask=readable, other=0.0)
            logits = logits + (value.to(tl.float32),)
    return logits


@triton.jit
def exponentials(logits, log2_scale, M: tl.constexpr, C: tl.constexpr, SQUARINGS: tl.constexpr):
    """Per modality and category: q, log2 q and the sharp exponential; per modality: the sum of the sharp ones.

    `log2_scale` is `log2(e) / T`. For T = 2**SQUARINGS the sharp exponential is a power of the tempered one, which
    spares half of the special-function instructions.
    """
    student = ()
    student_log = ()
    sharp = ()
    sharp_sum = ()
    for m in tl.static_range(M):
        highest = logits[m * C]
        for c in tl.static_range(1, C):
            highest = tl.maximum(highest, logits[m * C + c])
        tempered = ()
        total = tl.zeros_like(highest)
        total_sharp = tl.zeros_like(highest)
        for c in tl.static_range(C):
            shifted = logits[m * C + c] - highest
            value = tl.exp2(shifted * log2_scale)
            if SQUARINGS > 0:
                power = value
                for _ in tl.static_range(SQUARINGS):
                    power = power * power
            else:
                power = tl.exp2(shifted * 1.4426950408889634)
            tempered = tempered + (value,)
            sharp = sharp + (power,)
            total += value
            total_sharp += power
        inverse = 1.0 / total
        total_log = tl.log2(total)
        for c in tl.static_range(C):
            student = student + (tempered[c] * inverse,)
            student_log = student_log + ((logits[m * C + c] - highest) * log2_scale - total_log,)
        sharp_sum = sharp_sum + (total_sharp,)
    return student, student_log, sharp, sharp_sum


@triton.jit
def vote_of_category(
    student,
    sharp,
    sharp_sum,
    present,
    leader_threshold,
    member_threshold,
    leader_blend,
    c: tl.constexpr,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
):
    """The un-normalised target of category c. Bit `c * M + m` of LEADERS says that m leads c."""
    some_leader = sharp[c] < float("-inf")
    all_leaders = sharp[c] >= float("-inf")
    all_members = sharp[c] >= float("-inf")
    highest = tl.full(sharp[c].shape, float("-inf"), tl.float32)
    lowest = tl.full(sharp[c].shape, float("inf"), tl.float32)
    minimum = lowest
    members_sum = tl.zeros_like(highest)
    num_leaders = 0
    num_members = 0
    for m in tl.static_range(M):
        q = student[m * C + c]
        q_or_high = q
        if HAS_AVAILABLE:
            q_or_high = tl.where(present[m], q, float("inf"))
        minimum = tl.minimum(minimum, q_or_high)
        if (LEADERS >> (c * M + m)) & 1:
            confident = sharp[m * C + c] > leader_threshold * sharp_sum[m]
            lowest = tl.minimum(lowest, q_or_high)
            if HAS_AVAILABLE:
                some_leader = some_leader | (confident & present[m])
                all_leaders = all_leaders & (confident | (present[m] == 0))
                highest = tl.maximum(highest, tl.where(present[m], q, float("-inf")))
                num_leaders += present[m].to(tl.int32)
            else:
                some_leader = some_leader | confident
                all_leaders = all_leaders & confident
                highest = tl.maximum(highest, q)
                num_leaders += 1
        else:
            confident = sharp[m * C + c] > member_threshold * sharp_sum[m]
            if HAS_AVAILABLE:
                all_members = all_members & (confident | (present[m] == 0))
                members_sum += tl.where(present[m], q, 0.0)
                num_members += present[m].to(tl.int32)
            else:
                all_members = all_members & confident
                members_sum += q
                num_members += 1
    # A table of constants and not a division, so that a full `available` gives the same bits as none.
    inverse = 0.0
    for count in tl.static_range(1, M):
        inverse = tl.where(num_members == count, 1.0 / count, inverse)
    members_mean = members_sum * inverse
    blend = highest - leader_blend * (highest - lowest)
    agreed = highest
    if RELEASED:
        agreed = tl.where(num_leaders >= 2, highest + blend, highest)
        members_mean = tl.where(num_leaders == 1, 0.0, members_mean)
    result = tl.where(all_members & (num_members > 0), members_mean, minimum)
    result = tl.where(some_leader, blend, result)
    return tl.where(some_leader & all_leaders, agreed, result)


@triton.jit
def soft_target(
    student,
    sharp,
    sharp_sum,
    present,
    leader_threshold,
    member_threshold,
    leader_blend,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
):
    """t: all votes, normalised over the categories; 0 where every vote underflows."""
    votes = ()
    total = tl.zeros_like(sharp[0])
    for c in tl.static_range(C):
        vote = vote_of_category(
            student,
            sharp,
            sharp_sum,
            present,
            leader_threshold,
            member_threshold,
            leader_blend,
            c,
            M,
            C,
            LEADERS,
            RELEASED,
            HAS_AVAILABLE,
        )
        votes = votes + (vote,)
        total += vote
    # Votes may sum to a denormal number, whose reciprocal overflows: lift them first, by a power of two.
    lift = tl.where(total < 1e-30, 18446744073709551616.0, 1.0)
    inverse = tl.where(total == 0.0, 0.0, 1.0 / (total * lift))
    target = ()
    for c in tl.static_range(C):
        target = target + (votes[c] * lift * inverse,)
    return target


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
    M: tl.constexpr,
    MASK: tl.constexpr,
):
    """Per modality, which voxels of the block count: inside the volume, present, not masked."""
    keep = ()
    if MASK == KEEP_DRAWN:
        seed = tl.load(seed_pointer)
        first = sample.to(tl.int64) * num_voxels + start
        first_low = (first & 0xFFFFFFFF).to(tl.uint32)
        low = first_low + offsets.to(tl.uint32)
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
