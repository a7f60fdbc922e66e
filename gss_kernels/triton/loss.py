"""The kernels: a forward pass that sums, a tiny kernel that finishes it, a backward pass that recomputes.

The weights enter the loss linearly, so the forward pass needs no second look at the logits: per sample, modality and
category it sums the kept target and the divergence, and for the supervised loss what `supervision` names. The backward
pass reads the logits again and writes the gradient; nothing of the size of the volume is kept in between. Sums are
taken in a fixed order: results repeat to the bit.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gss_kernels.triton.arithmetic import at_least, log2, own_sum
from gss_kernels.triton.supervision import (
    add_labels,
    add_supervised,
    load_labels,
    probabilities_of,
    softmax_gradient,
)
from gss_kernels.triton.vote import close_count, hear_modality, open_count, softmaxes
from gss_kernels.triton.voxels import inside_volume, keep_voxels, load_logits, load_presence, positions_of


@triton.jit
def load_group(pointers, strides, present, sample, start, offsets, inside, M: tl.constexpr, C: tl.constexpr):
    """Logits of all modalities, a tuple of C blocks for each; the memory of absent modalities is not read."""
    stride_b, stride_c, stride_v = strides
    positions = positions_of(start, offsets, stride_v)
    logits = ()
    for m in tl.static_range(M):
        # A selection and not a conjunction, whose result Triton 3.9's interpreter does not take for a mask.
        readable = tl.where(present[m], inside, False)
        logits = logits + (load_logits(pointers[m] + sample.to(tl.int64) * stride_b, stride_c, positions, readable, C),)
    return logits


@triton.jit
def add_distillation(
    kept_sums,
    target_sums,
    divergence_sums,
    target,
    student_log,
    keep,
    M: tl.constexpr,
    C: tl.constexpr,
    LOG2_CLAMP: tl.constexpr,
    KL: tl.constexpr,
    SUPERVISED: tl.constexpr,
    VOXELS: tl.constexpr,
    PTX: tl.constexpr,
):
    """The sums over kept voxels with a block added: of 1, of the target, of the divergence in bits."""
    target_log = ()
    for c in tl.static_range(C):
        target_log = target_log + (log2(at_least(target[c], 1e-37), PTX) if KL else 0.0,)
    new_kept = ()
    new_target = ()
    new_divergence = ()
    for m in tl.static_range(M):
        # The count carries the NaN of a kept voxel, and spoils weights and losses with it.
        any_log = student_log[m][0]
        counted = tl.where(keep[m] & (any_log != any_log), any_log, keep[m].to(tl.float32))
        new_kept = new_kept + (kept_sums[m] + own_sum(counted, VOXELS),)
        for c in tl.static_range(C):
            # The same number twice: where supervision fills the registers, the product takes fewer, else the selection.
            kept_target = keep[m].to(tl.float32) * target[c] if SUPERVISED else tl.where(keep[m], target[c], 0.0)
            divergence = kept_target * (target_log[c] - at_least(student_log[m][c], LOG2_CLAMP))
            new_target = new_target + (target_sums[m * C + c] + own_sum(kept_target, VOXELS),)
            new_divergence = new_divergence + (divergence_sums[m * C + c] + own_sum(divergence, VOXELS),)
    return new_kept, new_target, new_divergence


@triton.jit
def best_category(values, C: tl.constexpr):
    """The first category of the largest value."""
    best = tl.zeros_like(values[0]).to(tl.int32)
    highest = values[0]
    for c in tl.static_range(1, C):
        better = values[c] > highest
        highest = tl.where(better, values[c], highest)
        best = tl.where(better, c, best)
    return best


@triton.jit
def add_statistics(
    route_sums,
    agreement_sums,
    routes,
    target,
    student_log,
    present,
    counted,
    M: tl.constexpr,
    C: tl.constexpr,
    VOXELS: tl.constexpr,
):
    """The numbers of voxels by route and of those where student and target prefer the same category."""
    new_routes = ()
    for c in tl.static_range(C):
        agree, some, members = routes[c]
        taken = (agree & counted, some & (agree == 0) & counted, members & (some == 0) & counted)
        for i in tl.static_range(3):
            new_routes = new_routes + (route_sums[3 * c + i] + own_sum(taken[i].to(tl.float32), VOXELS),)
    highest = target[0]
    for c in tl.static_range(1, C):
        highest = tl.maximum(highest, target[c])
    best = best_category(target, C)
    new_agreement = ()
    for m in tl.static_range(M):
        same = (best_category(student_log[m], C) == best) & (highest > 0.0) & counted & present[m]
        new_agreement = new_agreement + (agreement_sums[m] + own_sum(same.to(tl.float32), VOXELS),)
    return new_routes, new_agreement


@triton.jit
def store_sums(partial_pointer, sums, programs, COUNT: tl.constexpr):
    """Reduce a program's accumulators and store them, one to a row of its sample."""
    # Divided anew, in 64 bits, so that the sample takes no register in the loop before.
    number = tl.program_id(0).to(tl.int64)
    column = partial_pointer + number // programs * (COUNT * programs) + number % programs
    for i in tl.static_range(COUNT):
        tl.store(column + i * programs, tl.sum(sums[i], axis=0))


