"""1x1x1 convolutions as matrix products."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def multiply_channels(matrix: Tensor, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply the channels of every voxel by a matrix: a 1x1x1 convolution whose weight may differ per sample.

    A matrix product reads the voxels where they lie, while oneDNN's convolution copies them to a layout of its own.

    Args:
        matrix: `[out_channels, in_channels]`, or one per sample `[B, out_channels, in_channels]`.
        x: `[B, in_channels, *spatial]`.
        bias: `[out_channels]`.

    Returns:
        `[B, out_channels, *spatial]`.
    """
    batch = len(x)
    matrices = matrix.expand(batch, -1, -1)
    columns = x.flatten(2)
    product = torch.bmm(matrices, columns) if bias is None else torch.baddbmm(bias[:, None], matrices, columns)
    return product.reshape(batch, -1, *x.shape[2:])


def keep_modalities(matrix: Tensor, kept_modalities: Tensor) -> Tensor:
    """Per-sample copies of a matrix that ignore the channels of the modalities not kept.

    The product with them equals the product of the matrix with features zeroed there, without a copy of the features.

    Args:
        matrix: `[out_channels, M * channels]` or one per sample, modality-major in its last axis.
        kept_modalities: `[B, M]` bool.

    Returns:
        `[B, out_channels, M * channels]`.
    """
    per_modality = matrix.view(*matrix.shape[:-1], kept_modalities.shape[1], -1)
    return (per_modality * kept_modalities[:, None, :, None].to(matrix.dtype)).flatten(-2)


class PointwiseConvolution(nn.Conv3d):
    """A 1x1x1 convolution.

    Args:
        in_channels: channels of the input, all groups together.
        out_channels: channels of the output, all groups together.
        groups: number of channel groups convolved apart.
    """

    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 1) -> None:
        super().__init__(in_channels, out_channels, 1, groups=groups)

    def forward(self, x: Tensor, kept_modalities: Tensor | None = None) -> Tensor:
        """Convolve.

        Args:
            x: `[B, in_channels, D, H, W]`.
            kept_modalities: `[B, M]` bool, where x holds M modalities of `in_channels / M` channels each: the others
                count as zero. None: everything counts. For one group only.

        Returns:
            `[B, out_channels, D, H, W]`.
        """
        matrix = self.weight.flatten(1)
        if self.groups > 1:
            return self._convolve_groups(matrix, x)
        if kept_modalities is not None:
            matrix = keep_modalities(matrix, kept_modalities)
        return multiply_channels(matrix, x, self.bias)

    def _convolve_groups(self, matrix: Tensor, x: Tensor) -> Tensor:
        batch, per_group = len(x), self.out_channels // self.groups
        as_samples = x.reshape(batch * self.groups, -1, *x.shape[2:])
        matrices = matrix.view(self.groups, per_group, -1).repeat(batch, 1, 1)
        biases = self.bias.view(self.groups, per_group, 1).repeat(batch, 1, 1)
        product = torch.baddbmm(biases, matrices, as_samples.flatten(2))
        return product.reshape(batch, self.out_channels, *x.shape[2:])
