"""Reflection padding by one voxel that concatenates and changes the memory layout in the same copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_SPATIAL_AXES = (2, 3, 4)
_INTERIOR = (..., slice(1, -1), slice(1, -1), slice(1, -1))


class _ReflectAndConcatenate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, memory_format: torch.memory_format, *tensors: Tensor) -> Tensor:
        ctx.channels = [tensor.shape[1] for tensor in tensors]
        return reflect(tensors, memory_format)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        # What comes in may be somebody else's as well.
        return (None, *(part.contiguous() for part in torch.split(fold(gradient.clone()), ctx.channels, dim=1)))


def reflect_and_concatenate(*tensors: Tensor, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Concatenate along the channels and pad every spatial axis by one voxel, by reflection without the border.

    Args:
        *tensors: each `[B, channels, D, H, W]`, of one dtype; axes of two voxels or more.
        memory_format: of the result; a compiler picks its own.

    Returns:
        `[B, sum of channels, D + 2, H + 2, W + 2]`. Differentiable once.
    """
    if torch.compiler.is_compiling():
        return reflect(tensors, memory_format)
    return cast("Tensor", _ReflectAndConcatenate.apply(memory_format, *tensors))  # type: ignore[no-untyped-call]


def reflect(tensors: Sequence[Tensor], memory_format: torch.memory_format) -> Tensor:
    """`reflect_and_concatenate` without a gradient."""
    if torch.compiler.is_compiling():  # one operation, faster to trace than the copies below and free to be fused
        return functional.pad(torch.cat(list(tensors), dim=1), (1,) * 6, mode="reflect")
    first = tensors[0]
    channels = [tensor.shape[1] for tensor in tensors]
    padded = torch.empty(
        (len(first), sum(channels), *(length + 2 for length in first.shape[2:])),
        dtype=first.dtype,
        device=first.device,
        memory_format=memory_format,
    )
    for part, tensor in zip(torch.split(padded[_INTERIOR], channels, dim=1), tensors, strict=True):
        part.copy_(tensor)
    for axis in _SPATIAL_AXES:  # each takes the borders before it along, so that edges and corners come right
        padded.select(axis, 0).copy_(padded.select(axis, 2))
        padded.select(axis, -1).copy_(padded.select(axis, -3))
    return padded


def fold(gradient: Tensor) -> Tensor:
    """Gradient of the unpadded tensor from that of the padded one, which is used up: a view of it, unless compiled."""
    if torch.compiler.is_compiling():
        interior = torch.empty_like(gradient[_INTERIOR])
        return cast("Tensor", torch.ops.aten.reflection_pad3d_backward(gradient, interior, [1] * 6))
    for axis in reversed(_SPATIAL_AXES):
        gradient.select(axis, 2).add_(gradient.select(axis, 0))
        gradient.select(axis, -3).add_(gradient.select(axis, -1))
    return gradient[_INTERIOR]
