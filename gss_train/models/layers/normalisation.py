"""Instance normalisation followed by a leaky rectifier, at the memory of one tensor."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

EPSILON = 1e-5
NEGATIVE_SLOPE = 0.2
_ELEMENTS_OF_PIECE = 2**19


class _NormaliseActivate(torch.autograd.Function):
    """Keeps the result alone: the rectifier is invertible, so its input comes back from its output.

    The idea is that of in-place activated batch normalisation (Rota Bulò et al., CVPR 2018). The next convolution
    keeps that same tensor for its own backward pass, so that the step here adds nothing voxel-sized.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        batch, channels = x.shape[:2]
        voxels = x[0, 0].numel()
        normalised, _, inverse_deviation = torch.native_group_norm(
            x.contiguous(), None, None, batch, channels, voxels, channels, EPSILON
        )
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
    count, voxels = activated.shape
    normalised = torch.nn.functional.leaky_relu(activated, 1 / NEGATIVE_SLOPE)
    gradient = torch.ops.aten.leaky_relu_backward(gradient, activated, NEGATIVE_SLOPE, True)
    # With the normalised rows as input, mean 0 and deviation 1, this is the gradient up to the deviation of x.
    gradient, _, _ = torch.ops.aten.native_group_norm_backward(
        gradient[None],
        normalised[None],
        inverse_deviation.new_zeros(1, count),
        inverse_deviation.new_ones(1, count),
        None,
        1,
        count,
        voxels,
        count,
        [True, False, False],
    )
    return gradient[0].mul_(inverse_deviation[:, None])


def normalise_activate(x: Tensor) -> Tensor:
    """Instance normalisation (no affine parameters, epsilon 1e-5) and a leaky rectifier of slope 0.2.

    Args:
        x: `[B, channels, *spatial]`, floating point, more than one voxel.

    Returns:
        A tensor of x's shape and dtype; statistics are taken in float32 (float64 for float64). Differentiable once.
    """
    return cast("Tensor", _NormaliseActivate.apply(x))  # type: ignore[no-untyped-call]
