"""RobustSeg (Chen et al., MICCAI 2019, arXiv 2002.09708), with one prediction per modality so that GSS can train it.

After the authors' TensorFlow code, not its PyTorch port: upsampling repeats voxels, instance normalisation is affine,
layer normalisation has one scale and shift per channel, nothing is dropped out, the image decoders share their last
convolution, and weights start small. As there, the style is no random variable: the divergence is that of the scales
(as means) and shifts (as deviations) which the style gives to the image decoder.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn

from gss_train.models.checks import NUM_MODALITIES, check_modality_mask, check_scans, hide_unavailable
from gss_train.models.interface import Features, SegmentationNetwork, SegmentationOutput
from gss_train.models.layers.gaussians import at_least_float32
from gss_train.models.layers.pointwise import PointwiseConvolution
from gss_train.models.layers.reflected_convolution import ReflectedConvolution
from gss_train.models.layers.upsampled_convolution import UpsampledConvolution
from gss_train.models.robustseg.affine_blocks import NormalisedConvolution
from gss_train.models.robustseg.gated_fusion import GatedFusion
from gss_train.models.robustseg.image_decoder import (
    HEAD_TAPS,
    ImageDecoder,
    StyleEncoder,
    StyleMapping,
    divergence_from_standard_normal,
)

NUM_LEVELS = 4
COARSEST_STRIDE = 2 ** (NUM_LEVELS - 1)
LEAST_AXIS = 2 * COARSEST_STRIDE  # reflection at the coarsest level takes two voxels
DEFAULT_WIDTH = 16
RECONSTRUCTION_WEIGHT = 0.1
DIVERGENCE_WEIGHT = 0.1

# The features of this network: finest level first; level l is [B, M * width * 2**l, D / 2**l, H / 2**l, W / 2**l], the
# modalities one after the other on the channel axis. After the levels come the scans [B, M, D, H, W], the unavailable
# ones zero: their styles and reconstructions are for the regulariser alone, which no evaluation needs.


class EncoderLevel(nn.Module):
    """One level of the four modalities' content encoders, side by side as channel groups.

    Args:
        in_channels: channels of one modality before the level.
        out_channels: channels of one modality after it.
        stride: 2 to halve the axes, else 1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        inputs, outputs = NUM_MODALITIES * in_channels, NUM_MODALITIES * out_channels
        self.enter = _normalised_convolution(inputs, outputs, stride=stride, groups=NUM_MODALITIES)
        self.first = _normalised_convolution(outputs, outputs, groups=NUM_MODALITIES)
        self.second = _normalised_convolution(outputs, outputs, groups=NUM_MODALITIES)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, M * in_channels, D, H, W]` to `[B, M * out_channels, D/stride, H/stride, W/stride]`."""
        x = self.enter(x)
        result: Tensor = x + self.second(self.first(x))
        return result


class DecoderLevel(nn.Module):
    """Convolutions of one level of a mask decoder.

    Args:
        channels: channels after the level; twice as many come from the coarser one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rise = NormalisedConvolution(UpsampledConvolution(2 * channels, channels, 3))
        self.merge = _normalised_convolution(2 * channels, channels)
        self.leave = NormalisedConvolution(PointwiseConvolution(channels, channels))

    def forward(self, coarse: Tensor, skipped: Tensor) -> Tensor:
        """Merge `[B, 2 * channels, D/2, H/2, W/2]` and `[B, channels, D, H, W]` into a tensor of the latter's shape."""
        result: Tensor = self.leave(self.merge(self.rise(coarse), skipped))
        return result


class MaskDecoder(nn.Module):
    """Decodes content features into a segmentation, whether of fused modalities or of one.

    Args:
        width: channels at the finest level.
        num_categories: number of categories C.
    """

    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(DecoderLevel(width * 2**level) for level in range(NUM_LEVELS - 1))
        self.classify = PointwiseConvolution(width, num_categories)

    def forward(self, *features: Tensor) -> Tensor:
        """Decode features `[B, width * 2**l, ...]`, finest level first, to logits `[B, C, D, H, W]`."""
        x = features[-1]
        for level, skipped in zip(reversed(self.levels), reversed(features[:-1]), strict=True):
            x = level(x, skipped)
        logits: Tensor = self.classify(x)
        return logits


class RobustSeg(SegmentationNetwork):
    """Feature disentanglement and gated fusion, for crops whose axes are multiples of 8, at least 16.

    Args:
        num_categories: number of categories C, background included.
        width: channels of one modality at the finest level; 16 as published.
        activation_checkpointing: whether to recompute encoders, fusions and decoders in the backward pass rather than
            keep what they computed: less memory, more time. The modalities are then decoded one by one.
        separate_decoder: whether the modalities have predictions of their own, which the published network lacks.

    Raises:
        ValueError: if `num_categories` is below 2 or `width` below 1.
    """

    def __init__(
        self,
        num_categories: int,
        *,
        width: int = DEFAULT_WIDTH,
        activation_checkpointing: bool = False,
        separate_decoder: bool = True,
    ) -> None:
        super().__init__(activation_checkpointing=activation_checkpointing)
        if num_categories < 2:
            raise ValueError(f"num_categories is {num_categories}; it must be at least 2")
        if width < 1:
            raise ValueError(f"width is {width}; it must be at least 1")
        self.num_categories = num_categories
        channels = [width * 2**level for level in range(NUM_LEVELS)]
        self.encoder = nn.ModuleList(
            EncoderLevel(channels[level - 1] if level else 1, channels[level], stride=2 if level else 1)
            for level in range(NUM_LEVELS)
        )
        self.fusions = nn.ModuleList(GatedFusion(count) for count in channels)
        self.mask_decoder = MaskDecoder(width, num_categories)
        self.separate_decoder = MaskDecoder(width, num_categories) if separate_decoder else None
        self.style_encoders = nn.ModuleList(StyleEncoder(width) for _ in range(NUM_MODALITIES))
        self.style_mappings = nn.ModuleList(StyleMapping(channels[-1]) for _ in range(NUM_MODALITIES))
        self.image_decoders = nn.ModuleList(ImageDecoder(width) for _ in range(NUM_MODALITIES))
        self.image_head = nn.Conv3d(width, 1, HEAD_TAPS)
        for module in self.modules():
            _initialise(module)

    def forward(
        self,
        x: Tensor,
        fused_modalities: Tensor,
        available: Tensor | None = None,
        per_modality: bool | None = None,
    ) -> SegmentationOutput:
        """Segment a batch, see `SegmentationNetwork`.

        The regulariser is 0.1 times the mean absolute error of the scans reconstructed from the fused content, plus
        0.1 times the divergences of the styles, each averaged over a sample's available scans, times four (published is
        the sum over the four), and averaged over the samples. It is 0 unless `per_modality`.
        """
        features = self.encode(x, available)
        fused = self._fuse_levels(features, fused_modalities)
        logits: Tensor = self.run(self.mask_decoder, *fused)
        if not (self.training if per_modality is None else per_modality):
            return SegmentationOutput(logits, None, None, torch.zeros((), device=x.device))
        present = torch.ones_like(fused_modalities) if available is None else available
        separate = None if self.separate_decoder is None else self.decode_separately(features)
        return SegmentationOutput(logits, separate, None, self._regularise(features[-1], fused[-1], present))

    def encode(self, x: Tensor, available: Tensor | None = None) -> Features:
        """Encode the content of every available modality, see `SegmentationNetwork`."""
        check_scans(x, stride=COARSEST_STRIDE, least=LEAST_AXIS)
        scans = x = hide_unavailable(x, available)
        features = []
        for level in self.encoder:
            x = self.run(level, x)
            features.append(x)
        return (*features, scans)

    def fuse(self, features: Features, fused_modalities: Tensor) -> Tensor:
        """Fuse a subset of the modalities, see `SegmentationNetwork`."""
        logits: Tensor = self.run(self.mask_decoder, *self._fuse_levels(features, fused_modalities))
        return logits

    @property
    def has_separate_predictions(self) -> bool:
        """Whether it was built with a separate decoder."""
        return self.separate_decoder is not None

    def decode_separately(self, features: Features) -> tuple[Tensor, ...]:
        """Each modality's own prediction, see `SegmentationNetwork`."""
        return self.run_for_each_modality(self.separate_decoder, features[:NUM_LEVELS])

    def _fuse_levels(self, features: Features, fused_modalities: Tensor) -> tuple[Tensor, ...]:
        check_modality_mask("fused_modalities", fused_modalities, features[0])
        levels = zip(self.fusions, features[:NUM_LEVELS], strict=True)
        return tuple(self.run(fusion, level, fused_modalities) for fusion, level in levels)

    def _regularise(self, scans: Tensor, content: Tensor, available: Tensor) -> Tensor:
        """The regulariser from scans `[B, M, D, H, W]`, fused content of the coarsest level and a mask `[B, M]`."""
        terms = []
        for modality, scan in enumerate(scans.chunk(NUM_MODALITIES, dim=1)):
            style = self.run(self.style_encoders[modality], scan)
            scale, shift = (at_least_float32(tensor) for tensor in self.style_mappings[modality](style))
            head = (self.image_head.weight, cast("Tensor", self.image_head.bias))
            image = self.run(self.image_decoders[modality], content, scale, shift, *head)
            error = (at_least_float32(image) - at_least_float32(scan)).abs().mean((1, 2, 3, 4))
            divergence = divergence_from_standard_normal(scale, shift)
            terms.append(RECONSTRUCTION_WEIGHT * error + DIVERGENCE_WEIGHT * divergence)
        of_available = torch.where(available, torch.stack(terms, dim=1), 0).sum(1) / available.sum(1)
        return NUM_MODALITIES * of_available.mean()


def _normalised_convolution(
    in_channels: int, out_channels: int, *, stride: int = 1, groups: int = 1
) -> NormalisedConvolution:
    return NormalisedConvolution(ReflectedConvolution(in_channels, out_channels, stride=stride, groups=groups))


def _initialise(module: nn.Module) -> None:
    """Give a layer the authors' initial weights: theirs by choice, and the biases of convolutions by default."""
    if isinstance(module, nn.Conv3d):
        nn.init.trunc_normal_(module.weight, std=0.01, a=-0.02, b=0.02)
        limit = math.sqrt(3 * module.groups / module.out_channels)
        nn.init.uniform_(cast("Tensor", module.bias), -limit, limit)
    elif isinstance(module, nn.Linear):
        deviation = math.sqrt(2.6 / module.in_features)
        nn.init.trunc_normal_(module.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        nn.init.zeros_(module.bias)
