"""Instance normalisation, leaky rectifier and 3x3x3 convolution in one step, at the memory of its input."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gss_train.models.layers.normalisation import normalise, normalise_backward
from gss_train.models.layers.slabs import LARGEST_SLOW_INPUT, cut_into_slabs

EPSILON = 1e-6
NEGATIVE_SLOPE = 0.01


def new_weight(out_channels: int, *shape: int) -> nn.Parameter:
    """A weight `[out_channels, *shape]` from a normal distribution of deviation `sqrt(2 / fan_in)`, cut at two."""
    deviation = math.sqrt(2 / math.prod(shape))
    return nn.Parameter(
        nn.init.trunc_normal_(torch.empty(out_channels, *shape), std=deviation, a=-2 * deviation, b=2 * deviation)
    )


class PreNormalisedConvolution(nn.Module):
    """Affine instance normalisation (epsilon 1e-6), leaky rectifier of slope 0.01, 3x3x3 convolution padded with zeros.

    The backward pass computes the rectifier's output again, so that of the whole step only its input is kept. The
    convolution has no bias.

    Args:
        in_channels: channels of the input, all groups together.
        out_channels: channels of the output, all groups together.
        groups: number of channel groups convolved apart, for instance the modalities of an encoder.
    """

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 1) -> None:
        super().__init__()
        self.groups = groups
        self.scale = nn.Parameter(torch.ones(in_channels))
        self.shift = nn.Parameter(torch.zeros(in_channels))
        self.weight = new_weight(out_channels, in_channels // groups, 3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, in_channels, D, H, W]` to `[B, out_channels, D, H, W]`; differentiable once.

        Under autocast everything is in its dtype, but the statistics, which are float32.
        """
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        tensors = (tensor.to(dtype) for tensor in (x, self.scale, self.shift, self.weight))
        return cast("Tensor", _NormaliseActivateConvolve.apply(*tensors, self.groups))  # type: ignore[no-untyped-call]


class _NormaliseActivateConvolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, groups: int) -> Tensor:
        x = x.contiguous()
        ctx.save_for_backward(x, scale, shift, weight)
        ctx.groups = groups
        return _convolve(_normalise_activate(x, scale, shift), weight, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, weight = ctx.saved_tensors
        activated = _normalise_activate(x, scale, shift)
        to_activated, to_weight = _convolve_backward(gradient, activated, weight, ctx.groups)
        to_affine = torch.ops.aten.leaky_relu_backward(to_activated.contiguous(), activated, NEGATIVE_SLOPE, True)
        del activated, to_activated
        normalised, inverse_deviation = normalise(x, None, None, EPSILON)
        return *normalise_backward(to_affine, normalised, inverse_deviation, scale), to_weight, None


def _normalise_activate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    normalised, _ = normalise(x, scale, shift, EPSILON)
    return functional.leaky_relu_(normalised, NEGATIVE_SLOPE)


def _convolve(activated: Tensor, weight: Tensor, groups: int) -> Tensor:
    if activated.device.type != "cpu":
        return functional.conv3d(activated, weight, padding=1, groups=groups)
    if _needs_slabs(activated, groups):
        slabs = functional.conv3d(_overlapping_slabs(activated), weight, padding=(0, 1, 1))
        return slabs.transpose(0, 1).flatten(1, 2)[None].contiguous()
    return functional.conv3d(_channels_last(activated), weight, padding=1, groups=groups).contiguous()


def _convolve_backward(gradient: Tensor, activated: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Gradients of the convolution's input and weight."""
    if activated.device.type != "cpu":
        return _standard_backward(gradient, activated, weight, 1, groups)
    if activated.shape[2] == 2 and activated.dtype.itemsize == 2:
        # oneDNN's weight gradient in bfloat16 reads memory that nobody wrote where the padded axis has two slices.
        to_activated, to_weight = _standard_backward(gradient.float(), activated.float(), weight.float(), 1, groups)
        return to_activated.to(activated.dtype), to_weight.to(weight.dtype)
    if not _needs_slabs(activated, groups):
        return _standard_backward(_channels_last(gradient), _channels_last(activated), weight, 1, groups)
    slabs = _overlapping_slabs(activated)
    thickness = slabs.shape[2] - 2
    gradient_slabs = gradient.reshape(len(weight), len(slabs), thickness, *gradient.shape[3:]).transpose(0, 1)
    to_slabs, to_weight = _standard_backward(_channels_last(gradient_slabs), slabs, weight, 0, 1)
    channels, depth, height, width = activated.shape[1:]
    padded = gradient.new_zeros((channels, depth + 2, height, width))
    for index, slab in enumerate(to_slabs):
        padded[:, index * thickness : (index + 1) * thickness + 2] += slab
    return padded[None, :, 1:-1], to_weight


def _standard_backward(
    gradient: Tensor, activated: Tensor, weight: Tensor, depth_padding: int, groups: int
) -> tuple[Tensor, Tensor]:
    to_activated, to_weight, _ = torch.ops.aten.convolution_backward(
        gradient,
        activated,
        weight,
        None,
        [1, 1, 1],
        [depth_padding, 1, 1],
        [1, 1, 1],
        False,
        [0, 0, 0],
        groups,
        [True, True, False],
    )
    return to_activated, to_weight


def _channels_last(tensor: Tensor) -> Tensor:
    # oneDNN is about twice as fast in this layout with few channels, with and without groups.
    return tensor.contiguous(memory_format=torch.channels_last_3d)


def _needs_slabs(activated: Tensor, groups: int) -> bool:
    """Whether PyTorch would leave oneDNN for a slower path unless the one sample became a batch of slabs."""
    batch, channels, depth, height, _ = activated.shape
    return batch == groups == 1 and channels * depth * height <= LARGEST_SLOW_INPUT and depth > 1


def _overlapping_slabs(activated: Tensor) -> Tensor:
    """One sample cut along its zero-padded depth, `[slabs, channels, D / slabs + 2, H, W]`."""
    return _channels_last(cut_into_slabs(functional.pad(activated, (0, 0, 0, 0, 1, 1))))
