"""The tiny kernel between the two passes: from partial sums to losses and coefficients.

One program does it all: it reads a few numbers per program of the forward pass, in a fixed order.
"""

from __future__ import annotations

import triton
import triton.language as tl

_LN2: tl.constexpr = tl.constexpr(0.6931471805599453)
_DICE_SMOOTHING: tl.constexpr = tl.constexpr(1e-7)


@triton.jit
def row_sums(partials, rows, valid, programs, CHUNK: tl.constexpr, COUNTS: tl.constexpr):
    """Sums over the programs of some rows, a block `[A, B]` of row numbers; in int64 if they are counts."""
    # Reduced once, after the loop: a sum of loaded values inside one is what Triton before 3.9 rewrites wrongly.
    total = tl.zeros((rows.shape[0], rows.shape[1], CHUNK), tl.int64 if COUNTS else tl.float32)
    for first in tl.range(0, programs, CHUNK):
        program = first + tl.arange(0, CHUNK)
        positions = rows[:, :, None] * programs + program[None, None, :]
        exists = valid[:, :, None] & (program < programs)[None, None, :]
        values = tl.load(partials + positions, exists, other=0.0)
        if COUNTS:
            values = values.to(tl.int64)
        total += values
    return tl.sum(total, axis=2)


@triton.jit
def finish_distillation(
    partials,
    weight_pointer,
    loss_pointer,
    sample,
    programs,
    inverse_voxels,
    m,
    c,
    M: tl.constexpr,
    C: tl.constexpr,
    CLASS_WEIGHTING: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Store W `[M, C]` and the losses `[M]` of one sample; the sum of the latter."""
    inside = (m < M) & (c < C)
    kept = row_sums(partials, m, m < M, programs, CHUNK, False)
    target = row_sums(partials, M + m * C + c, inside, programs, CHUNK, False)
    divergence = row_sums(partials, M + M * C + m * C + c, inside, programs, CHUNK, False)
    weight = tl.where(inside, 1.0 + kept * 0.0, 0.0)
    if CLASS_WEIGHTING:
        # Not a maximum, which would drop the NaN that the count carries.
        weight = 1.0 - target / tl.where(kept < 1.0, 1.0, kept)
    tl.store(weight_pointer + (sample * M + m) * C + c, weight, inside)
    loss = tl.sum(tl.where(inside, weight * divergence, 0.0), axis=1)[:, None] * (inverse_voxels * _LN2)
    tl.store(loss_pointer + sample * M + m, loss, m < M)
    return tl.sum(tl.where(m < M, loss, 0.0))


@triton.jit
def supervised_sums(
    partials,
    present,
    programs,
    num_voxels,
    m,
    c,
    FIRST: tl.constexpr,
    M: tl.constexpr,
    C: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Of one sample: rest of every category `1 - share`, weighted log `[M, 1]`, overlap and union `[M, C]`.

    NaN where a label is no category: then the labels do not add up to the volume.
    """
    inside = (m < M) & (c < C) & present
    row = FIRST + 3 * C * m + c
    logs = row_sums(partials, row, inside, programs, CHUNK, False)
    overlap = row_sums(partials, row + C, inside, programs, CHUNK, False)
    mass = row_sums(partials, row + 2 * C, inside, programs, CHUNK, False)
    labels = row_sums(partials, FIRST + 3 * M * C + c, c < C, programs, CHUNK, True)
    rest = 1.0 - labels.to(tl.float32) / tl.cast(num_voxels, tl.float32)
    rest = tl.where(tl.sum(labels) == num_voxels, rest, float("nan"))
    union = tl.where(inside, mass + labels + rest * 0.0, 0.0)
    # A NaN among the probabilities reaches the mass, but not the logarithm, which is clipped.
    weighted = tl.sum(tl.where(inside, rest * logs + mass * 0.0, 0.0), axis=1)[:, None]
    return rest, weighted, tl.where(inside, overlap, 0.0), union


@triton.jit(do_not_specialize=["num_samples", "programs"])
def finish_kernel(
    partial_pointer,
    available_pointer,
    coefficient_pointer,
    loss_pointer,
    term_pointer,
    total_pointer,
    route_pointer,
    agreement_pointer,
    num_samples,
    num_voxels,
    programs,
    weights,
    M: tl.constexpr,
    C: tl.constexpr,
    M_PADDED: tl.constexpr,
    C_PADDED: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    DISTILLATION: tl.constexpr,
    CLASS_WEIGHTING: tl.constexpr,
    SUPERVISED: tl.constexpr,
    STATISTICS: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """From partial sums `[B, ROWS, programs]` (see `forward_kernel`) to all that is returned.

    Writes the fields of `GroupResults`; without DISTILLATION terms and coefficients alone. `weights` are those of the
    supervised and of the GSS loss in the total. Grid: (1,).
    """
    m = tl.arange(0, M_PADDED)[:, None]
    c = tl.arange(0, C_PADDED)[None, :]
    voxels = tl.cast(num_voxels, tl.float32)
    distillation = 0.0
    learning = 0
    present_in = tl.zeros((M_PADDED, 1), tl.float32)
    weighted_log = tl.zeros((M_PADDED, 1), tl.float32)
    overlap = tl.zeros((M_PADDED, C_PADDED), tl.float32)
    union = tl.zeros((M_PADDED, C_PADDED), tl.float32)
    agree = tl.zeros((1, C_PADDED), tl.float32)
    split = tl.zeros((1, C_PADDED), tl.float32)
    members = tl.zeros((1, C_PADDED), tl.float32)
    agreement = tl.zeros((M_PADDED, 1), tl.float32)
    learning_in = tl.zeros((M_PADDED, 1), tl.float32)
    first: tl.constexpr = M + 2 * M * C if DISTILLATION else 0
    statistics: tl.constexpr = first + (3 * M * C + C if SUPERVISED else 0)
    for sample in tl.range(0, num_samples):
        partials = partial_pointer + tl.cast(sample, tl.int64) * ROWS * programs
        present = m < M
        if HAS_AVAILABLE:
            present = tl.load(available_pointer + sample * M + m, m < M, other=0) != 0
        if DISTILLATION:
            distillation += finish_distillation(
                partials,
                coefficient_pointer,
                loss_pointer,
                sample,
                programs,
                1.0 / voxels,
                m,
                c,
                M,
                C,
                CLASS_WEIGHTING,
                CHUNK,
            )
        if SUPERVISED:
            _, log_of, overlap_of, union_of = supervised_sums(
                partials, present, programs, num_voxels, m, c, first, M, C, CHUNK
            )
            weighted_log += log_of
            overlap += overlap_of
            union += union_of
            present_in += present.to(tl.float32)
        if STATISTICS:
            enough = tl.sum(present.to(tl.int32)) >= 2
            learning += enough.to(tl.int32)
            learning_in += tl.where(enough & present, 1.0, 0.0)
            row = statistics + 3 * c
            agree += row_sums(partials, row, c < C, programs, CHUNK, False)
            split += row_sums(partials, row + 1, c < C, programs, CHUNK, False)
            members += row_sums(partials, row + 2, c < C, programs, CHUNK, False)
            agreement += row_sums(partials, statistics + 3 * C + m, m < M, programs, CHUNK, False)
    total = 0.0
    if DISTILLATION:
        distillation = distillation / num_samples
        tl.store(term_pointer + (2 * M if SUPERVISED else 0), distillation)
        total += weights[1] * distillation
    if SUPERVISED:
        samples = tl.where(present_in > 0.0, present_in, 1.0)
        cross_entropy = -weighted_log * _LN2 / (voxels * samples)
        smoothed = union + _DICE_SMOOTHING
        dice = tl.sum(tl.where((c < C) & (present_in > 0.0), 1.0 - 2.0 * overlap / smoothed, 0.0), axis=1)[:, None] / C
        tl.store(term_pointer + m, cross_entropy, m < M)
        tl.store(term_pointer + M + m, dice, m < M)
        total += weights[0] * tl.sum(tl.where(m < M, cross_entropy + dice, 0.0))
        for sample in tl.range(0, num_samples):
            partials = partial_pointer + tl.cast(sample, tl.int64) * ROWS * programs
            present = m < M
            if HAS_AVAILABLE:
                present = tl.load(available_pointer + sample * M + m, m < M, other=0) != 0
            rest, _, _, _ = supervised_sums(partials, present, programs, num_voxels, m, c, first, M, C, CHUNK)
            kind = tl.cast(num_samples, tl.int64) * (M * C)
            row = coefficient_pointer + kind + (sample * M + m) * C + c
            inside = (m < M) & (c < C)
            if not DISTILLATION:
                tl.store(row - kind, tl.zeros((M_PADDED, C_PADDED), tl.float32), inside)
            tl.store(row, tl.where(present, rest / (voxels * samples), 0.0), inside)
            tl.store(row + kind, tl.where(present, -2.0 / (C * smoothed), 0.0), inside)
            tl.store(row + 2 * kind, tl.where(present, 2.0 * overlap / (C * smoothed * smoothed), 0.0), inside)
    if STATISTICS:
        seen = voxels * tl.maximum(learning, 1)
        cell = route_pointer + 4 * c
        tl.store(cell, agree / seen, c < C)
        tl.store(cell + 1, split / seen, c < C)
        tl.store(cell + 2, members / seen, c < C)
        tl.store(cell + 3, (learning * voxels - agree - split - members) / seen, c < C)
        tl.store(agreement_pointer + m, agreement / (voxels * tl.maximum(learning_in, 1.0)), m < M)
    tl.store(total_pointer, total)
