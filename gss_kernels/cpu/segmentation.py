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
from gss_kernels.inputs import compute_dtype_of
from gss_kernels.supervised_settings import DICE_SMOOTHING, LOWEST_PROBABILITY

# Some tensors [C, n] stay in cache. No power of two: the categories' rows would compete for the same lines of it.
_CHUNK_VOXELS = 30_000


@by_hand
def cpu_segmentation_forward(
    prediction: Tensor, labels: Tensor, available: Tensor | None, *, from_logits: bool
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice, `[2]`, and what the backward pass needs, `[4, B, 1, C]` as in `GroupResults`."""
    volumes = _Volumes.of(prediction, labels, available, from_logits=from_logits)
    sums = SupervisedSums.zeros(*prediction.shape[:2])
    for _, chunk in volumes.chunks():
        sums.add(chunk)
    coefficients = torch.zeros(4, *prediction.shape[:2], dtype=torch.float64)
    for kind, values in zip((1, 2, 3), Slopes.of(sums), strict=True):
        coefficients[kind] = values
    dtype = compute_dtype_of(prediction)
    return torch.stack(sums.terms()).to(dtype), coefficients[:, :, None].to(dtype)


@by_hand
def cpu_segmentation_backward(
    prediction: Tensor,
    labels: Tensor,
    available: Tensor | None,
    coefficients: Tensor,
    upstream: Tensor,
    *,
    from_logits: bool,
) -> Tensor:
    """The gradient of the prediction under that of the terms, `[2]`; 0 in the samples that are not available."""
    volumes = _Volumes.of(prediction, labels, available, from_logits=from_logits)
    _, log_own, at_label, everywhere = coefficients[:, :, 0]
    slopes = Slopes(log_own * upstream[0], at_label * upstream[1], everywhere * upstream[1])
    result = torch.empty(volumes.prediction.shape, dtype=prediction.dtype)
    for sample in set(range(len(result))).difference(volumes.samples):
        result[sample] = 0
    for voxels, chunk in volumes.chunks():
        result[chunk.sample, :, voxels] = slopes.gradient(chunk, are_logits=from_logits)
    return result.reshape(prediction.shape)


@dataclass(frozen=True)
class LabelledChunk:
    """Some voxels of one sample.

    Attributes:
        sample: its index.
        probabilities: o, `[C, n]`, in the dtype of the computation.
        is_label: y, one-hot labels, `[C, n]`, in the same dtype.
        own: the probability of the voxel's label, `[n]`.
    """

    sample: int
    probabilities: Tensor
    is_label: Tensor
    own: Tensor

    @classmethod
    def of(cls, sample: int, probabilities: Tensor, labels: Tensor) -> LabelledChunk:
        """From probabilities `[C, n]` and labels `[n]`."""
        index = labels.long()
        is_label = _one_hot(index, len(probabilities), probabilities.dtype)
        # Not a sum of products: what is wrong with another category is not this one's.
        return cls(sample, probabilities, is_label, probabilities.gather(0, index[None])[0])


@dataclass(frozen=True)
class _Volumes:
    """The tensors of a call with their voxels in one row.

    Attributes:
        prediction: `[B, C, N]`.
        labels: `[B, N]`.
        samples: the available ones.
        from_logits: whether the prediction still lacks its softmax.
    """

    prediction: Tensor
    labels: Tensor
    samples: tuple[int, ...]
    from_logits: bool

    @classmethod
    def of(cls, prediction: Tensor, labels: Tensor, available: Tensor | None, *, from_logits: bool) -> _Volumes:
        """Views wherever the spatial axes can be joined, as in every dense layout."""
        samples = [b for b in range(len(prediction)) if available is None or bool(available[b])]
        return cls(prediction.flatten(2), labels.flatten(1), tuple(samples), from_logits)

    def chunks(self) -> Iterator[tuple[slice, LabelledChunk]]:
        """All chunks of all available samples, and where they are in the sample."""
        num_voxels = self.prediction.shape[2]
        dtype = compute_dtype_of(self.prediction)
        for sample in self.samples:
            for start in range(0, num_voxels, _CHUNK_VOXELS):
                voxels = slice(start, min(start + _CHUNK_VOXELS, num_voxels))
                values = self.prediction[sample, :, voxels].to(dtype)
                probabilities = values.softmax(dim=0) if self.from_logits else values
                yield voxels, LabelledChunk.of(sample, probabilities, self.labels[sample, voxels])


@dataclass
class SupervisedSums:
    """Sums over voxels; in float64, as a volume has millions of voxels and the sums cost nothing.

    Attributes:
        count: how many voxels have the label, `[B, C]`.
        log_own: `sum_v y * log(clip(o))`, `[B, C]`.
        overlap: `sum_{b,v} o * y`, `[C]`.
        probability: `sum_{b,v} o`, `[C]`.
    """

    count: Tensor
    log_own: Tensor
    overlap: Tensor
    probability: Tensor

    @classmethod
    def zeros(cls, num_samples: int, num_categories: int) -> SupervisedSums:
        """Nothing summed yet."""
        per_sample = torch.zeros(num_samples, num_categories, dtype=torch.float64)
        total = torch.zeros(num_categories, dtype=torch.float64)
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
    def of(cls, sums: SupervisedSums) -> Slopes:
        """Of the plain sum of cross-entropy and Dice, float64; 0 for samples that are not available."""
        share = 2 / (len(sums.overlap) * sums.denominator())
        counts = sums.count.sum(dim=1, keepdim=True) > 0
        return cls(
            log_own=sums.weights() / max(sums.kept_voxels(), 1),
            at_label=torch.where(counts, -share, 0),
            everywhere=torch.where(counts, share * sums.overlap / sums.denominator(), 0),
        )

    def gradient(self, chunk: LabelledChunk, *, are_logits: bool) -> Tensor:
        """With respect to the chunk's prediction, `[C, n]`."""
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
