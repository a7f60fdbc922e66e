"""The segmentation loss of a single prediction, logits or probabilities: a pass that sums, one that differentiates."""

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl

from gss_kernels.segmentation.device import (
    add_labels,
    add_segmentation,
    load_labels,
    load_slopes,
    probabilities_of,
    probability_gradient,
    softmax_gradient,
)
from gss_kernels.segmentation.finish import finish_segmentation
from gss_kernels.triton.arithmetic import softmaxes
from gss_kernels.triton.sums import store_sums
from gss_kernels.triton.volumes import load_logits, load_presence, open_block, store_gradient


class Form(NamedTuple):
    """What a kernel is compiled for.

    Attributes:
        C: number of categories.
        from_logits: the prediction lacks its softmax.
        ptx: inline PTX may be used.
        block: voxels of a block.
        voxels: of a thread.
        ignore: the ignored label, None without.
        M: one modality.
        squarings: none, see `softmaxes`.
    """

    C: int
    from_logits: bool
    ptx: bool
    block: int
    voxels: int = 1
    ignore: int | None = None
    M: int = 1
    squarings: int = 0


@triton.jit
def load_probabilities(inputs, block, present, labels, form: tl.constexpr):
    """The prediction's probabilities, C blocks; 0 where not counted and for an absent sample, which is not read."""
    values = load_logits(inputs.logits, block, present, 0, form.C)
    counted = tl.where(present, labels.counted, False)
    if form.from_logits:
        # Of the two softmaxes only the sharp one is used; the other one is not computed.
        values = probabilities_of(softmaxes(values, 1.0, form), counted, form)
    elif form.ignore is not None:
        C: tl.constexpr = form.C
        probabilities = ()
        for c in tl.static_range(C):
            probabilities = probabilities + (tl.where(counted, values[c], 0.0),)
        values = probabilities
    return values


@triton.jit(do_not_specialize=["blocks", "programs"])
def segmentation_forward_kernel(inputs, blocks, programs, partials, form: tl.constexpr):
    """Partial sums of each program, `[B, rows, programs]`: of `add_segmentation`, of `add_labels`. Grid: (B programs,)."""
    C: tl.constexpr = form.C
    THREADS: tl.constexpr = form.block // form.voxels
    IGNORING: tl.constexpr = form.ignore is not None
    sample = tl.program_id(0) // programs
    program = tl.program_id(0) % programs
    presence = load_presence(inputs.available, sample, 1)
    zero = tl.zeros((THREADS,), tl.float32)
    sums = (zero,) * (3 * C)
    label_sums = (zero,) * (C + IGNORING)
    offsets = tl.arange(0, form.block)
    for number in tl.range(program, blocks, programs):
        block = open_block(sample, number, offsets, inputs.logits.num_voxels)
        labels = load_labels(inputs.labels, block, inputs.logits.num_voxels, C, form.ignore)
        probabilities = load_probabilities(inputs, block, presence.of[0], labels, form)
        sums = add_segmentation(sums, probabilities, labels.own, 0, form)
        label_sums = add_labels(label_sums, labels, form)
    store_sums(partials, sums + label_sums, programs, 4 * C + IGNORING)


@triton.jit(do_not_specialize=["num_samples", "programs"])
def segmentation_finish_kernel(
    partials, available, terms, coefficients, num_samples, num_voxels, programs, form: tl.constexpr
):
    """From partial sums to both terms `[2]` and the coefficients, `[4, B, 1, C]` of which the first are not written."""
    finish_segmentation(partials, available, terms, coefficients, num_samples, num_voxels, programs, form)


@triton.jit(do_not_specialize=["upstream_stride", "num_samples", "blocks"])
def segmentation_backward_kernel(
    inputs, gradients, coefficients, upstream, upstream_stride, num_samples, blocks, form: tl.constexpr
):
    """The gradient under those of cross-entropy and Dice, `upstream [2]`. Grid: (B blocks,)."""
    C: tl.constexpr = form.C
    sample = tl.program_id(0) // blocks
    num_voxels = inputs.logits.num_voxels
    block = open_block(sample, tl.program_id(0) % blocks, tl.arange(0, form.block), num_voxels)
    presence = load_presence(inputs.available, sample, 1)
    labels = load_labels(inputs.labels, block, num_voxels, C, form.ignore)
    probabilities = load_probabilities(inputs, block, presence.of[0], labels, form)
    pair = (tl.load(upstream), tl.load(upstream + upstream_stride))
    slopes = load_slopes(coefficients, 0, block, num_samples, pair, form)
    if form.from_logits:
        gradient = softmax_gradient(probabilities, labels.own, slopes, C)
    else:
        gradient = probability_gradient(probabilities, labels, slopes, C)
    for c in tl.static_range(C):
        store_gradient(gradients, block, gradient[c], 0, c)
