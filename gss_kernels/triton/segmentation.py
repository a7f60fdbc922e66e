"""The supervised loss of a single prediction, logits or probabilities: a pass that sums, one that differentiates."""

from __future__ import annotations

import triton
import triton.language as tl

from gss_kernels.triton.loss import load_coefficients, store_sums
from gss_kernels.triton.supervision import (
    add_labels,
    add_supervised,
    load_labels,
    probabilities_of,
    probability_gradient,
    softmax_gradient,
)
from gss_kernels.triton.vote import softmaxes
from gss_kernels.triton.voxels import inside_volume, load_logits, load_presence, positions_of


@triton.jit
def load_probabilities(
    pointer,
    strides,
    present,
    sample,
    start,
    offsets,
    inside,
    C: tl.constexpr,
    FROM_LOGITS: tl.constexpr,
    PTX: tl.constexpr,
):
    """The prediction's probabilities, C blocks; 0 outside the volume and for an absent sample, which is not read."""
    stride_b, stride_c, stride_v = strides
    positions = positions_of(start, offsets, stride_v)
    readable = tl.where(present, inside, False)
    values = load_logits(pointer + sample.to(tl.int64) * stride_b, stride_c, positions, readable, C)
    if FROM_LOGITS:
        # Of the two softmaxes only the sharp one is used; the other one is not computed.
        _, _, sharp, sharp_sum = softmaxes(values, 1.0, C, 0, PTX)
        values = probabilities_of(sharp, sharp_sum, readable, C, PTX)
    return values


@triton.jit(do_not_specialize=["blocks", "programs"])
def segmentation_forward_kernel(
    pointer,
    strides,
    available_pointer,
    label_pointer,
    partial_pointer,
    num_voxels,
    blocks,
    programs,
    C: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    FROM_LOGITS: tl.constexpr,
    BLOCK: tl.constexpr,
    VOXELS: tl.constexpr,
    PTX: tl.constexpr,
):
    """Partial sums of each program, `[B, 4 C, programs]`: 3 C of `add_supervised`, C labels. Grid: (B programs,)."""
    sample = tl.program_id(0) // programs
    program = tl.program_id(0) % programs
    offsets = tl.arange(0, BLOCK)
    present, _ = load_presence(available_pointer, sample, 1, HAS_AVAILABLE)
    zeros = tl.zeros((BLOCK // VOXELS,), tl.float32)
    sums = (zeros,) * (3 * C)
    label_sums = (zeros,) * C
    for block in tl.range(program, blocks, programs):
        start = tl.cast(block, tl.int64) * BLOCK
        inside = inside_volume(start, offsets, num_voxels)
        probabilities = load_probabilities(
            pointer, strides, present[0], sample, start, offsets, inside, C, FROM_LOGITS, PTX
        )
        own = load_labels(label_pointer, sample, start, offsets, inside, num_voxels, C)
        sums = add_supervised(sums, probabilities, own, 0, C, VOXELS, PTX)
        label_sums = add_labels(label_sums, own, C, VOXELS)
    store_sums(partial_pointer, sums + label_sums, programs, 4 * C)


@triton.jit(do_not_specialize=["upstream_stride", "num_samples", "blocks"])
def segmentation_backward_kernel(
    pointer,
    strides,
    gradient_pointer,
    gradient_strides,
    available_pointer,
    label_pointer,
    coefficient_pointer,
    upstream_pointer,
    upstream_stride,
    num_samples,
    num_voxels,
    blocks,
    C: tl.constexpr,
    HAS_AVAILABLE: tl.constexpr,
    FROM_LOGITS: tl.constexpr,
    BLOCK: tl.constexpr,
    PTX: tl.constexpr,
):
    """The gradient under those of cross-entropy and Dice, `upstream [2]`. Grid: (B blocks,)."""
    sample = tl.program_id(0) // blocks
    start = (tl.program_id(0) % blocks).to(tl.int64) * BLOCK
    offsets = tl.arange(0, BLOCK)
    inside = inside_volume(start, offsets, num_voxels)
    present, _ = load_presence(available_pointer, sample, 1, HAS_AVAILABLE)
    probabilities = load_probabilities(
        pointer, strides, present[0], sample, start, offsets, inside, C, FROM_LOGITS, PTX
    )
    own = load_labels(label_pointer, sample, start, offsets, inside, num_voxels, C)
    cross_entropy = tl.load(upstream_pointer)
    dice = tl.load(upstream_pointer + upstream_stride)
    weights = load_coefficients(coefficient_pointer, 1, sample, 0, num_samples, cross_entropy, 1, C)
    alphas = load_coefficients(coefficient_pointer, 2, sample, 0, num_samples, dice, 1, C)
    betas = load_coefficients(coefficient_pointer, 3, sample, 0, num_samples, dice, 1, C)
    if FROM_LOGITS:
        gradients = softmax_gradient(probabilities, own, weights, alphas, betas, C)
    else:
        gradients = probability_gradient(probabilities, own, weights, alphas, betas, C)
    stride_b, stride_c, stride_v = gradient_strides
    row = gradient_pointer + sample.to(tl.int64) * stride_b
    positions = positions_of(start, offsets, stride_v)
    for c in tl.static_range(C):
        pointer_to = row + tl.cast(stride_c, tl.int64) * c + positions
        tl.store(pointer_to, gradients[c].to(pointer_to.dtype.element_ty), mask=inside)
