"""Convolutions followed by affine instance normalisation and a leaky rectifier."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from gss_train.models.layers.normalisation import normalise, normalise_backward

EPSILON = 1e-6
NEGATIVE_SLOPE = 0.2


class NormalisedConvolution(nn.Module):
    """A convolution, affine instance normalisation (epsilon 1e-6), leaky rectifier of slope 0.2.

    Args:
        convolution: what precedes the normalisation; it may take several tensors.
    """

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.convolution = convolution
        self.scale = nn.Parameter(torch.ones(convolution.out_channels))
        self.shift = nn.Parameter(torch.zeros(convolution.out_channels))

    def forward(self, *tensors: Tensor) -> Tensor:
        """Apply to what the convolution takes; its result's shape."""
        return normalise_scale_activate(self.convolution(*tensors), self.scale, self.shift)


def normalise_scale_activate(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Affine instance normalisation (epsilon 1e-6) and a leaky rectifier of slope 0.2.

    Beside the result, which the next convolution keeps as well, the backward pass keeps one tensor of x's size.

    Args:
        x: `[B, channels, *spatial]`, floating point, more than one voxel.
        scale: `[channels]`.
        shift: `[channels]`.

    Returns:
        A tensor of x's shape and dtype; statistics are taken in float32 (float64 for float64). Differentiable once.
    """
    arguments = (x, scale.to(x.dtype), shift.to(x.dtype))
    return cast("Tensor", _NormaliseScaleActivate.apply(*arguments))  # type: ignore[no-untyped-call]


class _NormaliseScaleActivate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        normalised, inverse_deviation = normalise(x, None, None, EPSILON)
        shape = (x.shape[1], *[1] * (x.dim() - 2))
        activated = functional.leaky_relu_(
            torch.addcmul(shift.view(shape), scale.view(shape), normalised), NEGATIVE_SLOPE
        )
        ctx.save_for_backward(normalised, activated, inverse_deviation, scale)
        return activated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normalised, activated, inverse_deviation, scale = ctx.saved_tensors
        gradient = torch.ops.aten.leaky_relu_backward(gradient.contiguous(), activated, NEGATIVE_SLOPE, True)
        return normalise_backward(gradient, normalised, inverse_deviation, scale)
