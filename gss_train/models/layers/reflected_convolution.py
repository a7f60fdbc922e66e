"""3x3x3 convolution with reflection padding that keeps its unpadded input for the backward pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gss_train.models.layers.padding import reflect_and_concatenate
from gss_train.models.layers.slabs import convolve_slabs

if TYPE_CHECKING:
    from collections.abc import Sequence

_LARGEST_SLOW_INPUT = 20480  # of batch * channels * D * H; see `convolve_slabs`
_SPATIAL_AXES = (2, 3, 4)
_INTERIOR = (..., slice(1, -1), slice(1, -1), slice(1, -1))


class _ReflectedConvolution(torch.autograd.Function):
    """Keeps its inputs as they come and pads them once more in the backward pass.

    Where the inputs are what `normalise_activate` returned, which keeps that too, nothing voxel-sized is added.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, stride: int, groups: int, *tensors: Tensor) -> Tensor:
        ctx.stride, ctx.groups = stride, groups
        ctx.save_for_backward(weight, *tensors)
        return functional.conv3d(_pad(tensors, stride, groups), weight, bias, stride, groups=groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        weight, *tensors = ctx.saved_tensors
        of_weight_wanted, of_bias_wanted, _, _, *of_tensors_wanted = ctx.needs_input_grad
        of_padded, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient,
            _pad(tensors, ctx.stride, ctx.groups),
            weight,
            [len(weight)],
            [ctx.stride] * 3,
            [0] * 3,
            [1] * 3,
            False,
            [0] * 3,
            ctx.groups,
            [any(of_tensors_wanted), of_weight_wanted, of_bias_wanted],
        )
        if not any(of_tensors_wanted):
            return (of_weight, of_bias, None, None, *[None] * len(tensors))
        parts = torch.split(_fold(of_padded), [tensor.shape[1] for tensor in tensors], dim=1)
        return (of_weight, of_bias, None, None, *(part.contiguous() for part in parts))


def _pad(tensors: Sequence[Tensor], stride: int, groups: int) -> Tensor:
    """Concatenate along the channels and pad by one voxel."""
    if torch.compiler.is_compiling():  # one operation, faster to trace than the copies below and free to be fused
        return functional.pad(torch.cat(list(tensors), dim=1), (1,) * 6, mode="reflect")
    first = tensors[0]
    channels = [tensor.shape[1] for tensor in tensors]
    # oneDNN is faster in channels-last, above all with few channels; with groups it is slower. Tensor cores take 16-bit
    # voxels no other way: cuDNN would copy.
    is_suited = stride == 1 if first.device.type == "cpu" else first.element_size() == 2
    channels_last = is_suited and groups == 1
    padded = torch.empty(
        (len(first), sum(channels), *(length + 2 for length in first.shape[2:])),
        dtype=first.dtype,
        device=first.device,
        memory_format=torch.channels_last_3d if channels_last else torch.contiguous_format,
    )
    for part, tensor in zip(torch.split(padded[_INTERIOR], channels, dim=1), tensors, strict=True):
        part.copy_(tensor)
    for axis in _SPATIAL_AXES:  # each takes the borders before it along, so that edges and corners come right
        padded.select(axis, 0).copy_(padded.select(axis, 2))
        padded.select(axis, -1).copy_(padded.select(axis, -3))
    return padded


def _fold(gradient: Tensor) -> Tensor:
    """Gradient of the unpadded tensor from that of the padded one, which is used up."""
    if torch.compiler.is_compiling():
        interior = torch.empty_like(gradient[_INTERIOR])
        return cast("Tensor", torch.ops.aten.reflection_pad3d_backward(gradient, interior, [1] * 6))
    for axis in reversed(_SPATIAL_AXES):
        gradient.select(axis, 2).add_(gradient.select(axis, 0))
        gradient.select(axis, -3).add_(gradient.select(axis, -1))
    return gradient[_INTERIOR]


class ReflectedConvolution(nn.Conv3d):
    """3x3x3 convolution with reflection padding.

    Args:
        in_channels: channels of the input, all groups together.
        out_channels: channels of the output, all groups together.
        stride: 2 halves an even axis.
        groups: number of channel groups convolved apart, for instance the modalities of an encoder.
    """

    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, 3, stride=stride, groups=groups)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Convolve tensors `[B, channels, D, H, W]`, concatenated along the channels; axes of two voxels or more.

        Returns:
            `[B, out_channels, D / stride, H / stride, W / stride]`. Differentiable once.
        """
        if self._is_slow(tensors[0]):
            padded = reflect_and_concatenate(*tensors, memory_format=torch.channels_last_3d)
            return convolve_slabs(super().forward, padded)
        weight, bias, *inputs = _cast_for_autocast(self.weight, self.bias, *tensors)
        result = _ReflectedConvolution.apply(weight, bias, self.stride[0], self.groups, *inputs)  # type: ignore[no-untyped-call]
        return cast("Tensor", result)

    def _is_slow(self, x: Tensor) -> bool:
        """Whether PyTorch's CPU convolution would leave oneDNN, at a size at which a kept padded copy is no matter."""
        batch, _, depth, height, _ = x.shape
        return (
            x.device.type == "cpu"
            and batch == self.stride[0] == self.groups == 1
            and self.in_channels * (depth + 2) * (height + 2) <= _LARGEST_SLOW_INPUT
        )


def _cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What autocast does to a convolution's arguments, which it does not do to those of a custom function."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device) or tensors[0].dtype == torch.float64:
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)
