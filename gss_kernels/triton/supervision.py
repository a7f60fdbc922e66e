"""The supervised loss of one modality on one block of voxels: class-weighted cross-entropy and soft Dice.

Both are functions of a few sums per category: of the logarithm of the probability of the voxels' own category, of that
probability, of every probability, and of the labels.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gss_kernels.triton.arithmetic import at_least, log2, own_sum, reciprocal

LOWEST_PROBABILITY: tl.constexpr = tl.constexpr(0.005)


@triton.jit
def load_labels(label_pointer, sample, start, offsets, inside, num_voxels, C: tl.constexpr):
    """Each voxel's own category; C outside the volume and for labels that are no category."""
    row = label_pointer + sample.to(tl.int64) * num_voxels + start
    label = tl.load(row + offsets, mask=inside, other=C)
    return tl.where((label >= 0) & (label < C), label.to(tl.int32), C)


@triton.jit
def probabilities_of(sharp, sharp_sum, inside, C: tl.constexpr, PTX: tl.constexpr):
    """The softmax o, from its exponentials; 0 outside the volume."""
    inverse = tl.where(inside, reciprocal(sharp_sum, PTX), 0.0)
    probabilities = ()
    for c in tl.static_range(C):
        probabilities = probabilities + (sharp[c] * inverse,)
    return probabilities


@triton.jit
def own_probability(probabilities, own, C: tl.constexpr):
    """The probability of each voxel's own category."""
    probability = probabilities[0]
    for c in tl.static_range(1, C):
        probability = tl.where(own == c, probabilities[c], probability)
    return probability


@triton.jit
def add_supervised(
    sums, probabilities, own, first: tl.constexpr, C: tl.constexpr, VOXELS: tl.constexpr, PTX: tl.constexpr
):
    """The three sums per category, `sums[first:]` and on, with a block added: log own, own, all probabilities."""
    probability = tl.minimum(at_least(own_probability(probabilities, own, C), LOWEST_PROBABILITY), 1.0)
    own_log = log2(probability, PTX)
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
def add_labels(sums, own, C: tl.constexpr, VOXELS: tl.constexpr):
    """The number of voxels of each category, with a block added."""
    result = ()
    for c in tl.static_range(C):
        result = result + (sums[c] + own_sum((own == c).to(tl.float32), VOXELS),)
    return result


@triton.jit
def softmax_gradient(probabilities, own, weights, alphas, betas, C: tl.constexpr):
    """The gradient of cross-entropy and Dice with respect to the logits.

    With `w` the weight of the own category y where `o_y >= 0.005`, else 0, and `S = alpha_y o_y + sum_c beta_c o_c`:
    `dz_j = o_j (beta_j - S + w) + [j = y] (alpha_y o_y - w)`.
    """
    probability = own_probability(probabilities, own, C)
    weight = tl.zeros_like(probability)
    pull = tl.zeros_like(probability)
    total = tl.zeros_like(probability)
    for c in tl.static_range(C):
        weight = tl.where(own == c, weights[c], weight)
        pull = tl.where(own == c, alphas[c], pull)
        total += betas[c] * probabilities[c]
    weight = tl.where(probability >= LOWEST_PROBABILITY, weight, 0.0)
    pull = pull * probability
    common = weight - (pull + total)
    extra = pull - weight
    gradients = ()
    for c in tl.static_range(C):
        gradients = gradients + (probabilities[c] * (betas[c] + common) + tl.where(own == c, extra, 0.0),)
    return gradients


@triton.jit
def probability_gradient(probabilities, own, weights, alphas, betas, C: tl.constexpr):
    """The gradient of cross-entropy and Dice with respect to probabilities: `beta_j + [j = y] (alpha_y - w / o_y)`."""
    gradients = ()
    for c in tl.static_range(C):
        o = probabilities[c]
        inside_clip = (o >= LOWEST_PROBABILITY) & (o <= 1.0)
        extra = alphas[c] - tl.where(inside_clip, weights[c] / o, 0.0)
        gradients = gradients + (betas[c] + tl.where(own == c, extra, 0.0),)
    return gradients
