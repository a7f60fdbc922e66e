"""Checks of what networks are given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gss_train.common import Triple, to_triple

NUM_MODALITIES = 4


def check_crop_size(argument: str, size: int | Sequence[int], *, stride: int, least: int) -> Triple:
    """The three axes of a crop, given as one number or three.

    Raises:
        ValueError: unless each is a multiple of `stride` and at least `least`; it names the argument.
    """
    try:
        axes = to_triple(size)
    except ValueError as error:
        raise ValueError(f"{argument}: {error}") from error
    _check_axes(argument, axes, stride, least)
    return axes


def check_scans(x: Tensor, *, stride: int, least: int) -> None:
    """Raise a `ValueError` unless x is `[B, 4, D, H, W]` with axes as in `check_crop_size`."""
    if x.dim() != 5 or x.shape[1] != NUM_MODALITIES:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be [B, {NUM_MODALITIES}, D, H, W]")
    _check_axes("x", tuple(x.shape[2:]), stride, least)


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


def _check_axes(argument: str, axes: tuple[int, ...], stride: int, least: int) -> None:
    if any(axis % stride or axis < least for axis in axes):
        raise ValueError(
            f"{argument} has spatial size {axes}; each axis must be a multiple of {stride} and at least {least}"
        )
