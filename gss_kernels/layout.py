"""How the kernels address volumes: M tensors `[B, C, N]` of one set of strides."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from gss_kernels.tensors import GroupLogits


class Layout(NamedTuple):
    """Of M tensors `[B, C, *spatial]` whose spatial axes act as one."""

    shape: tuple[int, int, int]  # B, M, C
    num_voxels: int  # N
    strides: tuple[int, int, int]  # of batch, category and voxel, in elements, common to all tensors


def layout_of(logits: GroupLogits) -> Layout | None:
    """The layout by which the kernels can address the logits; None if there is none.

    Addressable are tensors of any memory format, channels last included, and slices of larger tensors, as long as the
    modalities share their strides and the spatial axes join into one.
    """
    forms = tuple((tensor.shape, tensor.stride()) for tensor in logits.tensors)
    try:
        return _remembered(forms, logits.stacked)
    except TypeError:  # symbols of torch.compile cannot be looked up
        return _find_layout(forms, logits.stacked)


def _find_layout(forms: tuple[tuple[torch.Size, tuple[int, ...]], ...], stacked: bool) -> Layout | None:
    found = {_volume_strides(shape, strides, stacked) for shape, strides in forms}
    strides = found.pop()
    if found or strides is None:
        return None
    shape = forms[0][0]
    B, M, C = (shape[0], shape[1], shape[2]) if stacked else (shape[0], len(forms), shape[1])
    return Layout((B, M, C), math.prod(shape[3 if stacked else 2 :]), strides)


_remembered = functools.lru_cache(maxsize=1024)(_find_layout)


def addressed(logits: GroupLogits) -> tuple[GroupLogits, Layout]:
    """The logits, copied if the kernels cannot address them as they are, and their layout."""
    layout = layout_of(logits)
    return (logits, layout) if layout is not None else addressed(_map(logits, Tensor.contiguous))


def empty_gradients(logits: GroupLogits) -> tuple[GroupLogits, Layout]:
    """Uninitialised tensors for the gradients of addressed logits, in their memory format if it can be addressed."""
    gradients = _map(logits, torch.empty_like)
    if layout := layout_of(gradients):
        return gradients, layout
    return addressed(_map(logits, functools.partial(torch.empty_like, memory_format=torch.contiguous_format)))


def _map(logits: GroupLogits, function: Callable[[Tensor], Tensor]) -> GroupLogits:
    return GroupLogits(tuple(map(function, logits.tensors)), logits.stacked)


def _volume_strides(shape: tuple[int, ...], strides: tuple[int, ...], stacked: bool) -> tuple[int, int, int] | None:
    """Strides of `[B, C, *spatial]`, or of that with a second axis of modalities, seen as `[B, C, N]`."""
    first = 3 if stacked else 2
    voxel_stride: int | None = None
    next_stride = 0
    for size, stride in zip(reversed(shape[first:]), reversed(strides[first:]), strict=True):
        if size == 1:
            continue
        if voxel_stride is None:
            voxel_stride = stride
        elif stride != next_stride:
            return None
        next_stride = stride * size
    return strides[0], strides[first - 1], 1 if voxel_stride is None else voxel_stride
