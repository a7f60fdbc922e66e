"""Convolving a single sample as a batch of slabs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable


def convolve_slabs(convolve: Callable[[Tensor], Tensor], padded: Tensor) -> Tensor:
    """Apply a 3x3x3 convolution of stride 1 to one padded sample, cut along its depth into overlapping slabs.

    PyTorch's CPU convolution leaves oneDNN for a path several times slower when the batch is 1 and the tensor small
    (`batch * channels * D * H <= 20480`). The slabs are a batch of two or more, so they stay on oneDNN.

    Args:
        convolve: maps `[B, in_channels, D + 2, H + 2, W + 2]` to `[B, out_channels, D, H, W]`.
        padded: `[1, in_channels, D + 2, H + 2, W + 2]`, D at least 2.

    Returns:
        `convolve(padded)`, `[1, out_channels, D, H, W]`.
    """
    depth = padded.shape[2] - 2
    count = next(divisor for divisor in range(2, depth + 1) if depth % divisor == 0)
    slabs = padded[0].unfold(1, depth // count + 2, depth // count)
    convolved = convolve(slabs.permute(1, 0, 4, 2, 3))
    return convolved.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None]
