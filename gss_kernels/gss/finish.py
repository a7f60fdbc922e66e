"""The tiny kernel between the two passes: from partial sums to losses and coefficients, in one program."""

from __future__ import annotations

import triton
import triton.language as tl

from gss_kernels.segmentation.finish import LN2, finish_segmentation, indices, padded, presence_of
from gss_kernels.triton.sums import row_sums


@triton.jit
def finish_distillation(partials, weights, losses, inverse_voxels, programs, form: tl.constexpr):
    """Store W `[M, C]`, and if wanted the losses `[M]`, of one sample; the sum of the latter."""
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    m, c = indices(form)
    inside = (m < M) & (c < C)
    kept = row_sums(partials, m, m < M, programs)
    target = row_sums(partials, M + m * C + c, inside, programs)
    divergence = row_sums(partials, M + M * C + m * C + c, inside, programs)
    weight = tl.where(inside, 1.0 + kept * 0.0, 0.0)
    if form.class_weighting:
        # Not a maximum, which would drop the NaN that the count carries.
        weight = 1.0 - target / tl.where(kept < 1.0, 1.0, kept)
    tl.store(weights + m * C + c, weight, inside)
    loss = tl.sum(tl.where(inside, weight * divergence, 0.0), axis=1)[:, None] * (inverse_voxels * LN2)
    if form.per_sample:
        tl.store(losses + m, loss, m < M)
    return tl.sum(tl.where(m < M, loss, 0.0))


@triton.jit
def finish_statistics(partials, available, results, places, walk, voxels, form: tl.constexpr):
    """Store routes and agreement, of the samples that learn."""
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    M_PADDED: tl.constexpr = padded(M)
    C_PADDED: tl.constexpr = padded(C)
    FIRST: tl.constexpr = form.rows - 3 * C - M
    m, c = indices(form)
    learning = 0
    learning_in = tl.zeros((M_PADDED, 1), tl.float32)
    agree = tl.zeros((1, C_PADDED), tl.float32)
    split = agree
    members = agree
    agreement = learning_in
    for sample in tl.range(0, walk.num_samples):
        own = partials + tl.cast(sample, tl.int64) * form.rows * walk.programs
        present = presence_of(available, sample, m, M)
        enough = tl.sum(present.to(tl.int32)) >= 2
        learning += enough.to(tl.int32)
        learning_in += tl.where(enough & present, 1.0, 0.0)
        agree += row_sums(own, FIRST + 3 * c, c < C, walk.programs)
        split += row_sums(own, FIRST + 3 * c + 1, c < C, walk.programs)
        members += row_sums(own, FIRST + 3 * c + 2, c < C, walk.programs)
        agreement += row_sums(own, FIRST + 3 * C + m, m < M, walk.programs)
    seen = voxels * tl.maximum(learning, 1)
    cell = results + places.routes + 4 * c
    tl.store(cell, agree / seen, c < C)
    tl.store(cell + 1, split / seen, c < C)
    tl.store(cell + 2, members / seen, c < C)
    tl.store(cell + 3, (learning * voxels - agree - split - members) / seen, c < C)
    tl.store(results + places.agreement + m, agreement / (voxels * tl.maximum(learning_in, 1.0)), m < M)


@triton.jit(do_not_specialize=["places", "walk"])
def gss_finish_kernel(partials, available, value, results, places, walk, weights, num_voxels, form: tl.constexpr):
    """From partial sums `[B, rows, programs]` to the value and the buffer of results; see `GSSResults`.

    `weights` are those of the segmentation losses and of the GSS loss in the total. Grid: (1,).
    """
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    programs = walk.programs
    voxels = tl.cast(num_voxels, tl.float32)
    terms = results + places.terms
    total = 0.0
    if form.segmented:
        total += weights[0] * finish_segmentation(partials, available, terms, results, walk, num_voxels, form)
    mean = 0.0
    for sample in tl.range(0, walk.num_samples):
        own = partials + tl.cast(sample, tl.int64) * form.rows * programs
        coefficients = results + sample * (M * C)
        mean += finish_distillation(own, coefficients, value + sample * M, 1.0 / voxels, programs, form)
    mean = mean / walk.num_samples
    total += weights[1] * mean
    tl.store(terms + (2 * M if form.segmented else 0), mean)
    if form.statistics:
        finish_statistics(partials, available, results, places, walk, voxels, form)
    if not form.per_sample:
        tl.store(value, total)
