"""Convolutions of large odd kernels from and to a single channel.

Convolution libraries work in blocks of channels, which a single one leaves empty. Here the taps along the depth take
the place of channels, and what is left is convolved plane by plane.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def convolve_from_single_channel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution of a single channel with reflection padding.

    Args:
        x: `[B, 1, D, H, W]`, axes longer than half the kernel.
        weight: `[channels, 1, k, k, k]`, k odd.
        bias: `[channels]`.

    Returns:
        `[B, channels, D, H, W]`.
    """
    taps = weight.shape[-1]
    padded = functional.pad(x, (taps // 2,) * 6, mode="reflect")[:, 0]
    planes = padded.unfold(1, taps, 1).permute(0, 1, 4, 2, 3).flatten(0, 1)
    convolved = functional.conv2d(planes.contiguous(memory_format=torch.channels_last), weight[:, 0], bias)
    return convolved.reshape(len(x), -1, *convolved.shape[1:]).transpose(1, 2)


def convolve_to_single_channel(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution to a single channel with reflection padding.

    Args:
        x: `[B, channels, D, H, W]`, axes longer than half the kernel.
        weight: `[1, channels, k, k, k]`, k odd.
        bias: `[1]`.

    Returns:
        `[B, 1, D, H, W]`.
    """
    taps, depth = weight.shape[-1], x.shape[2]
    padded = functional.pad(x, (taps // 2,) * 6, mode="reflect")
    per_tap = functional.conv3d(padded, weight[0].transpose(0, 1)[:, :, None])
    result = bias.to(per_tap.dtype)
    for tap in range(taps):
        result = result + per_tap[:, tap : tap + 1, tap : tap + depth]
    return result
