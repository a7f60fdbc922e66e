"""The CPU backend: cross-entropy and soft Dice in chunks of voxels, with a hand-written backward pass.

The forward pass reduces the prediction to a few sums per category; the backward pass reads the prediction again and
needs those sums alone. Formulas: docs of `gss_kernels.fused_segmentation_loss`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gss_kernels.autograd import by_hand
from gss_kernels.segmentation.call import SegmentationCall, empty
from gss_kernels.settings import DICE_SMOOTHING, LOWEST_PROBABILITY
from gss_kernels.tensors import GroupLogits, Inputs

# Some tensors [C, n] stay in cache. No power of two: the categories' rows would compete for the same lines of it.
_CHUNK_VOXELS = 30_000


@by_hand
def forward(inputs: Inputs, call: SegmentationCall, *, keep: bool) -> tuple[Tensor, Tensor, None]:  # noqa: ARG001
    """Cross-entropy and Dice, `[2]`, and what the backward pass needs, `[4, B, 1, C]`; keeps nothing."""
    sums = SegmentationSums.zeros(inputs.logits)
    for _, chunk in _chunks(inputs, call):
        sums.add(chunk)
    value, coefficients = empty(inputs, call)
    value.copy_(torch.stack(sums.terms()))
    coefficients[0] = 0
    for kind, values in enumerate(Slopes.of(sums), start=1):
        coefficients[kind, :, 0] = values
    return value, coefficients, None


@by_hand
def backward(
    inputs: Inputs,
    call: SegmentationCall,
    results: Tensor,
    upstream: Tensor,
    kept: None,  # noqa: ARG001
) -> tuple[Tensor]:
    """The gradient of the prediction under that of the terms, `[2]`; 0 in the samples that are not available."""
    (prediction,) = inputs.logits.tensors
    _, log_own, at_label, everywhere = results[:, :, 0]
    slopes = Slopes(log_own * upstream[0], at_label * upstream[1], everywhere * upstream[1])
    result = torch.empty(prediction.flatten(2).shape, dtype=prediction.dtype)
    if inputs.available is not None:
        result[~inputs.available] = 0
    for voxels, chunk in _chunks(inputs, call):
        result[chunk.sample, :, voxels] = slopes.gradient(chunk, are_logits=call.from_logits)
    return (result.reshape(prediction.shape),)


def _chunks(inputs: Inputs, call: SegmentationCall) -> Iterator[tuple[slice, LabelledChunk]]:
    """All chunks of all available samples, and where they are in the sample."""
    # Views wherever the spatial axes can be joined, as in every dense layout.
    prediction, num_voxels = inputs.logits.tensors[0].flatten(2), inputs.logits.num_voxels
    labels = inputs.labels.flatten(1)  # type: ignore[union-attr]
    for sample in range(inputs.logits.shape[0]):
        if inputs.available is not None and not bool(inputs.available[sample]):
            continue
        for start in range(0, num_voxels, _CHUNK_VOXELS):
            voxels = slice(start, min(start + _CHUNK_VOXELS, num_voxels))
            values = prediction[sample, :, voxels].to(inputs.logits.compute_dtype)
            probabilities = values.softmax(dim=0) if call.from_logits else values
            yield voxels, LabelledChunk.of(sample, probabilities, labels[sample, voxels], call.ignore_index)


class LabelledChunk(NamedTuple):
    """Some voxels of one sample, n of which count."""

    sample: int  # its index
    probabilities: Tensor  # o, `[C, n]`, in the dtype of the computation
    is_label: Tensor  # y, one-hot labels, `[C, n]`, in the same dtype
    own: Tensor  # the probability of the voxel's label, `[n]`
    counted: Tensor | None  # which of the chunk's voxels count; None: all

    @classmethod
    def of(cls, sample: int, probabilities: Tensor, labels: Tensor, ignore_index: int | None) -> LabelledChunk:
        """From all of the chunk's probabilities and labels."""
        index, counted = labels.long(), None
        if ignore_index is not None:
            counted = index != ignore_index
            index, probabilities = index[counted], probabilities[:, counted]
        is_label = _one_hot(index, len(probabilities), probabilities.dtype)
        # Not a sum of products: what is wrong with another category is not this one's.
        return cls(sample, probabilities, is_label, probabilities.gather(0, index[None])[0], counted)


