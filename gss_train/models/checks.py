"""Checks of what networks are given."""

from __future__ import annotations

import torch
from torch import Tensor

from gss_train.common import check_axes

NUM_MODALITIES = 4


def check_scans(x: Tensor, *, stride: int, least: int) -> None:
    """Raise a `ValueError` unless x is `[B, 4, D, H, W]` with axes that `check_axes` lets pass."""
    if x.dim() != 5 or x.shape[1] != NUM_MODALITIES:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be [B, {NUM_MODALITIES}, D, H, W]")
    check_axes("x", tuple(x.shape[2:]), stride=stride, least=least)


def check_modality_mask(argument: str, mask: Tensor, batch: Tensor) -> None:
    """Raise a `ValueError` that names the argument unless the mask is `[B, 4]` bool for this batch."""
    if mask.dtype != torch.bool or mask.shape != (len(batch), NUM_MODALITIES):
        raise ValueError(
            f"{argument} is {mask.dtype} of shape {tuple(mask.shape)}; "
            f"it must be torch.bool of shape {(len(batch), NUM_MODALITIES)}"
        )


def hide_unavailable(x: Tensor, available: Tensor | None) -> Tensor:
    """Scans `[B, 4, D, H, W]` with zeros, whatever they held, where `available`, `[B, 4]` bool, says there is none.

    Raises:
        ValueError: if `available` has a wrong shape or is not boolean.
    """
    if available is None:
        return x
    check_modality_mask("available", available, x)
    return torch.where(available[:, :, None, None, None], x, torch.zeros((), dtype=x.dtype, device=x.device))
