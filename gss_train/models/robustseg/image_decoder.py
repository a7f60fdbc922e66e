"""The style of a scan, and the scan back from the content of all and the style of its own.

Parts of RobustSeg (Chen et al., MICCAI 2019, arXiv 2002.09708) after the authors' TensorFlow code.
"""

from __future__ import annotations

from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gss_train.models.layers.reflected_convolution import ReflectedConvolution
from gss_train.models.layers.single_channel_convolution import convolve_from_single_channel, convolve_to_single_channel
from gss_train.models.layers.upsampled_convolution import UpsampledConvolution

STYLE_SIZE = 8
HEAD_TAPS = 7
_NUM_BLOCKS = 4
_INSTANCE_EPSILON = 1e-5
_LAYER_EPSILON = 1e-12  # that of TensorFlow's layer normalisation


class StyleEncoder(nn.Module):
    """Encodes the style of one modality's scan.

    Args:
        width: channels of one modality's content at the finest level.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        self.enter = nn.Conv3d(1, channels[0], HEAD_TAPS)
        self.levels = nn.ModuleList(nn.Conv3d(before, after, 4, stride=2) for before, after in pairwise(channels))
        self.leave = nn.Conv3d(channels[-1], STYLE_SIZE, 1)

    def forward(self, scan: Tensor) -> Tensor:
        """Map `[B, 1, D, H, W]`, axes of 16 voxels or more, to `[B, 8]`."""
        bias = cast("Tensor", self.enter.bias)
        x = functional.relu_(convolve_from_single_channel(scan, self.enter.weight, bias))
        for level in self.levels:
            x = functional.relu_(level(functional.pad(x, (1,) * 6, mode="reflect")))
        code: Tensor = self.leave(x.mean((2, 3, 4), keepdim=True))
        return code.flatten(1)


class StyleMapping(nn.Module):
    """Maps a style to the scale and shift that adaptive instance normalisation gives every channel.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(STYLE_SIZE, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU()
        )
        self.scale = nn.Linear(channels, channels)
        self.shift = nn.Linear(channels, channels)

    def forward(self, style: Tensor) -> tuple[Tensor, Tensor]:
        """Map `[B, 8]` to two tensors `[B, channels]`."""
        hidden = self.hidden(style)
        return self.scale(hidden), self.shift(hidden)


class AdaptiveResidualBlock(nn.Module):
    """Two convolutions with adaptive instance normalisation, added to their input.

    Args:
        channels: number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ReflectedConvolution(channels, channels)
        self.second = ReflectedConvolution(channels, channels)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """Map `[B, channels, D, H, W]` to the same shape; scale and shift are `[B, channels]`."""
        hidden = functional.relu_(_normalise_adaptively(self.first(x), scale, shift))
        return x + _normalise_adaptively(self.second(hidden), scale, shift)


class ImageDecoder(nn.Module):
    """Decodes a modality's scan from the fused content of the coarsest level and the modality's style.

    Args:
        width: channels of the finest level; the coarsest has eight times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [8 * width, 4 * width, 2 * width, width]
        self.blocks = nn.ModuleList(AdaptiveResidualBlock(channels[0]) for _ in range(_NUM_BLOCKS))
        self.levels = nn.ModuleList(UpsampledConvolution(before, after, 5) for before, after in pairwise(channels))
        self.norms = nn.ModuleList(nn.GroupNorm(1, count, eps=_LAYER_EPSILON) for count in channels[1:])

    def forward(self, content: Tensor, scale: Tensor, shift: Tensor, *head: Tensor) -> Tensor:
        """Decode.

        Args:
            content: `[B, 8 * width, D / 8, H / 8, W / 8]`.
            scale: `[B, 8 * width]`, of the adaptive instance normalisation.
            shift: `[B, 8 * width]`.
            *head: weight `[1, width, 7, 7, 7]` and bias `[1]` of the last convolution, which all decoders share.

        Returns:
            The scan, `[B, 1, D, H, W]`.
        """
        x = content
        for block in self.blocks:
            x = block(x, scale, shift)
        for level, norm in zip(self.levels, self.norms, strict=True):
            x = functional.relu_(norm(level(x)))
        return convolve_to_single_channel(x, *head)


def divergence_from_standard_normal(mean: Tensor, deviation: Tensor) -> Tensor:
    """Kullback-Leibler divergence of diagonal Gaussians from the standard normal distribution, `[B]`.

    Args:
        mean: `[B, n]`.
        deviation: `[B, n]`, of either sign.
    """
    variance = deviation.square()
    log_variance = variance.clamp_min(torch.finfo(variance.dtype).tiny).log()
    return 0.5 * (mean.square() + variance - 1 - log_variance).sum(1)


def _normalise_adaptively(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    normalised = functional.group_norm(x, x.shape[1], eps=_INSTANCE_EPSILON)
    return torch.addcmul(
        shift.to(normalised.dtype)[:, :, None, None, None],
        scale.to(normalised.dtype)[:, :, None, None, None],
        normalised,
    )
