"""The segmentation loss of a single prediction, logits or probabilities: a pass that sums, one that differentiates."""

from __future__ import annotations

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
from gss_kernels.segmentation.finish import finish_segmentation, indices
from gss_kernels.triton.arithmetic import softmaxes
from gss_kernels.triton.sums import store_sums
from gss_kernels.triton.volumes import load_logits, load_presence, open_block, store_gradient


@triton.jit
def load_probabilities(logits, block, present, labels, form: tl.constexpr):
    """The prediction's probabilities, C blocks; 0 where not counted and for an absent sample, which is not read."""
    values = load_logits(logits, block, present, 0, form.C)
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


@triton.jit(do_not_specialize=["walk"])
def segmentation_forward_kernel(logits, masks, labels, partials, walk, _numbers, form: tl.constexpr):
    """Partial sums of each program, `[B, rows, programs]`: of `add_segmentation`, `add_labels`. Grid: (B programs,)."""
    C: tl.constexpr = form.C
    THREADS: tl.constexpr = form.block // form.voxels
    IGNORING: tl.constexpr = form.ignore is not None
    sample = tl.program_id(0) // walk.programs
    program = tl.program_id(0) % walk.programs
    presence = load_presence(masks.available, sample, 1)
    zero = tl.zeros((THREADS,), tl.float32)
    sums = (zero,) * (3 * C)
    label_sums = (zero,) * (C + IGNORING)
    offsets = tl.arange(0, form.block)
    for number in tl.range(program, walk.blocks, walk.programs):
        block = open_block(sample, number, offsets, logits.num_voxels)
        own_labels = load_labels(labels, block, logits.num_voxels, form)
        probabilities = load_probabilities(logits, block, presence.of[0], own_labels, form)
        sums = add_segmentation(sums, probabilities, own_labels.own, 0, form)
        label_sums = add_labels(label_sums, own_labels, form)
    store_sums(partials, sums + label_sums, walk.programs, form.rows)


@triton.jit(do_not_specialize=["_places", "walk"])
def segmentation_finish_kernel(
    partials, available, value, results, _places, walk, _weights, num_voxels, form: tl.constexpr
):
    """From partial sums to both terms `[2]` and the coefficients, `[4, B, 1, C]` of which the first are 0."""
    C: tl.constexpr = form.C
    _, c = indices(form)
    for sample in tl.range(0, walk.num_samples):
        tl.store(results + sample * C + c, tl.zeros_like(c).to(tl.float32), c < C)
    finish_segmentation(partials, available, value, results, walk, num_voxels, form)


@triton.jit(do_not_specialize=["walk", "upstream"])
def segmentation_backward_kernel(
    logits, masks, labels, gradients, coefficients, upstream, walk, _numbers, form: tl.constexpr
):
    """The gradient under those of cross-entropy and Dice, `[2]`. Grid: (B blocks,)."""
    C: tl.constexpr = form.C
    sample = tl.program_id(0) // walk.blocks
    block = open_block(sample, tl.program_id(0) % walk.blocks, tl.arange(0, form.block), logits.num_voxels)
    presence = load_presence(masks.available, sample, 1)
    own_labels = load_labels(labels, block, logits.num_voxels, form)
    probabilities = load_probabilities(logits, block, presence.of[0], own_labels, form)
    terms = (tl.load(upstream.pointer), tl.load(upstream.pointer + upstream.strides[0]))
    slopes = load_slopes(coefficients, 0, block, walk.num_samples, terms, form)
    if form.from_logits:
        gradient = softmax_gradient(probabilities, own_labels.own, slopes, C)
    else:
        gradient = probability_gradient(probabilities, own_labels, slopes, C)
    for c in tl.static_range(C):
        store_gradient(gradients, block, gradient[c], 0, c)
