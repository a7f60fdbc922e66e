"""RFNet's region-aware fusion of modalities (Ding et al., ICCV 2021, doi 10.1109/ICCV48922.2021.00394)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gss_train.models.checks import NUM_MODALITIES
from gss_train.models.layers.normalisation import normalise_activate
from gss_train.models.layers.pointwise import PointwiseConvolution, keep_modalities, multiply_channels
from gss_train.models.rfnet.blocks import ConvolutionUnit, PointwiseUnit

MAP_CHANNELS = 16
ATTENTION_CHANNELS = 128


class RegionMapHead(nn.Module):
    """Predicts a probability map per category from the fused modalities; a deep supervision of its level.

    Args:
        channels: channels of one modality at this level.
        num_categories: number of categories C.
        with_context: whether the features of the coarser decoder level are read as well.
    """

    def __init__(self, channels: int, num_categories: int, *, with_context: bool) -> None:
        super().__init__()
        self.squeeze = PointwiseUnit(NUM_MODALITIES * channels, channels // 4)
        self.mix = ConvolutionUnit(channels // 4, channels // 4)
        self.expand = PointwiseUnit(channels // 4, channels)
        self.reduce = PointwiseUnit(2 * channels if with_context else channels, MAP_CHANNELS)
        self.classify = PointwiseConvolution(MAP_CHANNELS, num_categories)

    def forward(self, features: Tensor, fused_modalities: Tensor, context: Tensor | None) -> Tensor:
        """Predict the region maps.

        Args:
            features: `[B, M * channels, D, H, W]`, modality-major.
            fused_modalities: `[B, M]` bool, the modalities to look at.
            context: `[B, channels, D, H, W]` of the coarser decoder level; None at the coarsest.

        Returns:
            Probabilities `[B, C, D, H, W]`.
        """
        embedding = self.expand(self.mix(self.squeeze(features, fused_modalities)))
        if context is not None:
            embedding = torch.cat((context, embedding), dim=1)
        return functional.softmax(self.classify(self.reduce(embedding)), dim=1)


class ModalityAttention(nn.Module):
    """Weighs the modalities of each region by the region's mean features.

    The small networks of all regions, two layers each, run side by side as channel groups.

    Args:
        channels: channels of one modality at this level.
        num_categories: number of categories C, a region each.
    """

    def __init__(self, channels: int, num_categories: int) -> None:
        super().__init__()
        descriptor = NUM_MODALITIES * channels + 1
        self.hidden = nn.Conv1d(
            num_categories * descriptor, num_categories * ATTENTION_CHANNELS, 1, groups=num_categories
        )
        self.output = nn.Conv1d(
            num_categories * ATTENTION_CHANNELS, num_categories * NUM_MODALITIES, 1, groups=num_categories
        )

    def forward(self, features: Tensor, fused_modalities: Tensor, maps: Tensor) -> Tensor:
        """Weights of the modalities per region, `[B, C, M]`, in (0, 1).

        Args:
            features: `[B, M * channels, D, H, W]`, modality-major.
            fused_modalities: `[B, M]` bool.
            maps: region probabilities `[B, C, D, H, W]`.
        """
        regions = maps.flatten(2)
        share = regions.mean(dim=2) + 1e-7
        sums = torch.bmm(regions, features.flatten(2).transpose(1, 2))
        means = keep_modalities(sums / regions.shape[2] / share[:, :, None], fused_modalities)
        descriptor = torch.cat((means, share[:, :, None]), dim=2).flatten(1)[:, :, None]
        hidden = functional.leaky_relu(self.hidden(descriptor), 0.2)
        return torch.sigmoid(self.output(hidden)).view(len(features), -1, NUM_MODALITIES)


class RegionFusion(nn.Module):
    """Fuses the modalities of one level: a region-aware path and a shortcut, half of the channels each.

    With `y_k` the features of modality k, `r_i` the map of region i and `w_ik` the attention, the published network
    concatenates `r_i * sum_k w_ik y_k` over the regions and convolves the result by 1x1x1 with `[W_1 ... W_C]`.
    Here that is `sum_i r_i * (V_i y)` with one matrix `V_i = [w_i1 W_i ... w_i4 W_i]` per sample, so that the
    products `r_i y_k` never exist. The two paths have the same shape and run as two channel groups.

    Args:
        channels: channels of one modality at this level.
        num_categories: number of categories C, a region each.
    """

    def __init__(self, channels: int, num_categories: int) -> None:
        super().__init__()
        self.attention = ModalityAttention(channels, num_categories)
        self.squeeze_regions = PointwiseConvolution(num_categories * channels, channels)
        self.squeeze_shortcut = PointwiseConvolution(NUM_MODALITIES * channels, channels)
        self.mix = ConvolutionUnit(2 * channels, 2 * channels, groups=2)
        self.reduce = PointwiseUnit(2 * channels, channels, groups=2)

    def forward(self, features: Tensor, fused_modalities: Tensor, maps: Tensor) -> Tensor:
        """Fuse.

        Args:
            features: `[B, M * channels, D, H, W]`, modality-major.
            fused_modalities: `[B, M]` bool.
            maps: region probabilities `[B, C, D, H, W]`; no gradient goes to them.

        Returns:
            `[B, channels, D, H, W]`.
        """
        regional = self.convolve_regions(features, fused_modalities, maps.detach())
        shortcut = self.squeeze_shortcut(features, fused_modalities)
        paths = normalise_activate(torch.cat((regional, shortcut), dim=1))
        result: Tensor = self.reduce(self.mix(paths))
        return result

    def convolve_regions(self, features: Tensor, fused_modalities: Tensor, maps: Tensor) -> Tensor:
        """The 1x1x1 convolution over the regions' fused features, `[B, channels, D, H, W]`."""
        attention = self.attention(features, fused_modalities, maps)
        weight, bias = self.squeeze_regions.weight, self.squeeze_regions.bias
        batch, regions = maps.shape[:2]
        per_region = weight.view(weight.shape[0], regions, -1)
        matrices = torch.einsum("oic,bik->biokc", per_region, attention).reshape(batch, -1, features.shape[1])
        products = multiply_channels(keep_modalities(matrices, fused_modalities), features)
        result = bias[:, None, None, None]
        for region, product in enumerate(products.reshape(batch, regions, -1, *maps.shape[2:]).unbind(1)):
            result = torch.addcmul(result, maps[:, region, None].to(product.dtype), product)
        return result
