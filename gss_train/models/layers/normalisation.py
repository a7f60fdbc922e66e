"""Instance normalisation followed by a leaky rectifier, at the memory of one tensor."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-5
NEGATIVE_SLOPE = 0.2
_ELEMENTS_OF_PIECE = 2**19


def normalise(x: Tensor, scale: Tensor | None, shift: Tensor | None, epsilon: float) -> tuple[Tensor, Tensor]:
    """Instance normalisation without a gradient of its own.

    Args:
        x: `[B, channels, *spatial]`, more than one voxel.
        scale: `[channels]`; None: 1.
        shift: `[channels]`; None: 0.
        epsilon: added to the variance.

    Returns:
        The normalised tensor, and the inverse deviations `[B, channels]`.
    """
    batch, channels = x.shape[:2]
    normalised, _, inverse_deviation = torch.native_group_norm(
        x.contiguous(), scale, shift, batch, channels, x[0, 0].numel(), channels, epsilon
    )
    return normalised, inverse_deviation


def normalise_backward(
    gradient: Tensor, normalised: Tensor, inverse_deviation: Tensor, scale: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the input, scale and shift of `normalise`; the latter two are meaningless without a scale.

    PyTorch's formula subtracts numbers that nearly cancel where a mean is large against its deviation. It is given the
    normalised tensor, whose mean is 0 and whose deviation is 1: that is the gradient up to the deviation of the input.

    Args:
        gradient: of the result, contiguous.
        normalised: the result for scale 1 and shift 0.
        inverse_deviation: as `normalise` returned it.
        scale: `[channels]`, or None.
    """
    batch, channels = normalised.shape[:2]
    to_x, to_scale, to_shift = torch.ops.aten.native_group_norm_backward(
        gradient,
        normalised,
        torch.zeros_like(inverse_deviation),
        torch.ones_like(inverse_deviation),
        scale,
        batch,
        channels,
        normalised[0, 0].numel(),
        channels,
        [True, scale is not None, scale is not None],
    )
    return to_x.mul_(inverse_deviation.view(batch, channels, *[1] * (normalised.dim() - 2))), to_scale, to_shift


class _NormaliseActivate(torch.autograd.Function):
    """Keeps the result alone: the rectifier is invertible, so its input comes back from its output.

    The idea is that of in-place activated batch normalisation (Rota Bulò et al., CVPR 2018). The next convolution
    keeps that same tensor for its own backward pass, so that the step here adds nothing voxel-sized.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        normalised, inverse_deviation = normalise(x, None, None, EPSILON)
        activated = torch.nn.functional.leaky_relu_(normalised, NEGATIVE_SLOPE)
        ctx.save_for_backward(activated, inverse_deviation)
        return activated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        activated, inverse_deviation = ctx.saved_tensors
        rows = activated.flatten(0, 1).flatten(1)
        gradient_rows = gradient.contiguous().view_as(rows)
        if rows.device.type != "cpu" or torch.compiler.is_compiling():
            return _gradient_of_rows(gradient_rows, rows, inverse_deviation.flatten()).view_as(activated)
        # Piece by piece, what is in between stays in the cache, and no large memory is asked of the system for it.
        result = torch.empty_like(rows)
        count = max(_ELEMENTS_OF_PIECE // rows.shape[1], torch.get_num_threads())
        pieces = (tensor.split(count) for tensor in (result, gradient_rows, rows, inverse_deviation.flatten()))
        for result_piece, *piece in zip(*pieces, strict=True):
            result_piece.copy_(_gradient_of_rows(*piece))
        return result.view_as(activated)


def _gradient_of_rows(gradient: Tensor, activated: Tensor, inverse_deviation: Tensor) -> Tensor:
    """The backward pass for rows `[N, voxels]` that are normalised each by itself; `inverse_deviation` is `[N]`."""
    normalised = torch.nn.functional.leaky_relu(activated, 1 / NEGATIVE_SLOPE)
    gradient = torch.ops.aten.leaky_relu_backward(gradient, activated, NEGATIVE_SLOPE, True)
    to_x, _, _ = normalise_backward(gradient[None], normalised[None], inverse_deviation[None], None)
    return to_x[0]


def normalise_activate(x: Tensor) -> Tensor:
    """Instance normalisation (no affine parameters, epsilon 1e-5) and a leaky rectifier of slope 0.2.

    Args:
        x: `[B, channels, *spatial]`, floating point, more than one voxel.

    Returns:
        A tensor of x's shape and dtype; statistics are taken in float32 (float64 for float64). Differentiable once.
    """
    return cast("Tensor", _NormaliseActivate.apply(x))  # type: ignore[no-untyped-call]
