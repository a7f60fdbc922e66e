"""The fused loss: a forward pass that sums, a tiny kernel that finishes it, a backward pass that recomputes.

The weights enter the loss linearly, so the forward pass needs no second look at the logits: per sample, modality and
category it sums the kept target and the divergence. The backward pass reads the logits again and writes the gradient;
nothing of the size of the volume is kept in between. Sums are taken in a fixed order: results repeat to the bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gss_kernels.triton.vote import exponentials, keep_voxels, load_logits, load_presence, soft_target

_LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def target_and_students(
    pointers,
    stride_b,
    stride_c,
    stride_v,
    available_pointer,
    sample,
    start,
    offsets,
    num_voxels,
    log2_scale,
    leader_threshold,
    member_threshold,
    leader_blend,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    SQUARINGS: tl.constexpr,
):
    """One block of voxels: t, q, log2 q, and what counts of it."""
    present, enough = load_presence(available_pointer, sample, M, HAS_AVAILABLE)
    # Offsets within a block fit 32 bits, whatever the size of the volume; only its base does not.
    inside = offsets < tl.minimum(num_voxels - start, offsets.shape[0]).to(tl.int32)
    base = sample.to(tl.int64) * stride_b + start * stride_v
    logits = load_logits(pointers, present, base, stride_c, offsets * stride_v, inside, M, C)
    student, student_log, sharp, sharp_sum = exponentials(logits, log2_scale, M, C, SQUARINGS)
    target = soft_target(
        student,
        sharp,
        sharp_sum,
        present,
        leader_threshold,
        member_threshold,
        leader_blend,
        M,
        C,
        LEADERS,
        RELEASED,
        HAS_AVAILABLE,
    )
    return target, student, student_log, inside, present, enough


@triton.jit
def forward_kernel(
    pointers,
    stride_b,
    stride_c,
    stride_v,
    available_pointer,
    keep_pointer,
    seed_pointer,
    partial_pointer,
    num_voxels,
    last_masked_word,
    log2_scale,
    leader_threshold,
    member_threshold,
    leader_blend,
    log2_clamp,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    SQUARINGS: tl.constexpr,
    MASK: tl.constexpr,
    KL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Partial sums of each program, `[B, M + 2 * M * C, programs]`: kept voxels, kept target, divergence in bits.

    Grid: (programs, B); a program walks over every programs-th block and reduces its accumulators once, at the end.
    """
    program, programs = tl.program_id(0), tl.num_programs(0)
    sample = tl.program_id(1)
    offsets = tl.arange(0, BLOCK)
    zeros = tl.zeros((BLOCK,), tl.float32)
    kept_sums = (zeros,) * M
    target_sums = (zeros,) * (M * C)
    divergence_sums = (zeros,) * (M * C)
    for block in tl.range(program, tl.cdiv(num_voxels, BLOCK), programs):
        start = tl.cast(block, tl.int64) * BLOCK
        target, _, student_log, inside, present, enough = target_and_students(
            pointers,
            stride_b,
            stride_c,
            stride_v,
            available_pointer,
            sample,
            start,
            offsets,
            num_voxels,
            log2_scale,
            leader_threshold,
            member_threshold,
            leader_blend,
            M,
            C,
            LEADERS,
            RELEASED,
            HAS_AVAILABLE,
            SQUARINGS,
        )
        keep = keep_voxels(
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
            M,
            MASK,
        )
        new_kept = ()
        new_target = ()
        new_divergence = ()
        for m in tl.static_range(M):
            new_kept = new_kept + (kept_sums[m] + keep[m].to(tl.float32),)
            for c in tl.static_range(C):
                # Not a maximum, which would drop a NaN; a selection by `keep`, as 0 * NaN is NaN.
                log_q = student_log[m * C + c]
                log_q = tl.where(log_q < log2_clamp, log2_clamp, log_q)
                divergence = -target[c] * log_q
                if KL:
                    divergence += tl.where(target[c] > 0.0, target[c] * tl.log2(target[c]), 0.0)
                new_target = new_target + (target_sums[m * C + c] + tl.where(keep[m], target[c], 0.0),)
                new_divergence = new_divergence + (divergence_sums[m * C + c] + tl.where(keep[m], divergence, 0.0),)
        kept_sums = new_kept
        target_sums = new_target
        divergence_sums = new_divergence
    row = partial_pointer + sample.to(tl.int64) * (M + 2 * M * C) * programs + program
    for m in tl.static_range(M):
        tl.store(row + m * programs, tl.sum(kept_sums[m], axis=0))
    for i in tl.static_range(M * C):
        tl.store(row + (M + i) * programs, tl.sum(target_sums[i], axis=0))
        tl.store(row + (M + M * C + i) * programs, tl.sum(divergence_sums[i], axis=0))


