"""Convolving a single sample as a batch of slabs.

PyTorch's CPU convolution leaves oneDNN for a path several times slower when the batch is 1 and the tensor small
(`channels * D * H <= 20480`). Slabs are a batch of two or more, so they stay on oneDNN.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

LARGEST_SLOW_INPUT = 20480  # of channels * D * H


def cut_into_slabs(padded: Tensor) -> Tensor:
    """Cut one padded sample along its depth into slabs of equal depth, as few as can be, that overlap by two voxels.

    Args:
        padded: `[1, channels, D + 2, H, W]`, D at least 2.

    Returns:
        A view `[slabs, channels, D / slabs + 2, H, W]`.
    """
    depth = padded.shape[2] - 2
    count = next(divisor for divisor in range(2, depth + 1) if depth % divisor == 0)
    return padded[0].unfold(1, depth // count + 2, depth // count).permute(1, 0, 4, 2, 3)


def convolve_slabs(convolve: Callable[[Tensor], Tensor], padded: Tensor) -> Tensor:
    """Apply a 3x3x3 convolution of stride 1 to one padded sample as a batch of slabs.

    Args:
        convolve: maps `[B, in_channels, D + 2, H + 2, W + 2]` to `[B, out_channels, D, H, W]`.
        padded: `[1, in_channels, D + 2, H + 2, W + 2]`, D at least 2.

    Returns:
        `convolve(padded)`, `[1, out_channels, D, H, W]`.
    """
    convolved = convolve(cut_into_slabs(padded))
    return convolved.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None]
