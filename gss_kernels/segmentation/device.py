"""The segmentation loss of one modality on one block of voxels: class-weighted cross-entropy and soft Dice.

Both are functions of a few sums per category: of the logarithm of the probability of the voxels' own category, of that
probability, of every probability, and of the labels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from gss_kernels.settings import LOWEST_PROBABILITY as _LOWEST
from gss_kernels.triton.arithmetic import at_least, log2, reciprocal
from gss_kernels.triton.sums import own_sum
from gss_kernels.triton.volumes import load_coefficients

LOWEST_PROBABILITY: tl.constexpr = tl.constexpr(_LOWEST)


class Labels(NamedTuple):
    """Of a block's voxels."""

    own: Any  # each voxel's category; C outside the volume, where ignored, and for labels that are no category
    counted: Any  # which voxels are inside the volume and not ignored


class Slopes(NamedTuple):
    """C numbers each: of the derivative at a voxel's own category y and at all categories, see `softmax_gradient`."""

    weights: Any
    alphas: Any
    betas: Any


@triton.jit
def load_labels(labels, block, num_voxels, form: tl.constexpr):
    """The labels of a block."""
    C: tl.constexpr = form.C
    row = labels + block.sample.to(tl.int64) * num_voxels + block.start
    label = tl.load(row + block.offsets, mask=block.inside, other=C)
    own = tl.where((label >= 0) & (label < C), label.to(tl.int32), C)
    counted = block.inside
    if form.ignore is not None:
        ignored = label.to(tl.int64) == form.ignore
        own = tl.where(ignored, C, own)
        counted = counted & (ignored == 0)
    return Labels(own, counted)


@triton.jit
def probabilities_of(own, counted, form: tl.constexpr):
    """The softmax o of one modality's `Softmaxes`, C blocks; 0 where a voxel is not counted."""
    C: tl.constexpr = form.C
    inverse = tl.where(counted, reciprocal(own.sharp_sum, form.ptx), 0.0)
    probabilities = ()
    for c in tl.static_range(C):
        probability = own.sharp[c] * inverse
        if form.ignore is not None:
            # A product with 0 would let the NaN of an ignored voxel through.
            probability = tl.where(counted, probability, 0.0)
        probabilities = probabilities + (probability,)
    return probabilities


@triton.jit
def own_probability(probabilities, own, C: tl.constexpr):
    """The probability of each voxel's own category."""
    probability = probabilities[0]
    for c in tl.static_range(1, C):
        probability = tl.where(own == c, probabilities[c], probability)
    return probability


@triton.jit
def add_segmentation(sums, probabilities, own, first: tl.constexpr, form: tl.constexpr):
    """The three sums per category, `sums[first:]` and on, with a block added: log own, own, all probabilities."""
    C: tl.constexpr = form.C
    VOXELS: tl.constexpr = form.voxels
    probability = tl.minimum(at_least(own_probability(probabilities, own, C), LOWEST_PROBABILITY), 1.0)
    own_log = log2(probability, form.ptx)
    logs = ()
    overlaps = ()
    masses = ()
    for c in tl.static_range(C):
        logs = logs + (sums[first + c] + own_sum(tl.where(own == c, own_log, 0.0), VOXELS),)
        overlap = tl.where(own == c, probabilities[c], 0.0)
        overlaps = overlaps + (sums[first + C + c] + own_sum(overlap, VOXELS),)
        masses = masses + (sums[first + 2 * C + c] + own_sum(probabilities[c], VOXELS),)
    return logs + overlaps + masses


@triton.jit
def add_labels(sums, labels, form: tl.constexpr):
    """The number of voxels of each category, and where there is an ignored label of those that count, a block added."""
    C: tl.constexpr = form.C
    VOXELS: tl.constexpr = form.voxels
    result = ()
    for c in tl.static_range(C):
        result = result + (sums[c] + own_sum((labels.own == c).to(tl.float32), VOXELS),)
    if form.ignore is not None:
        result = result + (sums[C] + own_sum(labels.counted.to(tl.float32), VOXELS),)
    return result


@triton.jit
def load_slopes(coefficients, m, block, num_samples, upstream, form: tl.constexpr):
    """The slopes of one modality, under the upstream gradients of cross-entropy and Dice."""
    weights = load_coefficients(coefficients, 1, m, block, num_samples, upstream[0], form)
    alphas = load_coefficients(coefficients, 2, m, block, num_samples, upstream[1], form)
    betas = load_coefficients(coefficients, 3, m, block, num_samples, upstream[1], form)
    return Slopes(weights, alphas, betas)


@triton.jit
def softmax_gradient(probabilities, own, slopes, C: tl.constexpr):
    """The gradient of cross-entropy and Dice with respect to the logits.

    With `w` the weight of the own category y where `o_y >= 0.005`, else 0, and `S = alpha_y o_y + sum_c beta_c o_c`:
    `dz_j = o_j (beta_j - S + w) + [j = y] (alpha_y o_y - w)`.
    """
    probability = own_probability(probabilities, own, C)
    weight = tl.zeros_like(probability)
    pull = tl.zeros_like(probability)
    total = tl.zeros_like(probability)
    for c in tl.static_range(C):
        weight = tl.where(own == c, slopes.weights[c], weight)
        pull = tl.where(own == c, slopes.alphas[c], pull)
        total += slopes.betas[c] * probabilities[c]
    weight = tl.where(probability >= LOWEST_PROBABILITY, weight, 0.0)
    pull = pull * probability
    common = weight - (pull + total)
    extra = pull - weight
    gradients = ()
    for c in tl.static_range(C):
        gradients = gradients + (probabilities[c] * (slopes.betas[c] + common) + tl.where(own == c, extra, 0.0),)
    return gradients


@triton.jit
def probability_gradient(probabilities, labels, slopes, C: tl.constexpr):
    """The gradient of cross-entropy and Dice with respect to probabilities: `beta_j + [j = y] (alpha_y - w / o_y)`."""
    gradients = ()
    for c in tl.static_range(C):
        o = probabilities[c]
        inside_clip = (o >= LOWEST_PROBABILITY) & (o <= 1.0)
        extra = slopes.alphas[c] - tl.where(inside_clip, slopes.weights[c] / o, 0.0)
        gradient = slopes.betas[c] + tl.where(labels.own == c, extra, 0.0)
        gradients = gradients + (tl.where(labels.counted, gradient, 0.0),)
    return gradients
