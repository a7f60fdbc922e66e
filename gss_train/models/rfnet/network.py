"""RFNet (Ding, Yu and Yang, ICCV 2021), with one prediction per modality, as GSS trains it."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from gss_train.models.checks import NUM_MODALITIES, check_modality_mask, check_scans, hide_unavailable
from gss_train.models.interface import Features, SegmentationNetwork, SegmentationOutput
from gss_train.models.layers.pointwise import PointwiseConvolution
from gss_train.models.layers.resampling import upsample
from gss_train.models.rfnet.blocks import ConvolutionUnit, PointwiseUnit
from gss_train.models.rfnet.region_fusion import RegionFusion, RegionMapHead

NUM_LEVELS = 4
COARSEST_STRIDE = 2 ** (NUM_LEVELS - 1)
LEAST_AXIS = 2 * COARSEST_STRIDE  # reflection at the coarsest level takes two voxels
DEFAULT_WIDTH = 16

# The features of this network: finest level first; level l is [B, M * width * 2**l, D / 2**l, H / 2**l, W / 2**l], the
# modalities one after the other on the channel axis.


class EncoderLevel(nn.Module):
    """One level of the four modalities' encoders, side by side as channel groups.

    One grouped convolution in place of four also keeps PyTorch's CPU convolution on oneDNN at batch 1, where a small
    ungrouped one falls back to a path several times slower.

    Args:
        in_channels: channels of one modality before the level.
        out_channels: channels of one modality after it.
        stride: 2 to halve the axes, else 1.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        inputs, outputs = NUM_MODALITIES * in_channels, NUM_MODALITIES * out_channels
        self.enter = ConvolutionUnit(inputs, outputs, stride=stride, groups=NUM_MODALITIES)
        self.first = ConvolutionUnit(outputs, outputs, groups=NUM_MODALITIES)
        self.second = ConvolutionUnit(outputs, outputs, groups=NUM_MODALITIES)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, M * in_channels, D, H, W]` to `[B, M * out_channels, D/stride, H/stride, W/stride]`."""
        x = self.enter(x)
        result: Tensor = x + self.second(self.first(x))
        return result


class DecoderLevel(nn.Module):
    """Convolutions of one decoder level.

    Args:
        channels: channels after the level; twice as many come from the coarser one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvolutionUnit(2 * channels, channels)
        self.merge = ConvolutionUnit(2 * channels, channels)
        self.leave = PointwiseUnit(channels, channels)

    def rise(self, coarse: Tensor) -> Tensor:
        """Bring `[B, 2 * channels, D/2, H/2, W/2]` to `[B, channels, D, H, W]`."""
        result: Tensor = self.enter(upsample(coarse, 2))
        return result

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """Merge two tensors `[B, channels, D, H, W]` into one."""
        result: Tensor = self.leave(self.merge(first, second))
        return result


class SeparateDecoder(nn.Module):
    """The decoder that all modalities share for their own predictions.

    Args:
        width: channels of one modality at the finest level.
        num_categories: number of categories C.
    """

    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(DecoderLevel(width * 2**level) for level in range(NUM_LEVELS - 1))
        self.classify = PointwiseConvolution(width, num_categories)

    def forward(self, *features: Tensor) -> Tensor:
        """Decode features `[B, width * 2**l, ...]`, finest level first, to logits `[B, C, D, H, W]`."""
        x = features[-1]
        for index in reversed(range(NUM_LEVELS - 1)):
            level = cast("DecoderLevel", self.levels[index])
            x = level.join(level.rise(x), features[index])
        logits: Tensor = self.classify(x)
        return logits


class FusionDecoder(nn.Module):
    """The decoder that fuses the modalities region by region at every level.

    Args:
        width: channels of one modality at the finest level.
        num_categories: number of categories C.
    """

    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(NUM_LEVELS)]
        self.heads = nn.ModuleList(
            RegionMapHead(count, num_categories, with_context=count != channels[-1]) for count in channels
        )
        self.fusions = nn.ModuleList(RegionFusion(count, num_categories) for count in channels)
        self.levels = nn.ModuleList(DecoderLevel(count) for count in channels[:-1])
        self.classify = PointwiseConvolution(width, num_categories)

    def forward(self, fused_modalities: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        """Decode.

        Args:
            fused_modalities: `[B, M]` bool.
            *features: of all modalities, as `Features`.

        Returns:
            The logits `[B, C, D, H, W]`, then the region maps of each level at its own resolution, finest first.
        """
        region_maps = self.heads[-1](features[-1], fused_modalities, None)
        x = self.fusions[-1](features[-1], fused_modalities, region_maps)
        maps = [region_maps]
        for index in reversed(range(NUM_LEVELS - 1)):
            level = cast("DecoderLevel", self.levels[index])
            x = level.rise(x)
            region_maps = self.heads[index](features[index], fused_modalities, x)
            fused = self.fusions[index](features[index], fused_modalities, region_maps)
            x = level.join(fused, x)
            maps.append(region_maps)
        return (self.classify(x), *reversed(maps))


class RFNet(SegmentationNetwork):
    """Region-aware fusion network, for crops whose axes are multiples of 8, at least 16.

    Args:
        num_categories: number of categories C, background included.
        width: channels of one modality at the finest level, a multiple of 4; 16 as published.
        activation_checkpointing: whether to recompute encoder levels and decoders in the backward pass rather than
            keep what they computed: less memory, more time.

    Raises:
        ValueError: if `num_categories` is below 2 or `width` is no positive multiple of 4.
    """

    def __init__(
        self, num_categories: int, *, width: int = DEFAULT_WIDTH, activation_checkpointing: bool = False
    ) -> None:
        super().__init__(activation_checkpointing=activation_checkpointing)
        if num_categories < 2:
            raise ValueError(f"num_categories is {num_categories}; it must be at least 2")
        if width < 4 or width % 4:
            raise ValueError(f"width is {width}; it must be a positive multiple of 4")
        self.num_categories = num_categories
        self.encoder = nn.ModuleList(
            EncoderLevel(width * 2 ** (level - 1) if level else 1, width * 2**level, stride=2 if level else 1)
            for level in range(NUM_LEVELS)
        )
        self.separate_decoder = SeparateDecoder(width, num_categories)
        self.fusion_decoder = FusionDecoder(width, num_categories)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)

    def forward(
        self,
        x: Tensor,
        fused_modalities: Tensor,
        available: Tensor | None = None,
        per_modality: bool | None = None,
    ) -> SegmentationOutput:
        """Segment a batch, see `SegmentationNetwork`."""
        features = self.encode(x, available)
        logits, *maps = self._fuse(features, fused_modalities)
        regulariser = logits.new_zeros(())
        if not (self.training if per_modality is None else per_modality):
            return SegmentationOutput(logits, None, None, regulariser)
        auxiliary = tuple(upsample(region_maps, 2**level) for level, region_maps in enumerate(maps))
        return SegmentationOutput(logits, self.decode_separately(features), auxiliary, regulariser)

    def encode(self, x: Tensor, available: Tensor | None = None) -> Features:
        """Encode every available modality, see `SegmentationNetwork`."""
        check_scans(x, stride=COARSEST_STRIDE, least=LEAST_AXIS)
        x = hide_unavailable(x, available)
        features = []
        for level in self.encoder:
            x = self.run(level, x)
            features.append(x)
        return tuple(features)

    def fuse(self, features: Features, fused_modalities: Tensor) -> Tensor:
        """Fuse a subset of the modalities, see `SegmentationNetwork`."""
        return self._fuse(features, fused_modalities)[0]

    def decode_separately(self, features: Features) -> tuple[Tensor, ...]:
        """Each modality's own prediction, see `SegmentationNetwork`."""
        return self.run_for_each_modality(self.separate_decoder, features)

    def _fuse(self, features: Features, fused_modalities: Tensor) -> tuple[Tensor, ...]:
        check_modality_mask("fused_modalities", fused_modalities, features[0])
        result: tuple[Tensor, ...] = self.run(self.fusion_decoder, fused_modalities, *features)
        return result