@triton.jit(do_not_specialize=["blocks", "programs", "last_masked_word"])
def forward_kernel(
    pointers,
    strides,
    available_pointer,
    keep_pointer,
    seed_pointer,
    label_pointer,
    partial_pointer,
    num_voxels,
    blocks,
    programs,
    last_masked_word,
    vote,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    SQUARINGS: tl.constexpr,
    LOG2_CLAMP: tl.constexpr,
    MASK: tl.constexpr,
    KL: tl.constexpr,
    SUPERVISED: tl.constexpr,
    STATISTICS: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    VOXELS: tl.constexpr,
    PTX: tl.constexpr,
):
    """Partial sums of each program, `[B, ROWS, programs]`.

    Rows: M kept voxels, M C kept targets, M C divergences in bits; if SUPERVISED 3 M C of `add_supervised`, C labels;
    if STATISTICS 3 C routes, M agreements. Grid: (B programs,); a program walks over every programs-th block of a
    sample and reduces its accumulators once, at the end.
    """
    sample = tl.program_id(0) // programs
    program = tl.program_id(0) % programs
    log2_scale, leader_threshold, member_threshold, leader_blend = vote
    offsets = tl.arange(0, BLOCK)
    present, enough = load_presence(available_pointer, sample, M, HAS_AVAILABLE)
    zeros = tl.zeros((BLOCK // VOXELS,), tl.float32)
    kept_sums = (zeros,) * M
    target_sums = (zeros,) * (M * C)
    divergence_sums = (zeros,) * (M * C)
    supervised_sums = (zeros,) * (3 * M * C if SUPERVISED else 0)
    label_sums = (zeros,) * (C if SUPERVISED else 0)
    route_sums = (zeros,) * (3 * C if STATISTICS else 0)
    agreement_sums = (zeros,) * (M if STATISTICS else 0)
    for block in tl.range(program, blocks, programs):
        start = tl.cast(block, tl.int64) * BLOCK
        inside = inside_volume(start, offsets, num_voxels)
        logits = load_group(pointers, strides, present, sample, start, offsets, inside, M, C)
        if SUPERVISED:
            own_category = load_labels(label_pointer, sample, start, offsets, inside, num_voxels, C)
            label_sums = add_labels(label_sums, own_category, C, VOXELS)
        count = open_count(logits[0][0], C)
        student_log = ()
        new_supervised = ()
        for m in tl.static_range(M):
            student, own_log, sharp, sharp_sum = softmaxes(logits[m], log2_scale, C, SQUARINGS, PTX)
            student_log = student_log + (own_log,)
            count = hear_modality(
                count,
                student,
                sharp,
                sharp_sum,
                present[m],
                leader_threshold,
                member_threshold,
                m,
                M,
                C,
                LEADERS,
                HAS_AVAILABLE,
            )
            if SUPERVISED:
                probabilities = probabilities_of(sharp, sharp_sum, inside, C, PTX)
                new_supervised = new_supervised + add_supervised(
                    supervised_sums, probabilities, own_category, 3 * C * m, C, VOXELS, PTX
                )
        supervised_sums = new_supervised
        target, routes = close_count(count, present, leader_blend, M, C, LEADERS, RELEASED, HAS_AVAILABLE, PTX)
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
            logits[0][0],
            M,
            MASK,
            PTX,
        )
        kept_sums, target_sums, divergence_sums = add_distillation(
            kept_sums,
            target_sums,
            divergence_sums,
            target,
            student_log,
            keep,
            M,
            C,
            LOG2_CLAMP,
            KL,
            SUPERVISED,
            VOXELS,
            PTX,
        )
        if STATISTICS:
            route_sums, agreement_sums = add_statistics(
                route_sums, agreement_sums, routes, target, student_log, present, inside & enough, M, C, VOXELS
            )
    sums = kept_sums + target_sums + divergence_sums + supervised_sums + label_sums + route_sums + agreement_sums
    store_sums(partial_pointer, sums, programs, ROWS)


@triton.jit(do_not_specialize=["upstream_strides", "num_samples", "blocks", "last_masked_word"])
def backward_kernel(
    pointers,
    strides,
    gradient_pointers,
    gradient_strides,
    available_pointer,
    keep_pointer,
    seed_pointer,
    label_pointer,
    coefficient_pointer,
    upstream_pointer,
    upstream_strides,
    scales,
    num_samples,
    num_voxels,
    blocks,
    last_masked_word,
    vote,
    clamp,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    SQUARINGS: tl.constexpr,
    MASK: tl.constexpr,
    SUPERVISED: tl.constexpr,
    BLOCK: tl.constexpr,
    PTX: tl.constexpr,
):
    """The gradient `dl/dz_j = upstream / (N T) * (q_j * sum_c a_c - a_j)`, `a_c = W_c k t_c` where `q_c >= clamp`.

    If SUPERVISED, plus that of the supervised loss. Grid: (B blocks,).
    """
    sample = tl.program_id(0) // blocks
    start = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK
    log2_scale, leader_threshold, member_threshold, leader_blend = vote
    offsets = tl.arange(0, BLOCK)
    inside = inside_volume(start, offsets, num_voxels)
    present, enough = load_presence(available_pointer, sample, M, HAS_AVAILABLE)
    logits = load_group(pointers, strides, present, sample, start, offsets, inside, M, C)
    if SUPERVISED:
        own_category = load_labels(label_pointer, sample, start, offsets, inside, num_voxels, C)
    count = open_count(logits[0][0], C)
    students = ()
    supervised = ()
    for m in tl.static_range(M):
        student, _, sharp, sharp_sum = softmaxes(logits[m], log2_scale, C, SQUARINGS, PTX)
        students = students + (student,)
        count = hear_modality(
            count,
            student,
            sharp,
            sharp_sum,
            present[m],
            leader_threshold,
            member_threshold,
            m,
            M,
            C,
            LEADERS,
            HAS_AVAILABLE,
        )
        if SUPERVISED:
            probabilities = probabilities_of(sharp, sharp_sum, inside, C, PTX)
            scale = tl.load(upstream_pointer).to(tl.float32) * scales[1]
            weights = load_coefficients(coefficient_pointer, 1, sample, m, num_samples, scale, M, C)
            alphas = load_coefficients(coefficient_pointer, 2, sample, m, num_samples, scale, M, C)
            betas = load_coefficients(coefficient_pointer, 3, sample, m, num_samples, scale, M, C)
            supervised = supervised + (softmax_gradient(probabilities, own_category, weights, alphas, betas, C),)
    target, _ = close_count(count, present, leader_blend, M, C, LEADERS, RELEASED, HAS_AVAILABLE, PTX)
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
        logits[0][0],
        M,
        MASK,
        PTX,
    )
    stride_b, stride_c, stride_v = gradient_strides
    positions = positions_of(start, offsets, stride_v)
    for m in tl.static_range(M):
        upstream = tl.load(upstream_pointer + sample * upstream_strides[0] + m * upstream_strides[1]).to(tl.float32)
        weights = load_coefficients(coefficient_pointer, 0, sample, m, num_samples, upstream * scales[0], M, C)
        pulls = ()
        total = tl.zeros((BLOCK,), tl.float32)
        for c in tl.static_range(C):
            pull = tl.where(students[m][c] >= clamp, weights[c] * target[c], 0.0)
            pulls = pulls + (pull,)
            total += pull
        row = gradient_pointers[m] + sample.to(tl.int64) * stride_b
        for c in tl.static_range(C):
            gradient = tl.where(keep[m], students[m][c] * total - pulls[c], 0.0)
            if SUPERVISED:
                gradient += supervised[m][c]
            pointer = row + tl.cast(stride_c, tl.int64) * c + positions
            tl.store(pointer, gradient.to(pointer.dtype.element_ty), mask=inside)


