"""RobustSeg's gated fusion of modalities (Chen et al., MICCAI 2019, arXiv 2002.09708)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gss_train.models.checks import NUM_MODALITIES
from gss_train.models.layers.pointwise import PointwiseConvolution
from gss_train.models.layers.reflected_convolution import ReflectedConvolution
from gss_train.models.robustseg.affine_blocks import EPSILON, NormalisedConvolution


class GatedFusion(nn.Module):
    """Fuses the modalities of one level: one gate per modality and voxel, from all modalities' features.

    Args:
        channels: channels of one modality at this level.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = ReflectedConvolution(NUM_MODALITIES * channels, NUM_MODALITIES)
        self.scale = nn.Parameter(torch.ones(NUM_MODALITIES))
        self.shift = nn.Parameter(torch.zeros(NUM_MODALITIES))
        self.squeeze = NormalisedConvolution(PointwiseConvolution(NUM_MODALITIES * channels, channels))

    def forward(self, features: Tensor, fused_modalities: Tensor) -> Tensor:
        """Fuse.

        Args:
            features: `[B, M * channels, D, H, W]`, modality-major.
            fused_modalities: `[B, M]` bool; the features of the others count as zero.

        Returns:
            `[B, channels, D, H, W]`.
        """
        per_modality = features.reshape(len(features), NUM_MODALITIES, -1, *features.shape[2:])
        kept = per_modality * fused_modalities[:, :, None, None, None, None].to(features.dtype)
        attention = self.attention(kept.flatten(1, 2))
        scale, shift = self.scale.to(attention.dtype), self.shift.to(attention.dtype)
        gates = torch.sigmoid(functional.group_norm(attention, NUM_MODALITIES, scale, shift, EPSILON))
        result: Tensor = self.squeeze((kept * gates[:, :, None]).flatten(1, 2))
        return result
