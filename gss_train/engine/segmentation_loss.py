"""The supervised loss that all networks share: class-weighted cross-entropy and soft Dice."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_LOWEST_PROBABILITY = 0.005
_DICE_SMOOTHING = 1e-7


class SegmentationLoss(NamedTuple):
    """The two parts of the supervised loss, scalars."""

    cross_entropy: Tensor
    dice: Tensor


def segmentation_loss(probabilities: Tensor, labels: Tensor, available: Tensor | None = None) -> SegmentationLoss:
    """Class-weighted cross-entropy and soft Dice.

    `cross_entropy = mean_{b,v} sum_c -(1 - share_bc) y_c log(clip(o_c, 0.005, 1))` with `share_bc` the share of
    category c among the voxels of sample b; `dice = 1 - mean_c 2 sum o_c y_c / (sum o_c + sum y_c + 1e-7)` with sums
    over the whole batch.

    Source: the training code of RFNet (Ding et al., ICCV 2021).

    Args:
        probabilities: o, `[B, C, *spatial]`; computed in float32.
        labels: category indices below C, `[B, *spatial]`, an integer dtype.
        available: `[B]` bool; samples without the modality that made the prediction leave the mean and the sums.
    """
    probabilities = probabilities.float().flatten(2)
    labels = labels.flatten(1)
    num_categories = probabilities.shape[1]
    if available is None:
        available = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    is_category = [labels == category for category in range(num_categories)]
    counts = torch.stack([mask.sum(dim=1) for mask in is_category], dim=1)
    weights = 1 - counts / labels.shape[1]

    index = labels.long()
    own = probabilities.gather(1, index[:, None]).squeeze(1)
    log_own = own.clamp(_LOWEST_PROBABILITY, 1).log()
    per_sample = -(weights.gather(1, index) * log_own).mean(dim=1)
    # Selections, not products: an unavailable sample may hold anything, NaN included.
    cross_entropy = torch.where(available, per_sample, 0).sum() / available.sum().clamp(min=1)

    overlap = torch.stack([(own * mask).sum(dim=1) for mask in is_category], dim=1)
    total = probabilities.sum(dim=2) + counts
    overlap, total = (torch.where(available[:, None], sums, 0).sum(dim=0) for sums in (overlap, total))
    dice = 1 - (2 * overlap / (total + _DICE_SMOOTHING)).mean()
    return SegmentationLoss(cross_entropy, torch.where(available.any(), dice, 0))