@triton.jit
def load_coefficients(pointer, kind, sample, m, num_samples, scale, M: tl.constexpr, C: tl.constexpr):
    """C coefficients of one modality of one sample, of `[kinds, B, M, C]`, times `scale`."""
    row = pointer + ((tl.cast(num_samples, tl.int64) * kind + sample) * M + m) * C
    coefficients = ()
    for c in tl.static_range(C):
        coefficients = coefficients + (tl.load(row + c) * scale,)
    return coefficients


@triton.jit(do_not_specialize=["blocks"])
def target_kernel(
    pointers,
    strides,
    available_pointer,
    target_pointer,
    num_voxels,
    blocks,
    vote,
    M: tl.constexpr,
    C: tl.constexpr,
    LEADERS: tl.constexpr,
    RELEASED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    SQUARINGS: tl.constexpr,
    BLOCK: tl.constexpr,
    PTX: tl.constexpr,
):
    """The soft target t alone, `[B, C, N]`. Grid: (B blocks,)."""
    sample = tl.program_id(0) // blocks
    start = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK
    log2_scale, leader_threshold, member_threshold, leader_blend = vote
    offsets = tl.arange(0, BLOCK)
    inside = inside_volume(start, offsets, num_voxels)
    present, enough = load_presence(available_pointer, sample, M, HAS_AVAILABLE)
    logits = load_group(pointers, strides, present, sample, start, offsets, inside, M, C)
    count = open_count(logits[0][0], C)
    for m in tl.static_range(M):
        student, _, sharp, sharp_sum = softmaxes(logits[m], log2_scale, C, SQUARINGS, PTX)
        count = hear_modality(
            count,
            student,
            sharp,
            sharp_sum,
            present[m],
            leader_threshold,
            member_threshold,
            m,
            M,
            C,
            LEADERS,
            HAS_AVAILABLE,
        )
    target, _ = close_count(count, present, leader_blend, M, C, LEADERS, RELEASED, HAS_AVAILABLE, PTX)
    for c in tl.static_range(C):
        row = (sample * C + c).to(tl.int64) * num_voxels + start
        tl.store(target_pointer + row + offsets, tl.where(enough, target[c], 0.0), mask=inside)
