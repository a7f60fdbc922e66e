"""Class-weighted cross-entropy and soft Dice as a reader of the formulas would write them: plain, differentiable, slow.

Source: the training code of RFNet (Ding et al., ICCV 2021). Symbols in the code: o probabilities, y labels (one-hot),
B samples, C categories, N voxels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gss_kernels.segmentation.call import SegmentationCall
from gss_kernels.settings import DICE_SMOOTHING, LOWEST_PROBABILITY
from gss_kernels.tensors import compute_dtype_of


def loss(prediction: Tensor, labels: Tensor, call: SegmentationCall, available: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross-entropy and soft Dice, 0-dim; NaN if a voxel that counts has a label that is no category."""
    labels = labels.flatten(1)
    counted = torch.ones_like(labels, dtype=torch.bool)
    if available is not None:
        counted = counted & available[:, None]
    if call.ignore_index is not None:
        counted = counted & (labels.long() != call.ignore_index)
    row = counted[:, None]
    # Selections, not products: where it does not count, a voxel may hold anything, NaN included.
    o = torch.where(row, prediction.to(compute_dtype_of(prediction)).flatten(2), 0)
    if call.from_logits:
        o = torch.where(row, o.softmax(dim=1), 0)
    categories = torch.arange(o.shape[1], device=o.device)
    y = row & (labels[:, None] == categories[:, None])

    cross_entropy = _cross_entropy(o, y, counted)
    dice = torch.where(counted.any(), _soft_dice(o, y), 0)

    no_category = counted & ~y.any(dim=1)
    # A factor, so that the gradient is NaN too.
    validity = torch.where(no_category.any(), math.nan, 1.0).to(o.dtype)
    return validity * cross_entropy, validity * dice


def _cross_entropy(o: Tensor, y: Tensor, counted: Tensor) -> Tensor:
    """Mean over the voxels that count; 0 without any."""
    N = counted.sum(dim=1).clamp(min=1)[:, None, None]
    weight = 1 - y.sum(dim=2, keepdim=True).to(o.dtype) / N
    log_o = o.clamp(LOWEST_PROBABILITY, 1).log()
    return -torch.where(y, weight * log_o, 0).sum() / counted.sum().clamp(min=1)


def _soft_dice(o: Tensor, y: Tensor) -> Tensor:
    """One minus the mean over the categories of the soft overlap, with sums over the whole batch."""
    overlap = torch.where(y, o, 0).sum(dim=(0, 2))
    total = o.sum(dim=(0, 2)) + y.sum(dim=(0, 2))
    return 1 - (2 * overlap / (total + DICE_SMOOTHING)).mean()