@dataclass
class SegmentationSums:
    """Sums over voxels; in float64, as a volume has millions of voxels and the sums cost nothing."""

    count: Tensor  # how many voxels have the label, `[B, C]`
    log_own: Tensor  # `sum_v y * log(clip(o))`, `[B, C]`
    overlap: Tensor  # `sum_{b,v} o * y`, `[C]`
    probability: Tensor  # `sum_{b,v} o`, `[C]`

    @classmethod
    def zeros(cls, logits: GroupLogits) -> SegmentationSums:
        """Nothing summed yet."""
        B, _, C = logits.shape
        per_sample, total = torch.zeros(B, C, dtype=torch.float64), torch.zeros(C, dtype=torch.float64)
        return cls(per_sample, per_sample.clone(), total, total.clone())

    def add(self, chunk: LabelledChunk) -> None:
        """Add a chunk."""
        # clamp keeps NaN.
        log_own = chunk.own.clamp(LOWEST_PROBABILITY, 1).log_()
        rows = torch.stack((torch.ones_like(log_own), log_own, chunk.own))
        count, log_sum, overlap = rows @ chunk.is_label.T
        self.count[chunk.sample] += count
        self.log_own[chunk.sample] += log_sum
        self.overlap += overlap
        self.probability += chunk.probabilities.sum(dim=1)

    def kept_voxels(self) -> float:
        """Voxels of all available samples."""
        return float(self.count.sum())

    def weights(self) -> Tensor:
        """The categories' weights in the cross-entropy, `[B, C]`; 0 for samples that are not available."""
        voxels = self.count.sum(dim=1, keepdim=True)
        return torch.where(voxels > 0, 1 - self.count / voxels.clamp(min=1), 0)

    def denominator(self) -> Tensor:
        """What twice the overlap is divided by in the soft Dice, `[C]`."""
        return self.probability + self.count.sum(dim=0) + DICE_SMOOTHING

    def terms(self) -> tuple[Tensor, Tensor]:
        """Cross-entropy and soft Dice; 0 without a voxel to take them from."""
        if not self.kept_voxels():
            return self.overlap.new_zeros(()), self.overlap.new_zeros(())
        cross_entropy = -(self.weights() * self.log_own).sum() / self.kept_voxels()
        return cross_entropy, 1 - (2 * self.overlap / self.denominator()).mean()


class Slopes(NamedTuple):
    """What the sums say about the derivative with respect to the probability o of a voxel, `[B, C]` each.

    It is `everywhere`, and for the voxel's label also `at_label - log_own / o`, the last term where o is not clipped.
    """

    log_own: Tensor
    at_label: Tensor
    everywhere: Tensor

    @classmethod
    def of(cls, sums: SegmentationSums) -> Slopes:
        """Of the plain sum of cross-entropy and Dice, float64; 0 for samples that are not available."""
        share = 2 / (len(sums.overlap) * sums.denominator())
        counts = sums.count.sum(dim=1, keepdim=True) > 0
        return cls(
            log_own=sums.weights() / max(sums.kept_voxels(), 1),
            at_label=torch.where(counts, -share, 0),
            everywhere=torch.where(counts, share * sums.overlap / sums.denominator(), 0),
        )

    def gradient(self, chunk: LabelledChunk, *, are_logits: bool) -> Tensor:
        """With respect to the prediction of all of the chunk's voxels."""
        gradient = self._of_counted(chunk, are_logits=are_logits)
        if chunk.counted is None:
            return gradient
        return gradient.new_zeros(len(gradient), len(chunk.counted)).masked_scatter_(chunk.counted, gradient)

    def _of_counted(self, chunk: LabelledChunk, *, are_logits: bool) -> Tensor:
        """`[C, n]`."""
        slope = torch.stack((self.at_label[chunk.sample], self.log_own[chunk.sample]))
        at_label, log_own = slope @ chunk.is_label
        clipped = chunk.own.clamp(LOWEST_PROBABILITY, 1)
        log_own.mul_(torch.eq(chunk.own, clipped, out=torch.empty_like(clipped)))
        everywhere = self.everywhere[chunk.sample]
        if not are_logits:
            return torch.addcmul(everywhere[:, None], chunk.is_label, at_label.sub_(log_own.div_(clipped)))
        # Through the softmax, dz_j = o_j * (do_j - sum_c o_c do_c); o times 1 / o is not worked out, as o may be 0.
        extra = at_label.mul_(chunk.own).sub_(log_own)
        common = everywhere @ chunk.probabilities + extra
        gradient = torch.sub(everywhere[:, None], common).mul_(chunk.probabilities)
        return gradient.addcmul_(chunk.is_label, extra)


def _one_hot(labels: Tensor, num_categories: int, dtype: torch.dtype) -> Tensor:
    """`[C, n]` of labels `[n]`."""
    # Comparing numbers of the result's own type, one category at a time, takes a third of the time of the plain way.
    numbers = labels.to(dtype)
    result = torch.empty(num_categories, len(labels), dtype=dtype)
    for category, row in enumerate(result):
        torch.eq(numbers, category, out=row)
    return result
