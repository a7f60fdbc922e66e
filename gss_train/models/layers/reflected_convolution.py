"""3x3x3 convolution with reflection padding that keeps its unpadded input for the backward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gss_train.models.layers.padding import fold, reflect, reflect_and_concatenate
from gss_train.models.layers.slabs import LARGEST_SLOW_INPUT, convolve_slabs


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
        parts = torch.split(fold(of_padded), [tensor.shape[1] for tensor in tensors], dim=1)
        return (of_weight, of_bias, None, None, *(part.contiguous() for part in parts))


def _pad(tensors: Sequence[Tensor], stride: int, groups: int) -> Tensor:
    """Concatenate along the channels and pad by one voxel, in the layout that the convolution is fastest in."""
    # oneDNN is faster in channels-last, above all with few channels; with groups it is slower. Tensor cores take 16-bit
    # voxels no other way: cuDNN would copy.
    first = tensors[0]
    is_suited = stride == 1 if first.device.type == "cpu" else first.element_size() == 2
    return reflect(tensors, torch.channels_last_3d if is_suited and groups == 1 else torch.contiguous_format)


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
            and self.in_channels * (depth + 2) * (height + 2) <= LARGEST_SLOW_INPUT
        )


def _cast_for_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """What autocast does to a convolution's arguments, which it does not do to those of a custom function."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device) or tensors[0].dtype == torch.float64:
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)
