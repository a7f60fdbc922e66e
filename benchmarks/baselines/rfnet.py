"""RFNet as one would write it in plain PyTorch (Ding et al., ICCV 2021), with the published weights' names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gss_train.models import SegmentationOutput

_MODALITIES = ("flair", "t1ce", "t1", "t2")
_LEVELS = 4
_MAP_CHANNELS = 16
_ATTENTION_CHANNELS = 128


class Unit(nn.Module):
    """Convolution, instance normalisation, leaky rectifier."""

    def __init__(self, in_channels: int, out_channels: int, *, size: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, size, stride, size // 2, padding_mode="reflect")
        self.norm = nn.InstanceNorm3d(out_channels)
        self.activation = nn.LeakyReLU(0.2, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(self.norm(self.conv(x)))
        return result


class Encoder(nn.ModuleDict):
    """The four levels of one modality's encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        for level in range(1, _LEVELS + 1):
            channels = width * 2 ** (level - 1)
            entering, stride = (1, 1) if level == 1 else (channels // 2, 2)
            self[f"e{level}_c1"] = Unit(entering, channels, stride=stride)
            self[f"e{level}_c2"] = Unit(channels, channels)
            self[f"e{level}_c3"] = Unit(channels, channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        levels = []
        for level in range(1, _LEVELS + 1):
            x = self[f"e{level}_c1"](x)
            x = x + self[f"e{level}_c3"](self[f"e{level}_c2"](x))
            levels.append(x)
        return levels


class Decoder(nn.ModuleDict):
    """What the separate decoder and the fusing one have in common."""

    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__()
        for level in range(1, _LEVELS):
            channels = width * 2 ** (level - 1)
            self[f"d{level}_c1"] = Unit(2 * channels, channels)
            self[f"d{level}_c2"] = Unit(2 * channels, channels)
            self[f"d{level}_out"] = Unit(channels, channels, size=1)
        self["seg_layer"] = nn.Conv3d(width, num_categories, 1)

    def rise(self, level: int, coarse: Tensor) -> Tensor:
        result: Tensor = self[f"d{level}_c1"](_upsample(coarse, 2))
        return result

    def join(self, level: int, first: Tensor, second: Tensor) -> Tensor:
        result: Tensor = self[f"d{level}_out"](self[f"d{level}_c2"](torch.cat((first, second), dim=1)))
        return result


class SeparateDecoder(Decoder):
    """Decodes one modality's features to logits."""

    def forward(self, levels: list[Tensor]) -> Tensor:
        x = levels[-1]
        for level in reversed(range(1, _LEVELS)):
            x = self.join(level, self.rise(level, x), levels[level - 1])
        logits: Tensor = self["seg_layer"](x)
        return logits


class RegionMapHead(nn.Module):
    """Predicts the probability maps of the regions from the modalities' features, with the coarser level's if any."""

    def __init__(self, channels: int, num_categories: int, *, with_context: bool) -> None:
        super().__init__()
        self.embedding_layer = nn.Sequential(
            Unit(len(_MODALITIES) * channels, channels // 4, size=1),
            Unit(channels // 4, channels // 4),
            Unit(channels // 4, channels, size=1),
        )
        self.prm_layer = nn.Sequential(
            Unit(2 * channels if with_context else channels, _MAP_CHANNELS, size=1),
            nn.Conv3d(_MAP_CHANNELS, num_categories, 1),
            nn.Softmax(dim=1),
        )

    def forward(self, kept: Tensor, context: Tensor | None) -> Tensor:
        embedding = self.embedding_layer(kept.flatten(1, 2))
        if context is not None:
            embedding = torch.cat((context, embedding), dim=1)
        maps: Tensor = self.prm_layer(embedding)
        return maps


class ModalityAttention(nn.Module):
    """Sums the modalities of one region, weighted by the region's mean features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        modalities = len(_MODALITIES)
        self.weight_layer = nn.Sequential(
            nn.Conv3d(modalities * channels + 1, _ATTENTION_CHANNELS, 1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv3d(_ATTENTION_CHANNELS, modalities, 1),
        )

    def forward(self, region: Tensor, region_map: Tensor) -> Tensor:
        share = region_map.mean(dim=(2, 3, 4), keepdim=True) + 1e-7
        means = region.mean(dim=(3, 4, 5), keepdim=True).flatten(1, 2) / share
        weights = self.weight_layer(torch.cat((means, share), dim=1)).sigmoid()
        fused: Tensor = (region * weights[:, :, None]).sum(dim=1)
        return fused


class RegionAwareFusion(nn.Module):
    """Fuses the modalities of one level: a region-aware path and a shortcut, half of the channels each."""

    def __init__(self, channels: int, num_categories: int) -> None:
        super().__init__()
        self.modal_fusion = nn.ModuleList(ModalityAttention(channels) for _ in range(num_categories))
        self.region_fusion = nn.ModuleDict({"fusion_layer": _path(num_categories * channels, channels)})
        self.short_cut = _path(len(_MODALITIES) * channels, channels)

    def forward(self, kept: Tensor, maps: Tensor) -> Tensor:
        regions = kept[:, :, None] * maps[:, None, :, None]
        fused = [
            attention(regions[:, :, index], maps[:, index : index + 1])
            for index, attention in enumerate(self.modal_fusion)
        ]
        regional = self.region_fusion["fusion_layer"](torch.cat(fused, dim=1))
        return torch.cat((regional, self.short_cut(kept.flatten(1, 2))), dim=1)


class FusionDecoder(Decoder):
    """Decodes the modalities' features to logits and to the region maps of every level."""

    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__(width, num_categories)
        for level in range(1, _LEVELS + 1):
            channels = width * 2 ** (level - 1)
            self[f"RFM{level}"] = RegionAwareFusion(channels, num_categories)
            self[f"prm_generator{level}"] = RegionMapHead(channels, num_categories, with_context=level < _LEVELS)

    def forward(self, levels: list[Tensor], fused_modalities: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        fused, maps = self._fuse(_LEVELS, levels[-1], fused_modalities, None)
        auxiliary = [_upsample(maps, 2 ** (_LEVELS - 1))]
        for level in reversed(range(1, _LEVELS)):
            risen = self.rise(level, fused)
            regional, maps = self._fuse(level, levels[level - 1], fused_modalities, risen)
            fused = self.join(level, regional, risen)
            auxiliary.append(_upsample(maps, 2 ** (level - 1)))
        return self["seg_layer"](fused), tuple(reversed(auxiliary))

    def _fuse(
        self, level: int, features: Tensor, fused_modalities: Tensor, context: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        kept = torch.where(fused_modalities[:, :, None, None, None, None], features, 0)
        maps = self[f"prm_generator{level}"](kept, context)
        return self[f"RFM{level}"](kept, maps.detach()), maps


class PlainRFNet(nn.Module):
    """The network; the state dict has the published keys, so that `load_public_checkpoint` reads it.

    Args:
        num_categories: number of categories C.
        width: channels of one modality at the finest level.
    """

    def __init__(self, num_categories: int, *, width: int = 16) -> None:
        super().__init__()
        for modality in _MODALITIES:
            self.add_module(f"{modality}_encoder", Encoder(width))
        self.decoder_fuse = FusionDecoder(width, num_categories)
        self.decoder_sep = SeparateDecoder(width, num_categories)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight)

    def forward(
        self,
        x: Tensor,
        fused_modalities: Tensor,
        available: Tensor | None = None,
        per_modality: bool | None = None,
    ) -> SegmentationOutput:
        """Segment a batch, arguments and result as of the lean network."""
        if available is not None:
            x = torch.where(available[:, :, None, None, None], x, 0)
        own = [
            self.get_submodule(f"{modality}_encoder")(x[:, index : index + 1])
            for index, modality in enumerate(_MODALITIES)
        ]
        stacked = [torch.stack(modalities, dim=1) for modalities in zip(*own, strict=True)]
        logits, maps = self.decoder_fuse(stacked, fused_modalities)
        regulariser = logits.new_zeros(())
        if not (self.training if per_modality is None else per_modality):
            return SegmentationOutput(logits, None, None, regulariser)
        separate = tuple(self.decoder_sep(levels) for levels in own)
        return SegmentationOutput(logits, separate, maps, regulariser)


def _path(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        Unit(in_channels, channels, size=1), Unit(channels, channels), Unit(channels, channels // 2, size=1)
    )


def _upsample(x: Tensor, factor: int) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)
