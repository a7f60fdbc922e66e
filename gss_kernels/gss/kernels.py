"""The passes over the voxels: a forward pass that sums, a backward pass that recomputes, one for the target alone.

The weights enter the loss linearly, so the forward pass needs no second look at the logits: per sample, modality and
category it sums the kept target and the divergence, and for the segmentation loss what its `device` names. The backward
pass reads the logits again and writes the gradient; nothing of the size of the volume is kept in between. Sums are
taken in a fixed order: results repeat to the bit.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from gss_kernels.gss.kernel_vote import close_count, hear_modality, open_count
from gss_kernels.segmentation.device import (
    add_labels,
    add_segmentation,
    load_labels,
    load_slopes,
    probabilities_of,
    softmax_gradient,
)
from gss_kernels.triton.arithmetic import at_least, log2, softmaxes
from gss_kernels.triton.sums import own_sum, store_sums
from gss_kernels.triton.volumes import load_coefficients, load_logits, load_presence, open_block, store_gradient


class Sums(NamedTuple):
    """The forward pass's accumulators, in the order of their rows."""

    kept: Any  # kept voxels, M
    target: Any  # kept targets, M C
    divergence: Any  # in bits, M C
    segmentation: Any  # as of `add_segmentation`, M times 3 C
    labels: Any  # as of `add_labels`
    routes: Any  # voxels by route, 3 C
    agreement: Any  # M


@triton.jit
def no_sums(form: tl.constexpr):
    """Nothing summed yet."""
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    THREADS: tl.constexpr = form.block // form.voxels
    SEGMENTED: tl.constexpr = form.segmented
    IGNORING: tl.constexpr = form.ignore is not None
    STATISTICS: tl.constexpr = form.statistics
    zero = tl.zeros((THREADS,), tl.float32)
    return Sums(
        (zero,) * M,
        (zero,) * (M * C),
        (zero,) * (M * C),
        (zero,) * (3 * M * C * SEGMENTED),
        (zero,) * ((C + IGNORING) * SEGMENTED),
        (zero,) * (3 * C * STATISTICS),
        (zero,) * (M * STATISTICS),
    )


@triton.jit
def load_group(volumes, block, presence, form: tl.constexpr):
    """Logits of all modalities, a tuple of C blocks for each."""
    M: tl.constexpr = form.M
    logits = ()
    for m in tl.static_range(M):
        logits = logits + (load_logits(volumes, block, presence.of[m], m, form.C),)
    return logits


