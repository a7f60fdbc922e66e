"""The supervised loss as one would write it in plain PyTorch, with one-hot labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

_CLAMP = 0.005
_SMOOTHING = 1e-7


def eager_segmentation_loss(
    input: Tensor,  # noqa: A002  (the name that the fused loss gives it)
    labels: Tensor,
    *,
    input_kind: Literal["logits", "probabilities"] = "logits",
) -> Tensor:
    """Class-weighted cross-entropy plus soft Dice.

    Source: the training code of RFNet (Ding et al., ICCV 2021), rewritten.

    Args:
        input: `[B, C, *spatial]`; computed in float32.
        labels: category of every voxel, `[B, *spatial]`, an integer dtype.
        input_kind: whether `input` still has to go through the softmax.

    Returns:
        Their sum, a float32 scalar.
    """
    predicted = input.float()
    if input_kind == "logits":
        predicted = predicted.softmax(dim=1)
    wanted = functional.one_hot(labels.long(), predicted.shape[1]).movedim(-1, 1).to(predicted.dtype)
    space = tuple(range(2, predicted.dim()))
    share = wanted.mean(dim=space, keepdim=True)
    per_voxel = torch.sum((1 - share) * wanted * predicted.clamp(_CLAMP, 1).log(), dim=1)
    overlap = torch.sum(predicted * wanted, dim=(0, *space))
    extent = torch.sum(predicted, dim=(0, *space)) + torch.sum(wanted, dim=(0, *space))
    return 1 - torch.mean(2 * overlap / (extent + _SMOOTHING)) - per_voxel.mean()