@triton.jit
def finish_kernel(
    partial_pointer,
    weight_pointer,
    loss_pointer,
    mean_pointer,
    num_samples,
    programs,
    inverse_voxels,
    M: tl.constexpr,
    C: tl.constexpr,
    M_PADDED: tl.constexpr,
    C_PADDED: tl.constexpr,
    CLASS_WEIGHTING: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Sum the partial sums; write W `[B, M, C]`, the losses `[B, M]` and their mean over B of the sum over M.

    Grid: (1,).
    """
    m = tl.arange(0, M_PADDED)
    c = tl.arange(0, C_PADDED)
    p = tl.arange(0, CHUNK)
    inside = (m[:, None] < M) & (c[None, :] < C)
    entry = m[:, None] * C + c[None, :]
    total = 0.0
    for sample in tl.range(0, num_samples):
        row = partial_pointer + tl.cast(sample, tl.int64) * (M + 2 * M * C) * programs
        kept = tl.zeros((M_PADDED,), tl.float32)
        target = tl.zeros((M_PADDED, C_PADDED), tl.float32)
        divergence = tl.zeros((M_PADDED, C_PADDED), tl.float32)
        for first in tl.range(0, programs, CHUNK):
            exists = first + p < programs
            column = row + first + p
            kept += tl.sum(
                tl.load(column[None, :] + m[:, None] * programs, (m[:, None] < M) & exists[None, :], other=0.0), axis=1
            )
            positions = entry[:, :, None] * programs
            valid = inside[:, :, None] & exists[None, None, :]
            values = tl.load(column[None, None, :] + (M * programs + positions), valid, other=0.0)
            target += tl.sum(values, axis=2)
            values = tl.load(column[None, None, :] + ((M + M * C) * programs + positions), valid, other=0.0)
            divergence += tl.sum(values, axis=2)
        weight = tl.full((M_PADDED, C_PADDED), 1.0, tl.float32)
        if CLASS_WEIGHTING:
            weight = 1.0 - target / tl.maximum(kept, 1.0)[:, None]
        tl.store(weight_pointer + sample * M * C + entry, weight, inside)
        loss = tl.sum(tl.where(inside, weight * divergence, 0.0), axis=1) * (inverse_voxels * _LN2)
        tl.store(loss_pointer + sample * M + m, loss, m < M)
        total += tl.sum(loss, axis=0)
    tl.store(mean_pointer, total / num_samples)


@triton.jit
def backward_kernel(
    pointers,
    stride_b,
    stride_c,
    stride_v,
    gradient_pointers,
    gradient_stride_b,
    gradient_stride_c,
    gradient_stride_v,
    available_pointer,
    keep_pointer,
    seed_pointer,
    weight_pointer,
    upstream_pointer,
    upstream_stride_b,
    upstream_stride_m,
    upstream_scale,
    num_voxels,
    last_masked_word,
    log2_scale,
    leader_threshold,
    member_threshold,
    leader_blend,
    clamp,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    SQUARINGS: tl.constexpr,
    MASK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The gradient `dl/dz_j = upstream / (N T) * (q_j * sum_c a_c - a_j)`, `a_c = W_c k t_c` where `q_c >= clamp`.

    Grid: (blocks, B).
    """
    sample = tl.program_id(1)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offsets = tl.arange(0, BLOCK)
    target, student, _, inside, present, enough = target_and_students(
        pointers,
        stride_b,
        stride_c,
        stride_v,
        available_pointer,
        sample,
        start,
        offsets,
        num_voxels,
        log2_scale,
        leader_threshold,
        member_threshold,
        leader_blend,
        M,
        C,
        LEADERS,
        RELEASED,
        HAS_AVAILABLE,
        SQUARINGS,
    )
    keep = keep_voxels(
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
        M,
        MASK,
    )
    base = sample.to(tl.int64) * gradient_stride_b + start * gradient_stride_v
    for m in tl.static_range(M):
        upstream = tl.load(upstream_pointer + sample * upstream_stride_b + m * upstream_stride_m).to(tl.float32)
        scale = upstream * upstream_scale
        pulls = ()
        pulls_sum = tl.zeros((BLOCK,), tl.float32)
        for c in tl.static_range(C):
            weight = tl.load(weight_pointer + (sample * M + m) * C + c) * scale
            pull = tl.where(keep[m] & (student[m * C + c] >= clamp), weight * target[c], 0.0)
            pulls = pulls + (pull,)
            pulls_sum += pull
        for c in tl.static_range(C):
            gradient = tl.where(keep[m], student[m * C + c] * pulls_sum - pulls[c], 0.0)
            pointer = gradient_pointers[m] + (base + tl.cast(gradient_stride_c, tl.int64) * c)
            pointer = pointer + offsets * gradient_stride_v
            tl.store(pointer, gradient.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def target_kernel(
    pointers,
    stride_b,
    stride_c,
    stride_v,
    available_pointer,
    target_pointer,
    num_voxels,
    log2_scale,
    leader_threshold,
    member_threshold,
    leader_blend,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    SQUARINGS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The soft target t alone, `[B, C, N]`. Grid: (blocks, B)."""
    sample = tl.program_id(1)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offsets = tl.arange(0, BLOCK)
    target, _, _, inside, _, enough = target_and_students(
        pointers,
        stride_b,
        stride_c,
        stride_v,
        available_pointer,
        sample,
        start,
        offsets,
        num_voxels,
        log2_scale,
        leader_threshold,
        member_threshold,
        leader_blend,
        M,
        C,
        LEADERS,
        RELEASED,
        HAS_AVAILABLE,
        SQUARINGS,
    )
    for c in tl.static_range(C):
        row = (sample * C + c).to(tl.int64) * num_voxels + start
        tl.store(target_pointer + row + offsets, tl.where(enough, target[c], 0.0), mask=inside)