@triton.jit
def keep_voxels(masks, block, presence, num_voxels, last_masked_word, like, form: tl.constexpr):
    """Per modality, which voxels of the block count: inside the volume, present, not masked."""
    M: tl.constexpr = form.M
    keep = ()
    if masks.seed is not None:
        seed = tl.load(masks.seed)
        first = block.sample.to(tl.int64) * num_voxels + block.start
        index = first + in_layout_of(like, block.offsets, form.ptx).to(tl.uint32).to(tl.int64)
        low = index.to(tl.uint32)
        high = (index >> 32).to(tl.uint32)
        zero = low * 0
        words = ()
        for four in tl.static_range((M + 3) // 4):
            words = words + tl.philox(seed, low, high, zero + four, zero, 10)
    for m in tl.static_range(M):
        kept = block.inside & presence.of[m] & presence.enough
        if masks.seed is not None:
            kept = kept & (words[m] > tl.cast(last_masked_word, tl.uint32))
        if masks.keep is not None:
            row = masks.keep + (block.sample * M + m).to(tl.int64) * num_voxels + block.start
            kept = kept & (tl.load(row + block.offsets, mask=block.inside, other=0) != 0)
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


@triton.jit
def add_distillation(sums, target, student_logs, keep, form: tl.constexpr):
    """The sums over kept voxels with a block added: of 1, of the target, of the divergence in bits."""
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    VOXELS: tl.constexpr = form.voxels
    target_log = ()
    for c in tl.static_range(C):
        target_log = target_log + (log2(at_least(target[c], 1e-37), form.ptx) if form.kl else 0.0,)
    kept = ()
    targets = ()
    divergences = ()
    for m in tl.static_range(M):
        # The count carries the NaN of a kept voxel, and spoils weights and losses with it.
        any_log = student_logs[m][0]
        counted = tl.where(keep[m] & (any_log != any_log), any_log, keep[m].to(tl.float32))
        kept = kept + (sums.kept[m] + own_sum(counted, VOXELS),)
        for c in tl.static_range(C):
            # The same number twice: where segmentation fills the registers, the product takes fewer, else the
            # selection.
            kept_target = keep[m].to(tl.float32) * target[c] if form.segmented else tl.where(keep[m], target[c], 0.0)
            divergence = kept_target * (target_log[c] - at_least(student_logs[m][c], form.log2_clamp))
            targets = targets + (sums.target[m * C + c] + own_sum(kept_target, VOXELS),)
            divergences = divergences + (sums.divergence[m * C + c] + own_sum(divergence, VOXELS),)
    return kept, targets, divergences


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
def add_statistics(sums, routes, target, student_logs, counted, presence, form: tl.constexpr):
    """The numbers of voxels by route and of those where student and target prefer the same category."""
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    VOXELS: tl.constexpr = form.voxels
    by_route = ()
    for c in tl.static_range(C):
        agree, some, members = routes[c]
        taken = (agree & counted, some & (agree == 0) & counted, members & (some == 0) & counted)
        for i in tl.static_range(3):
            by_route = by_route + (sums.routes[3 * c + i] + own_sum(taken[i].to(tl.float32), VOXELS),)
    highest = target[0]
    for c in tl.static_range(1, C):
        highest = tl.maximum(highest, target[c])
    best = best_category(target, C)
    agreement = ()
    for m in tl.static_range(M):
        same = (best_category(student_logs[m], C) == best) & (highest > 0.0) & counted & presence.of[m]
        agreement = agreement + (sums.agreement[m] + own_sum(same.to(tl.float32), VOXELS),)
    return by_route, agreement


@triton.jit(do_not_specialize=["walk"])
def gss_forward_kernel(logits, masks, labels, partials, walk, numbers, form: tl.constexpr):
    """Partial sums of each program, `[B, rows, programs]`, in the order of `Sums`.

    Grid: (B programs,); a program walks over every programs-th block of a sample and reduces its accumulators once, at
    the end.
    """
    M: tl.constexpr = form.M
    sample = tl.program_id(0) // walk.programs
    program = tl.program_id(0) % walk.programs
    presence = load_presence(masks.available, sample, M)
    sums = no_sums(form)
    num_voxels = logits.num_voxels
    offsets = tl.arange(0, form.block)
    for number in tl.range(program, walk.blocks, walk.programs):
        block = open_block(sample, number, offsets, num_voxels)
        z = load_group(logits, block, presence, form)
        label_sums = sums.labels
        if form.segmented:
            own_labels = load_labels(labels, block, num_voxels, form)
            label_sums = add_labels(label_sums, own_labels, form)
        count = open_count(z[0][0], form.C)
        student_logs = ()
        segmentation = ()
        for m in tl.static_range(M):
            own = softmaxes(z[m], numbers.log2_scale, form)
            student_logs = student_logs + (own.student_log,)
            count = hear_modality(count, own, presence.of[m], numbers, m, form)
            if form.segmented:
                probabilities = probabilities_of(own, own_labels.counted, form)
                added = add_segmentation(sums.segmentation, probabilities, own_labels.own, 3 * form.C * m, form)
                segmentation = segmentation + added
        target, routes = close_count(count, presence, numbers.leader_blend, form)
        keep = keep_voxels(masks, block, presence, num_voxels, walk.last_masked_word, z[0][0], form)
        kept, targets, divergence = add_distillation(sums, target, student_logs, keep, form)
        taken = sums.routes
        agreement = sums.agreement
        if form.statistics:
            counted = block.inside & presence.enough
            taken, agreement = add_statistics(sums, routes, target, student_logs, counted, presence, form)
        sums = Sums(kept, targets, divergence, segmentation, label_sums, taken, agreement)
    every = sums.kept + sums.target + sums.divergence + sums.segmentation + sums.labels + sums.routes + sums.agreement
    store_sums(partials, every, walk.programs, form.rows)


@triton.jit(do_not_specialize=["walk", "upstream"])
def gss_backward_kernel(logits, masks, labels, gradients, coefficients, upstream, walk, numbers, form: tl.constexpr):
    """The gradient `dl/dz_j = upstream / (N T) * (q_j * sum_c a_c - a_j)`, `a_c = W_c k t_c` where `q_c >= clamp`.

    With labels, plus that of the segmentation losses. Grid: (B blocks,).
    """
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    sample = tl.program_id(0) // walk.blocks
    num_voxels = logits.num_voxels
    block = open_block(sample, tl.program_id(0) % walk.blocks, tl.arange(0, form.block), num_voxels)
    presence = load_presence(masks.available, sample, M)
    z = load_group(logits, block, presence, form)
    if form.segmented:
        own_labels = load_labels(labels, block, num_voxels, form)
        common = tl.load(upstream.pointer).to(tl.float32) * upstream.segmentation
    count = open_count(z[0][0], C)
    students = ()
    segmentation = ()
    for m in tl.static_range(M):
        own = softmaxes(z[m], numbers.log2_scale, form)
        students = students + (own.student,)
        count = hear_modality(count, own, presence.of[m], numbers, m, form)
        if form.segmented:
            probabilities = probabilities_of(own, own_labels.counted, form)
            slopes = load_slopes(coefficients, m, block, walk.num_samples, (common, common), form)
            segmentation = segmentation + (softmax_gradient(probabilities, own_labels.own, slopes, C),)
    target, _ = close_count(count, presence, numbers.leader_blend, form)
    keep = keep_voxels(masks, block, presence, num_voxels, walk.last_masked_word, z[0][0], form)
    for m in tl.static_range(M):
        own_upstream = tl.load(upstream.pointer + sample * upstream.strides[0] + m * upstream.strides[1])
        scale = own_upstream.to(tl.float32) * upstream.gss
        weights = load_coefficients(coefficients, 0, m, block, walk.num_samples, scale, form)
        pulls = ()
        total = tl.zeros_like(students[m][0])
        for c in tl.static_range(C):
            pull = tl.where(students[m][c] >= numbers.clamp, weights[c] * target[c], 0.0)
            pulls = pulls + (pull,)
            total += pull
        for c in tl.static_range(C):
            gradient = tl.where(keep[m], students[m][c] * total - pulls[c], 0.0)
            if form.segmented:
                gradient += segmentation[m][c]
            store_gradient(gradients, block, gradient, m, c)


@triton.jit(do_not_specialize=["walk"])
def gss_target_kernel(logits, masks, target, walk, numbers, form: tl.constexpr):
    """The soft target t alone, `[B, C, N]`. Grid: (B blocks,)."""
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    sample = tl.program_id(0) // walk.blocks
    num_voxels = logits.num_voxels
    block = open_block(sample, tl.program_id(0) % walk.blocks, tl.arange(0, form.block), num_voxels)
    presence = load_presence(masks.available, sample, M)
    z = load_group(logits, block, presence, form)
    count = open_count(z[0][0], C)
    for m in tl.static_range(M):
        own = softmaxes(z[m], numbers.log2_scale, form)
        count = hear_modality(count, own, presence.of[m], numbers, m, form)
    voted, _ = close_count(count, presence, numbers.leader_blend, form)
    for c in tl.static_range(C):
        row = target + (sample * C + c).to(tl.int64) * num_voxels + block.start
        tl.store(row + block.offsets, tl.where(presence.enough, voted[c], 0.0), mask=block.inside)
