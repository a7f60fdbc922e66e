"""mmFormer's decoders, which read features that are normalised and activated already.

Every unit of the network begins with instance normalisation and a leaky rectifier. Both act on each channel by itself,
so one activated copy of a level's features serves all that read it: the next level, the fusion, the separate decoder.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from gss_train.models.checks import NUM_MODALITIES
from gss_train.models.layers.normalisation import normalise_activate
from gss_train.models.layers.pointwise import PointwiseConvolution, multiply_channels
from gss_train.models.layers.reflected_convolution import ReflectedConvolution
from gss_train.models.layers.resampling import upsample
from gss_train.models.layers.zero_padded_convolution import ZeroPaddedConvolution


class DecoderLevel(nn.Module):
    """Convolutions of one decoder level.

    Args:
        channels: channels after the level; twice as many come from the coarser one.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ReflectedConvolution(2 * channels, channels)
        self.merge = ReflectedConvolution(2 * channels, channels)
        self.leave = PointwiseConvolution(channels, channels)

    def rise(self, coarse: Tensor) -> Tensor:
        """Bring `[B, 2 * channels, D/2, H/2, W/2]` to `[B, channels, D, H, W]`, activated."""
        return normalise_activate(self.enter(normalise_activate(upsample(coarse, 2))))

    def join(self, first: Tensor, second: Tensor) -> Tensor:
        """Merge two activated tensors `[B, channels, D, H, W]` into one, activated, for `leave`."""
        return normalise_activate(self.merge(first, second))


class Decoder(nn.Module):
    """What both decoders have.

    Args:
        width: channels of one modality at the finest level.
        num_levels: levels of the encoder; the decoder has one less.
        num_categories: number of categories C.
    """

    def __init__(self, width: int, num_levels: int, num_categories: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(DecoderLevel(width * 2**level) for level in range(num_levels - 1))
        self.classify = PointwiseConvolution(width, num_categories)

    def level(self, index: int) -> DecoderLevel:
        """The decoder level of an index, 0 the finest."""
        return cast("DecoderLevel", self.levels[index])

    def classify_finest(self, joined: Tensor) -> Tensor:
        """The finest level's `leave` and `classify` as one product, since nothing lies between them."""
        inner, outer = self.level(0).leave, self.classify
        matrix = outer.weight.flatten(1) @ inner.weight.flatten(1)
        bias = torch.mv(outer.weight.flatten(1), inner.bias) + outer.bias
        return multiply_channels(matrix, joined, bias)


class SeparateDecoder(Decoder):
    """The decoder that all modalities share for their own predictions."""

    def forward(self, *features: Tensor) -> Tensor:
        """Decode one modality.

        Args:
            *features: `[B, width * 2**l, D / 2**l, H / 2**l, W / 2**l]`, finest level first; activated but for the
                coarsest.

        Returns:
            Logits `[B, C, D, H, W]`.
        """
        x = features[-1]
        for index in reversed(range(1, len(self.levels))):
            level = self.level(index)
            x = level.leave(level.join(level.rise(x), features[index]))
        finest = self.level(0)
        return self.classify_finest(finest.join(finest.rise(x), features[0]))


class ModalityFusion(nn.Module):
    """Fuses the modalities of one level by convolutions.

    Args:
        channels: channels of one modality at this level.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = PointwiseConvolution(NUM_MODALITIES * channels, channels)
        self.mix = ZeroPaddedConvolution(channels, channels)
        self.leave = PointwiseConvolution(channels, channels)

    def forward(self, activated: Tensor, fused_modalities: Tensor | None) -> Tensor:
        """Fuse.

        Args:
            activated: features `[B, M * channels, D, H, W]`, modality-major, activated.
            fused_modalities: `[B, M]` bool, the modalities to look at; None: all. A feature that is zero throughout
                stays zero when it is normalised and activated, so that they can be left out after that step.

        Returns:
            `[B, channels, D, H, W]`, not activated.
        """
        x = normalise_activate(self.squeeze(activated, fused_modalities))
        result: Tensor = self.leave(normalise_activate(self.mix(x)))
        return result


class FusionDecoder(Decoder):
    """The decoder of the fused prediction; arguments as of `Decoder`."""

    def __init__(self, width: int, num_levels: int, num_categories: int) -> None:
        super().__init__(width, num_levels, num_categories)
        channels = [width * 2**level for level in range(num_levels)]
        self.fusions = nn.ModuleList(ModalityFusion(count) for count in channels)
        self.heads = nn.ModuleList(PointwiseConvolution(count, num_categories) for count in channels[1:])

    def forward(self, fused_modalities: Tensor, *features: Tensor) -> tuple[Tensor, ...]:
        """Decode.

        Args:
            fused_modalities: `[B, M]` bool.
            *features: `[B, M * width * 2**l, D / 2**l, H / 2**l, W / 2**l]`, finest level first, activated; the
                coarsest those of the inter-modal transformer, not activated.

        Returns:
            The logits `[B, C, D, H, W]`, then probability maps at 1/2, 1/4, ... of the resolution.
        """
        x = self.fusions[-1](normalise_activate(features[-1]), None)
        maps = [self._probabilities(x, -1)]
        for index in reversed(range(len(self.levels))):
            level = self.level(index)
            fused = normalise_activate(self.fusions[index](features[index], fused_modalities))
            joined = level.join(fused, level.rise(x))
            if index > 0:
                x = level.leave(joined)
                maps.append(self._probabilities(x, index - 1))
        return (self.classify_finest(joined), *reversed(maps))

    def _probabilities(self, x: Tensor, head: int) -> Tensor:
        logits = self.heads[head](x)
        return functional.softmax(logits, dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
