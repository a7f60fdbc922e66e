"""RobustSeg with one prediction per modality, written down layer by layer: what the lean network is compared with."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from gss_train.models import RobustSeg, SegmentationOutput

_MODALITIES = range(4)


class PlainUnit(nn.Sequential):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> None:
        super().__init__(
            reflecting(in_channels, out_channels, kernel_size, stride),
            nn.InstanceNorm3d(out_channels, eps=1e-6, affine=True),
            nn.LeakyReLU(0.2),
        )


class PlainContentLevel(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.enter = PlainUnit(in_channels, out_channels, stride=stride)
        self.first = PlainUnit(out_channels, out_channels)
        self.second = PlainUnit(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        result: Tensor = x + self.second(self.first(x))
        return result


class PlainContentEncoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [1, width, 2 * width, 4 * width, 8 * width]
        self.levels = nn.ModuleList(
            PlainContentLevel(before, after, stride=1 if before == 1 else 2) for before, after in pairwise(channels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        return features


class PlainStyleEncoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        self.enter = nn.Sequential(reflecting(1, channels[0], 7), nn.ReLU())
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv3d(before, after, 4, stride=2, padding=1, padding_mode="reflect"), nn.ReLU())
            for before, after in pairwise(channels)
        )
        self.leave = nn.Conv3d(channels[-1], 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for level in self.levels:
            x = level(x)
        style: Tensor = self.leave(x.mean((2, 3, 4), keepdim=True)).flatten(1)
        return style


class PlainStyleMapping(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(8, channels), nn.ReLU(), nn.Linear(channels, channels), nn.ReLU())
        self.scale = nn.Linear(channels, channels)
        self.shift = nn.Linear(channels, channels)

    def forward(self, style: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.hidden(style)
        return self.scale(hidden), self.shift(hidden)


class PlainAdaptiveBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = reflecting(channels, channels, 3)
        self.second = reflecting(channels, channels, 3)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        hidden = torch.relu(adaptive_instance_norm(self.first(x), scale, shift))
        return x + adaptive_instance_norm(self.second(hidden), scale, shift)


class PlainImageDecoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        channels = [8 * width, 4 * width, 2 * width, width]
        self.blocks = nn.ModuleList(PlainAdaptiveBlock(channels[0]) for _ in range(4))
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Upsample(scale_factor=2), reflecting(before, after, 5), nn.GroupNorm(1, after, eps=1e-12), nn.ReLU()
            )
            for before, after in pairwise(channels)
        )

    def forward(self, content: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        x = content
        for block in self.blocks:
            x = block(x, scale, shift)
        for level in self.levels:
            x = level(x)
        return x


class PlainFusion(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(
            reflecting(4 * channels, 4, 3), nn.InstanceNorm3d(4, eps=1e-6, affine=True), nn.Sigmoid()
        )
        self.squeeze = PlainUnit(4 * channels, channels, kernel_size=1)

    def forward(self, features: list[Tensor], fused_modalities: Tensor) -> Tensor:
        kept = [feature * fused_modalities[:, m, None, None, None, None] for m, feature in enumerate(features)]
        gates = self.attention(torch.cat(kept, dim=1))
        gated = [feature * gates[:, m : m + 1] for m, feature in enumerate(kept)]
        fused: Tensor = self.squeeze(torch.cat(gated, dim=1))
        return fused


class PlainMaskDecoder(nn.Module):
    def __init__(self, width: int, num_categories: int) -> None:
        super().__init__()
        channels = [width, 2 * width, 4 * width]
        self.rises = nn.ModuleList(
            nn.Sequential(nn.Upsample(scale_factor=2), PlainUnit(2 * count, count)) for count in channels
        )
        self.merges = nn.ModuleList(PlainUnit(2 * count, count) for count in channels)
        self.leaves = nn.ModuleList(PlainUnit(count, count, kernel_size=1) for count in channels)
        self.classify = nn.Conv3d(width, num_categories, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for index in (2, 1, 0):
            x = self.merges[index](torch.cat((self.rises[index](x), features[index]), dim=1))
            x = self.leaves[index](x)
        logits: Tensor = self.classify(x)
        return logits


class PlainRobustSeg(nn.Module):
    """Takes and returns what `gss_train.models.robustseg.RobustSeg` does."""

    def __init__(self, num_categories: int, *, width: int = 16) -> None:
        super().__init__()
        self.content_encoders = nn.ModuleList(PlainContentEncoder(width) for _ in _MODALITIES)
        self.style_encoders = nn.ModuleList(PlainStyleEncoder(width) for _ in _MODALITIES)
        self.style_mappings = nn.ModuleList(PlainStyleMapping(8 * width) for _ in _MODALITIES)
        self.image_decoders = nn.ModuleList(PlainImageDecoder(width) for _ in _MODALITIES)
        self.image_head = reflecting(width, 1, 7)
        self.fusions = nn.ModuleList(PlainFusion(width * 2**level) for level in range(4))
        self.mask_decoder = PlainMaskDecoder(width, num_categories)
        self.separate_decoder = PlainMaskDecoder(width, num_categories)

    def forward(
        self,
        x: Tensor,
        fused_modalities: Tensor,
        available: Tensor | None = None,
        per_modality: bool | None = None,
    ) -> SegmentationOutput:
        if available is None:
            available = torch.ones_like(fused_modalities)
        x = torch.where(available[:, :, None, None, None], x, 0)
        contents = [encoder(x[:, m : m + 1]) for m, encoder in enumerate(self.content_encoders)]
        fused = [
            fusion([content[level] for content in contents], fused_modalities)
            for level, fusion in enumerate(self.fusions)
        ]
        logits = self.mask_decoder(fused)
        if not (self.training if per_modality is None else per_modality):
            return SegmentationOutput(logits, None, None, logits.new_zeros(()))
        separate = tuple(self.separate_decoder(content) for content in contents)
        return SegmentationOutput(logits, separate, None, self._regularise(x, fused[-1], available))

    def _regularise(self, x: Tensor, content: Tensor, available: Tensor) -> Tensor:
        terms = []
        for m in _MODALITIES:
            scale, shift = self.style_mappings[m](self.style_encoders[m](x[:, m : m + 1]))
            image = self.image_head(self.image_decoders[m](content, scale, shift))
            error = (image[:, 0] - x[:, m]).abs().mean((1, 2, 3))
            divergence = 0.5 * (scale**2 + shift**2 - 1 - torch.log(shift**2)).sum(1)
            terms.append(0.1 * error + 0.1 * divergence)
        return (4 * (torch.stack(terms, dim=1) * available).sum(1) / available.sum(1)).mean()


def reflecting(in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Conv3d:
    padding = kernel_size // 2
    return nn.Conv3d(in_channels, out_channels, kernel_size, stride=stride, padding=padding, padding_mode="reflect")


def adaptive_instance_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    mean = x.mean((2, 3, 4), keepdim=True)
    variance = x.var((2, 3, 4), keepdim=True, unbiased=False)
    normalised = (x - mean) / torch.sqrt(variance + 1e-5)
    return scale[:, :, None, None, None] * normalised + shift[:, :, None, None, None]


def copy_weights(lean: RobustSeg, plain: PlainRobustSeg) -> None:
    """Give the lean network the plain one's weights."""
    values = plain.state_dict()
    with torch.no_grad():
        for name, parameter in lean.named_parameters():
            parameter.copy_(torch.cat([values[key] for key in plain_keys(name)]).view_as(parameter))


