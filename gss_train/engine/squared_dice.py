"""The Dice loss that RobustSeg was published with."""

from __future__ import annotations

import torch
from torch import Tensor

_SMOOTHING = 1e-7


def squared_dice(logits: Tensor, labels: Tensor, available: Tensor | None = None) -> Tensor:
    """Soft Dice loss whose denominator sums the squares of the probabilities o, with y the one-hot labels.

    `1 - (1 / C) * sum_c 2 * sum o_c y_c / (sum o_c^2 + sum y_c + 1e-7)`, sums over the whole batch, as in the authors'
    training code of RobustSeg (Chen et al., MICCAI 2019).

    Args:
        logits: `[B, C, *spatial]`, floating point.
        labels: `[B, *spatial]` category indices.
        available: `[B]` bool, the samples that count; None: all.

    Returns:
        0-dim, float32 (float64 for float64).
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    counted = torch.ones(len(logits), dtype=torch.bool, device=logits.device) if available is None else available
    probabilities = torch.softmax(logits.flatten(2), dim=1, dtype=dtype) * counted[:, None, None]
    labels = labels.flatten(1)
    overlaps = []
    for category, predicted in enumerate(probabilities.unbind(1)):
        truth = (labels == category) & counted[:, None]
        total = predicted.square().sum() + truth.sum() + _SMOOTHING
        overlaps.append(2 * (predicted * truth).sum() / total)
    return 1 - torch.stack(overlaps).mean()
