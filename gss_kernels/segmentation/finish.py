"""From partial sums to the segmentation loss: what the tiny kernel between the two passes does for it.

One program does it all: it reads a few numbers per program of the forward pass, in a fixed order.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl
from triton.runtime.jit import constexpr_function

from gss_kernels.settings import DICE_SMOOTHING as _SMOOTHING
from gss_kernels.triton.sums import row_sums

LN2: tl.constexpr = tl.constexpr(0.6931471805599453)
_DICE_SMOOTHING: tl.constexpr = tl.constexpr(_SMOOTHING)


@constexpr_function
def padded(count):
    """The next power of 2, which the sizes of blocks have to be."""
    return 1 << (count - 1).bit_length()


class SegmentationSums(NamedTuple):
    """Of one sample, or of all."""

    voxels: Any  # that count, 0-dim of one sample, `[M, 1]` of all
    logs: Any  # weighted logarithms, `[M, 1]`
    overlap: Any  # `[M, C]`
    union: Any  # `[M, C]`


@triton.jit
def indices(form: tl.constexpr):
    """Numbers of modalities `[M, 1]` and of categories `[1, C]`, padded."""
    M: tl.constexpr = padded(form.M)
    C: tl.constexpr = padded(form.C)
    return tl.arange(0, M)[:, None], tl.arange(0, C)[None, :]


@triton.jit
def presence_of(available, sample, m, M: tl.constexpr):
    """Which modalities a sample has, `[M, 1]`."""
    present = m < M
    if available is not None:
        present = tl.load(available + sample * M + m, m < M, other=0) != 0
    return present


@triton.jit
def sample_sums(partials, present, programs, num_voxels, form: tl.constexpr):
    """The sums of one sample, and what is left of each category, `1 - share`, `[1, C]`.

    NaN where a label is no category: then the labels do not add up to the voxels.
    """
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    m, c = indices(form)
    inside = (m < M) & (c < C) & present
    row = form.first + 3 * C * m + c
    logs = row_sums(partials, row, inside, programs)
    overlap = row_sums(partials, row + C, inside, programs)
    mass = row_sums(partials, row + 2 * C, inside, programs)
    labels = row_sums(partials, form.first + 3 * M * C + c, c < C, programs, True)
    voxels = tl.cast(num_voxels, tl.int64)
    if form.ignore is not None:
        row = form.first + 3 * M * C + C + c
        voxels = tl.sum(row_sums(partials, row, c < 1, programs, True))
    left = 1.0 - labels.to(tl.float32) / tl.maximum(voxels, 1).to(tl.float32)
    left = tl.where(tl.sum(labels) == voxels, tl.where(voxels > 0, left, 0.0), float("nan"))
    union = tl.where(inside, mass + labels + left * 0.0, 0.0)
    # A NaN among the probabilities reaches the mass, but not the logarithm, which is clipped.
    weighted = tl.sum(tl.where(inside, left * logs + mass * 0.0, 0.0), axis=1)[:, None]
    return SegmentationSums(voxels.to(tl.float32), weighted, tl.where(inside, overlap, 0.0), union), left


@triton.jit
def finish_segmentation(partials, available, terms, coefficients, walk, num_voxels, form: tl.constexpr):
    """Store cross-entropy and Dice `[2, M]` and their coefficients, kinds 1 to 3; the sum of the former."""
    M: tl.constexpr = form.M
    C: tl.constexpr = form.C
    M_PADDED: tl.constexpr = padded(M)
    C_PADDED: tl.constexpr = padded(C)
    m, c = indices(form)
    rows = tl.zeros((M_PADDED, 1), tl.float32)
    cells = tl.zeros((M_PADDED, C_PADDED), tl.float32)
    every = SegmentationSums(rows, rows, cells, cells)
    for sample in tl.range(0, walk.num_samples):
        present = presence_of(available, sample, m, M)
        own_partials = partials + tl.cast(sample, tl.int64) * form.rows * walk.programs
        own, _ = sample_sums(own_partials, present, walk.programs, num_voxels, form)
        voxels = every.voxels + tl.where(present, own.voxels, 0.0)
        every = SegmentationSums(voxels, every.logs + own.logs, every.overlap + own.overlap, every.union + own.union)
    counts = every.voxels > 0.0
    voxels = tl.where(counts, every.voxels, 1.0)
    cross_entropy = -every.logs * LN2 / voxels
    smoothed = every.union + _DICE_SMOOTHING
    dice = tl.sum(tl.where((c < C) & counts, 1.0 - 2.0 * every.overlap / smoothed, 0.0), axis=1)[:, None] / C
    tl.store(terms + m, cross_entropy, m < M)
    tl.store(terms + M + m, dice, m < M)
    for sample in tl.range(0, walk.num_samples):
        present = presence_of(available, sample, m, M)
        own_partials = partials + tl.cast(sample, tl.int64) * form.rows * walk.programs
        _, left = sample_sums(own_partials, present, walk.programs, num_voxels, form)
        kind = tl.cast(walk.num_samples, tl.int64) * (M * C)
        row = coefficients + kind + (sample * M + m) * C + c
        inside = (m < M) & (c < C)
        tl.store(row, tl.where(present, left / voxels, 0.0), inside)
        tl.store(row + kind, tl.where(present, -2.0 / (C * smoothed), 0.0), inside)
        tl.store(row + 2 * kind, tl.where(present, 2.0 * every.overlap / (C * smoothed * smoothed), 0.0), inside)
    return tl.sum(tl.where(m < M, cross_entropy + dice, 0.0))
