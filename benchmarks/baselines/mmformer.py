"""mmFormer as one would write it in plain PyTorch (Zhang et al., MICCAI 2022), with the published weights' names."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from gss_train.models import MMFormer, SegmentationOutput, mmformer_public_keys

PaddingMode: TypeAlias = Literal["zeros", "reflect"]

_MODALITIES = ("flair", "t1ce", "t1", "t2")
_LEVELS = 5
_HEADS = 8
_CHANNELS_PER_TOKEN = 64  # times the width
_HIDDEN = 8  # times the token's channels


class PreNormUnit(nn.Module):
    """Instance normalisation, leaky rectifier, convolution."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        size: int = 3,
        stride: int = 1,
        padding_mode: PaddingMode = "zeros",
    ) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm3d(in_channels)
        self.activation = nn.LeakyReLU(0.2, inplace=True)
        self.conv = nn.Conv3d(in_channels, out_channels, size, stride, size // 2, padding_mode=padding_mode)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(self.activation(self.norm(x)))
        return result


class Encoder(nn.ModuleDict):
    """The five levels of one modality's encoder."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self["e1_c1"] = nn.Conv3d(1, width, 3, padding=1, padding_mode="reflect")
        for level in range(1, _LEVELS + 1):
            channels = width * 2 ** (level - 1)
            if level > 1:
                self[f"e{level}_c1"] = PreNormUnit(channels // 2, channels, stride=2, padding_mode="reflect")
            for unit in ("c2", "c3"):
                self[f"e{level}_{unit}"] = PreNormUnit(channels, channels, padding_mode="reflect")

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
            self[f"d{level}_c1"] = PreNormUnit(2 * channels, channels, padding_mode="reflect")
            self[f"d{level}_c2"] = PreNormUnit(2 * channels, channels, padding_mode="reflect")
            self[f"d{level}_out"] = PreNormUnit(channels, channels, size=1)
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


class Fusion(nn.Module):
    """Convolves the modalities of one level into one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fusion_layer = nn.Sequential(
            PreNormUnit(len(_MODALITIES) * channels, channels, size=1),
            PreNormUnit(channels, channels),
            PreNormUnit(channels, channels, size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.fusion_layer(x)
        return result


class FusionDecoder(Decoder):
    """Decodes the modalities' masked features to logits and to the probability maps of the coarser levels."""

    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__(width, num_categories)
        for level in range(1, _LEVELS + 1):
            channels = width * 2 ** (level - 1)
            self[f"RFM{level}"] = Fusion(channels)
            if level > 1:
                self[f"seg_d{level - 1}"] = nn.Conv3d(channels, num_categories, 1)

    def forward(self, levels: list[Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        x = self[f"RFM{_LEVELS}"](levels[-1])
        maps = []
        for level in reversed(range(1, _LEVELS)):
            maps.append(_upsample(self[f"seg_d{level}"](x).softmax(1), 2**level))
            x = self.join(level, self[f"RFM{level}"](levels[level - 1]), self.rise(level, x))
        return self["seg_layer"](x), tuple(reversed(maps))


class SelfAttention(nn.Module):
    """Multi-head attention with its matrix of weights written out."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.attn_drop = nn.Dropout(dropout)
        self.proj = nn.Linear(channels, channels)
        self.proj_drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part.unflatten(2, (_HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=2))
        weights = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(dim=3)
        heads = self.attn_drop(weights) @ value
        result: Tensor = self.proj_drop(self.proj(heads.transpose(1, 2).flatten(2)))
        return result


class FeedForward(nn.Module):
    """Two layers applied to every token."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        hidden = _HIDDEN * channels
        self.net = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, channels),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


class Normalised(nn.Module):
    """Layer normalisation in front of a function, dropout behind it."""

    def __init__(self, channels: int, function: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.fn = function
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.dropout(self.fn(self.norm(x)))
        return result


class Residual(nn.Module):
    """A function added to its input."""

    def __init__(self, function: nn.Module) -> None:
        super().__init__()
        self.fn = function

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.fn(x)
        return result


class Transformer(nn.Module):
    """Attention and feed-forward network, once."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        attention = Normalised(channels, SelfAttention(channels, dropout), dropout)
        feed_forward = Normalised(channels, FeedForward(channels, dropout), 0.0)
        self.cross_attention_list = nn.ModuleList([Residual(attention)])
        self.cross_ffn_list = nn.ModuleList([Residual(feed_forward)])

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        result: Tensor = self.cross_ffn_list[0](self.cross_attention_list[0](x + positions))
        return result


class PlainMMFormer(nn.Module):
    """The network; the state dict has the published keys.

    Args:
        num_categories: number of categories C.
        crop_size: spatial size of the crops.
        width: channels of one modality at the finest level.
        dropout: probability of dropout in the transformers.
    """

    def __init__(
        self, num_categories: int, *, crop_size: tuple[int, int, int], width: int = 8, dropout: float = 0.1
    ) -> None:
        super().__init__()
        depth, height, breadth = (axis // 2 ** (_LEVELS - 1) for axis in crop_size)
        coarse, token = width * 2 ** (_LEVELS - 1), _CHANNELS_PER_TOKEN * width
        for modality in _MODALITIES:
            self.add_module(f"{modality}_encoder", Encoder(width))
            self.add_module(f"{modality}_encode_conv", nn.Conv3d(coarse, token, 1))
            self.add_module(f"{modality}_decode_conv", nn.Conv3d(token, coarse, 1))  # published, but never used
            positions = nn.Parameter(torch.zeros(1, depth * height * breadth, token))
            self.register_parameter(f"{modality}_pos", positions)
            self.add_module(f"{modality}_transformer", Transformer(token, dropout))
        self.multimodal_transformer = Transformer(token, dropout)
        self.multimodal_decode_conv = nn.Conv3d(len(_MODALITIES) * token, len(_MODALITIES) * coarse, 1)
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
        keep = fused_modalities[:, :, None, None, None, None]
        masked = [
            torch.where(keep, torch.stack(modalities, dim=1), 0).flatten(1, 2)
            for modalities in zip(*(levels[:-1] for levels in own), strict=True)
        ]
        masked.append(self._attend([levels[-1] for levels in own], fused_modalities))
        logits, maps = self.decoder_fuse(masked)
        regulariser = logits.new_zeros(())
        if not (self.training if per_modality is None else per_modality):
            return SegmentationOutput(logits, None, None, regulariser)
        separate = tuple(self.decoder_sep(levels) for levels in own)
        return SegmentationOutput(logits, separate, maps, regulariser)

    def _attend(self, coarsest: list[Tensor], fused_modalities: Tensor) -> Tensor:
        grid = coarsest[0].shape[2:]
        tokens = []
        for index, modality in enumerate(_MODALITIES):
            embedded = self.get_submodule(f"{modality}_encode_conv")(coarsest[index]).flatten(2).transpose(1, 2)
            own = self.get_submodule(f"{modality}_transformer")(embedded, self._positions(modality))
            tokens.append(torch.where(fused_modalities[:, index, None, None], own, 0))
        positions = torch.cat([self._positions(modality) for modality in _MODALITIES], dim=1)
        attended = self.multimodal_transformer(torch.cat(tokens, dim=1), positions)
        # As published: four neighbouring tokens of one modality, not the four modalities' tokens of one place.
        quadruples = attended.reshape(len(attended), *grid, -1).permute(0, 4, 1, 2, 3)
        result: Tensor = self.multimodal_decode_conv(quadruples)
        return result

    def _positions(self, modality: str) -> Tensor:
        return self.get_parameter(f"{modality}_pos")


def copy_weights(lean: MMFormer, plain: PlainMMFormer) -> None:
    """Give the lean network, built for the same categories, crops and width, the plain one's weights."""
    with torch.no_grad():
        for name, keys in mmformer_public_keys(lean).items():
            pieces = lean.get_parameter(name).chunk(len(keys))
            for key, piece in zip(keys, pieces, strict=True):
                piece.copy_(plain.get_parameter(key).view_as(piece))


def _upsample(x: Tensor, factor: int) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=factor, mode="trilinear", align_corners=True)
