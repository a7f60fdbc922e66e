"""The supervised loss once more, one voxel and one Python float at a time, to compare the backends with.

Written from the definition alone. The gradient goes by the chain rule as it stands: through the probabilities, then
through the whole Jacobian of the softmax.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

_LOWEST, _HIGHEST = 0.005, 1.0
_SMOOTHING = 1e-7


@dataclass(frozen=True)
class SegmentationAnswer:
    """Both terms, and their gradients with respect to the prediction, `[B, C, *spatial]`."""

    cross_entropy: float
    dice: float
    cross_entropy_gradient: Array
    dice_gradient: Array

    def gradient_under(self, cross_entropy: float, dice: float) -> Array:
        """The gradient of the sum of both terms with these factors."""
        return cross_entropy * self.cross_entropy_gradient + dice * self.dice_gradient


def probabilities_of(logits: Sequence[float]) -> list[float]:
    highest = max(logits)
    powers = [math.exp(value - highest) for value in logits]
    return [power / sum(powers) for power in powers]


def segmentation(
    prediction: Array,
    labels: Labels,
    input_kind: str,
    available: Sequence[bool] | None = None,
    ignored: int | None = None,
) -> SegmentationAnswer:
    """The whole answer for a prediction `[B, C, *spatial]` and labels `[B, *spatial]`."""
    B, C = prediction.shape[:2]
    rows = prediction.reshape(B, C, -1)
    y = labels.reshape(B, -1)
    samples = [b for b in range(B) if available is None or available[b]]
    voxels = [(b, v) for b in samples for v in range(rows.shape[2]) if y[b, v] != ignored]
    o = {
        (b, v): probabilities_of(rows[b, :, v].tolist()) if input_kind == "logits" else rows[b, :, v].tolist()
        for b, v in voxels
    }
    cross_entropy, by_cross_entropy = _cross_entropy(o, y, C, samples)
    dice, by_dice = _dice(o, y, C)
    gradients = []
    for by_probability in (by_cross_entropy, by_dice):
        gradient = np.zeros(rows.shape)
        for voxel, slope in by_probability.items():
            gradient[voxel[0], :, voxel[1]] = _through_softmax(o[voxel], slope) if input_kind == "logits" else slope
        gradients.append(gradient.reshape(prediction.shape))
    return SegmentationAnswer(cross_entropy, dice, *gradients)


_Voxels = dict[tuple[int, int], list[float]]


def _cross_entropy(o: _Voxels, y: Labels, categories: int, samples: list[int]) -> tuple[float, _Voxels]:
    """The term and its derivative with respect to every probability."""
    counted = {b: [int(y[voxel]) for voxel in o if voxel[0] == b] for b in samples}
    weight = {b: [1 - own.count(c) / max(len(own), 1) for c in range(categories)] for b, own in counted.items()}
    loss, slopes = 0.0, {}
    for (b, v), values in o.items():
        label = int(y[b, v])
        own = values[label]
        loss -= weight[b][label] * math.log(min(max(own, _LOWEST), _HIGHEST)) / len(o)
        slopes[b, v] = [0.0] * categories
        if _LOWEST <= own <= _HIGHEST:
            slopes[b, v][label] = -weight[b][label] / (own * len(o))
    return loss, slopes


def _dice(o: _Voxels, y: Labels, categories: int) -> tuple[float, _Voxels]:
    """The term and its derivative with respect to every probability."""
    if not o:
        return 0.0, {}
    overlap = [math.fsum(values[c] for voxel, values in o.items() if y[voxel] == c) for c in range(categories)]
    total = [
        math.fsum(values[c] + float(y[voxel] == c) for voxel, values in o.items()) + _SMOOTHING
        for c in range(categories)
    ]
    slopes = {}
    for voxel in o:
        by_overlap = [-2 / (categories * total[c]) if y[voxel] == c else 0.0 for c in range(categories)]
        by_total = [2 * overlap[c] / (categories * total[c] ** 2) for c in range(categories)]
        slopes[voxel] = [one + other for one, other in zip(by_overlap, by_total, strict=True)]
    return 1 - sum(2 * overlap[c] / total[c] for c in range(categories)) / categories, slopes


def _through_softmax(o: list[float], slope: list[float]) -> list[float]:
    """The derivative with respect to the logits: the softmax has the Jacobian `do_c / dz_j = o_c ([c = j] - o_j)`."""
    categories = range(len(o))
    return [math.fsum(slope[c] * o[c] * (float(c == j) - o[j]) for c in categories) for j in categories]


def near_clip(
    prediction: Array, labels: Labels, input_kind: str, available: Sequence[bool] | None, margin: float = 1e-6
) -> NDArray[np.bool_]:
    """Voxels `[B, N]` where rounding could decide whether the label's probability is clipped from below."""
    rows, y = prediction.reshape(*prediction.shape[:2], -1), labels.reshape(len(labels), -1)
    near = np.zeros(y.shape, bool)
    for b, v in np.ndindex(*y.shape):
        if available is None or available[b]:
            o = rows[b, :, v].tolist() if input_kind == "probabilities" else probabilities_of(rows[b, :, v].tolist())
            near[b, v] = abs(o[y[b, v]] - _LOWEST) < margin
    return near