_UNIT_KINDS = {"convolution.weight": "0.weight", "convolution.bias": "0.bias", "scale": "1.weight", "shift": "1.bias"}


def plain_keys(name: str) -> tuple[str, ...]:
    """The plain parameters that lie one after the other on the first axis of a lean network's parameter."""
    part, *rest = name.split(".")
    match part, rest:
        case "encoder", [level, unit, *kind]:
            return tuple(f"content_encoders.{m}.levels.{level}.{unit}.{_unit_key(kind)}" for m in _MODALITIES)
        case "fusions", [level, "squeeze", *kind]:
            return (f"fusions.{level}.squeeze.{_unit_key(kind)}",)
        case "fusions", [level, *kind]:
            key = _UNIT_KINDS[".".join(kind).replace("attention", "convolution")]
            return (f"fusions.{level}.attention.{key}",)
        case (("mask_decoder" | "separate_decoder"), ["levels", level, unit, *kind]):
            plural = {"rise": f"rises.{level}.1", "merge": f"merges.{level}", "leave": f"leaves.{level}"}[unit]
            return (f"{part}.{plural}.{_unit_key(kind)}",)
        case "style_encoders", [modality, "enter", kind]:
            return (f"{part}.{modality}.enter.0.{kind}",)
        case "style_encoders", [modality, "levels", level, kind]:
            return (f"{part}.{modality}.levels.{level}.0.{kind}",)
        case "image_decoders", [modality, ("levels" | "norms") as layer, level, kind]:
            return (f"{part}.{modality}.levels.{level}.{1 if layer == 'levels' else 2}.{kind}",)
    return (name,)


def _unit_key(kind: list[str]) -> str:
    return _UNIT_KINDS[".".join(kind)]
