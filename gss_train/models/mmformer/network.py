"""mmFormer (Zhang et al., MICCAI 2022, doi 10.1007/978-3-031-16443-9_11), as GSS trains it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gss_train.common import check_size
from gss_train.models.checks import NUM_MODALITIES, check_modality_mask, check_scans, hide_unavailable
from gss_train.models.interface import Features, SegmentationNetwork, SegmentationOutput
from gss_train.models.layers.normalisation import normalise_activate
from gss_train.models.layers.reflected_convolution import ReflectedConvolution
from gss_train.models.layers.resampling import upsample
from gss_train.models.mmformer.decoders import FusionDecoder, SeparateDecoder
from gss_train.models.mmformer.transformers import InterModalTransformer, IntraModalTransformers

NUM_LEVELS = 5
COARSEST_STRIDE = 2 ** (NUM_LEVELS - 1)
LEAST_AXIS = 2 * COARSEST_STRIDE  # reflection at the coarsest level takes two voxels
DEFAULT_WIDTH = 8
TOKEN_CHANNELS_PER_WIDTH = 64
DEFAULT_DROPOUT = 0.1

# The features of this network: the encoder's levels, finest first, level l of shape [B, M * width * 2**l, D / 2**l,
# H / 2**l, W / 2**l] with the modalities one after the other, activated but for the coarsest; then the tokens of the
# intra-modal transformers, [B, M, voxels of the coarsest level, 64 * width].


class EncoderLevel(nn.Module):
    """One level of the four modalities' encoders, side by side as channel groups.

    One grouped convolution in place of four also keeps PyTorch's CPU convolution on oneDNN at batch 1, where a small
    ungrouped one falls back to a path several times slower.

    Args:
        in_channels: channels of one modality before the level.
        out_channels: channels of one modality after it.
        stride: 2 to halve the axes, else 1.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        inputs, outputs = NUM_MODALITIES * in_channels, NUM_MODALITIES * out_channels
        self.enter = ReflectedConvolution(inputs, outputs, stride=stride, groups=NUM_MODALITIES)
        self.first = ReflectedConvolution(outputs, outputs, groups=NUM_MODALITIES)
        self.second = ReflectedConvolution(outputs, outputs, groups=NUM_MODALITIES)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, M * in_channels, D, H, W]`, activated unless scans, to `[B, M * out_channels, D/stride, ...]`."""
        x = self.enter(x)
        result: Tensor = x + self.second(normalise_activate(self.first(normalise_activate(x))))
        return result


class MMFormer(SegmentationNetwork):
    """Transformers within and between modalities at the coarsest level of a convolutional network.

    The published network also holds four convolutions that it never uses; they are left out here.

    Args:
        num_categories: number of categories C, background included.
        crop_size: voxels of all scans that it will see, one number or three, since every token's place has a learnt
            embedding; multiples of 16, at least 32. 128 as published.
        width: channels of one modality at the finest level; 8 as published. Tokens have 64 times as many.
        dropout: probability of dropout in the transformers; 0.1 as published.
        activation_checkpointing: whether to recompute encoder levels, transformers and decoders in the backward pass
            rather than keep what they computed: less memory, more time.

    Raises:
        ValueError: if an argument is out of its range.
    """

    def __init__(
        self,
        num_categories: int,
        *,
        crop_size: int | Sequence[int],
        width: int = DEFAULT_WIDTH,
        dropout: float = DEFAULT_DROPOUT,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__(activation_checkpointing=activation_checkpointing)
        if num_categories < 2:
            raise ValueError(f"num_categories is {num_categories}; it must be at least 2")
        if width < 1:
            raise ValueError(f"width is {width}; it must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
        self.num_categories = num_categories
        self.crop_size = check_size("crop_size", crop_size, stride=COARSEST_STRIDE, least=LEAST_AXIS)
        channels = [width * 2**level for level in range(NUM_LEVELS)]
        tokens = TOKEN_CHANNELS_PER_WIDTH * width
        self.encoder = nn.ModuleList(
            EncoderLevel(before, after, stride=1 if after == width else 2) for before, after in pairwise([1, *channels])
        )
        places = torch.Size(axis // COARSEST_STRIDE for axis in self.crop_size).numel()
        self.positions = nn.Parameter(torch.zeros(NUM_MODALITIES, places, tokens))
        self.intra_transformers = IntraModalTransformers(channels[-1], tokens, dropout=dropout)
        self.inter_transformer = InterModalTransformer(channels[-1], tokens, dropout=dropout)
        self.separate_decoder = SeparateDecoder(width, NUM_LEVELS, num_categories)
        self.fusion_decoder = FusionDecoder(width, NUM_LEVELS, num_categories)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.kaiming_normal_(self.inter_transformer.decode.weight)  # a convolution in the published code

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
        regulariser = torch.zeros((), device=logits.device)
        if not (self.training if per_modality is None else per_modality):
            return SegmentationOutput(logits, None, None, regulariser)
        auxiliary = tuple(upsample(level, 2**number) for number, level in enumerate(maps, start=1))
        return SegmentationOutput(logits, self.decode_separately(features), auxiliary, regulariser)

    def encode(self, x: Tensor, available: Tensor | None = None) -> Features:
        """Encode every available modality, see `SegmentationNetwork`."""
        check_scans(x, stride=COARSEST_STRIDE, least=LEAST_AXIS)
        if tuple(x.shape[2:]) != self.crop_size:
            raise ValueError(
                f"x has spatial size {tuple(x.shape[2:])}; this network was built for crop_size {self.crop_size}"
            )
        x = hide_unavailable(x, available)
        x = self.run(self.encoder[0], x)
        features = []
        for level in self.encoder[1:]:
            features.append(normalise_activate(x))
            x = self.run(level, features[-1])
        return (*features, x, self.run(self.intra_transformers, x, self.positions))

    def fuse(self, features: Features, fused_modalities: Tensor) -> Tensor:
        """Fuse a subset of the modalities, see `SegmentationNetwork`."""
        return self._fuse(features, fused_modalities)[0]

    def decode_separately(self, features: Features) -> tuple[Tensor, ...]:
        """Each modality's own prediction, see `SegmentationNetwork`."""
        # One modality after the other: what the backward pass of each needs for a moment never exists for all at once.
        batch = len(features[0])
        levels = (level.reshape(batch, NUM_MODALITIES, -1, *level.shape[2:]) for level in features[:NUM_LEVELS])
        modalities = zip(*(level.unbind(1) for level in levels), strict=True)
        return tuple(self.run(self.separate_decoder, *own) for own in modalities)

    def _fuse(self, features: Features, fused_modalities: Tensor) -> tuple[Tensor, ...]:
        check_modality_mask("fused_modalities", fused_modalities, features[0])
        *levels, coarsest, tokens = features
        attended = self.run(self.inter_transformer, tokens, fused_modalities, self.positions).view_as(coarsest)
        result: tuple[Tensor, ...] = self.run(self.fusion_decoder, fused_modalities, *levels, attended)
        return result
